"""The legacy HTTP+SSE front."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from mcp_manifold.fronts.http.stream import MAX_EVENTS
from tests.unit.fronts.fakes import (
    PROGRESS,
    Answer,
    Client,
    Exchange,
    FakeGateway,
    Held,
    encoded,
    front,
    initialize,
    note,
    prepared,
    raising,
    request,
)

pytestmark = pytest.mark.anyio

CHANGED = "notifications/resources/list_changed"


class Peer:
    """A legacy client with its stream open."""

    def __init__(self, client: Client, exchange: Exchange, endpoint: str) -> None:
        self.client, self.exchange, self.endpoint = client, exchange, endpoint

    async def send(self, message: Any) -> Answer:
        path, _, query = self.endpoint.partition("?")
        return await self.client.send("POST", path, encoded(message), query=query.encode())

    async def events(self, count: int) -> list[Any]:
        return (await self.exchange.until(lambda answer: len(answer.events) >= count)).events

    async def greet(self) -> None:
        assert (await self.send(initialize("2024-11-05"))).status == 202
        await self.events(1)
        assert (await self.send(note("notifications/initialized"))).status == 202


@asynccontextmanager
async def peer(client: Client, path: str = "/sse") -> AsyncIterator[Peer]:
    async with client.open("GET", path) as exchange:
        answer = await exchange.until(lambda answer: b"\n\n" in answer.body)
        assert answer.body.startswith(b"event: endpoint\ndata: ")
        yield Peer(client, exchange, answer.body.split(b"\n")[1][6:].decode())


@pytest.mark.parametrize(
    ("path", "endpoint"),
    [
        ("/sse", "/messages?session_id="),
        ("/alpha/sse", "/alpha/messages?session_id="),
        ("/groups/team/sse", "/groups/team/messages?session_id="),
        ("/k%C3%B6ln/sse", "/k%C3%B6ln/messages?session_id="),
    ],
)
async def test_the_stream_opens_with_where_to_post(path: str, endpoint: str) -> None:
    _, client = prepared()
    async with peer(client, path) as alice:
        assert alice.endpoint.startswith(endpoint)


async def test_the_endpoint_is_below_the_base_path() -> None:
    gateway, client = prepared(FakeGateway(base_path="/tools"))
    async with peer(client, "/tools/sse") as alice:
        assert alice.endpoint.startswith("/tools/messages?")
        await alice.greet()
        assert gateway.calls[0].session.version == "2024-11-05"


async def test_answers_and_notifications_travel_on_the_stream() -> None:
    held = Held(b'{"n":1.50}', [PROGRESS % 1])
    gateway, client = prepared(tools_call=held)
    async with peer(client) as alice:
        await alice.greet()
        assert (await alice.send(request("tools/call", 5, name="x"))).status == 202
        assert (await alice.events(2))[1]["method"] == "notifications/progress"
        held.released.set()
        assert (await alice.events(3))[2] == {"jsonrpc": "2.0", "id": 5, "result": {"n": 1.5}}
        assert b'{"n":1.50}' in alice.exchange.answer.body
        gateway.change(CHANGED)
        assert (await alice.events(4))[3]["method"] == CHANGED


async def test_a_request_before_initialize_is_an_error_but_ping_is_not() -> None:
    _, client = prepared()
    async with peer(client) as alice:
        await alice.send(request("tools/list", 1))
        await alice.send(request("ping", 2))
        events = await alice.events(2)
        assert {event["id"]: event.get("error", {}).get("code") for event in events} == {1: -32600, 2: None}


async def test_a_failing_call_is_an_error_on_the_stream(caplog: pytest.LogCaptureFixture) -> None:
    _, client = prepared(tools_call=raising(ZeroDivisionError("secret detail")))
    async with peer(client) as alice:
        await alice.greet()
        await alice.send(request("tools/call", 1, name="x"))
        assert (await alice.events(2))[1]["error"] == {"code": -32603, "message": "Internal error"}
    assert "call failed unexpectedly" in caplog.text


async def test_a_cancelled_call_is_not_answered() -> None:
    held = Held()
    _, client = prepared(tools_call=held)
    async with peer(client) as alice:
        await alice.greet()
        await alice.send(request("tools/call", 1, name="x"))
        await asyncio.wait_for(held.begun.wait(), 5)
        await alice.send(note("notifications/cancelled", requestId=1))
        await asyncio.wait_for(held.cancelled.wait(), 5)
        await alice.send(request("ping", 2))
        assert [event.get("id") for event in await alice.events(2)] == [0, 2]


async def test_the_session_ends_with_its_stream() -> None:
    held = Held()
    gateway, client = prepared(tools_call=held)
    async with peer(client) as alice:
        await alice.greet()
        await alice.send(request("tools/call", 1, name="x"))
        await asyncio.wait_for(held.begun.wait(), 5)
    assert gateway.calls[1].is_cancelled
    assert len(gateway.ends) == 1
    assert not gateway.watchers
    assert (await alice.send(request("ping"))).status == 404
    assert (client.app.tally.sessions, client.app.tally.streams) == (0, 0)


async def test_s12_nobody_else_can_post_into_a_stream() -> None:
    tokens = [{"name": "alice", "token": "token-of-alice"}, {"name": "bob", "token": "token-of-bob"}]
    gateway = FakeGateway(tokens=tokens)
    app = front(gateway)
    bob = Client(app, authorization="Bearer token-of-bob")
    async with peer(Client(app, authorization="Bearer token-of-alice")) as alice:
        stolen = await Peer(bob, alice.exchange, alice.endpoint).send(initialize())
        guessed = await bob.send("POST", "/messages", encoded(initialize()), query=b"session_id=" + b"A" * 43)
        assert (stolen.status, stolen.body) == (404, guessed.body)
        assert not gateway.calls


async def test_s13_a_stream_id_is_worth_nothing_on_another_endpoint() -> None:
    _, client = prepared()
    async with peer(client, "/alpha/sse") as alice:
        query = alice.endpoint.partition("?")[2].encode()
        for path in ("/messages", "/groups/team/messages"):
            assert (await client.send("POST", path, encoded(initialize()), query=query)).status == 404
        as_header = [("mcp-session-id", query.decode().removeprefix("session_id="))]
        assert (await client.call(request("ping"), "/alpha/mcp", headers=as_header)).status == 404


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"jsonrpc":"2.0"}'])
async def test_what_is_no_message_is_refused_where_it_was_posted(body: bytes) -> None:
    _, client = prepared()
    async with peer(client) as alice:
        assert (await alice.send(body)).status == 400


async def test_a_post_needs_its_stream() -> None:
    _, client = prepared()
    assert (await client.send("POST", "/messages", encoded(initialize()))).status == 400
    assert (await client.send("POST", "/messages", b"", query=b"session_id=" + b"&a" * 100)).status in (400, 404)


async def test_streams_are_bounded() -> None:
    _, client = prepared(FakeGateway(limits={"max_streams": 1}))
    async with peer(client):
        assert (await client.send("GET", "/sse")).status == 503


async def test_a_reader_that_stopped_loses_its_stream_not_our_memory() -> None:
    gateway, client = prepared(FakeGateway(limits={"max_calls_per_session": 10_000}))
    async with peer(client) as alice:
        await alice.greet()
        alice.exchange.reading.clear()
        for count in range(2 * MAX_EVENTS + 10):
            if (await alice.send(request("ping", count))).status == 404:
                break
        await alice.exchange.done()
        assert not alice.exchange.answer.complete
        assert len(gateway.ends) == 1
