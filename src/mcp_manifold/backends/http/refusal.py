"""A refusal: an HTTP response that is not the answer to its request, and the error it means. Pure."""

import re
from typing import Final
from urllib.parse import urlsplit

import msgspec

from mcp_manifold import wire
from mcp_manifold.backends.http.exchange import ResponseHeaders
from mcp_manifold.backends.link.negotiation import TOO_MANY
from mcp_manifold.errors import (
    BackendError,
    BackendProtocolError,
    BackendUnavailable,
    MalformedMessage,
    RemoteError,
)
from mcp_manifold.wire import Era, Payload
from mcp_manifold.wire.protocol import INVALID_PARAMS, METHOD_NOT_FOUND

ANSWERED: Final = frozenset({200, 201, 203})
"""Statuses of a response that may be the answer to a request; 202 and 204 are to a notification."""
_SESSION: Final = re.compile(rb"session|initiali[sz]", re.IGNORECASE)
_INTEGER: Final = re.compile(rb"-?\d{1,18}")
_READ: Final = (METHOD_NOT_FOUND, INVALID_PARAMS)
"""Codes of servers that read the request, which they do in a known session only."""
_TITLE: Final = re.compile(rb"<title[^>]*>\s*([^<]{1,80})", re.IGNORECASE)
_NOT_PLAIN: Final = re.compile(rb"HTTP request (was sent )?to (an )?HTTPS", re.IGNORECASE)
"""How servers refuse plain HTTP on a TLS port: nginx, Apache and Go."""
_NO_CERTIFICATE: Final = b"No required SSL certificate was sent"
"""How nginx refuses a client without a certificate."""
_LONGEST: Final = 160
"""Characters of the server's words that an error quotes."""
_REASONS: Final = {
    401: ("the server rejected the credentials", "check the configured headers"),
    403: ("the server refused access", "check the configured headers"),
    404: ("no MCP endpoint at that URL", "check the url"),
    405: ("no Streamable HTTP endpoint at that URL", "check the url"),
    429: ("rate limited by the server", ""),
}


class Refusal:
    """An HTTP response that refuses a request. `body` may be only the beginning of the response's body."""

    def __init__(self, status: int, headers: ResponseHeaders, body: bytes) -> None:
        self.status = status
        self._headers = headers
        self._body = body
        self._error = rpc_error(body)

    def __repr__(self) -> str:
        return f"<Refusal HTTP {self.status}>"

    @property
    def is_about_session(self) -> bool:
        """Whether the refusal's text mentions the session, or says that it is not initialized."""
        is_other = self._headers.content_type == "text/html" or self.status == TOO_MANY
        return not is_other and names_session(self._body)

    @property
    def may_mean_forgotten(self) -> bool:
        """Whether a server that forgot the session may refuse this way. The refusal may mean something else."""
        if self._error is not None and wire.backend_code(self._error) in _READ:
            return self.is_about_session
        return self.status in (400, 404, 410, 500) or self.is_about_session

    @property
    def means_forgotten(self) -> bool:
        """Whether the refusal says that the session is unknown (2025-11-25 streamable-http, Session Management)."""
        return self.status == 404 and (self._error is None or self.is_about_session)

    @property
    def is_unread(self) -> bool:
        """Whether the server certainly did not process the request, if it has forgotten the session."""
        return self.status in (400, 404, 410) or self.is_about_session

    def error(self, backend: str, era: Era) -> BackendError | RemoteError:
        """The error for the refused request: the server's own JSON-RPC error, or else `failure`."""
        if self._error is not None and self.status != 401:
            code = wire.backend_code(self._error)
            return RemoteError(bytes(self._error), code=code, backend=backend, era=era)
        return self.failure(backend)

    def failure(self, backend: str) -> BackendError:
        """The error that the HTTP status stands for."""
        is_temporary = self.status in (401, 403, 429) or self.status >= 500
        kind = BackendUnavailable if is_temporary else BackendProtocolError
        return kind(backend, self.reason, status=self.status, next_try=self._retry_after)

    @property
    def reason(self) -> str:
        """The meaning of the response as a sentence, with the status and the server's own message."""
        status, kind = f"HTTP {self.status}", self._headers.content_type
        if self.status in range(300, 400):
            return f"the server redirects to {self._target} ({status}), which is not followed; check the url"
        if _NOT_PLAIN.search(self._body):
            return f"the server speaks TLS on that port ({status}); use https:// in the url"
        if _NO_CERTIFICATE in self._body:
            return f"the server requires a client certificate ({status})"
        if self.status in ANSWERED and kind == "text/html":
            title = _TITLE.search(self._body)
            named = f" titled {_one_line(title.group(1))}" if title else ""
            return (
                f"the server answered with a web page{named} ({status}, {kind}), not MCP; check the url and the headers"
            )
        if self.status in ANSWERED:
            return f"the server answered with {kind or 'no content type'} ({status}), not MCP"
        what, remedy = _REASONS.get(self.status, (f"the server answered {status} instead of MCP", ""))
        challenge = self._headers.get("www-authenticate") if self.status == 401 else None
        if remedy or self.status in _REASONS:
            what += f" ({status}, {_one_line(challenge.encode())})" if challenge else f" ({status})"
        words = "; ".join(part for part in (remedy, self._wait) if part)
        said = _said(self._body)
        return what + (f": {said}" if said else "") + (f"; {words}" if words else "")

    @property
    def _retry_after(self) -> float | None:
        """The seconds of a `Retry-After` (RFC 9110, section 10.2.3); dates are ignored."""
        value = (self._headers.get("retry-after") or "").strip()
        return float(value) if value.isdecimal() and len(value) < 7 else None

    @property
    def _wait(self) -> str:
        return "" if self._retry_after is None else f"try again in {self._retry_after:g} s"

    @property
    def _target(self) -> str:
        """Where a redirect leads, without the query, which may hold a secret."""
        try:
            parts = urlsplit(self._headers.get("location") or "")
        except ValueError:
            parts = urlsplit("")
        target = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}" if parts.netloc else parts.path
        return _one_line(target.encode()) or "nowhere"


def _one_line(text: bytes) -> str:
    words = " ".join(text.decode("utf-8", "replace").split())
    return "".join(each for each in words if each.isprintable())[:_LONGEST]


def _said(body: bytes) -> str:
    """The words of a JSON error, in the forms that gateways and identity providers use; empty for none."""
    found = wire.object_members(Payload(body)) if body.lstrip()[:1] == b"{" else {}
    inner = wire.object_members(found.get("error"))
    for text in (
        inner.get("message"),
        *(found.get(key) for key in ("error_description", "message", "detail", "error")),
    ):
        if text is not None and wire.first_byte(text) == b'"':
            return _one_line(str(msgspec.json.decode(text)).encode())
    return ""


def names_session(text: bytes) -> bool:
    """Whether a text mentions a session, or that something is not initialized."""
    return _SESSION.search(text) is not None


def rpc_error(body: bytes) -> Payload | None:
    """The error object, if the body is a JSON-RPC error response: with a version, a code and a message."""
    try:
        envelope = wire.parse_backend(body)
    except MalformedMessage:
        return None
    if envelope.jsonrpc != "2.0" or envelope.error is wire.UNSET:
        return None
    found = wire.object_members(envelope.error)
    has_words = "message" in found and wire.first_byte(found["message"]) == b'"'
    return envelope.error if has_words and _INTEGER.fullmatch(bytes(found.get("code", wire.NULL_ID))) else None
