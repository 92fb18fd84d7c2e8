"""Puts the HTTP front on a socket, and takes it off again in order. Knows no signal. The only importer of uvicorn."""

import asyncio
import contextlib
import ipaddress
import logging
import socket
from collections.abc import Callable, Iterator
from typing import Any, Final

import uvicorn

from mcp_manifold.clock import LoopClock
from mcp_manifold.config import ManifoldSettings
from mcp_manifold.errors import ConfigError
from mcp_manifold.fronts.http.front import HttpFront
from mcp_manifold.fronts.server.connection import Connection
from mcp_manifold.fronts.server.service import Limits, Service

logger = logging.getLogger(__name__)

BACKLOG: Final = 2048
LAST_WRITES: Final = 2
"""Seconds the last answers may take to be written, when there is nothing more to answer."""


def require_safe(settings: ManifoldSettings) -> None:
    """Refuse to offer every configured server's powers to a network that nobody has to log in from.

    Raises:
        ConfigError: not a loopback address, no token, and not told to.
    """
    if settings.tokens or settings.insecure or is_loopback(settings.host):
        return
    raise ConfigError(
        f'refusing to listen on "{settings.host}" without authentication: everybody who can reach it could use every '
        'configured server. Set "tokens" in the "manifold" object (or MCP_MANIFOLD_TOKENS), or pass --insecure if '
        "something in front of it checks who is asking"
    )


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def bound(settings: ManifoldSettings) -> socket.socket:
    """A listening socket.

    Raises:
        ConfigError: the address cannot be had; says what to do.
    """
    host, port = settings.host.strip("[]"), settings.port
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listening = socket.create_server(address[:2], family=family, backlog=BACKLOG)
    except (OSError, ValueError) as exc:  # ValueError: not even the shape of a host name
        reason = getattr(exc, "strerror", None) or str(exc)
        raise ConfigError(f"cannot listen on {host} port {port}: {reason}; choose another with --port") from exc
    listening.setblocking(False)
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # inherited; asyncio sets it for some sockets only
    return listening


class _Uvicorn(uvicorn.Server):
    """uvicorn without signal handling, and with a word when it listens."""

    def __init__(self, config: uvicorn.Config, front: HttpFront, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._front = front
        self._ready = ready

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are the program's."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._front.close()
        await super().shutdown(sockets)


class HttpServer:
    """A front on a socket, from `run` until `stop`."""

    def __init__(
        self,
        front: HttpFront,
        settings: ManifoldSettings,
        ready: Callable[[str, int], None],
        *,
        current: Callable[[], ManifoldSettings],
    ) -> None:
        self._front = front
        self._settings = settings
        self._ready = ready
        self._current = current
        """The settings in force, of which some may change while it serves."""
        self._uvicorn: _Uvicorn | None = None
        self._service: Service | None = None
        self._alarm: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        state = "not running" if self._uvicorn is None else "draining" if self._front.is_closed else "serving"
        return f"<HttpServer {state}>"

    def stop(self) -> None:
        """Make `run` end: requests in flight get the time to drain, others are refused. Again: nobody is waited for.

        It listens on while it drains, so that others learn from an answer, and not from silence, that they should go
        elsewhere.
        """
        if self._uvicorn is None:
            return
        if self._front.is_closed:
            self._uvicorn.force_exit = True
            self._end()
            return
        self._alarm = asyncio.get_running_loop().call_later(self._current().drain, self._end)
        self._front.drain(self._end)

    async def run(self) -> None:
        """Serve until `stop`.

        Raises:
            ConfigError: it may not, or cannot, listen there.
        """
        require_safe(self._settings)
        listening = bound(self._settings)
        host, port = listening.getsockname()[:2]
        config = uvicorn.Config(
            self._front,
            http=self._connection,  # type: ignore[arg-type]  # it is only called, as the class would be
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
            await self._uvicorn.serve(sockets=[listening])
        finally:
            self._uvicorn = None
            if self._alarm is not None:
                self._alarm.cancel()
            listening.close()

    def _connection(self, *, server_state: Any, **_: object) -> Connection:
        """What uvicorn makes for each connection: ours, counted in its books."""
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
