"""Resource refs: the resource URIs inside results and errors, replaced by the URIs clients know.

A cheap test decides first whether a result can hold any. Only then is it parsed. Content blocks of unknown types pass
unchanged.
"""

import operator
from collections.abc import Callable, Generator, Mapping
from typing import Final

import msgspec

from mcp_manifold.wire.envelope import LARGE
from mcp_manifold.wire.payload import CROWD, Payload, encode, is_crowded, text_at, with_text_at
from mcp_manifold.wire.result_view import ResultView

_decode_members = msgspec.json.Decoder(dict[str, Payload]).decode
_decode_list = msgspec.json.Decoder(list[Payload]).decode
_decode_text = msgspec.json.Decoder(str).decode

LONG: Final = 131_072
"""Bytes from which a result must be mapped in steps, because mapping it at once would hold the event loop too long."""
_STEP: Final = 256
"""Content blocks per step: a few milliseconds if each holds a ref."""


class _Block(msgspec.Struct, gc=False):
    type: str = ""


class _ToolResult(msgspec.Struct):
    content: tuple[_Block, ...] = ()


_decode_tool_result = msgspec.json.Decoder(_ToolResult).decode
_REF_TYPES: Final = frozenset({"resource_link", "resource"})

Steps = Generator[None, None, Payload]
"""The mapping of one result in steps; the generator's return value is the mapped result."""


def map_resource_refs(
    method: str, result: Payload, public: Callable[[str], str], view: ResultView | None = None
) -> Payload:
    """`result` with every resource URI replaced by `public(uri)`; the same object if none changes.

    Covers the blocks in a tool result's `content` and a prompt's `messages`, and the `contents` of a read (2026-07-28
    server/resources, server/tools "Resource Links", server/prompts).
    """
    steps = ref_steps(method, result, public, view)
    while True:
        try:
            next(steps)
        except StopIteration as done:
            mapped: Payload = done.value
            return mapped


def ref_steps(method: str, result: Payload, public: Callable[[str], str], view: ResultView | None = None) -> Steps:
    """`map_resource_refs` as a generator that yields after each step, so that the event loop can run."""
    try:
        if not _holds_refs(method, result, view or ResultView(result)):
            return result
        yield
        return (yield from _mapped(method, result, public))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return result  # not the shape that the method defines, so nothing in it is a resource ref


def map_error_ref(error: bytes, public: Callable[[str], str]) -> bytes:
    """An error object with `data.uri` replaced by `public(uri)` (2026-07-28 server/resources, "Error Handling")."""
    uri = text_at(Payload(error), "data", "uri") if b'"uri"' in error else None
    if uri is None or (shown := public(uri)) == uri:
        return error
    return bytes(with_text_at(Payload(error), shown, "data", "uri"))


def _holds_refs(method: str, result: Payload, view: ResultView) -> bool:
    if method == "tools/call" and len(result) >= LARGE:
        if view.is_plain:
            return False
        try:
            return any(block.type in _REF_TYPES for block in _decode_tool_result(result).content)
        except msgspec.ValidationError:
            pass  # at least one block is malformed
    return b'"uri"' in view.text


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
    """The content of a prompt message: one block or a list of blocks."""
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
    shown = public(uri)
    return item if shown == uri else _object({**members, "uri": Payload(encode(shown))})


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
    if bytes(item)[:1] != b"{" or (len(item) > CROWD and is_crowded(item)):
        return {}
    return _decode_members(item)


def _object(members: Mapping[str, Payload]) -> Payload:
    return Payload(encode(members))
