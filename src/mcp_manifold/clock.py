"""Time as a value that is passed in: the clock, and the timers and rate limits that are made of it.

Everything that waits, or measures how long something took, is given a Clock. Programs use the event loop's; tests use
one that they move by hand, so that no test waits for real seconds.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from datetime import UTC, datetime
from time import perf_counter
from typing import Any, Final, Protocol

FOREVER: Final = float("inf")
"""Seconds without a bound, and the deadline of what has none."""
STOOD_STILL: Final = 0.25
"""Seconds a deadline timer may be late before this process is considered the slow one."""
CATCH_UP: Final = 0.1
"""Seconds then granted to read what arrived while this process did not run."""
_EARLY: Final = 0.001
"""Seconds a timer may fire early, because some clocks count milliseconds."""


class Timer(Protocol):
    """A callback that will be called later."""

    def cancel(self) -> None:
        """Cancel the callback."""

    def when(self) -> float:
        """The time of the callback, by its clock."""


class Clock(Protocol):
    """Seconds since an arbitrary start, which never go backwards, and callbacks at a later time."""

    @property
    def now(self) -> Callable[[], float]:
        """The current time in seconds."""

    @property
    def stopwatch(self) -> Callable[[], float]:
        """Seconds for short durations, from a start of its own: `now` may have milliseconds at best."""

    def wall(self) -> datetime:
        """The time of day, in UTC. It may jump: for people and files only."""

    @property
    def call_later(self) -> Callable[..., Timer]:
        """Call `callback(*args)` after `delay` seconds: `call_later(delay, callback, *args)`."""

    @property
    def call_at(self) -> Callable[..., Timer]:
        """Call `callback(*args)` at a time of this clock: `call_at(when, callback, *args)`."""

    async def sleep(self, seconds: float) -> None:
        """Wait for `seconds`."""

    async def wait(self, *futures: "asyncio.Future[Any]", seconds: float | None) -> bool:
        """Wait until one of the futures is done; False if that took longer than `seconds`. Cancels none of them."""

    def timeout(self, seconds: float) -> AbstractAsyncContextManager[object]:
        """A context that is cancelled after `seconds`; it then raises TimeoutError."""


class LoopClock:
    """The clock of the running event loop."""

    __slots__ = ("call_at", "call_later", "now", "stopwatch")

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.now: Callable[[], float] = loop.time
        self.stopwatch: Callable[[], float] = perf_counter
        self.call_later: Callable[..., Timer] = loop.call_later
        self.call_at: Callable[..., Timer] = loop.call_at

    def __repr__(self) -> str:
        return f"<LoopClock {self.now():.3f}>"

    def wall(self) -> datetime:
        return datetime.now(UTC)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def wait(self, *futures: "asyncio.Future[Any]", seconds: float | None) -> bool:
        done, _ = await asyncio.wait(futures, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        return bool(done)

    def timeout(self, seconds: float) -> AbstractAsyncContextManager[object]:
        return asyncio.timeout(seconds)


class DeadlineTimer:
    """One timer for many deadlines, set to the earliest.

    A timer that fires late shows that this process, and not a peer, was slow: what arrived meanwhile is then read
    before anything expires.

    Args:
        earliest: gives the first deadline that is left, by the clock; infinity for none.
        on_due: receives the time up to which deadlines have passed.
    """

    __slots__ = ("_clock", "_earliest", "_on_due", "_timer")

    def __init__(self, clock: Clock, earliest: Callable[[], float], on_due: Callable[[float], None]) -> None:
        self._clock = clock
        self._earliest = earliest
        self._on_due = on_due
        self._timer: Timer | None = None

    def __repr__(self) -> str:
        return f"<DeadlineTimer {'off' if self._timer is None else f'due at {self._timer.when():.3f}'}>"

    def watch(self, deadline: float) -> None:
        """Fire at `deadline` at the latest."""
        if self._timer is not None:
            if self._timer.when() <= deadline:
                return
            self._timer.cancel()
        if deadline != FOREVER:
            self._timer = self._clock.call_at(deadline, self._fire)

    def stop(self) -> None:
        """Never fire again."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _fire(self, has_caught_up: bool = False) -> None:
        now, timer = self._clock.now() + _EARLY, self._timer
        self._timer = None
        if timer is not None and now - timer.when() > STOOD_STILL and not has_caught_up:
            self._timer = self._clock.call_later(CATCH_UP, self._fire, True)
            return
        self._on_due(now)
        self.watch(self._earliest())


class IdleTimer:
    """Calls `on_idle` once nothing has happened for the allowed time. Extending that time sets no timer."""

    __slots__ = ("_clock", "_due", "_on_idle", "_timer")

    def __init__(self, clock: Clock, on_idle: Callable[[], None]) -> None:
        self._clock = clock
        self._on_idle = on_idle
        self._due = 0.0
        self._timer: Timer | None = None

    def __repr__(self) -> str:
        return f"<IdleTimer {'off' if self._timer is None else f'due at {self._due:.3f}'}>"

    def allow(self, seconds: float) -> None:
        """Note an activity: allow at most `seconds` without another one. A shorter time may be noticed late."""
        self._due = self._clock.now() + seconds

    def start(self) -> None:
        """Begin to watch the time allowed by the last `allow`. Replaces an earlier `start`."""
        self.stop()
        self._timer = self._clock.call_at(self._due, self._check)

    def stop(self) -> None:
        """Never call `on_idle`, unless started again."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _check(self) -> None:
        self._timer = None
        if self._clock.now() < self._due:
            self.start()
        else:
            self._on_idle()


class RateLimiter:
    """At most `most` units in each second of a clock. The caller passes the time, and waits if needed."""

    __slots__ = ("_second", "_taken", "dropped", "most")

    def __init__(self, most: int) -> None:
        self.most = most
        self.dropped = 0
        """How many units `allows` refused."""
        self._second = 0
        self._taken = 0

    def __repr__(self) -> str:
        return f"<RateLimiter {self._taken} of {self.most} this second>"

    def change_limit(self, most: int) -> None:
        """Allow another number of units in each second from now on."""
        self.most = most

    def rest(self, amount: int, now: float) -> float:
        """Count `amount` units; returns the seconds to wait before taking more, 0 while below the limit."""
        second = int(now)
        if second != self._second:
            self._second, self._taken = second, 0
        self._taken += amount
        return second + 1 - now if self._taken > self.most else 0.0

    def allows(self, now: float) -> bool:
        """Count one unit; False when it exceeds the limit of this second and must be dropped."""
        if self.rest(1, now):
            self.dropped += 1
            return False
        return True


async def wait_all(clock: Clock, futures: "Sequence[asyncio.Future[Any]]", *, seconds: float) -> None:
    """Wait until all of the futures are done, but no longer than `seconds`. Cancels none of them."""
    if futures:
        with suppress(TimeoutError):
            async with clock.timeout(seconds):
                await asyncio.wait(futures)
