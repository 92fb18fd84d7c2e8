"""One configured MCP server: its links, its latest Listing, and the executor of its calls.

Decides which link serves a session. The shared link belongs to the backend's `life`; each link for a single client has
a task of its own, a child of the owner task.
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
from mcp_manifold.model.lifecycle import Status
from mcp_manifold.wire import NEEDED, Era, Payload

logger = logging.getLogger(__name__)


class Backend:
    """One configured server. `run` is its owner task; call everything else from the same event loop."""

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
            self._adopt_cached(cached)

    def __repr__(self) -> str:
        return (
            f"<Backend {self.name} {self.status.state} failures={self.status.failures} held={len(self._client_links)}>"
        )

    @property
    def status(self) -> Status:
        """The backend's state in its lifecycle."""
        return self.life.status

    @property
    def negotiation(self) -> Negotiation | None:
        """The outcome of the last initialize or discover; None before the first one."""
        return self.life.greeting

    @property
    def has_connected(self) -> bool:
        """Whether a connection was made since the program started."""
        return self.stats.lives > 0

    @property
    def stats(self) -> BackendStats:
        """Counts and times since the program started."""
        return self.life.stats

    @property
    def kind(self) -> TransportKind | None:
        """The transport in use; None until one has worked."""
        return self._opener.kind

    @property
    def era(self) -> Era:
        """The protocol era that its links speak."""
        return "handshake" if self.negotiation is None else self.negotiation.era

    @property
    def listing(self) -> Listing | None:
        """Its latest Listing; None before the first."""
        return self._lister.latest

    @property
    def is_resting(self) -> bool:
        """Whether the backend has no connection because none is needed, and its last one did not fail."""
        return self.life.is_resting

    @property
    def last_exit(self) -> str:
        """How the server's process last ended unexpectedly, as a sentence; empty if it never did."""
        return self._opener.connector.tail.exit

    @property
    def dropped(self) -> int:
        """The number of notifications that the rate limit dropped."""
        return self._opener.pace.dropped

    @property
    def stderr(self) -> tuple[str, ...]:
        """The last lines that the server's process wrote to stderr."""
        return self._opener.connector.tail.lines()

    # --- links of sessions ----------------------------------------------------------------------------------------

    def release(self, session: str) -> None:
        """Close the link of a client session that ended."""
        self._client_links.release(session)

    async def session_link(self, session: Session) -> Link:
        """Get the link for all messages of a session but calls; open it if needed. Raises as `connect` does."""
        return self._live(session) or await self._link(session)

    def reopen(self, session: Session) -> None:
        """Start to open a watched session's own link again. Do nothing while the backend is stopped.

        Raises:
            BackendUnavailable: too many are open.
        """
        link_key = self._link_key(session)
        group = self.life.group
        if link_key.key and group is not None:
            self._client_links.open(link_key, session, group)

    def is_served(self, session: Session, link: Link) -> bool:
        """Whether `link` serves the session's messages but calls. Of leased links, only the primary does."""
        return link.key == self._link_key(session).key

    def open_session_link(self, session: Session) -> Link | None:
        """The open link for all messages of a session but calls; None if there is none. Changes nothing."""
        return self._live(session)

    @property
    def held(self) -> int:
        """The number of links that serve single clients."""
        return len(self._client_links)

    def links(self) -> list[Link]:
        """All open links, the shared one first."""
        shared = self.life.live
        return ([] if shared is None else [shared]) + self._client_links.links()

    def learn_request(self, capability: str) -> None:
        """Note that the server sends requests that need this capability. On a pipe, clients get separate links now."""
        if capability not in self._known.asks:
            logger.info("backend sends requests to its clients: %s", capability, extra={"backend": self.name})
            self._learn(replace(self._known, asks=self._known.asks | {capability}))

    def adapt(self, server: ServerSettings, context: BackendContext) -> None:
        """Use other settings that need no new connection. Message limits apply to links opened from now on."""
        self.settings = server
        self._context = context
        self.executor.adapt(server, context)
        self.life.adapt(server, context)
        self._opener.adapt(server, context)
        self._lister.adapt(context, timeout=server.list_timeout or context.list_timeout)
        self._learn(self._known)
        self._client_links.adapt(**bounds_of(server, context.limits))

    def retire(self) -> None:
        """Stop reporting listings and status, because the server is no longer configured. Calls in flight continue."""
        self._context = replace(self._context, on_listing=_ignore, on_status=_ignore)
        self.life.adapt(self.settings, self._context)

    async def run(self) -> None:
        """Run until cancelled; then close every link and process."""
        await self.life.run()

    async def idle(self) -> None:
        """Wait until no call is in flight."""
        await self.executor.idle()

    def unavailable(self) -> BackendUnavailable:
        """The error to raise for a call while there is no link."""
        return self.life.unavailable()

    def _link_key(self, session: Session, call: Call | None = None) -> LinkKey:
        link_key = link_key_of(session, self.settings.isolation, self._known)
        return link_key.primary if link_key.exclusive and call is None else link_key

    def _live(self, session: Session, call: Call | None = None) -> Link | None:
        """The open link for a session, or for one call of it."""
        link_key = self._link_key(session, call)
        link = self.life.shared if not link_key.key else self._client_links.find(link_key, call)
        return None if link is None or link.ended.done() else link

    def open_call_link(self, call: Call) -> Link | None:
        """The open link that can serve a call now; None if a link must be opened first. Changes nothing."""
        return self._live(call.session, call)

    async def connect(self, call: Call, params: dict[str, Payload]) -> None:
        """Open the link that serves a call. Wait for a starting server up to the timeout of the call.

        Args:
            params: those that will be sent.

        Raises:
            BackendError: it cannot be opened, or too many are open.
            RemoteError: the backend refused.
        """
        await self._link(call.session, call, self.executor.longest_wait(call.method, params))

    def _learn(self, known: BackendTraits) -> None:
        self._known = known
        self.has_one_link = is_always_shared(self.settings.isolation, known)

    async def _link(self, session: Session, call: Call | None = None, seconds: float | None = None) -> Link:
        await self.life.until_ready(seconds)
        link_key, group = self._link_key(session, call), self.life.group
        if not link_key.key or group is None:
            link = self._live(session, call)
            if link is None:
                raise self.unavailable()
            return link
        try:
            return await self._client_links.link(link_key, session, group, call)
        except (BackendProtocolError, RemoteError):
            if not link_key.eras:
                raise
            self._learn(replace(self._known, has_handshake=False))  # it speaks the modern era only
            return await self._link(session, call, seconds)

    # --- cached listing -------------------------------------------------------------------------------------------

    def _adopt_cached(self, cached: CachedListing) -> None:
        """Assume the transport, era and listing of an earlier run, until it is connected."""
        self.life.adopt_cached(cached.greeting, cached.age)
        self._opener.connector.learned(cached.kind, cached.greeting.era)
        self._learn(replace(self._known, kind=cached.kind, era=cached.greeting.era))

    async def _keep(self, listing: Listing, negotiation: Negotiation) -> None:
        """Cache a listing for the next run."""
        if self._context.memory is not None and self.kind is not None:
            await self._context.memory.keep(self.settings, listing, negotiation, self.kind)

    async def meet(self, call: Call, params: dict[str, Payload]) -> None:
        """Connect if no connection was made since the program started: the cached era may be out of date.

        Raises:
            BackendUnavailable: it is not reachable.
        """
        if not self.has_connected:
            await self.life.until_ready(self.executor.longest_wait(call.method, params))

    async def until_listed(self, call: Call, params: dict[str, Payload]) -> None:
        """Wait for the backend's first Listing, up to the timeout of a call.

        Raises:
            BackendUnavailable: it is not reachable, or does not list.
        """
        await self.life.until_ready(self.executor.longest_wait(call.method, params), listed=True)

    def wake(self) -> None:
        """Connect, even if no call needs it."""
        self.life.wake()

    # --- events of its life and links -----------------------------------------------------------------------------

    def _negotiated(self, negotiation: Negotiation) -> None:
        """Note the era and the transport of the shared link, which is open now."""
        self._learn(replace(self._known, kind=self.kind or "", era=negotiation.era))
        self.executor.breaker.close()

    def _is_in_use(self) -> bool:
        return self.executor.is_busy or any(link.is_busy or link.is_watched for link in self.links())

    @asynccontextmanager
    async def _opened_for(self, link_key: LinkKey, session: Session) -> AsyncIterator[Link]:
        """Open a link for one client, with the headers of the shared link."""
        async with self._opener.for_client(link_key, session) as link:
            shared = self.life.shared
            link.mirror(None if shared is None else shared.parameter_headers)
            self.stats.note_link()
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
        self.stats.note_listing(self._context.clock.now())
        self._context.on_listing(listing)
        self.life.learned()

    def _on_notification(self, notification: ServerNotification) -> None:
        self._lister.notified(notification.method)
        self._context.on_notification(notification)


def _ignore(_: object) -> None:
    """Discards the reports of a retired backend."""
