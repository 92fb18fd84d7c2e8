"""Per-hop members, removed and added: `_meta` of requests and notifications, and the members results have per era.

Results are parsed one level deep, which is faster than a text search for the members.
"""

from collections.abc import Mapping
from typing import Final

from mcp_manifold.wire.payload import Payload, encode, first_byte, loose_members, object_members
from mcp_manifold.wire.protocol import (
    HINTED,
    HOP_KEYS,
    META_CAPABILITIES,
    META_CLIENT_INFO,
    META_OWN,
    META_SERVER_INFO,
    META_VERSION,
    MODERN_VERSION,
    Era,
)
from mcp_manifold.wire.result_view import ResultView

_ADDED: Final = (("resultType", Payload(b'"complete"')),)
_ADDED_HINTED: Final = (*_ADDED, ("ttlMs", Payload(b"0")), ("cacheScope", Payload(b'"private"')))
_STAMPS: Final = ("resultType", "ttlMs", "cacheScope")
_OUR_INFO = META_SERVER_INFO.encode()


def modern_stamp(client_info: Payload, capabilities: Payload) -> dict[str, Payload]:
    """The `_meta` members that every 2026-07-28 request must carry (2026-07-28 basic, "_meta")."""
    return {
        META_VERSION: Payload(encode(MODERN_VERSION)),
        META_CLIENT_INFO: client_info,
        META_CAPABILITIES: capabilities,
    }


def hop_params(params: dict[str, Payload], *, token: int, stamp: Mapping[str, Payload] | None) -> bytes | None:
    """The params of a request for the next hop, as JSON text; None when they are empty.

    The `_meta` members of the previous hop are removed and those of `stamp` added. A progress token from the client is
    replaced by `token`, which is unique on the link.
    """
    meta = params.get("_meta")
    if meta is None and stamp is None:
        return encode(params) if params else None
    return encode({**params, "_meta": hop_meta(object_members(meta), token=token, stamp=stamp)})


def hop_meta(meta: Mapping[str, Payload], *, token: int, stamp: Mapping[str, Payload] | None) -> Payload:
    """The `_meta` to send on: the last hop's members removed, `stamp` added, the progress token replaced by `token`."""
    kept = {key: value for key, value in meta.items() if key not in HOP_KEYS}
    if "progressToken" in kept:
        kept["progressToken"] = Payload(b"%d" % token)
    if stamp is not None:
        kept |= stamp
    return Payload(encode(kept))


def off_hop(notice: Mapping[str, Payload]) -> dict[str, Payload]:
    """The members of a notification's params without the `_meta` members of the hop to the backend."""
    members = dict(notice)
    meta = object_members(members.get("_meta"))
    kept = {key: value for key, value in meta.items() if key not in HOP_KEYS}
    if len(kept) < len(meta):
        del members["_meta"]
        if kept:
            members["_meta"] = Payload(encode(kept))
    return members


def adapt_result(
    result: Payload, *, method: str, backend: Era, client: Era, server_info: Payload, view: ResultView | None = None
) -> Payload:
    """A backend's result in the form that the client's era requires.

    A modern result gets `resultType`, cache hints where `method` must have them, and our `serverInfo`. A handshake
    result loses these, and a `structuredContent` that is not an object. An unreadable result is returned unchanged.

    Args:
        result: the raw result object.
        server_info: our own `serverInfo`; it replaces the backend's, because clients take it for their peer's.
        view: a view of `result`, if there is one already.
    """
    try:
        if client == "modern":
            found = loose_members(result) if view is None else view.members
            return _stamped(result, found, hinted=method in HINTED, server_info=server_info)
        if backend == "modern":
            return _unstamped(result, loose_members(result) if view is None else view.members)
    except (ValueError, RecursionError):
        pass  # invalid JSON: relayed unchanged, the client may still read it
    return result


def _stamped(result: Payload, found: Mapping[str, Payload], *, hinted: bool, server_info: Payload) -> Payload:
    if "_meta" not in found and not hinted:
        kind = b"" if "resultType" in found else b'"resultType":"complete",'
        tail = b'%b%b"_meta":{"%b":%b}}' % (b"," if found else b"", kind, _OUR_INFO, server_info)
        return Payload(b"".join((memoryview(result)[:-1], tail)))
    added: dict[str, object] = {key: value for key, value in (_ADDED_HINTED if hinted else _ADDED) if key not in found}
    added["_meta"] = {**_of_backend(object_members(found.get("_meta"))), META_SERVER_INFO: server_info}
    if "_meta" in found or not found:
        return Payload(encode({**found, **added}))
    return Payload(b"".join((memoryview(result)[:-1], b",", memoryview(encode(added))[1:])))


def _of_backend(meta: Mapping[str, Payload]) -> dict[str, Payload]:
    """The `_meta` of a result without the keys of the protocol's hop and our own."""
    return {key: value for key, value in meta.items() if key not in HOP_KEYS and not key.startswith(META_OWN)}


def _unstamped(result: Payload, members: Mapping[str, Payload]) -> Payload:
    found = {key: value for key, value in members.items() if key not in _STAMPS}
    if "_meta" in found:
        sent = object_members(found["_meta"])
        meta = _of_backend(sent)
        if not meta:
            del found["_meta"]
        elif len(meta) != len(sent):
            found["_meta"] = Payload(encode(meta))
    content = found.get("structuredContent")
    if content is not None and first_byte(content) != b"{":
        del found["structuredContent"]  # handshake revisions allow objects only; the text content holds the same data
    is_same = len(found) == len(members) and found.get("_meta") is members.get("_meta")
    return result if is_same else Payload(encode(found))
