"""Cursors: valid for one list while their entry exists; refused otherwise."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_manifold.errors import InvalidParams
from mcp_manifold.model.catalogue.cursors import Cursors

KEYS = tuple("abcdefgh")


@given(st.lists(st.text(max_size=40), min_size=1, max_size=30, unique=True), st.data())
def test_a_cursor_continues_after_its_entry(keys: list[str], data: st.DataObject) -> None:
    cursors = Cursors()
    end = data.draw(st.integers(1, len(keys)))
    assert cursors.index("tool ", keys, cursors.after("tool ", keys, end)) == end


@given(st.permutations(KEYS), st.integers(1, len(KEYS)))
def test_a_cursor_follows_its_entry_when_the_list_changes(now: list[str], end: int) -> None:
    cursors = Cursors()
    cursor = cursors.after("tool ", KEYS, end)
    assert cursors.index("tool ", now, cursor) == now.index(KEYS[end - 1]) + 1
    gone = [key for key in now if key != KEYS[end - 1]]
    with pytest.raises(InvalidParams, match="has changed"):
        cursors.index("tool ", gone, cursor)


@given(st.integers(0, 31), st.integers(1, 255))
def test_a_changed_byte_is_detected(at: int, by: int) -> None:
    cursors = Cursors()
    raw = bytearray(base64.urlsafe_b64decode(cursors.after("tool ", KEYS, 3)))
    raw[at] ^= by
    with pytest.raises(InvalidParams, match="not issued for this list"):
        cursors.index("tool ", KEYS, base64.urlsafe_b64encode(bytes(raw)).decode())


@pytest.mark.parametrize("cursor", ["", "x", "====", "\ud800", "é", "A" * 44, "A" * 10_000, "a b"])
def test_an_arbitrary_string_is_refused(cursor: str) -> None:
    with pytest.raises(InvalidParams):
        Cursors().index("tool ", KEYS, cursor)


def test_a_cursor_is_valid_for_one_list_endpoint_and_process() -> None:
    cursors = Cursors()
    cursor = cursors.after("tool ", KEYS, 3)
    for others, what in ((cursors, "prompt "), (cursors, "tool server:a"), (Cursors(), "tool ")):
        with pytest.raises(InvalidParams):
            others.index(what, KEYS, cursor)
