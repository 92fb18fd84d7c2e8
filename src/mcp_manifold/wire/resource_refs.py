"""The resource URIs inside results: found, and replaced where clients know them by another spelling.

A result is searched for the word first, or where that takes longer its blocks are asked for their types, and it is
taken apart only if there may be any. Blocks of unknown types pass untouched.
"""

import operator
from collections.abc import Callable, Generator, Mapping
from typing import Final

import msgspec

from mcp_manifold.wire.envelope import LARGE, Payload, encode
from mcp_manifold.wire.paths import text_at, with_text_at
from mcp_manifold.wire.result_view import ResultView

_decode_members = msgspec.json.Decoder(dict[str, Payload]).decode
_decode_list = msgspec.json.Decoder(list[Payload]).decode
_decode_text = msgspec.json.Decoder(str).decode

LONG: Final = 131_072
"""Bytes from which on a result is to be mapped in steps: all at once could take longer than others should wait."""
_STEP: Final = 256
"""Blocks of one step: some milliseconds where each is a link."""


class _Block(msgspec.Struct, gc=False):
    type: str = ""


class _ToolResult(msgspec.Struct):
    content: tuple[_Block, ...] = ()


_decode_tool_result = msgspec.json.Decoder(_ToolResult).decode
_LINKING: Final = frozenset({"resource_link", "resource"})

Steps = Generator[None, None, Payload]
"""The mapping of one result, in pieces; what it returns is the result."""


def may_hold_refs(result: Payload) -> bool:
    """Whether a URI can be in a result; a cheap look at one that is short."""
    return len(result) >= LARGE or bytes(result).find(b'"uri"') >= 0


def map_resource_refs(
    method: str, result: Payload, public: Callable[[str], str], look: ResultView | None = None
) -> Payload:
    """`result` with every URI that stands for a resource passed through `public`; itself where nothing changes.

    Looked at: the blocks of a tool result's `content`, of a prompt's `messages`, and the `contents` of a read
    (2026-07-28 server/resources, server/tools "Resource Links", server/prompts).
    """
    steps = ref_steps(method, result, public, look)
    while True:
        try:
            next(steps)
        except StopIteration as done:
            mapped: Payload = done.value
            return mapped


def ref_steps(method: str, result: Payload, public: Callable[[str], str], look: ResultView | None = None) -> Steps:
    """What `map_resource_refs` does, in steps after each of which others may have their turn."""
    try:
        if not _holds_refs(method, result, look or ResultView(result)):
            return result
        yield
        return (yield from _mapped(method, result, public))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return result  # not of the shape the method promises: nothing in it stands for a resource


def map_error_ref(error: bytes, public: Callable[[str], str]) -> bytes:
    """An error object with the resource its `data.uri` names passed through `public` (server/resources, Errors)."""
    uri = text_at(Payload(error), "data", "uri") if b'"uri"' in error else None
    if uri is None or (shown := public(uri)) == uri:
        return error
    return bytes(with_text_at(Payload(error), shown, "data", "uri"))


def _holds_refs(method: str, result: Payload, look: ResultView) -> bool:
    if method == "tools/call" and len(result) >= LARGE:
        if look.is_plain:
            return False
        try:
            return any(block.type in _LINKING for block in _decode_tool_result(result).content)
        except msgspec.ValidationError:
            pass  # an odd block among others
    return b'"uri"' in look.text


def _mapped(method: str, result: Payload, public: Callable[[str], str]) -> Steps:
    match method:
        case "tools/call":
            return (yield from _each(result, "content", lambda block: _block(block, public)))
        case "prompts/get":
            return (yield from _each(result, "messages", lambda message: _message(message, public)))
        case "resources/read":
            return (yield from _each(result, "contents", lambda content: _renamed(content, public)))
        case _:
            return result


def _message(message: Payload, public: Callable[[str], str]) -> Payload:
    return _inner(message, "content", lambda content: _content(content, public))


def _content(content: Payload, public: Callable[[str], str]) -> Payload:
    """What a prompt's message says: one block or a list of them."""
    if bytes(content)[:1] != b"[":
        return _block(content, public)
    blocks = _decode_list(content)
    return _replaced(content, blocks, [_block(block, public) for block in blocks])


def _block(block: Payload, public: Callable[[str], str]) -> Payload:
    kind = _members(block).get("type")
    if kind is None:
        return block
    match _decode_text(kind):
        case "resource_link":
            return _renamed(block, public)
        case "resource":
            return _inner(block, "resource", lambda resource: _renamed(resource, public))
        case _:
            return block


def _renamed(item: Payload, public: Callable[[str], str]) -> Payload:
    members = _members(item)
    if "uri" not in members:
        return item
    uri = _decode_text(members["uri"])
    told = public(uri)
    return item if told == uri else _object({**members, "uri": Payload(encode(told))})


def _inner(item: Payload, key: str, change: Callable[[Payload], Payload]) -> Payload:
    members = _members(item)
    if key not in members:
        return item
    changed = change(members[key])
    return item if changed is members[key] else _object({**members, key: changed})


def _each(item: Payload, key: str, change: Callable[[Payload], Payload]) -> Steps:
    members = _members(item)
    if key not in members or bytes(members[key])[:1] != b"[":
        return item
    blocks = _decode_list(members[key])
    changed = []
    for number, block in enumerate(blocks, 1):
        changed.append(change(block))
        if number % _STEP == 0:
            yield
    yield
    new = _replaced(members[key], blocks, changed)
    return item if new is members[key] else _object({**members, key: new})


def _replaced(item: Payload, old: list[Payload], new: list[Payload]) -> Payload:
    return item if all(map(operator.is_, old, new)) else Payload(encode(new))


def _members(item: Payload) -> Mapping[str, Payload]:
    return _decode_members(item) if bytes(item)[:1] == b"{" else {}


def _object(members: Mapping[str, Payload]) -> Payload:
    return Payload(encode(members))
