"""HTTP replies: a JSON response if the result comes first, an event stream if another message does.

The response type is committed as late as possible, so a plain result needs no task and no stream. Notifications and
server requests that precede the result become events of the stream. A reply is written by our own HTTP connection or
by an AsgiWriter.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final, NamedTuple, Protocol

from mcp_manifold.clock import Clock
from mcp_manifold.errors import RequestError
from mcp_manifold.fronts.conversation import DISCARD
from mcp_manifold.fronts.gateway import Gateway
from mcp_manifold.fronts.http.admission import AdmissionDecision
from mcp_manifold.fronts.http.asgi import AsgiSend
from mcp_manifold.fronts.http.guard import AcceptedForms
from mcp_manifold.fronts.http.stream import KEEP_ALIVE, EventStream
from mcp_manifold.fronts.http_errors import Refused, failed, http_status, refusal_body
from mcp_manifold.fronts.resumption import Journal
from mcp_manifold.fronts.sessions import ActiveRequest, OpenSession
from mcp_manifold.fronts.tally import Tally
from mcp_manifold.http1.head import Head, Line
from mcp_manifold.model.call import Call, Session
from mcp_manifold.wire import Payload, Pieces, error_of, response, response_pieces
from mcp_manifold.wire import failure as failure_message
from mcp_manifold.wire.event_stream import encode_event
from mcp_manifold.wire.protocol import Era

logger = logging.getLogger(__name__)

BULKY: Final = 65536
"""Bytes of a result beyond which it is written without a copy."""
_SILENCE: Final = 0.5
"""Seconds of silence after which a client that can resume streams gets a stream and its first event id."""


class HttpWriter(Protocol):
    """Writes one HTTP response."""

    def respond(self, status: int, body: bytes, lines: Sequence[Line] = ()) -> None:
        """Send a complete JSON response. An empty body has no media type."""

    def respond_pieces(
        self, pieces: Sequence[bytes | memoryview], lines: Sequence[Line] = (), *, is_shared: bool = False
    ) -> None:
        """Send a complete JSON response with status 200, in pieces that are not copied.

        `is_shared`: the pieces are cached elsewhere, so they do not count against the memory budget.
        """

    def upgrade_to_stream(self) -> AsgiSend:
        """Begin a response that is written with ASGI messages."""

    def own(self, work: Coroutine[Any, Any, None]) -> None:
        """Run `work`, which writes the stream, in a task. If the stream stays incomplete, close the connection."""

    def drop(self) -> None:
        """Close the connection without a response."""


class PostExchange(NamedTuple):
    """One admitted HTTP request, and the writer of its response."""

    head: Head
    decision: AdmissionDecision
    writer: HttpWriter
    lines: tuple[Line, ...]
    """Further header lines of the response."""
    accepted: AcceptedForms
    """The forms that the response may have."""

    def fail(self, id_: Payload, exc: RequestError, era: Era, *, is_invalid: bool = False) -> None:
        """Answer a request whose call did not begin; see `http_errors.http_status`."""
        error = error_of(exc, era)
        self.writer.respond(http_status(error, era, is_invalid=is_invalid), failure_message(id_, error), self.lines)


class Front(Protocol):
    """The part of the HTTP front that replies use."""

    tally: Tally
    clock: Clock

    def answered(self, reply: "HttpReply", size: int) -> None:
        """Note that the writer has an answer of `size` bytes. A stream counts its own bytes and passes 0."""


class HttpReply(ActiveRequest):
    """The reply to one request; see the module. `call` is the request's call."""

    __slots__ = (
        "_accepted", "_answer", "_front", "_id", "_is_over", "_journal", "_key", "_lines", "_stream",
        "_writer", "has_failed", "opened",
    )  # fmt: skip

    def __init__(
        self,
        front: Front,
        exchange: PostExchange,
        method: str,
        params: dict[str, Payload],
        session: Session,
        id_: Payload,
        opened: OpenSession | None = None,
    ) -> None:
        self.call = Call(method, params, session, self, id_)
        self._front = front
        self._writer = exchange.writer
        self._id = id_
        self._lines = exchange.lines
        self._accepted = exchange.accepted
        self.opened = opened
        """The session of the request; None in 2026-07-28."""
        self.has_failed = False
        """Whether the answer is an error."""
        self._key = b""
        self._in_flight = None
        self._stream: EventStream | None = None
        self._journal: Journal | None = None
        self._answer: bytes | None = None
        """The stream's last event, which is sent at the end of the current turn of the event loop."""
        self._is_over = False

    def __repr__(self) -> str:
        return f"<HttpReply to {self.call!r}{' streaming' if self._stream else ''}>"

    def begin(self, gateway: Gateway, limit: int) -> None:
        """Dispatch the call, registered in its session if it has one.

        Raises:
            RequestError: the session refuses the request; no call was begun.
        """
        if self.opened is not None:
            self._key = self.opened.register(self._id, self, limit)
            if not self._accepted.events:
                self.opened.mute(self.call)
        in_flight = gateway.dispatch(self.call)
        if not self._is_over:
            self._in_flight = in_flight

    @property
    def silence(self) -> float:
        """The seconds without a message after which the reply becomes an event stream."""
        journals = None if self.opened is None else self.opened.journals
        return _SILENCE if journals is not None and journals.are_primed else KEEP_ALIVE

    # --- the Reply protocol -------------------------------------------------------------------------------------------

    def emit(self, message: bytes, /, *, needed: bool = False) -> None:
        self.stream()
        if self._is_over and self._answer is None:
            return
        if self._journal is not None:
            (self._journal.post if needed else self._journal.push)(message)
        elif self._stream is not None:
            (self._stream.post if needed else self._stream.push)(encode_event(message))

    def stream(self) -> None:
        if self._stream is None and not self._is_over and self._accepted.events:
            self._stream = stream = EventStream(
                self._writer.upgrade_to_stream(), self._front.tally, headers=self._lines, clock=self._front.clock
            )
            if self.opened is not None and self.opened.journals is not None:
                self._journal = self.opened.journals.begin(stream)
                self._journal.on_gone(self._gone)
            self._writer.own(self._run(stream))

    def respond(self, result: Payload | Pieces | None, failure: BaseException | None) -> None:
        size = 0
        try:
            self.has_failed = result is None or self.call.is_cancelled
            if self.has_failed and self.call.method == "initialize" and self.opened is not None:
                self._lines = self._lines[1:]  # the session was not opened: omit its id
            if not self._accepted.json and (self.opened is not None or not self.has_failed):
                self.stream()
            self._is_over = True
            if self.opened is not None:
                self.opened.complete(self._key)
            if result is None or self.has_failed:
                message, status = failed(self.call, self._id, failure)
            elif isinstance(result, tuple) or (len(result) > BULKY and self._stream is None):
                size = self._respond_pieces(result)
                return
            else:
                message, status = response(self._id, result), 200
            if self._stream is None:
                size = len(message)
                self._writer.respond(status, message, self._lines)
            else:
                self._end_stream(message)
        except Exception:
            logger.exception("answer failed unexpectedly")
            self._writer.drop()
        finally:
            self._release(size)

    def _respond_pieces(self, result: Payload | Pieces) -> int:
        """Send a large or shared result without a copy; returns the bytes sent."""
        is_shared = isinstance(result, tuple)
        pieces = response_pieces(self._id, result if isinstance(result, tuple) else (memoryview(result),))
        if self._stream is None:
            self._writer.respond_pieces(pieces, self._lines, is_shared=is_shared)
            return sum(map(len, pieces))
        self._end_stream(b"".join(pieces))
        return 0

    def _end_stream(self, message: bytes) -> None:
        """Send the answer as the last event, after other events of this turn, such as cancelled server requests."""
        self._answer = message
        asyncio.get_running_loop().call_soon(self._send_last)

    def _send_last(self) -> None:
        message, self._answer = self._answer, None
        self.call.reply = DISCARD
        if message is None or self._stream is None:
            return
        if self._journal is not None:
            self._journal.on_gone(None)
            self._journal.end(message)
        else:
            self._stream.end(encode_event(message))

    def _release(self, size: int) -> None:
        """Break the reference cycle with the call, so that its memory is freed at once."""
        self._in_flight = None
        if self._answer is None:
            self.call.reply = DISCARD
        self._front.answered(self, size)

    # --- disconnects --------------------------------------------------------------------------------------------------

    def disconnected(self) -> None:
        stream, journal = self._stream, self._journal
        if stream is not None:
            if journal is not None and not journal.left(stream):
                return  # another stream delivers the rest
            stream.hang_up()
        self._gone()

    def _gone(self) -> None:
        if self._is_over:
            return
        if self.opened is None:
            self.cancel()
        else:
            self.opened.desert(self.call, self._journal)

    async def _run(self, stream: EventStream) -> None:
        """Write the stream to its end. If it ends before the answer, the client disconnected or stalled."""
        try:
            await stream.run()
        finally:
            if not self._is_over:
                self.disconnected()


class Batch:
    """The reply to a batch (2025-03-26 basic, Batching): one JSON array of answers, in the order of their arrival.

    It is the HttpWriter of each request in it, and none of them becomes a stream.
    """

    __slots__ = ("_answers", "_exchange", "_open", "_replies")

    def __init__(self, exchange: PostExchange) -> None:
        self._exchange = exchange
        self._answers: list[bytes] = []
        self._open = 1
        self._replies: list[HttpReply] = []

    def __repr__(self) -> str:
        return f"<Batch open={self._open} answered={len(self._answers)}>"

    def begin(
        self, messages: Sequence[bytes], handle: Callable[[PostExchange, bytes], "HttpReply | Batch | None"]
    ) -> "Batch | None":
        """Handle every message; returns this reply while answers are pending, or None if all were given."""
        exchange = self._exchange._replace(writer=self, lines=(), accepted=AcceptedForms(json=True, events=False))
        for message in messages:
            self._open += 1
            try:
                reply = handle(exchange, message)
            except Refused as refused:
                self.respond(refused.status, refusal_body(refused))
            else:
                self._replies += [reply] if isinstance(reply, HttpReply) else []
        self._close()
        return self if self._open else None

    def respond(self, status: int, body: bytes, lines: Sequence[Line] = ()) -> None:
        self._answers += [body] if body else []
        self._close()

    def respond_pieces(
        self, pieces: Sequence[bytes | memoryview], lines: Sequence[Line] = (), *, is_shared: bool = False
    ) -> None:
        self.respond(200, b"".join(pieces))

    def upgrade_to_stream(self) -> AsgiSend:
        raise RuntimeError("a batch has no stream")

    def own(self, work: Coroutine[Any, Any, None]) -> None:
        work.close()

    def drop(self) -> None:
        """Leave out the answer of a request that failed."""
        self._close()

    def _close(self) -> None:
        self._open -= 1
        if not self._open:
            body = b"[" + b",".join(self._answers) + b"]" if self._answers else b""
            self._exchange.writer.respond(200 if body else 202, body, self._exchange.lines)

    def cancel(self) -> None:
        for reply in self._replies:
            reply.cancel()

    def disconnected(self) -> None:
        for reply in self._replies:
            reply.disconnected()
