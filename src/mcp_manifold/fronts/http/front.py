"""The HTTP front: guards, routing and the choice of era, in that order. Knows no session's inside and no backend.

A raw ASGI callable: on these paths every microsecond is paid by every tools/call. Everything that is no MCP endpoint
goes to the site given in, behind the same guards.
"""

import logging
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import Final

from mcp_manifold.errors import MalformedMessage, RequestError
from mcp_manifold.fronts.gateway import Gateway
from mcp_manifold.fronts.http.asgi import (
    CLOSE,
    App,
    Headers,
    Line,
    Message,
    Receive,
    Refused,
    Scope,
    Send,
    send_empty,
    send_json,
    send_refusal,
)
from mcp_manifold.fronts.http.handshake import SESSION_HEADER, Handshake
from mcp_manifold.fronts.http.modern import Modern
from mcp_manifold.fronts.http.request import Hangup, HttpRequest, read_body
from mcp_manifold.fronts.http.routes import Route
from mcp_manifold.fronts.http.shortcut import Shortcut
from mcp_manifold.fronts.http.sse import LegacySse
from mcp_manifold.fronts.http.stream import Tally
from mcp_manifold.fronts.http.validation import RequestValidator
from mcp_manifold.fronts.inbound import VERSION_HEADER, ParamCheck, is_single, repeated, speaks_modern
from mcp_manifold.fronts.server import Head, Passage, Reply
from mcp_manifold.fronts.sessions import Sessions
from mcp_manifold.model.budget import Reservation
from mcp_manifold.model.call import Session
from mcp_manifold.wire import HANDSHAKE_VERSIONS, NULL_ID, UNSET, error_of, failure, members_of, parse

_logger = logging.getLogger("mcp_manifold.fronts.http.front")
_HANDSHAKE: Final = frozenset(version.encode() for version in HANDSHAKE_VERSIONS)
_PROBES: Final = (b"/_healthz", b"/_readyz")
_CORS_HEADERS: Final = frozenset(
    {"accept", "authorization", "content-type", "last-event-id", "mcp-method", "mcp-name", "mcp-protocol-version",
     "mcp-session-id"}
)  # fmt: skip
_CORS_EXPOSED: Final = (b"access-control-expose-headers", b"Mcp-Session-Id, WWW-Authenticate, Retry-After")
_CLOSING: Final = ((b"retry-after", b"1"), CLOSE)
_VARY: Final = (b"vary", b"Origin")


class HttpFront:
    """The ASGI application of the manifold.

    Args:
        desk: what answers.
        site: the ASGI application for every other path.
        check_params: compares a tool's arguments with the headers that mirror them.
    """

    __slots__ = (
        "_answering",
        "_drained",
        "_gateway",
        "_handshake",
        "_modern",
        "_open_paths",
        "_sessions",
        "_shortcut",
        "_site",
        "_sse",
        "_validator",
        "is_closed",
        "tally",
    )  # fmt: skip

    def __init__(self, gateway: Gateway, site: App, *, check_params: ParamCheck) -> None:
        self._gateway = gateway
        self._site = site
        self.tally = Tally(budget=gateway.budget)
        self.is_closed = False
        """Whether it is being shut down."""
        self._answering = 0
        self._drained: Callable[[], None] | None = None
        self._sessions = Sessions(gateway, self.tally)
        self._modern = Modern(gateway, check_params, self.tally)
        self._handshake = Handshake(gateway, self._sessions, self.tally)
        self._sse = LegacySse(gateway, self._sessions, self.tally)
        self._shortcut = Shortcut(gateway, self._sessions, self.tally, self._landed)
        self.reload()

    def __repr__(self) -> str:
        return f"<HttpFront {self._validator!r} {self._sessions!r} {self._modern!r}>"

    def reload(self) -> None:
        """Take over the settings now in force. Sessions end whose client lost its token, or whose endpoint is gone."""
        settings = self._gateway.settings
        self._validator = self._shortcut.validator = RequestValidator(settings)
        self._open_paths: Collection[bytes] = {settings.base_path.rstrip("/").encode() + path for path in _PROBES}
        self._sessions.keep(self._is_in)
        self._modern.keep(self._is_in)

    def _is_in(self, session: Session) -> bool:
        """Whether the client of a session could open it now."""
        return self._validator.tokens.knows(session.principal) and self._gateway.has_scope(session.scope)

    def drain(self, drained: Callable[[], None]) -> None:
        """Take no more requests, end what would never end by itself, and call `drained` once all else is answered."""
        self.is_closed = True
        self._drained = drained
        self._modern.close()
        self._sessions.drain()
        if not self._answering:
            drained()

    def close(self) -> None:
        """End all sessions and standing streams, so that a server shutting down has nothing to wait for."""
        self.is_closed = True
        self._modern.close()
        self._sessions.close()

    def take(self, head: Head, body: bytes, reply: Reply) -> Passage | None:
        """Answer a request the short way; None, and nothing has happened, when it is not for that."""
        passage = None if self.is_closed else self._shortcut.take(head, body, reply)
        if passage is not None:
            self._answering += 1
        return passage

    def _landed(self) -> None:
        self._answering -= 1
        if self._drained is not None and not self._answering:
            self._drained()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request. Never raises for what a client did."""
        if scope["type"] != "http":
            await self._other(scope, receive, send)
            return
        lines: list[Line] = scope["headers"]
        headers = dict(lines)
        self._answering += 1
        try:
            if len(headers) != len(lines):
                self._refuse_repeated(lines)
            self._validator.gate.check(headers)
            if b"origin" in headers:
                send = _shared_with(headers[b"origin"], send)
            await self._serve(scope, headers, receive, send)
        except Refused as refused:
            self.tally.refused += 1
            await send_refusal(send, refused)
        except (Hangup, OSError):
            _logger.debug("client left before it was answered")
        except Exception:  # the front boundary: a defect must cost its caller an error, nobody more
            _logger.exception("request failed unexpectedly", extra={"method": scope["method"]})
            with suppress(RuntimeError, OSError):  # the answer may have begun already
                body = failure(NULL_ID, error_of(RuntimeError(), "handshake"))
                await send_json(send, 500, body)
        finally:
            self._landed()

    async def _serve(self, scope: Scope, headers: Headers, receive: Receive, send: Send) -> None:
        path: bytes = scope.get("raw_path") or scope["path"].encode()
        method: str = scope["method"]
        route = self._validator.routes.find(path)
        if route is None:
            if path not in self._open_paths:
                self._validator.tokens.principal(headers.get(b"authorization"))
            await self._site(scope, receive, send)
            return
        if method not in route.methods:
            raise Refused(405, "Method not allowed", headers=(_allow(route.methods),))
        if method == "OPTIONS":
            await send_empty(send, 204, _preflight(route, headers))
            return
        principal = self._validator.tokens.principal(headers.get(b"authorization"))
        if route.scope and not self._gateway.has_scope(route.scope):
            raise Refused(404, "Not found: there is no such server or group here")
        lines, query = scope["headers"], scope.get("query_string", b"")
        request = HttpRequest(headers, lines, route, principal, receive, send, query)
        if method == "POST":
            await self._post(request)
        elif method == "GET":
            await self._stand(request)
        elif SESSION_HEADER not in headers:
            self._refuse_sessionless(headers)
        else:
            await self._handshake.delete(request)

    async def _stand(self, request: HttpRequest) -> None:
        if self.is_closed:
            raise _closing()
        if request.route.kind == "sse":
            await self._sse.get(request)
        elif SESSION_HEADER not in request.headers:
            self._refuse_sessionless(request.headers)
        else:
            await self._handshake.get(request)

    async def _post(self, request: HttpRequest) -> None:
        headers, route = request.headers, request.route
        if not self._validator.is_json(headers.get(b"content-type", b"")):
            raise Refused(415, "Unsupported media type: the body must be application/json")
        if b"content-encoding" in headers:
            raise Refused(415, "Unsupported media type: the body must not be encoded")
        conversation = self._sse.accept(request) if route.kind == "messages" else None
        if conversation is None and not self._validator.accepts(headers.get(b"accept", b"*/*")):
            raise Refused(406, "Not acceptable: the client must accept both application/json and text/event-stream")
        reservation = Reservation(self.tally.budget)
        try:
            body = await read_body(request.receive, headers, self._validator.max_body, reservation)
            self.tally.bytes_in += len(body)
            if conversation is None:
                await self._message(request, body)
            else:
                await self._sse.post(request, conversation, body)
        finally:
            reservation.release()

    async def _message(self, request: HttpRequest, body: bytes) -> None:
        version = request.headers.get(VERSION_HEADER)
        try:
            envelope = parse(body)
        except MalformedMessage as exc:
            raise Refused(400, exc.message, code=exc.code) from exc
        if self.is_closed and envelope.method is not UNSET and envelope.id is not UNSET:
            raise _closing()
        try:
            params = members_of(envelope)
        except RequestError as exc:
            if envelope.id is UNSET:
                raise Refused(400, exc.message, code=exc.code) from exc
            await send_json(request.send, 400, failure(envelope.id, error_of(exc, "handshake")))
            return
        if speaks_modern(envelope.method or "", params, version):
            await self._modern.post(request, envelope, params)
        else:
            await self._handshake.post(request, envelope, params)

    def _refuse_repeated(self, lines: list[Line]) -> None:
        twice = repeated(lines, is_single)
        if twice is not None:
            raise Refused(403 if twice in ("host", "origin") else 400, f"Bad request: {twice} header appears twice")

    def _refuse_sessionless(self, headers: Headers) -> None:
        """Without a session GET and DELETE are meaningless; who speaks a handshake revision forgot the id."""
        if headers.get(VERSION_HEADER) in _HANDSHAKE:
            raise Refused(400, "Bad request: the Mcp-Session-Id header is missing")
        raise Refused(405, "Method not allowed: send POST", headers=((b"allow", b"POST, OPTIONS"),))

    async def _other(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            await self._site(scope, receive, send)


def _closing() -> Refused:
    """No request begins any more. What belongs to one in flight is still taken: the answer it asked for, say."""
    return Refused(503, "The server is shutting down", headers=_CLOSING)


def _allow(methods: Collection[str]) -> Line:
    return (b"allow", ", ".join(sorted(methods)).encode())


def _preflight(route: Route, headers: Headers) -> list[Line]:
    """What a browser may send here; only asked for origins that are let in."""
    if b"origin" not in headers:
        return [_allow(route.methods)]
    asked = headers.get(b"access-control-request-headers", b"").decode("latin-1").lower().split(",")
    granted = [name for part in asked if (name := part.strip()) in _CORS_HEADERS or _is_param(name)]
    return [
        (b"access-control-allow-methods", _allow(route.methods)[1]),
        (b"access-control-allow-headers", ", ".join(granted).encode()),
        (b"access-control-max-age", b"600"),
    ]


def _is_param(name: str) -> bool:
    return name.startswith("mcp-param-") and name.replace("-", "").isalnum() and name.isascii()


def _shared_with(origin: bytes, send: Send) -> Send:
    """A `send` whose answers a page of that origin may read. Never for all origins, never with cookies."""
    allow = (b"access-control-allow-origin", origin)

    async def sharing(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), allow, _VARY, _CORS_EXPOSED]}
        await send(message)

    return sharing
