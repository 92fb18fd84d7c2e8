"""Servers that forgot the session, and say so in the ways that were seen in the field."""

import pytest

from mcp_manifold.backends.http.session_check import CHECK_WAIT
from mcp_manifold.config import ServerSettings
from mcp_manifold.errors import BackendError, RemoteError
from mcp_manifold.model.lifecycle import State
from tests.fakes.clock import FakeClock
from tests.fakes.hostile_http import Peer
from tests.peers.backend import Act, Fault, HttpBackend, Script, SseBackend, tool
from tests.peers.http_wire import event
from tests.unit.backends.linking import within
from tests.unit.backends.running import over_web, running
from tests.unit.backends.serving import Asked, Server, answer, opening, over_http, plain, replying, whole

pytestmark = pytest.mark.anyio

JSON = (("Content-Type", "application/json"),)
TEXT = (("Content-Type", "text/plain"),)
EVENTS = (("Content-Type", "text/event-stream"),)


def error(message: str, code: int = -32000, id_: str = "null") -> bytes:
    """A JSON-RPC error."""
    return b'{"jsonrpc":"2.0","id":%b,"error":{"code":%d,"message":"%b"}}' % (id_.encode(), code, message.encode())


WAYS = {
    "404": Fault(404),
    "404 page": Fault(404, b"404 page not found", TEXT),
    "404 error": Fault(404, error("Session not found", -32001), JSON),
    "400 no valid session": Fault(400, error("Bad Request: No valid session ID provided"), JSON),
    "400 text": Fault(400, b"Invalid session ID", TEXT),
    "400 empty": Fault(400),
    "400 not initialized": Fault(400, error("Bad Request: Server not initialized"), JSON),
    "401": Fault(401, b"Unauthorized: Session not found", TEXT),
    "410": Fault(410, error("Session expired", -32001), JSON),
    "500": Fault(500, error("unknown session", -32603), JSON),
    "503": Fault(503, error("MCP session is unknown on this instance", -32001), JSON),
    "200 error": Fault(200, error("Session not found", -32001, "$ID"), JSON),
    "200 error without id": Fault(200, error("Session not found", -32001), JSON),
    "200 event": Fault(200, event(error("missing Mcp-Session-Id", -32600, "$ID")), EVENTS),
}
SCRIPT = Script(era="handshake", get_stream=False, tools=(tool("echo"),))


def over_shared(url: str) -> ServerSettings:
    return over_web(url, transport="http", era="handshake", isolation="shared", pingInterval=0)


@pytest.mark.parametrize("way", WAYS)
async def test_the_session_is_renewed_and_the_call_repeated(way: str) -> None:
    async with HttpBackend(SCRIPT) as server, running(over_shared(server.url)) as run:
        assert await run.echo("before") == "before"
        await run.listed()
        server.unknown_session = WAYS[way]
        server.forget_sessions()
        assert await run.echo("after") == "after"
        assert len(server.sessions) == 1
    assert len(server.deletes) == 1, "a session that was forgotten is not deleted"


async def test_an_internal_error_renews_the_session_but_does_not_repeat_the_call() -> None:
    async with HttpBackend(SCRIPT) as server, running(over_shared(server.url)) as run:
        await run.echo("before")
        await run.listed()
        server.unknown_session = Fault(500, b"Internal Server Error", TEXT)
        server.forget_sessions()
        with pytest.raises(BackendError, match="HTTP 500"):
            await run.echo("once")
        assert await run.echo("after") == "after"


@pytest.mark.parametrize(
    "fault",
    [
        Fault(400, error("path is not absolute"), JSON, method="tools/call", times=0),
        Fault(400, b"", method="tools/call", times=0),
        Fault(410, b"", method="tools/call", times=0),
        Fault(500, b"", method="tools/call", times=0),
        Fault(401, b"browser session expired", TEXT, method="tools/call", times=0),
    ],
    ids=lambda fault: f"{fault.status} {len(fault.body)}",
)
async def test_a_refusal_for_another_reason_keeps_the_session_and_is_not_repeated(fault: Fault) -> None:
    async with HttpBackend(SCRIPT) as server, running(over_shared(server.url)) as run:
        await run.echo("before")
        await run.listed()
        server.fail(fault)
        known, seen = set(server.sessions), len(server.exchanges)
        with pytest.raises((BackendError, RemoteError)):
            await run.echo("refused")
        assert set(server.sessions) == known
        sent = [each.raw for each in server.exchanges[seen:]]
        assert [b'"tools/call"' in raw for raw in sent] == [True, False]
        assert b'"ping"' in sent[1], "the session is verified once"


async def test_a_limit_of_the_session_is_not_its_end() -> None:
    async with HttpBackend(SCRIPT) as server, running(over_shared(server.url)) as run:
        await run.listed()
        server.fail(Fault(429, b"too many requests in this session", TEXT, times=0))
        with pytest.raises(BackendError, match="rate limited"):
            await run.echo()
        assert len(server.sessions) == 1
        assert run.backend.stats.links == 1


async def test_an_error_of_a_tool_about_another_session_is_relayed() -> None:
    act = Act("error", '{"code":-32001,"message":"no such browser session"}')
    script = Script(era="handshake", get_stream=False, tools=(tool("echo", act),))
    async with HttpBackend(script) as server, running(over_shared(server.url)) as run:
        await run.listed()
        with pytest.raises(RemoteError) as caught:
            await run.echo()
        assert caught.value.code == -32001
        assert len(server.sessions) == 1


async def test_the_session_counts_as_known_if_the_check_is_not_answered() -> None:
    async def silent(peer: Peer, asked: Asked) -> None:
        await peer.until_closed()

    refusing, clock = replying(whole(400, b"no")), FakeClock()
    async with (
        Server(opening(), refusing, silent, rest=plain) as server,
        over_http(server.url, clock=clock) as (link, _),
    ):
        await within(link.request("initialize", {}, timeout=30))
        refused = link.begin("tools/call", {}, timeout=60)
        assert (await server.heard(3)).message["method"] == "ping"
        await clock.advance(CHECK_WAIT)
        with pytest.raises(BackendError, match="HTTP 400"):
            await within(refused.future)
        assert not link.ended.done()


async def test_refused_requests_share_one_check() -> None:
    async def held(peer: Peer, asked: Asked) -> None:
        if b'"ping"' in asked.body:
            await server.heard(4)
            await peer.send(whole(200, answer(asked)))
        else:
            await peer.send(whole(400, b"no"))

    async with Server(opening(), rest=held) as server, over_http(server.url) as (link, _):
        await within(link.request("initialize", {}, timeout=30))
        refused = [link.begin("tools/call", {}, timeout=30) for _ in range(2)]
        for each in refused:
            with pytest.raises(BackendError, match="HTTP 400"):
                await within(each.future)
        assert sum(b'"ping"' in asked.body for asked in server.asked) == 1


async def test_a_refused_ping_is_no_sign_of_health() -> None:
    async with (
        HttpBackend(SCRIPT) as server,
        running(over_web(server.url, transport="http", era="handshake", isolation="shared", pingInterval=0.05)) as run,
    ):
        await run.listed()
        server.unknown_session = WAYS["400 no valid session"]
        server.forget_sessions()
        await run.context.until(lambda: run.backend.stats.links == 2)
        assert await run.echo("after") == "after"


async def test_a_ping_that_a_gateway_refuses_is_no_sign_of_health_and_an_unknown_method_is() -> None:
    async with HttpBackend(SCRIPT) as server:
        settings = over_web(server.url, transport="http", era="handshake", isolation="shared", pingInterval=0.02)
        async with running(settings) as run:
            await run.listed()
            server.fail(Fault(404, error("Method not found", -32601), JSON, method="ping", times=0))
            await server.wait_for(lambda item: item.kind == "http" and b'"ping"' in item.raw, count=5)
            assert run.backend.status.state is State.READY
            server.heal()
            server.fail(Fault(403, error("forbidden"), JSON, method="ping", times=0))
            await run.context.until(lambda: run.backend.status.state is State.DEGRADED)
            server.heal()
            await run.context.until(lambda: run.backend.status.state is State.READY)
            assert await run.echo("x") == "x"


async def test_a_session_of_the_sse_transport_that_was_forgotten_is_renewed() -> None:
    async with SseBackend(SCRIPT) as server, running(over_web(server.url, transport="sse", isolation="shared")) as run:
        assert await run.echo("before") == "before"
        await run.listed()
        server.fail(Fault(404, b"Could not find session", TEXT, method="tools/call"))
        assert await run.echo("after") == "after"
        assert run.backend.stats.links == 2
