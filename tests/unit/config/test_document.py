"""Reading JSON5 text: values, places, faults, and the time it takes."""

import json
import re
import sys
from collections.abc import Callable
from types import FrameType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcp_manifold.config import document
from mcp_manifold.config.document import MAX_NESTING, SourceSpan, parse_tree

SCALARS = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.text() | st.floats(allow_nan=False, width=32)
DOCUMENTS = st.recursive(
    SCALARS.filter(lambda value: value not in (float("inf"), float("-inf"))),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(DOCUMENTS, st.booleans(), st.sampled_from([None, 1]))
def test_json_is_read_as_the_json_module_reads_it(data: object, ascii_only: bool, indent: int | None) -> None:
    text = json.dumps(data, ensure_ascii=ascii_only, indent=indent)
    assert parse_tree(text).data == data


@given(st.text(alphabet="{}[]:,\"'\\ \n/*abu0123.-+e@", max_size=24))
def test_any_text_is_read_or_refused_with_a_place_inside_it(text: str) -> None:
    for _, place in parse_tree(text).faults:
        assert 1 <= place.line <= text.count("\n") + 1
        assert 1 <= place.column <= len(text) + 1


@pytest.mark.parametrize(
    ("text", "data"),
    [
        (
            "// first\n{a: 'it\\'s', /* and */ \"b\": [-2, +3, .5, 0x10,],}\n// last",
            {"a": "it's", "b": [-2, 3, 0.5, 16]},
        ),
        (r'{"a": "C:\\xampp\\u0041", "b": "\ud83d\ude00"}', {"a": r"C:\xampp\u0041", "b": "\U0001f600"}),
        ('{"a": "one \\\ntwo \\\r\nthree", "b": "\\x41\\0"}', {"a": "one two three", "b": "A\0"}),
    ],
    ids=["json5", "backslashes", "continued"],
)
def test_json5_is_accepted(text: str, data: object) -> None:
    assert parse_tree(text).data == data


def test_every_value_and_key_has_its_place() -> None:
    places = parse_tree('{\n  "a": {"b": [10,\n    20]}\n}').places
    assert places[("a",)] == (SourceSpan(2, 3), SourceSpan(2, 8))
    assert places["a", "b", 0] == (SourceSpan(2, 15), SourceSpan(2, 15))
    assert places["a", "b", 1] == (SourceSpan(3, 5), SourceSpan(3, 5))


@pytest.mark.parametrize(
    ("text", "reason", "line", "column"),
    [
        ("", "the file is empty", 1, 1),
        ("// nothing\n", "the file ends too early: expected a value", 1, 11),
        ('{\n  "a": 1\n', 'the file ends too early: expected "," or "}"', 2, 9),
        ("{", 'the file ends too early: expected "}" or a key', 1, 2),
        ('{\n  "a": 1\n  "b": 2\n}', 'expected "," or "}"', 3, 3),
        ('{"a" 1}', 'expected ":"', 1, 6),
        ('{"a": tru}', "expected a value", 1, 7),
        ('{"a": 1,, "b": 2}', "one comma too many", 1, 8),
        ('{"a": 1}}', "expected the end of the file", 1, 9),
        ("{1: 2}", 'expected "}" or a key', 1, 2),
        ('{"a": "x,\n "b": 1}', "the string that begins here is not closed on its line", 1, 7),
        ('{"a": "x', "the string that begins here is never closed", 1, 7),
        ('{"a": @}', "unexpected character", 1, 7),
        ('{"a": 010}', "expected a decimal number", 1, 7),
        ('{"a": Infinity}', "expected a finite number", 1, 7),
        ('{"a": -NaN}', "expected a finite number", 1, 8),
        ('{"a": 1e999}', "expected a finite number", 1, 7),
        ('{"a": ' + "9" * 5000 + "}", "a number is too long", 1, 7),
        (r'{"a": "C:\Users"}', r'the string that begins here has an unknown escape "\U"; a backslash is "\\"', 1, 7),
        (r'{"a": "\ud800"}', "the string that begins here has half a surrogate pair", 1, 7),
        ("[" * 100, f"nested more than {MAX_NESTING} levels deep", 1, MAX_NESTING + 1),
        ('{"a": 1,\n "a": 2}', 'the key "a" is given twice, first in line 1', 2, 2),
        ('{a: 1, "a": 2}', 'the key "a" is given twice, first in line 1', 1, 8),
    ],
)
def test_malformed_text_is_refused_where_it_goes_wrong(text: str, reason: str, line: int, column: int) -> None:
    assert parse_tree(text).faults == ((reason, SourceSpan(line, column)),)


def test_faults_of_single_values_do_not_hide_each_other_nor_a_syntax_error() -> None:
    tree = parse_tree('{"a": "C:\\Users", "b": NaN, "b": 010,\n "c": }')
    assert [(place.line, place.column) for _, place in tree.faults] == [(1, 7), (1, 24), (1, 29), (1, 34), (2, 7)]
    assert tree.data is None


SHAPES: dict[str, Callable[[int], str]] = {
    "an unclosed comment": lambda n: '{"a": 1, /*' + " x\n" * n,
    "an unclosed comment after many closed ones": lambda n: "/* x */" * n + "/*" + "*" * n,
    "an unclosed string": lambda n: '{"a": "' + "x\\n" * n,
    "a long string": lambda n: '{"a": "' + "x" * n + '"}',
    "many escapes": lambda n: '{"a": "' + "\\u0041" * n + '"}',
    "many commas": lambda n: "[" + "1," * n + "]",
    "too many commas": lambda n: "[" + "," * n + "]",
    "deep nesting": lambda n: "[" * n + "]" * n,
    "many nested lists": lambda n: "[" + "[[[[[[[[]]]]]]]]," * n + "]",
    "many keys on one line": lambda n: "{" + ",".join(f'"k{i}": {i}' for i in range(n)) + "}",
    "many lines": lambda n: "{" + ",\n".join(f'"k{i}": {i}' for i in range(n)) + "}",
    "the same key": lambda n: "{" + '"a": 1,' * n + "}",
    "white space": lambda n: " \n" * n,
    "long numbers": lambda n: "[" + "9" * n + "]",
    "a long name": lambda n: "x" * n,
    "slashes": lambda n: "//" + "/" * n,
    "quotes": lambda n: "'" * n,
    "backslashes": lambda n: '"' + "\\" * n,
}


def steps(text: str) -> int:
    """The functions that are called to read a text."""
    count = 0

    def called(_: FrameType, event: str, __: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(called)
    try:
        parse_tree(text)
    finally:
        sys.setprofile(before)
    return count


@pytest.mark.parametrize("shape", SHAPES)
def test_reading_twice_as_much_takes_about_twice_the_steps(shape: str) -> None:
    assert steps(SHAPES[shape](4000)) <= 2.1 * steps(SHAPES[shape](2000)) + 50


@given(st.text(alphabet="{}[]:,\"'\\ \n/*a0.-", min_size=1, max_size=6))
@settings(deadline=None)
def test_reading_any_text_repeated_twice_as_often_takes_about_twice_the_steps(text: str) -> None:
    assert steps(text * 800) <= 2.1 * steps(text * 400) + 100


@pytest.mark.parametrize("pattern", [document._TOKEN, document._ESCAPE])
def test_no_pattern_of_the_reader_gives_back_what_a_repetition_took(pattern: re.Pattern[str]) -> None:
    """The steps inside a match cannot be counted. Where every repetition is possessive, they are linear."""
    plain = re.sub(r"\[(?:\\.|[^\]\\])*\]", "x", re.sub(r"\\[*+]", "x", pattern.pattern))
    repetitions = re.findall(r"[*+]+", re.sub(r"\[\w$.*?\]", "x", plain))
    assert {*repetitions} <= {"*+", "++"}


def test_megabytes_after_an_unclosed_comment_are_refused() -> None:
    faults = parse_tree("{" + "/* x\n" * 400_000).faults
    assert faults == (("the comment that begins here is never closed", SourceSpan(1, 2)),)
