"""Exceptions to JSON-RPC error objects: the one place where an error of ours gets a code.

Our own failures use the codes the protocol defines, and -32603 with a structured `data` for everything that went
wrong behind us: local errors must not look like the peer's, and the ranges around are reserved (2026-07-28 basic,
"Error codes"). A backend's own error passes through, except where the caller's revision forbids its code.
"""

from typing import Final

import msgspec

from mcp_manifold.errors import BackendError, RemoteError, RequestError, UnknownItem
from mcp_manifold.wire.envelope import Payload, encode, first_byte, loose_members
from mcp_manifold.wire.protocol import (
    HEADER_MISMATCH,
    INTERNAL_ERROR,
    INVALID_PARAMS,
    INVALID_REQUEST,
    METHOD_NOT_FOUND,
    MISSING_CLIENT_CAPABILITY,
    PARSE_ERROR,
    RESOURCE_NOT_FOUND,
    UNSUPPORTED_VERSION,
    URL_ELICITATION_REQUIRED,
    Era,
)

_HTTP_STATUS: Final = {
    PARSE_ERROR: 400,
    INVALID_REQUEST: 400,
    INVALID_PARAMS: 400,
    HEADER_MISMATCH: 400,
    MISSING_CLIENT_CAPABILITY: 400,
    UNSUPPORTED_VERSION: 400,
    METHOD_NOT_FOUND: 404,
}
_DEFINED_MODERN: Final = frozenset({HEADER_MISMATCH, MISSING_CLIENT_CAPABILITY, UNSUPPORTED_VERSION})


class _Head(msgspec.Struct):
    code: int = INTERNAL_ERROR


class _Shape(msgspec.Struct):
    code: int
    message: str


_decode_head = msgspec.json.Decoder(_Head).decode
_decode_shape = msgspec.json.Decoder(_Shape).decode


def backend_code(error: Payload) -> int:
    """The code of a backend's error object; -32603 when it has none that can be read."""
    try:
        return _decode_head(error).code
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return INTERNAL_ERROR


def error_of(exc: Exception, era: Era, *, method: str = "") -> bytes:
    """The JSON-RPC error object for an exception, as the caller's era wants it. Never carries a traceback."""
    if isinstance(exc, RemoteError):
        return _relayed(exc, era, method)
    if isinstance(exc, UnknownItem):
        return _unknown(exc, era)
    if isinstance(exc, RequestError):
        return _object(exc.code, exc.message, exc.data)
    if isinstance(exc, BackendError):
        return _object(INTERNAL_ERROR, exc.explanation, exc.data())
    return _object(INTERNAL_ERROR, "Internal error", None)


def _object(code: int, message: str, data: dict[str, object] | None) -> bytes:
    error: dict[str, object] = {"code": code, "message": message}
    if data is not None:
        error["data"] = data
    return encode(error)


def _unknown(exc: UnknownItem, era: Era) -> bytes:
    if exc.kind != "resource":
        return _object(INVALID_PARAMS, str(exc), None)
    code = RESOURCE_NOT_FOUND if era == "handshake" else INVALID_PARAMS
    return _object(code, f"Resource not found: {exc.name}", {"uri": exc.name})


def _relayed(exc: RemoteError, era: Era, method: str) -> bytes:
    """The backend's error object; only a code the caller's revision forbids is exchanged (spec section 8)."""
    if not _is_error_object(exc.raw):  # a client could not read it, and would wait for an answer
        return _recoded(exc, INTERNAL_ERROR)
    code = exc.code
    if era == "modern":
        if code == RESOURCE_NOT_FOUND:
            return _recoded(exc, INVALID_PARAMS)
        if code == URL_ELICITATION_REQUIRED or (-32099 <= code <= -32020 and code not in _DEFINED_MODERN):
            return _recoded(exc, INTERNAL_ERROR)
    elif method == "resources/read" and code == INVALID_PARAMS and exc.era == "modern":
        return _recoded(exc, RESOURCE_NOT_FOUND)
    return exc.raw


def _is_error_object(raw: bytes) -> bool:
    try:
        _decode_shape(raw)
    except msgspec.ValidationError:
        return False
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass  # only nearly JSON, which passes
    return True


def _recoded(exc: RemoteError, code: int) -> bytes:
    try:
        said = loose_members(Payload(exc.raw))
    except (ValueError, RecursionError):
        said = {}
    message = said.get("message")
    told = str(exc) if message is None or first_byte(message) != b'"' else message
    error: dict[str, object] = {**said, "code": code, "message": told}
    if "data" not in said and code == INTERNAL_ERROR:
        error["data"] = {"server": exc.backend, "code": exc.code}
    return encode(error)


def http_status(error: bytes) -> int:
    """The HTTP status of a modern error response (2026-07-28 streamable-http); 200 where the spec assigns none."""
    return _HTTP_STATUS.get(backend_code(Payload(error)), 200)
