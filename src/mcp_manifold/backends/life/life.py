"""One backend's life: the owner task, the link everybody shares, and who waits for it.

The owner task does connect, greet, list, wait, close, back off, over and over by the rules of `lifecycle`; nothing else
enters or leaves a link's context. Callers only ever wait for futures. Which link serves whom is not known here.

A backend that nobody needs is at rest: without a link, until somebody waits for one. One that starts lazily rests from
the beginning, once it is known what it offers; to learn that, it is started once, and rests as soon as it has listed.
"""

import asyncio
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import anyio
from anyio.abc import TaskGroup

from mcp_manifold.backends.context import BackendContext
from mcp_manifold.backends.life.idle_monitor import IdleMonitor
from mcp_manifold.backends.life.probe import Probe
from mcp_manifold.backends.life.stats import BackendStats
from mcp_manifold.backends.life.unavailable_error import unavailable_error
from mcp_manifold.backends.link.link import Link
from mcp_manifold.backends.link.negotiation import Negotiation
from mcp_manifold.backends.link.opener import LinkOpener
from mcp_manifold.backends.lists.lister import Lister
from mcp_manifold.config import ServerSettings
from mcp_manifold.errors import BackendCrashed, BackendError, BackendUnavailable, RemoteError
from mcp_manifold.model.lifecycle import LifecycleEvent, State, Status, advance

logger = logging.getLogger(__name__)

_AT_REST: Final = "is not needed now"
NUDGE_EVERY: Final = 1.0
"""Seconds between two attempts that calls may trigger before the back-off is over."""


@dataclass(frozen=True, slots=True)
class Uses:
    """What a life has to know of the way its backend is used, and what that has to know of it."""

    last: Callable[[], float]
    """When the last call ended, by the loop's clock."""
    is_any: Callable[[], bool]
    """Whether a link is in use: a call is in flight or parked, somebody is told things over it."""
    on_opened: Callable[[Negotiation], None]
    """The shared link is open."""
    on_rest: Callable[[], None]
    """Nobody uses the backend: close what else it has open."""


class Life:
    """See the module. `run` is the owner task; everything else is called from the same event loop."""

    def __init__(
        self,
        server: ServerSettings,
        context: BackendContext,
        *,
        opener: LinkOpener,
        lister: Lister,
        uses: Uses,
    ) -> None:
        self.status = Status(since=_now())
        self.greeting: Negotiation | None = None
        self.stats = BackendStats()
        self.shared: Link | None = None
        """The link everybody shares, from its greeting on; it may have ended since."""
        self.group: TaskGroup | None = None
        """Where the tasks of this life belong; None before it began and once it is over."""
        self._server = server
        self._context = context
        self._opener = opener
        self._lister = lister
        self._uses = uses
        self._waiting = 0
        self._is_woken = False
        self._is_resting = False
        self._is_learning = False
        self._has_listed = False
        self._rested: BackendUnavailable | None = None
        self._changed = asyncio.Event()
        self._nudged = asyncio.Event()
        self._nudged_at = -NUDGE_EVERY

    def __repr__(self) -> str:
        return f"<Life {self._server.name} {self.status.state} failures={self.status.failures}>"

    @property
    def live(self) -> Link | None:
        """The shared link, while it is open."""
        return None if self.shared is None or self.shared.ended.done() else self.shared

    @property
    def is_resting(self) -> bool:
        """Whether it is at rest, and nothing is known against a start."""
        return self._is_resting and self.status.is_resting

    def wake(self) -> None:
        """Do not rest before it was connected to."""
        self._is_woken = True
        self._nudged.set()

    def adapt(self, server: ServerSettings, context: BackendContext) -> None:
        """Go by other settings from now on."""
        was_lazy = self._is_lazy
        self._server, self._context = server, context
        if was_lazy and not self._is_lazy:
            self._nudged.set()

    def unavailable(self) -> BackendUnavailable:
        """Why there is no link, as the caller is told."""
        return unavailable_error(
            self._server.name, self.status, now=_now(), away=self.stats.away, today=datetime.now(UTC)
        )

    async def until_ready(self) -> Link:
        """The shared link; waits, within bounds, for a backend that is connecting, or whose link was lost a moment ago.
        One that is at rest is started; one that is backing off makes an attempt at once, unless callers had it make one
        just before. In a crash loop nobody waits.

        Raises:
            BackendUnavailable: there is no link, and none is to be had soon.
        """
        patience = self._context.patience
        if self._is_resting:  # this very call starts it, and would have to come again if it did not wait
            patience = max(patience, self._server.timeout)
        self._is_learning = False
        self._waiting += 1
        try:
            with anyio.move_on_after(patience):
                await self._opened_or_failed()
        finally:
            self._waiting -= 1
        link = self.live
        if link is None or not self.status.is_open:
            raise self.unavailable()
        return link

    async def _opened_or_failed(self) -> None:
        attempted = False
        while self.live is None or not self.status.is_open:
            match self.status.state:
                case State.STOPPED | State.CRASH_LOOP:
                    return
                case State.BACKING_OFF if attempted or not self._nudge():
                    return
                case State.IDLE:
                    self._nudged.set()
            attempted = attempted or self.status.state is not State.READY
            await self._changed.wait()

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
                self.group = group
                while True:
                    if self.is_resting or self._may_rest():
                        await self._rest()
                    await self._live_once()
                    await self._back_off()
        finally:
            self.group = None
            self._move(LifecycleEvent.STOPPED)
            await self._opener.aclose()

    @property
    def _is_lazy(self) -> bool:
        return (self._server.start or self._context.start) == "lazy"

    def _may_rest(self) -> bool:
        """Whether there need not be a link: nobody waits for one, and what would be listed is known."""
        is_kept = self._server.keep_alive and self.stats.lives > 0
        is_known = self._lister.latest is not None
        is_wanted = self._waiting or self._is_woken or self._is_needed()
        return self._is_lazy and is_known and not is_kept and not is_wanted

    def _is_needed(self) -> bool:
        return self._context.is_needed(self._server.name)

    async def _rest(self) -> None:
        """Have no link until somebody waits for one."""
        if not self._is_resting:
            self._move(LifecycleEvent.RESTED)
        await self._nudged.wait()

    async def _live_once(self) -> None:
        """From connecting to the loss of the link."""
        self._has_listed = False
        is_wanted = self._waiting or self._is_woken or self._server.keep_alive
        self._is_learning, self._is_woken = self._is_lazy and not is_wanted, False
        self._move(LifecycleEvent.STARTED)
        event, reason = LifecycleEvent.FAILED, ""
        try:
            async with self._opener.shared() as (link, greeting):
                event = LifecycleEvent.LOST
                self._opened(link, greeting)
                raise await self._lister.keep(link, greeting, over_http=self._opener.kind == "http")
        except (BackendError, RemoteError) as exc:
            event = self._end_of(exc, event)
            reason = exc.message if isinstance(exc, BackendError) else str(exc)
        except Exception as exc:  # the owner task's boundary: a fault of ours in one backend must not end the others
            logger.exception("backend task failed", extra={"backend": self._server.name})
            reason = f"internal error: {type(exc).__name__}"
        finally:
            self.shared = None
        self._rested = None
        if event is LifecycleEvent.RESTED:
            logger.info("backend at rest: nobody uses it", extra={"backend": self._server.name})
            reason = ""
        else:
            self._log_end(event, reason)
        self._move(event, reason)

    def _end_of(self, exc: BackendError | RemoteError, event: LifecycleEvent) -> LifecycleEvent:
        """What the end of a life for this reason was, if it was not just `event`."""
        if exc is self._rested:
            return LifecycleEvent.RESTED
        return LifecycleEvent.CRASHED if isinstance(exc, BackendCrashed) and not self._has_listed else event

    def _log_end(self, event: LifecycleEvent, reason: str) -> None:
        level = logging.DEBUG if reason == self.status.last_error else logging.WARNING  # say the same thing once
        what = "lost" if self.status.is_open else "not reached"
        logger.log(level, "backend %s: %s", what, reason, extra={"backend": self._server.name})

    def _opened(self, link: Link, greeting: Negotiation) -> None:
        self.greeting = greeting
        self.stats.links = self._opener.opened
        self._uses.on_opened(greeting)
        self.shared = link
        self._move(LifecycleEvent.OPENED)
        self._begin_probing(link)
        if self.group is not None:
            leisure = IdleMonitor(
                link,
                after=self._idle_timeout,
                used=self._uses.last,
                is_in_use=self._is_in_use,
                on_idle=lambda: self._close(link),
            )
            self.group.start_soon(leisure.run, name=f"{self._server.name} leisure")

    def _idle_timeout(self) -> float:
        server = self._server
        if server.keep_alive:
            return 0.0
        return self._context.idle_timeout if server.idle_timeout is None else server.idle_timeout

    def _is_in_use(self) -> bool:
        return self._waiting > 0 or self._uses.is_any() or self._is_needed()

    def learned(self) -> None:
        """It has listed: if that was all it was started for, it rests."""
        self._has_listed = True
        link = self.live
        if self._is_learning and link is not None and not self._is_in_use():
            self._close(link)

    def _close(self, link: Link) -> None:
        """Close the open link, and all others, for want of use. Nothing is in flight, and from now on nothing is sent
        over it, since a link that ended is never used.
        """
        self._rested = BackendUnavailable(self._server.name, _AT_REST)
        link.lost(self._rested)
        self._uses.on_rest()

    def _begin_probing(self, link: Link) -> None:
        """Keep asking the shared link whether anybody is there; the task ends with the link."""

        def move(event: LifecycleEvent, reason: str = "") -> None:
            if self.shared is link:
                level = logging.WARNING if event is LifecycleEvent.FELL_SILENT else logging.INFO
                logger.log(level, "backend %s", event.value, extra={"backend": self._server.name})
                self._move(event, reason)

        if self.group is not None and self._server.ping_interval:
            probe = Probe(
                link,
                every=self._server.ping_interval,
                on_silence=lambda reason: move(LifecycleEvent.FELL_SILENT, reason),
                on_answer=lambda: move(LifecycleEvent.ANSWERED),
            )
            self.group.start_soon(probe.run, name=f"{self._server.name} probe")

    async def _back_off(self) -> None:
        wait = 0.0 if self.status.next_try is None else max(0.0, self.status.next_try - _now())
        with anyio.move_on_after(wait):
            await self._nudged.wait()

    def _move(self, event: LifecycleEvent, reason: str = "") -> None:
        self.status = advance(self.status, event, now=_now(), jitter=random.random(), reason=reason)
        self.stats.happened(event)
        self._is_resting = event is LifecycleEvent.RESTED
        self._nudged.clear()
        self._changed.set()
        self._changed = asyncio.Event()
        self._context.on_status(self._server.name)


def _now() -> float:
    return asyncio.get_running_loop().time()
