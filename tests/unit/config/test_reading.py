"""Plain JSON read by the quick way: as the thorough one reads it, or not at all."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_manifold.config import reading, syntax
from mcp_manifold.config.spans import MAX_DEPTH, Malformed
from tests.unit.config.test_syntax import DOCUMENTS


def said(text: str, *, quickly: bool) -> object:
    """What is read, with its types; or why nothing is."""
    try:
        return repr((reading if quickly else syntax).parse(text).data)
    except Malformed as exc:
        return (exc.reason, exc.place)


@given(DOCUMENTS, st.booleans(), st.sampled_from([None, 1]))
def test_plain_json_is_read_alike_and_has_the_same_places(data: object, ascii_only: bool, indent: int | None) -> None:
    text = json.dumps(data, ensure_ascii=ascii_only, indent=indent)
    assert said(text, quickly=True) == said(text, quickly=False)
    assert dict(reading.parse(text).spots) == dict(syntax.parse(text).spots)


@given(st.text(alphabet="{}[]:,\"'\\ \n/*abu0123.-+eEdD", max_size=24))
def test_any_text_is_read_or_refused_alike(text: str) -> None:
    assert said(text, quickly=True) == said(text, quickly=False)


@pytest.mark.parametrize(
    "text",
    [
        '{"a": 1, "a": 2}',
        '{"a": 1, "\\u0061": 2}',
        '{"a": NaN}',
        '{"a": -Infinity}',
        '{"a": 1e999}',
        '{"a": ' + "1" * 401 + "}",
        '{"a": "\\ud83d"}',
        '{"a": "\\ud83d\\ude00"}',
        '{"a": 1} // said',
        "[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1),
        "[" * MAX_DEPTH + "]" * MAX_DEPTH,
        "[" * 100_000,
        "",
        "\ufeff{}",
        '{"a": "\x00"}',
        '{"a": "\u2028"}',
    ],
)
def test_what_the_quick_way_must_not_decide_is_decided_alike(text: str) -> None:
    assert said(text, quickly=True) == said(text, quickly=False)
