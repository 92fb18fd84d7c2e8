"""From a server's settings to an open transport, and what was learnt on the way: which transport, which era."""

import ssl
from collections.abc import Mapping
from typing import Final, Literal

from mcp_manifold.backends.http import HttpPool
from mcp_manifold.backends.http.sse import SseTransport
from mcp_manifold.backends.http.transport import HttpTransport
from mcp_manifold.backends.link.link import Link
from mcp_manifold.backends.link.pending import Transport
from mcp_manifold.backends.process.process import Ceilings, Groups
from mcp_manifold.backends.process.stderr_tail import StderrTail
from mcp_manifold.backends.process.stdio import StdioCommand, open_stdio
from mcp_manifold.config import LimitSettings, ServerSettings
from mcp_manifold.config.environment import inherited
from mcp_manifold.errors import BackendUnavailable
from mcp_manifold.model.budget import MemoryBudget
from mcp_manifold.wire import Era

Kind = Literal["stdio", "http", "sse"]

MAX_CONNECTIONS: Final = 4096
"""Connections to one server: a client session holds one for its standing stream, and one for each call in flight."""


class Connector:
    """Opens transports to one server. Owns what its links share: connection pool, stderr tail, what was learnt."""

    def __init__(
        self,
        server: ServerSettings,
        limits: LimitSettings,
        *,
        environment: Mapping[str, str] | None = None,
        groups: Groups | None = None,
        budget: MemoryBudget | None = None,
    ) -> None:
        self._server = server
        self._limits = limits
        self._environment = environment
        self._groups = groups
        self._budget = budget or MemoryBudget()
        self._pool: HttpPool | None = None
        self._kind: Kind | None = None if server.transport == "auto" else server.transport
        self._era: Era | None = None if server.era == "auto" else server.era
        self.tail = StderrTail(server.name)

    def __repr__(self) -> str:
        return f"<Connector {self._server.name} {self._kind or 'http or sse'} {self._era or 'any era'}>"

    def adapt(self, server: ServerSettings, limits: LimitSettings) -> None:
        """Other settings hold for transports opened from now on, but for those of the shared pool."""
        self._server = server
        self._limits = limits

    @property
    def kind(self) -> Kind | None:
        """The transport in use, once it is known."""
        return self._kind

    def kinds(self) -> tuple[Kind, ...]:
        """The transports to try, in order (2026-07-28 streamable-http, Backward Compatibility)."""
        if self._kind is None:
            return ("http", "sse")
        if self._server.transport != "auto":
            return (self._kind,)
        return ("http", "sse") if self._kind == "http" else ("sse", "http")

    def eras(self, kind: Kind) -> tuple[Era, ...]:
        """The eras to try, in order.

        Over stdio the handshake first, because the first message locks some servers into their era, and others die of a
        method they do not know; over HTTP, where requests are independent, the modern era first. SSE has no modern one.
        """
        if kind == "sse":
            return ("handshake",)
        if self._server.era != "auto":
            return (self._server.era,)
        if self._era is None:
            return ("handshake", "modern") if kind == "stdio" else ("modern", "handshake")
        return ("modern", "handshake") if self._era == "modern" else ("handshake", "modern")

    def learned(self, kind: Kind, era: Era) -> None:
        """This is how the server was reached: try this first from now on. It may be another server one day."""
        self._kind = kind
        self._era = era

    async def open(self, kind: Kind, link: Link) -> Transport:
        """Open a transport for `link`.

        Raises:
            BackendError: it cannot be opened.
        """
        server, limit = self._server, self._limits.max_message
        if kind == "stdio":
            command, groups, budget = self._command(), self._groups, self._budget
            return await open_stdio(link, command, tail=self.tail, limit=limit, groups=groups, budget=budget)
        headers = {name: value.get_secret_value() for name, value in server.headers.items()}
        idle = server.sse_read_timeout
        if kind == "http":
            return HttpTransport(
                link,
                self._shared_pool(),
                headers=headers,
                max_message=limit,
                idle_limit=idle,
                budget=self._budget,
            )
        transport = SseTransport(
            link,
            self._shared_pool(),
            server.url,
            headers=headers,
            max_message=limit,
            idle_limit=idle,
            budget=self._budget,
        )
        await transport.open()
        return transport

    def _command(self) -> StdioCommand:
        server = self._server
        common = inherited() if self._environment is None else self._environment
        env = {**common, **{name: value.get_secret_value() for name, value in server.env.items()}}
        bounds = server.rlimits
        ceilings = Ceilings(memory=bounds.memory or 0, files=bounds.files or 0, cpu=bounds.cpu or 0)
        return StdioCommand(server.command, server.args, env, server.cwd, ceilings)

    def _shared_pool(self) -> HttpPool:
        if self._pool is None:
            tls = ssl.create_default_context() if self._server.url.lower().startswith("https:") else None
            try:
                self._pool = HttpPool(
                    self._server.url,
                    ssl_context=tls,
                    connect_timeout=self._server.connect_timeout,
                    max_body=self._limits.max_message,
                    max_connections=MAX_CONNECTIONS,
                )
            except ValueError as exc:
                raise BackendUnavailable(self._server.name, f"its url cannot be used: {exc}") from exc
        return self._pool

    async def aclose(self) -> None:
        """Close the connections that links shared."""
        if self._pool is not None:
            await self._pool.aclose()
            self._pool = None
