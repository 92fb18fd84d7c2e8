"""One configured MCP server: its links, its latest Listing, and the way a call takes to it.

Decides which link serves whom, and asks for it. The shared link comes and goes with the backend's `life`; links held
for one client session each live in a task of their own, below the owner's.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from mcp_manifold.backends.calling import Calling
from mcp_manifold.backends.connect import Kind
from mcp_manifold.backends.greeting import Greeting
from mcp_manifold.backends.held import HeldLinks, bounds_of
from mcp_manifold.backends.isolation import Known, Place, place_of
from mcp_manifold.backends.life import Life, Uses
from mcp_manifold.backends.lifecycle import State, Status
from mcp_manifold.backends.link import Link
from mcp_manifold.backends.lister import Lister
from mcp_manifold.backends.memory import Recalled
from mcp_manifold.backends.opener import Opener
from mcp_manifold.backends.question import Notice, Question
from mcp_manifold.backends.surroundings import Surroundings
from mcp_manifold.backends.vitals import Vitals
from mcp_manifold.call import Call, Session
from mcp_manifold.catalogue import Listing
from mcp_manifold.config import ServerSettings
from mcp_manifold.errors import BackendProtocolError, BackendUnavailable, RemoteError
from mcp_manifold.wire import NEEDED, Era

logger = logging.getLogger(__name__)


class Backend:
    """See the module. `run` is its life; everything else is called from the same event loop."""

    def __init__(self, server: ServerSettings, around: Surroundings, *, recalled: Recalled | None = None) -> None:
        self.name = server.name
        self.settings = server
        self._around = around
        self._opener = Opener(server, around, on_notification=self._notified, on_question=self._questioned)
        self._lister = Lister(
            server.name,
            around.limits,
            timeout=server.list_timeout or around.list_timeout,
            parameters=around.parameters,
            on_listing=self._listed,
            keep=self._keep,
            latest=None if recalled is None else recalled.listing,
        )
        self.calling = Calling(server, around, live=self._live, link=self._link, lister=self._lister)
        self.request = self.calling.request
        self.request_aside = self.calling.request_aside
        self.relay = self.calling.relay
        self._held = HeldLinks(server.name, self._opened_for, **bounds_of(server, around.limits))
        admission = self.calling.admission
        uses = Uses(lambda: admission.used, self._is_in_use, on_opened=self._greeted, on_rest=self._held.close)
        self._life = Life(server, around, opener=self._opener, lister=self._lister, uses=uses)
        self._known = Known(server.transport, "handshake")
        if recalled is not None:
            self._recall(recalled)

    def __repr__(self) -> str:
        return f"<Backend {self.name} {self.status.state} failures={self.status.failures} held={len(self._held)}>"

    @property
    def status(self) -> Status:
        """Where it is in its life."""
        return self._life.status

    @property
    def greeting(self) -> Greeting | None:
        """What it said of itself when it was last connected to; None before the first time."""
        return self._life.greeting

    @property
    def is_met(self) -> bool:
        """Whether it was connected to since the program started."""
        return self.vitals.lives > 0

    @property
    def vitals(self) -> Vitals:
        """Counts and times of its life."""
        return self._life.vitals

    @property
    def kind(self) -> Kind | None:
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
        return self._life.is_resting

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
        self._held.release(session)

    async def link_for(self, session: Session) -> Link:
        """The link that serves a session, calls or not; raises as `request` does."""
        return self._live(session) or await self._link(session)

    def reopen(self, session: Session) -> None:
        """Begin to open the link held for a session again, since it is watched; nothing comes of it while it cannot be.

        Raises:
            BackendUnavailable: too many are open.
        """
        place = self._place(session)
        group = self._life.group
        if place.key and group is not None:
            self._held.open(place, session, group)

    def is_served(self, session: Session, link: Link) -> bool:
        """Whether that link is the session's: its calls go over it, if only the first of several at the same time."""
        return link.place == self._place(session).key

    def link_of(self, session: Session) -> Link | None:
        """The open link that serves a session, if there is one."""
        return self._live(session)

    @property
    def held(self) -> int:
        """How many links are held for single clients."""
        return len(self._held)

    def links(self) -> list[Link]:
        """All open links, the shared one first."""
        shared = self._life.live
        return ([] if shared is None else [shared]) + self._held.links()

    def asked(self, capability: str) -> None:
        """It asked its client for something: on a pipe, clients are kept apart from now on."""
        if capability not in self._known.asks:
            logger.info("it asks its clients for %s", capability, extra={"backend": self.name})
            self._known = replace(self._known, asks=self._known.asks | {capability})

    def adapt(self, server: ServerSettings, around: Surroundings) -> None:
        """Take over settings that ask for no new connection; limits of messages hold for links opened from now on."""
        self.settings = server
        self._around = around
        self.calling.adapt(server, around)
        self._life.adapt(server, around)
        self._opener.adapt(server, around)
        self._lister.adapt(around.limits, timeout=server.list_timeout or around.list_timeout)
        self._held.adapt(**bounds_of(server, around.limits))

    def retire(self) -> None:
        """It is not configured any more: calls in flight go on, but what it lists and how it is concerns nobody."""
        self._around = replace(self._around, on_listing=_unheard, on_status=_unheard)
        self._life.adapt(self.settings, self._around)

    async def run(self) -> None:
        """Live until cancelled; leaves nothing behind."""
        await self._life.run()

    async def idle(self) -> None:
        """Wait until no call is on its way."""
        await self.calling.admission.idle()

    def unavailable(self) -> BackendUnavailable:
        """Why there is no link, as the caller is told."""
        return self._life.unavailable()

    def _place(self, session: Session, call: Call | None = None) -> Place:
        place = place_of(session, self.settings.isolation, self._known)
        return place.home if place.exclusive and call is None else place

    def _live(self, session: Session, call: Call | None = None) -> Link | None:
        """The link for a session, or for one call of it, if it is open: the fast path."""
        place = self._place(session, call)
        link = self._life.shared if not place.key else self._held.live(place, call)
        return None if link is None or link.ended.done() else link

    def free(self, call: Call) -> Link | None:
        """The link over which a call can be relayed in this very turn; None where something must be waited for."""
        place = place_of(call.session, self.settings.isolation, self._known)
        if place.exclusive or not self.calling.is_free:  # what is lent is taken out first
            return None
        return self._held.find(place.key) if place.key else self._life.live

    async def _link(self, session: Session, call: Call | None = None) -> Link:
        await self._life.until_ready()
        place, group = self._place(session, call), self._life.group
        if not place.key or group is None:
            link = self._live(session, call)
            if link is None:
                raise self.unavailable()
            return link
        try:
            return await self._held.link(place, session, group, call)
        except (BackendProtocolError, RemoteError):
            if not place.eras:
                raise
            self._known = replace(self._known, has_handshake=False)  # so it has the modern era only
            return await self._link(session, call)

    # --- what is known from an earlier time -------------------------------------------------------------------------

    def _recall(self, recalled: Recalled) -> None:
        """Take for true what was true last time, until it is connected to."""
        self._life.greeting = recalled.greeting
        self.vitals.listed = _now() - recalled.age
        self._opener.connector.learned(recalled.kind, recalled.greeting.era)
        self._known = replace(self._known, kind=recalled.kind, era=recalled.greeting.era)

    async def _keep(self, listing: Listing, greeting: Greeting) -> None:
        """Remember this for the next time."""
        if self._around.memory is not None and self.kind is not None:
            await self._around.memory.keep(self.settings, listing, greeting, self.kind)

    async def meet(self) -> None:
        """Connect to it, if it was not since the program started: what is known of it may be from an earlier time.

        Raises:
            BackendUnavailable: it cannot be reached.
        """
        if not self.is_met:
            await self._life.until_ready()

    def wake(self) -> None:
        """Connect to it, even if nobody needs it."""
        self._life.wake()

    # --- what its life tells ----------------------------------------------------------------------------------------

    def _greeted(self, greeting: Greeting) -> None:
        """The shared link is open, from which the rest is known of the backend."""
        self._known = replace(self._known, kind=self.kind or "", era=greeting.era)
        self.calling.breaker.close()

    def _is_in_use(self) -> bool:
        return self.calling.admission.is_busy or any(link.is_busy or link.is_watched for link in self.links())

    @asynccontextmanager
    async def _opened_for(self, place: Place, session: Session) -> AsyncIterator[Link]:
        """A link that is not for everybody."""
        async with self._opener.for_client(place, session) as link:
            shared = self._life.shared
            link.parameter_headers = None if shared is None else shared.parameter_headers
            self.vitals.links = self._opener.opened
            yield link

    def _questioned(self, question: Question) -> None:
        capability = NEEDED.get(question.method)
        if capability is not None:
            self.asked(capability)
        self._around.on_question(question)

    def _listed(self, listing: Listing) -> None:
        shared = self._life.shared
        if shared is not None:
            for link in self._held.links():
                link.parameter_headers = shared.parameter_headers
        self.vitals.listed = _now()
        self._around.on_listing(listing)
        self._life.learned()

    def _notified(self, notice: Notice) -> None:
        self._lister.notified(notice.method)
        self._around.on_notice(notice)


def _now() -> float:
    return asyncio.get_running_loop().time()


def _unheard(_: object) -> None:
    """Where it goes what a retired backend reports."""
