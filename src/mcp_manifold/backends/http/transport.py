"""The Streamable HTTP transport: one exchange for each request, and one standing GET stream for everything else.

Owns the transport's rules: session id, revision and routing headers, JSON or event-stream replies, resumption. The pool
carries the exchanges; the link reads the messages.
"""

import asyncio
import logging
from collections.abc import Mapping
from math import inf
from typing import Final

from mcp_manifold.backends.http.exchange import Exchange, HttpFailure, ResponseHeaders
from mcp_manifold.backends.http.pool import HttpPool
from mcp_manifold.backends.http.refusal import ANSWERED, Refusal
from mcp_manifold.backends.http.session_check import SMALL_ERROR, SessionCheck
from mcp_manifold.backends.http.streams import (
    REFUSAL_BODY,
    RESUME_CEILING,
    RESUME_DELAY,
    STEADY_STREAM,
    NotificationPost,
    StandingStream,
    resume_delay,
)
from mcp_manifold.backends.link.link import Link
from mcp_manifold.backends.link.pending import PendingRequest
from mcp_manifold.bounded_cache import BoundedCache
from mcp_manifold.clock import IdleTimer
from mcp_manifold.errors import (
    AnswerDropped,
    BackendLost,
    BackendProtocolError,
    BackendTimeout,
    BackendUnavailable,
    SessionExpired,
)
from mcp_manifold.http1.head import header_lines
from mcp_manifold.model.budget import MIN_COUNTED, MemoryBudget, Reservation
from mcp_manifold.wire import unbatched
from mcp_manifold.wire.event_stream import EventParser, EventTooLarge
from mcp_manifold.wire.param_headers import mirrored_headers

logger = logging.getLogger(__name__)

GOODBYE: Final = 2.0
"""Seconds the DELETE that ends a session may take; a server that is gone would delay the shutdown."""
MAX_RESUMES: Final = 10
"""Resumptions of one reply without a new event, before the server counts as not responding."""
_REPEATABLE: Final = frozenset(
    {
        "initialize",
        "server/discover",
        "ping",
        "tools/list",
        "resources/list",
        "resources/templates/list",
        "prompts/list",
    }
)
"""Requests of our own that are sent once more if the server closed the idle connection; calls follow `retry`."""
_JSON_STARTS: Final = (b"{", b"[", b"\xef")  # an object, a batch of one, or a byte order mark
_NO_HEADERS: Final = ResponseHeaders([])
_INCOMPLETE: Final = "the server ended its reply without a response; the outcome is unknown"


class HttpTransport:
    """Carries one link. All links of the backend share the pool, which the opener closes.

    Args:
        idle_limit: seconds an event stream may be idle.
        max_tools: tools whose mirrored headers are cached.
    """

    def __init__(
        self,
        link: Link,
        pool: HttpPool,
        *,
        headers: Mapping[str, str],
        max_message: int,
        idle_limit: float,
        budget: MemoryBudget | None = None,
        max_tools: int = 1000,
    ) -> None:
        self.link = link
        self.clock = pool.clock
        self.max_message = max_message
        self.idle_limit = idle_limit
        self.budget = budget or MemoryBudget()
        self._pool = pool
        self._headers = dict(headers)
        self._session = ""
        self._version = ""
        self._path: str | None = None
        """The path to which the server redirected; None for that of the URL."""
        self.check = SessionCheck(link)
        self._standing: StandingStream | None = None
        self._tools: BoundedCache[bytes, bytes] = BoundedCache(max_tools)
        """Mirrored header lines of a call, by the raw name of its tool."""
        self._compose()

    def __repr__(self) -> str:
        return f"<HttpTransport {self.link.backend} session={'yes' if self._session else 'no'}>"

    def _compose(self) -> None:
        """Write the heads of all requests, once per change of session or revision."""
        common = dict(self._headers)
        if self._session:
            common["mcp-session-id"] = self._session
        if self._version:
            common["mcp-protocol-version"] = self._version
        posted = {"accept": "application/json, text/event-stream", "content-type": "application/json", **common}
        head, path = self._pool.head, self._path
        self._post = head("POST", path, posted.items())
        self._get = head("GET", path, {"accept": "text/event-stream", **common}.items())
        self._delete = head("DELETE", path, common.items())

    # --- Transport --------------------------------------------------------------------------------------------------

    def send_request(self, pending: PendingRequest, body: bytes) -> None:
        extra = b""
        if self.link.era == "modern":
            extra = self._mirrored(pending)
        reply = _Reply(self, pending)
        reads = pending.call is None and pending.method in _REPEATABLE
        reply.exchange = self._pool.send(self._post, body, reply, extra=extra, unlimited=True, repeatable=reads)
        pending.note_stream(reply.abort)

    def _mirrored(self, pending: PendingRequest) -> bytes:
        method, params, parameters = pending.method, pending.params, self.link.parameter_headers
        if method != "tools/call" or parameters is not None:
            return mirrored_headers(method, params, parameters)
        name = bytes(params["name"])
        found = self._tools.get(name)
        if found is None:
            found = mirrored_headers(method, params, None)
            self._tools.put(name, found)
        return found

    def send_note(self, body: bytes) -> asyncio.Future[None] | None:
        note = NotificationPost(self.link.backend, self.clock)
        extra = b"mcp-method: notifications/cancelled\r\n" if self.link.era == "modern" else b""
        note.watch(self._pool.send(self._post, body, note, extra=extra))
        return note.accepted

    def adopt(self, version: str) -> None:
        self._version = version
        self._compose()

    def listen(self) -> None:
        """Open the GET event stream (standing stream) of a handshake-era server."""
        self._standing = StandingStream(self)
        self._standing.open()

    async def aclose(self) -> None:
        """End the session with a DELETE, within `GOODBYE` seconds."""
        self.link.lost(BackendUnavailable(self.link.backend, "the connection was closed"))
        if self._standing is not None:
            self._standing.close()
        if self._session and not isinstance(self.link.ended.result(), SessionExpired):
            note = NotificationPost(self.link.backend, self.clock)
            exchange = self._pool.send(self._delete, b"", note)
            if not await self.clock.wait(note.accepted, seconds=GOODBYE):
                exchange.abort()
                note.accepted.cancel()

    # --- called by replies and the standing stream ------------------------------------------------------------------

    def assigned(self, session: str) -> None:
        """Adopt the session id that the server assigned (2025-11-25 streamable-http, Session Management)."""
        if session and session != self._session and session.isascii() and session.isprintable():
            self._session = session
            self._compose()

    def moved(self, path: str) -> None:
        """Send further requests to the path to which the server redirected."""
        if path != self._path:
            self._path = path
            self._compose()

    @property
    def has_session(self) -> bool:
        """Whether the server assigned a session id."""
        return bool(self._session)

    def stream(self, receiver: "_Reply | StandingStream", last_event: str | None) -> Exchange:
        """Open a GET stream; with `last_event`, resume after that event id."""
        extra = header_lines([(b"last-event-id", last_event.encode())]) if last_event else b""
        return self._pool.send(self._get, b"", receiver, extra=extra, unlimited=True, repeatable=True)


class _Reply:
    """The reply to one request: JSON, or an event stream that can be resumed."""

    __slots__ = (
        "_body", "_events", "_expected", "_headers", "_idle", "_last_event", "_opened", "_reservation", "_resumes",
        "_retry", "_short", "_size", "_status", "_transport", "exchange", "pending",
    )  # fmt: skip

    def __init__(self, transport: HttpTransport, pending: PendingRequest) -> None:
        self._transport = transport
        self.pending = pending
        self.exchange: Exchange | None = None
        self._status = 0
        self._headers = _NO_HEADERS
        self._body: list[bytes] = []
        self._size = 0
        self._events: EventParser | None = None
        self._idle: IdleTimer | None = None
        self._reservation: Reservation | None = None
        self._expected = 0
        self._last_event: str | None = None
        self._retry = RESUME_DELAY
        self._resumes = self._short = 0
        self._opened = 0.0

    def __repr__(self) -> str:
        return f"<_Reply to {self.pending!r} status={self._status}>"

    def abort(self) -> None:
        """Drop the reply: nothing waits for it any more."""
        self._unwatch()
        self._unload()
        self._body, self._events = [], None
        self.pending.note_stream(None)  # a reference cycle would keep the payload
        if self.exchange is not None:
            self.exchange.abort()

    # --- Receiver ---

    def responded(self, status: int, headers: ResponseHeaders) -> None:
        self._status, self._headers = status, headers
        if status in ANSWERED:
            if self.exchange is not None and self.exchange.moved:
                self._transport.moved(self.exchange.moved)
            if self.pending.method == "initialize":
                self._transport.assigned(headers.get("mcp-session-id") or "")
            if headers.is_event_stream:
                self._events = EventParser(self._transport.max_message)
                self._opened = self._transport.clock.now()
                if self.pending.timeout == inf:  # nothing else would notice that the stream is dead
                    self._idle = IdleTimer(self._transport.clock, self._silent)
                    self._idle.allow(self._transport.idle_limit)
                    self._idle.start()
            elif headers.length > MIN_COUNTED:
                self._expect(headers.length)

    def received(self, data: bytes) -> None:
        if self._events is not None:
            if self._idle is not None:
                self._idle.allow(self._transport.idle_limit)
            self._stream(self._events, data)
            if self.pending.is_done:
                self._size += len(data)
                if self._size > REFUSAL_BODY:
                    self.abort()
            return
        self._body.append(data)
        self._size += len(data)
        if self._status not in ANSWERED and self._size > REFUSAL_BODY:
            self._failed_status()
            self.abort()
        elif self._size > self._transport.max_message:
            self._refuse("response larger than the message limit")
        elif self._size > MIN_COUNTED:
            self._weigh(self._size)

    def ended(self) -> None:
        self._unwatch()
        self.exchange = None
        self.pending.note_stream(None)  # breaks a reference cycle, which would keep the payload
        if self.pending.is_done:
            self._unload()
            return
        if self._events is not None:
            if not self._transport.check.holds(self.pending):
                self._resume()
        elif self._status in ANSWERED and self._body:
            body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
            start = body.lstrip()[:1]
            if start == b"[":
                body = unbatched(body)
            if start not in _JSON_STARTS:
                self._failed_status()
            elif b'"error"' not in body[:SMALL_ERROR] or not self._transport.check.doubts_answer(self.pending, body):
                self._transport.link.fed(body, self.pending)
                self._settle("invalid response: not the response to the request")
        else:
            self._failed_status()
        self._unload()

    def failed(self, exc: HttpFailure) -> None:
        self._unwatch()
        self._unload()
        if self.pending.is_done or self._transport.check.holds(self.pending):
            return
        backend = self._transport.link.backend
        if self._is_resumed or (self._events is not None and exc.kind == "reset"):
            self._resume()
        elif not exc.sent:
            self._fail(BackendUnavailable(backend, str(exc)).unsent())
        elif exc.kind in ("protocol", "limit"):
            self._fail(BackendProtocolError(backend, str(exc)))
        else:
            self._fail(BackendLost(backend, f"{exc}, with the request in flight: its outcome is unknown"))

    # --- decisions ---

    @property
    def _is_resumed(self) -> bool:
        """Whether this is the rest of a broken reply: the server read the request before."""
        return self._events is None and self._last_event is not None

    def _silent(self) -> None:
        limit = self._transport.idle_limit
        self._fail(BackendTimeout(self._transport.link.backend, f"event stream idle for {limit:g} s"))
        self.abort()

    def _unwatch(self) -> None:
        if self._idle is not None:
            self._idle.stop()
            self._idle = None

    def _weigh(self, size: int) -> None:
        """Reserve room for `size` bytes of the response; drop it if there is none."""
        if self._reservation is None:
            self._reservation = Reservation(self._transport.budget)
        if not self._reservation.try_resize(max(size, self._expected)):
            self._fail(AnswerDropped(self._transport.link.backend))
            self.abort()

    def _expect(self, size: int) -> None:
        """Reserve room for the whole response at once, so that an admitted response can always complete."""
        if size <= self._transport.max_message:
            self._expected = size
            self._weigh(size)

    def _unload(self) -> None:
        if self._reservation is not None:
            self._reservation.release()
            self._reservation = None

    def _stream(self, events: EventParser, data: bytes) -> None:
        try:
            found = events.feed(data)
        except EventTooLarge:
            self._refuse("event larger than the message limit")
            return
        if events.held > MIN_COUNTED or self._reservation is not None:
            self._weigh(events.held)
        for event in found:
            if event.id is not None:
                self._last_event, self._resumes = event.id, 0
            if event.retry is not None:
                self._retry = min(event.retry / 1000, RESUME_CEILING)
            if event.is_message:
                self._short = 0
                data = unbatched(event.data) if event.data[:1] == b"[" else event.data
                if not self._transport.check.doubts_answer(self.pending, data):
                    self._transport.link.fed(data, self.pending)
            if self._events is None:  # dropped meanwhile
                return

    def _resume(self) -> None:
        """Resume the stream after its last event id, if it had one, because it ended without the response."""
        link = self._transport.link
        if self._last_event is None or link.era == "modern" or self._resumes >= MAX_RESUMES or link.ended.done():
            self._fail(BackendLost(link.backend, _INCOMPLETE))
            return
        self._resumes += 1
        if self.pending.call is not None:  # resuming takes time: let the client wait on an event stream too
            self.pending.call.reply.stream()
        if self._events is not None and self._transport.clock.now() - self._opened >= STEADY_STREAM:
            self._short = 0
        self._transport.clock.call_later(resume_delay(self._retry, self._short), self._reopen)
        self._short += 1

    def _reopen(self) -> None:
        if not self.pending.is_done and not self._transport.link.ended.done():
            self._status, self._events, self._body, self._size = 0, None, [], 0
            self.exchange = self._transport.stream(self, self._last_event)

    def _failed_status(self) -> None:
        """Fail for an HTTP status, unless it says that the session may be forgotten."""
        link, backend = self._transport.link, self._transport.link.backend
        if self._is_resumed:  # whatever the status, the server had begun to respond
            self._fail(BackendLost(backend, _INCOMPLETE, status=self._status))
            return
        refusal = Refusal(self._status, self._headers, b"".join(self._body))
        if not self._transport.check.doubts(self.pending, refusal, has_session=self._transport.has_session):
            self._fail(refusal.error(backend, link.era))

    def _settle(self, reason: str) -> None:
        if not self.pending.is_done:
            self._fail(BackendProtocolError(self._transport.link.backend, reason))

    def _refuse(self, reason: str) -> None:
        self._settle(reason)
        self.abort()

    def _fail(self, exc: Exception) -> None:
        self._transport.link.fail(self.pending, exc)
