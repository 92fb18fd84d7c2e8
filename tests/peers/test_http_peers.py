"""The scripted HTTP peers: status codes, headers, sessions, streams and faults. Knows nothing of the product."""

import asyncio

import pytest

from tests.peers import http_wire, jsontext, modern
from tests.peers.backend import Act, HttpBackend, Script, named, tool
from tests.peers.clients import HttpClient, ModernClient

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


# --- faults ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [ValueError, BaseException])
async def test_a_crash_of_any_kind_is_raised_when_the_backend_stops(kind: type[BaseException]) -> None:
    async def crash() -> None:
        raise kind("why")

    with pytest.raises(BaseExceptionGroup) as caught:
        async with HttpBackend() as backend:
            await asyncio.wait({backend.spawn(crash(), "crash")})
    assert [repr(each) for each in caught.value.exceptions] == [repr(kind("why"))]


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


# --- the wire --------------------------------------------------------------------------------------------------------


def test_events_end_their_lines_at_carriage_return_and_line_feed_only() -> None:
    event = http_wire.parse_event("id: 7\r\nevent: e\rdata: a\u2028b\ndata:c\n: comment\nretry: 9\n\n".encode())
    assert (event.name, event.data, event.id, event.retry) == ("e", "a\u2028b\nc".encode(), "7", "9")
    assert http_wire.parse_event(http_wire.event(b"a\nb", id_="x")).data == b"a\nb"


@pytest.mark.parametrize("value", ["plain", "", " edge", "grün", "=?base64?YQ==?=", "a\nb"])
def test_header_values_survive_their_coding(value: str) -> None:
    assert modern.decode_header(modern.encode_header(value)) == value
    assert modern.encode_header(value).isascii()
