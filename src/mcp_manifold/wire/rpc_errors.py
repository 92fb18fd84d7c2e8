"""The JSON-RPC code of every error: exceptions become JSON-RPC error objects. `fronts.http_errors` has the statuses.

Our own errors use the codes the protocol defines. A failed backend is -32603 with a structured `data`, because the
other ranges are reserved (2026-07-28 basic, "Error codes"). A backend's own error is relayed unchanged, unless the
caller's revision forbids its code.
"""

from typing import Final

import msgspec

from mcp_manifold.errors import BackendError, RemoteError, RequestError, UnknownItem
from mcp_manifold.wire.payload import Payload, encode, first_byte, object_members
from mcp_manifold.wire.protocol import (
    HEADER_MISMATCH,
    INTERNAL_ERROR,
    INVALID_PARAMS,
    MISSING_CLIENT_CAPABILITY,
    RESOURCE_NOT_FOUND,
    UNSUPPORTED_VERSION,
    URL_ELICITATION_REQUIRED,
    Era,
)

_DEFINED_MODERN: Final = frozenset({HEADER_MISMATCH, MISSING_CLIENT_CAPABILITY, UNSUPPORTED_VERSION})
_RESERVED_MODERN: Final = range(-32099, -32019)
"""Codes that a 2026-07-28 server may use only as the protocol defines them."""


class _Code(msgspec.Struct):
    code: int = INTERNAL_ERROR


class _ErrorObject(msgspec.Struct):
    code: int
    message: str


_decode_code = msgspec.json.Decoder(_Code).decode
_decode_error = msgspec.json.Decoder(_ErrorObject).decode


def backend_code(error: Payload) -> int:
    """The code of a backend's error object; -32603 when it has no readable code."""
    try:
        return _decode_code(error).code
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return INTERNAL_ERROR


def error_of(exc: Exception, era: Era, *, method: str = "") -> bytes:
    """The JSON-RPC error object of an exception, for a client of `era` that called `method`.

    An exception outside the error tree becomes "Internal error" without any detail.
    """
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
    """The backend's error object, with another code where the caller's revision forbids the original."""
    if not _is_error_object(exc.raw):  # a client cannot read it, and would wait for a response
        return _recoded(exc, INTERNAL_ERROR)
    code = exc.code
    if era == "modern":
        if code == RESOURCE_NOT_FOUND:
            return _recoded(exc, INVALID_PARAMS)
        if code == URL_ELICITATION_REQUIRED or (code in _RESERVED_MODERN and code not in _DEFINED_MODERN):
            return _recoded(exc, INTERNAL_ERROR)
    elif method == "resources/read" and code == INVALID_PARAMS and exc.era == "modern":
        return _recoded(exc, RESOURCE_NOT_FOUND)
    return exc.raw


def _is_error_object(raw: bytes) -> bool:
    try:
        _decode_error(raw)
    except msgspec.ValidationError:
        return False
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass  # invalid JSON that lenient clients read
    return True


def _recoded(exc: RemoteError, code: int) -> bytes:
    received = object_members(Payload(exc.raw))
    message = received.get("message")
    has_message = message is not None and first_byte(message) == b'"'
    error: dict[str, object] = {**received, "code": code, "message": message if has_message else str(exc)}
    if "data" not in received and code == INTERNAL_ERROR:
        error["data"] = {"server": exc.backend, "code": exc.code}
    return encode(error)
