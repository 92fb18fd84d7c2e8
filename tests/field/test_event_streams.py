"""Replies and event streams as servers really write them: what the clients of the official SDKs read is read."""

import pytest

from mcp_manifold.errors import BackendLost, BackendTimeout
from tests.fakes.clock import FakeClock
from tests.fakes.hostile_http import Peer
from tests.unit.backends.linking import Heard, within
from tests.unit.backends.serving import Act, Asked, Server, answer, chunk, event, holding, over_http, stream, whole

pytestmark = pytest.mark.anyio

CHANGED = b'{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}'
NOISE = {
    "ping": b"event: ping\ndata: ping\n\n",
    "ping with a date": b"event: ping\ndata: 2026-01-01 10:00:00+00:00\n\n",
    "ping with a message": b'event: ping\ndata: {"jsonrpc":"2.0","id":1,"error":{"code":1,"message":"x"}}\n\n',
    "empty data": b"data:\n\n",
    "empty message": b"event: message\ndata: \n\n",
    "heartbeat": b"event: heartbeat\ndata: {}\n\n",
    "endpoint": b"event: endpoint\ndata: /messages\n\n",
    "only a name": b"event: ping\n\n",
    "done": b"data: [DONE]\n\n",
    "comment": b": keep-alive\n\n",
    "byte order mark": b"\xef\xbb\xbf: hello\n\n",
}


@pytest.mark.parametrize("noise", NOISE)
async def test_events_that_are_no_messages_do_not_disturb_a_reply(noise: str) -> None:
    async def act(peer: Peer, asked: Asked) -> None:
        await peer.send(stream(NOISE[noise], event(answer(asked, b'{"ok":true}')), NOISE[noise]) + chunk(b""))

    async with Server(act) as server, over_http(server.url) as (link, _):
        assert bytes(await within(link.request("tools/call", {}, timeout=30))) == b'{"ok":true}'
        assert bytes(await within(link.request("tools/call", {}, timeout=30))) == b"{}"


@pytest.mark.parametrize("noise", NOISE)
async def test_events_that_are_no_messages_do_not_disturb_the_standing_stream(noise: str) -> None:
    heard = Heard()
    open_, _ = holding(stream(NOISE[noise], event(CHANGED)))
    async with Server(open_) as server, over_http(server.url, heard=heard) as (_, transport):
        transport.listen()
        await heard.first("notifications/tools/list_changed")
        assert [asked.method for asked in server.asked] == ["GET"]


def as_events(kind: str) -> Act:
    async def act(peer: Peer, asked: Asked) -> None:
        await peer.send(whole(200, event(answer(asked, b'{"ok":true}')), kind=kind))

    return act


@pytest.mark.parametrize(
    "kind", ["Text/Event-Stream", "text/event-stream;charset=UTF-8", "TEXT/EVENT-STREAM ; charset=utf-8"]
)
async def test_a_media_type_is_read_in_any_case_and_with_parameters(kind: str) -> None:
    async with Server(as_events(kind)) as server, over_http(server.url) as (link, _):
        assert bytes(await within(link.request("tools/call", {}, timeout=30))) == b'{"ok":true}'


@pytest.mark.parametrize("status", [200, 201, 203])
@pytest.mark.parametrize("form", ["json", "batch of one", "byte order mark", "event", "event with a batch of one"])
async def test_an_answer_is_read_in_each_form(form: str, status: int) -> None:
    async def act(peer: Peer, asked: Asked) -> None:
        message = answer(asked, b'{"ok":true}')
        match form:
            case "batch of one":
                body = b" [\n%b]" % message
            case "byte order mark":
                body = b"\xef\xbb\xbf" + message
            case "event":
                body = event(message)
            case "event with a batch of one":
                body = event(b"[%b]" % message)
            case _:
                body = message
        kind = "text/event-stream" if form.startswith("event") else "application/json"
        await peer.send(whole(status, body, kind=kind))

    async with Server(act) as server, over_http(server.url) as (link, _):
        assert bytes(await within(link.request("tools/call", {}, timeout=30))) == b'{"ok":true}'


@pytest.mark.parametrize("announced", ["", "content-length: 4\r\n", "transfer-encoding: chunked\r\n"])
async def test_an_interim_response_has_no_body_whatever_its_head_says(announced: str) -> None:
    """RFC 9110, section 15.2."""

    async def act(peer: Peer, asked: Asked) -> None:
        hint = b"HTTP/1.1 103 Early Hints\r\nlink: </style.css>\r\n%b\r\n" % announced.encode()
        await peer.send(hint + hint)
        await peer.send(hint + whole(200, answer(asked, b'{"ok":true}')))

    async with Server(act) as server, over_http(server.url) as (link, _):
        assert bytes(await within(link.request("tools/call", {}, timeout=30))) == b'{"ok":true}'


async def test_a_silent_call_stream_ends_by_its_timeout_only() -> None:
    """`sseReadTimeout` is for streams without a deadline; a call may take its whole `timeout` in silence."""
    clock, heard = FakeClock(), Heard()
    silent, closed = holding(stream(event(CHANGED)))
    async with Server(silent) as server, over_http(server.url, clock=clock, heard=heard, idle_limit=3) as (link, _):
        pending = link.begin("tools/call", {}, timeout=600)
        await heard.first("notifications/tools/list_changed")
        await clock.advance(599)
        assert not pending.is_done
        link.abandon(pending, BackendTimeout("notes", "no answer within 600 s"))
        await within(closed.wait())


async def test_a_reply_that_is_an_empty_event_stream_leaves_the_outcome_unknown() -> None:
    async def act(peer: Peer, asked: Asked) -> None:
        await peer.send(stream(NOISE["ping"]) + chunk(b""))

    async with Server(act) as server, over_http(server.url) as (link, _):
        with pytest.raises(BackendLost, match="outcome is unknown"):
            await within(link.request("tools/call", {}, timeout=30))
