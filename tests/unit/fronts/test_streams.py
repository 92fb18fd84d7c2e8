"""Event streams, deadlines and conversations, apart from HTTP."""

import asyncio
from typing import Any

import pytest
from mcp_manifold.fronts.http.responder import Responder
from mcp_manifold.fronts.in_flight import Deadline

from mcp_manifold.errors import TooManyRequests
from mcp_manifold.fronts.conversation import Conversation
from mcp_manifold.fronts.http.request import read_body
from mcp_manifold.fronts.http.stream import EventStream, Tally
from mcp_manifold.fronts.sessions import OpenSession
from mcp_manifold.model.budget import MemoryBudget, Reservation
from mcp_manifold.model.policy import ANONYMOUS
from tests.unit.fronts.fakes import META, FakeGateway, constant, encoded, note, request

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


async def test_a_reader_that_hangs_up_ends_the_stream_quietly() -> None:
    stream = EventStream(Reader(ConnectionResetError()), Tally())
    stream.push(b"x")
    await asyncio.wait_for(stream.run(), 5)
    assert stream.gone
    assert not stream.push(b"y")


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


async def test_a_silent_call_is_committed_to_a_stream_when_told_to() -> None:
    reader = Reader()
    responder = Responder(reader, Tally())
    responder.open()
    responder.commit()
    responder.commit()
    await responder.finish(b"{}", 404)
    responder.close()
    assert reader.body == b"event: message\ndata: {}\n\n"
    assert repr(responder) == "<Responder done>"


async def test_a_deadline_tells_its_own_cancellation_from_others() -> None:
    async def waiting(*, arm: bool) -> str:
        task = asyncio.current_task()
        assert task is not None
        deadline = Deadline(task)
        if arm:
            deadline.arm(0.0)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if not deadline.forgive():
                raise
        return f"expired, {task.cancelling()} pending"

    assert await asyncio.wait_for(waiting(arm=True), 5) == "expired, 0 pending"
    task = asyncio.create_task(waiting(arm=False))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait({task}, timeout=5)
    assert task.cancelled()


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


async def test_a_call_cancelled_in_the_same_breath_is_never_begun() -> None:
    gateway, channel = FakeGateway(), Channel()
    gateway.scripts["ping"] = constant(b"{}")
    conversation = Conversation(gateway, OpenSession(gateway, "", "stdio", ANONYMOUS, ""), channel, modern=True)
    conversation.receive(encoded(request("ping", 1)))
    conversation.receive(encoded(note("notifications/cancelled", requestId=1)))
    conversation.receive(encoded(request("ping", 2)))
    await conversation.settle(5)
    assert channel.sent == [b'{"jsonrpc":"2.0","id":2,"result":{}}']
    assert len(gateway.calls) == 1


async def test_an_id_in_flight_cannot_be_used_again() -> None:
    gateway, channel = FakeGateway(), Channel()
    gateway.scripts["ping"] = constant(b"{}")
    conversation = Conversation(gateway, OpenSession(gateway, "", "stdio", ANONYMOUS, ""), channel, modern=True)
    conversation.receive(encoded(request("ping", 1)))
    conversation.receive(encoded(request("ping", 1)))
    await conversation.settle(5)
    assert b'"code":-32600' in channel.sent[0]
    assert channel.sent[1:] == [b'{"jsonrpc":"2.0","id":1,"result":{}}']


async def test_a_list_that_is_there_is_answered_at_once_and_one_that_is_not_is_waited_for() -> None:
    gateway, channel = FakeGateway(), Channel()
    gateway.lists["tools/list"] = (memoryview(b'{"tools":[]'), b"}")
    gateway.scripts["prompts/list"] = constant(b"{}")
    conversation = Conversation(gateway, OpenSession(gateway, "", "stdio", ANONYMOUS, ""), channel, modern=True)
    conversation.receive(encoded(request("initialize", 0, **GREETING)))
    await conversation.settle(5)
    conversation.receive(encoded(request("tools/list", 1)))
    conversation.receive(encoded(request("tools/list", 1)))
    assert channel.sent[1:] == [b'{"jsonrpc":"2.0","id":1,"result":{"tools":[]}}'] * 2
    conversation.receive(encoded(request("prompts/list", 2)))
    assert len(channel.sent) == 3
    await conversation.settle(5)
    assert channel.sent[3:] == [b'{"jsonrpc":"2.0","id":2,"result":{}}']


async def test_a_list_that_is_refused_is_an_error_at_once() -> None:
    gateway, channel = FakeGateway(), Channel()
    gateway.lists["tools/list"] = TooManyRequests("not now", retry_after=1.0)
    conversation = Conversation(gateway, OpenSession(gateway, "", "stdio", ANONYMOUS, ""), channel, modern=True)
    conversation.receive(encoded(request("tools/list", 1, _meta=META)))
    assert b"not now" in channel.sent[0]
    assert repr(conversation).endswith("in_flight=0> answering=0>")


async def test_settling_cancels_what_takes_too_long() -> None:
    gateway, channel = FakeGateway(), Channel()

    async def forever(_: Any) -> Any:
        await asyncio.Event().wait()

    gateway.scripts["ping"] = forever
    conversation = Conversation(gateway, OpenSession(gateway, "", "stdio", ANONYMOUS, ""), channel, modern=True)
    conversation.receive(encoded(request("ping", 1)))
    await asyncio.sleep(0)
    await asyncio.wait_for(conversation.settle(0), 5)
    assert gateway.calls[0].cancelled
    assert not channel.sent
    assert repr(conversation).endswith("in_flight=0> answering=0>")
