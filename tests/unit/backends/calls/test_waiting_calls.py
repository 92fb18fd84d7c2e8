"""Waiting for a slot: fair between clients, bounded in number and time, and no slot is lost."""

import asyncio
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_manifold.backends.backend import Backend
from mcp_manifold.backends.calls.waiting_calls import FairQueue
from mcp_manifold.backends.link.link import Link
from mcp_manifold.config import ServerSettings
from mcp_manifold.core.plan import Send
from mcp_manifold.errors import BackendOverloaded
from mcp_manifold.model.task_table import Task
from tests.fakes.clock import FakeClock, settled
from tests.unit.backends.linking import Caller, connected, raw, tool, within
from tests.unit.backends.running import Around

# --- the queue --------------------------------------------------------------------------------------------------------


def filled(*who: str) -> "FairQueue[str]":
    """Each `principal/session` waits, in this order; numbered within its session."""
    turns: FairQueue[str] = FairQueue()
    seen: Counter[str] = Counter()
    for each in who:
        principal, session = each.split("/")
        seen[each] += 1
        turns.join(principal, session, f"{each}{seen[each]}")
    return turns


def served(turns: "FairQueue[str]") -> list[str]:
    return [turns.next() for _ in range(len(turns))]


def test_one_session_is_served_in_its_order() -> None:
    assert served(filled("a/x", "a/x", "a/x")) == ["a/x1", "a/x2", "a/x3"]


def test_a_principal_with_many_calls_is_served_as_often_as_one_with_few() -> None:
    assert served(filled("a/x", "a/x", "a/x", "b/y")) == ["a/x1", "b/y1", "a/x2", "a/x3"]


def test_a_principal_with_many_sessions_is_served_as_often_as_one_with_one() -> None:
    assert served(filled("a/x", "a/y", "a/z", "b/w", "b/w")) == ["a/x1", "b/w1", "a/y1", "b/w2", "a/z1"]


def test_an_empty_queue_has_no_next() -> None:
    with pytest.raises(IndexError):
        FairQueue[str]().next()


def test_a_removed_item_is_not_served() -> None:
    turns = filled("a/x", "a/x", "b/y")
    assert turns.leave("a", "x", "a/x1")
    assert not turns.leave("a", "x", "a/x1")
    assert not turns.leave("c", "x", "a/x1")
    assert served(turns) == ["a/x2", "b/y1"]


def test_the_latest_of_the_longest_line_is_displaced() -> None:
    turns = filled("a/x", "a/x", "a/y", "b/z")
    assert turns.displaced("c", "w") == "a/x2"
    assert served(turns) == ["a/x1", "b/z1", "a/y1"]


def test_within_a_principal_the_latest_of_its_longest_session_is_displaced() -> None:
    assert filled("a/x", "a/x", "a/x").displaced("a", "y") == "a/x3"


@pytest.mark.parametrize("who", ["a/x", "b/y", "c/z"])
def test_a_line_as_long_as_the_new_ones_is_not_displaced(who: str) -> None:
    assert filled("a/x", "b/y").displaced(*who.split("/")) is None


def test_an_empty_queue_displaces_nothing() -> None:
    assert FairQueue[str]().displaced("a", "x") is None


WHO = st.tuples(st.sampled_from("abc"), st.sampled_from("xyz"))


@given(st.lists(WHO, max_size=40))
def test_between_two_turns_of_a_principal_all_others_have_one(arrivals: list[tuple[str, str]]) -> None:
    turns: FairQueue[tuple[str, str]] = FairQueue()
    for principal, session in arrivals:
        turns.join(principal, session, (principal, session))
    left = Counter(principal for principal, _ in arrivals)
    since: dict[str, set[str]] = {}
    while len(turns):
        principal, _ = turns.next()
        others = {name for name, count in left.items() if count and name != principal}
        assert others <= since.get(principal, others)
        left[principal] -= 1
        for name in since:
            since[name].add(principal)
        since[principal] = set()
    assert not +left


@given(st.lists(st.tuples(st.sampled_from(["join", "leave", "next", "displace"]), WHO), max_size=60))
def test_no_item_is_lost_or_served_twice(steps: list[tuple[str, tuple[str, str]]]) -> None:
    turns: FairQueue[tuple[int, str, str]] = FairQueue()
    waiting: set[tuple[int, str, str]] = set()
    for number, (step, (principal, session)) in enumerate(steps):
        if step == "join":
            waiting.add((number, principal, session))
            turns.join(principal, session, (number, principal, session))
        elif step == "leave" and waiting:
            who = min(waiting)
            assert turns.leave(who[1], who[2], who)
            waiting.remove(who)
        elif step == "next" and waiting:
            waiting.remove(turns.next())
        elif step == "displace":
            gone = turns.displaced(principal, session)
            if gone is not None:
                waiting.remove(gone)
        assert len(turns) == len(waiting)


# --- slots ------------------------------------------------------------------------------------------------------------


class Slots:
    """An executor, and calls that wait for its slots. One slot is taken at first."""

    def __init__(self, *, running: int = 1, **settings: Any) -> None:
        self.clock = FakeClock()
        server = {"name": "notes", "command": "x", "max_concurrency": 1, "max_queue": 10, **settings}
        self.settings = ServerSettings.model_validate(server)
        self.context = Around(clock=self.clock).surroundings()
        self.backend = Backend(self.settings, self.context)
        self.executor = self.backend.executor
        self.executor.running = running
        self.order: list[str] = []

    def adapt(self, **settings: Any) -> None:
        self.executor.adapt(self.settings.model_copy(update=settings), self.context)

    async def join(self, label: str, session: str = "", **params: Any) -> "asyncio.Task[float]":
        """One more call that waits for a slot."""
        call = Caller(session).call(**params)

        async def turn() -> float:
            waited = await self.executor.wait_for_slot(call, call.params)
            self.order.append(label)
            return waited

        task = asyncio.create_task(turn())
        await asyncio.sleep(0)
        return task

    def about_a_task(self, link: Link) -> Send:
        task = Task("1", "notes", "1", link, Caller().session, 1, None)
        return Send(self.backend, link, raw(taskId="1"), task=task)

    @property
    def counts(self) -> tuple[int, int]:
        return (self.executor.running, self.executor.waiting.size)


@pytest.mark.anyio
async def test_a_call_waits_until_a_slot_is_released() -> None:
    slots = Slots()
    task = await slots.join("one")
    assert slots.counts == (1, 1)
    await slots.clock.advance(7)
    slots.executor.leave()
    assert await within(task) == 7.0
    assert slots.counts == (1, 0)
    slots.executor.leave()
    assert await within(await slots.join("two")) == 0.0


@pytest.mark.anyio
async def test_sessions_take_turns() -> None:
    slots = Slots()
    tasks = [await slots.join(name, name[0]) for name in ("a1", "a2", "a3", "b1")]
    for _ in tasks:
        slots.executor.leave()
        await settled()
    assert slots.order == ["a1", "b1", "a2", "a3"]
    slots.executor.leave()
    assert slots.counts == (0, 0)


@pytest.mark.anyio
@pytest.mark.parametrize("queue", [0, 1])
async def test_a_call_beyond_the_limit_of_the_queue_is_refused_at_once(queue: int) -> None:
    slots = Slots(max_queue=queue)
    waiting = [await slots.join("waiting") for _ in range(queue)]
    with pytest.raises(BackendOverloaded, match=r"too many calls are waiting") as caught:
        await within(await slots.join("refused"))
    assert caught.value.data() == {
        "server": "notes", "reason": "BackendOverloaded", "detail": caught.value.message,
        "running": 1, "waiting": queue, "retryAfterSeconds": 1.0,
        "advice": "Try again in a few seconds, with fewer calls at the same time.",
    }  # fmt: skip
    assert slots.executor.waiting.overloaded == 1
    slots.executor.leave()
    await within(asyncio.gather(*waiting))


@pytest.mark.anyio
@pytest.mark.parametrize("is_cancelled", [False, True])
async def test_a_client_that_fills_the_queue_is_displaced_by_another(is_cancelled: bool) -> None:
    slots = Slots(max_queue=2)
    first, latest = [await slots.join(name, "a") for name in ("a1", "a2")]
    if is_cancelled:
        latest.cancel()
    other = await slots.join("b1", "b")
    if not is_cancelled:
        with pytest.raises(BackendOverloaded, match="displaced"):
            await within(latest)
    for task in (first, other):
        slots.executor.leave()
        await within(task)
    assert slots.counts == (1, 0)


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("params", "seconds"), [({"name": "slow"}, 40.0), ({"name": "quick"}, 5.0), ({"name": "other"}, 20.0)]
)
async def test_a_call_waits_no_longer_than_its_item_may_take(params: dict[str, str], seconds: float) -> None:
    overrides = {"tools": {"slow": {"timeout": 40}, "quick": {"timeout": 60, "max_timeout": 5}}}
    slots = Slots(timeout=20, overrides=overrides)
    late = await slots.join("late", **params)
    await slots.clock.advance(seconds - 0.5)
    assert not late.done()
    await slots.clock.advance(0.5)
    with pytest.raises(BackendOverloaded, match=rf"no slot was free within {seconds:g} s"):
        await within(late)
    assert (slots.counts, slots.executor.waiting.overloaded, slots.clock.pending) == ((1, 0), 1, 0)


@pytest.mark.anyio
@pytest.mark.parametrize("order", ["cancel", "cancel, release", "release, cancel"])
async def test_a_cancelled_call_gives_its_slot_to_the_next(order: str) -> None:
    slots = Slots()
    cancelled, following = await slots.join("cancelled"), await slots.join("next")
    for step in order.split(", "):
        if step == "cancel":
            cancelled.cancel()
        else:
            slots.executor.leave()
    await asyncio.wait({cancelled})
    if order == "cancel":
        assert slots.counts == (1, 1)
        slots.executor.leave()
    await within(following)
    assert (slots.order, slots.counts, slots.clock.pending) == (["next"], (1, 0), 0)


@pytest.mark.anyio
async def test_changed_limits_apply_at_once() -> None:
    slots = Slots()
    waiting = await slots.join("waiting")
    slots.adapt(max_concurrency=2, max_queue=0)
    await within(waiting)
    slots.adapt(max_concurrency=1, max_queue=10)
    last = await slots.join("last")
    slots.executor.leave()  # one slot is still above the new limit
    await settled()
    assert not last.done()
    slots.executor.leave()
    await within(last)


@pytest.mark.anyio
async def test_idle_means_that_no_call_runs_or_waits_and_none_without_a_slot_either() -> None:
    slots = Slots(running=0)
    await within(slots.executor.idle())
    link, transport = connected(clock=slots.clock)
    request, about = Send(slots.backend, link, tool("t")), slots.about_a_task(link)
    pending = []
    for method, each in (("tools/call", request), ("tasks/result", about)):
        call = Caller().call(method)
        pending.append((call, each, slots.executor.send(call, each, lambda *_: None, waited=0.0, has_slot=False)))
    assert (slots.executor.running, slots.executor.beside) == (1, 1)
    idle = asyncio.create_task(slots.executor.idle())
    for call, each, sent in pending:
        await settled()
        assert not idle.done()
        assert slots.executor.finished(call, each, sent, None, 0.0) is None
    await within(idle)
    assert slots.executor.used == slots.clock.now()
    assert transport.methods == ["tools/call", "tasks/result"]


@pytest.mark.anyio
@pytest.mark.parametrize("overrides", [{}, {"tools": {"t": {"timeout": 5}}}])
async def test_a_task_result_may_take_as_long_as_its_task(overrides: dict[str, Any]) -> None:
    slots = Slots(timeout=20, overrides=overrides)
    link, _ = connected(clock=slots.clock)
    failures: list[Exception | None] = []
    request = slots.about_a_task(link)
    call = Caller().call("tasks/result")
    slots.executor.send(call, request, lambda _, result, failure: failures.append(failure), waited=0.0, has_slot=False)
    await slots.clock.advance(3000)
    assert failures == []
    await slots.clock.advance(1000)
    assert len(failures) == 1
