"""One backend's life: the owner task, the link everybody shares, and who waits for it.

The owner task does connect, greet, list, wait, close, back off, over and over by the rules of `lifecycle`; nothing else
enters or leaves a link's context. Callers only ever wait for futures. Which link serves whom is not known here.
"""

import asyncio
import logging
import random
from collections.abc import Callable
from typing import Final

import anyio
from anyio.abc import TaskGroup

from mcp_manifold.backends.greeting import Greeting
from mcp_manifold.backends.lifecycle import Event, State, Status, advance
from mcp_manifold.backends.link import Link
from mcp_manifold.backends.lister import Lister
from mcp_manifold.backends.opener import Opener
from mcp_manifold.backends.probe import Probe
from mcp_manifold.backends.surroundings import Surroundings
from mcp_manifold.backends.vitals import Vitals
from mcp_manifold.config import ServerSettings
from mcp_manifold.errors import BackendError, BackendUnavailable, RemoteError

logger = logging.getLogger(__name__)

NUDGE_EVERY: Final = 1.0
"""Seconds between two attempts that calls may trigger before the back-off is over."""


class Life:
    """See the module. `run` is the owner task; everything else is called from the same event loop."""

    def __init__(
        self,
        server: ServerSettings,
        around: Surroundings,
        *,
        opener: Opener,
        lister: Lister,
        on_opened: Callable[[Greeting], None],
    ) -> None:
        self.status = Status(since=_now())
        self.greeting: Greeting | None = None
        self.vitals = Vitals()
        self.shared: Link | None = None
        """The link everybody shares, from its greeting on; it may have ended since."""
        self.group: TaskGroup | None = None
        """Where the tasks of this life belong; None before it began and once it is over."""
        self._server = server
        self._around = around
        self._opener = opener
        self._lister = lister
        self._on_opened = on_opened
        self._changed = asyncio.Event()
        self._nudged = asyncio.Event()
        self._nudged_at = -NUDGE_EVERY

    def __repr__(self) -> str:
        return f"<Life {self._server.name} {self.status.state} failures={self.status.failures}>"

    @property
    def live(self) -> Link | None:
        """The shared link, while it is open."""
        return None if self.shared is None or self.shared.ended.done() else self.shared

    def adapt(self, server: ServerSettings, around: Surroundings) -> None:
        """Go by other settings from now on."""
        self._server, self._around = server, around

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
        return BackendUnavailable(self._server.name, reason + ago + soon, next_try=left)

    async def until_ready(self) -> Link:
        """The shared link; waits, within bounds, for a backend that is connecting, or whose link was lost a moment ago.
        One that is backing off makes an attempt at once, unless callers had it make one just before.

        Raises:
            BackendUnavailable: there is no link, and none is to be had soon.
        """
        attempted = False
        with anyio.move_on_after(self._around.patience):
            while self.live is None or not self.status.is_open:
                if self.status.state is State.STOPPED:
                    break
                if self.status.state is State.BACKING_OFF and (attempted or not self._nudge()):
                    break
                attempted = attempted or self.status.state is not State.READY
                await self._changed.wait()
        link = self.live
        if link is None or not self.status.is_open:
            raise self.unavailable()
        return link

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
                    await self._live_once()
                    await self._back_off()
        finally:
            self.group = None
            self._move(Event.STOPPED)
            await self._opener.aclose()

    async def _live_once(self) -> None:
        """From connecting to the loss of the link."""
        self._move(Event.STARTED)
        event, reason = Event.FAILED, ""
        try:
            async with self._opener.shared() as (link, greeting):
                event = Event.LOST
                self._opened(link, greeting)
                reason = (await self._lister.keep(link, greeting, over_http=self._opener.kind == "http")).message
        except (BackendError, RemoteError) as exc:
            reason = exc.message if isinstance(exc, BackendError) else str(exc)
        except Exception as exc:  # the owner task's boundary: a fault of ours in one backend must not end the others
            logger.exception("backend task failed", extra={"backend": self._server.name})
            reason = f"internal error: {type(exc).__name__}"
        finally:
            self.shared = None
        level = logging.DEBUG if reason == self.status.last_error else logging.WARNING  # say the same thing once
        logger.log(level, "backend lost: %s", reason, extra={"backend": self._server.name})
        self._move(event, reason)

    def _opened(self, link: Link, greeting: Greeting) -> None:
        self.greeting = greeting
        self.vitals.links = self._opener.opened
        self._on_opened(greeting)
        self.shared = link
        self._move(Event.OPENED)
        self._begin_probing(link)

    def _begin_probing(self, link: Link) -> None:
        """Keep asking the shared link whether anybody is there; the task ends with the link."""

        def move(event: Event, reason: str = "") -> None:
            if self.shared is link:
                level = logging.WARNING if event is Event.FELL_SILENT else logging.INFO
                logger.log(level, "backend %s", event.value, extra={"backend": self._server.name})
                self._move(event, reason)

        if self.group is not None and self._server.ping_interval:
            probe = Probe(
                link,
                every=self._server.ping_interval,
                on_silence=lambda reason: move(Event.FELL_SILENT, reason),
                on_answer=lambda: move(Event.ANSWERED),
            )
            self.group.start_soon(probe.run, name=f"{self._server.name} probe")

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
        self._around.on_status(self._server.name)


def _now() -> float:
    return asyncio.get_running_loop().time()
