"""The connection pool of one origin: idle connections, and requests that wait for one. Knows no message.

A request on an idle connection is one write and a few callbacks: no task, lock, queue or future. Opening a connection
takes a task, which the pool owns.
"""

import asyncio
import contextlib
import os
import socket
import ssl
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from math import inf
from typing import Final

from mcp_manifold.backends.http.client_connection import ClientConnection, tls_reason
from mcp_manifold.backends.http.dial import dial
from mcp_manifold.backends.http.exchange import FORGOTTEN, NO_LIMIT, Exchange, FailureKind, Receiver, ResponseHeaders
from mcp_manifold.backends.http.redirect import MAX_REDIRECTS, Redirect, path_of
from mcp_manifold.clock import Clock, Timer
from mcp_manifold.http1.head import MAX_HEAD
from mcp_manifold.http1.origin import Origin
from mcp_manifold.paced_reader import Pacer

_MAX_WAITING: Final = 1000
"""Requests that may wait for a connection; without it a stuck backend would grow the queue."""
_KEEP_MARGIN: Final = 0.75
"""Seconds before the end that a server announces (`Keep-Alive: timeout`) in which a connection is not used any more."""
_LEAST_KEPT: Final = 1.0
"""Seconds an idle connection is kept at least, whenever the server closed others: it may just have restarted."""
_FRESH: Final = 0.5
"""Seconds of idleness after which a connection is looked at before it is used: some servers close it after 2 s."""
_KEPT_BODY: Final = 1 << 18
"""Bytes of the largest body that is kept until the response begins, for a redirect; memory is limited."""
_CLOSE_WAIT: Final = 1.0
"""Seconds for aborted connections to report their loss; a transport that never does would hang `aclose`."""


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A request without a connection yet."""

    exchange: Exchange
    head: bytes
    extra: bytes
    body: bytes
    deadline: float


class HttpPool:
    """The connections to one origin. Create it inside a running event loop, and close it with `aclose`."""

    def __init__(
        self,
        url: str,
        *,
        ssl_context: ssl.SSLContext | None = None,
        connect_timeout: float = 10.0,
        max_connections: int = 256,
        keepalive: float = 4.0,
        max_body: int,
        clock: Clock,
    ) -> None:
        """Store the settings; opens nothing yet.

        Args:
            connect_timeout: seconds a request may wait for a connection.
            keepalive: seconds an idle connection is kept; below the 5 s after which common servers close it.
            max_body: bytes of the largest response body.

        Raises:
            ValueError: `url` is not an absolute http or https URL, or carries credentials.
        """
        self._origin = Origin.of(url)
        self._ssl = (ssl_context or ssl.create_default_context()) if self._origin.is_tls else None
        self._connect_timeout = connect_timeout
        self._max_connections = max_connections
        self._keepalive = keepalive
        self.max_body = max_body
        self.max_head = MAX_HEAD
        self.clock = clock
        self.where = f"{self._origin.host}:{self._origin.port}"
        self._loop = asyncio.get_running_loop()
        self.pacer = Pacer(clock, self._loop.call_soon)
        self._connections: set[ClientConnection] = set()
        self._idle: list[ClientConnection] = []  # longest idle first
        self._waiting: deque[_Waiting] = deque()  # oldest first, which is the order of deadlines
        self._dials: set[asyncio.Task[None]] = set()
        self._sweep: Timer | None = None
        self._expiry: Timer | None = None
        self._emptied = asyncio.Event()
        self._is_closed = self._has_worked = False

    def __repr__(self) -> str:
        counts = f"open={len(self._connections)} idle={len(self._idle)} waiting={len(self._waiting)}"
        return f"<HttpPool {self.where} {'closed ' if self._is_closed else ''}{counts}>"

    def head(self, method: str, path: str | None = None, headers: Iterable[tuple[str, str]] = ()) -> bytes:
        """The head of a request, to be used for any number of requests. `path` defaults to the path of the pool's URL.

        Raises:
            ValueError: see `Origin.head`.
        """
        return self._origin.head(method, path, headers)

    def send(
        self,
        head: bytes,
        body: bytes,
        receiver: Receiver,
        *,
        extra: bytes = b"",
        unlimited: bool = False,
        repeatable: bool = False,
    ) -> Exchange:
        """Send a request; never calls the receiver before it returns.

        Args:
            extra: further header lines, written by `http1.head`.
            unlimited: the response body has no limit.
            repeatable: it only reads, so that it is sent once more if a kept connection was just closed.
        """
        left = NO_LIMIT if unlimited else self.max_body
        kept = (head, extra, body) if len(body) <= _KEPT_BODY else FORGOTTEN
        exchange = Exchange(receiver, self, left, kept, is_repeatable=repeatable and kept is not FORGOTTEN)
        idle = self._idle
        if idle:
            now = self.clock.now()
            oldest = now - self._keepalive
            while idle:
                connection = idle.pop()
                if connection.can_take(oldest) and (now - connection.idle_since < _FRESH or not connection.is_ended()):
                    connection.begin(exchange, head, extra, body)
                    return exchange
                connection.close()
        self._wait(exchange, head, extra, body)
        return exchange

    async def aclose(self) -> None:
        """Fail all requests and close all connections, within a time limit."""
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
                async with self.clock.timeout(_CLOSE_WAIT):
                    await self._emptied.wait()

    # --- Keeper, called by connections ---

    def opened(self, connection: ClientConnection) -> None:
        self._connections.add(connection)

    def release(self, connection: ClientConnection) -> None:
        if self._waiting:
            self._serve(connection)
            return
        connection.begin_idle(self.clock.now())
        if connection.keep_alive < inf:  # as if it were idle for longer already
            kept = max(0.0, connection.keep_alive - _KEEP_MARGIN)
            connection.age(max(0.0, self._keepalive - kept))
        self._has_worked = self._has_worked or connection.has_served
        self._idle.append(connection)
        if self._sweep is None:
            self._sweep = self.clock.call_later(self._keepalive, self._drop_stale)

    def forget(self, connection: ClientConnection) -> None:
        if connection in self._idle:
            self._idle.remove(connection)

    def redirect(self, exchange: Exchange, headers: ResponseHeaders) -> None:
        head = exchange.request[0]
        path = path_of(self._origin, head, headers.get("location")) if head else None
        if path is not None and exchange.hops < MAX_REDIRECTS:
            exchange.follow(Redirect(exchange, path, self.send_again))

    def send_again(self, exchange: Exchange) -> None:
        exchange.again(self)
        if self._idle and self._idle[-1].can_take(self.clock.now() - self._keepalive):
            self._idle.pop().begin(exchange, *exchange.request)
        else:
            self._wait(exchange, *exchange.request)

    def closed_idle(self, connection: ClientConnection) -> None:
        """Keep idle connections for a shorter time, so that no request is sent while the server closes one."""
        if connection.has_served:
            idle = self.clock.now() - connection.idle_since
            self._keepalive = min(self._keepalive, max(_LEAST_KEPT, idle - _KEEP_MARGIN))

    @property
    def hint(self) -> str:
        is_new = not self._has_worked and self._ssl is None
        return "; if it speaks TLS, use https:// in the url" if is_new else ""

    def lost(self, connection: ClientConnection) -> None:
        self._has_worked = self._has_worked or connection.has_served
        self._connections.discard(connection)
        self.forget(connection)
        if not self._connections:
            self._emptied.set()
        self._open_more()

    # --- idle connections ---

    def _drop_stale(self) -> None:
        self._sweep = None
        now = self.clock.now()
        while self._idle and self._idle[0].idle_since + self._keepalive <= now:
            self._idle[0].close()
        if self._idle:
            self._sweep = self.clock.call_at(self._idle[0].idle_since + self._keepalive, self._drop_stale)

    # --- waiting requests, and dials for them ---

    def _wait(self, exchange: Exchange, head: bytes, extra: bytes, body: bytes) -> None:
        if self._is_closed:
            self._loop.call_soon(exchange.fail, "connect", f"{self.where}: the pool is closed")
            return
        if len(self._waiting) >= _MAX_WAITING:
            self._loop.call_soon(exchange.fail, "limit", f"{self.where}: too many requests are waiting")
            return
        deadline = self.clock.now() + self._connect_timeout
        self._waiting.append(_Waiting(exchange, head, extra, body, deadline))
        if self._expiry is None:
            self._expiry = self.clock.call_at(deadline, self._expire)
        self._open_more()

    def give_up(self, exchange: Exchange) -> None:
        self._waiting = deque(one for one in self._waiting if one.exchange is not exchange)

    def _expire(self) -> None:
        self._expiry = None
        now = self.clock.now()
        while self._waiting and self._waiting[0].deadline <= now:
            waiting = self._waiting.popleft()
            waiting.exchange.fail("timeout", f"{self.where}: no connection within {self._connect_timeout:g} s")
        if self._waiting:
            self._expiry = self.clock.call_at(self._waiting[0].deadline, self._expire)

    def _serve(self, connection: ClientConnection) -> None:
        waiting = self._waiting.popleft()
        connection.begin(waiting.exchange, waiting.head, waiting.extra, waiting.body)

    def _open_more(self) -> None:
        """Dial once per waiting request, within the limit. The first free connection serves the oldest request."""
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
            async with self.clock.timeout(self._connect_timeout):
                connection = await dial(
                    lambda: ClientConnection(self), origin.host, origin.port, ssl_context=self._ssl, clock=self.clock
                )
        except TimeoutError as exc:
            if exc.errno is not None:  # the system's, not ours: the requests that waited as long expire by themselves
                self._refuse(*_reason(exc))
        except (OSError, ValueError) as exc:  # ValueError: the resolver or TLS cannot take the name
            self._refuse(*_reason(exc))
        else:
            if connection.is_closed:  # the peer sent bytes before any request
                self._refuse("reset", "the connection was closed as soon as it was open")
            else:
                self.release(connection)

    def _dialled(self, dialling: asyncio.Task[None]) -> None:
        self._dials.discard(dialling)
        self._open_more()

    def _refuse(self, kind: FailureKind, reason: str) -> None:
        """Fail the oldest request, because opening a connection failed. Every other request gets its own attempt."""
        if self._waiting:
            self._waiting.popleft().exchange.fail(kind, f"{self.where}: {reason}")


def _reason(exc: OSError | ValueError) -> tuple[FailureKind, str]:
    """Kind and text of a failed dial."""
    if isinstance(exc, ssl.SSLError):
        return "tls", tls_reason(exc)
    if isinstance(exc, socket.gaierror):
        return "connect", "the name cannot be resolved"
    if isinstance(exc, OSError) and exc.errno:
        return "connect", os.strerror(exc.errno).lower()
    return "connect", "the connection failed"
