"""JSON as text: slices of members and elements, exactly as they were written. Knows no JSON-RPC, re-encodes nothing.

Reading is by brackets and quotes alone, so text that strict JSON forbids (lone surrogates, NaN, any depth) is
sliced too.
"""

import json
import re
from typing import Any, Final

_SPACE: Final = re.compile(rb"[ \t\r\n]*")
_STRING: Final = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_SCALAR: Final = re.compile(rb"[^,\]}\s]+")
_MARK: Final = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{}]', re.DOTALL)


def walk(data: bytes) -> list[tuple[str, bytes]]:
    """The members of an object in order, duplicates included, each value as written.

    Raises:
        ValueError: `data` is not an object.
    """
    return [(key, data[start:end]) for key, start, end in _spans(data)]


def _spans(data: bytes) -> list[tuple[str, int, int]]:
    found: list[tuple[str, int, int]] = []
    at = _opening(data, b"{")
    while data[at : at + 1] != b"}":
        key = _STRING.match(data, at)
        colon = _skip(data, key.end()) if key else at
        if key is None or data[colon : colon + 1] != b":":
            raise ValueError("not a member")
        start = _skip(data, colon + 1)
        end = _value_end(data, start)
        found.append((json.loads(key.group()), start, end))
        at = _next(data, end, b"}")
    return found


def elements(data: bytes) -> list[bytes]:
    """The elements of an array, each as written.

    Raises:
        ValueError: `data` is not an array.
    """
    found: list[bytes] = []
    at = _opening(data, b"[")
    while data[at : at + 1] != b"]":
        end = _value_end(data, at)
        found.append(data[at:end])
        at = _next(data, end, b"]")
    return found


def member(data: bytes | None, *path: str) -> bytes | None:
    """The value at a path of member names, as written; None where the path ends early. The last duplicate wins."""
    for key in path:
        if data is None or data.lstrip()[:1] != b"{":
            return None
        data = dict(walk(data)).get(key)
    return data


def with_members(data: bytes, extra: bytes) -> bytes:
    """The object `data` with the members `extra` (text, without braces) put first."""
    at = _opening(data, b"{")
    rest = data[at:]
    return b"{" + extra + (rest if rest[:1] == b"}" or not extra else b"," + rest)


def with_value(data: bytes, name: str, new: bytes) -> bytes:
    """The object `data` with the (last) member `name` given another value; everything else stays as written."""
    start, end = next((start, end) for key, start, end in reversed(_spans(data)) if key == name)
    return data[:start] + new + data[end:]


def value(data: bytes | None) -> Any:
    """The value of JSON text, read leniently; None for None."""
    if data is None:
        return None
    return json.loads(data.decode("utf-8", "surrogateescape"), strict=False)


def text(thing: object) -> bytes:
    """Compact JSON text of a plain value, ASCII only."""
    return json.dumps(thing, separators=(",", ":")).encode()


def _opening(data: bytes, bracket: bytes) -> int:
    at = _skip(data, 0)
    if data[at : at + 1] != bracket:
        raise ValueError("not an object" if bracket == b"{" else "not an array")
    return _skip(data, at + 1)


def _next(data: bytes, end: int, closing: bytes) -> int:
    at = _skip(data, end)
    if data[at : at + 1] == b",":
        return _skip(data, at + 1)
    if data[at : at + 1] != closing:
        raise ValueError("neither a comma nor the end")
    return at


def _value_end(data: bytes, start: int) -> int:
    first = data[start : start + 1]
    if first and first in b"{[":
        return _closing(data, start)
    found = (_STRING if first == b'"' else _SCALAR).match(data, start)
    if found is None:
        raise ValueError("not a value")
    return found.end()


def _closing(data: bytes, start: int) -> int:
    depth = 0
    for mark in _MARK.finditer(data, start):
        token = mark.group()
        if token in (b"{", b"["):
            depth += 1
        elif token in (b"}", b"]"):
            depth -= 1
            if depth == 0:
                return mark.end()
    raise ValueError("a bracket is never closed")


def _skip(data: bytes, at: int) -> int:
    found = _SPACE.match(data, at)
    return found.end() if found else at
