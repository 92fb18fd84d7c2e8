"""A clock that tests move by hand: nothing on it is due before `advance` says so."""

import asyncio
import heapq
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Final

_DAY: Final = datetime(2026, 1, 31, tzinfo=UTC)


class FakeTimer:
    """A callback on a FakeClock."""

    def __init__(self, due: float, callback: Callable[..., object], args: tuple[object, ...]) -> None:
        self.due = due
        self.callback = callback
        self.args = args
        self.is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True

    def when(self) -> float:
        return self.due


class FakeClock:
    """See the module. Starts at 1000.0, so that a zero stands out."""

    def __init__(self, start: float = 1000.0) -> None:
        self._now = start
        self._order = itertools.count()
        self._timers: list[tuple[float, int, FakeTimer]] = []

    def __repr__(self) -> str:
        return f"<FakeClock {self._now:.3f} timers={len(self._timers)}>"

    def now(self) -> float:
        return self._now

    def stopwatch(self) -> float:
        return self._now

    def wall(self) -> datetime:
        return _DAY + timedelta(seconds=self._now)

    def call_later(self, delay: float, callback: Callable[..., object], *args: object) -> FakeTimer:
        return self.call_at(self._now + delay, callback, *args)

    def call_at(self, when: float, callback: Callable[..., object], *args: object) -> FakeTimer:
        timer = FakeTimer(when, callback, args)
        heapq.heappush(self._timers, (when, next(self._order), timer))
        return timer

    async def sleep(self, seconds: float) -> None:
        await self.wait(asyncio.get_running_loop().create_future(), seconds=seconds)

    async def wait(self, *futures: "asyncio.Future[Any]", seconds: float | None) -> bool:
        over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        timer = None if seconds is None else self.call_later(seconds, _complete, over)
        try:
            done, _ = await asyncio.wait({*futures, over}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if timer is not None:
                timer.cancel()
        return bool(done - {over})

    def timeout(self, seconds: float) -> AbstractAsyncContextManager[object]:
        return self._timeout(seconds)

    @asynccontextmanager
    async def _timeout(self, seconds: float) -> AsyncIterator[object]:
        async with asyncio.timeout(None) as inner:
            timer = self.call_later(seconds, lambda: inner.reschedule(asyncio.get_running_loop().time()))
            try:
                yield inner
            finally:
                timer.cancel()

    @property
    def pending(self) -> int:
        """How many timers are due later."""
        return sum(not timer.is_cancelled for _, _, timer in self._timers)

    async def advance(self, seconds: float) -> None:
        """Move on by `seconds`; what becomes due runs in order, each followed by the tasks it woke."""
        end = self._now + seconds
        await settled()
        while self._timers and self._timers[0][0] <= end:
            due, _, timer = heapq.heappop(self._timers)
            self._now = max(self._now, due)
            if not timer.is_cancelled:
                timer.callback(*timer.args)
                await settled()
        self._now = end
        await settled()


async def settled(turns: int = 20) -> None:
    """Let every task run that can run without a timer or input."""
    for _ in range(turns):
        await asyncio.sleep(0)


def _complete(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)
