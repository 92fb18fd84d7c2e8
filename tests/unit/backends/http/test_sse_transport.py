"""The legacy HTTP+SSE transport: its endpoint, refused and slow POSTs, and the end of its stream."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from mcp_manifold.backends.http.pool import HttpPool
from mcp_manifold.backends.http.sse import ENDPOINT_WAIT, PROOF_WAIT, SseTransport
from mcp_manifold.backends.link.link import Link
from mcp_manifold.clock import Clock, LoopClock
from mcp_manifold.errors import BackendError, BackendLost, BackendProtocolError, BackendUnavailable
from mcp_manifold.wire import Payload
from tests.fakes.clock import FakeClock
from tests.fakes.hostile_http import Peer
from tests.peers.backend import Act, Fault, Script, SseBackend, tool
from tests.peers.sse_backend import Endpoint
from tests.unit.backends.linking import Heard, eventually, new_link, raw, within
from tests.unit.backends.linking import tool as arguments
from tests.unit.backends.serving import Asked, Server, chunk, event, holding, replying, stream, whole

pytestmark = pytest.mark.anyio

QUIET = Script(
    era="handshake",
    require_initialize=False,
    tools=(tool("echo"), tool("hang", Act("hang")), tool("big", Act("big", n=3_000_000))),
)
ENDPOINT = b"event: endpoint\ndata: /messages?x=1\n\n"


@asynccontextmanager
async def over_sse(
    url: str, *, heard: Heard | None = None, max_message: int = 1 << 24, clock: Clock | None = None
) -> AsyncIterator[tuple[Link, SseTransport]]:
    link, pool = new_link(heard), HttpPool(url, max_body=max_message, clock=clock or LoopClock())
    headers = {"Authorization": "Bearer k"}
    transport = SseTransport(link, pool, url, headers=headers, max_message=max_message, idle_limit=30)
    link.attach(transport)
    try:
        await within(transport.open())
        yield link, transport
    finally:
        await within(transport.aclose())
        await within(pool.aclose())


async def refusal(url: str, clock: Clock | None = None) -> BackendError:
    with pytest.raises(BackendError) as caught:
        async with over_sse(url, clock=clock):
            pass
    return caught.value


def ask(link: Link, name: str = "echo") -> "asyncio.Task[Payload]":
    return asyncio.ensure_future(link.request("tools/call", arguments(name), timeout=30))


async def failure(asked: "asyncio.Task[Payload]") -> BackendError:
    with pytest.raises(BackendError) as caught:
        await within(asked)
    return caught.value


# --- opening -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("endpoint", ["relative", "absolute"])
async def test_raw_messages_go_to_the_endpoint_with_the_credentials(endpoint: Endpoint) -> None:
    params = {**raw(name="echo"), "arguments": Payload(b'{ "z":1.50 }')}
    async with SseBackend(QUIET, token="k", endpoint=endpoint) as backend, over_sse(backend.url) as (link, _):
        assert b"content" in bytes(await within(link.request("tools/call", params, timeout=30)))
        assert b'"arguments":{ "z":1.50 }' in backend.calls("tools/call")[0].raw


async def test_s20_an_endpoint_on_another_origin_is_refused_and_gets_nothing() -> None:
    async with SseBackend(QUIET, endpoint="foreign") as backend:
        failed = await refusal(backend.url)
        assert isinstance(failed, BackendProtocolError)
        assert failed.message == "SSE endpoint is on another origin"
        assert [item.method for item in backend.exchanges] == ["GET"]


@pytest.mark.parametrize("endpoint", ["http://[::1", "http://[x]/m", "/a\x01b"])
async def test_an_endpoint_that_is_no_address_is_refused(endpoint: str) -> None:
    async with Server(replying(stream(event(endpoint.encode(), name="endpoint")))) as server:
        failed = await refusal(server.url)
        assert isinstance(failed, BackendProtocolError)
        assert failed.message == "SSE endpoint is not a valid URL"


async def test_the_same_origin_in_another_spelling_is_accepted() -> None:
    async def opening(peer: Peer, asked: Asked) -> None:
        endpoint = server.url.replace("http:", "HTTP:").replace("/mcp", "/messages").encode()
        await peer.send(stream(event(endpoint, name="endpoint")))
        await peer.until_closed()

    async with Server(opening) as server, over_sse(server.url) as (_, transport):
        assert "open" in repr(transport)


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (401, "the server rejected the credentials (HTTP 401)"),
        (404, "no event stream at that URL (HTTP 404)"),
        (405, "no event stream at that URL (HTTP 405)"),
        (500, "the server answered HTTP 500 instead of MCP"),
    ],
)
async def test_a_status_instead_of_the_stream_is_reported(status: int, words: str) -> None:
    async with Server(replying(whole(status))) as server:
        failed = await refusal(server.url)
        assert words in failed.message
        assert failed.status == status


async def test_a_page_instead_of_the_stream_is_a_protocol_error() -> None:
    async with Server(replying(whole(200, b"<html>", kind="text/html"))) as server:
        assert isinstance(await refusal(server.url), BackendProtocolError)


async def test_a_stream_without_an_endpoint_times_out_and_is_closed() -> None:
    silent, closed = holding(stream(b": hello\n\n"))
    async with Server(silent) as server:
        clock = FakeClock()
        opening = asyncio.ensure_future(refusal(server.url, clock))
        await server.heard(1)
        await clock.advance(ENDPOINT_WAIT)
        assert "no endpoint event on the event stream within 30 s" in (await within(opening)).message
        await within(closed.wait())


async def test_a_server_that_is_not_there_is_unavailable() -> None:
    async with Server() as server:
        url = server.url
    assert isinstance(await refusal(url), BackendUnavailable)


# --- calls ----------------------------------------------------------------------------------------------------------


async def test_a_refused_post_fails_its_call_at_once_and_no_other() -> None:
    async with SseBackend(QUIET) as backend, over_sse(backend.url) as (link, _):
        waiting = ask(link, "hang")
        await backend.wait_for("tools/call")
        backend.fail(Fault(503, method="tools/call"))
        assert "the server answered HTTP 503 instead of MCP" in (await failure(ask(link))).message
        assert not waiting.done()
        await backend.release()
        await within(waiting)


async def test_a_slow_post_holds_up_no_other_call() -> None:
    async with SseBackend(QUIET) as backend, over_sse(backend.url) as (link, _):
        backend.fail(Fault(kind="hang", method="tools/call", gate="slow"))
        slow = ask(link)
        await backend.recorder.wait_for(lambda item: item.kind == "http" and item.method == "POST")
        await within(ask(link))
        assert not slow.done()
        await backend.release("slow")
        await within(slow)


async def test_an_event_larger_than_a_mebibyte_is_fine() -> None:
    async with SseBackend(QUIET) as backend, over_sse(backend.url) as (link, _):
        assert len(bytes(await within(ask(link, "big")))) > 3_000_000


async def test_notifications_arrive_and_events_of_other_names_do_not() -> None:
    heard = Heard()
    note = b'{"jsonrpc":"2.0","method":"notifications/message","params":{"n":%d}}'
    opening, _ = holding(stream(ENDPOINT, event(note % 1, name="ping"), event(note % 2)))
    async with Server(opening) as server, over_sse(server.url, heard=heard):
        assert await heard.first("notifications/message") == b'{"n":2}'


# --- the end --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["end", "reset"])
async def test_the_end_of_the_stream_ends_the_link_and_fails_requests_in_flight(ending: str) -> None:
    async with SseBackend(QUIET) as backend, over_sse(backend.url) as (link, _):
        waiting = ask(link, "hang")
        await backend.wait_for("tools/call")
        if ending == "reset":
            await backend.reset_connections()
        else:
            backend.end_streams()
        failed = await failure(waiting)
        assert isinstance(failed, BackendLost)
        assert ("the server closed the event stream" in failed.message) == (ending == "end")
        assert link.ended.done()


async def test_an_event_over_the_limit_ends_the_link() -> None:
    opened = asyncio.Event()

    async def opening(peer: Peer, asked: Asked) -> None:
        await peer.send(stream(ENDPOINT))
        await opened.wait()
        await peer.send(chunk(b"data: " + b"x" * 20_000))
        await peer.until_closed()

    async with Server(opening) as server, over_sse(server.url, max_message=10_000) as (link, _):
        opened.set()
        assert "larger than the message limit" in str(await within(asyncio.shield(link.ended)))


async def test_an_idle_stream_ends_the_link_only_while_an_answer_is_due_and_a_ping_has_none() -> None:
    clock = FakeClock()
    script = replace(QUIET, on={"ping": Act("silent")})
    async with SseBackend(script) as backend, over_sse(backend.url, clock=clock) as (link, _):
        await clock.advance(90)  # looked at three times, just now as well
        assert not link.ended.done()
        asked = ask(link, "hang")
        await backend.wait_for("tools/call")
        await clock.advance(30)
        await backend.wait_for("ping")
        assert not link.ended.done()
        await clock.advance(PROOF_WAIT)
        assert "event stream idle for 30 s while responses were due" in (await failure(asked)).message


async def test_a_call_may_be_silent_for_its_timeout_if_the_server_answers_pings() -> None:
    clock = FakeClock()
    async with SseBackend(QUIET) as backend, over_sse(backend.url, clock=clock) as (link, _):
        asked = ask(link, "hang")
        await backend.wait_for("tools/call")
        for count in range(1, 4):
            await clock.advance(30)
            await backend.wait_for("ping", count=count)
            await eventually(lambda: len(link.pending) == 1)
        await backend.release()
        await within(asked)


async def test_closing_closes_the_stream_and_fails_what_is_in_flight() -> None:
    async with SseBackend(QUIET) as backend:
        async with over_sse(backend.url) as (link, transport):
            waiting = ask(link, "hang")
            await backend.wait_for("tools/call")
            await within(transport.aclose())
            assert "the connection was closed" in (await failure(waiting)).message
        await backend.recorder.wait_until(lambda: not backend.open_connections, "the end of all connections")
