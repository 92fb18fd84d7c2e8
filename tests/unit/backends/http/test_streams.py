"""The standing GET stream of a Streamable HTTP link, reopened or abandoned, and its posted notifications."""

import asyncio

import pytest

from mcp_manifold.backends.http.exchange import HttpFailure, ResponseHeaders
from mcp_manifold.backends.http.streams import POST_WAIT, RESUME_DELAY, NotificationPost
from mcp_manifold.clock import LoopClock
from mcp_manifold.errors import SessionExpired
from tests.fakes.clock import FakeClock
from tests.fakes.hostile_http import Peer
from tests.unit.backends.linking import Heard, eventually, raw, within
from tests.unit.backends.serving import (
    Asked,
    Server,
    chunk,
    event,
    holding,
    opening,
    over_http,
    replying,
    stream,
    whole,
)

pytestmark = pytest.mark.anyio

CHANGED = b'{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}'


held_open, _ = holding(stream(event(CHANGED)))


async def test_notifications_of_no_request_arrive_on_the_stream() -> None:
    heard = Heard()
    async with Server(held_open) as server, over_http(server.url, heard=heard) as (link, transport):
        transport.listen()
        await heard.first("notifications/tools/list_changed")
        assert (server.asked[0].method, server.asked[0].headers["accept"]) == ("GET", "text/event-stream")
        assert not link.ended.done()


@pytest.mark.parametrize("refused", [whole(405), whole(404), whole(400), whole(200, b"{}")])
async def test_a_server_without_a_standing_stream_is_not_asked_again(refused: bytes) -> None:
    async with Server(replying(refused)) as server, over_http(server.url) as (link, transport):
        transport.listen()
        await server.heard(1)
        await within(link.request("x", {}, timeout=30))
        assert transport._standing is not None
        while "open" in repr(transport._standing):
            await within(link.request("x", {}, timeout=30))
        assert [asked.method for asked in server.asked].count("GET") == 1
        assert not link.ended.done()


@pytest.mark.parametrize("ending", ["ended", "reset", "500"])
async def test_a_broken_stream_is_resumed_after_its_last_event(ending: str) -> None:
    async def broken(peer: Peer, asked: Asked) -> None:
        await peer.send(stream(b"id: 7\nretry: 0\ndata:\n\n"))
        if ending == "reset":
            peer.reset()
        else:
            await peer.send(chunk(b""))

    middle = replying(whole(500)) if ending == "500" else held_open
    heard = Heard()
    async with Server(broken, middle, held_open) as server, over_http(server.url, heard=heard) as (_, transport):
        transport.listen()
        await heard.first("notifications/tools/list_changed")
        again = [asked for asked in server.asked if asked.method == "GET"][1:]
        assert {asked.headers["last-event-id"] for asked in again} == {"7"}


async def test_a_silent_stream_is_reopened() -> None:
    silent, _ = holding(stream(b"retry: 0\n\n"))
    clock = FakeClock()
    async with Server(rest=silent) as server, over_http(server.url, idle_limit=30, clock=clock) as (link, transport):
        transport.listen()
        opening = clock.pending
        await eventually(lambda: clock.pending > opening)
        await clock.advance(30)
        await clock.advance(RESUME_DELAY)
        await server.heard(2, "GET")
        assert not link.ended.done()


async def test_an_event_over_the_limit_reopens_the_stream() -> None:
    big, _ = holding(stream(b"retry: 0\n\n", b"data: " + b"x" * 20_000))
    heard, clock = Heard(), FakeClock()
    async with (
        Server(big, held_open) as server,
        over_http(server.url, heard=heard, max_message=10_000, clock=clock) as (link, transport),
    ):
        transport.listen()
        await server.heard(1, "GET")
        while len(server.asked) == 1:
            await clock.advance(RESUME_DELAY)
        await heard.first("notifications/tools/list_changed")
        assert not link.ended.done()


async def test_404_for_the_session_ends_the_link() -> None:
    gone = replying(whole(404))
    async with Server(opening(), gone, gone) as server, over_http(server.url) as (link, transport):
        await within(link.request("initialize", raw(x=1), timeout=30))
        transport.listen()
        assert isinstance(await within(asyncio.shield(link.ended)), SessionExpired)
        assert server.asked[1].headers["mcp-session-id"] == "s-1"


async def test_closing_the_link_closes_the_stream_for_good() -> None:
    act, closed = holding(stream(b"retry: 0\n\n"))
    async with Server(act) as server:
        async with over_http(server.url) as (_, transport):
            transport.listen()
            await server.heard(1, "GET")
        await within(closed.wait())
        assert [asked.method for asked in server.asked].count("GET") == 1


async def test_a_posted_notification_is_accepted_or_tells_why_not() -> None:
    for status, problem in ((202, ""), (403, "the server refused the message (HTTP 403)")):
        note = NotificationPost("notes", LoopClock())
        assert "waiting" in repr(note)
        note.responded(status, ResponseHeaders([]))
        note.ended()
        assert (note.accepted.done(), note.problem) == (True, problem)
    note = NotificationPost("notes", LoopClock())
    note.failed(HttpFailure("connect", "connection refused", sent=False))
    assert (note.accepted.done(), note.problem) == (True, "connection refused")


async def test_a_refused_notification_does_not_end_the_link() -> None:
    async with Server(replying(whole(403))) as server, over_http(server.url) as (link, _):
        accepted = link.notify("notifications/initialized")
        assert accepted is not None
        await within(accepted)
        assert not link.ended.done()


async def test_a_notification_without_a_reply_times_out() -> None:
    silent, closed = holding()
    clock = FakeClock()
    async with Server(silent) as server, over_http(server.url, clock=clock) as (link, _):
        accepted = link.notify("notifications/initialized")
        assert accepted is not None
        await server.heard(1)
        await clock.advance(POST_WAIT)
        assert accepted.done()
        await within(closed.wait())
        assert not link.ended.done()
