"""Puts the HTTP front on a socket, and takes it off again on a signal. The only importer of uvicorn."""

import asyncio
import contextlib
import ipaddress
import logging
import signal
import socket
from collections.abc import Callable, Iterator
from typing import Final

import uvicorn

from mcp_manifold.config import ManifoldSettings
from mcp_manifold.errors import ConfigError
from mcp_manifold.fronts.http import HttpFront

logger = logging.getLogger(__name__)

BACKLOG: Final = 2048
KEEP_ALIVE: Final = 65
"""Seconds an idle client connection is kept: longer than the minute of usual load balancers, who should close first."""
HEADER_LIMIT: Final = 65536


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
    return listening


class _Server(uvicorn.Server):
    """uvicorn without its own signal handling, and with a word when it listens."""

    def __init__(self, config: uvicorn.Config, front: HttpFront, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._front = front
        self._ready = ready

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are ours: a stop that went well is exit code 0, not death by signal."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            with contextlib.suppress(NotImplementedError):  # Windows has no signal handlers on its loop
                loop.add_signal_handler(number, self._stop)
        try:
            yield
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):
                with contextlib.suppress(NotImplementedError):
                    loop.remove_signal_handler(number)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._front.close()
        await super().shutdown(sockets)

    def _stop(self) -> None:
        if self.should_exit:
            self.force_exit = True
        self.should_exit = True


async def serve(front: HttpFront, settings: ManifoldSettings, ready: Callable[[str, int], None]) -> None:
    """Serve until SIGINT or SIGTERM; a second one does not wait for anybody.

    Raises:
        ConfigError: it may not, or cannot, listen there.
    """
    require_safe(settings)
    listening = bound(settings)
    host, port = listening.getsockname()[:2]
    config = uvicorn.Config(
        front,
        http="httptools",
        lifespan="off",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=max(1, round(settings.drain)),
        h11_max_incomplete_event_size=HEADER_LIMIT,
        backlog=BACKLOG,
    )
    server = _Server(config, front, lambda: ready(host, port))
    try:
        await server.serve(sockets=[listening])
    finally:
        listening.close()
