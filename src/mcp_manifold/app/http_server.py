"""The HTTP front on a listening socket, from start to drained. Handles no signals. The only importer of uvicorn."""

import contextlib
import socket
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import uvicorn

from mcp_manifold.app.listening import BACKLOG
from mcp_manifold.clock import Clock, LoopClock, Timer
from mcp_manifold.config import ManifoldSettings
from mcp_manifold.fronts.http.front import HttpFront
from mcp_manifold.fronts.server.connection import Connection
from mcp_manifold.fronts.server.service import Limits, Service

LAST_WRITES: Final = 2
"""Seconds the last responses may take to be written, once every request is answered."""


class _Uvicorn(uvicorn.Server):
    """uvicorn without signal handling; calls `ready` when it listens."""

    def __init__(self, config: uvicorn.Config, front: HttpFront, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._front = front
        self._ready = ready

    def __repr__(self) -> str:
        return f"<_Uvicorn {'started' if self.started else 'not started'}>"

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the program."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._front.close()
        await super().shutdown(sockets)


class HttpServer:
    """Serves a front on a listening socket, from `run` until `stop`.

    Args:
        listening: the sockets, which the caller closes.
        ready: called with the host and port of the first socket.
        current: returns the settings in force, of which limits and `drain` may change while it serves.
    """

    def __init__(
        self,
        front: HttpFront,
        listening: Sequence[socket.socket],
        ready: Callable[[str, int], None],
        *,
        current: Callable[[], ManifoldSettings],
        clock: Clock | None = None,
    ) -> None:
        self._front = front
        self._listening = listening
        self._ready = ready
        self._current = current
        self._uvicorn: _Uvicorn | None = None
        self._service: Service | None = None
        self._clock = clock or LoopClock()
        self._drain_timer: Timer | None = None

    def __repr__(self) -> str:
        state = "not running" if self._uvicorn is None else "draining" if self._front.is_closed else "serving"
        return f"<HttpServer {state}>"

    def stop(self) -> None:
        """Drain: requests in flight get `drain` seconds, new ones a 503; then end `run`. A second call ends it at once.

        The socket stays open while it drains, so that clients and load balancers get a response instead of silence.
        """
        if self._uvicorn is None:
            return
        if self._front.is_closed:
            self._uvicorn.force_exit = True
            self._end()
            return
        self._drain_timer = self._clock.call_later(self._current().drain, self._end)
        self._front.drain(self._end)

    async def run(self) -> None:
        """Serve until `stop`."""
        host, port = self._listening[0].getsockname()[:2]
        config = uvicorn.Config(
            self._front,
            http=self._connection,  # type: ignore[arg-type]  # uvicorn only calls it, as it would call the class
            lifespan="off",
            access_log=False,
            log_config=None,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=LAST_WRITES,
            backlog=BACKLOG,
        )
        self._uvicorn = _Uvicorn(config, self._front, lambda: self._ready(host, port))
        try:
            await self._uvicorn.serve(sockets=list(self._listening))
        finally:
            self._uvicorn = None
            if self._drain_timer is not None:
                self._drain_timer.cancel()

    def _connection(self, *, server_state: Any, **_: object) -> Connection:
        """The protocol of one connection; uvicorn's server state counts it."""
        if self._service is None:
            self._service = Service(
                self._front,
                Limits(),
                server_state,
                LoopClock(),
                lambda: self._current().limits.max_connections,
                self._front.tally.budget,
                lambda: self._current().limits.max_body,
            )
        return Connection(self._service)

    def _end(self) -> None:
        if self._uvicorn is not None:
            self._uvicorn.should_exit = True
