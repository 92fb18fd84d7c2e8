"""The exchanges of an HTTP link besides its requests: notification POSTs, and the GET event stream (standing stream).

On the standing stream a handshake-era server sends messages that belong to no request. It reconnects; it reads none.
"""

import asyncio
import logging
from typing import Final, Protocol

from mcp_manifold.backends.http.exchange import Exchange, HttpFailure, ResponseHeaders
from mcp_manifold.backends.http.refusal import ANSWERED, Refusal
from mcp_manifold.backends.http.session_check import SessionCheck
from mcp_manifold.backends.link.link import Link
from mcp_manifold.clock import Clock, IdleTimer, Timer
from mcp_manifold.wire import notification, unbatched
from mcp_manifold.wire.event_stream import EventParser, EventTooLarge

logger = logging.getLogger(__name__)

RESUME_DELAY: Final = 1.0
"""Seconds before a broken event stream is resumed, unless the server sends `retry`."""
_RESUME_FLOOR: Final = 0.5
"""The shortest such delay: `retry: 0` and a stream that ends at once would make a busy loop."""
RESUME_CEILING: Final = 30.0
"""The longest such delay."""
_GROWTH: Final = 2.0
"""How much longer each delay is than the one before, while streams end at once."""
STEADY_STREAM: Final = 10.0
"""Seconds after which a stream that ends did not end at once."""
_PASSING: Final = frozenset({409, 425, 429, *range(500, 600)})
"""Statuses that refuse a standing stream for now: one is open already, or the server is busy or broken."""
POST_WAIT: Final = 60.0
"""Seconds a server may take to accept a POSTed message; without it a silent one would hold its connection."""


REFUSAL_BODY: Final = 65536
"""Bytes of a refusal that are read: enough for a JSON-RPC error, too few for a large page."""


class StreamOpener(Protocol):
    """The part of the transport that its GET event stream (standing stream) uses."""

    link: Link
    clock: Clock
    max_message: int
    idle_limit: float
    check: SessionCheck

    @property
    def has_session(self) -> bool:
        """Whether the server assigned a session id."""

    def stream(self, receiver: "StandingStream", last_event: str | None) -> Exchange:
        """Open a GET stream; with `last_event`, resume after that event id."""


class NotificationPost:
    """Receives the response to a POSTed message that has no result: the server accepts or refuses it."""

    __slots__ = ("_backend", "_body", "_clock", "_headers", "_status", "_timer", "accepted", "problem")

    def __init__(self, backend: str, clock: Clock) -> None:
        self._backend = backend
        self._clock = clock
        self._timer: Timer | None = None
        self._status = 0
        self._headers: ResponseHeaders | None = None
        self._body = b""
        self.problem = ""
        """Why it was not accepted; empty so far."""
        self.accepted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when the server replied, or failed to; `problem` then tells which."""

    def __repr__(self) -> str:
        return f"<NotificationPost {self._backend} {'done' if self.accepted.done() else 'waiting'}>"

    def responded(self, status: int, headers: ResponseHeaders) -> None:
        self._status, self._headers = status, headers
        if status >= 400:
            self.problem = f"the server refused the message (HTTP {status})"

    def received(self, data: bytes) -> None:
        if self.problem and len(self._body) < REFUSAL_BODY:
            self._body += data

    @property
    def refusal(self) -> Refusal | None:
        """The HTTP refusal of the message; None if the server accepted it, or gave no answer."""
        if self._headers is None or self._status < 300:
            return None
        return Refusal(self._status, self._headers, self._body)

    def watch(self, exchange: Exchange) -> None:
        """Abort `exchange` after `POST_WAIT`."""
        if not self.accepted.done():
            self._timer = self._clock.call_later(POST_WAIT, self._give_up, exchange)

    def _give_up(self, exchange: Exchange) -> None:
        self.problem = f"the server did not accept the message within {POST_WAIT:g} s"
        exchange.abort()
        self.ended()

    def ended(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self.accepted.done():
            self.accepted.set_result(None)

    def failed(self, exc: HttpFailure) -> None:
        self.problem = str(exc)
        self.ended()


class StandingStream:
    """The GET event stream (standing stream): reopened when it breaks, given up if the server has none.

    What the server answers concerns this stream only; after a 404 the session is verified.
    """

    def __init__(self, transport: StreamOpener) -> None:
        self._transport = transport
        self._exchange: Exchange | None = None
        self._events: EventParser | None = None
        self._last_event: str | None = None
        self._retry = RESUME_DELAY
        self._short = 0
        """Streams in a row that were refused or ended at once."""
        self._opened = 0.0
        self._has_worked = self._was_useful = False
        self._timer: Timer | None = None
        self._idle = IdleTimer(transport.clock, self._again)
        self._closed = False

    def __repr__(self) -> str:
        return f"<StandingStream {self._transport.link.backend} {'closed' if self._closed else 'open'}>"

    def open(self) -> None:
        """Open or reopen the stream."""
        self._timer = None
        if not self._closed and not self._transport.link.ended.done():
            self._events = None
            self._exchange = self._transport.stream(self, self._last_event)

    def close(self) -> None:
        """Close the stream for good."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        self._idle.stop()
        if self._exchange is not None:
            self._exchange.abort()

    def responded(self, status: int, headers: ResponseHeaders) -> None:
        if status in ANSWERED and headers.is_event_stream:
            self._events = EventParser(self._transport.max_message)
            if self._has_worked:
                self._catch_up()
            self._opened, self._has_worked, self._was_useful = self._transport.clock.now(), True, False
            self._idle.allow(self._transport.idle_limit)
            self._idle.start()
        elif status in (404, 405) or not (self._has_worked or status in _PASSING):
            self._closed = True  # the server offers no stream (any more)
            extra = {"backend": self._transport.link.backend, "status": status}
            logger.log(logging.INFO if self._has_worked else logging.DEBUG, "no standing stream", extra=extra)
            if status == 404 and self._transport.has_session:
                self._transport.check.ask()

    def _catch_up(self) -> None:
        """Report all lists as changed, because changes without a stream go unseen."""
        for kind in ("tools", "prompts", "resources"):
            self._transport.link.fed(notification(f"notifications/{kind}/list_changed"))

    def received(self, data: bytes) -> None:
        if self._events is None:
            return
        self._idle.allow(self._transport.idle_limit)
        try:
            found = self._events.feed(data)
        except EventTooLarge:
            logger.warning(
                "event larger than the message limit; reopening the stream",
                extra={"backend": self._transport.link.backend},
            )
            self._again()
            return
        for event in found:
            self._last_event = event.id if event.id is not None else self._last_event
            if event.retry is not None:
                self._retry = min(event.retry / 1000, RESUME_CEILING)
            if event.is_message:
                self._was_useful = True
                is_batch = event.data[:1] == b"["
                self._transport.link.fed(unbatched(event.data) if is_batch else event.data)
            if self._transport.link.ended.done():
                self.close()
                return

    def ended(self) -> None:
        self._again()

    def failed(self, exc: HttpFailure) -> None:
        self._again()

    def _again(self) -> None:
        if self._exchange is not None:
            self._exchange.abort()
        self._idle.stop()
        if self._closed or self._timer is not None:
            return
        now, is_open = self._transport.clock.now(), self._events is not None
        if is_open and (self._was_useful or now - self._opened >= STEADY_STREAM):
            self._short = 0
        self._timer = self._transport.clock.call_later(resume_delay(self._retry, self._short), self.open)
        self._short += 1


def resume_delay(retry: float, short: int) -> float:
    """Seconds before the stream is reopened: the server's `retry`, more after `short` streams that ended at once."""
    return min(RESUME_CEILING, max(retry, _RESUME_FLOOR) * _GROWTH ** min(short, 16))
