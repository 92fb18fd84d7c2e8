"""One HTTP/1.1 client connection: parses requests within limits, and writes their responses in order.

Theory of operation. A small POST is buffered and handed to the application in the turn it arrives in. Any other
request, and any POST that the application declines, becomes a RequestCycle: an ASGI call in a task of its own. One
request is in flight at a time. Pipelined requests wait, and reading is paused meanwhile. Back-pressure: while a
client's send buffer is full, its next request is not handled. Ambiguous framing is refused, never repaired, and closes
the connection. A request that arrives in one piece sets no timer.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Coroutine, Sequence
from functools import partial
from typing import Any, Final, Literal

import httptools

from mcp_manifold.clock import IdleTimer
from mcp_manifold.fronts.http.asgi import AsgiSend, PendingReply
from mcp_manifold.fronts.http_errors import CLOSE, HttpError, Refused, refusal_body
from mcp_manifold.fronts.server.request_cycle import RequestCycle
from mcp_manifold.fronts.server.service import (
    MAX_HEADS,
    SMALL,
    LingeringClose,
    Service,
    misread,
    refused_head,
    too_large,
)
from mcp_manifold.http1.head import Head, Line, header_lines
from mcp_manifold.http1.known_heads import KnownHeads
from mcp_manifold.model.budget import Reservation
from mcp_manifold.paced_reader import SMALL_PORTION, PacedReader

logger = logging.getLogger(__name__)

Phase = Literal["between", "head", "body"]
"""The part of a request that is arriving."""
_BULKY: Final = 65536
"""Bytes beyond which a body is written apart from its head, because a copy would cost more than a write."""


class Connection(asyncio.Protocol):
    """One client connection. It is also the parser's callbacks (`on_...`) and the HttpWriter of its responses."""

    __slots__ = (
        "_ahead", "_arriving", "_cycle", "_fields", "_head", "_idle", "_is_between", "_is_busy", "_is_excess",
        "_is_full", "_is_stopping", "_known", "_left", "_loop", "_parser", "_phase", "_pieces", "_reader", "_received",
        "_refused", "_reply", "_reservation", "_served", "_service", "_started", "_target", "_transport", "_unsent",
        "_writer", "is_gone",
    )  # fmt: skip
    _transport: asyncio.Transport
    _served: Head

    def __init__(self, service: Service) -> None:
        self._service = service
        self._loop = asyncio.get_running_loop()
        self._reservation = Reservation(service.budget)
        """The memory of unsent responses, while the send buffer is full."""
        self._parser = httptools.HttpRequestParser(self)
        self._target = b""
        self._fields: list[Line] = []
        self._pieces: list[bytes] = []
        self._head: Head | None = None
        """The head of the arriving request, once it is complete."""
        self._arriving: RequestCycle | None = None
        """The cycle that receives the arriving body; None while the body is buffered here."""
        self._received = 0
        """Bytes of the incomplete request since the last piece of its body."""
        self._left = 0  # bytes of the arriving body, if its length is declared
        self._phase: Phase = "between"
        self._known: KnownHeads[Head] = KnownHeads(MAX_HEADS)
        self._started = b""
        """The input in which the arriving request began."""
        self._is_between = True
        """Whether the parser is between two requests."""
        self._refused: Refused | None = None
        """The reason for refusing the arriving request."""
        self._is_busy = False
        """Whether a request is in flight; `_served` is its head."""
        self._reply: PendingReply | None = None
        """Its pending reply, if the application took it whole."""
        self._cycle: RequestCycle | None = None
        """Its ASGI call, or the event stream of its reply."""
        self._ahead: deque[tuple[Head, bytes] | RequestCycle] = deque()
        """Pipelined requests that wait for the one in flight."""
        self._is_stopping = self._is_full = self._is_excess = False
        self._writer: asyncio.Future[None] | None = None
        self._idle = IdleTimer(service.clock, self._check_time)
        self._unsent = 0
        self.is_gone = False

    def __repr__(self) -> str:
        state = "gone" if self.is_gone else "answering" if self._is_busy else "idle"
        return f"<Connection {state} ahead={len(self._ahead)}>"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # a stream connection's transport is a Transport
        service = self._service
        self._reader = PacedReader(self._read, service.pacer, self._transport)
        self._is_excess = len(service.state.connections) >= service.max_connections()
        service.state.connections.add(self)
        self._idle.allow(service.limits.keep_alive)
        self._idle.start()

    def data_received(self, data: bytes) -> None:
        is_much = len(data) > SMALL_PORTION and len(data) > self._left
        (self._reader.feed if is_much or self._reader.is_behind else self._read)(data)

    def _read(self, data: bytes) -> None:
        if self._is_excess:  # refused only now: no client expects a response before its request
            self._refuse(Refused(HttpError.MANY_CONNECTIONS))
            return
        if self._is_between:
            if not (self._is_busy or self._is_stopping or self._is_full):
                known = self._known.find(data)
                if known is not None:
                    self._offer(*known, is_known=True)
                    return
            self._started = data
        self._received += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as exc:
            self._decline(data[exc.args[0] :])
        except httptools.HttpParserError as exc:
            self._refuse(self._refused or misread(exc))
            return
        if self._received:
            self._still_arriving()

    def pause_writing(self) -> None:
        self._is_full = True
        self._reservation.resize(self._transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        self._is_full, self._unsent = False, 0
        self._reservation.release()
        if self._writer is not None and not self._writer.done():
            self._writer.set_result(None)
        if self._ahead and not self._is_busy:
            self._is_busy = True
            self._loop.call_soon(self._begin_next)

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_gone = True
        self._reader.stop()
        self._service.state.connections.discard(self)
        self._idle.stop()
        self._parser = None  # type: ignore[assignment]  # the two refer to each other
        self._ahead.clear()
        self.resume_writing()
        for cycle in (self._arriving, self._cycle):
            if cycle is not None:
                cycle.left()
        reply, self._reply = self._reply, None
        if reply is not None:
            reply.disconnected()

    def shutdown(self) -> None:
        """Close the connection after the request in flight."""
        self._is_stopping = True
        if not self._is_busy:  # and wait for no further input, which the event loop may not live to see
            self._reader.stop()
            self._transport.close()

    # --- limits -------------------------------------------------------------------------------------------------------

    def _still_arriving(self) -> None:
        """Apply the limits of size and time to an incomplete request."""
        limits = self._service.limits
        phase: Phase = "head" if self._head is None else "body"
        if self._received > limits.head_bytes:  # of a head, or of trailers
            self._refuse(too_large(limits))
        elif phase != self._phase and not self._is_busy:
            self._phase = phase
            self._idle.allow(limits.head_seconds if phase == "head" else limits.body_seconds)
            self._idle.start()

    def _check_time(self) -> None:
        """Handle the end of the allowed time."""
        if self._is_busy and not self._is_full:  # a request in flight has its own limits
            self._idle.allow(self._service.limits.keep_alive)
        else:
            before, self._unsent = self._unsent, self._transport.get_write_buffer_size()
            if not self._unsent or 0 < before <= self._unsent:
                self._time_out()
                return
            self._idle.allow(self._service.limits.keep_alive)  # the client may still be reading
        self._idle.start()

    def _time_out(self) -> None:
        self._received = 0  # do not wait for further input
        if self._unsent:
            self._transport.abort()
        elif self._phase != "between":
            self._refuse(Refused(HttpError.LATE_REQUEST))
        else:
            self._close()

    def _refuse(self, refused: Refused) -> None:
        """Answer with a refusal and close. If another request is in flight, close after it instead."""
        if self._transport.is_closing():
            return
        logger.info("request refused: %s", refused.message)
        arriving = self._arriving
        if self._is_busy and (arriving is None or arriving is not self._cycle):
            self._is_stopping = True
            self.pause()
            return
        if arriving is None or not arriving.has_begun:
            body = refusal_body(refused)
            head = self._service.head(refused.status, len(body), refused.headers, keeps_alive=False)
            self._transport.write(head + body)
        if arriving is not None:
            arriving.left()
        self._close()

    def _decline(self, rest: bytes) -> None:
        """Decline an upgrade: parse the request again without it, because the parser skips its body."""
        if self._head is not None:
            self._is_stopping = True
            return
        parser, self._parser = self._parser, httptools.HttpRequestParser(self)
        version = parser.get_http_version().encode()
        lines = header_lines(line for line in self._fields if line[0] != b"upgrade")
        self._read(b"%b %b HTTP/%b\r\n%b\r\n" % (parser.get_method(), self._target, version, lines) + rest)

    def _close(self) -> None:
        self._is_stopping = True
        self._reader.stop()
        received, self._received = self._received or self._reader.is_held, 0
        self._ahead.clear()
        if received and self._transport.can_write_eof():  # more input may be in transit
            self._idle.stop()
            service = self._service
            LingeringClose(self._transport, self, service.clock, service.limits.linger).begin()
        else:
            self._transport.close()

    # --- the parser's calls -------------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        self._target, self._fields, self._pieces, self._head = b"", [], [], None
        self._is_between = False

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._head is None:  # trailers are ignored
            self._fields.append((name.lower(), value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        parser, service = self._parser, self._service
        version = parser.get_http_version()
        self._refused = refused_head(version, self._target, self._fields, self._received, service.limits)
        if self._refused is not None:
            raise self._refused
        keeps_alive = version == "1.1" and parser.should_keep_alive()
        head = Head(parser.get_method(), self._target, self._fields, version, keeps_alive=keeps_alive)
        if b"upgrade" in head.headers and parser.should_upgrade() and head.method != b"CONNECT":
            return  # it is read anew
        self._head, length = head, head.length
        self._left = length or 0
        is_small = length is not None and length <= SMALL and length <= service.max_body()
        if is_small and head.method == b"POST" and b"expect" not in head.headers:
            return  # it is collected
        has_body = b"transfer-encoding" in head.headers or b"content-length" in head.headers
        self._arriving = RequestCycle(self, head, more=has_body)
        self._next(self._arriving)

    def on_body(self, data: bytes) -> None:
        self._received = 1
        self._left -= len(data)
        if self._arriving is None:
            self._pieces.append(data)
        else:
            self._arriving.feed(data)

    def on_message_complete(self) -> None:
        self._received, self._phase, self._is_between = 0, "between", True
        arriving, self._arriving = self._arriving, None
        if arriving is not None:
            arriving.end()
        elif self._head is not None:
            head, pieces = self._head, self._pieces
            self._next((head, pieces[0] if len(pieces) == 1 else b"".join(pieces)))
            if head.decision is not None and self._cycle is None:
                self._known.learn(self._started, head)  # the next request with this head skips the parser
        self._started = b""

    # --- one request at a time ----------------------------------------------------------------------------------------

    def _next(self, request: tuple[Head, bytes] | RequestCycle) -> None:
        if self._is_stopping:
            return
        if not (self._is_busy or self._is_full):
            self._begin(request)
        else:
            self._ahead.append(request)
            self.pause()

    def _begin_next(self) -> None:
        if self._ahead and not self.is_gone:
            self._begin(self._ahead.popleft())
        if not self._ahead:
            self.go_on()

    def _begin(self, request: tuple[Head, bytes] | RequestCycle) -> None:
        if isinstance(request, RequestCycle):
            self._run(request)
        else:
            self._offer(*request)

    def _offer(self, head: Head, body: bytes, *, is_known: bool = False) -> None:
        """Hand a complete request to the application; if it declines, serve it as an ASGI call."""
        self._served, self._is_busy = head, True
        try:
            taken = self._service.application.take(head, body, self)
        except Exception:  # a defect of the application fails this connection only
            logger.exception("request failed unexpectedly")
            self._fail()
            return
        if taken is False:
            self._run(RequestCycle(self, head.sized(len(body)) if is_known else head, body))
        elif taken is not True:
            self._reply = taken

    def _fail(self) -> None:
        """Answer 500 after a defect, unless the response has begun, and close."""
        if self._is_busy and self._cycle is None:
            self._is_busy = False
            self._refuse(Refused(HttpError.DEFECT))
        else:
            self.drop()

    def _run(self, cycle: RequestCycle) -> None:
        self._served, self._cycle, self._is_busy = cycle.head, cycle, True
        self.own(self._serve(cycle))

    async def _serve(self, cycle: RequestCycle) -> None:
        try:
            scope = cycle.scope(self._transport)
        except httptools.HttpParserError:
            self._cycle, self._is_busy = None, False
            cycle.left()
            self._refuse(Refused(HttpError.INVALID_TARGET))
            return
        await self._service.application(scope, cycle.receive, cycle.send)

    def completed(self, *, keeps_alive: bool) -> None:
        """Finish a response, and go on to the next request."""
        self._cycle = self._reply = None
        self._is_busy = False
        self._unsent = 0
        if not keeps_alive or self._is_stopping:
            self._close()
            return
        self._idle.allow(self._service.limits.keep_alive)
        if self._ahead and not self._is_full:
            self._is_busy = True
            self._loop.call_soon(self._begin_next)
        elif self._reader.is_held and not self._ahead:
            self.go_on()

    # --- the HttpWriter of the request in flight ----------------------------------------------------------------------

    def respond(self, status: int, body: bytes, lines: Sequence[Line] = ()) -> None:
        """Send a complete JSON response; an empty body has no media type."""
        if self.is_gone:
            return
        service, keeps_alive = self._service, self._served.keeps_alive
        if service.state.default_headers is not service.known_lines:
            service.refresh()
        if status == 200 and keeps_alive and not lines and len(body) <= _BULKY:
            self._transport.write(b"%b%d\r\n\r\n%b" % (service.usual, len(body), body))
        else:
            says_close = CLOSE in lines
            head = service.head(status, len(body), lines, keeps_alive=keeps_alive or says_close)
            keeps_alive = keeps_alive and not says_close
            if len(body) > _BULKY:
                self._transport.writelines((head, body))
            else:
                self._transport.write(head + body)
        self.completed(keeps_alive=keeps_alive)

    def respond_pieces(
        self, pieces: Sequence[bytes | memoryview], lines: Sequence[Line] = (), *, is_shared: bool = False
    ) -> None:
        """Send a complete JSON response with status 200, in pieces that are not copied."""
        if self.is_gone:
            return
        size, keeps_alive = sum(map(len, pieces)), self._served.keeps_alive
        head = self._service.head(200, size, lines, keeps_alive=keeps_alive)
        if size > _BULKY:
            self._transport.writelines((head + bytes(pieces[0]), *pieces[1:]))
        else:
            self._transport.write(b"".join((head, *pieces)))
        if is_shared:
            self._reservation.release()  # the unsent pieces are cached elsewhere
        self.completed(keeps_alive=keeps_alive)

    def upgrade_to_stream(self) -> AsgiSend:
        """Begin a response that is written with ASGI messages."""
        self._cycle = RequestCycle(self, self._served, is_read=True)
        if self.is_gone:
            self._cycle.left()
        return self._cycle.send

    def own(self, work: Coroutine[Any, Any, None]) -> None:
        """Run `work`, which writes the response, in a task that the server awaits when it stops."""
        task = self._loop.create_task(work, name="front.request")
        self._service.state.tasks.add(task)
        task.add_done_callback(partial(self._worked, self._cycle))

    def _worked(self, cycle: RequestCycle | None, task: "asyncio.Task[None]") -> None:
        self._service.state.tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            logger.error("request failed unexpectedly", exc_info=task.exception())
        if cycle is not None and not (cycle.is_complete or cycle.is_left):
            self.drop()

    def drop(self) -> None:
        """Close the connection without completing the response."""
        self._cycle = self._reply = None
        self._is_busy = False
        self._transport.abort()

    def own_lines(self) -> bytes:
        self._service.refresh()
        return self._service.own_lines

    def write(self, data: bytes) -> None:
        self._transport.write(data)

    async def drained(self) -> None:
        """Wait while the client's send buffer is full."""
        while self._is_full and not self.is_gone:
            self._writer = self._loop.create_future()
            await self._writer

    def pause(self) -> None:
        self._reader.hold()

    def go_on(self) -> None:
        self._reader.release()
