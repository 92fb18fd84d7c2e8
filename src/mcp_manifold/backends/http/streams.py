"""What a Streamable HTTP link holds besides its calls: notifications on their way, and the standing GET stream.

The stream carries what a handshake-era server sends outside any request. It knows reconnection, not meaning.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Final, Protocol

from mcp_manifold.backends.http import Exchange, Headers, HttpFailure
from mcp_manifold.backends.link.link import Link
from mcp_manifold.errors import SessionExpired
from mcp_manifold.wire.event_stream import EventParser, EventTooLarge

logger = logging.getLogger(__name__)

RETRY: Final = 1.0
"""Seconds before a broken event stream is resumed, when the server named none."""
RETRY_CEILING: Final = 30.0
NOTE_WAIT: Final = 60.0
"""Seconds a server may take to accept a notification, or a message POSTed beside an event stream."""


class IdleWatch:
    """Notices a stream on which nothing came for too long. One timer, re-armed only when it fires."""

    __slots__ = ("_last", "_limit", "_loop", "_on_idle", "_timer")

    def __init__(self, limit: float, on_idle: Callable[[], None]) -> None:
        self._limit = limit
        self._on_idle = on_idle
        self._loop = asyncio.get_running_loop()
        self._last = self._loop.time()
        self._timer: asyncio.TimerHandle | None = self._loop.call_later(limit, self._look)

    def __repr__(self) -> str:
        return f"<IdleWatch {self._limit:g} s {'on' if self._timer else 'off'}>"

    def touch(self) -> None:
        """Something came."""
        self._last = self._loop.time()

    def stop(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        left = self._last + self._limit - self._loop.time()
        if left > 0:
            self._timer = self._loop.call_later(left, self._look)
        else:
            self._timer = None
            self._on_idle()


class StreamOpener(Protocol):
    """What the standing stream needs of its transport."""

    link: Link
    max_message: int
    idle_limit: float

    @property
    def has_session(self) -> bool:
        """Whether the server keeps a session for this link."""

    def stream(self, receiver: "StandingStream", last_event: str | None) -> Exchange:
        """Open a GET stream, resuming after `last_event` where there is one."""


class NotificationPost:
    """The reply to a notification: accepted or not, nothing else matters."""

    __slots__ = ("_backend", "_timer", "accepted", "problem")

    def __init__(self, backend: str) -> None:
        self._backend = backend
        self._timer: asyncio.TimerHandle | None = None
        self.problem = ""
        """Why it was not accepted; empty while it may be."""
        self.accepted: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def __repr__(self) -> str:
        return f"<NotificationPost {self._backend} {'done' if self.accepted.done() else 'waiting'}>"

    def responded(self, status: int, headers: Headers) -> None:
        if status >= 400:
            self.problem = f"it refused the message (HTTP {status})"

    def received(self, data: bytes) -> None:
        pass  # an accepted notification has no body worth reading

    def watch(self, exchange: Exchange) -> None:
        """Give up on an answer that does not come: it would hold a connection for ever."""
        if not self.accepted.done():
            self._timer = asyncio.get_running_loop().call_later(NOTE_WAIT, self._give_up, exchange)

    def _give_up(self, exchange: Exchange) -> None:
        self.problem = f"it did not accept the message within {NOTE_WAIT:g} s"
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
    """The standing GET stream: reopened when it breaks, given up where the server offers none."""

    __slots__ = (
        "_closed",
        "_events",
        "_exchange",
        "_failures",
        "_idle",
        "_last_event",
        "_retry",
        "_timer",
        "_transport",
    )

    def __init__(self, transport: StreamOpener) -> None:
        self._transport = transport
        self._exchange: Exchange | None = None
        self._events: EventParser | None = None
        self._last_event: str | None = None
        self._retry = RETRY
        self._failures = 0
        self._timer: asyncio.TimerHandle | None = None
        self._idle: IdleWatch | None = None
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
        """Close it for good."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        if self._idle is not None:
            self._idle.stop()
        if self._exchange is not None:
            self._exchange.abort()

    def responded(self, status: int, headers: Headers) -> None:
        if status == 200 and (headers.get("content-type") or "").startswith("text/event-stream"):
            self._events = EventParser(self._transport.max_message)
            self._failures = 0
            self._idle = IdleWatch(self._transport.idle_limit, self._again)
        elif status == 404 and self._transport.has_session:
            self._transport.link.lost(SessionExpired(self._transport.link.backend, "it no longer knows our session"))
        elif status < 500:
            self._closed = True  # 405, or something that is no event stream: the server offers none

    def received(self, data: bytes) -> None:
        if self._events is None:
            return
        if self._idle is not None:
            self._idle.touch()
        try:
            found = self._events.feed(data)
        except EventTooLarge:
            logger.warning("event larger than the message limit", extra={"backend": self._transport.link.backend})
            self._again()
            return
        for event in found:
            self._last_event = event.id if event.id is not None else self._last_event
            if event.retry is not None:
                self._retry = min(event.retry / 1000, RETRY_CEILING)
            if event.data:
                self._transport.link.fed(event.data)

    def ended(self) -> None:
        self._again()

    def failed(self, exc: HttpFailure) -> None:
        self._again()

    def _again(self) -> None:
        if self._exchange is not None:
            self._exchange.abort()
        if self._idle is not None:
            self._idle.stop()
        if self._closed or self._timer is not None:
            return
        self._failures += 1
        delay = min(RETRY_CEILING, max(self._retry, 0.1) * 2 ** min(self._failures - 1, 8))
        self._timer = asyncio.get_running_loop().call_later(delay, self.open)
