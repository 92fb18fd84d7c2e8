"""The HTTP+SSE transport (2024-11-05): one event stream in, one POST for each message out.

It replaces the SDK's `sse_client`, which re-encodes messages, serialises slow POSTs, and hangs a call whose POST is
refused (docs/decisions/0004).
"""

import asyncio
from collections.abc import Mapping
from typing import Final
from urllib.parse import urljoin

from mcp_manifold.backends.http.exchange import Exchange, HttpFailure, ResponseHeaders
from mcp_manifold.backends.http.pool import HttpPool
from mcp_manifold.backends.http.refusal import ANSWERED, Refusal
from mcp_manifold.backends.http.session_check import SessionCheck
from mcp_manifold.backends.http.streams import NotificationPost
from mcp_manifold.backends.link.link import Link
from mcp_manifold.backends.link.pending import PendingRequest
from mcp_manifold.clock import IdleTimer
from mcp_manifold.errors import BackendError, BackendLost, BackendProtocolError, BackendUnavailable
from mcp_manifold.http1.origin import Origin
from mcp_manifold.model.budget import MIN_COUNTED, MemoryBudget, Reservation
from mcp_manifold.wire.event_stream import EventParser, EventTooLarge

ENDPOINT_WAIT: Final = 30.0
"""Seconds to wait for the `endpoint` event, which names the URL to POST to; a silent server would hang the connect."""

PROOF_WAIT: Final = 5.0
"""Seconds a stream that was idle for too long may take to bring the answer to a `ping`."""


class SseTransport:
    """Carries one link. The server's event stream is the session: when it ends, the link ends."""

    def __init__(
        self,
        link: Link,
        pool: HttpPool,
        url: str,
        *,
        headers: Mapping[str, str],
        max_message: int,
        idle_limit: float,
        budget: MemoryBudget | None = None,
    ) -> None:
        self._idle_limit = idle_limit
        self._idle = IdleTimer(pool.clock, self._silent)
        self._is_asked = False
        """Whether a `ping` was sent because the stream was idle, and nothing came since."""
        self._link = link
        self._check = SessionCheck(link)
        self._pool = pool
        self._url = url
        self._headers = dict(headers)
        self._post: bytes = b""
        self._exchange: Exchange | None = None
        self._events = EventParser(max_message)
        self._reservation = Reservation(budget or MemoryBudget())
        self._endpoint: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def __repr__(self) -> str:
        return f"<SseTransport {self._link.backend} {'open' if self._post else 'opening'}>"

    async def open(self) -> None:
        """Open the stream and wait for the endpoint.

        Raises:
            BackendError: there is no event stream, or its endpoint is unusable.
        """
        head = self._pool.head("GET", headers={"accept": "text/event-stream", **self._headers}.items())
        self._exchange = self._pool.send(head, b"", self, unlimited=True)
        try:
            async with self._pool.clock.timeout(ENDPOINT_WAIT):
                self._post = await self._endpoint
        except TimeoutError as exc:
            reason = f"no endpoint event on the event stream within {ENDPOINT_WAIT:g} s"
            raise BackendUnavailable(self._link.backend, reason) from exc
        finally:
            if not self._post:
                self._broken(BackendUnavailable(self._link.backend, "the connection was closed"))

    def send_request(self, pending: PendingRequest, body: bytes) -> None:
        note = NotificationPost(self._link.backend, self._pool.clock)
        note.accepted.add_done_callback(lambda _: self._posted(pending, note))
        note.watch(self._pool.send(self._post, body, note))

    def send_note(self, body: bytes) -> asyncio.Future[None] | None:
        note = NotificationPost(self._link.backend, self._pool.clock)
        note.watch(self._pool.send(self._post, body, note))
        return note.accepted

    def adopt(self, version: str) -> None:
        pass  # this transport has one revision

    async def aclose(self) -> None:
        """Close the stream, and with it the session."""
        self._link.lost(BackendUnavailable(self._link.backend, "the connection was closed"))
        self._idle.stop()
        if self._exchange is not None:
            self._exchange.abort()

    def _posted(self, pending: PendingRequest, note: NotificationPost) -> None:
        refusal = note.refusal
        if refusal is not None:
            if not self._check.doubts(pending, refusal, has_session=True):
                self._link.fail(pending, refusal.error(self._link.backend, self._link.era))
        elif note.problem:
            self._link.fail(pending, BackendUnavailable(self._link.backend, note.problem))

    def responded(self, status: int, headers: ResponseHeaders) -> None:
        if status not in ANSWERED or not headers.is_event_stream:
            backend = self._link.backend
            failed = Refusal(status, headers, b"").failure(backend)
            if isinstance(failed, BackendProtocolError) and status not in range(300, 400):
                failed = BackendProtocolError(backend, f"no event stream at that URL (HTTP {status})", status=status)
            self._broken(failed)
        else:
            self._idle.allow(self._idle_limit)
            self._idle.start()

    def received(self, data: bytes) -> None:
        self._idle.allow(self._idle_limit)
        self._is_asked = False
        try:
            found = self._events.feed(data)
        except EventTooLarge:
            self._broken(BackendLost(self._link.backend, "event larger than the message limit"))
            return
        if self._events.held > MIN_COUNTED or self._reservation.size:
            self._reservation.resize(
                self._events.held
            )  # every call shares this stream: one large result must not break it
        for event in found:
            if event.event == "endpoint":
                self._named(event.data.decode("utf-8", "replace"))
            elif event.is_message:
                self._link.fed(event.data)
            if self._link.ended.done():
                self._broken(self._link.ended.result())
                return

    def ended(self) -> None:
        self._broken(BackendLost(self._link.backend, "the server closed the event stream"))

    def failed(self, exc: HttpFailure) -> None:
        backend = self._link.backend
        self._broken(BackendLost(backend, str(exc)) if exc.sent else BackendUnavailable(backend, str(exc)).unsent())

    def _named(self, endpoint: str) -> None:
        """Accept the endpoint, unless it is on another origin: the credentials are for the configured one (S20)."""
        if self._endpoint.done():
            return
        try:
            target = Origin.of(urljoin(self._url, endpoint))
            if not target.is_same(Origin.of(self._url)):
                self._broken(BackendProtocolError(self._link.backend, "SSE endpoint is on another origin"))
                return
            headers = {"content-type": "application/json", **self._headers}
            self._endpoint.set_result(self._pool.head("POST", target.path, headers=headers.items()))
        except ValueError:
            self._broken(BackendProtocolError(self._link.backend, "SSE endpoint is not a valid URL"))

    def _silent(self) -> None:
        """Idle for too long, which many servers are: a fault only while responses are due and a `ping` has none."""
        if self._is_asked:
            reason = f"event stream idle for {self._idle_limit:g} s while responses were due"
            self._broken(BackendLost(self._link.backend, reason))
            return
        self._is_asked = self._link.is_busy
        if self._is_asked:
            self._link.begin("ping", {}, timeout=PROOF_WAIT)
        self._idle.allow(PROOF_WAIT if self._is_asked else self._idle_limit)
        self._idle.start()

    def _broken(self, reason: BackendError) -> None:
        self._reservation.release()
        if not self._endpoint.done():
            self._endpoint.set_exception(reason)
        self._idle.stop()
        if self._exchange is not None:
            self._exchange.abort()
        self._link.lost(reason)
