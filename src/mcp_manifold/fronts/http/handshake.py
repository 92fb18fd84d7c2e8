"""The handshake revisions over Streamable HTTP: sessions, calls in them, their standing stream. Knows no path."""

import asyncio

from mcp_manifold.errors import RequestError
from mcp_manifold.fronts.gateway import Gateway
from mcp_manifold.fronts.http.asgi import Refused, send_empty, send_json
from mcp_manifold.fronts.http.guard import accepts_events
from mcp_manifold.fronts.http.request import HttpRequest
from mcp_manifold.fronts.http.responder import Responder
from mcp_manifold.fronts.http.resumption import Forgotten, Journal
from mcp_manifold.fronts.http.stream import EventStream, Tally, serve_stream
from mcp_manifold.fronts.in_flight import Flight, answered
from mcp_manifold.fronts.inbound import VERSION_HEADER, check_mirrors, serves_handshake
from mcp_manifold.fronts.sessions import OpenSession, Sessions
from mcp_manifold.model.call import Call
from mcp_manifold.wire import HANDSHAKE_VERSIONS, UNSET, Envelope, Payload, error_of, failure
from mcp_manifold.wire.event_stream import encode_event

SESSION_HEADER = b"mcp-session-id"
_LAST_EVENT = b"last-event-id"


class Handshake:
    """Answers POST, GET and DELETE of the handshake era."""

    __slots__ = ("_gateway", "_sessions", "_tally")

    def __init__(self, gateway: Gateway, sessions: Sessions, tally: Tally) -> None:
        self._gateway = gateway
        self._sessions = sessions
        self._tally = tally

    def __repr__(self) -> str:
        return f"<Handshake {self._sessions!r}>"

    async def post(self, request: HttpRequest, envelope: Envelope, params: dict[str, Payload]) -> None:
        """Answer one POSTed message."""
        method, id_ = envelope.method, envelope.id
        if method == "initialize" and id_ is not UNSET and SESSION_HEADER not in request.headers:
            await self._initialize(request, id_, params)
            return
        opened = self._find(request)
        if method is UNSET:
            opened.questions.answered(envelope)
            await send_empty(request.send, 202)
        elif id_ is UNSET:
            opened.note(method, params)
            await send_empty(request.send, 202)
        else:
            await self._answer(request, opened, method, id_, params)

    async def get(self, request: HttpRequest) -> None:
        """Serve the session's standing stream."""
        if not accepts_events(request.headers.get(b"accept", b"*/*").decode("latin-1")):
            raise Refused(406, "Not acceptable: the client must accept text/event-stream")
        opened = self._find(request)
        journal, after = _named(request, opened)
        if journal is None and opened.hang_up is not None:
            raise Refused(409, "Conflict: this session already has its stream")
        if self._tally.streams >= self._gateway.settings.limits.max_streams:
            raise Refused(503, "Too many open streams, try again later", headers=((b"retry-after", b"10"),))
        stream = EventStream(request.send, self._tally)
        self._tally.streams += 1
        try:
            if journal is not None and not journal.is_standing:
                await self._rest(request, opened, stream, journal, after)
            else:
                await self._standing(request, opened, stream, journal, after)
        finally:
            self._tally.streams -= 1

    async def delete(self, request: HttpRequest) -> None:
        """End the session."""
        self._sessions.end(self._find(request))
        await send_empty(request.send, 204)

    async def _standing(
        self, request: HttpRequest, opened: OpenSession, stream: EventStream, journal: Journal | None, after: int
    ) -> None:
        """The standing stream; the rest of the one before first, if it is taken up again."""
        if journal is not None:
            journal.resume(stream, after)
        elif opened.journals is not None:
            journal = opened.journals.begin(stream, is_standing=True)
        deliver = (lambda message: stream.push(encode_event(message))) if journal is None else journal.push
        try:
            opened.attach(deliver, stream.end)
            await serve_stream(stream, request.receive)
        finally:
            if journal is not None:
                journal.left(stream)
            if opened.hang_up == stream.end:  # else the client reads on elsewhere
                opened.detach()

    async def _rest(
        self, request: HttpRequest, opened: OpenSession, stream: EventStream, journal: Journal, after: int
    ) -> None:
        """The rest of the stream of a call, up to its answer."""
        journal.resume(stream, after)
        opened.regain(journal)
        try:
            await serve_stream(stream, request.receive)
        finally:
            if not journal.ended and journal.left(stream) and journal.gone is not None:
                journal.gone()

    async def _initialize(self, request: HttpRequest, id_: Payload, params: dict[str, Payload]) -> None:
        opened = self._sessions.create("mcp", request.principal, request.route.scope)
        well = False
        try:
            opened.greet(params)
            well = await self._call(request, opened, id_, "initialize", params)
        except RequestError as exc:
            await send_json(request.send, 200, failure(id_, error_of(exc, "handshake")))
        finally:
            if not well:
                self._sessions.end(opened)

    async def _answer(
        self, request: HttpRequest, opened: OpenSession, method: str, id_: Payload, params: dict[str, Payload]
    ) -> None:
        status = 400
        try:
            if method == "initialize":
                raise RequestError("Invalid request: this session is initialized already")
            check_mirrors(method, params, request.headers)
            status = 200
            await self._call(request, opened, id_, method, params)
        except RequestError as exc:
            await send_json(request.send, status, failure(id_, error_of(exc, "handshake")))

    async def _call(
        self, request: HttpRequest, opened: OpenSession, id_: Payload, method: str, params: dict[str, Payload]
    ) -> bool:
        """Run one call and send its answer; returns whether it succeeded.

        Raises:
            RequestError: the call was not begun, and nothing was sent.
        """
        responder = Responder(request.send, self._tally, opened.journals)
        call = Call(method, params, opened.session, responder.emit, commit=responder.commit, id=id_)
        flight = Flight(call, asyncio.current_task())
        key = opened.depart(id_, flight, self._gateway.settings.limits.max_calls_per_session)
        if method == "initialize":
            responder.headers = ((SESSION_HEADER, opened.id.encode()),)
        try:
            responder.open(request.receive, lambda: opened.desert(call, responder.journal))
            try:
                message, status = await answered(self._gateway.handle, flight, id_)
            finally:
                opened.land(key)
            if flight.failed:
                responder.headers = ()
            await responder.finish(message, status)
        finally:
            responder.close()
        return not flight.failed

    def _find(self, request: HttpRequest) -> OpenSession:
        """The session a request names.

        Raises:
            Refused: 400 without one or for a revision that is not served, 404 if it is not (or no longer) the caller's.
        """
        if not serves_handshake(request.headers.get(VERSION_HEADER)):
            raise Refused(400, f"Bad request: unsupported protocol version; served are {', '.join(HANDSHAKE_VERSIONS)}")
        id_ = request.headers.get(SESSION_HEADER)
        if id_ is None:
            raise Refused(400, "Bad request: the Mcp-Session-Id header is missing; send initialize first")
        return self._sessions.find(id_, "mcp", request.principal, request.route.scope)


def _named(request: HttpRequest, opened: OpenSession) -> tuple[Journal | None, int]:
    """The stream a GET wants to go on with, and the last event it has; none without a header that means something.

    Raises:
        Refused: 400 when the answer it waits for is no longer kept.
    """
    id_ = request.headers.get(_LAST_EVENT)
    if id_ is None or opened.journals is None:
        return None, 0
    try:
        return opened.journals.find(id_.decode("latin-1")) or (None, 0)
    except Forgotten:
        raise Refused(400, "Bad request: the stream of that Last-Event-ID is no longer kept") from None
