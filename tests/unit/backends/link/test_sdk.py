"""Negotiation with a backend: the order of eras, the fallback between them, and our identity; tools with headers."""

import asyncio
from typing import Any

import msgspec
import pytest

from mcp_manifold.backends.link.link import Link
from mcp_manifold.backends.link.negotiation import PROBE_WAIT, Identity, Negotiation
from mcp_manifold.backends.link.pending import PendingRequest
from mcp_manifold.backends.link.sdk import greet, parameters
from mcp_manifold.clock import LoopClock
from mcp_manifold.errors import BackendError, BackendLost, BackendProtocolError, BackendTimeout, BackendUnavailable
from mcp_manifold.wire import MODERN_VERSION, Era, Payload
from mcp_manifold.wire.protocol import META_CAPABILITIES, META_CLIENT_INFO, META_VERSION, TASKS_EXTENSION
from tests.unit.backends.linking import FakeTransport, connected, new_link, results, within

pytestmark = pytest.mark.anyio

IDENTITY = Identity(
    Payload(b'{"name":"claude","version":"1.50","x-own":{"z":1,"a":null}}'), Payload(b'{ "sampling" : {"x":1e3} }')
)
INITIALIZED = (
    b'{"protocolVersion":"2025-06-18","capabilities":{"tools":{"x-own":1.50}},'
    b'"serverInfo":{"name":"n","version":"1","x-own":null},"instructions":"be kind"}'
)
DISCOVERED = (
    b'{"resultType":"complete","supportedVersions":["2026-07-28"],"capabilities":{"tools":{}},"ttlMs":5,'
    b'"cacheScope":"public","_meta":{"io.modelcontextprotocol/serverInfo":{"name":"m","version":"2"}}}'
)
BOTH: tuple[Era, ...] = ("handshake", "modern")
MODERN_FIRST: tuple[Era, ...] = ("modern", "handshake")


async def greeted(link: Link, *eras: Era, timeout: float = 30) -> Negotiation:
    found: Negotiation = await within(greet(link, eras=eras, identity=IDENTITY, timeout=timeout, clock=LoopClock()))
    return found


async def refusal(link: Link, *eras: Era, timeout: float = 30) -> BackendError:
    with pytest.raises(BackendError) as caught:
        await greeted(link, *eras, timeout=timeout)
    return caught.value


def sent(transport: FakeTransport, at: int = 0) -> Any:
    return transport.requests[at][1]["params"]


async def test_the_handshake_is_relayed_raw_in_both_directions() -> None:
    link, transport = connected(results({"initialize": INITIALIZED}))
    found = await greeted(link, "handshake")
    assert (found.era, found.version, found.instructions) == ("handshake", "2025-06-18", "be kind")
    assert bytes(found.capabilities) == b'{"tools":{"x-own":1.50}}'
    assert bytes(found.server_info) == b'{"name":"n","version":"1","x-own":null}'
    assert (link.version, link.era, transport.versions) == ("2025-06-18", "handshake", ["2025-06-18"])
    assert [note["method"] for note in transport.notes] == ["notifications/initialized"]
    pending, _ = transport.requests[0]
    assert bytes(pending.params["clientInfo"]) == bytes(IDENTITY.client_info)
    assert bytes(pending.params["capabilities"]) == bytes(IDENTITY.capabilities)
    assert sent(transport)["protocolVersion"] == "2025-11-25"


async def test_the_modern_greeting_stamps_itself_and_everything_after() -> None:
    link, transport = connected(results({"server/discover": DISCOVERED}))
    found = await greeted(link, "modern")
    assert (found.era, found.version, bytes(found.server_info)) == (
        "modern",
        MODERN_VERSION,
        b'{"name":"m","version":"2"}',
    )
    assert found.hint is not None
    assert (found.hint.ttl_ms, found.hint.is_public) == (5, True)
    meta = sent(transport)["_meta"]
    assert meta[META_VERSION] == MODERN_VERSION
    assert meta[META_CLIENT_INFO]["x-own"] == {"z": 1, "a": None}
    assert meta[META_CAPABILITIES] == {"sampling": {"x": 1e3}, "extensions": {TASKS_EXTENSION: {}}}
    assert link.era == "modern"
    assert transport.notes == []


@pytest.mark.parametrize(("eras", "methods"), [(BOTH, ["initialize"]), (MODERN_FIRST, ["server/discover"])])
async def test_the_first_era_that_works_is_the_only_one_tried(eras: tuple[Era, ...], methods: list[str]) -> None:
    link, transport = connected(results({"initialize": INITIALIZED, "server/discover": DISCOVERED}))
    await greeted(link, *eras)
    assert transport.methods == methods


async def test_a_refused_handshake_falls_back_to_discovery() -> None:
    refused = b'{"code":-32022,"message":"Unsupported protocol version","data":{"supported":["2026-07-28"]}}'

    def answer(pending: PendingRequest) -> bytes:
        return b'"error":' + refused if pending.method == "initialize" else b'"result":' + DISCOVERED

    link, transport = connected(answer)
    assert (await greeted(link, *BOTH)).era == "modern"
    assert transport.methods == ["initialize", "server/discover"]


async def test_refused_discovery_falls_back_to_the_handshake_without_a_trace_of_the_other_era() -> None:
    link, transport = connected(results({"initialize": INITIALIZED}))
    assert (await greeted(link, *MODERN_FIRST)).era == "handshake"
    assert link.era == "handshake"
    assert "_meta" not in sent(transport, 1)
    assert transport.versions == [MODERN_VERSION, "", "2025-06-18"]


async def test_silence_on_discovery_falls_back_to_the_handshake() -> None:
    link, transport = connected(lambda pending: b'"result":' + INITIALIZED if pending.method == "initialize" else None)
    greeting = asyncio.ensure_future(greeted(link, *MODERN_FIRST))
    silent = await transport.sent(1)
    assert (silent.method, silent.timeout) == ("server/discover", PROBE_WAIT)
    link.fail(silent, BackendTimeout("notes", f"no answer within {PROBE_WAIT:g} s"))
    assert (await within(greeting)).era == "handshake"


@pytest.mark.parametrize(
    "first",
    [
        *(BackendUnavailable("notes", "no", status=status) for status in (400, 404, 405, 406, 415, 501)),
        BackendProtocolError("notes", "HTML"),
    ],
    ids=str,
)
async def test_a_refusal_of_discovery_falls_back_to_the_handshake(first: BackendError) -> None:
    class Refusing(FakeTransport):
        def send_request(self, pending: PendingRequest, body: bytes) -> None:
            if pending.method == "server/discover":
                raise first
            super().send_request(pending, body)

    link = new_link()
    Refusing(link, results({"initialize": INITIALIZED}))
    assert (await greeted(link, *MODERN_FIRST)).version == "2025-06-18"
    assert link.era == "handshake"


@pytest.mark.parametrize(
    "failure",
    [
        *(BackendUnavailable("notes", "as it is", status=status) for status in (401, 403, 429, 503)),
        BackendLost("notes", "the server exited with status 1"),
    ],
    ids=str,
)
async def test_a_failure_that_another_era_would_repeat_is_raised(failure: BackendError) -> None:
    link, transport = connected()
    transport.refusal = failure
    assert await refusal(link, *MODERN_FIRST) is failure


async def test_a_refusal_by_the_last_era_is_told_with_the_servers_words() -> None:
    link, _ = connected(lambda pending: b'"error":{"code":-32000,"message":"licence expired"}')
    failed = await refusal(link, *MODERN_FIRST)
    assert isinstance(failed, BackendProtocolError)
    assert failed.message == "connection refused by the server: licence expired (-32000)"


async def test_an_initialize_that_is_not_answered_is_a_timeout() -> None:
    link, _ = connected()
    assert isinstance(await refusal(link, "handshake", timeout=0.05), BackendTimeout)


SERVER = b'"serverInfo":{"name":"a","version":"1"}'
INVALID = {
    "no version": b"{}",
    "version of no text": b'{"protocolVersion":5,"capabilities":{},' + SERVER + b"}",
    "unknown version": b'{"protocolVersion":"1999-01-01","capabilities":{},' + SERVER + b"}",
    "no capabilities": b'{"protocolVersion":"2025-06-18",' + SERVER + b"}",
    "capabilities of no object": b'{"protocolVersion":"2025-06-18","capabilities":[],' + SERVER + b"}",
    "null capabilities": b'{"protocolVersion":"2025-06-18","capabilities":null,' + SERVER + b"}",
    "unreadable numbers": b'{"protocolVersion":"2025-06-18","capabilities":{},"x":1e999,"serverInfo":7}',
    "discovery of no text": b'{"supportedVersions":7}',
    "unknown discovery": b'{"supportedVersions":["2031-01-01"]}',
}


@pytest.mark.parametrize("era", BOTH)
@pytest.mark.parametrize("result", INVALID.values(), ids=INVALID)
async def test_an_invalid_greeting_is_a_protocol_error(result: bytes, era: Era) -> None:
    link, _ = connected(results({"initialize": result, "server/discover": result}))
    assert isinstance(await refusal(link, era), BackendProtocolError)


# --- headers that tools ask for ------------------------------------------------------------------------------------


def described(name: str, schema: bytes) -> bytes:
    return b'{ "name" : "%b", "inputSchema" : %b }' % (name.encode(), schema)


REGION = described("r", b'{"type":"object","properties":{"region":{"type":"string","x-mcp-header":"Region"}}}')
BAD = described("bad", b'{"type":"object","properties":{"a":{"type":"object","x-mcp-header":"A B"}}}')
PLAIN = described("plain", b'{"type":"object"}')


async def test_tools_that_ask_for_headers_get_them_from_their_arguments() -> None:
    kept, headers = parameters("notes", (REGION, PLAIN), mirrored=True)
    assert kept == (REGION, PLAIN)
    assert headers is not None
    assert dict(headers("r", Payload(b'{"region":"eu"}'))) == {"Mcp-Param-Region": "eu"}
    assert dict(headers("r", Payload(b'{"region":"eu","x":1e999}'))) == {"Mcp-Param-Region": "eu"}
    assert dict(headers("plain", Payload(b'{"region":"eu"}'))) == {}


async def test_a_tool_with_an_invalid_annotation_is_left_out_or_loses_the_annotation() -> None:
    assert parameters("notes", (BAD, PLAIN), mirrored=True) == ((PLAIN,), None)
    kept, headers = parameters("notes", (BAD,), mirrored=False)
    assert headers is None
    assert "x-mcp-header" not in str(msgspec.json.decode(kept[0]))
    assert msgspec.json.decode(kept[0])["name"] == "bad"


@pytest.mark.parametrize(
    "odd",
    [
        b'{"name":"x-mcp-header","inputSchema":{"type":"object"}}',
        b'{"name":"a","inputSchema":{"type":"object","properties":{"n":{"maximum":1e999,"x-mcp-header":"N"}}}}',
        b'{"name":"a","inputSchema":"x-mcp-header"}',
        b'"x-mcp-header"',
        b'{"inputSchema":{"x-mcp-header":[]}}',
        b'{"name":"a","x":1e999,"inputSchema":{"properties":{"a":{"type":"string","x-mcp-header":"A"}}}}',
    ],
)
@pytest.mark.parametrize("mirrored", [True, False])
async def test_an_invalid_tool_leaves_the_others(odd: bytes, mirrored: bool) -> None:
    kept, _ = parameters("notes", (odd, PLAIN), mirrored=mirrored)
    assert PLAIN in kept
