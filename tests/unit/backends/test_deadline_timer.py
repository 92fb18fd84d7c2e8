"""When a request's time is over: progress starts it anew, waiting for a person stops it, and its ceiling holds."""

import asyncio
from math import inf

import pytest

from mcp_manifold.backends.link.deadline_timer import DeadlineTimer
from mcp_manifold.backends.link.pending import HUMAN_WAIT, PendingRequest
from tests.unit.backends.linking import within

pytestmark = pytest.mark.anyio


class Waiting:
    """Requests that wait, and those whose time was over."""

    def __init__(self) -> None:
        self.pending: list[PendingRequest] = []
        self.told: dict[int, str] = {}
        self.rung = asyncio.Event()
        self.alarm = DeadlineTimer(lambda: self.pending, self._expired)

    def __repr__(self) -> str:
        return f"<Waiting {len(self.pending)} told={self.told}>"

    def add(self, timeout: float, ceiling: float = inf, waited: float = 0.0) -> PendingRequest:
        pending = PendingRequest(
            len(self.pending) + 1, "tools/call", {}, timeout, asyncio.get_running_loop().create_future()
        )
        pending.ceiling = ceiling
        self.pending.append(pending)
        self.alarm.watch(pending, waited)
        return pending

    def _expired(self, pending: PendingRequest, spent: str) -> None:
        self.pending.remove(pending)
        self.told[pending.number] = spent
        self.rung.set()


def now() -> float:
    return asyncio.get_running_loop().time()


async def test_what_it_waited_before_counts() -> None:
    waiting = Waiting()
    pending = waiting.add(60.0, 100.0, waited=10.0)
    assert pending.deadline == pytest.approx(now() + 50.0, abs=5.0)
    assert pending.latest == pytest.approx(now() + 90.0, abs=5.0)
    waiting.alarm.stop()


async def test_progress_starts_its_time_anew_up_to_the_ceiling() -> None:
    waiting = Waiting()
    pending = waiting.add(60.0, 100.0, waited=50.0)
    assert pending.deadline == pytest.approx(now() + 10.0, abs=5.0)
    waiting.alarm.progressed(pending)
    assert pending.deadline == pending.latest == pytest.approx(now() + 50.0, abs=5.0)
    waiting.alarm.stop()


async def test_a_person_who_is_asked_moves_the_ceiling_as_well() -> None:
    waiting = Waiting()
    pending = waiting.add(60.0, 100.0)
    latest = pending.latest
    waiting.alarm.pause(pending)
    waiting.alarm.pause(pending)
    assert pending.deadline == pytest.approx(now() + HUMAN_WAIT, abs=5.0)
    pending.paused -= 1000.0  # as if it had been asked that long ago
    waiting.alarm.watch(pending)
    assert pending.latest == pytest.approx(latest + 1000.0, abs=5.0)
    assert pending.paused == 0.0
    waiting.alarm.stop()


async def test_it_rings_for_the_earliest_first_and_says_which_time_was_over() -> None:
    waiting = Waiting()
    waiting.add(60.0)
    waiting.add(60.0, 0.02)
    waiting.add(0.01, 60.0)
    while len(waiting.told) < 2:
        waiting.rung.clear()
        await within(waiting.rung.wait())
    assert waiting.told == {2: "0.02 s", 3: "0.01 s"}
    assert [pending.number for pending in waiting.pending] == [1]
    waiting.alarm.stop()


async def test_a_ceiling_above_the_timeout_is_told_as_what_it_is() -> None:
    waiting = Waiting()
    pending = waiting.add(0.01, 0.03)
    pending.deadline = pending.latest  # as progress has it
    await within(waiting.rung.wait())
    assert waiting.told == {1: "0.03 s in all"}
