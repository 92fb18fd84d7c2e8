"""How many calls run at a time: the others wait their turn, within bounds, and nobody's turn is lost."""

import asyncio

import pytest

from mcp_manifold.backends.admission import Admission
from mcp_manifold.call import Call
from mcp_manifold.errors import BackendOverloaded, CallCancelled
from tests.unit.backends.linking import Caller, within

pytestmark = pytest.mark.anyio


class Waiters:
    """Calls that ask for their turn, and the order they got it in."""

    def __init__(self, admission: Admission) -> None:
        self.admission = admission
        self.order: list[str] = []

    def __repr__(self) -> str:
        return f"<Waiters {self.order}>"

    async def join(self, name: str, session: str = "", timeout: float = 60.0) -> tuple["asyncio.Task[float]", Call]:
        """One more call, once it waits, runs or was refused."""
        call = Caller(session).call()

        async def turn() -> float:
            waited = await self.admission.turn(call, timeout)
            self.order.append(name)
            return waited

        task = asyncio.create_task(turn())
        await asyncio.sleep(0)
        return task, call


def admission(*, most: int = 1, queue: int = 10) -> Admission:
    return Admission("notes", most=most, queue=queue)


async def test_up_to_so_many_run_at_once_and_the_rest_waits() -> None:
    waiters = Waiters(admission(most=2))
    tasks = [(await waiters.join(name))[0] for name in ("one", "two", "three")]
    assert (waiters.admission.running, waiters.admission.waiting) == (2, 1)
    waiters.admission.leave()
    assert await within(tasks[2]) >= 0.0
    assert (waiters.admission.running, waiters.admission.waiting) == (2, 0)


async def test_sessions_take_turns_whoever_came_first() -> None:
    waiters = Waiters(admission())
    tasks = [(await waiters.join(name, session))[0] for name, session in
             (("running", "a"), ("a1", "a"), ("a2", "a"), ("a3", "a"), ("b1", "b"))]  # fmt: skip
    for task in tasks:
        await within(asyncio.wait({task, *tasks}, return_when=asyncio.FIRST_COMPLETED))
        waiters.admission.leave()
    await within(asyncio.gather(*tasks))
    assert waiters.order == ["running", "a1", "b1", "a2", "a3"]
    assert waiters.admission.running == 0


async def test_more_than_may_wait_are_refused_at_once() -> None:
    waiters = Waiters(admission(queue=1))
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
    assert waiters.admission.overloaded == 1
    waiters.admission.leave()
    await within(waiting)


async def test_a_queue_of_none_refuses_whoever_would_have_to_wait() -> None:
    waiters = Waiters(admission(queue=0))
    await waiters.join("running")
    refused, _ = await waiters.join("refused")
    with pytest.raises(BackendOverloaded):
        await within(refused)


async def test_a_client_that_fills_the_queue_gives_way_to_another() -> None:
    waiters = Waiters(admission(queue=2))
    await waiters.join("running", "a")
    first, _ = await waiters.join("a1", "a")
    latest, _ = await waiters.join("a2", "a")
    other, _ = await waiters.join("b1", "b")
    with pytest.raises(BackendOverloaded, match="give way"):
        await within(latest)
    waiters.admission.leave()
    await within(first)
    waiters.admission.leave()
    await within(other)


async def test_a_call_waits_no_longer_than_it_may_take() -> None:
    waiters = Waiters(admission())
    await waiters.join("running")
    late, _ = await waiters.join("late", timeout=0.01)
    with pytest.raises(BackendOverloaded, match=r"not the call's turn within 0\.01 s"):
        await within(late)
    assert (waiters.admission.waiting, waiters.admission.overloaded) == (0, 1)


async def test_a_call_that_is_taken_back_leaves_the_queue_at_once() -> None:
    waiters = Waiters(admission())
    await waiters.join("running")
    task, call = await waiters.join("taken back")
    call.cancel()
    assert waiters.admission.waiting == 0
    with pytest.raises(CallCancelled):
        await within(task)


async def test_a_call_that_was_taken_back_before_is_not_let_in() -> None:
    waiters = Waiters(admission())
    await waiters.join("running")
    call = Caller().call()
    call.cancel()
    with pytest.raises(CallCancelled):
        await within(waiters.admission.turn(call, 60.0))
    assert waiters.admission.waiting == 0


async def test_a_waiting_task_that_is_stopped_leaves_nothing_behind() -> None:
    waiters = Waiters(admission())
    await waiters.join("running")
    stopped, _ = await waiters.join("stopped")
    stopped.cancel()
    waiters.admission.leave()  # in the very turn in which it was cancelled
    await asyncio.wait({stopped})
    assert (waiters.admission.running, waiters.admission.waiting) == (0, 0)


async def test_a_turn_given_to_a_task_that_stops_just_then_goes_to_the_next() -> None:
    waiters = Waiters(admission())
    await waiters.join("running")
    stopped, _ = await waiters.join("stopped")
    following, _ = await waiters.join("next")
    waiters.admission.leave()
    stopped.cancel()
    await within(following)
    assert waiters.order == ["running", "next"]
    assert (waiters.admission.running, waiters.admission.waiting) == (1, 0)


async def test_a_displaced_task_that_stops_just_then_is_counted_once() -> None:
    waiters = Waiters(admission(queue=2))
    await waiters.join("running", "a")
    first, _ = await waiters.join("a1", "a")
    latest, _ = await waiters.join("a2", "a")
    latest.cancel()
    other = asyncio.create_task(waiters.admission.turn(Caller("b").call(), 60.0))
    await asyncio.wait({latest})
    waiters.admission.leave()
    await within(first)
    waiters.admission.leave()
    await within(other)
    assert (waiters.admission.running, waiters.admission.waiting) == (1, 0)


async def test_other_limits_hold_at_once() -> None:
    waiters = Waiters(admission())
    await waiters.join("running")
    waiting, _ = await waiters.join("waiting")
    waiters.admission.adapt(most=2, queue=0)
    await within(waiting)
    waiters.admission.adapt(most=1, queue=10)
    last, _ = await waiters.join("last")
    waiters.admission.leave()  # one is still more than may run beside it
    assert not last.done()
    waiters.admission.leave()
    await within(last)


async def test_idle_means_that_nothing_runs_or_waits_or_goes_on_beside() -> None:
    waiters = Waiters(admission())
    await within(waiters.admission.idle())
    await waiters.join("running")
    waiting, _ = await waiters.join("waiting")
    waiters.admission.beside += 1
    idle = asyncio.create_task(waiters.admission.idle())
    waiters.admission.leave()
    await within(waiting)
    waiters.admission.leave()
    await asyncio.sleep(0)
    assert not idle.done()
    waiters.admission.beside -= 1
    waiters.admission.look()
    await within(idle)
