"""2026-07-28 over HTTP: the ladder of checks, deferred commit, cancellation by leaving."""

import asyncio
from typing import Any

import pytest

from mcp_manifold.errors import BackendUnavailable, RemoteError, UnknownItem
from mcp_manifold.fronts.http.asgi import STALL
from mcp_manifold.fronts.http.stream import MAX_EVENTS
from tests.fakes.clock import FakeClock
from tests.unit.fronts.fakes import (
    META,
    PROGRESS,
    Client,
    FakeGateway,
    Held,
    constant,
    encoded,
    front,
    modern,
    note,
    prepared,
    raising,
    request,
)

pytestmark = pytest.mark.anyio

RESULT = b'{"content":[],"big":123456789012345678901234567890,"x":1e999}'


async def test_a_result_that_comes_first_is_one_json_answer_byte_for_byte() -> None:
    gateway, client = prepared(tools_call=constant(RESULT))
    answer = await client.modern().done()
    assert answer.status == 200
    assert answer.header("content-type") == "application/json"
    assert answer.header("mcp-session-id") is None
    assert answer.body == b'{"jsonrpc":"2.0","id":1,"result":' + RESULT + b"}"
    (call,) = gateway.calls
    assert (call.session.version, call.session.key, call.session.scope) == ("2026-07-28", "", "")
    assert bytes(call.session.client_info) == b'{"name": "t", "version": "1"}'


@pytest.mark.parametrize("id_", ["1", '"a\\u0041"', "1.50", "-0", "123456789012345678901234567890"])
async def test_the_request_id_comes_back_as_it_was_spelled(id_: str) -> None:
    _, client = prepared()
    message, headers = modern()
    body = b'{"jsonrpc":"2.0","id":%b,"method":"tools/call","params":%b}' % (id_.encode(), encoded(message["params"]))
    answer = await client.call(body, headers=headers)
    assert answer.body == b'{"jsonrpc":"2.0","id":%b,"result":{}}' % id_.encode()


async def test_a_stray_session_id_is_ignored() -> None:
    _, client = prepared()
    message, headers = modern()
    assert (await client.call(message, headers=[*headers, ("mcp-session-id", "whatever")])).status == 200


@pytest.mark.parametrize(
    ("path", "scope"),
    [
        ("/mcp", ""),
        ("/mcp/", ""),
        ("/alpha/mcp", "server:alpha"),
        ("/groups/team/mcp", "group:team"),
        ("/k%C3%B6ln/mcp", "server:köln"),
    ],
)
async def test_the_path_names_the_scope(path: str, scope: str) -> None:
    gateway, client = prepared()
    message, headers = modern()
    assert (await client.call(message, path, headers=headers)).status == 200
    assert gateway.calls[0].session.scope == scope


@pytest.mark.parametrize(
    "path",
    [
        "//mcp",
        "/mcp//",
        "/beta/mcp",
        "/groups/none/mcp",
        "/%2e%2e/mcp",
        "/alpha%2Fx/mcp",
        "/%FF/mcp",
        "/a/b/mcp",
        "/MCP",
    ],
)
async def test_s4_every_other_path_is_nowhere(path: str) -> None:
    gateway, client = prepared()
    message, headers = modern()
    assert (await client.call(message, path, headers=headers)).status == 404
    assert not gateway.calls


async def test_all_endpoints_are_below_the_base_path() -> None:
    gateway = FakeGateway(base_path="/tools")
    message, headers = modern()
    client = Client(front(gateway))
    assert (await client.call(message, "/tools/mcp", headers=headers)).status == 200
    assert (await client.call(message, "/mcp", headers=headers)).status == 404
    assert (await client.send("GET", "/tools/_healthz")).status == 200
    answer = await client.send("GET", "/_healthz")
    assert answer.status == 404
    assert "/tools/mcp" in answer.json["endpoints"]


# --- the ladder ---------------------------------------------------------------------------------------------------


def without(*keys: str) -> dict[str, Any]:
    return {key: value for key, value in META.items() if key.rpartition("/")[2] not in keys}


@pytest.mark.parametrize(
    "params",
    [
        {"name": "echo"},
        {"name": "echo", "_meta": None},
        {"name": "echo", "_meta": without("protocolVersion")},
        {"name": "echo", "_meta": without("clientCapabilities")},
        {"name": "echo", "_meta": {**META, "io.modelcontextprotocol/clientCapabilities": 5}},
        {"name": "echo", "_meta": {**META, "io.modelcontextprotocol/protocolVersion": 5}},
        {"_meta": META},
        {"name": 5, "_meta": META},
    ],
)
async def test_an_incomplete_envelope_is_invalid_params(params: dict[str, Any]) -> None:
    gateway, client = prepared()
    _, headers = modern()
    answer = await client.call(request("tools/call", 7, **params), headers=headers)
    assert (answer.status, answer.error, answer.json["id"]) == (400, -32602, 7)
    assert not gateway.calls


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("mcp-name", "safe_tool"),
        ("mcp-name", "-"),
        ("mcp-name", "=?base64?c2FmZV90b29s?="),
        ("mcp-name", "=?base64?!!?="),
        ("mcp-name", "ECHO"),
        ("mcp-method", "tools/list"),
        ("mcp-method", "-"),
        ("mcp-protocol-version", "2025-06-18"),
        ("mcp-protocol-version", "-"),
    ],
)
async def test_s10_headers_that_differ_from_the_body_are_refused(name: str, value: str) -> None:
    gateway, client = prepared()
    message, headers = modern()
    headers = [(key, value if key == name else old) for key, old in headers]
    answer = await client.call(message, headers=headers)
    assert (answer.status, answer.error, answer.json["id"]) == (400, -32020, 1)
    assert not gateway.calls


async def test_s10_a_repeated_routing_header_is_refused_even_if_both_agree() -> None:
    gateway, client = prepared()
    message, headers = modern()
    answer = await client.call(message, headers=[*headers, ("mcp-name", "echo")])
    assert (answer.status, answer.error) == (400, -32020)
    assert not gateway.calls


async def test_s10_a_name_that_needs_it_is_compared_after_decoding() -> None:
    _, client = prepared()
    message, headers = modern(name="ähnlich")
    headers = [*headers[:2], ("mcp-name", "=?base64?w6RobmxpY2g=?=")]
    assert (await client.call(message, headers=headers)).status == 200


async def test_s10_a_handshake_request_with_lying_headers_is_refused_too() -> None:
    gateway, client = prepared()
    session = await client.session()
    lying = [*session.headers, ("mcp-name", "safe_tool")]
    answer = await client.call(request("tools/call", name="danger_tool"), headers=lying)
    assert (answer.status, answer.error) == (400, -32020)
    assert [call.method for call in gateway.calls] == ["initialize"]


async def test_an_unsupported_version_is_told_which_is_supported() -> None:
    _, client = prepared()
    message = request("tools/list", _meta={**META, "io.modelcontextprotocol/protocolVersion": "2099-01-01"})
    headers = [("mcp-protocol-version", "2099-01-01"), ("mcp-method", "tools/list")]
    answer = await client.call(message, headers=headers)
    assert (answer.status, answer.error) == (400, -32022)
    assert answer.json["error"]["data"] == {"supported": ["2026-07-28"], "requested": "2099-01-01"}


async def test_discover_needs_no_header_to_be_recognised() -> None:
    _, client = prepared()
    assert (await client.call(request("server/discover"))).error == -32602


async def test_mirrored_arguments_are_checked_where_a_tool_has_any() -> None:
    seen: list[tuple[object, object, object]] = []

    class Wrong:
        message = "Mcp-Param-Region differs"

    def check(schema: object, arguments: object, headers: Any) -> Wrong | None:
        seen.append((schema, arguments, headers))
        return Wrong() if headers.get("mcp-param-region") != "eu" else None

    gateway = FakeGateway()
    gateway.schemas["echo"] = b'{"type":"object"}'
    client = Client(front(gateway, check_params=check))
    message, headers = modern(arguments={"region": "eu"})
    assert (await client.call(message, headers=[*headers, ("mcp-param-region", "eu")])).status == 200
    assert seen == [({"type": "object"}, {"region": "eu"}, {"mcp-param-region": "eu"})]
    answer = await client.call(message, headers=[*headers, ("mcp-param-region", "us")])
    assert (answer.status, answer.error) == (400, -32020)
    twice = [("mcp-param-region", "eu"), ("mcp-param-region", "eu")]
    assert (await client.call(message, headers=[*headers, *twice])).error == -32020
    assert len(gateway.calls) == 1


async def test_notifications_are_accepted_and_responses_are_not() -> None:
    gateway, client = prepared()
    headers = [("mcp-protocol-version", "2026-07-28")]
    answer = await client.call(note("notifications/cancelled", requestId=1), headers=headers)
    assert (answer.status, answer.body) == (202, b"")
    assert (await client.call({"jsonrpc": "2.0", "id": 1, "result": {}}, headers=headers)).status == 400
    assert not gateway.notes


@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_without_a_session_only_post_makes_sense(method: str) -> None:
    _, client = prepared()
    answer = await client.send(method, "/mcp", headers=[("mcp-protocol-version", "2026-07-28")])
    assert answer.status == 405
    assert "POST" in (answer.header("allow") or "")
    assert (await client.send(method, "/mcp", headers=[("mcp-protocol-version", "2025-11-25")])).status == 400


# --- errors ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("exc", "status", "code"),
    [
        (UnknownItem("tool", "x"), 400, -32602),
        (BackendUnavailable("alpha", "not connected"), 200, -32603),
        (RemoteError(b'{"code":-32002,"message":"m","data":[1.50]}', code=-32002, backend="alpha"), 400, -32602),
        (RemoteError(b'{"code":-7,"message":"m"}', code=-7, backend="alpha"), 200, -7),
        (ZeroDivisionError("secret detail"), 200, -32603),
    ],
)
async def test_an_error_has_the_code_and_status_of_its_revision(exc: Exception, status: int, code: int) -> None:
    _, client = prepared(tools_call=raising(exc))
    answer = await client.modern().done()
    assert (answer.status, answer.error, answer.json["id"]) == (status, code, 1)
    assert b"secret detail" not in answer.body


async def test_an_unknown_method_is_not_found() -> None:
    _, client = prepared()
    answer = await client.modern("no/such").done()
    assert (answer.status, answer.error) == (404, -32601)


# --- deferred commit -----------------------------------------------------------------------------------------------


async def test_the_first_notification_turns_the_answer_into_a_stream() -> None:
    held = Held(RESULT, [PROGRESS % 1, PROGRESS % 2])
    _, client = prepared(tools_call=held)
    async with client.modern() as exchange:
        answer = await exchange.until(lambda answer: len(answer.events) == 2)
        assert answer.status == 200
        assert answer.header("content-type") == "text/event-stream"
        assert answer.header("cache-control") == "no-cache, no-transform"
        assert answer.header("x-accel-buffering") == "no"
        held.released.set()
        answer = await exchange.done()
    assert answer.complete
    assert [event.get("method") for event in answer.events] == ["notifications/progress"] * 2 + [None]
    assert b'"result":' + RESULT in answer.body


async def test_an_error_after_the_commit_is_the_last_event() -> None:
    async def script(call: Any) -> Any:
        call.reply.emit(PROGRESS % 1)
        raise UnknownItem("tool", "x")

    _, client = prepared(tools_call=script)
    answer = await client.modern().done()
    assert [("error" in event) for event in answer.events] == [False, True]


async def test_line_ends_in_a_payload_do_not_break_the_stream() -> None:
    async def script(call: Any) -> Any:
        call.reply.emit(b'{"jsonrpc":"2.0",\r\n"method":\n"x"}')
        return await constant('{"text":"a\u2028b"}'.encode())(call)

    _, client = prepared(tools_call=script)
    answer = await client.modern().done()
    assert answer.events[0] == {"jsonrpc": "2.0", "method": "x"}
    assert answer.events[1]["result"] == {"text": "a\u2028b"}


async def test_a_slow_reader_loses_notifications_but_never_the_result() -> None:
    count = MAX_EVENTS + 500
    held = Held(b"{}", [PROGRESS % n for n in range(count)])
    _, client = prepared(tools_call=held)
    exchange = client.modern()
    exchange.reading.clear()
    await asyncio.wait_for(held.begun.wait(), 5)
    assert client.app.tally.dropped_events == 500
    held.released.set()
    exchange.reading.set()
    answer = await exchange.done()
    assert len(answer.events) == MAX_EVENTS + 1
    assert answer.events[-1]["result"] == {}
    assert [event["params"]["progress"] for event in answer.events[:-1]] == list(range(MAX_EVENTS))


async def test_what_is_emitted_after_the_result_goes_nowhere() -> None:
    gateway, client = prepared()
    answer = await client.modern().done()
    gateway.calls[0].reply.emit(PROGRESS % 1)
    assert answer.json == {"jsonrpc": "2.0", "id": 1, "result": {}}


# --- cancellation --------------------------------------------------------------------------------------------------


async def test_leaving_cancels_a_quiet_call() -> None:
    held = Held()
    gateway, client = prepared(tools_call=held)
    exchange = client.modern()
    async with asyncio.timeout(5):
        await held.begun.wait()
        exchange.leave()
        await held.cancelled.wait()
    await exchange.done()
    assert gateway.calls[0].is_cancelled


async def test_leaving_cancels_a_streaming_call_at_once() -> None:
    held = Held(emits=[PROGRESS % 1])
    _, client = prepared(tools_call=held)
    exchange = client.modern()
    await exchange.until(lambda answer: bool(answer.events))
    exchange.leave()
    await asyncio.wait_for(held.cancelled.wait(), 5)
    await exchange.done()


async def test_a_handler_that_ignores_its_cancellation_is_stopped() -> None:
    stopped = asyncio.Event()

    async def deaf(_: Any) -> Any:
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    _, client = prepared(tools_call=deaf)
    exchange = client.modern()
    exchange.leave()
    await exchange.done()
    assert stopped.is_set()
    assert not exchange.task.cancelled()


async def test_stopping_the_server_task_cancels_the_call_and_leaves_nothing_behind() -> None:
    held = Held(emits=[PROGRESS % 1])
    gateway, client = prepared(tools_call=held)
    exchange = client.modern()
    await exchange.until(lambda answer: bool(answer.events))
    exchange.task.cancel()
    await asyncio.wait({exchange.task}, timeout=5)
    assert exchange.task.cancelled()
    assert gateway.calls[0].is_cancelled
    await asyncio.sleep(0)
    assert [task for task in asyncio.all_tasks() if task.get_name().startswith("front.")] == []


async def test_subscriptions_are_bounded_and_end_with_the_front() -> None:
    held = Held(b'{"over":true}', emits=[b'{"jsonrpc":"2.0","method":"notifications/subscriptions/acknowledged"}'])

    gateway = FakeGateway(limits={"max_streams": 1})
    gateway.scripts["subscriptions/listen"] = held
    client = Client(front(gateway))
    async with client.modern("subscriptions/listen") as exchange:
        await exchange.until(lambda answer: bool(answer.events))
        refused = await client.modern("subscriptions/listen").done()
        assert refused.error == -32603
        assert refused.json["error"]["data"]["retryAfterSeconds"] > 0
        client.app.close()
        assert (await exchange.done()).events[-1]["result"] == {"over": True}


async def test_a_subscriber_that_stopped_reading_is_let_go() -> None:
    held = Held(emits=[b'{"jsonrpc":"2.0","method":"notifications/subscriptions/acknowledged"}'])
    clock = FakeClock()
    gateway, client = prepared(clock=clock, subscriptions_listen=held)
    async with client.modern("subscriptions/listen") as exchange:
        await exchange.until(lambda answer: bool(answer.events))
        exchange.reading.clear()
        gateway.calls[0].reply.emit(PROGRESS)
        await clock.advance(STALL)
        assert held.cancelled.is_set()
