"""What is no message, or no good one: every class, over every front, with its exact status and code."""

from typing import Any

import pytest

from tests.contract.behaviours import shows
from tests.contract.offers import offerings
from tests.contract.stand import LATEST, standing
from tests.peers import jsontext
from tests.peers.clients import MODERN_VERSION, ModernClient
from tests.peers.ways import Way

pytestmark = pytest.mark.anyio

SMALL = {"limits": {"maxBody": 65536}}
NO_MESSAGE = {
    "not JSON": (b"this is not JSON", -32700),
    "cut off": (b'{"jsonrpc":"2.0","id":1,"method":"tools/', -32700),
    "nothing": (b'""', -32600),
    "not UTF-8": (b'{"jsonrpc":"2.0","id":1,"method":"\xff\xfe"}', -32700),
    "a lone surrogate": (b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"\\ud800"}}', -32700),
    "deep": (b'{"jsonrpc":"2.0","id":1,"method":"ping","params":{"a":' + b"[" * 20000 + b"]" * 20000 + b"}}", -32700),
    "a batch": (b'[{"jsonrpc":"2.0","id":1,"method":"ping"}]', -32600),
    "an empty batch": (b"[]", -32600),
    "a number": (b"7", -32600),
    "another version": (b'{"jsonrpc":"1.0","id":1,"method":"ping"}', -32600),
    "no version": (b'{"id":1,"method":"ping"}', -32600),
    "a null id": (b'{"jsonrpc":"2.0","id":null,"method":"ping"}', -32600),
    "an object as id": (b'{"jsonrpc":"2.0","id":{},"method":"ping"}', -32600),
    "a number as method": (b'{"jsonrpc":"2.0","id":1,"method":7}', -32600),
    "params in an array": (b'{"jsonrpc":"2.0","id":1,"method":"ping","params":[]}', -32600),
    "neither": (b'{"jsonrpc":"2.0","id":1}', -32600),
    "both": (b'{"jsonrpc":"2.0","id":1,"result":{},"error":{"code":1,"message":""}}', -32600),
    "a method twice": (b'{"jsonrpc":"2.0","id":1,"method":"ping","method":"tools/call"}', -32600),
    "params twice": (b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a"},"params":{}}', -32600),
    "a look-alike": (b'{"jsonrpc":"2.0","id":1,"method":"ping","Method":"tools/call"}', -32600),
}
"""Bytes that are no JSON-RPC message, and the code they get."""

BAD_REQUESTS = {
    "an unknown method": ('{"jsonrpc":"2.0","id":"x","method":"no/such"}', -32601),
    "a method in capitals": ('{"jsonrpc":"2.0","id":"x","method":"Tools/List"}', -32601),
    "no params": ('{"jsonrpc":"2.0","id":"x","method":"tools/call"}', -32602),
    "no name": ('{"jsonrpc":"2.0","id":"x","method":"tools/call","params":{"arguments":{}}}', -32602),
    "a number as name": ('{"jsonrpc":"2.0","id":"x","method":"tools/call","params":{"name":7}}', -32602),
    "no uri": ('{"jsonrpc":"2.0","id":"x","method":"resources/read","params":{}}', -32602),
    "a null uri": ('{"jsonrpc":"2.0","id":"x","method":"resources/read","params":{"uri":null}}', -32602),
    "no ref": ('{"jsonrpc":"2.0","id":"x","method":"completion/complete","params":{}}', -32602),
    "a strange ref": (
        '{"jsonrpc":"2.0","id":"x","method":"completion/complete","params":{"ref":{"type":"ref/other"}}}',
        -32602,
    ),
    "a cursor": ('{"jsonrpc":"2.0","id":"x","method":"tools/list","params":{"cursor":"x"}}', -32602),
    "a look-alike name": (
        '{"jsonrpc":"2.0","id":"x","method":"tools/call","params":{"name":"web__echo","Name":"web__hang"}}',
        -32602,
    ),
}
"""Requests that cannot be served, and the code they get."""


@shows("malformed-message", "malformed-request", "malformed-survived", "oversized")
@pytest.mark.parametrize("front", ["http", "stdio", "sse"])
async def test_what_cannot_be_served_is_refused_with_its_status_and_code(front: str) -> None:
    async with standing(offerings(("web",)), manifold=SMALL) as stand, stand.client(Way(front, LATEST)) as client:
        for what, (body, code) in NO_MESSAGE.items():
            wanted = (400, b"null", code if front != "sse" else None) if front != "stdio" else (0, b"null", code)
            assert await _refusal(client, front, body) == wanted, what
        for what, (text, code) in BAD_REQUESTS.items():
            status = {"stdio": 0, "sse": 202}.get(front, 400 if "look-alike" in what else 200)
            assert await _refusal(client, front, text.encode()) == (status, b'"x"', code), what
        status, _, refusal = await _refusal(client, front, b" " * 65537)
        assert (status, refusal) == ((0, -32600) if front == "stdio" else (413, refusal))
        if front == "sse":
            ping = '{"jsonrpc":"2.0","id":1,"method":"ping"}'
            for endpoint, status in (("messages", 400), ("messages?session_id=", 400), ("messages?session_id=x", 404)):
                assert await client.post(ping, endpoint=endpoint) == status
        assert (await client.call("web__echo", {"text": "fine"})).text == "fine"
        assert len(stand["web"].calls("tools/call")) == 1


async def _refusal(client: Any, front: str, body: bytes) -> tuple[int, bytes | None, int | None]:
    """The status (0 where there is none), id and code of the refusal of a message; over SSE a bad POST has no body."""
    client.received.clear()
    if front == "http":
        reply = await client.post(body)
        return reply.status, jsontext.member(reply.body, "id"), reply.error_code
    status = 0
    if front == "stdio":
        await client.send_line(body)
    elif (status := await client.post(body)) != 202:
        return status, b"null", None
    answer = await client.wait_for(lambda each: each.is_response)
    return status, answer.id, jsontext.value(jsontext.member(answer.error, "code"))


@shows("malformed-headers")
async def test_over_http_wrong_types_revisions_and_sessions_have_their_status() -> None:
    ping = '{"jsonrpc":"2.0","id":1,"method":"ping"}'
    async with standing(offerings(("web",))) as stand, stand.client(Way("http", LATEST)) as client:
        good = dict(client.headers_for(None))
        for change, status in (
            ({"Content-Type": "text/plain"}, 415),
            ({"Content-Type": None}, 415),
            ({"Content-Encoding": "gzip"}, 415),
            ({"Accept": "application/json"}, 200),
            ({"Accept": "text/event-stream"}, 200),
            ({"Accept": "text/html"}, 406),
            ({"Mcp-Session-Id": None}, 400),
            ({"Mcp-Session-Id": "unknown"}, 404),
            ({"MCP-Protocol-Version": "1999-01-01"}, 400),
            ({"Mcp-Method": "tools/list"}, 400),
            ({"Content-Type": "application/json; charset=utf-8"}, 200),
            ({"Accept": "*/*"}, 200),
            ({"MCP-Protocol-Version": None}, 200),
        ):
            headers = tuple((key, value) for key, value in {**good, **change}.items() if value is not None)
            assert (await client.exchange(ping, headers)).status == status, change
        assert (await client.exchange(None, tuple(good.items()), method="PUT")).status == 405
        assert await client.delete() == 204
        assert (await client.post(ping)).status == 404
        assert (await client.open_get_stream()).status == 404


@shows("malformed-modern", "header-mismatch")
async def test_over_modern_http_errors_have_the_status_of_their_code() -> None:
    async with standing(offerings(("web",))) as stand, stand.client(Way("http", MODERN_VERSION)) as client:
        for method, params, status, code in (
            ("no/such", None, 404, -32601),
            ("ping", None, 404, -32601),
            ("initialize", None, 404, -32601),
            ("tools/call", {"name": "web__nothing"}, 400, -32602),
            ("tools/call", {}, 400, -32602),
            ("resources/read", {"uri": "nowhere:x"}, 400, -32602),
            ("tools/list", {"cursor": "x"}, 400, -32602),
        ):
            reply = await client.request(method, params)
            assert (reply.status, reply.code) == (status, code), (method, params, reply)
        for name, value, code in (
            ("protocolVersion", b'"1999-01-01"', -32020),
            ("protocolVersion", None, -32602),
            ("clientCapabilities", None, -32602),
            ("clientCapabilities", b"7", -32602),
        ):
            client.meta_override = {name: value}
            reply = await client.request("tools/list")
            assert (reply.status, reply.code) == (400, code), (name, value, reply)
        client.meta_override = {"protocolVersion": b'"1999-01-01"'}
        client.override = {"mcp-protocol-version": "1999-01-01"}
        reply = await client.request("tools/list")
        assert (reply.status, reply.code) == (400, -32022)
        assert jsontext.value(reply.error)["data"] == {"supported": [MODERN_VERSION], "requested": "1999-01-01"}


@shows("header-mismatch", "malformed-survived")
async def test_over_modern_http_headers_must_say_what_the_body_says() -> None:
    async with standing(offerings(("web",))) as stand, stand.client(Way("http", MODERN_VERSION)) as client:
        for override, extra in (
            ({"mcp-method": "tools/list"}, ()),
            ({"mcp-method": None}, ()),
            ({"mcp-name": "web__hang"}, ()),
            ({"mcp-name": None}, ()),
            ({"mcp-name": "=?base64?!!?="}, ()),
            ({"mcp-protocol-version": "2025-11-25"}, ()),
            ({}, (("Mcp-Name", "web__hang"),)),
            ({}, (("Mcp-Method", "tools/call"),)),
        ):
            client.override, client.extra = override, extra
            reply = await client.call("web__echo", {"text": "x"})
            assert (reply.status, reply.code) == (400, -32020), (override, extra, reply)
        assert isinstance(client, ModernClient)
        client.override, client.extra = {"mcp-name": "=?base64?d2ViX19lY2hv?="}, ()
        assert (await client.call("web__echo", {"text": "fine"})).text == "fine"
        assert len(stand["web"].calls("tools/call")) == 1
