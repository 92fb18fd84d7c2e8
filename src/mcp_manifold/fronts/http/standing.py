"""Standing streams of handshake-era clients (GET), and the resumption of broken streams by Last-Event-ID."""

from mcp_manifold.clock import Clock
from mcp_manifold.fronts.gateway import Gateway
from mcp_manifold.fronts.http.asgi import Refused
from mcp_manifold.fronts.http.guard import accepts_events
from mcp_manifold.fronts.http.request import HttpRequest
from mcp_manifold.fronts.http.resumption import Forgotten, Journal
from mcp_manifold.fronts.http.stream import EventStream, Tally, serve_stream
from mcp_manifold.fronts.sessions import OpenSession
from mcp_manifold.wire.event_stream import encode_event

_LAST_EVENT = b"last-event-id"


class StandingStreams:
    """Answers GET on an MCP endpoint (2025-11-25 streamable-http, Listening for Messages; Resumability)."""

    def __init__(self, gateway: Gateway, tally: Tally, clock: Clock) -> None:
        self._gateway = gateway
        self._clock = clock
        self._tally = tally

    def __repr__(self) -> str:
        return f"<StandingStreams open={self._tally.streams}>"

    async def get(self, request: HttpRequest, opened: OpenSession) -> None:
        """Serve a session's standing stream, or resume the stream that Last-Event-ID names.

        Raises:
            Refused: 406; 409, the standing stream is open already; 400, the journal has expired; 503 at the limit.
        """
        if not accepts_events(request.headers.get(b"accept", b"*/*").decode("latin-1")):
            raise Refused(406, "Not acceptable: the client must accept text/event-stream")
        journal, after = _resumed(request, opened)
        if journal is None and opened.hang_up is not None:
            raise Refused(409, "Conflict: this session already has its stream")
        with self._tally.stream_open(self._gateway.settings.limits.max_streams):
            stream = EventStream(request.send, self._tally, clock=self._clock)
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
    try:
        return opened.journals.find(id_.decode("latin-1")) or (None, 0)
    except Forgotten:
        raise Refused(400, "Bad request: the stream of that Last-Event-ID is no longer kept") from None
