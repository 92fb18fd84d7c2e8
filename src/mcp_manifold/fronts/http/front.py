"""The HTTP front: admits each request, parses its message, and begins the call that answers it.

Our own connections hand over small POSTs without a task (`take`). All other requests, and all other servers, use the
ASGI interface. Both use the same admission and the same message handling. The front is a plain ASGI callable without a
framework, because every `tools/call` pays for each layer. Paths outside the MCP endpoints are served by the `site`.
"""

import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from mcp_manifold.clock import Clock, LoopClock, Timer
from mcp_manifold.errors import InvalidParams, MalformedMessage, RequestError, TooManyRequests
from mcp_manifold.fronts.checks import (
    VERSION_HEADER,
    ParamCheck,
    check_mirrors,
    check_params,
    require_single_routing,
    speaks_modern,
    unsupported,
)
from mcp_manifold.fronts.gateway import Gateway
from mcp_manifold.fronts.http.admission import SESSION_HEADER, AdmissionDecision, RequestValidator, preflight
from mcp_manifold.fronts.http.asgi import (
    App,
    AsgiReceive,
    AsgiSend,
    AsgiWriter,
    Scope,
    send_empty,
    send_refusal,
    with_lines,
)
from mcp_manifold.fronts.http.get_streams import LegacySse, StandingStreams
from mcp_manifold.fronts.http.reply import Batch, HttpReply, HttpWriter, PostExchange
from mcp_manifold.fronts.http.request import HttpRequest, read_body
from mcp_manifold.fronts.http.routes import split_mount
from mcp_manifold.fronts.http_errors import HttpError, Refused, refusal_body
from mcp_manifold.fronts.sessions import Sessions
from mcp_manifold.fronts.tally import Tally
from mcp_manifold.http1.head import Head
from mcp_manifold.model.budget import Reservation
from mcp_manifold.model.call import Session
from mcp_manifold.wire import MODERN_VERSION, NULL_ID, UNSET, Envelope, Payload, batch_of, members_of, parse, text
from mcp_manifold.wire.protocol import INTERNAL_ERROR

logger = logging.getLogger(__name__)

_LOOK: Final = 0.25
"""Seconds between two checks for silent calls."""
_LISTEN: Final = "subscriptions/listen"


class HttpFront:
    """The ASGI application, which our own connections also call directly (`take`).

    Args:
        gateway: answers the calls.
        site: the ASGI application for all paths outside the MCP endpoints.
        check_params: compares a tool's arguments with the headers that mirror them.
    """

    def __init__(self, gateway: Gateway, site: App, *, check_params: ParamCheck, clock: Clock | None = None) -> None:
        self._gateway = gateway
        self._site = site
        self._check_params = check_params
        self.clock = clock or LoopClock()
        self.tally = Tally(budget=gateway.budget)
        self.is_closed = False
        """Whether a shutdown has begun."""
        self._answering = 0
        self._drained: Callable[[], None] | None = None
        self._in_flight: dict[HttpReply, float] = {}
        """The unanswered replies, with their start times by the clock."""
        self._listens: set[HttpReply] = set()
        """The open subscriptions of 2026-07-28 clients. They last until the client cancels them."""
        self._timer: Timer | None = None
        self._sessions = Sessions(gateway, self.tally, self.clock)
        self._standing = StandingStreams(gateway, self.tally, self.clock)
        self._sse = LegacySse(gateway, self._sessions, self.tally, self.clock)
        self._validator = self._made_validator()

    def __repr__(self) -> str:
        return f"<HttpFront {self._validator!r} {self._sessions!r} in_flight={len(self._in_flight)}>"

    def _made_validator(self) -> RequestValidator:
        return RequestValidator(self._gateway.settings, self._sessions, self._gateway.has_scope)

    # --- lifecycle ----------------------------------------------------------------------------------------------------

    def reload(self) -> None:
        """Use new settings, and end the sessions whose token was revoked or whose endpoint was removed."""
        self._validator = self._made_validator()
        self._sessions.keep(self._is_admitted)
        for reply in [reply for reply in self._listens if not self._is_admitted(reply.call.session)]:
            reply.end()

    def _is_admitted(self, session: Session) -> bool:
        """Whether the current settings admit the client of a session."""
        return self._validator.tokens.knows(session.principal) and self._gateway.has_scope(session.scope)

    def drain(self, drained: Callable[[], None]) -> None:
        """Refuse new requests, end subscriptions and idle streams; call `drained` when all others are answered."""
        self.is_closed = True
        self._drained = drained
        self._end_listens()
        self._sessions.drain()
        self._report_drained()

    def close(self) -> None:
        """End all sessions and their GET event streams (standing streams) immediately."""
        self.is_closed = True
        self._end_listens()
        self._sessions.close()

    def _end_listens(self) -> None:
        for reply in list(self._listens):
            reply.end()

    # --- entry points -------------------------------------------------------------------------------------------------

    def take(self, head: Head, body: bytes, writer: HttpWriter) -> HttpReply | Batch | bool:
        """Handle a complete small POST to an MCP endpoint, without a task.

        Returns the pending reply, or True if the request was answered. Returns False, without side effects, if the
        request must be served as an ASGI call.
        """
        decision, validator = head.decision, self._validator
        if not isinstance(decision, AdmissionDecision) or decision.validator is not validator:
            decision = validator.admit(head)
            head.remember(decision)
        route = decision.route
        if route is None or route.kind != "mcp" or len(body) > validator.max_body:
            return False
        return self._post(PostExchange(head, decision, writer, decision.cors, decision.accepted), body) or True

    async def __call__(self, scope: Scope, receive: AsgiReceive, send: AsgiSend) -> None:
        """Serve one request over ASGI. Never raises for what a client did."""
        if scope["type"] != "http":
            await self._other(scope, receive, send)
            return
        self._answering += 1
        try:
            mount, path = split_mount(scope)
            head = Head(scope["method"].encode(), path, scope["headers"], "1.1", keeps_alive=True)
            decision = self._validator.admit(head)
            if decision.cors:
                send = with_lines(decision.cors, send)
            await self._serve(scope, head, mount, decision, receive, send)
        except Refused as refused:
            self.tally.refused += 1
            await send_refusal(send, refused.bare())
        except OSError:
            logger.debug("client left before it was answered")
        except Exception:  # the front's boundary: a defect fails this request only
            logger.exception("request failed unexpectedly", extra={"method": scope["method"]})
            with suppress(RuntimeError, OSError):  # the answer may have begun already
                await send_refusal(send, _defect())
        finally:
            self._landed()

    async def _serve(
        self, scope: Scope, head: Head, mount: str, decision: AdmissionDecision, receive: AsgiReceive, send: AsgiSend
    ) -> None:
        if decision.refusal is not None:
            raise decision.refusal
        route = decision.route
        if route is None:
            await self._site(scope, receive, send)
            return
        principal, accepts_events = decision.principal, decision.accepted.events
        query = scope.get("query_string", b"")
        request = HttpRequest(head.headers, head.lines, route, principal, accepts_events, receive, send, query, mount)
        match scope["method"]:
            case "OPTIONS":
                await send_empty(send, 204, preflight(route, head.headers))
            case "POST" if route.kind == "messages":
                await self._post_message(head, decision, request)
            case "POST":
                await self._post_asgi(head, decision, request)
            case "GET" if self.is_closed:
                raise Refused(HttpError.SHUTTING_DOWN)
            case "GET" if route.kind == "sse":
                await self._sse.get(request)
            case "GET":
                await self._standing.get(request, decision.require_session())
            case _:
                self._sessions.end(decision.require_session())
                await send_empty(send, 204)

    async def _post_asgi(self, head: Head, decision: AdmissionDecision, request: HttpRequest) -> None:
        reservation = Reservation(self.tally.budget)
        try:
            body = await read_body(request.receive, head.headers, self._validator.max_body, reservation)
            writer = AsgiWriter(request.receive, request.send, self.tally.budget)
            decision = self._still(head, decision)
            await writer.run(self._post(PostExchange(head, decision, writer, (), decision.accepted), body))
        finally:
            reservation.release()

    def _still(self, head: Head, decision: AdmissionDecision) -> AdmissionDecision:
        """The decision on a head, made anew if the settings changed while the body arrived."""
        return decision if decision.validator is self._validator else self._validator.admit(head)

    async def _post_message(self, head: Head, decision: AdmissionDecision, request: HttpRequest) -> None:
        """Receive a message of the 2024-11-05 SSE transport. Its response is sent on the session's stream."""
        conversation = self._sse.accept(request)
        reservation = Reservation(self.tally.budget)
        try:
            body = await read_body(request.receive, request.headers, self._validator.max_body, reservation)
            refusal = self._still(head, decision).refusal
            if refusal is not None:
                raise refusal
            self.tally.bytes_in += len(body)
            await self._sse.post(request, conversation, body)
        finally:
            reservation.release()

    async def _other(self, scope: Scope, receive: AsgiReceive, send: AsgiSend) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            await self._site(scope, receive, send)

    # --- messages -----------------------------------------------------------------------------------------------------

    def _post(self, exchange: PostExchange, body: bytes) -> HttpReply | Batch | None:
        """Handle one message; returns the pending reply, or None if the request was answered."""
        writer, lines = exchange.writer, exchange.lines
        try:
            if exchange.decision.refusal is not None:
                raise exchange.decision.refusal
            self.tally.bytes_in += len(body)
            return self._message(exchange, body)
        except Refused as exc:
            self.tally.refused += 1
            refused = exc.bare()  # a remembered decision keeps it
        except Exception:  # the front's boundary, as in __call__
            logger.exception("request failed unexpectedly", extra={"method": "POST"})
            refused = _defect()
        writer.respond(refused.status, refusal_body(refused), (*refused.headers, *lines))
        return None

    def _message(self, exchange: PostExchange, body: bytes) -> HttpReply | Batch | None:
        try:
            envelope = parse(body)
        except MalformedMessage as exc:
            opened = exchange.decision.session
            if opened is not None and not (opened.ended or isinstance(exchange.writer, Batch)):
                messages = batch_of(body, opened.session.version)
                if messages:
                    return Batch(exchange).begin(messages, self._message)
            raise Refused(HttpError.MALFORMED, code=exc.code, reason=exc.message) from exc
        method, id_ = envelope.method, envelope.id
        if self.is_closed and method is not UNSET and id_ is not UNSET:
            raise Refused(HttpError.SHUTTING_DOWN)
        try:
            params = members_of(envelope)
        except RequestError as exc:
            if id_ is UNSET:
                raise Refused(HttpError.MALFORMED, code=exc.code, reason=exc.message) from exc
            return exchange.fail(id_, exc, "handshake", is_invalid=True)
        may_be_modern = exchange.decision.is_modern or method == "server/discover" or "_meta" in params
        if may_be_modern and speaks_modern(method or "", params, exchange.head.headers.get(VERSION_HEADER)):
            return self._modern(exchange, envelope, params)
        return self._handshake(exchange, envelope, params)

    def _begin(self, reply: HttpReply) -> HttpReply | None:
        """Begin a call; returns its reply, or None if it was answered. Raises RequestError as `HttpReply.begin`."""
        self._answering += 1
        self._in_flight[reply] = self.clock.now()
        try:
            reply.begin(self._gateway, self._validator.max_calls)
        except RequestError:
            self.answered(reply, 0)
            raise
        if self._timer is None:
            self._timer = self.clock.call_later(_LOOK, self._look)
        return reply if reply in self._in_flight else None

    def answered(self, reply: HttpReply, size: int) -> None:
        self.tally.bytes_out += size
        self._in_flight.pop(reply, None)
        if reply.has_failed and reply.opened is not None and reply.call.method == "initialize":
            self._sessions.end(reply.opened)
        self._listens.discard(reply)
        self._landed()

    def _landed(self) -> None:
        self._answering -= 1
        if self._drained is not None:
            self._report_drained()

    def _report_drained(self) -> None:
        """Call `drained`, once, when no request is in flight."""
        drained = self._drained
        if drained is not None and not self._answering:
            self._drained = None
            drained()

    def _look(self) -> None:
        """Upgrade silent calls to event streams, which carry keep-alives and can be resumed."""
        self._timer = None
        now = self.clock.now()
        for reply, began in list(self._in_flight.items()):
            if now - began >= reply.silence:
                reply.stream()
        if self._in_flight:
            self._timer = self.clock.call_later(_LOOK, self._look)

    # --- the handshake revisions --------------------------------------------------------------------------------------

    def _handshake(self, exchange: PostExchange, envelope: Envelope, params: dict[str, Payload]) -> HttpReply | None:
        method, id_, decision = envelope.method, envelope.id, exchange.decision
        opened = decision.session
        if opened is None or opened.ended:
            if method == "initialize" and id_ is not UNSET:  # with whatever is left of an earlier session
                return self._initialize(exchange, id_, params)
            raise decision.session_refusal or Refused(HttpError.UNKNOWN_SESSION)
        opened.touch()
        if method is UNSET:
            opened.questions.answered(envelope)
            exchange.writer.respond(202, b"", exchange.lines)
            return None
        if id_ is UNSET:
            opened.note(method, params)
            exchange.writer.respond(202, b"", exchange.lines)
            return None
        is_invalid = True
        try:
            if method == "initialize":
                raise RequestError("Invalid request: this session is initialized already")
            if decision.has_mirrors:
                check_mirrors(method, params, exchange.head.headers, exchange.head.lines)
            is_invalid = False
            return self._begin(HttpReply(self, exchange, method, params, opened.session, id_, opened))
        except Refused:
            raise
        except RequestError as exc:
            return exchange.fail(id_, exc, "handshake", is_invalid=is_invalid)

    def _initialize(self, exchange: PostExchange, id_: Payload, params: dict[str, Payload]) -> HttpReply | None:
        route = exchange.decision.route
        assert route is not None, "a message is for an endpoint"
        opened = self._sessions.create("mcp", exchange.decision.principal, route.scope)
        try:
            opened.introduce(params)
            named = exchange._replace(lines=((SESSION_HEADER, opened.id.encode()), *exchange.lines))
            return self._begin(HttpReply(self, named, "initialize", params, opened.session, id_, opened))
        except RequestError as exc:
            self._sessions.end(opened)
            return exchange.fail(id_, exc, "handshake")

    # --- 2026-07-28 ---------------------------------------------------------------------------------------------------

    def _modern(self, exchange: PostExchange, envelope: Envelope, params: dict[str, Payload]) -> HttpReply | None:
        """Handle a message without a session. Closing its stream cancels its call."""
        method, id_, decision = envelope.method, envelope.id, exchange.decision
        if method is UNSET:
            raise Refused(HttpError.POSTED_RESPONSE)
        if id_ is UNSET:
            self._acknowledge(exchange)
            return None
        assert decision.route is not None, "a message is for an endpoint"
        headers, scope = exchange.head.headers, decision.route.scope
        if method == _LISTEN and not exchange.accepted.events:
            raise Refused(HttpError.NO_EVENT_STREAM)
        try:
            require_single_routing(headers, exchange.head.lines)
            if method == _LISTEN and len(self._listens) >= self._validator.max_streams:
                decision.client(method, params, headers)  # an invalid request is reported before the limit
                raise TooManyRequests("Too many subscriptions are open", retry_after=10.0)
            session = decision.client(method, params, headers).session(decision.principal, scope)
            if method == "tools/call":
                self._check_mirrored(exchange.head, scope, params)
        except RequestError as exc:
            return exchange.fail(id_, exc, "modern")
        reply = HttpReply(self, exchange, method, params, session, id_)
        if method == _LISTEN:
            self._listens.add(reply)
        return self._begin(reply)

    def _check_mirrored(self, head: Head, scope: str, params: dict[str, Payload]) -> None:
        """Compare a tool call's arguments with the headers that mirror them."""
        name = params.get("name")
        if name is None:
            raise InvalidParams('Invalid params: "name" is missing')
        schema = self._gateway.input_schema(scope, text(name, "name"))
        if schema is not None:
            check_params(self._check_params, schema, params, head.headers, head.lines)

    def _acknowledge(self, exchange: PostExchange) -> None:
        """Accept and drop a notification. The revision defines none from clients, but some clients send them."""
        version = exchange.head.headers.get(VERSION_HEADER, MODERN_VERSION.encode())
        if version == MODERN_VERSION.encode():
            exchange.writer.respond(202, b"", exchange.lines)
        else:
            exchange.fail(NULL_ID, unsupported(version.decode("latin-1")), "modern")


def _defect() -> Refused:
    return Refused(HttpError.DEFECT, code=INTERNAL_ERROR)
