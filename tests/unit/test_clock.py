"""Timers and rate limits on a clock: a late deadline timer reads first, and a rate limit holds for each second."""

import asyncio
from math import inf

import pytest

from mcp_manifold.clock import CATCH_UP, STOOD_STILL, DeadlineTimer, LoopClock, RateLimiter, wait_all
from tests.fakes.clock import FakeClock, settled

pytestmark = pytest.mark.anyio


class Deadlines:
    """Deadlines on one timer; those that have passed, in order."""

    def __init__(self, *deadlines: float) -> None:
        self.clock = FakeClock(0.0)
        self.open = list(deadlines)
        self.passed: list[float] = []
        self.timer = DeadlineTimer(self.clock, lambda: min(self.open, default=inf), self._due)
        for each in deadlines:
            self.timer.watch(each)

    def _due(self, now: float) -> None:
        self.passed += sorted(each for each in self.open if each <= now)
        self.open = [each for each in self.open if each > now]


async def test_a_deadline_timer_fires_at_the_earliest_deadline_and_then_at_the_next() -> None:
    deadlines = Deadlines(30.0, 10.0, 20.0, inf)
    assert deadlines.clock.pending == 1
    for count in (1, 2, 3):
        await deadlines.clock.advance(10)
        assert len(deadlines.passed) == count
    assert (deadlines.open, deadlines.clock.pending, repr(deadlines.timer)) == ([inf], 0, "<DeadlineTimer off>")


async def test_a_stopped_deadline_timer_does_not_fire() -> None:
    deadlines = Deadlines(10.0)
    deadlines.timer.stop()
    deadlines.timer.stop()
    await deadlines.clock.advance(20)
    assert (deadlines.passed, deadlines.clock.pending) == ([], 0)


async def test_a_very_late_deadline_timer_lets_this_process_read_first() -> None:
    deadlines = Deadlines(10.0)
    ((_, _, timer),) = deadlines.clock._timers
    timer.cancel()
    await deadlines.clock.advance(10 + STOOD_STILL * 2)
    timer.callback(*timer.args)  # late, as after this process stood still
    assert deadlines.passed == []
    await deadlines.clock.advance(CATCH_UP / 2)
    deadlines.open = [50.0]  # its answer was read meanwhile
    await deadlines.clock.advance(CATCH_UP / 2)
    assert deadlines.passed == []
    await deadlines.clock.advance(50)
    assert deadlines.passed == [50.0]


def test_a_rate_limiter_rests_until_the_next_second() -> None:
    limiter = RateLimiter(10)
    assert [limiter.rest(5, 7.25), limiter.rest(5, 7.25), limiter.rest(1, 7.25), limiter.rest(10, 8.0)] == [
        0, 0, 0.75, 0,
    ]  # fmt: skip
    assert [limiter.allows(9.0) for _ in range(12)] == [True] * 10 + [False] * 2
    assert limiter.dropped == 2


async def test_waiting_for_all_ends_with_the_last_future_or_the_time() -> None:
    clock = FakeClock()
    await wait_all(clock, [], seconds=10)
    first, second = (asyncio.get_running_loop().create_future() for _ in range(2))
    for late in (False, True):
        waiting = asyncio.ensure_future(wait_all(clock, [first, second], seconds=10))
        await settled()
        if late:
            second.set_result(None)
            await settled()
        else:
            first.set_result(None)
            await clock.advance(10)
        assert waiting.done()
    assert not second.cancelled()


async def test_the_clock_of_the_loop_keeps_the_same_promises() -> None:
    clock = LoopClock()
    done, never = (asyncio.get_running_loop().create_future() for _ in range(2))
    done.set_result(None)
    assert await clock.wait(never, done, seconds=60)
    assert not await clock.wait(never, seconds=0)
    with pytest.raises(TimeoutError):
        async with clock.timeout(0):
            await never
    await clock.sleep(0)
    clock.call_later(60, never.cancel).cancel()
    assert clock.call_at(clock.now() + 60, never.cancel).when() > clock.now()
