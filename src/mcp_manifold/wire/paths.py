"""A text somewhere inside an object: read, and replaced, with everything around it as it came. Pure."""

from collections.abc import Mapping
from typing import Final

import msgspec

from mcp_manifold.wire.envelope import Payload, encode, first_byte, loose_members
from mcp_manifold.wire.protocol import META_PREFIX

RELATED_TASK: Final = ("_meta", META_PREFIX + "related-task", "taskId")
"""Where any message says which task it belongs to (2025-11-25 basic/utilities/tasks, "Related Task Metadata")."""

_decode_text = msgspec.json.Decoder(str).decode


def text_at(value: Payload | None, *path: str) -> str | None:
    """The string at a path of member names; None where there is none."""
    for key in path:
        value = None if value is None else _members(value).get(key)
    if value is None or first_byte(value) != b'"':
        return None
    try:
        return _decode_text(value)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def with_text_at(value: Payload, text: str, *path: str) -> Payload:
    """`value` with the string at a path replaced; itself where the path does not lead to anything."""
    if not path:
        return Payload(encode(text))
    members = _members(value)
    if path[0] not in members:
        return value
    return Payload(encode({**members, path[0]: with_text_at(members[path[0]], text, *path[1:])}))


def renamed(value: Payload, old: str, new: str, *paths: tuple[str, ...]) -> Payload:
    """`value` with the string at each of the paths replaced where it is `old`."""
    for path in paths:
        if text_at(value, *path) == old:
            value = with_text_at(value, new, *path)
    return value


def _members(value: Payload) -> Mapping[str, Payload]:
    try:
        return loose_members(value)
    except (ValueError, RecursionError):
        return {}
