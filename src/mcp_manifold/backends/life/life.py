"""One backend's life: the owner task, the shared link, and the calls that wait for it.

The owner task loops by the rules of `lifecycle`: connect, negotiate, list, wait, close, back off. Only this task enters
and leaves the shared link's context; callers wait for futures. It does not know which link serves which client.

A backend that is not needed rests: it has no link until a call waits for one. A lazy backend rests from the start, once
its Listing is known; without a cached Listing it is started once, and rests as soon as it has listed.
"""

import asyncio
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

import anyio
from anyio.abc import TaskGroup

from mcp_manifold.backends.context import BackendContext
from mcp_manifold.backends.life.monitors import IdleMonitor, Probe
from mcp_manifold.backends.life.stats import BackendStats, unavailable_error
from mcp_manifold.backends.link.link import Link
from mcp_manifold.backends.link.negotiation import Negotiation
from mcp_manifold.backends.link.opener import LinkOpener
from mcp_manifold.backends.lists.lister import Lister
from mcp_manifold.config import ServerSettings
from mcp_manifold.errors import BackendCrashed, BackendError, BackendUnavailable, RemoteError
from mcp_manifold.model.lifecycle import LifecycleEvent, State, Status, advance

logger = logging.getLogger(__name__)

_AT_REST: Final = "is at rest: not in use"
NUDGE_EVERY: Final = 1.0
"""Seconds between two attempts that calls may trigger before the back-off is over."""


@dataclass(frozen=True, slots=True)
class Uses:
    """The questions that a Life asks about the use of its backend, and the events that it reports."""

    last: Callable[[], float]
    """Time of the last call's end."""
    is_any: Callable[[], bool]
    """Whether a link is in use: a call is in flight or parked, or a subscription is active."""
    on_opened: Callable[[Negotiation], None]
    """The shared link was opened."""
    on_rest: Callable[[], None]
    """The backend comes to rest: close its other links."""


class Life:
    """The life of one backend. `run` is the owner task; call everything else from the same event loop."""

    def __init__(
        self,
        server: ServerSettings,
        context: BackendContext,
        *,
        opener: LinkOpener,
        lister: Lister,
        uses: Uses,
    ) -> None:
        self._context = context
        self._clock = context.clock
        self.status = Status(since=self._clock.now())
        self.greeting: Negotiation | None = None
        self.stats = BackendStats(self._clock.wall())
        self.shared: Link | None = None
        """The shared link, once it is negotiated; it may have ended since."""
        self.group: TaskGroup | None = None
        """Task group of this life; None before it starts and after it ends."""
        self._server = server
        self._opener = opener
        self._lister = lister
        self._uses = uses
        self._waiting = 0
        self._is_woken = False
        self._is_resting = False
        self._is_learning = False
        self._has_listed = False
        self._rested: BackendUnavailable | None = None
        self._changed = _signal()
        self._nudged = _signal()
        self._nudged_at = -NUDGE_EVERY

    def __repr__(self) -> str:
        return f"<Life {self._server.name} {self.status.state} failures={self.status.failures}>"

    @property
    def live(self) -> Link | None:
        """The shared link, while it is open."""
        return None if self.shared is None or self.shared.ended.done() else self.shared

    @property
    def is_resting(self) -> bool:
        """Whether the backend has no link because none is needed, and the last one did not fail."""
        return self._is_resting and self.status.is_resting

    @property
    def last_error(self) -> str:
        """Why the backend is not connected: what it prints in place of a greeting, or its last failure."""
        return self._opener.noise or self.status.last_error

    def wake(self) -> None:
        """Connect now, before the backend may rest again."""
        self._is_woken = True
        self._nudge()

    def adapt(self, server: ServerSettings, context: BackendContext) -> None:
        """Use other settings from now on."""
        was_lazy = self._is_lazy
        self._server, self._context = server, context
        if was_lazy and not self._is_lazy:
            self._nudge()

    def unavailable(self) -> BackendUnavailable:
        """The error to raise for a call while there is no link."""
        now, today, status = (
            self._clock.now(),
            self._clock.wall(),
            replace(self.status, last_error=self._opener.said or self.status.last_error),
        )
        return unavailable_error(self._server.name, status, now=now, away=self.stats.away, today=today)

    async def until_ready(self, seconds: float | None = None, *, listed: bool = False) -> Link:
        """Wait for the shared link and return it, while the backend connects or has just lost its link.

        A resting backend is started. A backend that is backing off reconnects at once, unless another call has just
        triggered that. In a crash loop the call fails at once.

        Args:
            seconds: the longest wait; None for that of a request that has no timeout of its own.
            listed: wait for its first Listing as well.

        Raises:
            BackendUnavailable: there is no link, and none is expected soon.
        """
        if seconds is None:
            seconds = self._context.patience
            if self._is_resting:  # this request starts it, so it should get the answer
                seconds = max(seconds, self._server.timeout)
        self._is_learning = False
        self._waiting += 1
        try:
            await self._opened_or_failed(self._clock.now() + seconds, listed=listed)
        finally:
            self._waiting -= 1
        link = self.live
        if link is None or not self.status.is_open or (listed and self._lister.latest is None):
            raise self.unavailable()
        return link

    async def _opened_or_failed(self, until: float, *, listed: bool) -> None:
        attempted = False
        while self.live is None or not self.status.is_open or (listed and self._lister.latest is None):
            match self.status.state:
                case State.STOPPED | State.CRASH_LOOP:
                    return
                case State.BACKING_OFF if attempted or not self._retry_early():
                    return
                case State.IDLE:
                    self._nudge()
            attempted = attempted or self.status.state is not State.READY
            if not await self._clock.wait(self._changed, seconds=until - self._clock.now()):
                return

    def _retry_early(self) -> bool:
        """End the back-off now; False if that happened less than `NUDGE_EVERY` ago and no attempt is due soon."""
        now = self._clock.now()
        if now - self._nudged_at >= NUDGE_EVERY:
            self._nudged_at = now
            self._nudge()
            return True
        return self.status.next_try is not None and self.status.next_try - now < NUDGE_EVERY

    def _nudge(self) -> None:
        """End a rest or a back-off."""
        if not self._nudged.done():
            self._nudged.set_result(None)

    # --- the owner task -------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Run until cancelled; then close every link."""
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
        """Whether a lazy backend needs no link: no call waits for one, and its Listing is known."""
        is_kept = self._server.keep_alive and self.stats.lives > 0
        is_known = self._lister.latest is not None
        is_wanted = self._waiting or self._is_woken or self._is_needed()
        return self._is_lazy and is_known and not is_kept and not is_wanted

    def _is_needed(self) -> bool:
        return self._context.is_needed(self._server.name)

    async def _rest(self) -> None:
        """Have no link until a call waits for one."""
        if not self._is_resting:
            self._move(LifecycleEvent.RESTED)
        await self._clock.wait(self._nudged, seconds=None)

    async def _live_once(self) -> None:
        """Run one life of the backend, from connecting to the loss of the link."""
        self._has_listed = False
        is_wanted = self._waiting or self._is_woken or self._server.keep_alive
        self._is_learning, self._is_woken = self._is_lazy and not is_wanted, False
        self._move(LifecycleEvent.STARTED)
        event, reason = LifecycleEvent.FAILED, ""
        try:
            async with self._opener.shared() as (link, negotiation):
                event = LifecycleEvent.LOST
                self._opened(link, negotiation)
                raise await self._lister.keep(link, negotiation, over_http=self._opener.kind == "http")
        except (BackendError, RemoteError) as exc:
            event = self._end_of(exc, event)
            reason = exc.message if isinstance(exc, BackendError) else str(exc)
        except OSError as exc:  # of this process, such as no free descriptor
            reason = exc.strerror or str(exc)
        except Exception as exc:  # task boundary: a defect in one backend must not end the others
            logger.exception("backend task failed", extra={"backend": self._server.name})
            reason = f"internal error: {type(exc).__name__}"
        finally:
            self.shared = None
        self._rested = None
        if event is LifecycleEvent.RESTED:
            logger.info("backend at rest: not in use", extra={"backend": self._server.name})
            reason = ""
        else:
            self._log_end(event, reason)
        self._move(event, reason)

    def _end_of(self, exc: BackendError | RemoteError, event: LifecycleEvent) -> LifecycleEvent:
        """The lifecycle event for this reason: at rest, crashed, or `event`."""
        if exc is self._rested:
            return LifecycleEvent.RESTED
        return LifecycleEvent.CRASHED if isinstance(exc, BackendCrashed) and not self._has_listed else event

    def _log_end(self, event: LifecycleEvent, reason: str) -> None:
        level = logging.DEBUG if reason == self.status.last_error else logging.WARNING  # log the same reason once
        what = "lost" if self.status.is_open else "not reached"
        logger.log(level, "backend %s: %s", what, reason, extra={"backend": self._server.name})

    def _opened(self, link: Link, negotiation: Negotiation) -> None:
        self.greeting = negotiation
        self.stats.note_link()
        self._uses.on_opened(negotiation)
        self.shared = link
        self._move(LifecycleEvent.OPENED)
        self._begin_probing(link)
        if self.group is not None:
            monitor = IdleMonitor(
                link,
                self._clock,
                after=self._idle_timeout,
                used=self._uses.last,
                is_in_use=self._is_in_use,
                on_idle=lambda: self._close(link),
            )
            self.group.start_soon(monitor.run, name=f"{self._server.name} idle monitor")

    def _idle_timeout(self) -> float:
        server = self._server
        if server.keep_alive:
            return 0.0
        return self._context.idle_timeout if server.idle_timeout is None else server.idle_timeout

    def _is_in_use(self) -> bool:
        return self._waiting > 0 or self._uses.is_any() or self._is_needed()

    def adopt_cached(self, greeting: Negotiation, age: float) -> None:
        """Assume the negotiation of an earlier run, until it is connected.

        Args:
            age: seconds since its listing.
        """
        self.greeting = greeting
        self.stats.note_listing(self._clock.now() - age)

    def learned(self) -> None:
        """Note that the backend has listed. If it was started only for its lists, let it rest."""
        self._has_listed = True
        self._signal_change()
        link = self.live
        if self._is_learning and link is not None and not self._is_in_use():
            self._close(link)

    def _close(self, link: Link) -> None:
        """Come to rest: end this link, and close all others. Nothing is in flight, and an ended link is never used."""
        self._rested = BackendUnavailable(self._server.name, _AT_REST)
        link.lost(self._rested)
        self._uses.on_rest()

    def _begin_probing(self, link: Link) -> None:
        """Probe the shared link until it ends."""

        def move(event: LifecycleEvent, reason: str = "") -> None:
            if self.shared is link:
                level = logging.WARNING if event is LifecycleEvent.FELL_SILENT else logging.INFO
                logger.log(level, "backend %s", event.value, extra={"backend": self._server.name})
                self._move(event, reason)

        if self.group is not None and self._server.ping_interval:
            probe = Probe(
                link,
                self._clock,
                every=self._server.ping_interval,
                on_silence=lambda reason: move(LifecycleEvent.FELL_SILENT, reason),
                on_answer=lambda: move(LifecycleEvent.ANSWERED),
            )
            self.group.start_soon(probe.run, name=f"{self._server.name} probe")

    async def _back_off(self) -> None:
        now = self._clock.now()
        wait = 0.0 if self.status.next_try is None else max(0.0, self.status.next_try - now)
        await self._clock.wait(self._nudged, seconds=wait)

    def _move(self, event: LifecycleEvent, reason: str = "") -> None:
        self.status = advance(self.status, event, now=self._clock.now(), jitter=random.random(), reason=reason)
        self.stats.happened(event, self._clock.wall())
        self._is_resting = event is LifecycleEvent.RESTED
        if self._nudged.done():
            self._nudged = _signal()
        self._signal_change()
        self._context.on_status(self._server.name)

    def _signal_change(self) -> None:
        changed, self._changed = self._changed, _signal()
        changed.set_result(None)


def _signal() -> "asyncio.Future[None]":
    return asyncio.get_running_loop().create_future()
