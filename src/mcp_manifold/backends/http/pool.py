"""The warm connections to one origin, and the requests waiting for one. Knows nothing of what travels on them.

A request on a warm connection is one write and a few callbacks: no task, no lock, no queue and no future. Only opening
a connection takes a task, which the pool owns.
"""

import asyncio
import contextlib
import os
import socket
import ssl
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from mcp_manifold.backends.http.client_connection import Connection
from mcp_manifold.backends.http.dial import dial
from mcp_manifold.backends.http.exchange import ENDLESS, Exchange, FailureKind, Receiver
from mcp_manifold.backends.http.request_head import Origin

_MAX_WAITING = 1000  # requests waiting for a connection; beyond it a stuck backend would only grow the queue
_CLOSE_TIMEOUT = 1.0  # aborted connections report their loss at once; a transport that never does would hang aclose


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A request for which there is no connection yet."""

    exchange: Exchange
    head: bytes
    extra: bytes
    body: bytes
    deadline: float


class HttpPool:
    """The connections to one origin; made inside a running event loop, and closed with `aclose`."""

    def __init__(
        self,
        url: str,
        *,
        ssl_context: ssl.SSLContext | None = None,
        connect_timeout: float = 10.0,
        max_connections: int = 256,
        keepalive: float = 4.0,
        max_body: int,
        max_head: int = 65536,
    ) -> None:
        """Open nothing yet. `keepalive` is to stay below the 5 s after which common servers close.

        Raises:
            ValueError: `url` is not an absolute http or https URL, or carries credentials.
        """
        self._origin = Origin.of(url)
        self._ssl = (ssl_context or ssl.create_default_context()) if self._origin.is_tls else None
        self._connect_timeout = connect_timeout
        self._max_connections = max_connections
        self._keepalive = keepalive
        self.max_body = max_body
        self.max_head = max_head
        self.where = f"{self._origin.host}:{self._origin.port}"
        self._loop = asyncio.get_running_loop()
        self._connections: set[Connection] = set()
        self._idle: list[Connection] = []  # the longest idle first
        self._waiting: deque[_Waiting] = deque()  # the oldest first, so the next to time out first
        self._dials: set[asyncio.Task[None]] = set()
        self._sweep: asyncio.TimerHandle | None = None
        self._expiry: asyncio.TimerHandle | None = None
        self._emptied = asyncio.Event()
        self._is_closed = False

    def __repr__(self) -> str:
        counts = f"open={len(self._connections)} idle={len(self._idle)} waiting={len(self._waiting)}"
        return f"<HttpPool {self.where} {'closed ' if self._is_closed else ''}{counts}>"

    def head(self, method: str, path: str | None = None, headers: Iterable[tuple[str, str]] = ()) -> bytes:
        """The reusable part of a request; `path` defaults to that of the pool's URL.

        Raises:
            ValueError: something cannot be written safely, or belongs to the connection (`RESERVED_HEADERS`).
        """
        return self._origin.head(method, path, headers)

    def send(
        self, head: bytes, body: bytes, receiver: Receiver, *, extra: bytes = b"", unlimited: bool = False
    ) -> Exchange:
        """Send a request; `extra` is made of `header_line`s. Never calls the receiver before it has returned."""
        exchange = Exchange(receiver, self, ENDLESS if unlimited else self.max_body)
        idle = self._idle
        if idle:
            oldest = self._loop.time() - self._keepalive
            while idle:
                connection = idle.pop()
                if connection.can_take(oldest):
                    connection.begin(exchange, head, extra, body)
                    return exchange
                connection.close()
        self._wait(exchange, head, extra, body)
        return exchange

    async def aclose(self) -> None:
        """Fail everything in flight and close every connection."""
        self._is_closed = True
        for timer in (self._sweep, self._expiry):
            if timer is not None:
                timer.cancel()
        for dialling in self._dials:
            dialling.cancel()
        while self._waiting:
            self._waiting.popleft().exchange.fail("connect", f"{self.where}: the pool was closed")
        for connection in list(self._connections):
            connection.fail("reset", "the pool was closed")
        await asyncio.gather(*self._dials, return_exceptions=True)
        if self._connections:
            self._emptied.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_CLOSE_TIMEOUT):
                    await self._emptied.wait()

    # --- what connections report ---

    def opened(self, connection: Connection) -> None:
        """A connection exists: it counts."""
        self._connections.add(connection)

    def release(self, connection: Connection) -> None:
        """A connection is free: for the oldest waiting request, or to be kept."""
        if self._waiting:
            self._serve(connection)
            return
        connection.idle_since = self._loop.time()
        self._idle.append(connection)
        if self._sweep is None:
            self._sweep = self._loop.call_later(self._keepalive, self._drop_stale)

    def forget(self, connection: Connection) -> None:
        """A connection is closing: no request may go to it."""
        if connection in self._idle:
            self._idle.remove(connection)

    def lost(self, connection: Connection) -> None:
        """A connection is gone: another one may be opened in its place."""
        self._connections.discard(connection)
        self.forget(connection)
        if not self._connections:
            self._emptied.set()
        self._open_more()

    # --- idle connections ---

    def _drop_stale(self) -> None:
        self._sweep = None
        now = self._loop.time()
        while self._idle and self._idle[0].idle_since + self._keepalive <= now:
            self._idle[0].close()
        if self._idle:
            self._sweep = self._loop.call_at(self._idle[0].idle_since + self._keepalive, self._drop_stale)

    # --- waiting requests, and the connections opened for them ---

    def _wait(self, exchange: Exchange, head: bytes, extra: bytes, body: bytes) -> None:
        if self._is_closed:
            self._loop.call_soon(exchange.fail, "connect", f"{self.where}: the pool is closed")
            return
        if len(self._waiting) >= _MAX_WAITING:
            self._loop.call_soon(exchange.fail, "limit", f"{self.where}: too many requests are waiting")
            return
        deadline = self._loop.time() + self._connect_timeout
        self._waiting.append(_Waiting(exchange, head, extra, body, deadline))
        if self._expiry is None:
            self._expiry = self._loop.call_at(deadline, self._expire)
        self._open_more()

    def give_up(self, exchange: Exchange) -> None:
        """The caller of a waiting request does not want it any more."""
        self._waiting = deque(one for one in self._waiting if one.exchange is not exchange)

    def _expire(self) -> None:
        self._expiry = None
        now = self._loop.time()
        while self._waiting and self._waiting[0].deadline <= now:
            waiting = self._waiting.popleft()
            waiting.exchange.fail("timeout", f"{self.where}: no connection within {self._connect_timeout:g} s")
        if self._waiting:
            self._expiry = self._loop.call_at(self._waiting[0].deadline, self._expire)

    def _serve(self, connection: Connection) -> None:
        waiting = self._waiting.popleft()
        connection.begin(waiting.exchange, waiting.head, waiting.extra, waiting.body)

    def _open_more(self) -> None:
        """A dial for every waiting request, as far as the limit allows; whichever is free first serves the oldest."""
        while (
            len(self._dials) < len(self._waiting)
            and len(self._connections) + len(self._dials) < self._max_connections
            and not self._is_closed
        ):
            dialling = self._loop.create_task(self._dial(), name=f"dial {self.where}")
            self._dials.add(dialling)
            dialling.add_done_callback(self._dialled)

    async def _dial(self) -> None:
        origin = self._origin
        try:
            async with asyncio.timeout(self._connect_timeout) as clock:
                connection = await dial(lambda: Connection(self), origin.host, origin.port, ssl_context=self._ssl)
        except (OSError, ValueError) as exc:  # ValueError: a name that resolver or TLS cannot take
            if not clock.expired():  # else the requests that waited as long expire by themselves
                self._refuse(*_told(exc))
        else:
            if connection.is_closed:  # whatever the peer said before it was asked
                self._refuse("reset", "the connection was closed as soon as it was open")
            else:
                self.release(connection)

    def _dialled(self, dialling: asyncio.Task[None]) -> None:
        self._dials.discard(dialling)
        self._open_more()

    def _refuse(self, kind: FailureKind, reason: str) -> None:
        """One dial failed: so does one request, the oldest. The others have a dial each, or get one."""
        if self._waiting:
            self._waiting.popleft().exchange.fail(kind, f"{self.where}: {reason}")


def _told(exc: OSError | ValueError) -> tuple[FailureKind, str]:
    """What is worth saying about a failed dial."""
    if isinstance(exc, ssl.SSLCertVerificationError):
        return "tls", f"the certificate is not accepted: {exc.verify_message}"
    if isinstance(exc, ssl.SSLError):
        return "tls", f"the TLS handshake failed: {exc.reason or 'it was cut off'}"
    if isinstance(exc, socket.gaierror):
        return "connect", "the name cannot be resolved"
    if isinstance(exc, OSError) and exc.errno:
        return "connect", os.strerror(exc.errno).lower()
    return "connect", "the connection failed"
