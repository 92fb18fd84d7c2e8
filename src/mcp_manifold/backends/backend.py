"""One configured MCP server: its links, its latest Listing, and the way a call takes to it.

Decides which link serves whom, and asks for it. The shared link comes and goes with the backend's `life`; links held
for one client session each live in a task of their own, below the owner's.
"""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from mcp_manifold.backends.calls.executor import RequestExecutor
from mcp_manifold.backends.context import BackendContext
from mcp_manifold.backends.life.life import Life, Uses
from mcp_manifold.backends.life.stats import BackendStats
from mcp_manifold.backends.link.client_links import ClientLinks, bounds_of
from mcp_manifold.backends.link.isolation import BackendTraits, LinkKey, is_always_shared, link_key_of
from mcp_manifold.backends.link.link import Link
from mcp_manifold.backends.link.negotiation import Negotiation, TransportKind
from mcp_manifold.backends.link.opener import LinkOpener
from mcp_manifold.backends.link.server_requests import ServerNotification, ServerRequest
from mcp_manifold.backends.lists.lister import Lister
from mcp_manifold.backends.lists.listing_cache import CachedListing
from mcp_manifold.config import ServerSettings
from mcp_manifold.errors import BackendProtocolError, BackendUnavailable, RemoteError
from mcp_manifold.model.call import Call, Session
from mcp_manifold.model.catalogue import Listing
from mcp_manifold.model.lifecycle import State, Status
from mcp_manifold.wire import NEEDED, Era

logger = logging.getLogger(__name__)


class Backend:
    """See the module. `run` is its life; everything else is called from the same event loop."""

    def __init__(self, server: ServerSettings, context: BackendContext, *, cached: CachedListing | None = None) -> None:
        self.name = server.name
        self.settings = server
        self._context = context
        self._opener = LinkOpener(server, context, on_notification=self._on_notification, on_request=self._on_request)
        self._lister = Lister(
            server.name,
            context,
            timeout=server.list_timeout or context.list_timeout,
            on_listing=self._listed,
            keep=self._keep,
            latest=None if cached is None else cached.listing,
        )
        self.executor = RequestExecutor(server, context, lister=self._lister, clock=context.clock)
        self._client_links = ClientLinks(
            server.name, self._opened_for, **bounds_of(server, context.limits), clock=context.clock
        )
        uses = Uses(
            lambda: self.executor.used, self._is_in_use, on_opened=self._negotiated, on_rest=self._client_links.close
        )
        self.life = Life(server, context, opener=self._opener, lister=self._lister, uses=uses)
        self._known = BackendTraits(server.transport, "handshake")
        self.has_one_link = False
        """Whether every client's calls go over the shared link."""
        self._learn(self._known)
        if cached is not None:
            self._recall(cached)

    def __repr__(self) -> str:
        return (
            f"<Backend {self.name} {self.status.state} failures={self.status.failures} held={len(self._client_links)}>"
        )

    @property
    def status(self) -> Status:
        """Where it is in its life."""
        return self.life.status

    @property
    def greeting(self) -> Negotiation | None:
        """What it said of itself when it was last connected to; None before the first time."""
        return self.life.greeting

    @property
    def has_connected(self) -> bool:
        """Whether it was connected to since the program started."""
        return self.stats.lives > 0

    @property
    def stats(self) -> BackendStats:
        """Counts and times of its life."""
        return self.life.stats

    @property
    def kind(self) -> TransportKind | None:
        """The transport in use, once it is known."""
        return self._opener.kind

    @property
    def era(self) -> Era:
        """The era it is spoken to in."""
        return "handshake" if self.greeting is None else self.greeting.era

    @property
    def listing(self) -> Listing | None:
        """What it offers, as last listed."""
        return self._lister.latest

    @property
    def is_settled(self) -> bool:
        """Whether its first attempt is over: it has listed, or it has failed."""
        return self.listing is not None or self.status.failures > 0 or self.status.state is State.STOPPED

    @property
    def is_resting(self) -> bool:
        """Whether there is no connection because nobody needs one, and nothing is known against one."""
        return self.life.is_resting

    @property
    def last_exit(self) -> str:
        """How a child last ended that was not told to, in words; empty when none did."""
        return self._opener.connector.tail.exit

    @property
    def dropped(self) -> int:
        """Notifications that were too many to be passed on."""
        return self._opener.pace.dropped

    @property
    def stderr(self) -> tuple[str, ...]:
        """The last lines of a child's stderr."""
        return self._opener.connector.tail.lines()

    # --- what callers use --------------------------------------------------------------------------------------

    def release(self, session: str) -> None:
        """A client's session is over: close the link held for it."""
        self._client_links.release(session)

    async def link_for(self, session: Session) -> Link:
        """The link that serves a session, calls or not; raises as `request` does."""
        return self._live(session) or await self._link(session)

    def reopen(self, session: Session) -> None:
        """Begin to open the link held for a session again, since it is watched; nothing comes of it while it cannot be.

        Raises:
            BackendUnavailable: too many are open.
        """
        place = self._place(session)
        group = self.life.group
        if place.key and group is not None:
            self._client_links.open(place, session, group)

    def is_served(self, session: Session, link: Link) -> bool:
        """Whether that link is the session's: its calls go over it, if only the first of several at the same time."""
        return link.place == self._place(session).key

    def link_of(self, session: Session) -> Link | None:
        """The open link that serves a session, if there is one."""
        return self._live(session)

    @property
    def held(self) -> int:
        """How many links are held for single clients."""
        return len(self._client_links)

    def links(self) -> list[Link]:
        """All open links, the shared one first."""
        shared = self.life.live
        return ([] if shared is None else [shared]) + self._client_links.links()

    def learn_request(self, capability: str) -> None:
        """Note that the backend sends requests that need this capability: on a pipe, clients now get separate links."""
        if capability not in self._known.asks:
            logger.info("backend sends requests to its clients: %s", capability, extra={"backend": self.name})
            self._learn(replace(self._known, asks=self._known.asks | {capability}))

    def adapt(self, server: ServerSettings, context: BackendContext) -> None:
        """Take over settings that ask for no new connection; limits of messages hold for links opened from now on."""
        self.settings = server
        self._context = context
        self.executor.adapt(server, context)
        self.life.adapt(server, context)
        self._opener.adapt(server, context)
        self._lister.adapt(context, timeout=server.list_timeout or context.list_timeout)
        self._learn(self._known)
        self._client_links.adapt(**bounds_of(server, context.limits))

    def retire(self) -> None:
        """It is not configured any more: calls in flight go on, but what it lists and how it is concerns nobody."""
        self._context = replace(self._context, on_listing=_unheard, on_status=_unheard)
        self.life.adapt(self.settings, self._context)

    async def run(self) -> None:
        """Live until cancelled; leaves nothing behind."""
        await self.life.run()

    async def idle(self) -> None:
        """Wait until no call is on its way."""
        await self.executor.idle()

    def unavailable(self) -> BackendUnavailable:
        """Why there is no link, as the caller is told."""
        return self.life.unavailable()

    def _place(self, session: Session, call: Call | None = None) -> LinkKey:
        place = link_key_of(session, self.settings.isolation, self._known)
        return place.primary if place.exclusive and call is None else place

    def _live(self, session: Session, call: Call | None = None) -> Link | None:
        """The link for a session, or for one call of it, if it is open: the fast path."""
        place = self._place(session, call)
        link = self.life.shared if not place.key else self._client_links.find(place, call)
        return None if link is None or link.ended.done() else link

    def find_link(self, call: Call) -> Link | None:
        """The open link that serves a call now; None where one must be opened first, or be free."""
        return self._live(call.session, call)

    async def connect(self, call: Call) -> None:
        """Open the link that serves a call.

        Raises:
            BackendError: it cannot be opened.
        """
        await self._link(call.session, call)

    def _learn(self, known: BackendTraits) -> None:
        self._known = known
        self.has_one_link = is_always_shared(self.settings.isolation, known)

    async def _link(self, session: Session, call: Call | None = None) -> Link:
        await self.life.until_ready()
        place, group = self._place(session, call), self.life.group
        if not place.key or group is None:
            link = self._live(session, call)
            if link is None:
                raise self.unavailable()
            return link
        try:
            return await self._client_links.link(place, session, group, call)
        except (BackendProtocolError, RemoteError):
            if not place.eras:
                raise
            self._learn(replace(self._known, has_handshake=False))  # so it has the modern era only
            return await self._link(session, call)

    # --- what is known from an earlier time -------------------------------------------------------------------------

    def _recall(self, cached: CachedListing) -> None:
        """Take for true what was true last time, until it is connected to."""
        self.life.greeting = cached.greeting
        self.stats.listed = self._context.clock.now() - cached.age
        self._opener.connector.learned(cached.kind, cached.greeting.era)
        self._learn(replace(self._known, kind=cached.kind, era=cached.greeting.era))

    async def _keep(self, listing: Listing, greeting: Negotiation) -> None:
        """Remember this for the next time."""
        if self._context.memory is not None and self.kind is not None:
            await self._context.memory.keep(self.settings, listing, greeting, self.kind)

    async def meet(self) -> None:
        """Connect to it, if it was not since the program started: what is known of it may be from an earlier time.

        Raises:
            BackendUnavailable: it cannot be reached.
        """
        if not self.has_connected:
            await self.life.until_ready()

    def wake(self) -> None:
        """Connect to it, even if nobody needs it."""
        self.life.wake()

    # --- what its life tells ----------------------------------------------------------------------------------------

    def _negotiated(self, greeting: Negotiation) -> None:
        """The shared link is open, from which the rest is known of the backend."""
        self._learn(replace(self._known, kind=self.kind or "", era=greeting.era))
        self.executor.breaker.close()

    def _is_in_use(self) -> bool:
        return self.executor.is_busy or any(link.is_busy or link.is_watched for link in self.links())

    @asynccontextmanager
    async def _opened_for(self, place: LinkKey, session: Session) -> AsyncIterator[Link]:
        """A link that is not for everybody."""
        async with self._opener.for_client(place, session) as link:
            shared = self.life.shared
            link.mirror(None if shared is None else shared.parameter_headers)
            self.stats.links = self._opener.opened
            yield link

    def _on_request(self, request: ServerRequest) -> None:
        capability = NEEDED.get(request.method)
        if capability is not None:
            self.learn_request(capability)
        self._context.on_request(request)

    def _listed(self, listing: Listing) -> None:
        shared = self.life.shared
        if shared is not None:
            for link in self._client_links.links():
                link.mirror(shared.parameter_headers)
        self.stats.listed = self._context.clock.now()
        self._context.on_listing(listing)
        self.life.learned()

    def _on_notification(self, notification: ServerNotification) -> None:
        self._lister.notified(notification.method)
        self._context.on_notification(notification)


def _unheard(_: object) -> None:
    """Where it goes what a retired backend reports."""
