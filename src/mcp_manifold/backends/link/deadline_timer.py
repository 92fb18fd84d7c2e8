"""The deadlines of one link's requests: one timer for all, set to the earliest. Knows no message and no backend."""

import asyncio
from collections.abc import Callable, Collection
from math import inf
from typing import Final

from mcp_manifold.backends.link.pending import HUMAN_WAIT, PendingRequest

_EARLY: Final = 0.001
"""Seconds a timer may come before its time, by a clock that counts milliseconds."""
STOOD_STILL: Final = 0.25
"""Seconds the timer may be late before that says something of this process, and nothing of whoever is waited for."""
CATCH_UP: Final = 0.1
"""Seconds that are then given to read what has been there for long."""


class DeadlineTimer:
    """See the module. `requests` gives those that wait; `on_expired` is called with each whose time is over."""

    __slots__ = ("_loop", "_on_expired", "_requests", "_timer")

    def __init__(
        self, requests: Callable[[], Collection[PendingRequest]], on_expired: Callable[[PendingRequest, str], None]
    ) -> None:
        self._requests = requests
        self._on_expired = on_expired
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<DeadlineTimer of {len(self._requests())} requests {'set' if self._timer else 'off'}>"

    def watch(self, pending: PendingRequest, waited: float = 0.0) -> None:
        """Let its time run: from now on, less what it waited already; after a pause, anew."""
        now = self._loop.time()
        if not pending.latest:
            pending.latest = now + pending.ceiling - waited
        elif pending.paused:
            pending.latest += now - pending.paused
            pending.paused = 0.0
        pending.deadline = deadline = min(now + pending.timeout - waited, pending.latest)
        if deadline != inf and (self._timer is None or self._timer.when() > deadline):
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._loop.call_at(deadline, self._ring)

    def progressed(self, pending: PendingRequest) -> None:
        """It gave a sign of life: its time begins anew, within its ceiling."""
        pending.deadline = min(self._loop.time() + pending.timeout, pending.latest)

    def pause(self, pending: PendingRequest) -> None:
        """Its time stands still, though not for ever."""
        now = self._loop.time()
        pending.paused = pending.paused or now
        pending.deadline = now + HUMAN_WAIT

    def stop(self) -> None:
        """Ring no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _ring(self, has_caught_up: bool = False) -> None:
        now, timer = self._loop.time() + _EARLY, self._timer
        self._timer = None
        if timer is not None and now - timer.when() > STOOD_STILL and not has_caught_up:
            # it is we who were late: answers that came meanwhile are read before they are called so
            self._timer = self._loop.call_later(CATCH_UP, self._ring, True)
            return
        for pending in [waiting for waiting in self._requests() if waiting.deadline <= now]:
            self._on_expired(pending, _spent(pending, now))
        first = min((waiting.deadline for waiting in self._requests()), default=inf)
        if first != inf:
            self._timer = self._loop.call_at(first, self._ring)


def _spent(pending: PendingRequest, now: float) -> str:
    if pending.latest > now:
        return f"{pending.timeout:g} s"
    return f"{pending.ceiling:g} s" + (" in all" if pending.ceiling > pending.timeout else "")
