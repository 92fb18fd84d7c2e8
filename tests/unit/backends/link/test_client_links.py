"""Links for one client, or leased for one call: opened once, bounded in number, and closed when they are not used."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest
from anyio.abc import TaskGroup

from mcp_manifold.backends.link.client_links import ClientLinks
from mcp_manifold.backends.link.isolation import LinkKey
from mcp_manifold.backends.link.link import Link
from mcp_manifold.errors import BackendError, BackendLost, BackendProtocolError, BackendUnavailable
from mcp_manifold.model.call import Call, Session
from mcp_manifold.model.policy import ANONYMOUS, Principal
from mcp_manifold.wire import MODERN_VERSION
from tests.fakes.clock import FakeClock
from tests.unit.backends.linking import FakeReply, FakeTransport, connected, eventually, new_session, tool, within

pytestmark = pytest.mark.anyio

A, B = LinkKey("a", exact=True), LinkKey("b", exact=True)
PRIMARY, LEASED = LinkKey("principal x"), LinkKey("principal x", exclusive=True)


def called(attempts: int = 0, *, principal: Principal = ANONYMOUS) -> Call:
    """A call, which was sent so many times."""
    session = Session("", principal, "", MODERN_VERSION)
    return Call("tools/call", {}, session, FakeReply(), attempts=attempts)


class Opener:
    """Opens links on transports that only remember; remembers what was opened and closed."""

    def __init__(self, *, most: int = 8, idle: float = 60.0, clock: FakeClock | None = None) -> None:
        self.opened: list[tuple[str, Link]] = []
        self.transports: list[FakeTransport] = []
        self.closed: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.problem: Exception | None = None
        self.clock = clock
        self.held = ClientLinks("notes", self._open, most=most, idle=idle, clock=clock)
        self._tasks: TaskGroup | None = None

    def __repr__(self) -> str:
        return f"<Opener opened={len(self.opened)} closed={len(self.closed)}>"

    @asynccontextmanager
    async def _open(self, place: LinkKey, session: Session) -> AsyncIterator[Link]:
        await self.gate.wait()
        if self.problem is not None:
            raise self.problem
        link, transport = connected(clock=self.clock)
        self.opened.append((place.key, link))
        self.transports.append(transport)
        try:
            yield link
        finally:
            self.closed.append(place.key)

    @asynccontextmanager
    async def lending(self) -> AsyncIterator[TaskGroup]:
        """While links can be opened to be lent."""
        async with group() as self._tasks:
            yield self._tasks

    async def lend(self, call: Call) -> Link:
        """A link for this call."""
        assert self._tasks is not None
        return await self.held.link(LEASED, call.session, self._tasks, call)

    async def until_closed(self, count: int) -> None:
        await eventually(lambda: len(self.closed) >= count and len(self.held) <= len(self.opened) - count)


@asynccontextmanager
async def group() -> AsyncIterator[TaskGroup]:
    """A task group that is ended."""
    async with anyio.create_task_group() as tasks:
        try:
            yield tasks
        finally:
            tasks.cancel_scope.cancel()


async def test_a_client_gets_the_same_link_again_and_another_client_another() -> None:
    opener = Opener()
    async with group() as tasks:
        link = await opener.held.link(A, new_session("a"), tasks)
        assert await opener.held.link(A, new_session("a"), tasks) is link
        assert opener.held.find(A) is link
        assert opener.held.find(B) is None
        assert await opener.held.link(B, new_session("b"), tasks) is not link
        assert (len(opener.held), len(opener.held.links())) == (2, 2)
        assert repr(opener.held) == "<ClientLinks notes 2/8>"
    assert sorted(opener.closed) == ["a", "b"]
    assert len(opener.held) == 0


async def test_calls_that_come_while_it_opens_wait_for_the_one_that_opens() -> None:
    opener = Opener()
    opener.gate.clear()
    async with group() as tasks:
        waiting = [asyncio.ensure_future(opener.held.link(A, new_session("a"), tasks)) for _ in range(5)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        opener.gate.set()
        links = await within(asyncio.gather(*waiting[1:]))
        assert len(set(links)) == 1
        assert len(opener.opened) == 1


async def test_a_released_link_is_closed_and_not_given_away_again() -> None:
    opener = Opener()
    async with group() as tasks:
        first = await opener.held.link(A, new_session("a"), tasks)
        opener.held.release("a")
        opener.held.release("a")
        opener.held.release("nobody")
        assert opener.held.find(A) is None
        assert await opener.held.link(A, new_session("a"), tasks) is not first
        await opener.until_closed(1)
        assert opener.held.find(A) is opener.opened[1][1]


async def test_one_released_while_it_opens_is_closed_as_soon_as_it_is_open() -> None:
    opener = Opener()
    opener.gate.clear()
    async with group() as tasks:
        waiting = asyncio.ensure_future(opener.held.link(A, new_session("a"), tasks))
        await asyncio.sleep(0)
        opener.held.release("a")
        opener.gate.set()
        await within(waiting)
        await opener.until_closed(1)
        assert opener.held.links() == []


async def test_a_lost_link_is_replaced_by_a_new_one() -> None:
    opener = Opener()
    async with group() as tasks:
        first = await opener.held.link(A, new_session("a"), tasks)
        first.lost(BackendLost("notes", "gone"))
        assert opener.held.find(A) is None
        second = await opener.held.link(A, new_session("a"), tasks)
        assert second is not first
        await opener.until_closed(1)
        assert opener.held.find(A) is second


async def test_too_many_are_refused_and_a_place_is_free_again_when_one_left() -> None:
    opener = Opener(most=1)
    async with group() as tasks:
        await opener.held.link(A, new_session("a"), tasks)
        with pytest.raises(BackendUnavailable, match="already has 1 clients with a connection of their own"):
            await opener.held.link(B, new_session("b"), tasks)
        opener.held.release("a")
        await opener.until_closed(1)
        await opener.held.link(B, new_session("b"), tasks)


@pytest.mark.parametrize("problem", [BackendProtocolError("notes", "did not greet"), ValueError("a fault of ours")])
async def test_one_that_cannot_be_opened_fails_its_callers_and_is_tried_again(problem: Exception) -> None:
    opener = Opener()
    opener.problem = problem
    async with group() as tasks:
        with pytest.raises(BackendError):
            await opener.held.link(A, new_session("a"), tasks)
        assert len(opener.held) == 0
        opener.problem = None
        assert await opener.held.link(A, new_session("a"), tasks) is opener.opened[0][1]


async def test_when_the_backend_stops_whoever_waits_for_a_link_is_told() -> None:
    opener = Opener()
    opener.gate.clear()
    async with group() as tasks:
        waiting = asyncio.ensure_future(opener.held.link(A, new_session("a"), tasks))
        await asyncio.sleep(0)
    with pytest.raises(BackendUnavailable, match="is stopped"):
        await within(waiting)


async def test_an_idle_link_is_closed_but_not_one_that_works_or_is_watched() -> None:
    clock = FakeClock()
    opener = Opener(idle=60.0, clock=clock)
    async with group() as tasks:
        await opener.held.link(A, new_session("a"), tasks)
        watched = await opener.held.link(B, new_session("b"), tasks)
        watched.is_watched = True
        busy = await opener.held.link(LinkKey("c"), new_session("c"), tasks)
        working = busy.begin("tools/call", tool("t"), timeout=60.0)
        await clock.advance(59.0)
        assert opener.closed == []
        await clock.advance(1.0)
        assert opener.closed == ["a"]
        assert opener.held.links() == [watched, busy]
        busy.fed(b'{"jsonrpc":"2.0","id":%d,"result":{}}' % working.number)
        watched.is_watched = False
        await clock.advance(60.0)
        await opener.until_closed(3)


# --- leased for one call at a time ------------------------------------------------------------------------------------


async def test_a_leased_link_is_free_again_when_nothing_is_due_on_it() -> None:
    opener = Opener()
    async with opener.lending():
        first = await opener.lend(called(1))
        working = first.begin("tools/call", tool("t"), timeout=60.0)
        second = await opener.lend(called(1))
        assert second is not first
        second.begin("tools/call", tool("t"), timeout=60.0)
        assert opener.held.find(LEASED, called()) is None
        first.fed(b'{"jsonrpc":"2.0","id":%d,"result":{}}' % working.number)
        assert opener.held.find(LEASED, called()) is first
        assert [key for key, _ in opener.opened] == ["principal x", "principal x#1"]


async def test_a_link_of_a_principal_whose_key_begins_alike_is_not_found() -> None:
    opener = Opener()
    async with group() as tasks:
        await opener.held.link(LinkKey("principal x1", exclusive=True), new_session(), tasks, called())
        assert opener.held.find(LEASED, called()) is None


async def test_two_calls_that_come_at_once_get_a_link_each() -> None:
    opener = Opener()
    async with opener.lending():
        first, second = await within(asyncio.gather(*(opener.lend(called()) for _ in range(2))))
        assert first is not second


async def test_a_link_that_was_opened_for_a_call_is_kept_for_it_until_that_is_sent_or_over() -> None:
    opener = Opener()
    async with opener.lending():
        waiting = called()
        link = await opener.lend(waiting)
        assert opener.held.find(LEASED, waiting) is link
        assert opener.held.find(LEASED, called()) is None
        for over in ("attempts", "is_cancelled", "is_done"):
            setattr(waiting, over, 1)
            assert opener.held.find(LEASED, called()) is link
            setattr(waiting, over, 0)


async def test_finding_a_link_changes_nothing_and_sending_over_it_leases_it() -> None:
    clock = FakeClock()
    opener = Opener(clock=clock, idle=60.0)
    async with opener.lending():
        link = await opener.lend(called(1))
        for _ in range(3):
            assert opener.held.find(LEASED, called()) is link, "whoever looks"
        await clock.advance(50)
        assert opener.held.find(LEASED, called()) is link
        sent = link.begin("tools/call", tool("t"), timeout=60.0)
        assert opener.held.find(LEASED, called()) is None
        link.fed(b'{"jsonrpc":"2.0","id":%d,"result":{}}' % sent.number)
        await clock.advance(50)
        assert opener.held.find(LEASED, called()) is link, "it was used 50 s ago"
        await clock.advance(10)
        await opener.until_closed(1)


async def test_the_primary_serves_everything_but_calls_however_busy_it_is_and_calls_first() -> None:
    opener = Opener()
    opener.gate.clear()
    async with opener.lending() as tasks:
        opening = opener.held.open(PRIMARY, new_session(), tasks)
        lending = asyncio.ensure_future(opener.lend(called(1)))
        await asyncio.sleep(0)
        opener.gate.set()
        primary: Link = await within(opening)
        assert await within(lending) is primary
        primary.begin("tools/call", tool("t"), timeout=60.0)
        assert opener.held.find(PRIMARY) is primary
        other = await opener.lend(called(1))
        primary.lost(BackendLost("notes", "gone"))
        await opener.until_closed(1)
        again = await within(opener.held.open(PRIMARY, new_session(), tasks))
        assert (opener.held.find(LEASED, called(1)), opener.opened[-1][0]) == (again, "principal x")
        assert other is not again


async def test_after_an_abandoned_call_a_call_of_a_client_that_may_be_another_uses_another_link() -> None:
    opener = Opener()
    async with opener.lending():
        first = await opener.lend(called(1))
        abandoned = first.send("tools/call", tool("t"), lambda *_: None, timeout=60.0, call=called(1))
        first.abandon(abandoned, None)
        assert opener.held.find(LEASED, called()) is None
        assert opener.held.find(LEASED, called(1, principal=Principal("x", "x"))) is first
        first.watch(True)
        assert opener.held.find(LEASED, called()) is first
