"""The resource URIs inside results: found, and replaced where clients know them by another spelling.

A result is searched for the word first, or where that takes longer its blocks are asked for their types, and it is
taken apart only if there may be any. Blocks of unknown types pass untouched.
"""

from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from mcp_manifold.wire.envelope import UNSET, Payload, encode

_decode_members = msgspec.json.Decoder(dict[str, Payload]).decode
_decode_list = msgspec.json.Decoder(list[Payload]).decode
_decode_text = msgspec.json.Decoder(str).decode

_LARGE: Final = 8192
"""Bytes from which on looking at the blocks of a tool's result takes less time than the search for a word in it."""


class _Block(msgspec.Struct, gc=False):
    type: Payload | msgspec.UnsetType = msgspec.UNSET


class _ToolResult(msgspec.Struct):
    content: tuple[_Block, ...] = ()


_LINKING: Final = frozenset({b'"resource_link"', b'"resource"'})
_decode_tool_result = msgspec.json.Decoder(_ToolResult).decode


def map_links(method: str, result: Payload, public: Callable[[str], str]) -> Payload:
    """`result` with every URI that stands for a resource passed through `public`; itself where nothing changes.

    Looked at: the blocks of a tool result's `content`, of a prompt's `messages`, and the `contents` of a read
    (2026-07-28 server/resources, server/tools "Resource Links", server/prompts).
    """
    try:
        return _mapped(method, result, public) if _may_link(method, result) else result
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return result  # not of the shape the method promises: nothing in it stands for a resource


def _may_link(method: str, result: Payload) -> bool:
    if method == "tools/call" and len(memoryview(result)) >= _LARGE:
        try:
            return any(_is_linking(block.type) for block in _decode_tool_result(result).content)
        except msgspec.ValidationError:
            pass  # an odd block among others
    return b'"uri"' in bytes(result)


def _is_linking(kind: Payload | msgspec.UnsetType) -> bool:
    raw = b"" if kind is UNSET else bytes(kind)
    return raw in _LINKING or b"\\" in raw


def _mapped(method: str, result: Payload, public: Callable[[str], str]) -> Payload:
    match method:
        case "tools/call":
            return _each(result, "content", lambda block: _block(block, public))
        case "prompts/get":
            return _each(result, "messages", lambda message: _message(message, public))
        case "resources/read":
            return _each(result, "contents", lambda content: _renamed(content, public))
        case _:
            return result


def _message(message: Payload, public: Callable[[str], str]) -> Payload:
    content = _members(message).get("content")
    if content is not None and bytes(content)[:1] == b"[":
        return _each(message, "content", lambda block: _block(block, public))
    return _inner(message, "content", lambda block: _block(block, public))


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


def _each(item: Payload, key: str, change: Callable[[Payload], Payload]) -> Payload:
    members = _members(item)
    if key not in members or bytes(members[key])[:1] != b"[":
        return item
    blocks = _decode_list(members[key])
    changed = [change(block) for block in blocks]
    if all(new is old for new, old in zip(changed, blocks, strict=True)):
        return item
    return _object({**members, key: Payload(encode(changed))})


def _members(item: Payload) -> Mapping[str, Payload]:
    return _decode_members(item) if bytes(item)[:1] == b"{" else {}


def _object(members: Mapping[str, Payload]) -> Payload:
    return Payload(encode(members))
