"""One JSON value as bytes: its type, its members, a string inside it read or replaced. Pure.

Only the values that are named here are parsed. Everything around them is written back as received, so numbers of any
size, key order and unknown members survive.
"""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Final

import msgspec

from mcp_manifold.errors import InvalidParams
from mcp_manifold.wire.protocol import META_PREFIX

Payload = msgspec.Raw
"""The JSON text of one value, unparsed. A view on the received bytes where possible."""

EMPTY: Final = Payload(b"{}")
RELATED_TASK: Final = ("_meta", META_PREFIX + "related-task", "taskId")
"""Path of the task id in any message (2025-11-25 basic/utilities/tasks, "Related Task Metadata")."""

MAX_MEMBERS: Final = 10_000
"""Members of one object of a large text that are parsed: more would hold the event loop."""
CROWD: Final = 1 << 18
"""Bytes from which members are counted: smaller objects are parsed quickly, whatever is in them."""

_SPACE: Final = re.compile(rb"[ \t\r\n]*")
_KEY: Final = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"')
_ESCAPE: Final = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(u[dD][89a-fA-F][0-9a-fA-F]{2})|.)", re.DOTALL
)
"""An escape sequence in a JSON string; the group is a lone surrogate."""
_OBJECT_START: Final = ord("{")

_decode_members = msgspec.json.Decoder(dict[str, Payload]).decode
_decode_text = msgspec.json.Decoder(str).decode
_decode_items = msgspec.json.Decoder(list[Payload]).decode
_decode_texts = msgspec.json.Decoder(list[str]).decode
encode = msgspec.json.Encoder().encode
"""JSON text of plain values; `Payload` members are written as they are."""


def first_byte(payload: Payload) -> bytes:
    """The first byte of a payload, which identifies its JSON type."""
    return memoryview(payload)[:1].tobytes()


def is_object(payload: Payload) -> bool:
    """Whether the payload is a JSON object."""
    return memoryview(payload)[0] == _OBJECT_START


def text(payload: Payload | None, what: str) -> str:
    """The string in a payload that a client sent.

    Raises:
        InvalidParams: the payload is absent or not a string; the message names `what`.
    """
    if payload is None:
        raise InvalidParams(f'Invalid params: "{what}" is missing')
    try:
        return _decode_text(payload)
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise InvalidParams(f'Invalid params: "{what}" must be a string') from exc


def texts(payload: Payload, what: str) -> list[str]:
    """The strings in a list that a client sent.

    Raises:
        InvalidParams: the payload is not a list of strings, or a very long one; the message names `what`.
    """
    if bytes(payload).count(b'"') > 2 * MAX_MEMBERS:
        raise InvalidParams(f'Invalid params: "{what}" must be a list of at most {MAX_MEMBERS} strings')
    try:
        return _decode_texts(payload)
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise InvalidParams(f'Invalid params: "{what}" must be a list of strings') from exc


class _Key:
    """Stands for any key."""

    __slots__ = ()


class _Enough(Exception):
    """There are more members than asked for."""


def first_keys(value: bytes | Payload, most: int) -> list[str]:
    """The first keys of an object in order, duplicates included, up to one more than `most`. Parses no value.

    Raises:
        msgspec.DecodeError: the value is not an object.
    """
    found: list[str] = []
    anything = _Key()

    def seen(_: type, key: str) -> _Key:
        found.append(key)
        if len(found) > most:
            raise _Enough
        return anything

    with suppress(_Enough):
        msgspec.json.Decoder(dict[_Key, Payload], dec_hook=seen).decode(value)
    return found


def may_be_crowded(data: bytes | Payload) -> bool:
    """Whether an object in `data` may have more than `MAX_MEMBERS`. A quick test: only False is certain."""
    if len(data) <= CROWD:
        return False
    text, at = bytes(data), -1
    for _ in range(MAX_MEMBERS + 1):
        at = text.find(b":", at + 1)  # much faster in long strings than `count` is
        if at < 0:
            return False
    return True


def is_crowded(value: Payload) -> bool:
    """Whether the value is an object with more than `MAX_MEMBERS` members."""
    return may_be_crowded(value) and is_object(value) and len(first_keys(value, MAX_MEMBERS)) > MAX_MEMBERS


def loose_members(value: Payload) -> dict[str, Payload]:
    """The members of an object from a backend, each as raw text. Accepts some invalid JSON (see `walk_members`).

    Raises:
        ValueError: the value is not an object, has more than `MAX_MEMBERS`, or a key in it is not valid text.
        RecursionError: the value is nested too deeply.
    """
    try:
        if len(value) > CROWD and is_crowded(value):
            raise ValueError("too many members")
        return _decode_members(value)
    except (msgspec.DecodeError, UnicodeDecodeError):
        data = bytes(value)
        found = {key: Payload(data[start:end]) for key, start, end in walk_members(data)}
        "".join(found).encode()  # raises for a key with a lone surrogate, which cannot be written again
        return found


def object_members(value: Payload | None) -> dict[str, Payload]:
    """The members of an object, each as raw text; empty when the value is absent, not an object or unreadable."""
    if value is None:
        return {}
    try:
        return loose_members(value)
    except (ValueError, RecursionError):
        return {}


def text_at(value: Payload | None, *path: str) -> str | None:
    """The string at a path of member names; None when there is no string."""
    for key in path:
        value = object_members(value).get(key)
    if value is None or first_byte(value) != b'"':
        return None
    try:
        return _decode_text(value)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def with_text_at(value: Payload, text: str, *path: str) -> Payload:
    """`value` with the string at a path replaced; unchanged when the path does not exist."""
    if not path:
        return Payload(encode(text))
    members = object_members(value)
    if path[0] not in members:
        return value
    return Payload(encode({**members, path[0]: with_text_at(members[path[0]], text, *path[1:])}))


def renamed(value: Payload, old: str, new: str, *paths: tuple[str, ...]) -> Payload:
    """`value` with the string `old` replaced by `new` at each of the paths."""
    for path in paths:
        if text_at(value, *path) == old:
            value = with_text_at(value, new, *path)
    return value


_TRAILING: Final = re.compile(r"trailing characters \(byte (\d+)\)")
_VALID: Final = bytes(32 if byte < 32 else byte for byte in range(256))
"""Translates control characters to spaces."""
_MAX_WALKED: Final = 4_000
"""Members that `walk_members` finds: each takes longer than in a parse."""
_LONG: Final = 1 << 16
"""Bytes of a text whose values are skipped natively: building them would hold the event loop."""
_skip = msgspec.json.Decoder(Payload).decode
_scan = json.JSONDecoder(strict=False, parse_int=str, parse_float=str).raw_decode  # accepts numbers of any length


def walk_members(data: bytes) -> Iterator[tuple[str, int, int]]:
    """The top-level members of an object in order, duplicates included: (key, start, end) of each value.

    Accepts what strict JSON forbids but some servers send: lone surrogates, NaN, control characters.

    Raises:
        ValueError: `data` is not an object, or has more than `_MAX_WALKED` members.
        RecursionError: a value is nested too deeply.
    """
    count = 0
    end_of = _natively(data) if len(data) > _LONG else _scanning(data)
    at = _skip_space(data, 0)
    if data[at : at + 1] != b"{":
        raise ValueError("not an object")
    at = _skip_space(data, at + 1)
    while data[at : at + 1] != b"}":
        key = _KEY.match(data, at)
        if key is None:
            raise ValueError("not a member")
        colon = _skip_space(data, key.end())
        if data[colon : colon + 1] != b":":
            raise ValueError("no colon")
        start = _skip_space(data, colon + 1)
        end = end_of(start)
        count += 1
        if count > _MAX_WALKED:
            raise ValueError("too many members")
        yield json.loads(key.group(), strict=False), start, end
        at = _skip_space(data, end)
        if data[at : at + 1] == b",":
            at = _skip_space(data, at + 1)
        elif data[at : at + 1] != b"}":
            raise ValueError("no comma")


def loose_items(value: Payload) -> list[Payload]:
    """The items of a list from a backend, each as raw text. Accepts the same invalid JSON as `walk_members`.

    Raises:
        ValueError: the value is not a list.
        RecursionError: an item is nested too deeply.
    """
    try:
        return _decode_items(value)
    except (msgspec.DecodeError, UnicodeDecodeError):
        data = bytes(value)
    source, at = data.decode("latin-1"), _skip_space(data, 1)
    if data[:1] != b"[":
        raise ValueError("not a list")
    found: list[Payload] = []
    while data[at : at + 1] != b"]":
        _, end = _scan(source, at)
        found.append(Payload(data[at:end]))
        at = _skip_space(data, end)
        if data[at : at + 1] == b",":
            at = _skip_space(data, at + 1)
        elif data[at : at + 1] != b"]":
            raise ValueError("no comma")
    return found


def without_lone_surrogates(data: bytes) -> bytes:
    """JSON text with U+FFFD for each lone surrogate; the same object when there is none."""
    if b"\\ud" not in data and b"\\uD" not in data:
        return data
    changed = _ESCAPE.sub(lambda found: rb"\ufffd" if found[1] else found[0], data)
    return data if changed == data else changed


def has_odd_key(data: bytes) -> bool:
    """Whether a key at any depth of the JSON text contains a lone surrogate."""
    for found in _KEY.finditer(data):
        key, after = found.group(), _skip_space(data, found.end())
        if data[after : after + 1] == b":" and without_lone_surrogates(key) is not key:
            return True
    return False


def _scanning(data: bytes) -> Callable[[int], int]:
    """A function that finds the end of the value at an offset by building the value."""
    source = data.decode("latin-1")  # one character per byte, so that offsets are byte offsets
    return lambda start: _scan(source, start)[1]


def _natively(data: bytes) -> Callable[[int], int]:
    """A function that finds the end of the value at an offset without building it, in a copy made valid JSON."""
    plain = data.translate(_VALID).replace(b"NaN", b"0.0").replace(b"Infinity", b"0.000000")
    copy = memoryview(plain.replace(b"\\ud", b"\\u0").replace(b"\\uD", b"\\u0"))  # lone surrogates

    def end_of(start: int) -> int:
        try:
            _skip(copy[start:])
        except msgspec.DecodeError as exc:
            found = _TRAILING.search(str(exc))  # counted from 1, after the space that follows the value
            if found is None:
                raise
            return start + len(bytes(copy[start : start + int(found[1]) - 1]).rstrip())
        return len(data)

    return end_of


def _skip_space(data: bytes, at: int) -> int:
    found = _SPACE.match(data, at)
    return found.end() if found else at
