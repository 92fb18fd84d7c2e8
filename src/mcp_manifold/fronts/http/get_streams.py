"""The event streams that clients open by GET, and the POSTs beside the legacy one.

`StandingStreams` serves sessions of Streamable HTTP: their standing stream, and broken streams resumed by
Last-Event-ID. `LegacySse` serves the HTTP+SSE transport (2024-11-05), where a session ends with its stream: its calls
are cancelled and its resources released.
"""

from typing import Final
from urllib.parse import parse_qs

from mcp_manifold.clock import Clock
from mcp_manifold.errors import MalformedMessage
from mcp_manifold.fronts.conversation import Conversation
from mcp_manifold.fronts.gateway import Gateway
from mcp_manifold.fronts.http.asgi import send_empty
from mcp_manifold.fronts.http.request import HttpRequest
from mcp_manifold.fronts.http.stream import COMMENT, EventStream, serve_stream
from mcp_manifold.fronts.http_errors import HttpError, Refused
from mcp_manifold.fronts.resumption import Journal
from mcp_manifold.fronts.sessions import OpenSession, Sessions
from mcp_manifold.fronts.tally import Tally
from mcp_manifold.wire import parse
from mcp_manifold.wire.event_stream import encode_event

_LAST_EVENT: Final = b"last-event-id"


class StandingStreams:
    """Answers GET on an MCP endpoint (2025-11-25 streamable-http, Listening for Messages; Resumability)."""

    def __init__(self, gateway: Gateway, tally: Tally, clock: Clock) -> None:
        self._gateway = gateway
        self._clock = clock
        self._tally = tally

    def __repr__(self) -> str:
        return f"<StandingStreams open={self._tally.streams}>"

    async def get(self, request: HttpRequest, opened: OpenSession) -> None:
        """Serve the client's GET event stream (standing stream), or resume the stream that Last-Event-ID names.

        Raises:
            Refused: 406; 409, the standing stream is open already; 400, the journal has expired; 503 at the limit.
        """
        if not request.accepts_events:
            raise Refused(HttpError.NO_EVENT_STREAM)
        journal, after = _resumed(request, opened)
        if journal is None and opened.hang_up is not None:
            raise Refused(HttpError.STREAM_OPEN)
        with self._tally.stream_open(self._gateway.settings.limits.max_streams):
            stream = EventStream(request.send, self._tally, clock=self._clock)
            stream.push(COMMENT)  # some proxies pass nothing on before the first byte of a body
            if journal is not None and not journal.is_standing:
                await self._rest(request, opened, stream, journal, after)
            else:
                await self._standing(request, opened, stream, journal, after)

    async def _standing(
        self, request: HttpRequest, opened: OpenSession, stream: EventStream, journal: Journal | None, after: int
    ) -> None:
        """Serve the standing stream; a resumed one begins with the missed events."""
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
            if opened.hang_up == stream.end:  # otherwise a resumed stream has replaced this one
                opened.detach()

    async def _rest(
        self, request: HttpRequest, opened: OpenSession, stream: EventStream, journal: Journal, after: int
    ) -> None:
        """Serve the missed events of a call's stream, and the following ones up to its answer."""
        journal.resume(stream, after)
        opened.regain(journal)
        try:
            await serve_stream(stream, request.receive)
        finally:
            if not journal.ended and journal.left(stream) and journal.gone is not None:
                journal.gone()


def _resumed(request: HttpRequest, opened: OpenSession) -> tuple[Journal | None, int]:
    """The journal that a GET resumes, and the number of the client's last event; None without a known event id.

    Raises:
        Refused: 400, the journal of that call has expired.
    """
    id_ = request.headers.get(_LAST_EVENT)
    if id_ is None or opened.journals is None:
        return None, 0
    return opened.journals.find(id_.decode("latin-1")) or (None, 0)


class _StreamChannel:
    """Sends messages as events on the client's stream."""

    __slots__ = ("_stream",)

    def __init__(self, stream: EventStream) -> None:
        self._stream = stream

    def __repr__(self) -> str:
        return f"<_StreamChannel {self._stream!r}>"

    def push(self, message: bytes) -> bool:
        return self._stream.push(encode_event(message))

    def post(self, message: bytes) -> None:
        self._stream.post(encode_event(message))


class LegacySse:
    """Answers GET /sse and POST /messages."""

    def __init__(self, gateway: Gateway, sessions: Sessions, tally: Tally, clock: Clock) -> None:
        self._gateway = gateway
        self._clock = clock
        self._sessions = sessions
        self._tally = tally
        self._conversations: dict[str, Conversation] = {}

    def __repr__(self) -> str:
        return f"<LegacySse conversations={len(self._conversations)}>"

    async def get(self, request: HttpRequest) -> None:
        """Open a session and serve its stream.

        Raises:
            Refused: 406, or 503 at the limit.
        """
        if not request.accepts_events:
            raise Refused(HttpError.NO_EVENT_STREAM)
        with self._tally.stream_open(self._gateway.settings.limits.max_streams):
            await self._serve(request)

    async def _serve(self, request: HttpRequest) -> None:
        opened = self._sessions.create("sse", request.principal, request.route.scope)
        stream = EventStream(request.send, self._tally, clock=self._clock)
        channel = _StreamChannel(stream)
        conversation = Conversation(self._gateway, opened, channel, modern=False)
        endpoint = f"{request.mount}{request.route.prefix}/messages?session_id={opened.id}"
        stream.push(encode_event(endpoint.encode(), event="endpoint"))
        self._conversations[opened.id] = conversation
        try:
            opened.attach(channel.push, stream.end)
            await serve_stream(stream, request.receive)
        finally:
            self._conversations.pop(opened.id, None)
            self._sessions.end(opened)
            await conversation.settle(0)

    def accept(self, request: HttpRequest) -> Conversation:
        """The conversation that a POST belongs to.

        Raises:
            Refused: 400 without a session id; 404 if the caller has no such session.
        """
        try:
            ids = parse_qs(request.query.decode("latin-1"), max_num_fields=8).get("session_id")
        except ValueError:  # more fields than any client of ours sends
            ids = None
        if not ids:
            raise Refused(HttpError.NO_SESSION_PARAMETER)
        opened = self._sessions.find(ids[0].encode("latin-1", "replace"), "sse", request.principal, request.route.scope)
        conversation = self._conversations.get(opened.id)
        if conversation is None:
            raise Refused(HttpError.UNKNOWN_SESSION)
        return conversation

    async def post(self, request: HttpRequest, conversation: Conversation, body: bytes) -> None:
        """Handle a POSTed message. Its response is sent on the event stream.

        Raises:
            Refused: 400 for an invalid message; 404 if the session ended while it arrived.
        """
        if conversation.opened.ended:
            raise Refused(HttpError.UNKNOWN_SESSION)
        try:
            envelope = parse(body)
        except MalformedMessage as exc:
            if conversation.take_batch(body):
                await send_empty(request.send, 202)
                return
            raise Refused(HttpError.MALFORMED, code=exc.code, reason=exc.message) from exc
        conversation.take(envelope)
        await send_empty(request.send, 202)
