"""The HTTP status of every error: the table of refusals, and the status that a JSON-RPC error has in each era.

The pages outside the MCP endpoints have statuses of their own (`fronts.http.pages`).
"""

import logging
from collections.abc import Sequence
from enum import Enum
from typing import Final

from mcp_manifold.errors import CallCancelled, ManifoldError, RequestError
from mcp_manifold.http1.head import Line
from mcp_manifold.model.call import Call
from mcp_manifold.wire import HANDSHAKE_VERSIONS, NULL_ID, Payload, backend_code, encode, error_of, failure, protocol

logger = logging.getLogger(__name__)
_BAD_REQUEST: Final = frozenset(
    {protocol.PARSE_ERROR, protocol.INVALID_REQUEST, protocol.INVALID_PARAMS, protocol.HEADER_MISMATCH,
     protocol.MISSING_CLIENT_CAPABILITY, protocol.UNSUPPORTED_VERSION}
)  # fmt: skip
CLOSE: Final = (b"connection", b"close")
"""Closes the connection after the response, because the request's body was not read to its end."""
_CANCELLED: Final = encode({"code": protocol.REQUEST_CANCELLED, "message": "Request cancelled"})
_SOON: Final = (b"retry-after", b"1")
_LATER: Final = (b"retry-after", b"10")


def http_status(error: bytes, era: protocol.Era, *, is_invalid: bool = False) -> int:
    """The HTTP status of a response with this JSON-RPC error.

    In 2026-07-28 the code decides (streamable-http); 200 where the specification has none. In the handshake era it is
    200, or 400 if `is_invalid`: unreadable params, headers that differ from the body, a second `initialize`.
    """
    if era == "modern":
        code = backend_code(Payload(error))
        return 400 if code in _BAD_REQUEST else 404 if code == protocol.METHOD_NOT_FOUND else 200
    return 400 if is_invalid else 200


def failed(call: Call, id_: Payload, reason: BaseException | None) -> tuple[bytes, int]:
    """The error response of a failed call, and its HTTP status. Logs failures that are defects."""
    if reason is None or isinstance(reason, CallCancelled):
        error = _CANCELLED
    else:
        if not isinstance(reason, ManifoldError):
            extra = {"method": call.method, "backend": call.backend}
            logger.error("call failed unexpectedly", exc_info=reason, extra=extra)
        exc = reason if isinstance(reason, Exception) else RuntimeError()
        error = error_of(exc, call.session.era, method=call.method)
    return failure(id_, error), http_status(error, call.session.era)


class HttpError(Enum):
    """The refusals of HTTP requests: status, message and header lines. `{...}` is filled by `Refused`."""

    MALFORMED = 400, "{reason}"
    NOT_HTTP = 400, "Bad request: this is not HTTP/1.1"
    INVALID_TARGET = 400, "Bad request: its target is no URL"
    INVALID_LENGTH = 400, "Bad request: Content-Length is no number", CLOSE
    REPEATED_HEADER = 400, "Bad request: {header} header appears twice"
    UNKNOWN_VERSION = 400, f"Bad request: unsupported protocol version; served are {', '.join(HANDSHAKE_VERSIONS)}"
    NOT_INITIALIZED = 400, "Bad request: the Mcp-Session-Id header is missing; send initialize first"
    NO_SESSION_HEADER = 400, "Bad request: the Mcp-Session-Id header is missing"
    NO_SESSION_PARAMETER = 400, "Bad request: the session_id parameter is missing"
    STREAM_FORGOTTEN = 400, "Bad request: the stream of that Last-Event-ID is no longer kept"
    POSTED_RESPONSE = 400, "Invalid request: clients post no responses in this revision"
    NO_TOKEN = 401, "Unauthorized: a bearer token is required", (b"www-authenticate", b"Bearer")
    REPEATED_ORIGIN = 403, "Bad request: {header} header appears twice"
    UNKNOWN_HOST = 403, "Forbidden: the Host header names no host served here (see allowed_hosts)"
    FOREIGN_ORIGIN = 403, "Forbidden: requests from this Origin are not allowed (see allowed_origins)"
    UNKNOWN_SCOPE = 404, "Not found: there is no such server or group here"
    UNKNOWN_SESSION = 404, "Session not found"
    METHOD_NOT_ALLOWED = 405, "Method not allowed"
    POST_ONLY = 405, "Method not allowed: send POST", (b"allow", b"POST, OPTIONS")
    NO_COMMON_FORM = 406, "Not acceptable: the client must accept application/json or text/event-stream"
    NO_EVENT_STREAM = 406, "Not acceptable: the client must accept text/event-stream"
    LATE_REQUEST = 408, "Request timeout: the request did not arrive in time"
    LATE_BODY = 408, "Request timeout: the body did not arrive in time", CLOSE
    STREAM_OPEN = 409, "Conflict: this session already has its stream"
    LARGE_BODY = 413, "Content too large: at most {limit} bytes are accepted", CLOSE
    NOT_JSON = 415, "Unsupported media type: the body must be application/json"
    ENCODED_BODY = 415, "Unsupported media type: the body must not be encoded"
    LARGE_HEAD = 431, "Request header fields too large: at most {limit} are accepted"
    DEFECT = 500, "Internal error"
    NO_MEMORY = 503, "Too much is on its way at the moment, try again later", _SOON, CLOSE
    SHUTTING_DOWN = 503, "The server is shutting down", _SOON, CLOSE
    MANY_CONNECTIONS = 503, "Too many open connections, try again later", _LATER
    MANY_SESSIONS = 503, "Too many open sessions, try again later", _LATER
    MANY_STREAMS = 503, "Too many open streams, try again later", _LATER
    HTTP_VERSION = 505, "HTTP version not supported: only 1.1 and 1.0 are"

    def __init__(self, status: int, message: str, *headers: Line) -> None:
        self.status = status
        self.message = message
        self.headers = headers


class Refused(RequestError):
    """The refusal of an HTTP request. `headers` are further lines, `values` fill the message."""

    def __init__(
        self, error: HttpError, *, code: int | None = None, headers: Sequence[Line] = (), **values: object
    ) -> None:
        super().__init__(error.message.format(**values), code=code)
        self.status = error.status
        self.headers = (*error.headers, *headers)

    def bare(self) -> "Refused":
        """This refusal without its last frames, which hold the request, and without the exceptions before it."""
        self.__context__ = self.__cause__ = None
        return self.with_traceback(None)


def refusal_body(refused: Refused) -> bytes:
    """The refusal as a JSON-RPC error with a null id."""
    return failure(NULL_ID, error_of(refused, "handshake"))
