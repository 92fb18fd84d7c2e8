"""A session on its own, without HTTP: what its client is asked on which stream, how long, and when it ends."""

import pytest

from mcp_manifold.clock import Clock
from mcp_manifold.fronts.http_errors import Refused
from mcp_manifold.fronts.resumption import KEEP, Journal, Journals
from mcp_manifold.fronts.sessions import ActiveRequest, OpenSession, Sessions
from mcp_manifold.fronts.tally import Tally
from mcp_manifold.model.budget import MemoryBudget
from mcp_manifold.model.call import Call, Session
from mcp_manifold.model.policy import ANONYMOUS
from mcp_manifold.wire import Payload
from tests.fakes.clock import FakeClock, settled
from tests.unit.backends.linking import FakeReply
from tests.unit.fronts.fakes import FakeGateway

pytestmark = pytest.mark.anyio


class Reply(FakeReply):
    """A reply on whose stream only server requests are sent, which must not be dropped."""

    def emit(self, message: bytes, /, *, needed: bool = False) -> None:
        assert needed
        super().emit(message)


class Request(ActiveRequest):
    """A request in flight, which hears when it is cancelled."""

    def __init__(self, opened: OpenSession, id_: bytes = b"1", method: str = "tools/call") -> None:
        self.asked: list[bytes] = []
        """What was sent on its stream."""
        self.is_cancelled = False
        self.call = Call(method, {}, opened.session, Reply(self.asked))
        self.key = opened.register(Payload(id_), self, limit=8)

    def cancel(self) -> None:
        self.is_cancelled = True

    def end(self) -> None: ...


class Standing:
    """A client's standing stream, with or without room for more."""

    def __init__(self, opened: OpenSession, *, has_room: bool = True) -> None:
        self.got: list[bytes] = []
        self.is_open = True
        self._has_room = has_room
        opened.attach(self._deliver, self._hang_up)

    def _deliver(self, message: bytes) -> bool:
        if self._has_room:
            self.got.append(message)
        return self._has_room

    def _hang_up(self) -> None:
        self.is_open = False


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def gateway() -> FakeGateway:
    return FakeGateway()


@pytest.fixture
def sessions(gateway: FakeGateway, clock: FakeClock) -> Sessions:
    return Sessions(gateway, Tally(budget=gateway.budget), clock)


@pytest.fixture
async def opened(sessions: Sessions) -> OpenSession:
    return sessions.create("mcp", ANONYMOUS, "")


def journal(clock: Clock, name: str) -> Journal:
    return Journal(Journals("s", "2025-11-25", MemoryBudget(), clock), name, is_standing=False)


# --- where a client is asked ------------------------------------------------------------------------------------------


async def test_a_request_of_no_call_is_sent_on_the_standing_stream_before_that_of_a_call(opened: OpenSession) -> None:
    request = Request(opened)
    without = opened.ask("roots/list", None, None)
    standing = Standing(opened)
    asked = opened.ask("roots/list", None, None)
    assert (len(request.asked), len(standing.got)) == (1, 1)
    assert not without.done()
    assert not asked.done()


async def test_a_request_is_never_sent_on_the_stream_of_another_session(opened: OpenSession) -> None:
    request = Request(opened)
    request.call.session = Session("other", ANONYMOUS, "", "2026-07-28")
    asked = opened.ask("roots/list", None, None)
    assert asked.exception() is not None
    assert request.asked == []


async def test_a_standing_stream_without_room_fails_the_request(opened: OpenSession) -> None:
    Standing(opened, has_room=False)
    assert opened.ask("roots/list", None, None).exception() is not None


async def test_a_client_that_resumed_a_stream_is_asked_on_it_and_no_other_is(
    opened: OpenSession, clock: FakeClock
) -> None:
    back, away = Request(opened, b"1"), Request(opened, b"2")
    asked = [opened.ask("roots/list", None, each.call) for each in (back, away)]
    journals = [journal(clock, name) for name in ("c1", "c2")]
    for each, kept in zip((back, away), journals, strict=True):
        opened.desert(each.call, kept)
    opened.regain(journals[0])
    await clock.advance(KEEP)
    assert [each.done() for each in asked] == [False, True]
    opened.ask("roots/list", None, away.call)
    assert (len(back.asked), len(away.asked)) == (2, 1)


# --- how long its answer is awaited -----------------------------------------------------------------------------------


async def test_requests_of_an_answered_call_fail_unless_their_answer_comes_soon(
    opened: OpenSession, clock: FakeClock
) -> None:
    request = Request(opened)
    answered, *asked = [opened.ask("roots/list", None, request.call) for _ in range(3)]
    answered.cancel()
    opened.complete(request.key)
    await clock.advance(KEEP - 1)
    assert not any(each.done() for each in asked)
    await clock.advance(1)
    assert all(each.exception() is not None for each in asked)


async def test_a_call_without_open_requests_leaves_nothing_to_wait_for(opened: OpenSession, clock: FakeClock) -> None:
    request, waits = Request(opened), clock.pending
    opened.ask("roots/list", None, request.call).cancel()
    await settled()
    opened.complete(request.key)
    assert clock.pending == waits


@pytest.mark.parametrize("returns", [True, False])
async def test_requests_on_a_broken_standing_stream_fail_unless_the_client_opens_another(
    opened: OpenSession, clock: FakeClock, returns: bool
) -> None:
    Standing(opened)
    asked = opened.ask("roots/list", None, None)
    opened.detach()
    if returns:
        Standing(opened)
    await clock.advance(KEEP)
    assert asked.done() is not returns


async def test_only_a_task_result_is_cancelled_for_a_client_that_stays_away(
    opened: OpenSession, clock: FakeClock
) -> None:
    lasting, call, other = (
        Request(opened, id_, method)
        for id_, method in ((b"1", "tasks/result"), (b"2", "tools/call"), (b"3", "tasks/result"))
    )
    for each in (lasting, call):
        opened.desert(each.call, journal(clock, "c"))
    await clock.advance(KEEP)
    assert [each.is_cancelled for each in (lasting, call, other)] == [True, False, False]


# --- its end ----------------------------------------------------------------------------------------------------------


async def test_an_ended_session_takes_no_call_and_watches_nothing(
    sessions: Sessions, opened: OpenSession, gateway: FakeGateway
) -> None:
    sessions.end(opened)
    with pytest.raises(Refused) as caught:
        Request(opened)
    assert caught.value.status == 404
    opened.note("notifications/initialized", {})
    assert gateway.watchers == []


async def test_a_draining_session_closes_its_stream_after_the_last_answer(
    opened: OpenSession, clock: FakeClock
) -> None:
    standing, request = Standing(opened), Request(opened)
    opened.drain()
    opened.complete(request.key)
    assert standing.is_open, "the answer may still be written on it"
    await clock.advance(0)
    assert not standing.is_open


async def test_only_a_session_unused_for_longer_than_allowed_expires(clock: FakeClock) -> None:
    gateway = FakeGateway(limits={"session_idle": 16.0})
    opened = Sessions(gateway, Tally(budget=gateway.budget), clock).create("mcp", ANONYMOUS, "")
    await clock.advance(16.0)
    assert gateway.ends == []
    await clock.advance(7.9)
    assert gateway.ends == [], "expired sessions are looked for twice in that time"
    await clock.advance(0.1)
    assert gateway.ends == [opened.session]
    assert clock.pending == 0


async def test_sessions_that_are_not_kept_end(sessions: Sessions, opened: OpenSession, gateway: FakeGateway) -> None:
    other = sessions.create("mcp", ANONYMOUS, "")
    sessions.keep(lambda session: session is not other.session)
    assert gateway.ends == [other.session]


async def test_closed_sessions_leave_no_timer(sessions: Sessions, opened: OpenSession, clock: FakeClock) -> None:
    sessions.close()
    assert clock.pending == 0


async def test_notifications_beyond_the_rate_are_counted_where_anybody_counts(clock: FakeClock) -> None:
    gateway = FakeGateway(limits={"max_notifications": 1})
    tally = Tally(budget=gateway.budget)
    uncounted = OpenSession(gateway, "id", "stdio", ANONYMOUS, "", clock=clock)
    for opened in (Sessions(gateway, tally, clock).create("mcp", ANONYMOUS, ""), uncounted):
        for _ in range(100):
            opened.note("notifications/progress", {})
    assert tally.dropped_notes > 0
    assert len(gateway.notes) + 2 * tally.dropped_notes == 200
