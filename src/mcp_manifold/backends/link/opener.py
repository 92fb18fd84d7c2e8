"""Opens a backend's links: transport, negotiation, first requests; and closes them, shielded and bounded.

Owns what the links of one backend share: connection pool, stderr tail, and what earlier attempts taught about transport
and era. It does not decide who uses a link, or for how long.
"""

import logging
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final

import anyio

from mcp_manifold.backends.context import BackendContext
from mcp_manifold.backends.http.pool import HttpPool
from mcp_manifold.backends.http.sse import SseTransport
from mcp_manifold.backends.http.transport import HttpTransport
from mcp_manifold.backends.link.isolation import SHARED, LinkKey
from mcp_manifold.backends.link.link import Link
from mcp_manifold.backends.link.negotiation import TOO_MANY, Identity, Negotiation, TransportKind, telling
from mcp_manifold.backends.link.pending import Transport
from mcp_manifold.backends.link.server_requests import Inbox, ServerNotification, ServerRequest
from mcp_manifold.backends.process.command import StdioCommand
from mcp_manifold.backends.process.groups import Ceilings
from mcp_manifold.backends.process.stderr_tail import StderrTail
from mcp_manifold.backends.process.stdio import EXIT_GRACE, StdioTransport, open_stdio
from mcp_manifold.clock import Clock, RateLimiter
from mcp_manifold.config import ServerSettings
from mcp_manifold.config.environment import inherited, matching
from mcp_manifold.errors import (
    BackendCrashed,
    BackendError,
    BackendLost,
    BackendProtocolError,
    BackendTimeout,
    BackendUnavailable,
)
from mcp_manifold.model.call import Session
from mcp_manifold.wire import Era, capabilities_of

logger = logging.getLogger(__name__)

LINK_CLOSE_WAIT: Final = 8.0
"""Seconds closing a link may take: more than the graces for stdin, SIGTERM and SIGKILL together."""
MAX_CONNECTIONS: Final = 4096
"""Connections to one server: a client session holds one for its standing stream, and one for each call in flight."""


class Connector:
    """Opens transports to one server, and remembers which transport and era worked."""

    def __init__(self, server: ServerSettings, context: BackendContext) -> None:
        self._server = server
        self._context = context
        self._pool: HttpPool | None = None
        self._kind: TransportKind | None = None if server.transport == "auto" else server.transport
        self._era: Era | None = None if server.era == "auto" else server.era
        self.tail = StderrTail(server.name)

    def __repr__(self) -> str:
        return f"<Connector {self._server.name} {self._kind or 'http or sse'} {self._era or 'any era'}>"

    def adapt(self, server: ServerSettings, context: BackendContext) -> None:
        """Use other settings for transports opened from now on. The shared pool keeps its settings."""
        self._server, self._context = server, context

    @property
    def kind(self) -> TransportKind | None:
        """The transport in use; None until one has worked."""
        return self._kind

    def kinds(self) -> tuple[TransportKind, ...]:
        """The transports to try, in order (2026-07-28 streamable-http, Backward Compatibility)."""
        if self._kind is None:
            return ("http", "sse")
        if self._server.transport != "auto":
            return (self._kind,)
        return ("http", "sse") if self._kind == "http" else ("sse", "http")

    def eras(self, kind: TransportKind) -> tuple[Era, ...]:
        """The eras to try, in order.

        Over stdio the handshake comes first: the first message locks some servers into their era, and others exit on an
        unknown method. Over HTTP, where requests are independent, the modern era comes first. SSE has no modern era.
        """
        if kind == "sse":
            return ("handshake",)
        if self._server.era != "auto":
            return (self._server.era,)
        if self._era is None:
            return ("handshake", "modern") if kind == "stdio" else ("modern", "handshake")
        return ("modern", "handshake") if self._era == "modern" else ("handshake", "modern")

    def learned(self, kind: TransportKind, era: Era) -> None:
        """Try this transport and era first from now on. Keep the others, because the server may be replaced."""
        self._kind = kind
        self._era = era

    async def open(self, kind: TransportKind, link: Link) -> Transport:
        """Open a transport for `link`.

        Raises:
            BackendError: it cannot be opened.
        """
        if kind == "stdio":
            return await open_stdio(
                link,
                self._command(),
                tail=self.tail,
                limit=self._context.limits.max_message,
                groups=self._context.groups,
                budget=self._context.budget,
                clock=self._context.clock,
            )
        try:
            return await self._open_http(kind, link)
        except ValueError as exc:  # a head that cannot be written
            raise BackendUnavailable(self._server.name, f"headers cannot be used: {exc}") from exc

    async def _open_http(self, kind: TransportKind, link: Link) -> Transport:
        server, context, pool = self._server, self._context, self._shared_pool()
        headers = {name: value.get_secret_value() for name, value in server.headers.items()}
        limit, idle, budget = context.limits.max_message, server.sse_read_timeout, context.budget
        if kind == "http":
            return HttpTransport(link, pool, headers=headers, max_message=limit, idle_limit=idle, budget=budget)
        transport = SseTransport(
            link, pool, server.url, headers=headers, max_message=limit, idle_limit=idle, budget=budget
        )
        await transport.open()
        return transport

    def _command(self) -> StdioCommand:
        server = self._server
        common = inherited() if self._context.environment is None else self._context.environment
        env = {
            **matching(server.inherit_env),
            **common,
            **{name: value.get_secret_value() for name, value in server.env.items()},
        }
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
                    max_body=self._context.limits.max_message,
                    max_connections=MAX_CONNECTIONS,
                    clock=self._context.clock,
                )
            except ValueError as exc:
                raise BackendUnavailable(self._server.name, f"url cannot be used: {exc}") from exc
        return self._pool

    async def aclose(self) -> None:
        """Close the shared connections."""
        if self._pool is not None:
            await self._pool.aclose()
            self._pool = None


class LinkOpener:
    """Opens links that are negotiated and ready for use."""

    def __init__(
        self,
        server: ServerSettings,
        context: BackendContext,
        *,
        on_notification: Callable[[ServerNotification], None],
        on_request: Callable[[ServerRequest], None],
    ) -> None:
        self.connector = Connector(server, context)
        self.pace = RateLimiter(context.limits.max_notifications)
        """Notifications that are passed on in a second, over all links."""
        self._server = server
        self._context = context
        self._on_notification = on_notification
        self._on_request = on_request
        self._opening: Link | None = None
        """The shared link, while it is negotiated."""

    def __repr__(self) -> str:
        return f"<LinkOpener {self.connector!r}>"

    @property
    def kind(self) -> TransportKind | None:
        """The transport in use; None until one has worked."""
        return self.connector.kind

    @property
    def noise(self) -> str:
        """What the connecting server printed in place of a greeting, as a sentence; empty if nothing."""
        return "" if self._opening is None else _noise(self._opening)

    @property
    def said(self) -> str:
        """What the connecting server printed on stdout, or else on stderr, as a sentence; empty if nothing."""
        return "" if self._opening is None else self.noise or self.connector.tail.summary()

    def adapt(self, server: ServerSettings, context: BackendContext) -> None:
        """Use other settings for links opened from now on."""
        self._server, self._context = server, context
        self.pace.change_limit(context.limits.max_notifications)
        self.connector.adapt(server, context)

    async def aclose(self) -> None:
        """Close what the links share, within a time limit."""
        await _bounded(self.connector.aclose, self._context.clock)

    @asynccontextmanager
    async def shared(self) -> AsyncIterator[tuple[Link, Negotiation]]:
        """Open the shared link, negotiated with every capability that can be relayed."""
        link, transport, negotiation = await self._connect(self._context.identity, SHARED)
        async with self._closing(transport):
            yield link, negotiation

    @asynccontextmanager
    async def for_client(self, link_key: LinkKey, session: Session) -> AsyncIterator[Link]:
        """Open a link for some clients only, negotiated with exactly their identity or capabilities."""
        identity = self._context.identity
        if link_key.exact:
            info = session.client_info if bytes(session.client_info) != b"{}" else identity.client_info
            identity = Identity(info, session.relayable("handshake"))
        elif link_key.only is not None:
            identity = Identity(identity.client_info, capabilities_of(identity.capabilities, link_key.only))
        holder = session if link_key.exact else None
        link, transport, _ = await self._connect(identity, link_key, holder)
        async with self._closing(transport):
            yield link

    async def _connect(
        self, identity: Identity, link_key: LinkKey, holder: Session | None = None
    ) -> tuple[Link, Transport, Negotiation]:
        reason: BackendError | None = None
        kinds = self.connector.kinds()
        for kind in kinds:
            try:
                return await self._connect_as(kind, identity, link_key, holder)
            except BackendError as exc:
                reason = exc if reason is None or telling(exc) > telling(reason) else reason
                if kind == kinds[-1] or not self._may_be_another(exc):
                    break
                logger.info("not a %s endpoint: %s", kind, exc.message, extra={"backend": self._server.name})
        assert reason is not None, "there is a transport to try"
        raise reason

    def _may_be_another(self, failure: BackendError) -> bool:
        """Whether the server may speak another transport: it refused this one, which it may have spoken before."""
        if isinstance(failure, BackendProtocolError):
            return True
        is_answer = failure.status or isinstance(failure, BackendLost)
        return bool(is_answer) and failure.status != TOO_MANY and self.connector.kind is None

    async def _connect_as(
        self, kind: TransportKind, identity: Identity, link_key: LinkKey, holder: Session | None
    ) -> tuple[Link, Transport, Negotiation]:
        link = Link(
            self._server.name,
            holder=holder,
            key=link_key.key,
            write_limit=self._context.limits.max_message,
            clock=self._context.clock,
        )
        Inbox(link, on_notification=self._on_notification, on_request=self._on_request, limiter=self.pace)
        eras = link_key.eras or self.connector.eras(kind)
        transport = await self.connector.open(kind, link)
        try:
            link.attach(transport)
            self._opening = self._opening if link_key.key else link
            timeout = self._server.initialize_timeout
            negotiation = await self._context.greet(
                link, eras=eras, identity=identity, timeout=timeout, clock=self._context.clock
            )
            if holder is None:
                self.connector.learned(kind, negotiation.era)
            if isinstance(transport, HttpTransport) and negotiation.era == "handshake":
                transport.listen()
            await self._context.on_link(link)
        except BackendError as exc:
            async with self._closing(transport):
                raise await self._reason(link, exc) from exc
        except BaseException:
            async with self._closing(transport):
                raise
        finally:
            self._opening = self._opening if link_key.key else None
        return link, transport, negotiation

    async def _reason(self, link: Link, exc: BackendError) -> BackendError:
        """The error that says why a link could not be opened: after a crash, the exit of the process.

        The server's output on stdout tells more than its silence, or than an exit with an empty stderr.
        """
        if isinstance(link.transport, StdioTransport) and not isinstance(exc, BackendTimeout):
            await self._context.clock.wait(link.ended, seconds=EXIT_GRACE)  # its pipes may close before it exits
        ended = link.ended.result() if link.ended.done() else None
        found = ended if isinstance(ended, BackendCrashed) else exc
        said, noise = self.connector.tail.summary(), _noise(link)
        if isinstance(found, BackendTimeout) and isinstance(link.transport, StdioTransport):
            reason = f"{noise} ({found.message})" if noise else found.message
            kind = BackendProtocolError if noise else BackendTimeout
            return kind(found.backend, f"{reason}; {said}" if said else reason)
        if noise and not said and isinstance(found, BackendCrashed):
            return BackendCrashed(found.backend, f"{noise} ({found.message})")
        return found

    @asynccontextmanager
    async def _closing(self, transport: Transport) -> AsyncIterator[None]:
        """Closes the transport on leaving the context."""
        try:
            yield
        finally:
            await _bounded(transport.aclose, self._context.clock)


def _noise(link: Link) -> str:
    is_piped = link.invalid.first and isinstance(link.transport, StdioTransport)
    return f"invalid output on stdout: {link.invalid.first}" if is_piped else ""


async def _bounded(close: Callable[[], Awaitable[None]], clock: Clock) -> None:
    """Close within `LINK_CLOSE_WAIT` seconds, even while this task is being cancelled."""
    with anyio.CancelScope(shield=True) as scope:
        timer = clock.call_later(LINK_CLOSE_WAIT, scope.cancel)
        try:
            await close()
        finally:
            timer.cancel()
