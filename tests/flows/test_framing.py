"""The HTTP server as it is served: what is framed wrongly, too large or left half is refused in words, and costs others
nothing.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final
from urllib.parse import urlsplit

import pytest

from tests.contract.offers import offerings
from tests.contract.stand import LATEST, Stand, standing
from tests.peers.clients import MODERN_VERSION
from tests.peers.ways import Way
from tests.unit.fronts.wires import Wire, chunked, request

pytestmark = pytest.mark.anyio

HTTP: Final = Way("http", LATEST)
PLAIN: Final = ("content-type: application/json", "accept: application/json, text/event-stream")
LIMIT: Final = 300_000


@asynccontextmanager
async def served(limit: int = LIMIT) -> AsyncIterator[tuple[Stand, Any]]:
    """A served manifold, and a client of it that calls before and after, over the connection it has."""
    limits = {"limits": {"maxBody": limit}}
    async with standing(offerings(("web26",)), manifold=limits) as stand, stand.client(HTTP) as client:
        assert (await client.call("web26__echo", {"text": "before"})).text == "before"
        yield stand, client
        assert (await client.call("web26__echo", {"text": "after"})).text == "after"


async def connect(stand: Stand) -> Wire:
    where = urlsplit(await stand.origin())
    return Wire(*await asyncio.open_connection(where.hostname, where.port))


def long_head(size: int) -> bytes:
    return request("/mcp", b"{}", "x-a: " + "a" * size)


FRAMED: Final = {
    "length and chunks": (request("/mcp", b"0\r\n\r\n", "transfer-encoding: chunked"), 400),
    "two lengths": (request("/mcp", b"{}", "content-length: 40"), 400),
    "obs-fold": (request("/mcp", b"{}", "x-a: 1\r\n x-b: 2"), 400),
    "NUL": (request("/mcp", b"{}", "x-a: 1\0"), 400),
    "a head of 64 KB and more": (long_head(70_000), 431),
    "a thousand lines": (request("/mcp", b"{}", *(f"x-{number}: 1" for number in range(1000))), 431),
}


@pytest.mark.parametrize("step", [1 << 40, 1000])
@pytest.mark.parametrize(("sent", "status"), FRAMED.values(), ids=FRAMED)
async def test_s5_what_is_framed_wrongly_is_refused_and_closed(sent: bytes, status: int, step: int) -> None:
    async with served() as (stand, _):
        wire = await connect(stand)
        await wire.send(sent, step)
        answer = await wire.answer()
        assert (answer.status, answer.closes) == (status, True)
        assert "error" in json.loads(answer.body)
        assert await wire.ended() == b""
        wire.leave()


OVERSIZED: Final = {
    "length": request("/mcp", b"x" * (LIMIT + 1), *PLAIN),
    "chunks": chunked("/mcp", *[b"x" * 1000] * (LIMIT // 1000), b"x").replace(
        b"\r\n", b"\r\n%b\r\n" % "\r\n".join(PLAIN).encode(), 1
    ),
    "far above": request("/mcp", b"x" * 20_000_000, *PLAIN),
}


@pytest.mark.parametrize("sent", OVERSIZED.values(), ids=OVERSIZED)
async def test_s6_a_body_above_the_limit_is_refused_in_words_and_never_held(sent: bytes) -> None:
    async with served() as (stand, _):
        tally = stand.manifold.asgi_app().front().tally
        before = tally.bytes_in
        wire = await connect(stand)
        await wire.send(sent)
        answer = await wire.answer()
        assert answer.status == 413
        assert str(LIMIT).encode() in answer.body
        assert tally.bytes_in == before
        wire.leave()


@pytest.mark.parametrize("limit", [1000, LIMIT])
async def test_s6_a_length_above_the_limit_is_refused_before_any_of_the_body_comes(limit: int) -> None:
    async with served(limit) as (stand, _):
        wire = await connect(stand)
        await wire.send(request("/mcp", b"x" * (limit + 1), *PLAIN)[: -limit - 1])
        assert (await wire.answer()).status == 413
        wire.leave()


async def test_s6_a_body_that_would_have_to_be_inflated_is_refused() -> None:
    async with served() as (stand, _):
        wire = await connect(stand)
        await wire.send(request("/mcp", b"\x1f\x8b" + b"x" * 100, *PLAIN, "content-encoding: gzip"))
        assert (await wire.answer()).status == 415
        wire.leave()


async def test_s7_clients_that_stop_half_way_cost_others_nothing() -> None:
    async with served() as (stand, client):
        wires = [await connect(stand) for _ in range(60)]
        for number, wire in enumerate(wires):
            await wire.send(request("/mcp", b'{"jsonrpc":"2.0"}', *PLAIN)[: -1 if number % 2 else -60])
        for number in range(20):
            assert (await client.call("web26__echo", {"text": str(number)})).text == str(number)
        for wire in wires:
            wire.leave()


async def test_a_client_that_offers_http_2_with_its_call_is_answered_by_http_1() -> None:
    body = json.dumps(
        {
            "jsonrpc": "2.0",
            "id": 1,
            "method": "tools/call",
            "params": {
                "name": "web26__echo",
                "arguments": {"text": "hi"},
                "_meta": {
                    "io.modelcontextprotocol/protocolVersion": MODERN_VERSION,
                    "io.modelcontextprotocol/clientCapabilities": {},
                },
            },
        }
    ).encode()
    mirrored = (f"mcp-protocol-version: {MODERN_VERSION}", "mcp-method: tools/call", "mcp-name: web26__echo")
    offer = ("upgrade: h2c", "connection: Upgrade, HTTP2-Settings", "http2-settings: AAEAAEAAAAIAAAAB")
    async with served() as (stand, _):
        wire = await connect(stand)
        for _ in range(3):
            await wire.send(request("/mcp", body, *PLAIN, *mirrored, *offer))
            answer = await wire.answer()
            assert answer.status == 200
            assert json.loads(answer.body)["result"]["content"][0]["text"] == "hi"
        wire.leave()
