"""The handshake era over Streamable HTTP: sessions, who may use them, what travels on which stream."""

import asyncio
import re
from typing import Any

import pytest

from mcp_manifold.errors import CallCancelled, UnknownItem
from mcp_manifold.wire import HANDSHAKE_VERSIONS
from tests.unit.fronts.fakes import (
    PROGRESS,
    Client,
    FakeGateway,
    Held,
    HttpSession,
    constant,
    front,
    initialize,
    note,
    prepared,
    raising,
    request,
)

pytestmark = pytest.mark.anyio

TOKENS = [{"name": "alice", "token": "token-of-alice"}, {"name": "bob", "token": "token-of-bob"}]
CHANGED = "notifications/tools/list_changed"


@pytest.mark.parametrize("version", HANDSHAKE_VERSIONS)
async def test_initialize_opens_a_session_of_the_requested_revision(version: str) -> None:
    gateway, client = prepared()
    answer = await client.call(initialize(version))
    assert answer.status == 200
    assert re.fullmatch(r"[!-~]{43,}", answer.header("mcp-session-id") or "")
    session = gateway.calls[0].session
    assert (session.version, session.principal.name) == (version, "anonymous")
    assert bytes(session.client_info) == b'{"name": "t", "version": "1"}'


async def test_an_unknown_revision_gets_the_latest_handshake_one() -> None:
    gateway, client = prepared()
    await client.call(initialize("2026-07-28"))
    await client.call(initialize("1.0"))
    assert [call.session.version for call in gateway.calls] == ["2025-11-25", "2025-11-25"]


async def test_s11_ids_never_repeat_and_are_not_what_links_are_keyed_by() -> None:
    gateway, client = prepared()
    ids = {(await client.session(ready=False)).id for _ in range(50)}
    keys = {call.session.key for call in gateway.calls}
    assert len(ids) == len(keys) == 50
    assert not ids & keys
    assert not any(id_ in repr(client.app) for id_ in ids)


@pytest.mark.parametrize("params", [{}, {"protocolVersion": 5}, {"protocolVersion": "2025-11-25", "clientInfo": []}])
async def test_a_malformed_initialize_opens_nothing(params: dict[str, Any]) -> None:
    _, client = prepared()
    answer = await client.call(request("initialize", **params))
    assert answer.error == -32602
    assert answer.header("mcp-session-id") is None
    assert client.app.tally.sessions == 0


async def test_an_initialize_that_fails_opens_nothing() -> None:
    gateway, client = prepared(initialize=raising(RuntimeError("x")))
    answer = await client.call(initialize())
    assert answer.error == -32603
    assert answer.header("mcp-session-id") is None
    assert client.app.tally.sessions == 0
    assert not gateway.watchers


async def test_requests_are_answered_within_the_session() -> None:
    gateway, client = prepared(tools_list=constant(b'{"tools":[]}'))
    session = await client.session("/alpha/mcp")
    assert (await session.call(request("tools/list", "a"))).json == {
        "jsonrpc": "2.0",
        "id": "a",
        "result": {"tools": []},
    }
    assert (await session.call(request("ping"))).json["result"] == {}
    assert {call.session.scope for call in gateway.calls} == {"server:alpha"}
    assert len({id(call.session) for call in gateway.calls}) == 1


async def test_notifications_and_responses_are_accepted_without_a_body() -> None:
    gateway, client = prepared()
    session = await client.session()
    for message in (
        note("notifications/roots/list_changed"),
        {"jsonrpc": "2.0", "id": 5, "result": {}},
        note("notifications/cancelled", requestId=99),
        note("notifications/cancelled"),
    ):
        answer = await session.call(message)
        assert (answer.status, answer.body) == (202, b"")
    assert gateway.notes == [("notifications/roots/list_changed", {})]


async def test_an_error_is_an_answer_with_status_200() -> None:
    _, client = prepared(tools_call=raising(UnknownItem("tool", "x")))
    session = await client.session()
    answer = await session.call(request("tools/call", 4, name="x"))
    assert (answer.status, answer.error, answer.json["id"]) == (200, -32602, 4)
    answer = await session.call(request("no/such"))
    assert (answer.status, answer.error) == (200, -32601)


async def test_a_second_initialize_in_a_session_is_refused() -> None:
    gateway, client = prepared()
    session = await client.session()
    assert (await session.call(initialize())).error == -32600
    assert len(gateway.calls) == 1


@pytest.mark.parametrize(
    ("version", "status"), [("2025-03-26", 200), ("2024-11-05", 200), ("2099-01-01", 400), ("", 400)]
)
async def test_an_invalid_version_header_is_a_bad_request(version: str, status: int) -> None:
    _, client = prepared()
    session = await client.session()
    answer = await client.call(request("ping"), headers=[*session.headers, ("mcp-protocol-version", version)])
    assert answer.status == status


# --- whose session --------------------------------------------------------------------------------------------------


async def test_s11_an_unknown_id_and_somebody_elses_are_the_same_404() -> None:
    gateway, _ = prepared(FakeGateway(tokens=TOKENS))
    app = front(gateway)
    alice, bob = (Client(app, authorization=f"Bearer token-of-{name}") for name in ("alice", "bob"))
    session = await alice.session()
    stolen = await HttpSession(bob, "/mcp", session.id).call(request("ping"))
    guessed = await HttpSession(bob, "/mcp", "A" * 43).call(request("ping"))
    assert (stolen.status, stolen.body, stolen.headers) == (404, guessed.body, guessed.headers)
    assert (await session.call(request("ping"))).status == 200


async def test_s12_nobody_else_can_cancel_listen_or_end() -> None:
    held = Held()
    gateway, _ = prepared(FakeGateway(tokens=TOKENS), tools_call=held)
    app = front(gateway)
    alice, bob = (Client(app, authorization=f"Bearer token-of-{name}") for name in ("alice", "bob"))
    session = await alice.session()
    thief = HttpSession(bob, "/mcp", session.id)
    async with session.post(request("tools/call", 3, name="x")) as exchange:
        await asyncio.wait_for(held.begun.wait(), 5)
        assert (await thief.call(note("notifications/cancelled", requestId=3))).status == 404
        assert (await thief.listen().done()).status == 404
        assert (await thief.delete()).status == 404
        assert not held.cancelled.is_set()
        held.released.set()
        assert (await exchange.done()).json["result"] == {}


async def test_s12_a_theft_is_logged_without_the_id(caplog: pytest.LogCaptureFixture) -> None:
    gateway, _ = prepared(FakeGateway(tokens=TOKENS))
    app = front(gateway)
    session = await Client(app, authorization="Bearer token-of-alice").session()
    await HttpSession(Client(app, authorization="Bearer token-of-bob"), "/mcp", session.id).call(request("ping"))
    assert "belongs to another principal" in caplog.text
    assert all(session.id not in str(record.__dict__) for record in caplog.records)


async def test_s13_a_session_is_worth_nothing_on_another_endpoint() -> None:
    _, client = prepared()
    session = await client.session("/alpha/mcp")
    for path in ("/mcp", "/groups/team/mcp", "/k%C3%B6ln/mcp"):
        assert (await HttpSession(client, path, session.id).call(request("ping"))).status == 404
    answer = await client.send(
        "POST",
        "/alpha/messages",
        b'{"jsonrpc":"2.0","id":1,"method":"ping"}',
        query=b"session_id=" + session.id.encode(),
    )
    assert answer.status == 404


async def test_an_ended_session_is_gone_and_its_calls_end() -> None:
    held = Held()
    gateway, client = prepared(tools_call=held)
    session = await client.session()
    async with session.post(request("tools/call", name="x")) as exchange:
        await asyncio.wait_for(held.begun.wait(), 5)
        assert (await session.delete()).status == 204
        assert (await exchange.done()).error == -32800
    assert (await session.call(request("ping"))).status == 404
    assert (await session.delete()).status == 404
    assert len(gateway.ends) == 1
    assert not gateway.watchers


async def test_sessions_are_bounded_and_idle_ones_make_room() -> None:
    gateway = FakeGateway(limits={"max_sessions": 2, "session_idle": 100.0})
    gateway, client = prepared(gateway)
    await client.session()
    await client.session()
    answer = await client.call(initialize())
    assert answer.status == 503
    assert int(answer.header("retry-after") or "") > 0
    assert not any(call.method == "initialize" for call in gateway.calls[2:])
    limits = gateway.settings.limits.model_copy(update={"session_idle": 1e-9})
    gateway.settings = gateway.settings.model_copy(update={"limits": limits})
    await client.session()
    assert len(gateway.ends) == 2


async def test_an_idle_session_expires_but_one_in_use_does_not() -> None:
    held = Held()
    ended = asyncio.Event()
    gateway, client = prepared(FakeGateway(limits={"session_idle": 0.05}), tools_call=held)
    gateway.ended = lambda session: ended.set()  # type: ignore[method-assign]  # to wait for it
    busy = await client.session()
    async with busy.post(request("tools/call", name="x")) as exchange:
        await asyncio.wait_for(held.begun.wait(), 5)
        idle = await client.session(ready=False)
        await asyncio.wait_for(ended.wait(), 5)
        assert (await idle.call(request("ping"))).status == 404
        assert client.app.tally.sessions == 1
        held.released.set()
        assert (await exchange.done()).status == 200


# --- calls ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("sent", "named"), [(b"7", b"7"), (b"7", b"7.0"), (b'"a"', b'"\\u0061"')])
async def test_a_cancelled_call_ends_with_an_error(sent: bytes, named: bytes) -> None:
    held = Held()
    _, client = prepared(tools_call=held)
    session = await client.session()
    body = b'{"jsonrpc":"2.0","id":%b,"method":"tools/call","params":{"name":"x"}}' % sent
    async with session.post(body) as exchange:
        await asyncio.wait_for(held.begun.wait(), 5)
        cancel = b'{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":%b}}' % named
        assert (await session.call(cancel)).status == 202
        answer = await exchange.done()
    assert held.cancelled.is_set()
    assert (answer.error, answer.json["error"]["message"]) == (-32800, "Request cancelled")


async def test_a_number_does_not_cancel_a_string() -> None:
    held = Held()
    _, client = prepared(tools_call=held)
    session = await client.session()
    async with session.post(request("tools/call", "7", name="x")) as exchange:
        await asyncio.wait_for(held.begun.wait(), 5)
        await session.call(note("notifications/cancelled", requestId=7))
        assert not held.cancelled.is_set()
        held.released.set()
        assert "result" in (await exchange.done()).json


async def test_a_call_cancelled_from_behind_is_an_error_too() -> None:
    _, client = prepared(tools_call=raising(CallCancelled()))
    session = await client.session()
    assert (await session.call(request("tools/call", name="x"))).error == -32800


async def test_leaving_is_not_cancelling() -> None:
    held = Held(emits=[PROGRESS % 1])
    _, client = prepared(tools_call=held)
    session = await client.session()
    exchange = session.post(request("tools/call", name="x"))
    await exchange.until(lambda answer: bool(answer.events))
    exchange.leave()
    assert (await session.call(note("notifications/roots/list_changed"))).status == 202
    assert not held.cancelled.is_set()
    held.released.set()
    await exchange.done()


async def test_progress_travels_on_the_stream_of_its_call() -> None:
    held = Held(b'{"ok":true}', [PROGRESS % 1])
    _, client = prepared(tools_call=held)
    session = await client.session()
    async with session.listen() as stream, session.post(request("tools/call", name="x")) as exchange:
        await exchange.until(lambda answer: len(answer.events) == 1)
        held.released.set()
        answer = await exchange.done()
        assert answer.events[-1]["result"] == {"ok": True}
        assert stream.answer.events == []


async def test_an_id_in_flight_cannot_be_used_again() -> None:
    held = Held()
    _, client = prepared(tools_call=held)
    session = await client.session()
    async with session.post(request("tools/call", 1, name="x")) as exchange:
        await asyncio.wait_for(held.begun.wait(), 5)
        again = await session.call(b'{"jsonrpc":"2.0","id":1.0,"method":"ping"}')
        assert again.error == -32600
        held.released.set()
        await exchange.done()
    assert (await session.call(request("tools/call", 1, name="x"))).json["result"] == {}


async def test_calls_in_flight_are_bounded_per_session() -> None:
    held = Held()
    _, client = prepared(FakeGateway(limits={"max_calls_per_session": 1}), tools_call=held)
    session, other = await client.session(), await client.session()
    async with session.post(request("tools/call", 1, name="x")):
        await asyncio.wait_for(held.begun.wait(), 5)
        refused = await session.call(request("ping", 2))
        assert refused.json["error"]["data"]["retryAfterSeconds"] > 0
        assert "result" in (await other.call(request("ping", 2))).json
        held.released.set()


# --- the standing stream --------------------------------------------------------------------------------------------


async def test_changes_are_told_on_the_standing_stream_once_each() -> None:
    gateway, client = prepared()
    session = await client.session()
    gateway.change(CHANGED)
    gateway.change(CHANGED, "notifications/prompts/list_changed")
    async with session.listen() as stream:
        answer = await stream.until(lambda answer: len(answer.events) == 2)
        assert {event["method"] for event in answer.events} == {CHANGED, "notifications/prompts/list_changed"}
        assert answer.header("content-type") == "text/event-stream"
        gateway.change(CHANGED)
        answer = await stream.until(lambda answer: len(answer.events) == 3)


async def test_a_client_is_only_told_of_changes_after_it_is_initialized() -> None:
    gateway, client = prepared()
    session = await client.session(ready=False)
    async with session.listen() as stream:
        await stream.until(lambda answer: answer.status == 200)
        gateway.change(CHANGED)  # it cannot have listed before, so nothing changed for it
        await session.call(note("notifications/initialized"))
        await session.call(request("ping"))
        assert stream.answer.events == []
        gateway.change(CHANGED)
        await stream.until(lambda answer: len(answer.events) == 1)


async def test_there_is_one_standing_stream_per_session() -> None:
    _, client = prepared()
    session = await client.session()
    async with session.listen() as stream:
        await stream.until(lambda answer: answer.status == 200)
        assert (await session.listen().done()).status == 409
    async with session.listen() as stream:
        await stream.until(lambda answer: answer.status == 200)


async def test_standing_streams_are_bounded_and_counted() -> None:
    _, client = prepared(FakeGateway(limits={"max_streams": 1}))
    first, second = await client.session(), await client.session()
    async with first.listen() as stream:
        await stream.until(lambda answer: answer.status == 200)
        assert client.app.tally.streams == 1
        assert (await second.listen().done()).status == 503
    assert client.app.tally.streams == 0


async def test_the_standing_stream_ends_with_its_session_and_with_the_front() -> None:
    gateway, client = prepared()
    for end in ("delete", "close"):
        session = await client.session()
        async with session.listen() as stream:
            await stream.until(lambda answer: answer.status == 200)
            if end == "delete":
                await session.delete()
            else:
                client.app.close()
            assert (await stream.done()).complete
    assert len(gateway.ends) == 2
    assert client.app.tally.sessions == 0


async def test_a_standing_stream_must_be_accepted() -> None:
    _, client = prepared()
    session = await client.session()
    refused = await client.send("GET", "/mcp", headers=[*session.headers, ("accept", "application/json")])
    assert refused.status == 406
