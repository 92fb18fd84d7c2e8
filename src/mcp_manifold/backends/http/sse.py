"""A backend behind the legacy HTTP+SSE transport (2024-11-05): one event stream in, one POST for each message out.

Our own, and not the SDK's `sse_client`, because that one re-encodes messages through models, serialises slow POSTs,
and lets a call hang whose POST was refused (docs/decisions/0004).
"""

import asyncio
from collections.abc import Mapping
from typing import Final
from urllib.parse import urljoin, urlsplit

from mcp_manifold.backends.http import Exchange, Headers, HttpFailure, HttpPool
from mcp_manifold.backends.http.streams import IdleWatch, NotificationPost
from mcp_manifold.backends.link.link import Link
from mcp_manifold.backends.link.pending import PendingRequest
from mcp_manifold.errors import BackendError, BackendLost, BackendProtocolError, BackendUnavailable
from mcp_manifold.model.budget import MIN_COUNTED, MemoryBudget, Reservation
from mcp_manifold.wire.event_stream import EventParser, EventTooLarge

ENDPOINT_WAIT: Final = 30.0
"""Seconds to wait for the stream's first event, which names where to POST; without, a silent server hangs us."""


class SseTransport:
    """Carries one link; the stream is the session, its end the link's."""

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
        self._idle: IdleWatch | None = None
        self._link = link
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
        """Open the stream and learn the endpoint.

        Raises:
            BackendError: there is no such stream, or it names an endpoint elsewhere.
        """
        head = self._pool.head("GET", headers={"accept": "text/event-stream", **self._headers}.items())
        self._exchange = self._pool.send(head, b"", self, unlimited=True)
        try:
            self._post = await asyncio.wait_for(self._endpoint, ENDPOINT_WAIT)
        except TimeoutError as exc:
            raise BackendUnavailable(self._link.backend, "its event stream named no endpoint in time") from exc
        finally:
            if not self._post:
                self._broken(BackendUnavailable(self._link.backend, "the connection was closed"))

    # the Transport of link.py

    def send_request(self, pending: PendingRequest, body: bytes) -> None:
        note = NotificationPost(self._link.backend)
        note.accepted.add_done_callback(lambda _: self._posted(pending, note))
        note.watch(self._pool.send(self._post, body, note))

    def send_note(self, body: bytes) -> asyncio.Future[None] | None:
        note = NotificationPost(self._link.backend)
        note.watch(self._pool.send(self._post, body, note))
        return note.accepted

    def adopt(self, version: str) -> None:
        pass  # the revision of this transport is fixed

    async def aclose(self) -> None:
        """Close the stream, which ends the session."""
        self._link.lost(BackendUnavailable(self._link.backend, "the connection was closed"))
        if self._idle is not None:
            self._idle.stop()
        if self._exchange is not None:
            self._exchange.abort()

    def _posted(self, pending: PendingRequest, note: NotificationPost) -> None:
        if note.problem:
            self._link.fail(pending, BackendUnavailable(self._link.backend, note.problem))

    # the Receiver of http1

    def responded(self, status: int, headers: Headers) -> None:
        if status != 200 or not (headers.get("content-type") or "").startswith("text/event-stream"):
            reason = f"there is no event stream at that URL (HTTP {status})"
            self._broken(BackendProtocolError(self._link.backend, reason, status=status))
        else:
            self._idle = IdleWatch(self._idle_limit, self._silent)

    def received(self, data: bytes) -> None:
        if self._idle is not None:
            self._idle.touch()
        try:
            found = self._events.feed(data)
        except EventTooLarge:
            self._broken(BackendLost(self._link.backend, "an event is larger than the message limit"))
            return
        if self._events.held > MIN_COUNTED or self._reservation.size:
            # The stream is shared: one large response must not break it.
            self._reservation.resize(self._events.held)
        for event in found:
            if event.event == "endpoint":
                self._named(event.data.decode("utf-8", "replace"))
            elif event.data and event.event == "message":
                self._link.fed(event.data)

    def ended(self) -> None:
        self._broken(BackendLost(self._link.backend, "the server closed the event stream"))

    def failed(self, exc: HttpFailure) -> None:
        kind = BackendLost if exc.sent else BackendUnavailable
        self._broken(kind(self._link.backend, str(exc)))

    def _named(self, endpoint: str) -> None:
        """The endpoint event; it must stay on the configured origin, which the credentials are for (S20)."""
        if self._endpoint.done():
            return
        try:
            target = urljoin(self._url, endpoint)
            if _origin_of(target) != _origin_of(self._url):
                self._broken(BackendProtocolError(self._link.backend, "its endpoint is on another origin"))
                return
            headers = {"content-type": "application/json", **self._headers}
            self._endpoint.set_result(self._pool.head("POST", _path_of(target), headers=headers.items()))
        except ValueError:
            self._broken(BackendProtocolError(self._link.backend, "its endpoint is not an address"))

    def _silent(self) -> None:
        """Silence alone is no fault (many servers send no keep-alive); silence while answers are due is one."""
        if self._link.is_busy:
            self._broken(BackendLost(self._link.backend, f"its event stream was silent for {self._idle_limit:g} s"))
        else:
            self._idle = IdleWatch(self._idle_limit, self._silent)

    def _broken(self, reason: BackendError) -> None:
        self._reservation.release()
        if not self._endpoint.done():
            self._endpoint.set_exception(reason)
        if self._idle is not None:
            self._idle.stop()
        if self._exchange is not None:
            self._exchange.abort()
        self._link.lost(reason)


def _origin_of(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)


def _path_of(url: str) -> str:
    parts = urlsplit(url)
    return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
