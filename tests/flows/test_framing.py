"""The HTTP server as it is served: bodies above the limit are refused in words. For framing see tests/unit/fronts."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final
from urllib.parse import urlsplit

import pytest

from mcp_manifold.app.listening import bound
from mcp_manifold.config import ManifoldSettings
from tests.contract.offers import offerings
from tests.contract.stand import LATEST, Stand, standing
from tests.peers import BOUND
from tests.peers.ways import Way
from tests.unit.fronts.wires import Wire, chunked, request

pytestmark = pytest.mark.anyio

HTTP: Final = Way("http", LATEST)
PLAIN: Final = ("content-type: application/json", "accept: application/json, text/event-stream")
LIMIT: Final = 300_000


@asynccontextmanager
async def served() -> AsyncIterator[tuple[Stand, Any]]:
    """A served manifold, and a client of it that calls before and after, over the connection it has."""
    limits = {"limits": {"maxBody": LIMIT}}
    async with standing(offerings(("web26",)), manifold=limits) as stand, stand.client(HTTP) as client:
        assert (await client.call("web26__echo", {"text": "before"})).text == "before"
        yield stand, client
        assert (await client.call("web26__echo", {"text": "after"})).text == "after"


async def connect(stand: Stand) -> Wire:
    where = urlsplit(await stand.origin())
    return Wire(*await asyncio.open_connection(where.hostname, where.port))


OVERSIZED: Final = {
    "length": request("/mcp", b"x" * (LIMIT + 1), *PLAIN),
    "chunks": chunked("/mcp", *[b"x" * 1000] * (LIMIT // 1000), b"x").replace(
        b"\r\n", b"\r\n%b\r\n" % "\r\n".join(PLAIN).encode(), 1
    ),
    "far above": request("/mcp", b"x" * 20_000_000, *PLAIN),
    "a length, and nothing of the body yet": request("/mcp", b"x" * (LIMIT + 1), *PLAIN)[: -LIMIT - 1],
}


async def test_s6_a_body_above_the_limit_is_refused_before_it_is_held_and_one_to_inflate_as_well() -> None:
    async with served() as (stand, _):
        tally = stand.manifold.asgi_app().front().tally
        before = tally.bytes_in
        for what, sent in OVERSIZED.items():
            wire = await connect(stand)
            await wire.send(sent)
            answer = await wire.answer()
            assert answer.status == 413, what
            assert str(LIMIT).encode() in answer.body
            assert tally.bytes_in == before
            wire.leave()
        wire = await connect(stand)
        await wire.send(request("/mcp", b"\x1f\x8b" + b"x" * 100, *PLAIN, "content-encoding: gzip"))
        assert (await wire.answer()).status == 415
        wire.leave()


async def test_answers_do_not_wait_for_a_full_packet() -> None:
    accepted: asyncio.Queue[asyncio.StreamWriter] = asyncio.Queue()
    (listening,) = bound(ManifoldSettings(port=0))
    server = await asyncio.start_server(lambda _, writer: accepted.put_nowait(writer), sock=listening)
    _, client = await asyncio.open_connection(*listening.getsockname())
    async with asyncio.timeout(BOUND):
        answering = await accepted.get()
    # without it the body of an answer waits 40 ms for the acknowledgement of its head
    assert answering.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    for writer in (client, answering):
        writer.close()
        await writer.wait_closed()
    server.close()
    await server.wait_closed()
