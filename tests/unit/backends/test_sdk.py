"""Greeting a backend: which era is tried when, what gives way to the next one, and who we say we are."""

import asyncio
from typing import Any

import msgspec
import pytest

from mcp_manifold.backends.link.link import Link
from mcp_manifold.backends.link.negotiation import PROBE_WAIT, Identity, Negotiation
from mcp_manifold.backends.link.pending import PendingRequest
from mcp_manifold.backends.link.sdk import greet, parameters
from mcp_manifold.clock import LoopClock
from mcp_manifold.errors import (
    BackendError,
    BackendLost,
    BackendProtocolError,
    BackendTimeout,
    BackendUnavailable,
)
from mcp_manifold.wire import MODERN_VERSION, Era, Payload
from mcp_manifold.wire.protocol import META_CAPABILITIES, META_CLIENT_INFO, META_VERSION, TASKS_EXTENSION
from tests.unit.backends.linking import FakeTransport, connected, results, within

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


async def test_who_we_are_is_said_in_the_words_we_were_given() -> None:
    link, transport = connected(results({"initialize": INITIALIZED}))
    await greeted(link, "handshake")
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


async def test_a_refused_handshake_gives_way_to_discovery() -> None:
    refused = b'{"code":-32022,"message":"Unsupported protocol version","data":{"supported":["2026-07-28"]}}'

    def answer(pending: PendingRequest) -> bytes:
        return b'"error":' + refused if pending.method == "initialize" else b'"result":' + DISCOVERED

    link, transport = connected(answer)
    assert (await greeted(link, *BOTH)).era == "modern"
    assert transport.methods == ["initialize", "server/discover"]


async def test_refused_discovery_gives_way_to_the_handshake_without_a_trace_of_the_other_era() -> None:
    link, transport = connected(results({"initialize": INITIALIZED}))
    assert (await greeted(link, *MODERN_FIRST)).era == "handshake"
    assert link.era == "handshake"
    assert "_meta" not in sent(transport, 1)
    assert transport.versions == [MODERN_VERSION, "", "2025-06-18"]


async def test_silence_on_discovery_gives_way_to_the_handshake() -> None:
    link, transport = connected(lambda pending: b'"result":' + INITIALIZED if pending.method == "initialize" else None)
    greeting = asyncio.ensure_future(greeted(link, *MODERN_FIRST))
    silent = await transport.sent(1)
    assert (silent.method, silent.timeout) == ("server/discover", PROBE_WAIT)
    link.fail(silent, BackendTimeout("notes", f"no answer within {PROBE_WAIT:g} s"))
    assert (await within(greeting)).era == "handshake"


@pytest.mark.parametrize("status", [400, 404, 405, 406, 415, 501])
async def test_an_http_refusal_of_discovery_gives_way_to_the_handshake(status: int) -> None:
    link = await _greeted_after(BackendUnavailable("notes", "no", status=status))
    assert link.era == "handshake"


async def test_a_protocol_error_of_discovery_gives_way_to_the_handshake() -> None:
    assert (await _greeted_after(BackendProtocolError("notes", "HTML"))).version == "2025-06-18"


async def _greeted_after(first: BackendError) -> Link:
    link, transport = connected(results({"initialize": INITIALIZED}))

    class Refusing(FakeTransport):
        def send_request(self, pending: PendingRequest, body: bytes) -> None:
            if pending.method == "server/discover":
                raise first
            super().send_request(pending, body)

    del transport
    Refusing(link, results({"initialize": INITIALIZED}))
    await greeted(link, *MODERN_FIRST)
    return link


@pytest.mark.parametrize("status", [401, 403, 429, 503])
async def test_what_another_era_would_not_help_is_told_as_it_is(status: int) -> None:
    link, transport = connected()
    transport.refusal = BackendUnavailable("notes", "as it is", status=status)
    failed = await refusal(link, *MODERN_FIRST)
    assert (failed.message, failed.status) == ("as it is", status)


async def test_a_lost_link_is_told_as_it_is() -> None:
    link, transport = connected()
    transport.refusal = BackendLost("notes", "the server exited with status 1")
    assert "exited with status 1" in (await refusal(link, *BOTH)).message


async def test_a_refusal_by_the_last_era_is_told_with_the_servers_words() -> None:
    link, _ = connected(lambda pending: b'"error":{"code":-32000,"message":"licence expired"}')
    failed = await refusal(link, *MODERN_FIRST)
    assert isinstance(failed, BackendProtocolError)
    assert failed.message == "connection refused by the server: licence expired (-32000)"


async def test_an_initialize_that_is_not_answered_is_a_timeout() -> None:
    link, _ = connected()
    assert isinstance(await refusal(link, "handshake", timeout=0.05), BackendTimeout)


SERVER = b'"serverInfo":{"name":"a","version":"1"}'
ODD = {
    "no version": b"{}",
    "version of no text": b'{"protocolVersion":5,"capabilities":{},' + SERVER + b"}",
    "unknown version": b'{"protocolVersion":"1999-01-01","capabilities":{},' + SERVER + b"}",
    "no capabilities": b'{"protocolVersion":"2025-06-18",' + SERVER + b"}",
    "capabilities of no object": b'{"protocolVersion":"2025-06-18","capabilities":[],' + SERVER + b"}",
    "null capabilities": b'{"protocolVersion":"2025-06-18","capabilities":null,' + SERVER + b"}",
    "numbers nobody can read": b'{"protocolVersion":"2025-06-18","capabilities":{},"x":1e999,"serverInfo":7}',
}


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD)
async def test_an_initialize_result_that_is_none_is_not_mcp(odd: bytes) -> None:
    link, _ = connected(results({"initialize": odd}))
    assert isinstance(await refusal(link, "handshake"), BackendProtocolError)


@pytest.mark.parametrize("odd", [b"{}", b'{"supportedVersions":7}', b'{"supportedVersions":["2031-01-01"]}'])
async def test_a_discovery_that_is_none_is_not_mcp(odd: bytes) -> None:
    link, _ = connected(results({"server/discover": odd}))
    assert isinstance(await refusal(link, "modern"), BackendProtocolError)


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


async def test_a_tool_with_a_broken_annotation_is_left_out_where_it_could_not_be_called() -> None:
    assert parameters("notes", (BAD, PLAIN), mirrored=True) == ((PLAIN,), None)


async def test_elsewhere_it_only_loses_the_annotation() -> None:
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
async def test_no_tool_however_odd_takes_the_others_with_it(odd: bytes, mirrored: bool) -> None:
    kept, _ = parameters("notes", (odd, PLAIN), mirrored=mirrored)
    assert PLAIN in kept
