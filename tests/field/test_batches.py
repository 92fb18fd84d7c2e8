"""JSON-RPC batches, which clients of 2025-03-26 may send, and of no other revision."""

import asyncio
import json
from typing import Any

import pytest

from mcp_manifold.wire import batch_of
from tests.unit.fronts import wires
from tests.unit.fronts.fakes import (
    PROGRESS,
    Client,
    FakeGateway,
    Held,
    encoded,
    front,
    initialize,
    note,
    prepared,
    request,
    scripted,
)
from tests.unit.fronts.test_stdio import serving

pytestmark = pytest.mark.anyio

BATCH = [
    request("ping", 1),
    note("notifications/roots/list_changed"),
    request("tools/call", "two", name="x"),
    {"jsonrpc": "2.0", "id": 9, "result": {}},
    request("no/such", 3),
]
CODES = {1: None, "two": None, 3: -32601}


def codes(answers: list[Any]) -> dict[Any, int | None]:
    found = {answer["id"]: answer.get("error", {}).get("code") for answer in answers}
    assert len(found) == len(answers)
    return found


async def test_a_batch_is_answered_as_one_array() -> None:
    gateway, client = prepared(tools_call=Held(emits=[PROGRESS % 1]))
    held = gateway.scripts["tools/call"]
    assert isinstance(held, Held)
    held.released.set()
    session = await client.session(version="2025-03-26")
    answer = await session.call(BATCH)
    assert (answer.status, answer.header("content-type")) == (200, "application/json")
    assert codes(answer.json) == CODES
    assert [method for method, _ in gateway.notes] == ["notifications/roots/list_changed"]
    assert (await session.call(BATCH[1:2])).status == 202
    assert codes((await session.call([*BATCH[:1], 5, initialize(id_=6)])).json) == {1: None, None: -32600, 6: -32600}
    assert codes((await session.call([[request("ping", 1)], request("ping", 2)])).json) == {None: -32600, 2: None}


@pytest.mark.parametrize("version", ["2024-11-05", "2025-06-18", "2025-11-25"])
async def test_no_other_revision_has_batches(version: str) -> None:
    gateway, client = prepared()
    session = await client.session(version=version)
    assert (await session.call(BATCH)).error == -32600
    assert (await client.call(BATCH)).error == -32600
    assert len(gateway.calls) == 1


@pytest.mark.parametrize("body", [b"[]", b"[", b" {}", b"[1", encoded([request("ping")] * 101), b"\xff[1]"])
def test_what_is_no_batch_or_too_large_a_one_has_no_messages(body: bytes) -> None:
    assert batch_of(body, "2025-03-26") == []


async def test_a_batch_over_a_connection_is_answered_and_the_connection_goes_on() -> None:
    app = front(FakeGateway())
    session = await Client(app).session(version="2025-03-26")
    sent = wires.request("/mcp", encoded(BATCH), "content-type: application/json", f"mcp-session-id: {session.id}")
    async with wires.staged(app) as stage:
        for answer in await stage.asks(sent, sent):
            assert codes(json.loads(answer.body)) == CODES
    assert "in_flight=0" in repr(app)


@pytest.mark.parametrize("way", ["asgi", "connection"])
async def test_who_leaves_a_batch_leaves_nothing_in_flight(way: str) -> None:
    held = Held()
    _, client = prepared(tools_call=held)
    session = await client.session(version="2025-03-26")
    if way == "asgi":
        exchange = session.post(BATCH)
        await asyncio.wait_for(held.begun.wait(), 5)
        exchange.leave()
        held.released.set()
        await exchange.done()
    else:
        sent = wires.request("/mcp", encoded(BATCH), "content-type: application/json", f"mcp-session-id: {session.id}")
        async with wires.wired(client.app) as (stage, wire):
            await wire.send(sent)
            await asyncio.wait_for(held.begun.wait(), 5)
            wire.reset()
            await stage.at_rest()
    held.released.set()
    assert (await session.call(request("tools/call", 7, name="x"))).json["result"] == {}
    assert "in_flight=0" in repr(client.app)


async def test_stdio_answers_a_batch_one_by_one() -> None:
    async with serving(scripted()) as (peer, _):
        peer.send(initialize("2025-03-26"))
        await peer.receive()
        peer.send([*BATCH, 5])
        assert codes([await peer.receive() for _ in range(4)]) == {**CODES, None: -32600}


async def test_sse_answers_a_batch_one_by_one() -> None:
    _, client = prepared()
    async with client.open("GET", "/sse") as stream:
        opened = await stream.until(lambda answer: b"\n\n" in answer.body)
        path, _, query = opened.body.split(b"data: ")[1].decode().strip().partition("?")
        for message in (initialize("2025-03-26"), BATCH):
            assert (await client.send("POST", path, encoded(message), query=query.encode())).status == 202
            await stream.until(lambda answer: len(answer.events) >= 1)
        answer = await stream.until(lambda answer: len(answer.events) == 4)
        assert codes(answer.events[1:]) == CODES
