"""What belongs to one hop only, taken off and put on: `_meta`, result stamps, differences between eras.

Nothing here looks deeper than it must: one level of a result is decoded, which takes less time than a search for words.
"""

from collections.abc import Mapping
from typing import Final

from mcp_manifold.wire.envelope import Payload, encode, first_byte, loose_members
from mcp_manifold.wire.protocol import (
    HINTED,
    HOP_KEYS,
    META_CAPABILITIES,
    META_CLIENT_INFO,
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


# --- requests to a backend --------------------------------------------------------------------------------------


def client_meta(meta: Payload | None) -> dict[str, Payload]:
    """The members of a request's `_meta`; empty when it is absent or not an object."""
    if meta is None:
        return {}
    try:
        return loose_members(meta)
    except (ValueError, RecursionError):
        return {}


def modern_stamp(client_info: Payload, capabilities: Payload) -> dict[str, Payload]:
    """The `_meta` members every 2026-07-28 request must carry."""
    return {
        META_VERSION: Payload(encode(MODERN_VERSION)),
        META_CLIENT_INFO: client_info,
        META_CAPABILITIES: capabilities,
    }


def hop_params(params: dict[str, Payload], *, token: int, stamp: Mapping[str, Payload] | None) -> bytes | None:
    """The params of a request as this hop sends them.

    The members that spoke of the previous hop go, `stamp` comes in, and a progress token, if the client sent one, is
    replaced by `token`, which is unique on the link. Returns None for params that are empty.
    """
    meta = params.get("_meta")
    if meta is None and stamp is None:
        return encode(params) if params else None
    return encode({**params, "_meta": hop_meta(client_meta(meta), token=token, stamp=stamp)})


def hop_meta(meta: Mapping[str, Payload], *, token: int, stamp: Mapping[str, Payload] | None) -> Payload:
    """The `_meta` of a request as this hop sends it; see `hop_params`."""
    kept = {key: value for key, value in meta.items() if key not in HOP_KEYS}
    if "progressToken" in kept:
        kept["progressToken"] = Payload(b"%d" % token)
    if stamp is not None:
        kept |= stamp
    return Payload(encode(kept))


# --- to a client --------------------------------------------------------------------------------------------------


def off_hop(notice: Mapping[str, Payload]) -> dict[str, Payload]:
    """The members of a notification's params without what spoke of the hop to the backend."""
    members = dict(notice)
    meta = client_meta(members.get("_meta"))
    kept = {key: value for key, value in meta.items() if key not in HOP_KEYS}
    if len(kept) < len(meta):
        del members["_meta"]
        if kept:
            members["_meta"] = Payload(encode(kept))
    return members


def adapt_result(
    result: Payload, *, method: str, backend: Era, client: Era, server_info: Payload, look: ResultView | None = None
) -> Payload:
    """A backend's result as a client of the other, or the same, era must see it.

    Args:
        result: the raw result object.
        server_info: our own `serverInfo`, which replaces the backend's: consumers treat it as the server they talk to.
    """
    try:
        if client == "modern":
            found = loose_members(result) if look is None else look.members
            return _stamped(result, found, hinted=method in HINTED, server_info=server_info)
        if backend == "modern":
            return _unstamped(result, loose_members(result) if look is None else look.members)
    except (ValueError, RecursionError):
        pass  # so little like JSON that its members cannot be told: as it came, it may still be understood
    return result


def _stamped(result: Payload, found: Mapping[str, Payload], *, hinted: bool, server_info: Payload) -> Payload:
    if "_meta" not in found and not hinted:
        kind = b"" if "resultType" in found else b'"resultType":"complete",'
        tail = b'%b%b"_meta":{"%b":%b}}' % (b"," if found else b"", kind, _OUR_INFO, server_info)
        return Payload(b"".join((memoryview(result)[:-1], tail)))
    added: dict[str, object] = {key: value for key, value in (_ADDED_HINTED if hinted else _ADDED) if key not in found}
    added["_meta"] = {**client_meta(found.get("_meta")), META_SERVER_INFO: server_info}
    if "_meta" in found or not found:
        return Payload(encode({**found, **added}))
    return Payload(b"".join((memoryview(result)[:-1], b",", memoryview(encode(added))[1:])))


def _unstamped(result: Payload, members: Mapping[str, Payload]) -> Payload:
    found = {key: value for key, value in members.items() if key not in _STAMPS}
    if "_meta" in found:
        sent = client_meta(found["_meta"])
        meta = {key: value for key, value in sent.items() if key not in HOP_KEYS}
        if not meta:
            del found["_meta"]
        elif len(meta) != len(sent):
            found["_meta"] = Payload(encode(meta))
    content = found.get("structuredContent")
    if content is not None and first_byte(content) != b"{":
        del found["structuredContent"]  # handshake revisions allow only objects; the text content says the same
    is_same = len(found) == len(members) and found.get("_meta") is members.get("_meta")
    return result if is_same else Payload(encode(found))
