"""How many calls run at a time: the others wait their turn, within bounds, and nobody's turn is lost."""

import asyncio

import pytest

from mcp_manifold.backends.calls.concurrency import ConcurrencyLimiter
from mcp_manifold.errors import BackendOverloaded, CallCancelled
from mcp_manifold.model.call import Call
from tests.unit.backends.linking import Caller, within

pytestmark = pytest.mark.anyio


class Waiters:
    """Calls that ask for their turn, and the order they got it in."""

    def __init__(self, limiter: ConcurrencyLimiter) -> None:
        self.limiter = limiter
        self.order: list[str] = []

    def __repr__(self) -> str:
        return f"<Waiters {self.order}>"

    async def join(self, name: str, session: str = "", timeout: float = 60.0) -> tuple["asyncio.Task[float]", Call]:
        """One more call, once it waits, runs or was refused."""
        call = Caller(session).call()

        async def turn() -> float:
            waited = await self.limiter.turn(call, timeout)
            self.order.append(name)
            return waited

        task = asyncio.create_task(turn())
        await asyncio.sleep(0)
        return task, call


def limiter(*, most: int = 1, queue: int = 10) -> ConcurrencyLimiter:
    return ConcurrencyLimiter("notes", most=most, queue=queue)


async def test_up_to_so_many_run_at_once_and_the_rest_waits() -> None:
    waiters = Waiters(limiter(most=2))
    tasks = [(await waiters.join(name))[0] for name in ("one", "two", "three")]
    assert (waiters.limiter.running, waiters.limiter.waiting) == (2, 1)
    waiters.limiter.leave()
    assert await within(tasks[2]) >= 0.0
    assert (waiters.limiter.running, waiters.limiter.waiting) == (2, 0)


async def test_sessions_take_turns_whoever_came_first() -> None:
    waiters = Waiters(limiter())
    tasks = [(await waiters.join(name, session))[0] for name, session in
             (("running", "a"), ("a1", "a"), ("a2", "a"), ("a3", "a"), ("b1", "b"))]  # fmt: skip
    for task in tasks:
        await within(asyncio.wait({task, *tasks}, return_when=asyncio.FIRST_COMPLETED))
        waiters.limiter.leave()
    await within(asyncio.gather(*tasks))
    assert waiters.order == ["running", "a1", "b1", "a2", "a3"]
    assert waiters.limiter.running == 0


async def test_more_than_may_wait_are_refused_at_once() -> None:
    waiters = Waiters(limiter(queue=1))
    await waiters.join("running")
    waiting, _ = await waiters.join("waiting")
    refused, _ = await waiters.join("refused")
    with pytest.raises(BackendOverloaded, match=r"too many calls are waiting .*\(1 in flight, 1 waiting\)") as caught:
        await within(refused)
    assert caught.value.data() == {
        "server": "notes", "reason": "BackendOverloaded", "detail": caught.value.message,
        "running": 1, "waiting": 1, "retryAfterSeconds": 1.0,
        "advice": "Try again in a few seconds, with fewer calls at the same time.",
    }  # fmt: skip
    assert waiters.limiter.overloaded == 1
    waiters.limiter.leave()
    await within(waiting)


async def test_a_queue_of_none_refuses_whoever_would_have_to_wait() -> None:
    waiters = Waiters(limiter(queue=0))
    await waiters.join("running")
    refused, _ = await waiters.join("refused")
    with pytest.raises(BackendOverloaded):
        await within(refused)


async def test_a_client_that_fills_the_queue_gives_way_to_another() -> None:
    waiters = Waiters(limiter(queue=2))
    await waiters.join("running", "a")
    first, _ = await waiters.join("a1", "a")
    latest, _ = await waiters.join("a2", "a")
    other, _ = await waiters.join("b1", "b")
    with pytest.raises(BackendOverloaded, match="give way"):
        await within(latest)
    waiters.limiter.leave()
    await within(first)
    waiters.limiter.leave()
    await within(other)


async def test_a_call_waits_no_longer_than_it_may_take() -> None:
    waiters = Waiters(limiter())
    await waiters.join("running")
    late, _ = await waiters.join("late", timeout=0.01)
    with pytest.raises(BackendOverloaded, match=r"not the call's turn within 0\.01 s"):
        await within(late)
    assert (waiters.limiter.waiting, waiters.limiter.overloaded) == (0, 1)


async def test_a_call_that_is_taken_back_leaves_the_queue_at_once() -> None:
    waiters = Waiters(limiter())
    await waiters.join("running")
    task, call = await waiters.join("taken back")
    call.cancel()
    assert waiters.limiter.waiting == 0
    with pytest.raises(CallCancelled):
        await within(task)


async def test_a_call_that_was_taken_back_before_is_not_let_in() -> None:
    waiters = Waiters(limiter())
    await waiters.join("running")
    call = Caller().call()
    call.cancel()
    with pytest.raises(CallCancelled):
        await within(waiters.limiter.turn(call, 60.0))
    assert waiters.limiter.waiting == 0


async def test_a_waiting_task_that_is_stopped_leaves_nothing_behind() -> None:
    waiters = Waiters(limiter())
    await waiters.join("running")
    stopped, _ = await waiters.join("stopped")
    stopped.cancel()
    waiters.limiter.leave()  # in the very turn in which it was cancelled
    await asyncio.wait({stopped})
    assert (waiters.limiter.running, waiters.limiter.waiting) == (0, 0)


async def test_a_turn_given_to_a_task_that_stops_just_then_goes_to_the_next() -> None:
    waiters = Waiters(limiter())
    await waiters.join("running")
    stopped, _ = await waiters.join("stopped")
    following, _ = await waiters.join("next")
    waiters.limiter.leave()
    stopped.cancel()
    await within(following)
    assert waiters.order == ["running", "next"]
    assert (waiters.limiter.running, waiters.limiter.waiting) == (1, 0)


async def test_a_displaced_task_that_stops_just_then_is_counted_once() -> None:
    waiters = Waiters(limiter(queue=2))
    await waiters.join("running", "a")
    first, _ = await waiters.join("a1", "a")
    latest, _ = await waiters.join("a2", "a")
    latest.cancel()
    other = asyncio.create_task(waiters.limiter.turn(Caller("b").call(), 60.0))
    await asyncio.wait({latest})
    waiters.limiter.leave()
    await within(first)
    waiters.limiter.leave()
    await within(other)
    assert (waiters.limiter.running, waiters.limiter.waiting) == (1, 0)


async def test_other_limits_hold_at_once() -> None:
    waiters = Waiters(limiter())
    await waiters.join("running")
    waiting, _ = await waiters.join("waiting")
    waiters.limiter.adapt(most=2, queue=0)
    await within(waiting)
    waiters.limiter.adapt(most=1, queue=10)
    last, _ = await waiters.join("last")
    waiters.limiter.leave()  # one is still more than may run beside it
    assert not last.done()
    waiters.limiter.leave()
    await within(last)


async def test_idle_means_that_nothing_runs_or_waits_or_goes_on_beside() -> None:
    waiters = Waiters(limiter())
    await within(waiters.limiter.idle())
    await waiters.join("running")
    waiting, _ = await waiters.join("waiting")
    waiters.limiter.beside += 1
    idle = asyncio.create_task(waiters.limiter.idle())
    waiters.limiter.leave()
    await within(waiting)
    waiters.limiter.leave()
    await asyncio.sleep(0)
    assert not idle.done()
    waiters.limiter.beside -= 1
    waiters.limiter.look()
    await within(idle)
