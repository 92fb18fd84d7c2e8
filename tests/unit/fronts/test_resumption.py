"""Streams that are resumed: what is kept for whom, for how long, and who gets it."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_manifold.errors import CallCancelled
from mcp_manifold.fronts.http.stream import EventStream
from mcp_manifold.fronts.http_errors import Refused
from mcp_manifold.fronts.resumption import KEEP, KEPT_BYTES, KEPT_EVENTS, SETTLED, Journals
from mcp_manifold.fronts.tally import Tally
from mcp_manifold.wire.event_stream import Event, EventParser
from tests.fakes.clock import FakeClock, settled
from tests.unit.fronts.fakes import (
    PROGRESS,
    Answer,
    Client,
    Exchange,
    FakeGateway,
    Held,
    HttpSession,
    modern,
    note,
    prepared,
    request,
)

pytestmark = pytest.mark.anyio

CALL = request("tools/call", name="x")
CHANGED = "notifications/tools/list_changed"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def held() -> AsyncIterator[Held]:
    held = Held(b'{"ok":true}', [PROGRESS % 1, PROGRESS % 2])
    yield held
    held.released.set()


def events(answer: Answer) -> list[Event]:
    return EventParser(1 << 20).feed(answer.body)


def resume(session: HttpSession, last: str | None) -> Exchange:
    return session.client.open("GET", session.path, headers=[*session.headers, ("last-event-id", last or "")])


async def leaving(session: HttpSession, exchange: Exchange, count: int = 2) -> list[Event]:
    """The client reads so many messages and is gone; what it has."""
    await exchange.until(lambda answer: len(answer.events) >= count)
    exchange.leave()
    await settled()
    return events(exchange.answer)


# --- over HTTP --------------------------------------------------------------------------------------------------------


async def test_the_answer_of_a_call_that_ended_meanwhile_is_kept(held: Held) -> None:
    _, client = prepared(tools_call=held)
    session = await client.session()
    exchange = session.post(CALL)
    got = await leaving(session, exchange)
    held.released.set()
    await exchange.done()
    for _ in range(2):  # who is cut off once more asks once more
        answer = await resume(session, got[-1].id).done()
        assert [message["result"] for message in answer.events] == [{"ok": True}]


async def test_revisions_without_resumption_get_no_ids(held: Held) -> None:
    _, client = prepared(tools_call=held)
    held.released.set()
    session = await client.session(version="2024-11-05")
    message, headers = modern()
    for answer in (await session.call(CALL), await client.call(message, headers=headers)):
        assert len(answer.events) == 3
        assert b"id: " not in answer.body
        assert b"retry: " not in answer.body


async def test_json_answers_open_no_stream_to_come_back_to(held: Held) -> None:
    _, client = prepared(tools_call=held)
    held.released.set()
    session = await client.session()
    assert (await session.call(request("ping"))).header("content-type") == "application/json"
    assert (events(await session.call(CALL))[0].id or "").endswith(".c1-0")


async def test_ids_are_unique_in_a_session_and_say_nothing_of_it(held: Held) -> None:
    gateway, client = prepared(tools_call=held)
    held.released.set()
    session = await client.session()
    ids = []
    async with session.listen() as stream:
        gateway.change(CHANGED)
        await stream.until(lambda answer: len(answer.events) == 1)
        for number in range(3):
            ids += [event.id for event in events(await session.call({**CALL, "id": number}))]
        ids += [event.id for event in events(stream.answer)]
    assert len(set(ids)) == len(ids) == 13
    assert not any(session.id[:8] in (id_ or "") for id_ in ids)


async def test_nobody_else_gets_what_is_kept(held: Held) -> None:
    tokens = [{"name": "alice", "token": "token-of-alice"}, {"name": "bob", "token": "token-of-bob"}]
    _, alice = prepared(FakeGateway(tokens=tokens), tools_call=held)
    bob = Client(alice.app, authorization="Bearer token-of-bob")
    alice.headers["authorization"] = "Bearer token-of-alice"
    session, other, his = await alice.session(), await alice.session(), await bob.session()
    held.released.set()
    last = events(await session.call(CALL))[0].id
    assert (await resume(HttpSession(bob, "/mcp", session.id), last).done()).status == 404
    for stranger in (other, his):
        async with resume(stranger, last) as stream:
            await stream.until(lambda answer: bool(answer.status))
            assert stream.answer.status == 200
            await stranger.call(note("notifications/roots/list_changed"))
            assert not events(stream.answer)


@pytest.mark.parametrize("id_", ["", "nonsense", "-", "1-1", "s1-x", "%s-999", "ÿ-1"])
async def test_an_id_that_means_nothing_is_a_plain_standing_stream(held: Held, id_: str) -> None:
    gateway, client = prepared(tools_call=held)
    held.released.set()
    session = await client.session()
    last = events(await session.call(CALL))[-1].id or ""
    async with resume(session, id_.replace("%s", last.rpartition("-")[0])) as stream:
        await stream.until(lambda answer: bool(answer.status))
        gateway.change(CHANGED)
        await stream.until(lambda answer: len(answer.events) == 1)
        assert (await resume(session, id_).done()).status == 409


async def test_what_is_no_longer_kept_is_said_so(held: Held, clock: FakeClock) -> None:
    _, client = prepared(clock=clock, tools_call=held)
    held.released.set()
    session = await client.session()
    last = events(await session.call(CALL))[0].id
    await clock.advance(SETTLED + 1)
    await session.call(CALL)
    refused = await resume(session, last).done()
    assert (refused.status, refused.error) == (400, -32600)


async def test_a_second_reader_takes_the_place_of_the_first(held: Held) -> None:
    _, client = prepared(tools_call=held)
    session = await client.session()
    async with session.post(CALL) as exchange:
        await exchange.until(lambda answer: len(answer.events) == 2)
        async with resume(session, events(exchange.answer)[0].id) as again:
            await again.until(lambda answer: len(answer.events) == 2)
            held.released.set()
            assert (await again.done()).events[-1]["result"] == {"ok": True}
        assert len((await exchange.done()).events) == 2


async def test_the_standing_stream_is_resumed_with_what_was_sent_to_nobody() -> None:
    gateway, client = prepared()
    session = await client.session()
    reach = gateway.calls[0].session.reach
    assert reach is not None
    async with session.listen() as stream:
        await stream.until(lambda answer: bool(answer.status))
        assert reach.tell(b'{"n":1}')
        assert reach.tell(b'{"n":2}')
        await stream.until(lambda answer: len(answer.events) == 2)
    assert reach.tell(b'{"n":3}')
    async with resume(session, events(stream.answer)[0].id) as again:
        await again.until(lambda answer: len(answer.events) == 2)
        gateway.change(CHANGED)
        await again.until(lambda answer: len(answer.events) == 3)
        assert [message.get("n") for message in again.answer.events] == [2, 3, None]


async def test_a_standing_stream_whose_loss_went_unnoticed_is_taken_over() -> None:
    gateway, client = prepared()
    session = await client.session()
    async with session.listen() as stream:
        await stream.until(lambda answer: bool(answer.status))
        gateway.change(CHANGED)
        await stream.until(lambda answer: len(answer.events) == 1)
        async with resume(session, events(stream.answer)[0].id) as again:
            await stream.done()
            gateway.change("notifications/prompts/list_changed")
            await again.until(lambda answer: len(answer.events) == 1)
            assert (await session.listen().done()).status == 409


async def test_a_standing_stream_nobody_comes_back_to_keeps_nothing_more(clock: FakeClock) -> None:
    gateway, client = prepared(clock=clock)
    session = await client.session()
    reach = gateway.calls[0].session.reach
    assert reach is not None
    assert not reach.tell(b"{}")
    async with session.listen() as stream:
        await stream.until(lambda answer: bool(answer.status))
        assert reach.tell(b"{}")
        await stream.until(lambda answer: len(answer.events) == 1)
    assert reach.tell(b'{"kept":1}')
    await clock.advance(2 * KEEP)
    assert not reach.tell(b"{}")
    async with resume(session, events(stream.answer)[0].id) as again:
        await again.until(lambda answer: bool(answer.status))
        await settled()
        assert not events(again.answer)


async def test_a_question_on_a_lost_stream_is_answered_by_a_client_that_comes_back() -> None:
    async def asking(call: Any) -> Any:
        answer = await call.session.reach.ask("roots/list", None, call)
        return answer.result

    _, client = prepared(tools_call=asking)
    session = await client.session()
    exchange = session.post(CALL)
    got = await leaving(session, exchange, count=1)
    async with resume(session, got[0].id) as again:
        await again.until(lambda answer: len(answer.events) == 1)
        id_ = again.answer.events[0]["id"]
        await session.call({"jsonrpc": "2.0", "id": id_, "result": {"roots": []}})
        assert (await again.done()).events[-1]["result"] == {"roots": []}
    await exchange.done()


async def test_a_question_on_a_lost_stream_fails_when_nobody_comes_back(clock: FakeClock) -> None:
    failed = asyncio.Event()

    async def asking(call: Any) -> Any:
        try:
            await call.session.reach.ask("roots/list", None, call)
        except CallCancelled:
            failed.set()
            raise

    _, client = prepared(clock=clock, tools_call=asking)
    session = await client.session()
    exchange = session.post(CALL)
    await leaving(session, exchange, count=1)
    assert not failed.is_set()
    await clock.advance(KEEP)
    await exchange.done()
    assert failed.is_set()


async def test_a_call_whose_client_left_is_remembered_by_no_timer_once_it_is_answered_or_resumed(
    held: Held, clock: FakeClock
) -> None:
    _, client = prepared(clock=clock, tools_call=held)
    session = await client.session()
    await clock.advance(1)
    before = clock.pending
    exchange = session.post(CALL)
    got = await leaving(session, exchange)
    await clock.advance(1)
    waiting = clock.pending
    async with resume(session, got[0].id) as again:
        await again.until(lambda answer: len(answer.events) >= 1)
        assert clock.pending == waiting, "a keep-alive instead"
    await settled()
    held.released.set()
    await exchange.done()
    await clock.advance(1)
    assert clock.pending == before


async def test_who_leaves_twice_has_the_whole_time_to_come_back_again(clock: FakeClock) -> None:
    failed = asyncio.Event()

    async def asking(call: Any) -> Any:
        try:
            await call.session.reach.ask("roots/list", None, call)
        except CallCancelled:
            failed.set()
            raise

    _, client = prepared(clock=clock, tools_call=asking)
    session = await client.session()
    exchange = session.post(CALL)
    got = await leaving(session, exchange, count=1)
    await clock.advance(KEEP - 1)
    await leaving(session, resume(session, (got[0].id or "").rpartition("-")[0] + "-0"), count=1)
    await clock.advance(KEEP - 1)
    assert not failed.is_set()
    await clock.advance(1)
    await exchange.done()
    assert failed.is_set()


async def test_ending_the_session_ends_a_resumed_stream(held: Held) -> None:
    _, client = prepared(tools_call=held)
    session = await client.session()
    exchange = session.post(CALL)
    got = await leaving(session, exchange)
    async with resume(session, got[-1].id) as again:
        await again.until(lambda answer: bool(answer.status))
        assert (await session.delete()).status == 204
        assert (await again.done()).events[-1]["error"]["code"] == -32800
    await exchange.done()


async def test_a_resumed_stream_that_breaks_as_well_is_resumed_again(held: Held) -> None:
    _, client = prepared(tools_call=held)
    session = await client.session()
    exchange = session.post(CALL)
    got = await leaving(session, exchange)
    async with resume(session, got[0].id) as again:
        await again.until(lambda answer: len(answer.events) == 2)
    held.released.set()
    await exchange.done()
    assert len((await resume(session, got[0].id).done()).events) == 3


async def test_resumed_streams_count_as_open_ones(held: Held) -> None:
    _, client = prepared(FakeGateway(limits={"max_streams": 1}), tools_call=held)
    session = await client.session()
    exchange = session.post(CALL)
    got = await leaving(session, exchange)
    async with session.listen() as stream:
        await stream.until(lambda answer: bool(answer.status))
        assert (await resume(session, got[-1].id).done()).status == 503
    held.released.set()
    await exchange.done()


async def test_a_silent_call_becomes_a_stream_its_client_can_come_back_to(clock: FakeClock) -> None:
    silent = Held(b'{"ok":true}')
    for version, media in (("2025-11-25", "text/event-stream"), ("2025-06-18", "application/json")):
        _, client = prepared(clock=clock, tools_call=silent)
        session = await client.session(version=version)
        exchange = session.post({**CALL, "id": version})
        await clock.advance(1)
        if media == "text/event-stream":
            await exchange.until(lambda answer: b"retry: 1000" in answer.body)
        silent.released.set()
        assert (await exchange.done()).header("content-type") == media


# --- journals ---------------------------------------------------------------------------------------------------------


def reader() -> EventStream:
    async def send(_: Any) -> None:
        raise AssertionError("nothing is written here")

    return EventStream(send, Tally(), clock=FakeClock())


async def test_what_a_session_keeps_is_bounded_but_its_latest_answer_is_there() -> None:
    journals = Journals("m", "2025-11-25")
    first, second = journals.begin(reader()), journals.begin(reader())
    for number in range(KEPT_EVENTS):
        first.post(b"%d" % number)
    second.post(b"x")
    assert f"events={KEPT_EVENTS} " in repr(journals)
    assert b"data: 0\n" not in b"".join(journals.after(first, 0))
    second.end(b"x" * KEPT_BYTES)
    assert len(journals.after(second, 0)) == 1
    assert not journals.after(first, 0)


async def test_a_call_in_flight_is_kept_however_long_it_takes(clock: FakeClock) -> None:
    journals = Journals("m", "2025-11-25", clock=clock)
    stream = reader()
    journal = journals.begin(stream)
    assert journal.left(stream)
    assert not journal.left(stream)
    await clock.advance(100 * KEEP)
    journals.tidy(asked=True)
    journal.end(b"{}")
    await clock.advance(KEEP - 1)
    journals.tidy(asked=True)
    assert journals.find("m.c1-1") == (journal, 1)
    await clock.advance(2)
    journals.tidy()
    with pytest.raises(Refused, match="no longer kept"):
        journals.find("m.c1-1")


async def test_a_message_its_reader_is_too_slow_for_is_not_kept_either() -> None:
    journals = Journals("m", "2025-06-18")
    journal = journals.begin(reader())
    taken = [journal.push(b"{}") for _ in range(1001)]
    assert taken == [True] * 1000 + [False]
    journal.post(b"needed")
    assert journals.after(journal, 1000) == [b"id: m.c1-1001\nevent: message\ndata: needed\n\n"]


@given(st.text())
def test_no_text_breaks_the_search_for_a_stream(id_: str) -> None:
    assert Journals("m", "2025-11-25", clock=FakeClock()).find(id_.removeprefix("m.c")) is None
