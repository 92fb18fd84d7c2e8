"""The payloads of entries: members read and replaced, lists written for a protocol revision. No naming rules.

Members that are not replaced are written back unchanged.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Final

import msgspec

from mcp_manifold.model.catalogue.entry import Entry, Kind
from mcp_manifold.wire import MODERN_VERSION, Payload, encode, text_at

Members = dict[str, Payload]

_EXECUTION_VERSION: Final = "2025-11-25"
_HINTS: Final = ("readOnlyHint", "destructiveHint", "idempotentHint", "openWorldHint")
_UI_KEY: Final = "ui/resourceUri"
_decode_members = msgspec.json.Decoder(Members).decode


def parse_object(raw: bytes | Payload | None) -> Members | None:
    """The members of a valid JSON object; None for anything else. Of duplicate members, the last one counts."""
    if raw is None:
        return None
    try:
        data = bytes(raw)
        if not data.isascii():
            data.decode()
        return _decode_members(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def payload_of(text: str) -> Payload:
    """The JSON text of a string."""
    return Payload(encode(text))


def hints_of(tool: Members) -> frozenset[tuple[str, bool]]:
    """The behaviour hints that a tool states, as (hint, value); values that are not booleans are ignored."""
    stated = parse_object(tool.get("annotations")) or {}
    values = {hint: bytes(stated[hint]).strip() for hint in _HINTS if hint in stated}
    return frozenset((hint, value == b"true") for hint, value in values.items() if value in (b"true", b"false"))


def ui_uris(tool: Members) -> tuple[str, ...]:
    """The URIs of a tool's user interface in its `_meta` (MCP Apps extension)."""
    meta = parse_object(tool.get("_meta")) or {}
    ui = parse_object(meta.get("ui")) or {}
    found = (text_at(ui.get("resourceUri")), text_at(meta.get(_UI_KEY)))
    return tuple(uri for uri in found if uri is not None)


def with_ui_uris(tool: Members, public: Mapping[str, str]) -> Members:
    """`tool` with the URIs of its user interface replaced by their values in `public`."""
    meta = parse_object(tool.get("_meta")) or {}
    ui = parse_object(meta.get("ui")) or {}
    changed = _replaced(meta, _UI_KEY, public)
    inner = _replaced(ui, "resourceUri", public)
    if inner is not ui:
        changed = {**changed, "ui": Payload(encode(inner))}
    return tool if changed is meta else {**tool, "_meta": Payload(encode(changed))}


def _replaced(members: Members, key: str, public: Mapping[str, str]) -> Members:
    uri = text_at(members.get(key))
    if uri is None or public.get(uri, uri) == uri:
        return members
    return {**members, key: payload_of(public[uri])}


def encode_list(entries: Sequence[Entry], kind: Kind, *, version: str, without_tasks: Collection[str] = ()) -> bytes:
    """The JSON array of public payloads for a client of protocol `version`.

    Handshake clients get no `outputSchema` that is not an object schema, because their SDKs refuse the whole list for
    one. `execution` exists in 2025-11-25 only; its `taskSupport` is removed for the backends in `without_tasks`. All
    other members pass unchanged.
    """
    if kind is Kind.TOOL:
        return b"[%b]" % b",".join(
            [_adapted(_untasked(each.raw) if each.backend in without_tasks else each.raw, version) for each in entries]
        )
    return b"[%b]" % b",".join([entry.raw for entry in entries])


def _adapted(raw: bytes, version: str) -> bytes:
    # `merge` wrote every top-level key without escapes, so a byte search finds them.
    schema = version != MODERN_VERSION and b'"outputSchema"' in raw
    execution = version != _EXECUTION_VERSION and b'"execution"' in raw
    if not schema and not execution:
        return raw
    members = parse_object(raw) or {}
    unfit = {"execution"} & members.keys() if execution else set()
    if schema and "outputSchema" in members and not _is_object_schema(members["outputSchema"]):
        unfit.add("outputSchema")
    return encode({key: value for key, value in members.items() if key not in unfit}) if unfit else raw


def _untasked(raw: bytes) -> bytes:
    if b'"execution"' not in raw:
        return raw
    members = parse_object(raw) or {}
    execution = parse_object(members.get("execution")) or {}
    if text_at(execution.get("taskSupport")) in (None, "forbidden"):  # no task support to remove
        return raw
    left = {key: value for key, value in execution.items() if key != "taskSupport"}
    if left:
        return encode({**members, "execution": Payload(encode(left))})
    return encode({key: value for key, value in members.items() if key != "execution"})


def _is_object_schema(schema: Payload) -> bool:
    return text_at((parse_object(schema) or {}).get("type")) == "object"
