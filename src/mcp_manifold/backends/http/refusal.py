"""A refusal: an HTTP response that is not the answer to its request, and the error it means. Pure."""

import re
from typing import Final

from mcp_manifold import wire
from mcp_manifold.errors import (
    BackendError,
    BackendProtocolError,
    BackendUnavailable,
    MalformedMessage,
    RemoteError,
)
from mcp_manifold.wire import Era
from mcp_manifold.wire.protocol import INVALID_PARAMS, METHOD_NOT_FOUND

_SESSION: Final = re.compile(rb"session|initiali[sz]", re.IGNORECASE)
_READ: Final = (METHOD_NOT_FOUND, INVALID_PARAMS)
"""Codes of servers that read the request, which they do in a known session only."""
_REASONS: Final = {
    401: "the server rejected the credentials (HTTP 401); check the configured headers",
    403: "the server refused access (HTTP 403); check the configured headers",
    404: "no MCP endpoint at that URL (HTTP 404); check the url",
    405: "no Streamable HTTP endpoint at that URL (HTTP 405); check the url",
    429: "rate limited by the server (HTTP 429)",
}


class Refusal:
    """See the module. `body` may be the beginning only."""

    def __init__(self, status: int, body: bytes) -> None:
        self.status = status
        self._body = body
        self._error = rpc_error(body)

    def __repr__(self) -> str:
        return f"<Refusal HTTP {self.status}>"

    @property
    def is_about_session(self) -> bool:
        """Whether its text mentions the session, or that it is not initialized."""
        return names_session(self._body)

    @property
    def may_mean_forgotten(self) -> bool:
        """Whether a server that forgot the session may refuse so, besides for other reasons."""
        if self._error is not None and wire.backend_code(self._error) in _READ:
            return self.is_about_session
        return self.status in (400, 404, 410, 500) or self.is_about_session

    @property
    def means_forgotten(self) -> bool:
        """Whether it says that the session is unknown (2025-11-25 streamable-http, Session Management)."""
        return self.status == 404 and (self._error is None or self.is_about_session)

    @property
    def is_unread(self) -> bool:
        """Whether a server that forgot the session certainly did not process the request."""
        return self.status in (400, 404, 410) or self.is_about_session

    def error(self, backend: str, era: Era) -> BackendError | RemoteError:
        """The error of the refused request."""
        if self._error is not None:
            code = wire.backend_code(self._error)
            return RemoteError(bytes(self._error), code=code, backend=backend, era=era)
        reason = _REASONS.get(self.status, f"the server answered HTTP {self.status} instead of MCP")
        is_temporary = self.status in (401, 403, 429) or self.status >= 500
        kind = BackendUnavailable if is_temporary else BackendProtocolError
        return kind(backend, reason, status=self.status)


def names_session(text: bytes) -> bool:
    """Whether a text mentions a session, or that something is not initialized."""
    return _SESSION.search(text) is not None


def rpc_error(body: bytes) -> wire.Payload | None:
    """The error object, if the body is a JSON-RPC error response."""
    try:
        envelope = wire.parse_backend(body)
    except MalformedMessage:
        return None
    return None if envelope.error is wire.UNSET else envelope.error
