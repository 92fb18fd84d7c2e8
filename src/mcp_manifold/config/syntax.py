"""JSON5 text to plain values, and the place of each in the text. Knows no key by name.

The grammar is that of `json5`; strings are read here. The library undoes escapes in several passes, so that
"C:\\\\xampp" would be refused and "\\\\u0041" become "A". We also refuse what JSON5 allows but nobody means:
"C:\\Users" (an unknown escape), a key given twice, Infinity and NaN.
"""

import math
import re
from collections.abc import Iterator, Mapping
from typing import Final, NoReturn

from json5.model import (
    BooleanLiteral,
    Float,
    Identifier,
    Integer,
    JSONArray,
    JSONObject,
    Key,
    Node,
    NullLiteral,
    String,
    UnaryOp,
)
from json5.model import Value as ValueNode
from json5.parser import JSONParser
from json5.tokenizer import JSON5Token, tokenize
from json5.utils import JSON5DecodeError

from mcp_manifold.config.spans import MAX_DEPTH, MAX_DIGITS, Loc, Malformed, Parsed, SourceSpan, Spot

STRINGS: Final = ("DOUBLE_QUOTE_STRING", "SINGLE_QUOTE_STRING")
NUMBERS: Final = ("INTEGER", "OCTAL", "HEXADECIMAL")
OPENING: Final = ("LBRACE", "LBRACKET")
CLOSING: Final = ("RBRACE", "RBRACKET")
ESCAPE: Final = re.compile(r"\\(u[0-9a-fA-F]{4}|x[0-9a-fA-F]{2}|\r\n|.)", re.DOTALL)
PLAIN_ESCAPES: Final = (("b", "\b"), ("f", "\f"), ("n", "\n"), ("r", "\r"), ("t", "\t"), ("v", "\v"), ("0", "\0"))
EXPECTED: Final = (
    ("RBRACE", '"}"'),
    ("RBRACKET", '"]"'),
    ("COLON", '":"'),
    ("COMMA", '","'),
    ("key", "a key"),
    ("value", "a value"),
)


def parse(text: str) -> Parsed:
    """Read `text`.

    Raises:
        Malformed: it is not JSON5, or names a key twice.
    """
    strings: dict[SourceSpan, str] = {}
    parser = JSONParser()
    parser.error = lambda token: _unexpected(token, parser.expecting, text)  # type: ignore[method-assign]  # no recovery: it invents errors
    try:
        root = parser.parse(_bare(tokenize(text), strings)).value
    except JSON5DecodeError as exc:
        raise _translated(exc, text) from None
    spots: dict[Loc, Spot] = {}
    data = _Reader(strings, spots).read(root, (), _place(root))
    return Parsed(data, spots)


def _bare(tokens: Iterator[JSON5Token], strings: dict[SourceSpan, str]) -> Iterator[JSON5Token]:
    """The tokens with all strings emptied: what they say goes to `strings`, by place."""
    depth = 0
    for token in tokens:
        place = SourceSpan(token.lineno, token.colno + 1)
        depth += (token.type in OPENING) - (token.type in CLOSING)
        if depth > MAX_DEPTH:
            raise Malformed(f"nested more than {MAX_DEPTH} levels deep", place)
        if token.type in NUMBERS and len(token.value) > MAX_DIGITS:
            raise Malformed("a number is too long", place)
        if token.type in STRINGS:
            strings[place] = _unescaped(token.value[1:-1], place)
            token.value = '""'
        yield token


def _unescaped(body: str, place: SourceSpan) -> str:
    """What a string says; `place` is where it begins."""
    if re.search(r"[\r\n]", ESCAPE.sub("", body)):
        raise Malformed("the string that begins here is not closed on its line", place)
    try:
        text = ESCAPE.sub(lambda found: _character(found[1], place), body)
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le")  # joins surrogate pairs
    except UnicodeDecodeError:
        raise Malformed("the string that begins here has half a surrogate pair", place) from None


def _character(escape: str, place: SourceSpan) -> str:
    if len(escape) > 2:
        return chr(int(escape[1:], 16))
    if escape in "\r\n\u2028\u2029":
        return ""
    plain = dict(PLAIN_ESCAPES).get(escape)
    if plain is None and escape.isalnum():
        raise Malformed(rf'the string that begins here has an unknown escape "\{escape}"; a backslash is "\\"', place)
    return escape if plain is None else plain


def _unexpected(token: JSON5Token | None, expecting: list[list[str]], text: str) -> NoReturn:
    names = dict(EXPECTED)
    wanted = " or ".join(names.get(name, name) for name in expecting[-1]) if expecting else "the end of the file"
    if token is None:
        too_early = f"the file ends too early: expected {wanted if expecting else 'a value'}"
        raise Malformed(too_early if text.strip() else "the file is empty", _end(text))
    if token.type in ("UNTERMINATED_DOUBLE_QUOTE_STRING", "UNTERMINATED_SINGLE_QUOTE_STRING"):
        raise Malformed("the string that begins here is never closed", _at(text, token.index))
    raise Malformed(f"expected {wanted}", _at(text, token.index))


def _translated(exc: JSON5DecodeError, text: str) -> Malformed:
    """The library's own complaints, without the text around them: it may be a secret."""
    if exc.token is not None:
        reasons = {"COMMA": "one comma too many", "NAME": "expected a key"}
        return Malformed(reasons.get(exc.token.type or "", "expected a decimal number"), _at(text, exc.token.index))
    found = re.search(r"Illegal character .* at index (\d+)", exc.msg, re.DOTALL)
    return Malformed("unexpected character", _at(text, int(found[1])) if found else _end(text))


def _at(text: str, index: int) -> SourceSpan:
    return SourceSpan(text.count("\n", 0, index) + 1, index - text.rfind("\n", 0, index))


def _end(text: str) -> SourceSpan:
    return _at(text, len(text.rstrip()))


def _place(node: Node) -> SourceSpan:
    return SourceSpan(node.lineno or 1, (node.col_offset or 0) + 1)


class _Reader:
    """Turns nodes into values, and notes where each is."""

    def __init__(self, strings: Mapping[SourceSpan, str], spots: dict[Loc, Spot]) -> None:
        self._strings = strings
        self._spots = spots

    def __repr__(self) -> str:
        return f"<_Reader {len(self._spots)} values>"

    def read(self, node: ValueNode, loc: Loc, key: SourceSpan) -> object:
        """The value of `node`; its key, if any, is at `key`."""
        place = _place(node)
        self._spots[loc] = Spot(key, place)
        match node:
            case JSONObject():
                return self._object(node, loc)
            case JSONArray():
                return [self.read(item, (*loc, index), _place(item)) for index, item in enumerate(node.values)]
            case String():
                return self._strings[place]
            case NullLiteral():
                return None
            case BooleanLiteral() | Integer():
                return node.value
            case Float() if math.isfinite(node.value):
                return node.value
            case UnaryOp():
                number = self.read(node.value, loc, key)
                self._spots[loc] = Spot(key, place)
                return -number if node.op == "-" and isinstance(number, int | float) else number
            case _:
                raise Malformed("expected a finite number", place)

    def _object(self, node: JSONObject, loc: Loc) -> dict[str, object]:
        out: dict[str, object] = {}
        for pair in node.key_value_pairs:
            key, place = self._key(pair.key), _place(pair.key)
            if key in out:
                raise Malformed(
                    f'the key "{key}" is given twice, first in line {self._spots[*loc, key].key.line}', place
                )
            out[key] = self.read(pair.value, (*loc, key), place)
        return out

    def _key(self, node: Key) -> str:
        return node.name if isinstance(node, Identifier) else self._strings[_place(node)]
