"""One configured MCP server: its owner task, its links, its latest Listing.

The owner task does connect, greet, list, wait, close, back off, over and over by the rules of `lifecycle`; nothing else
enters or leaves a link's context. Callers only ever wait for futures. Links held for one client session each live in a
task of their own, below the owner's.
"""

import asyncio
import logging
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Final

import anyio
from anyio.abc import TaskGroup

from mcp_manifold.backends.connect import Kind
from mcp_manifold.backends.greeting import Greeting
from mcp_manifold.backends.held import HeldLinks, bounds_of
from mcp_manifold.backends.isolation import Known, Place, place_of
from mcp_manifold.backends.lifecycle import Event, State, Status, advance
from mcp_manifold.backends.link import Link
from mcp_manifold.backends.lister import Lister
from mcp_manifold.backends.opener import Opener
from mcp_manifold.backends.probe import Probe
from mcp_manifold.backends.question import Notice, Question
from mcp_manifold.backends.surroundings import Surroundings
from mcp_manifold.backends.vitals import Vitals
from mcp_manifold.call import Call, Session
from mcp_manifold.catalogue import Listing
from mcp_manifold.config import ServerSettings
from mcp_manifold.errors import BackendError, BackendProtocolError, BackendUnavailable, RemoteError, SessionExpired
from mcp_manifold.wire import NEEDED, Era, Payload
from mcp_manifold.wire.protocol import HEADER_MISMATCH

logger = logging.getLogger(__name__)

NUDGE_EVERY: Final = 1.0
"""Seconds between two attempts that calls may trigger before the back-off is over."""


class Backend:
    """See the module. `run` is the owner task; everything else is called from the same event loop."""

    def __init__(self, server: ServerSettings, around: Surroundings) -> None:
        self.name = server.name
        self.settings = server
        self.status = Status(since=_now())
        self.greeting: Greeting | None = None
        self.vitals = Vitals()
        self._around = around
        self._opener = Opener(server, around, on_notification=self._notified, on_question=self._questioned)
        self._lister = Lister(
            server.name,
            around.limits,
            timeout=around.list_timeout,
            parameters=around.parameters,
            on_listing=self._listed,
        )
        self._shared: Link | None = None
        self._held = HeldLinks(server.name, self._opened_for, **bounds_of(server, around.limits))
        self._known = Known(server.transport, "handshake")
        self._calls = 0
        self._idle = asyncio.Event()
        self._group: TaskGroup | None = None
        self._changed = asyncio.Event()
        self._nudged = asyncio.Event()
        self._nudged_at = -NUDGE_EVERY

    def __repr__(self) -> str:
        return f"<Backend {self.name} {self.status.state} failures={self.status.failures} held={len(self._held)}>"

    @property
    def kind(self) -> Kind | None:
        """The transport in use, once it is known."""
        return self._opener.connector.kind

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
    def last_exit(self) -> str:
        """How a child last ended that was not told to, in words; empty when none did."""
        return self._opener.connector.tail.exit

    @property
    def stderr(self) -> tuple[str, ...]:
        """The last lines of a child's stderr."""
        return self._opener.connector.tail.lines()

    # --- what callers use --------------------------------------------------------------------------------------

    async def request(
        self,
        call: Call,
        method: str,
        params: dict[str, Payload],
        *,
        on: Link | None = None,
        timeout: float | None = None,
    ) -> Payload:
        """Relay a call, names and URIs already the backend's own.

        Args:
            on: the link to use instead of the caller's, for as long as it is open.
            timeout: seconds, instead of the configured ones.

        Raises:
            RemoteError: the backend's own error.
            BackendError: it cannot be reached, or did not answer.
            CallCancelled: the caller took it back.
        """
        self._calls += 1
        try:
            return await self._request(call, method, params, on, timeout)
        finally:
            self._calls -= 1
            if not self._calls:
                self._idle.set()

    async def _request(
        self, call: Call, method: str, params: dict[str, Payload], on: Link | None, timeout: float | None
    ) -> Payload:
        link = on if on is not None and not on.ended.done() else self._live(call.session)
        link = link or await self._link(call.session)
        timeout = self.settings.timeout if timeout is None else timeout
        try:
            return await self._relay(link, call, method, params, timeout)
        except SessionExpired:  # it was refused unread: once more, in a new session
            link = await self._link(call.session)
        except RemoteError as exc:
            if exc.code != HEADER_MISMATCH or method != "tools/call" or link.era != "modern":
                raise
            await self._lister.relist()  # the tool asks for other headers now (2026-07-28 streamable-http): once more
        return await self._relay(link, call, method, params, timeout)

    async def _relay(self, link: Link, call: Call, method: str, params: dict[str, Payload], timeout: float) -> Payload:
        session = call.session
        if session.log_level and session.era == "modern" and link.era == "handshake":
            async with self._around.with_level(link, session.log_level):
                return await link.request(method, params, timeout=timeout, call=call)
        return await link.request(method, params, timeout=timeout, call=call)

    def release(self, session: str) -> None:
        """A client's session is over: close the link held for it."""
        self._held.release(session)

    async def link_for(self, session: Session | None) -> Link:
        """The link that serves a session's calls, or for None the one everybody shares; raises as `request` does."""
        if session is not None:
            return self._live(session) or await self._link(session)
        await self._until_ready()
        if self._shared is None or self._shared.ended.done():
            raise self.unavailable()
        return self._shared

    def reopen(self, session: Session) -> None:
        """Begin to open the link held for a session again, since it is watched; nothing comes of it while it cannot be.

        Raises:
            BackendUnavailable: too many are open.
        """
        place = self._place(session)
        if place.key and self._group is not None:
            self._held.open(place, session, self._group)

    def is_served(self, session: Session, link: Link) -> bool:
        """Whether a session's calls go over that link."""
        place = self._place(session)
        return link.place.startswith(place.key + "#") if place.exclusive else link.place == place.key

    def link_of(self, session: Session) -> Link | None:
        """The open link that serves a session's calls, if there is one."""
        return self._live(session)

    @property
    def held(self) -> int:
        """How many links are held for single clients."""
        return len(self._held)

    def links(self) -> list[Link]:
        """All open links, the shared one first."""
        shared = [] if self._shared is None or self._shared.ended.done() else [self._shared]
        return shared + self._held.links()

    def asked(self, capability: str) -> None:
        """It asked its client for something: on a pipe, clients are kept apart from now on."""
        if capability not in self._known.asks:
            logger.info("it asks its clients for %s", capability, extra={"backend": self.name})
            self._known = replace(self._known, asks=self._known.asks | {capability})

    def adapt(self, server: ServerSettings, around: Surroundings) -> None:
        """Take over settings that ask for no new connection; limits of messages hold for links opened from now on."""
        self.settings = server
        self._around = around
        self._opener.adapt(server, around)
        self._lister.adapt(around.limits, timeout=around.list_timeout)
        self._held.adapt(**bounds_of(server, around.limits))

    def retire(self) -> None:
        """It is not configured any more: calls in flight go on, but what it lists and how it is concerns nobody."""
        self._around = replace(self._around, on_listing=_unheard, on_status=_unheard)

    async def idle(self) -> None:
        """Wait until no call is in flight."""
        while self._calls:
            self._idle.clear()
            await self._idle.wait()

    def unavailable(self) -> BackendUnavailable:
        """Why there is no link, as the caller is told."""
        status, now = self.status, _now()
        left = None if status.next_try is None else max(0.0, status.next_try - now)
        what = {
            State.CONNECTING: "is still connecting",
            State.BACKING_OFF: "is not reachable",
            State.STOPPED: "is stopped",
        }.get(status.state, "is not ready")
        reason = f"{what} ({status.last_error})" if status.last_error else what
        ago = f", for {now - status.since:.0f} s"
        soon = f"; next attempt in {left:.1f} s" if left is not None else ""
        return BackendUnavailable(self.name, reason + ago + soon, next_try=left)

    def _place(self, session: Session) -> Place:
        return place_of(session, self.settings.isolation, self._known)

    def _live(self, session: Session) -> Link | None:
        """The link for a session, if it is open: the fast path."""
        place = self._place(session)
        link = self._shared if not place.key else self._held.live(place)
        return None if link is None or link.ended.done() else link

    async def _link(self, session: Session) -> Link:
        await self._until_ready()
        place = self._place(session)
        if not place.key or self._group is None:
            link = self._live(session)
            if link is None:
                raise self.unavailable()
            return link
        try:
            return await self._held.link(place, session, self._group)
        except (BackendProtocolError, RemoteError):
            if not place.eras:
                raise
            self._known = replace(self._known, has_handshake=False)  # so it has the modern era only
            return await self._link(session)

    async def _until_ready(self) -> None:
        """Wait, within bounds, for a backend that is connecting, or whose link was lost a moment ago; one that is
        backing off makes an attempt at once, unless callers had it make one just before.

        Raises:
            BackendUnavailable: there is no link, and none is to be had soon.
        """
        attempted = False
        with anyio.move_on_after(self._around.patience):
            while self._shared is None or self._shared.ended.done() or not self.status.is_open:
                if self.status.state is State.STOPPED:
                    break
                if self.status.state is State.BACKING_OFF and (attempted or not self._nudge()):
                    break
                attempted = attempted or self.status.state is not State.READY
                await self._changed.wait()
        if self._shared is None or self._shared.ended.done() or not self.status.is_open:
            raise self.unavailable()

    def _nudge(self) -> bool:
        """End the back-off early; False if that was done too short a while ago and nothing is due soon."""
        now = _now()
        if now - self._nudged_at >= NUDGE_EVERY:
            self._nudged_at = now
            self._nudged.set()
            return True
        return self.status.next_try is not None and self.status.next_try - now < NUDGE_EVERY

    # --- the owner task -------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Live until cancelled; leaves nothing behind."""
        try:
            async with anyio.create_task_group() as group:
                self._group = group
                while True:
                    await self._live_once()
                    await self._back_off()
        finally:
            self._group = None
            self._move(Event.STOPPED)
            await self._opener.aclose()

    async def _live_once(self) -> None:
        """One life: from connecting to the loss of the link."""
        self._move(Event.STARTED)
        event, reason = Event.FAILED, ""
        try:
            async with self._opened() as (link, greeting):
                event = Event.LOST
                self._shared = link
                self._move(Event.OPENED)
                self._begin_probing(link)
                reason = (await self._lister.keep(link, greeting, over_http=self.kind == "http")).message
        except (BackendError, RemoteError) as exc:
            reason = exc.message if isinstance(exc, BackendError) else str(exc)
        except Exception as exc:  # the owner task's boundary: a fault of ours in one backend must not end the others
            logger.exception("backend task failed", extra={"backend": self.name})
            reason = f"internal error: {type(exc).__name__}"
        finally:
            self._shared = None
        level = logging.DEBUG if reason == self.status.last_error else logging.WARNING  # say the same thing once
        logger.log(level, "backend lost: %s", reason, extra={"backend": self.name})
        self._move(event, reason)

    def _begin_probing(self, link: Link) -> None:
        """Keep asking the shared link whether anybody is there; the task ends with the link."""

        def move(event: Event, reason: str = "") -> None:
            if self._shared is link:
                level = logging.WARNING if event is Event.FELL_SILENT else logging.INFO
                logger.log(level, "backend %s", event.value, extra={"backend": self.name})
                self._move(event, reason)

        if self._group is not None and self.settings.ping_interval:
            probe = Probe(
                link,
                every=self.settings.ping_interval,
                on_silence=lambda reason: move(Event.FELL_SILENT, reason),
                on_answer=lambda: move(Event.ANSWERED),
            )
            self._group.start_soon(probe.run, name=f"{self.name} probe")

    async def _back_off(self) -> None:
        wait = 0.0 if self.status.next_try is None else max(0.0, self.status.next_try - _now())
        with anyio.move_on_after(wait):
            await self._nudged.wait()

    def _move(self, event: Event, reason: str = "") -> None:
        self.status = advance(self.status, event, now=_now(), jitter=random.random(), reason=reason)
        self.vitals.happened(event)
        self._nudged.clear()
        self._changed.set()
        self._changed = asyncio.Event()
        self._around.on_status(self.name)

    @asynccontextmanager
    async def _opened(self) -> AsyncIterator[tuple[Link, Greeting]]:
        """The shared link, from which the rest is known of the backend."""
        async with self._opener.shared() as (link, greeting):
            self.greeting = greeting
            self._known = replace(self._known, kind=self.kind or "", era=greeting.era)
            self.vitals.links = self._opener.opened
            yield link, greeting

    @asynccontextmanager
    async def _opened_for(self, place: Place, session: Session) -> AsyncIterator[Link]:
        """A link that is not for everybody."""
        async with self._opener.for_client(place, session) as link:
            link.parameter_headers = self._shared.parameter_headers if self._shared else None
            self.vitals.links = self._opener.opened
            yield link

    def _questioned(self, question: Question) -> None:
        capability = NEEDED.get(question.method)
        if capability is not None:
            self.asked(capability)
        self._around.on_question(question)

    def _listed(self, listing: Listing) -> None:
        if self._shared is not None:
            for link in self._held.links():
                link.parameter_headers = self._shared.parameter_headers
        self.vitals.listed = _now()
        self._around.on_listing(listing)

    def _notified(self, notice: Notice) -> None:
        self._lister.notified(notice.method)
        self._around.on_notice(notice)


def _unheard(_: object) -> None:
    """Where it goes what a retired backend reports."""


def _now() -> float:
    return asyncio.get_running_loop().time()
