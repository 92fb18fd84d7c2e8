"""One event stream to a client: bounded outbox, keep-alives, a bound on stalled writes. Knows no message."""

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from typing import Final

from mcp_manifold.clock import Clock, LoopClock, Timer
from mcp_manifold.fronts.http.asgi import PIECE, STALL, AsgiReceive, AsgiSend, send_pieces, watch_disconnect
from mcp_manifold.fronts.tally import Tally
from mcp_manifold.http1.head import Line
from mcp_manifold.model.budget import MIN_COUNTED, Reservation

_logger = logging.getLogger("mcp_manifold.fronts.http.stream")

MAX_EVENTS: Final = 1000
MAX_BYTES: Final = 16 * 1024 * 1024
KEEP_ALIVE: Final = 15.0
"""Seconds of silence before a comment is sent. Many proxies close connections that are silent for a minute."""
_BATCH: Final = 64 * 1024
COMMENT: Final = b": keep-alive\n\n"
_HEADERS: Final[tuple[Line, ...]] = (
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
)


class EventStream:
    """Sends events to one reader, in order. Events for which the send buffer has no room are dropped and counted."""

    def __init__(
        self, send: AsgiSend, tally: Tally, *, headers: Sequence[Line] = (), clock: Clock | None = None
    ) -> None:
        self._send = send
        self._tally = tally
        self._headers = headers
        self._clock = clock or LoopClock()
        self._events: deque[bytes] = deque()
        self._bytes = 0
        self._reservation = Reservation(tally.budget)
        self._dropped = 0
        self._ended = False
        self._waiter: asyncio.Future[None] | None = None
        self._timer: Timer | None = None
        self._write: asyncio.Timeout | None = None
        self.gone = False
        """Whether the reader disconnected, or was disconnected."""
        self.written = False
        """Whether the stream ended and every event was written."""

    def __repr__(self) -> str:
        state = "gone" if self.gone else "ended" if self._ended else "open"
        return f"<EventStream {state} waiting={len(self._events)} dropped={self._dropped}>"

    def push(self, event: bytes) -> bool:
        """Queue an encoded event; False when it was dropped. Never blocks."""
        if self._ended or self.gone:
            return False
        if len(self._events) >= MAX_EVENTS or (self._events and self._bytes + len(event) > MAX_BYTES):
            self._drop()
            return False
        if self._bytes > MIN_COUNTED and not self._reservation.try_resize(self._bytes + len(event)):
            self._drop()
            return False
        self._append(event)
        return True

    def post(self, event: bytes) -> None:
        """Queue an event that must not be dropped. At twice the buffer's limits, the stream is closed instead."""
        if self._ended or self.gone:
            return
        if len(self._events) >= 2 * MAX_EVENTS or self._bytes > 2 * MAX_BYTES:
            _logger.warning("event stream closed: its reader is too slow", extra={"dropped": self._dropped})
            self.hang_up()
            return
        self._append(event)

    def hang_up(self) -> None:
        """Abort the stream, without an end."""
        if self.gone:
            return
        self.gone = True
        self._events.clear()
        self._bytes = 0
        self._reservation.release()
        self._wake()
        self._interrupt()

    def _interrupt(self) -> None:
        """Abort the write in progress with TimeoutError."""
        if self._write is not None:
            self._write.reschedule(asyncio.get_running_loop().time())

    def end(self, event: bytes = b"") -> None:
        """End the stream after `event`, which is never dropped."""
        if self._ended:
            return
        self._ended = True
        if not self.gone:  # without a reader nothing would release its room
            self._append(event)

    async def run(self) -> None:
        """Write events until the stream has ended and all are written, or until the reader is gone."""
        try:
            await self._send({"type": "http.response.start", "status": 200, "headers": [*_HEADERS, *self._headers]})
            while not self.gone:
                if self._events:
                    await self._write_batch()
                    if self._ended and not self._events:
                        self.written = True
                        return
                else:
                    self._waiter = asyncio.get_running_loop().create_future()
                    self._timer = self._clock.call_later(KEEP_ALIVE, self._append, COMMENT)
                    await self._waiter
        except TimeoutError:
            if not self.gone:  # `hang_up` interrupts as well
                _logger.warning("event stream closed: its reader stalled", extra={"dropped": self._dropped})
        except OSError:
            pass  # the reader disconnected
        finally:
            self.gone = True
            self._reservation.release()
            self._write = None
            self._wake()

    async def _write_batch(self) -> None:
        """Write the queued events, joined up to a size beyond which a copy costs more than a write."""
        batch = [self._events.popleft()]
        size = len(batch[0])
        while self._events and size < _BATCH:
            batch.append(self._events.popleft())
            size += len(batch[-1])
        self._bytes -= size  # the reservation lasts until it is written
        self._tally.count_out(size)
        more = bool(self._events) or not self._ended
        if size > PIECE:
            async with asyncio.timeout(None) as self._write:  # each piece has its own timeout; this one is for hang_up
                await send_pieces(self._send, b"".join(batch), more=more)
        else:
            stall = self._clock.call_later(STALL, self._interrupt)
            try:
                async with asyncio.timeout(None) as self._write:
                    await self._send({"type": "http.response.body", "body": b"".join(batch), "more_body": more})
            finally:
                stall.cancel()
        self._write = None
        self._reservation.resize(self._bytes)

    def _append(self, event: bytes) -> None:
        self._events.append(event)
        self._bytes += len(event)
        if self._bytes > MIN_COUNTED:
            self._reservation.resize(self._bytes)
        self._wake()

    def _wake(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _drop(self) -> None:
        if not self._dropped:
            _logger.warning("event dropped: the reader of a stream is too slow")
        self._dropped += 1
        self._tally.drop_event()


async def serve_stream(stream: EventStream, receive: AsgiReceive) -> None:
    """Run a stream until it ends or the client disconnects."""
    watching = watch_disconnect(receive, stream.hang_up)
    watcher = asyncio.get_running_loop().create_task(watching, name="front.watch")
    try:
        await stream.run()
    finally:
        watcher.cancel()
