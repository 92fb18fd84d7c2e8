"""Event streams and conversations, apart from HTTP."""

import asyncio
from typing import Any

import pytest

from mcp_manifold.errors import TooManyRequests
from mcp_manifold.fronts.conversation import Conversation
from mcp_manifold.fronts.http.asgi import PIECE, STALL
from mcp_manifold.fronts.http.request import read_body
from mcp_manifold.fronts.http.stream import EventStream
from mcp_manifold.fronts.sessions import OpenSession
from mcp_manifold.fronts.tally import Tally
from mcp_manifold.model.budget import MemoryBudget, Reservation
from mcp_manifold.model.policy import ANONYMOUS
from mcp_manifold.wire import Payload
from tests.fakes.clock import FakeClock, settled
from tests.unit.fronts.fakes import META, FakeGateway, Held, encoded, note, request

pytestmark = pytest.mark.anyio

GREETING = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}


class Reader:
    """An ASGI `send` that remembers, or fails, or waits for ever."""

    def __init__(self, failing: BaseException | None = None, *, stuck: bool = False) -> None:
        self.body = b""
        self.ended = False
        self._failing = failing
        self._stuck = stuck

    async def __call__(self, message: Any) -> None:
        if message["type"] != "http.response.body":
            return
        if self._failing:
            raise self._failing
        if self._stuck:
            await asyncio.Event().wait()
        self.body += message["body"]
        self.ended = not message["more_body"]


async def test_everything_queued_is_written_before_the_end() -> None:
    reader = Reader()
    stream = EventStream(reader, Tally())
    pieces = [b"%d;" % n * 20_000 for n in range(10)]
    for piece in pieces:
        assert stream.push(piece)
    stream.end(b"last")
    assert not stream.push(b"too late")
    await asyncio.wait_for(stream.run(), 5)
    assert reader.body == b"".join(pieces) + b"last"
    assert reader.ended


async def test_a_large_answer_to_a_reader_that_left_uses_no_memory_budget() -> None:
    tally = Tally(budget=MemoryBudget(10_000_000))
    stream = EventStream(Reader(), tally)
    stream.push(b"x")
    running = asyncio.create_task(stream.run())
    stream.hang_up()
    await asyncio.wait_for(running, 5)
    stream.end(b"y" * 5_000_000)
    assert tally.budget.held == 0


async def test_a_reader_that_hangs_up_ends_the_stream_quietly() -> None:
    stream = EventStream(Reader(ConnectionResetError()), Tally())
    stream.push(b"x")
    await asyncio.wait_for(stream.run(), 5)
    assert stream.gone
    assert not stream.push(b"y")


@pytest.mark.parametrize(("leaves", "size"), [(True, 1), (True, 2 * PIECE), (False, 1)])
async def test_only_a_reader_that_stalls_is_logged_and_not_one_that_leaves(
    leaves: bool, size: int, caplog: pytest.LogCaptureFixture
) -> None:
    clock = FakeClock()
    stream = EventStream(Reader(stuck=True), Tally(), clock=clock)
    stream.push(b"x" * size)
    running = asyncio.create_task(stream.run())
    await settled()
    if leaves:
        stream.hang_up()
    await clock.advance(STALL)
    await asyncio.wait_for(running, 5)
    assert [record.getMessage() for record in caplog.records] == (
        [] if leaves else ["event stream closed: its reader stalled"]
    )


async def test_hanging_up_frees_a_stuck_write() -> None:
    reader = Reader(stuck=True)
    stream = EventStream(reader, Tally())
    stream.push(b"x")
    running = asyncio.create_task(stream.run())
    await asyncio.sleep(0)
    stream.hang_up()
    stream.hang_up()
    await asyncio.wait_for(running, 5)
    assert not reader.ended


async def test_reading_a_body_can_be_cancelled_by_others() -> None:
    async def receive() -> dict[str, Any]:
        return await asyncio.Event().wait()  # type: ignore[return-value]  # never returns

    task = asyncio.create_task(read_body(receive, {}, 10, Reservation(MemoryBudget())))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait({task}, timeout=5)
    assert task.cancelled()


class Channel:
    """Remembers what would be sent."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []

    def push(self, message: bytes) -> bool:
        self.sent.append(message)
        return True

    def post(self, message: bytes) -> None:
        self.sent.append(message)


def conversation(gateway: FakeGateway) -> tuple[Conversation, list[bytes]]:
    channel = Channel()
    return Conversation(gateway, OpenSession(gateway, "", "stdio", ANONYMOUS, ""), channel, modern=True), channel.sent


def pinged(*messages: Any) -> tuple[FakeGateway, Conversation, list[bytes]]:
    """A conversation that took these messages in one turn."""
    gateway = FakeGateway()
    talk, sent = conversation(gateway)
    for message in messages:
        talk.receive(encoded(message))
    return gateway, talk, sent


async def test_a_call_cancelled_in_the_same_breath_is_not_answered() -> None:
    cancel = note("notifications/cancelled", requestId=1)
    gateway, talk, sent = pinged(request("ping", 1), cancel, request("ping", 2))
    await talk.settle(5)
    assert sent == [b'{"jsonrpc":"2.0","id":2,"result":{}}']
    assert [call.is_cancelled for call in gateway.calls] == [True, False]


async def test_an_id_in_flight_cannot_be_used_again() -> None:
    _, talk, sent = pinged(request("ping", 1), request("ping", 1))
    await talk.settle(5)
    assert b'"code":-32600' in sent[0]
    assert sent[1:] == [b'{"jsonrpc":"2.0","id":1,"result":{}}']


async def test_what_is_answered_at_once_leaves_its_id_free_again() -> None:
    gateway, talk, sent = pinged()
    gateway.at_once = {
        "initialize": Payload(b"{}"),
        "tools/list": (memoryview(b'{"tools":[]'), b"}"),
        "tools/call": TooManyRequests("not now", retry_after=1.0),
    }
    for message in (request("initialize", 1, **GREETING), request("tools/list", 1), request("tools/list", 1)):
        talk.receive(encoded(message))
    assert sent[1:] == [b'{"jsonrpc":"2.0","id":1,"result":{"tools":[]}}'] * 2
    talk.receive(encoded(request("tools/call", 1, _meta=META)))
    assert b"not now" in sent[3]
    assert "in_flight=0" in repr(talk)


async def test_settling_cancels_what_takes_too_long() -> None:
    gateway, talk, sent = pinged()
    gateway.scripts["ping"] = held = Held()
    talk.receive(encoded(request("ping", 1)))
    await asyncio.sleep(0)
    await asyncio.wait_for(talk.settle(0), 5)
    assert held.cancelled.is_set()
    assert [b'"id":1,"error"' in message for message in sent] == [True]
    assert "in_flight=0" in repr(talk)
