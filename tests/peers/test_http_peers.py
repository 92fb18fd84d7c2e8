"""The scripted HTTP peers: status codes, headers, sessions, streams and faults. Knows nothing of the product."""

import json
from collections.abc import Mapping

import pytest

from tests.peers import http_wire, jsontext, modern
from tests.peers.backend import HTML, Act, Fault, HttpBackend, Script, SseBackend, named, tool
from tests.peers.clients import HttpClient, ModernClient, SseClient

pytestmark = pytest.mark.anyio

SCHEMA = {
    "type": "object",
    "properties": {
        "region": {"type": "string", "x-mcp-header": "Region"},
        "deep": {"type": "object", "properties": {"on": {"type": "boolean", "x-mcp-header": "On"}}},
    },
}


# --- sessions and streams -----------------------------------------------------------------------------------------


async def test_a_session_is_given_required_forgotten_and_deleted() -> None:
    async with HttpBackend(named("echo")) as backend, HttpClient(backend.url) as client:
        assert (await client.connect()).get("Mcp-Session-Id") == client.session
        assert (await client.request("tools/list")).status == 200
        first, client.session = client.session, None
        assert (await client.request("tools/list")).status == 400
        client.session = first
        backend.forget_sessions()
        assert (await client.request("tools/list")).status == 404
        client.session, client.is_connected = None, False
        await client.connect()
        assert await client.delete() == 200
        assert (await client.request("tools/list")).status == 404
        assert backend.deletes == [client.session]
        assert len(backend.calls("initialize")) == 2


async def test_sessions_and_the_get_stream_can_be_left_out() -> None:
    script = Script(sessions=False, get_stream=False, tools=(tool("echo"),))
    async with HttpBackend(script) as backend, HttpClient(backend.url) as client:
        assert (await client.connect()).get("Mcp-Session-Id") is None
        assert (await client.call("echo", {"text": "x"})).text == "x"
        assert await client.delete() == 405
        assert (await client.open_get_stream()).status == 405


async def test_the_get_stream_carries_what_belongs_to_no_request() -> None:
    asking = Script(on={"notifications/initialized": Act("ask")}, tools=(tool("echo"),))
    answers = {"roots/list": '{"roots":[]}'}
    async with HttpBackend(asking) as backend, HttpClient(backend.url, answers=answers) as client:
        await client.connect()
        stream = await client.open_get_stream()
        assert stream.status == 200
        await client.wait_for("roots/list")
        answered = await backend.wait_for(lambda item: item.kind == "response")
        assert answered.raw.endswith(b'"result":{"roots":[]}}')
        await backend.announce("x/y", '{"a":1.50}')
        assert (await client.wait_for("x/y")).params == b'{"a":1.50}'
        assert (
            stream.events[-1].raw
            == b'event: message\r\ndata: {"jsonrpc":"2.0","method":"x/y","params":{"a":1.50}}\r\n\r\n'
        )
        stream.close()


async def test_replies_are_json_or_events_as_scripted() -> None:
    kinds: Mapping[str, tuple[str, str]] = {
        "json": ("application/json", "application/json"),
        "sse": ("text/event-stream", "text/event-stream"),
        "deferred": ("application/json", "text/event-stream"),
    }
    for mode, expected in kinds.items():
        script = Script(replies=mode, tools=(tool("echo"), tool("progress", Act("progress"))))  # type: ignore[arg-type]  # a literal
        async with HttpBackend(script) as backend, HttpClient(backend.url) as client:
            await client.connect()
            plain = await client.call("echo")
            params = {"name": "progress", "_meta": {"progressToken": 1}}
            noted = await client.request("tools/call", params)
            assert (plain.get("content-type"), noted.get("content-type")) == expected


async def test_connections_are_kept_counted_and_lost_without_cancelling_handshake_calls() -> None:
    async with HttpBackend(named("everything")) as backend, HttpClient(backend.url) as client:
        await client.connect()
        for _ in range(5):
            await client.call("echo")
        assert backend.connections == client.caller.opened == backend.open_connections == 1
        assert [item.method for item in backend.exchanges] == ["POST"] * 7
        assert backend.exchanges[-1].header("mcp-protocol-version") == "2025-11-25"
        pending = await client.begin("tools/call", {"name": "hang"})
        await backend.wait_for("tools/call", count=6)
        client.abandon(pending)
        await backend.wait_for(lambda item: item.kind == "closed")
        assert backend.cancelled == []


# --- faults ----------------------------------------------------------------------------------------------------------


async def test_faults_come_as_ordered_and_the_session_survives_them() -> None:
    async with HttpBackend(named("echo")) as backend, HttpClient(backend.url) as client:
        await client.connect()
        for status in (401, 403, 429, 500, 502, 503):
            backend.fail(Fault(status, b"why", (("Retry-After", "7"),), method="tools/call"))
            assert (await client.request("tools/list")).status == 200
            failed = await client.call("echo")
            assert (failed.status, failed.raw, failed.get("retry-after")) == (status, b"why", "7")
            assert (await client.call("echo", {"text": "x"})).text == "x"
        for cutting in (Fault(kind="reset", method="tools/call"), Fault(kind="cut", method="tools/call")):
            backend.fail(cutting)
            with pytest.raises(ConnectionError):
                await client.call("echo")
            assert (await client.call("echo", {"text": "x"})).text == "x"
        seen = len(backend.calls("tools/call"))
        backend.fail(Fault(kind="hang", gate="g", method="tools/call"))
        pending = await client.begin("tools/call", {"name": "echo", "arguments": {"text": "x"}})
        await backend.wait_for(lambda item: item.kind == "http" and item.raw == backend.exchanges[-1].raw)
        assert len(backend.calls("tools/call")) == seen
        await backend.release("g")
        assert (await pending.reply()).text == "x"
        backend.fail(HTML)
        for _ in range(2):
            assert (await client.call("echo")).get("content-type") == "text/html"
        backend.heal()
        await backend.refuse()
        with pytest.raises(ConnectionError):
            await client.call("echo")
        await backend.listen()
        assert (await client.call("echo", {"text": "same session"})).text == "same session"


async def test_a_token_is_required_where_one_is_set() -> None:
    async with HttpBackend(named("echo"), token="right") as backend:
        async with HttpClient(backend.url, token="wrong") as client:
            refused = await client.connect()
            assert (refused.status, refused.get("www-authenticate")) == (401, 'Bearer error="invalid_token"')
        async with HttpClient(backend.url, token="right") as client:
            assert (await client.connect()).status == 200


async def test_malformed_posts_are_told_apart() -> None:
    async with HttpBackend(named("echo")) as backend, HttpClient(backend.url) as client:
        json_type, both = ("Content-Type", "application/json"), ("Accept", "application/json, text/event-stream")
        assert (await client.exchange("{}", (json_type,))).status == 406
        assert (await client.exchange("{}", (both, ("Content-Type", "text/plain")))).status == 415
        broken = await client.exchange("[", (json_type, both))
        assert (broken.status, broken.error_code) == (400, -32700)
        assert backend.recorder.of("garbage")[0].raw == b"["
        old = await client.exchange("{}", (json_type, both, ("MCP-Protocol-Version", "1999-01-01")))
        assert old.status == 400


# --- 2026-07-28 -----------------------------------------------------------------------------------------------------


async def test_a_header_that_differs_from_the_body_is_refused() -> None:
    async with HttpBackend(named("echo")) as backend, ModernClient(backend.url) as client:
        for header, value in (
            ("mcp-method", None),
            ("mcp-method", "tools/list"),
            ("mcp-name", None),
            ("mcp-name", "other"),
            ("mcp-name", "=?base64?!?="),
            ("mcp-protocol-version", "2025-11-25"),
        ):
            client.override = {header: value}
            reply = await client.call("echo", id="my id")
            assert (reply.status, reply.code) == (400, -32020), header
            assert jsontext.member(reply.raw, "id") == b'"my id"'
        client.override, client.extra = {}, (("Mcp-Name", "echo"),)
        assert (await client.call("echo")).code == -32020


async def test_missing_meta_and_other_versions_are_refused() -> None:
    async with HttpBackend(Script(era="modern")) as backend, ModernClient(backend.url) as client:
        client.meta_override = {"clientCapabilities": None}
        assert ((await client.connect()).status, (await client.connect()).code) == (400, -32602)
        client.meta_override = {"protocolVersion": b'"2030-01-01"'}
        client.override = {"mcp-protocol-version": "2030-01-01"}
        refused = await client.connect()
        assert (refused.status, refused.code) == (400, -32022)
        assert jsontext.member(refused.error, "data", "requested") == b'"2030-01-01"'
        async with HttpClient(backend.url) as old:
            assert (await old.connect()).code == -32022


async def test_annotated_arguments_have_to_be_mirrored() -> None:
    script = Script(tools=(tool("t", inputSchema=SCHEMA),))
    async with HttpBackend(script) as backend, ModernClient(backend.url) as client:
        assert (await client.call("t", {"region": "grün"})).code == -32020
        await client.request("tools/list")
        assert (await client.call("t", {"region": "grün", "deep": {"on": True}})).status == 200
        sent = backend.exchanges[-1]
        assert modern.decode_header(sent.header("mcp-param-region") or "") == "grün"
        assert sent.header("mcp-param-on") == "true"
        client.extra = (("Mcp-Param-Region", "x"),)
        assert (await client.call("t", {"region": None})).code == -32020


async def test_unknown_methods_and_removed_ones_are_not_found() -> None:
    async with HttpBackend(Script(era="modern")) as backend, ModernClient(backend.url) as client:
        for method in ("ping", "no/such"):
            reply = await client.request(method)
            assert (reply.status, reply.code) == (404, -32601)
        assert (await client.open_get_stream()).status == 405
        assert await client.delete() == 405


async def test_a_listen_is_acknowledged_filtered_and_ended_with_a_result() -> None:
    async with HttpBackend(named("everything")) as backend, ModernClient(backend.url) as client:
        listen = await client.listen({"toolsListChanged": True})
        await listen.heard()
        await backend.announce("notifications/prompts/list_changed")
        await backend.announce("notifications/tools/list_changed")
        await listen.heard(2)
        await backend.end_listens()
        reply = await listen.reply()
        assert [json.loads(each)["method"] for each in reply.notifications] == [
            "notifications/subscriptions/acknowledged",
            "notifications/tools/list_changed",
        ]
        assert all(b'"io.modelcontextprotocol/subscriptionId":1' in each for each in (*reply.notifications, reply.raw))


async def test_an_unknown_request_state_is_refused() -> None:
    asking = Script(tools=(tool("ask", Act("insist")),))
    async with HttpBackend(asking) as backend, ModernClient(backend.url) as client:
        first = await client.call("ask")
        assert first.value["resultType"] == "input_required"
        assert "\u2028" in first.value["requestState"]
        retry = {"name": "ask", "requestState": first.value["requestState"], "inputResponses": {"ask-0-0": {"a": 1}}}
        assert (await client.request("tools/call", retry)).value["structuredContent"] == {"answers": [{"a": 1}]}
        assert (await client.request("tools/call", {**retry, "requestState": "other"})).code == -32602


# --- HTTP+SSE -----------------------------------------------------------------------------------------------------


async def test_the_endpoint_may_be_relative_absolute_or_foreign() -> None:
    async with SseBackend(named("echo"), endpoint="absolute") as backend, SseClient(backend.url) as client:
        assert (await client.connect()).result is not None
        assert (client.endpoint or "").startswith(backend.origin)
    async with SseBackend(endpoint="foreign") as backend, SseClient(backend.url) as client:
        assert await client.open_stream() == 200
        assert (client.endpoint or "").startswith("http://127.0.0.2:9/")


async def test_messages_to_an_unknown_stream_are_not_found() -> None:
    async with SseBackend(named("echo")) as backend, SseClient(backend.url) as client:
        await client.connect()
        assert await client.post("{}", endpoint="/messages?session_id=other") == 404
        backend.fail(Fault(500, method="tools/call"))
        with pytest.raises(ConnectionError, match="500"):
            await client.call("echo")
        backend.end_streams()
        await client.stream_ended.wait()


# --- the wire --------------------------------------------------------------------------------------------------------


def test_events_end_their_lines_at_carriage_return_and_line_feed_only() -> None:
    event = http_wire.parse_event("id: 7\r\nevent: e\rdata: a\u2028b\ndata:c\n: comment\nretry: 9\n\n".encode())
    assert (event.name, event.data, event.id, event.retry) == ("e", "a\u2028b\nc".encode(), "7", "9")
    assert http_wire.parse_event(http_wire.event(b"a\nb", id_="x")).data == b"a\nb"


@pytest.mark.parametrize("value", ["plain", "", " edge", "grün", "=?base64?YQ==?=", "a\nb"])
def test_header_values_survive_their_coding(value: str) -> None:
    assert modern.decode_header(modern.encode_header(value)) == value
    assert modern.encode_header(value).isascii()
