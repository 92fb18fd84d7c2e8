"""Clients that accept only one form of response, by name, wildcard, or several header lines."""

from typing import Any

import pytest

from mcp_manifold.errors import CallCancelled
from mcp_manifold.wire import Payload
from tests.unit.fronts import wires
from tests.unit.fronts.fakes import (
    PROGRESS,
    Answer,
    Client,
    Exchange,
    FakeGateway,
    Held,
    HttpSession,
    encoded,
    front,
    initialize,
    modern,
    note,
    prepared,
    request,
)

pytestmark = pytest.mark.anyio

JSON, EVENTS = "application/json", "text/event-stream"
FORMS: dict[str, tuple[tuple[str, ...], str | None]] = {
    "JSON": ((JSON,), JSON),
    "JSON by wildcard": (("application/*",), JSON),
    "JSON with a parameter": (("application/json;charset=utf-8",), JSON),
    "JSON and another type": (("application/json, application/mcp+json",), JSON),
    "JSON, never events": (("text/event-stream;q=0, */*",), None),
    "events": ((EVENTS,), EVENTS),
    "events by wildcard": (("Text/*;q=0.2",), EVENTS),
    "both": ((f"{JSON};q=0.9, {EVENTS}",), None),
    "both on two lines": ((EVENTS, JSON), None),
    "anything": (("text/html, */*;q=0.1",), None),
    "an empty line": (("",), None),
    "no line": ((), None),
}
CALL = request("tools/call", 7, name="x")


def form(answer: Answer) -> str | None:
    return answer.header("content-type")


def messages(answer: Answer) -> list[Any]:
    return answer.events if form(answer) == EVENTS else [answer.json]


def posted(client: Client, message: Any, accept: tuple[str, ...], *lines: tuple[str, str]) -> Exchange:
    return client.post(message, headers=[*lines, *(("accept", value) for value in accept or "-")])


@pytest.mark.parametrize("case", FORMS)
async def test_an_answer_comes_in_a_form_that_is_accepted(case: str) -> None:
    accept, expected = FORMS[case]
    held = Held(emits=[PROGRESS % 1])
    held.released.set()
    _, client = prepared(tools_call=held)
    greeted = await posted(client, initialize(), accept).done()
    assert form(greeted) == (expected or JSON)
    id_ = greeted.header("mcp-session-id")
    assert id_ is not None
    session = ("mcp-session-id", id_)
    assert (await posted(client, note("notifications/initialized"), accept, session).done()).status == 202
    assert form(await posted(client, request("ping"), accept, session).done()) == (expected or JSON)
    message, lines = modern()
    for answer in (
        await posted(client, CALL, accept, session).done(),
        await posted(client, message, accept, *lines).done(),
    ):
        assert (answer.status, form(answer)) == (200, expected or EVENTS)
        assert messages(answer)[-1]["result"] == {}
        assert len(messages(answer)) == (1 if expected == JSON else 2)


async def accepting(client: Client, accept: str) -> HttpSession:
    session = await client.session()
    client.headers["accept"] = accept
    return session


@pytest.mark.parametrize("is_sent_first", [True, False])
async def test_an_error_to_who_accepts_events_only(is_sent_first: bool) -> None:
    gateway, client = prepared()
    client.headers["accept"] = EVENTS
    gateway.at_once["initialize"] = ValueError("x")
    refused = await client.call(initialize())
    assert (refused.header("mcp-session-id"), messages(refused)[0]["error"]["code"]) == (None, -32603)
    del gateway.at_once["initialize"]
    session = await client.session()
    if is_sent_first:
        gateway.at_once["tools/call"] = ValueError("x")
    else:
        gateway.scripts["tools/call"] = held = Held()
        held.released.set()
    answer = await session.call(CALL)
    assert (answer.status, form(answer), "error" in messages(answer)[0]) == (200, EVENTS, is_sent_first)
    message, lines = modern("unknown/method")
    answer = await client.call(message, headers=lines)
    assert (answer.status, answer.error) == (404, -32601)


@pytest.mark.parametrize("listens", [True, False])
async def test_a_server_request_reaches_who_accepts_json_only_on_its_standing_stream_or_fails(listens: bool) -> None:
    async def asking(call: Any) -> Payload:
        try:
            return Payload(bytes((await call.session.reach.ask("roots/list", None, call)).result))
        except CallCancelled:
            return Payload(b'{"failed":true}')

    _, client = prepared(tools_call=asking)
    session = await accepting(client, JSON)
    if not listens:
        assert (await session.call(CALL)).json["result"] == {"failed": True}
        return
    async with client.open("GET", "/mcp", headers=[*session.headers, ("accept", EVENTS)]) as stream:
        await stream.until(lambda answer: bool(answer.status))
        async with session.post(CALL) as exchange:
            await stream.until(lambda answer: len(answer.events) == 1)
            await session.call({"jsonrpc": "2.0", "id": stream.answer.events[0]["id"], "result": {"roots": []}})
            answer = await exchange.done()
    assert (form(answer), answer.json["result"]) == (JSON, {"roots": []})


async def test_streams_need_a_client_that_accepts_them() -> None:
    gateway, client = prepared()
    session = await accepting(client, JSON)
    assert (await session.listen().done()).status == 406
    message, lines = modern("subscriptions/listen")
    assert (await client.call(message, headers=lines)).status == 406
    two_lines = [("accept", EVENTS), ("accept", JSON)]
    async with client.open("GET", "/mcp", headers=[*session.headers, *two_lines]) as stream:
        assert (await stream.until(lambda answer: bool(answer.status))).status == 200
    assert [call.method for call in gateway.calls] == ["initialize"]


@pytest.mark.parametrize(("accept", "expected"), [(JSON, JSON), (EVENTS, EVENTS)])
async def test_a_connection_answers_in_the_accepted_form_and_goes_on(accept: str, expected: str) -> None:
    message, lines = modern()
    fields = [f"{name}: {value}" for name, value in [*lines, ("content-type", JSON), ("accept", accept)]]
    async with wires.staged(front(FakeGateway())) as stage:
        sent = wires.request("/mcp", encoded(message), *fields)
        for answer in await stage.asks(sent, sent):
            assert answer.headers[b"content-type"].decode() == expected
            assert b'"result":{}' in answer.body
