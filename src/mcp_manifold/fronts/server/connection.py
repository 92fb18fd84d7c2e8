"""One client's HTTP/1.1 connection: requests in, within limits, and their responses out in order.

Theory of operation. A small request is parsed to its end and then offered to the service's short way, which answers
without a task. What that does not take, and everything that is large or unusual, becomes a Cycle: an ASGI call with a
task of its own. One request is answered at a time; those that were sent ahead wait, and no more is read meanwhile.
Nothing that could make two sides disagree on where a request ends is repaired: it is refused, and the connection is
closed. A request that comes in one piece touches no timer; each connection has one, which is set anew when it fires.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Coroutine, Sequence
from functools import partial
from typing import Any, Literal

import httptools

from mcp_manifold.fronts.http.asgi import Line, Receive, Refused, Send, refusal_body
from mcp_manifold.fronts.server.idle_timer import IdleTimer
from mcp_manifold.fronts.server.lingering_close import LingeringClose
from mcp_manifold.fronts.server.rejections import late, misread, too_large, unfit
from mcp_manifold.fronts.server.request_cycle import RequestCycle
from mcp_manifold.fronts.server.service import BULKY, MOST_KNOWN, SMALL, Passage, Service
from mcp_manifold.http1.head import Head, header_lines
from mcp_manifold.http1.known_heads import KnownHeads
from mcp_manifold.model.budget import Reservation

logger = logging.getLogger(__name__)

Phase = Literal["between", "head", "body"]
"""What of a request is coming in."""


class Connection(asyncio.Protocol):
    """See the module. Also the parser's callbacks (`on_...`), and the Wire and the Reply of what is being answered."""

    __slots__ = (
        "_ahead", "_arriving", "_cycle", "_fields", "_head", "_is_between", "_is_excess", "_is_full", "_is_paused",
        "_is_stopping", "_known", "_loop", "_parser", "_passage", "_phase", "_pieces", "_received", "_refused",
        "_reservation", "_served", "_service", "_started", "_target", "_transport", "_unsent", "_watch", "_writer",
        "is_gone",
    )  # fmt: skip
    _transport: asyncio.Transport
    _served: Head

    def __init__(self, service: Service) -> None:
        self._service = service
        self._loop = asyncio.get_running_loop()
        self._reservation = Reservation(service.budget)
        """What waits for the client to read it, once that is much."""
        self._parser = httptools.HttpRequestParser(self)
        self._target = b""
        self._fields: list[Line] = []
        self._pieces: list[bytes] = []
        self._head: Head | None = None
        """Of the request that is coming in, once it is complete."""
        self._arriving: RequestCycle | None = None
        """Who gets the body that is coming in; None where it is collected here."""
        self._received = 0
        """Bytes of a request that is not complete, since the last of its body."""
        self._phase: Phase = "between"
        self._known: KnownHeads[Head] = KnownHeads(MOST_KNOWN)
        self._started = b""
        """The piece of input in which the request that is coming in began."""
        self._is_between = True
        """Whether the parser is between two requests, and has seen nothing of the next."""
        self._refused: Refused | None = None
        """Why what is coming in is not served."""
        self._passage: Passage | None = None
        self._cycle: RequestCycle | None = None
        """The request being answered: one of the two, or none; `_served` is its head."""
        self._ahead: deque[tuple[Head, bytes] | RequestCycle] = deque()
        """Requests that were sent before the one before them was answered."""
        self._is_paused = self._is_stopping = self._is_full = self._is_excess = False
        self._writer: asyncio.Future[None] | None = None
        self._watch = IdleTimer()
        self._unsent = 0
        self.is_gone = False

    def __repr__(self) -> str:
        state = "gone" if self.is_gone else "answering" if self._is_busy else "idle"
        return f"<Connection {state} ahead={len(self._ahead)}>"

    @property
    def _is_busy(self) -> bool:
        return self._cycle is not None or self._passage is not None

    # --- the transport's calls ----------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # a stream connection's transport is a Transport
        self._is_excess = len(self._service.connections) >= self._service.most()
        self._service.connections.add(self)
        self._rest()
        self._watch.begin(self._look)

    def data_received(self, data: bytes) -> None:
        if self._is_excess:  # told only now: who has not asked yet would take it for the end of the connection
            self._refuse(Refused(503, "Too many open connections, try again later", headers=((b"retry-after", b"10"),)))
            return
        if self._is_between:
            if not self._is_busy and not self._is_stopping:
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
            self._still_coming()

    def pause_writing(self) -> None:
        self._is_full = True
        self._reservation.resize(self._transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        self._is_full, self._unsent = False, 0
        self._reservation.release()
        if self._writer is not None and not self._writer.done():
            self._writer.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_gone = True
        self._service.connections.discard(self)
        self._watch.stop()
        self._parser = None  # type: ignore[assignment]  # the two refer to each other
        self._ahead.clear()
        self.resume_writing()
        for cycle in (self._arriving, self._cycle):
            if cycle is not None:
                cycle.left()
        passage, self._passage = self._passage, None
        if passage is not None:
            passage.left()

    def shutdown(self) -> None:
        """Close, once what is being answered is answered."""
        self._is_stopping = True
        if not self._is_busy:
            self._received = 0
            self._close()

    # --- limits -------------------------------------------------------------------------------------------------------

    def _still_coming(self) -> None:
        """A request is not complete yet: its sender has only so much room, and so long."""
        limits = self._service.limits
        phase: Phase = "head" if self._head is None else "body"
        if self._received > limits.head_bytes:  # of a head, or of trailers
            self._refuse(too_large(limits))
        elif phase != self._phase and not self._is_busy:
            self._phase = phase
            self._watch.allow(limits.head_seconds if phase == "head" else limits.body_seconds)
            self._watch.begin(self._look)

    def _rest(self) -> None:
        """Nothing is being answered: that may last for so long."""
        self._watch.allow(self._service.limits.keep_alive)

    def _look(self) -> None:
        """The time of something may be over."""
        if self._is_busy and not self._is_full:  # what is busy has its own limits
            self._rest()
        elif self._watch.is_over:
            before, self._unsent = self._unsent, self._transport.get_write_buffer_size()
            if not self._unsent or 0 < before <= self._unsent:
                self._time_out()
                return
            self._rest()  # the client may be reading on
        self._watch.begin(self._look)

    def _time_out(self) -> None:
        self._received = 0  # what still comes is not waited for
        if self._unsent:
            self._transport.abort()
        elif self._phase != "between":
            self._refuse(late())
        else:
            self._close()

    def _refuse(self, refused: Refused) -> None:
        """Answer what cannot be served, and close; if what came before it is being answered, after that."""
        logger.info("request refused: %s", refused.message)
        arriving = self._arriving
        if self._is_busy and (arriving is None or arriving is not self._cycle):
            self._is_stopping = True
            self.pause()
            return
        if arriving is None or not arriving.has_begun:
            self._write_whole(refused.status, refusal_body(refused), header_lines(refused.headers), keeps_alive=False)
        if arriving is not None:
            arriving.left()
        self._close()

    def _decline(self, rest: bytes) -> None:
        """An upgrade: read the request anew, without it, since the parser takes its body for the other protocol."""
        if self._head is not None:
            self._is_stopping = True
            return
        parser, self._parser = self._parser, httptools.HttpRequestParser(self)
        version = parser.get_http_version().encode()
        lines = header_lines(line for line in self._fields if line[0] != b"upgrade")
        self.data_received(b"%b %b HTTP/%b\r\n%b\r\n" % (parser.get_method(), self._target, version, lines) + rest)

    def _close(self) -> None:
        self._is_stopping = True
        received, self._received = self._received, 0
        if received and self._transport.can_write_eof():  # the rest of it may be on its way
            self._watch.stop()
            LingeringClose(self._transport, self).begin()
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
        parser = self._parser
        version = parser.get_http_version()
        self._refused = unfit(version, self._target, self._fields, self._received, self._service.limits)
        if self._refused is not None:
            raise self._refused
        head = Head(
            parser.get_method(),
            self._target,
            self._fields,
            version,
            keeps_alive=version == "1.1" and parser.should_keep_alive(),
        )
        if b"upgrade" in head.headers and parser.should_upgrade() and head.method != b"CONNECT":
            return  # it is read anew
        self._head, length = head, head.length
        is_small = length is not None and length <= SMALL and length <= self._service.max_body()
        if is_small and head.method == b"POST" and b"expect" not in head.headers:
            return  # it is collected
        has_body = b"transfer-encoding" in head.headers or b"content-length" in head.headers
        self._arriving = RequestCycle(self, head, more=has_body)
        self._next(self._arriving)

    def on_body(self, data: bytes) -> None:
        self._received = 1
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
            if self._passage is not None and self._served is head:
                self._known.learn(self._started, head)  # it went the short way: it will be known when it comes again
        self._started = b""

    # --- one request after the other ----------------------------------------------------------------------------------

    def _next(self, request: tuple[Head, bytes] | RequestCycle) -> None:
        if not self._is_busy:
            self._begin(request)
        elif not self._is_stopping:
            self._ahead.append(request)
            self.pause()

    def _begin(self, request: tuple[Head, bytes] | RequestCycle) -> None:
        if isinstance(request, RequestCycle):
            self._run(request)
        else:
            self._offer(*request)

    def _offer(self, head: Head, body: bytes, *, is_known: bool = False) -> None:
        """Have a request answered the short way, or the long one, on which a client has to read before it gets more."""
        self._served = head
        self._passage = None if self._is_full else self._service.application.take(head, body, self)
        if self._passage is None:
            self._run(RequestCycle(self, head.sized(len(body)) if is_known else head, body))

    def _run(self, cycle: RequestCycle) -> None:
        self._served, self._cycle = cycle.head, cycle
        self.own(self._serve(cycle))

    async def _serve(self, cycle: RequestCycle) -> None:
        try:
            scope = cycle.scope(self._transport)
        except httptools.HttpParserError:
            self._cycle = None
            cycle.left()
            self._refuse(Refused(400, "Bad request: its target is no URL"))
            return
        await self._service.application(scope, cycle.receive, cycle.send)

    def completed(self, *, keeps_alive: bool) -> None:
        """What was being answered is answered: go on with what came after it."""
        self._cycle = self._passage = None
        self._unsent = 0
        if not keeps_alive or self._is_stopping:
            self._close()
            return
        self._rest()
        if self._ahead:
            self._begin(self._ahead.popleft())
        if self._is_paused and not self._ahead:
            self.go_on()

    # --- what those being answered use --------------------------------------------------------------------------------

    def respond(self, status: int, body: bytes) -> None:
        """Send the whole answer, which is JSON, and be done."""
        keeps_alive = self._served.keeps_alive
        if not self.is_gone:
            self._write_whole(status, body, b"", keeps_alive=keeps_alive)
            self.completed(keeps_alive=keeps_alive)

    def share(self, pieces: Sequence[bytes | memoryview], *, counts: bool = False) -> None:
        """Send the whole answer, which is JSON and well, in pieces that are not copied."""
        if not self.is_gone:
            keeps_alive = self._served.keeps_alive
            self._transport.writelines(self._service.in_pieces(pieces, keeps_alive=keeps_alive))
            if not counts:
                self._reservation.release()  # what is not written yet takes no room of its own
            self.completed(keeps_alive=keeps_alive)

    def _write_whole(self, status: int, body: bytes, lines: bytes, *, keeps_alive: bool) -> None:
        head = self._service.whole(status, len(body)) + lines
        if not keeps_alive:
            head += b"connection: close\r\n"
        if len(body) > BULKY:
            self._transport.writelines((head + b"\r\n", body))
        else:
            self._transport.write(b"%b\r\n%b" % (head, body))

    def lengthen(self) -> tuple[Receive, Send]:
        """Go on as an ASGI call whose body was read; its end is told by `send`."""
        self._passage, self._cycle = None, RequestCycle(self, self._served, is_read=True)
        if self.is_gone:
            self._cycle.left()
        return self._cycle.receive, self._cycle.send

    def own(self, work: Coroutine[Any, Any, None]) -> None:
        """Have an answer finished in a task that the server waits for when it stops."""
        task = self._loop.create_task(work, name="front.request")
        self._service.tasks.add(task)
        task.add_done_callback(partial(self._worked, self._cycle))

    def _worked(self, cycle: RequestCycle | None, task: "asyncio.Task[None]") -> None:
        self._service.tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            logger.error("request failed unexpectedly", exc_info=task.exception())
        if cycle is not None and not (cycle.is_complete or cycle.is_left):
            self.drop()

    def drop(self) -> None:
        """There is no answer, or no end of it: end the connection."""
        self._cycle = self._passage = None
        self._transport.abort()

    def own_lines(self) -> bytes:
        return self._service.lines()

    def write(self, data: bytes) -> None:
        self._transport.write(data)

    async def drained(self) -> None:
        """Wait while the client reads too slowly for more to be written."""
        while self._is_full and not self.is_gone:
            self._writer = self._loop.create_future()
            await self._writer

    def pause(self) -> None:
        if not self._is_paused:
            self._is_paused = True
            self._transport.pause_reading()

    def go_on(self) -> None:
        if self._is_paused and not self._transport.is_closing():
            self._is_paused = False
            self._transport.resume_reading()
