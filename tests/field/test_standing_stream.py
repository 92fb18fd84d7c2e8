"""What servers answer to the GET for a standing stream concerns that stream, and never the session or the calls."""

import asyncio
from collections.abc import Callable
from itertools import pairwise

import pytest

from mcp_manifold.backends.http.streams import RESUME_CEILING, StandingStream
from mcp_manifold.backends.http.transport import HttpTransport
from mcp_manifold.backends.link.link import Link
from tests.fakes.clock import FakeClock
from tests.fakes.hostile_http import Peer
from tests.peers.backend import Fault, HttpBackend, Script, tool
from tests.unit.backends.linking import Heard, eventually, raw, within
from tests.unit.backends.running import over_web, running
from tests.unit.backends.serving import (
    Act,
    Asked,
    Server,
    chunk,
    event,
    holding,
    opening,
    over_http,
    plain,
    replying,
    stream,
    whole,
)

pytestmark = pytest.mark.anyio

CHANGED = b'{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}'
FINAL = [whole(status) for status in (400, 401, 403, 404, 405, 406)] + [whole(200, b"{}"), b"HTTP/1.1 204 No\r\n\r\n"]
ended = replying(stream() + chunk(b""))


def by_method(*gets: Act, rest: Act) -> Act:
    """The n-th act for the n-th GET, then `rest`; anything else is answered plainly."""
    left = list(gets)

    async def act(peer: Peer, asked: Asked) -> None:
        get = (left.pop(0) if left else rest) if asked.method == "GET" else plain
        await get(peer, asked)

    return act


def gets(server: Server) -> int:
    return [asked.method for asked in server.asked].count("GET")


async def opened(link: Link, transport: HttpTransport) -> StandingStream:
    await within(link.request("initialize", raw(x=1), timeout=30))
    transport.listen()
    standing = transport._standing
    assert standing is not None
    return standing


async def advanced(clock: FakeClock, seconds: int, settled: Callable[[], bool]) -> None:
    """Let that much time pass, in steps that give real input its turn."""
    for _ in range(seconds * 4):
        await clock.advance(0.25)
        await eventually(settled)


@pytest.mark.parametrize("refusal", FINAL, ids=lambda refusal: refusal[9:12].decode())
async def test_a_server_without_a_standing_stream_is_asked_once_and_keeps_its_session(refusal: bytes) -> None:
    serve = by_method(rest=replying(refusal))
    async with Server(opening(), rest=serve) as server, over_http(server.url) as (link, transport):
        standing = await opened(link, transport)
        await eventually(lambda: "closed" in repr(standing))
        await within(link.request("x", {}, timeout=30))
        assert gets(server) == 1
        assert not link.ended.done()
        assert sum(b'"ping"' in asked.body for asked in server.asked) == (b" 404 " in refusal)


@pytest.mark.parametrize("status", [400, 401, 409, 429, 500, 503])
async def test_a_stream_that_worked_is_tried_again_after_a_refusal(status: int) -> None:
    heard, clock = Heard(), FakeClock()
    again, _ = holding(stream(event(CHANGED)))
    serve = by_method(replying(stream(event(b"")) + chunk(b"")), replying(whole(status)), rest=again)
    async with (
        Server(opening(), rest=serve) as server,
        over_http(server.url, heard=heard, clock=clock) as (link, transport),
    ):
        await opened(link, transport)
        while gets(server) < 3:
            await clock.advance(1)
        await heard.first("notifications/tools/list_changed")
        assert not link.ended.done()


@pytest.mark.parametrize("status", [404, 405])
async def test_a_stream_that_worked_is_given_up_when_there_is_none_any_more(status: int) -> None:
    clock = FakeClock()
    serve = by_method(ended, rest=replying(whole(status)))
    async with Server(opening(), rest=serve) as server, over_http(server.url, clock=clock) as (link, transport):
        standing = await opened(link, transport)
        while "open" in repr(standing):
            await clock.advance(1)
        assert gets(server) == 2
        assert not link.ended.done()


@pytest.mark.parametrize("status", [409, 429, 503])
async def test_a_passing_refusal_of_the_first_stream_is_retried(status: int) -> None:
    heard, clock = Heard(), FakeClock()
    again, _ = holding(stream(event(CHANGED)))
    serve = by_method(replying(whole(status)), rest=again)
    async with (
        Server(opening(), rest=serve) as server,
        over_http(server.url, heard=heard, clock=clock) as (link, transport),
    ):
        await opened(link, transport)
        while gets(server) < 2:
            await clock.advance(1)
        await heard.first("notifications/tools/list_changed")


@pytest.mark.parametrize("first", [b"", b"retry: 0\n\n", b"id: 1\nretry: 10\ndata:\n\n"])
async def test_a_stream_that_ends_at_once_is_opened_ever_more_slowly(first: bytes) -> None:
    clock = FakeClock()
    serve = by_method(rest=replying(stream(*([first] if first else [])) + chunk(b"")))
    async with Server(opening(), rest=serve) as server, over_http(server.url, clock=clock) as (link, transport):
        standing = await opened(link, transport)
        await advanced(clock, 15, lambda: standing._timer is not None)
        assert 3 <= gets(server) <= 10
        before = gets(server)
        await advanced(clock, 60, lambda: standing._timer is not None)
        assert gets(server) - before <= 6
        assert not link.ended.done()


async def test_a_stream_that_ends_after_a_message_is_opened_again_soon() -> None:
    clock = FakeClock()
    serve = by_method(rest=replying(stream(event(CHANGED)) + chunk(b"")))
    async with Server(opening(), rest=serve) as server, over_http(server.url, clock=clock) as (link, transport):
        standing = await opened(link, transport)
        await advanced(clock, 10, lambda: standing._timer is not None)
        assert 8 <= gets(server) <= 11


async def test_resumptions_of_a_call_that_end_at_once_come_ever_more_slowly() -> None:
    clock, times = FakeClock(), list[float]()

    async def poll(peer: Peer, asked: Asked) -> None:
        times.append(clock.now())
        await peer.send(stream(b"id: %d\nretry: 0\ndata:\n\n" % len(times)) + chunk(b""))

    async with Server(rest=poll) as server, over_http(server.url, clock=clock) as (link, _):
        asked = link.begin("tools/call", {}, timeout=3600)
        await server.heard(1)
        while len(times) < 6:
            await clock.advance(0.25)
        gaps = [after - before for before, after in pairwise(times)]
        assert gaps[0] >= 0.5
        assert all(after > before * 1.2 for before, after in pairwise(gaps))
        assert gaps[-1] <= RESUME_CEILING + 0.5
        assert not asked.is_done


async def test_a_server_that_answers_every_get_with_404_serves_its_calls_in_one_session() -> None:
    script = Script(era="handshake", tools=(tool("echo"),))
    async with HttpBackend(script) as server:
        server.fail(Fault(404, b"404 page not found", method="GET", times=0))
        async with running(over_web(server.url, transport="http", isolation="shared")) as run:
            await run.listed()
            for _ in range(5):
                assert await run.echo("x") == "x"
            async with asyncio.timeout(10):
                await server.wait_for("ping")
            assert await run.echo("x") == "x"
            assert len(server.sessions) == 1
            assert run.backend.status.is_open
