"""Opens a backend's links: transport, era, greeting, in that order; and closes them, shielded and within a bound.

Knows one backend's settings and what was learnt on the way. Whose link it is, and how long it is kept, others decide.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

import anyio

from mcp_manifold.backends.context import BackendContext
from mcp_manifold.backends.http.transport import HttpTransport
from mcp_manifold.backends.link.connect import Connector, Kind
from mcp_manifold.backends.link.isolation import SHARED, LinkKey
from mcp_manifold.backends.link.link import Link
from mcp_manifold.backends.link.negotiation import Identity, Negotiation
from mcp_manifold.backends.link.pending import Transport
from mcp_manifold.backends.link.server_requests import ServerNotification, ServerRequest, open_link
from mcp_manifold.backends.process.stdio import EXIT_GRACE, StdioTransport
from mcp_manifold.clock import RateLimiter
from mcp_manifold.config import ServerSettings
from mcp_manifold.errors import BackendCrashed, BackendError, BackendProtocolError, BackendTimeout
from mcp_manifold.model.call import Session
from mcp_manifold.wire import capabilities_of

logger = logging.getLogger(__name__)

CLOSE_WAIT: Final = 8.0
"""Seconds closing a link may take: longer than the graces for stdin, SIGTERM and SIGKILL together."""


class LinkOpener:
    """See the module. `opened` counts the links it opened."""

    def __init__(
        self,
        server: ServerSettings,
        context: BackendContext,
        *,
        on_notification: Callable[[ServerNotification], None],
        on_question: Callable[[ServerRequest], None],
    ) -> None:
        self.connector = Connector(
            server, context.limits, environment=context.environment, groups=context.groups, budget=context.budget
        )
        self.opened = 0
        self.pace = RateLimiter(context.limits.max_notifications)
        """How many notifications are passed on in a second, over all links."""
        self._server = server
        self._context = context
        self._on_notification = on_notification
        self._on_question = on_question

    def __repr__(self) -> str:
        return f"<LinkOpener {self.connector!r} opened={self.opened}>"

    @property
    def kind(self) -> Kind | None:
        """The transport in use, once it is known."""
        return self.connector.kind

    def adapt(self, server: ServerSettings, context: BackendContext) -> None:
        """Other settings hold for links opened from now on."""
        self._server, self._context = server, context
        self.pace.most = context.limits.max_notifications
        self.connector.adapt(server, context.limits)

    async def aclose(self) -> None:
        """Let go of what links shared; bounded."""
        with anyio.CancelScope(shield=True), anyio.move_on_after(CLOSE_WAIT):
            await self.connector.aclose()

    @asynccontextmanager
    async def shared(self) -> AsyncIterator[tuple[Link, Negotiation]]:
        """The link for everybody, greeted as one that can relay everything."""
        link, transport, greeting = await self._connect(self._context.identity, SHARED)
        async with _closing(transport):
            yield link, greeting

    @asynccontextmanager
    async def for_client(self, place: LinkKey, session: Session) -> AsyncIterator[Link]:
        """A link that is not for everybody: greeted with exactly what its client is and can do."""
        identity = self._context.identity
        if place.exact:
            info = session.client_info if bytes(session.client_info) != b"{}" else identity.client_info
            identity = Identity(info, session.relayable("handshake"))
        elif place.only is not None:
            identity = Identity(identity.client_info, capabilities_of(identity.capabilities, place.only))
        holder = session if place.exact else None
        link, transport, _ = await self._connect(identity, place, holder)
        async with _closing(transport):
            yield link

    async def _connect(
        self, identity: Identity, place: LinkKey, holder: Session | None = None
    ) -> tuple[Link, Transport, Negotiation]:
        kinds = self.connector.kinds()
        for kind in kinds[:-1]:
            try:
                return await self._connect_as(kind, identity, place, holder)
            except BackendProtocolError as exc:
                logger.info("not a %s endpoint: %s", kind, exc.message, extra={"backend": self._server.name})
        return await self._connect_as(kinds[-1], identity, place, holder)

    async def _connect_as(
        self, kind: Kind, identity: Identity, place: LinkKey, holder: Session | None
    ) -> tuple[Link, Transport, Negotiation]:
        link = open_link(
            self._server.name,
            on_notification=self._on_notification,
            on_question=self._on_question,
            holder=holder,
            place=place.key,
            write_limit=self._context.limits.max_message,
            pace=self.pace,
        )
        eras = place.eras or self.connector.eras(kind)
        transport = await self.connector.open(kind, link)
        try:
            link.attach(transport)
            patience = self._server.initialize_timeout
            greeting = await self._context.greet(link, eras=eras, identity=identity, timeout=patience)
            if holder is None:
                self.connector.learned(kind, greeting.era)
            if isinstance(transport, HttpTransport) and greeting.era == "handshake":
                transport.listen()
            await self._context.on_link(link)
            self.opened += 1
        except BackendError as exc:
            async with _closing(transport):
                raise await _why(link, exc) from exc
        except BaseException:
            async with _closing(transport):
                raise
        return link, transport, greeting


async def _why(link: Link, exc: BackendError) -> BackendError:
    """Why a link could not be opened: a process that ended is the reason, whatever that made of the greeting."""
    if isinstance(link.transport, StdioTransport) and not isinstance(exc, BackendTimeout):
        await asyncio.wait({link.ended}, timeout=EXIT_GRACE)  # its pipes may break before its end is known
    ended = link.ended.result() if link.ended.done() else None
    return ended if isinstance(ended, BackendCrashed) else exc


@asynccontextmanager
async def _closing(transport: Transport) -> AsyncIterator[None]:
    """Closes the transport when the context is left: shielded, and within a bound."""
    try:
        yield
    finally:
        with anyio.CancelScope(shield=True), anyio.move_on_after(CLOSE_WAIT):
            await transport.aclose()
