"""Negotiation with servers that refuse what they do not know in their own way: every other attempt is made."""

import pytest

from mcp_manifold.model.lifecycle import State
from tests.fakes.hostile_http import Peer
from tests.peers.backend import Act as Reply
from tests.peers.backend import Fault, HttpBackend, Script, SseBackend, StdioBackend, tool
from tests.unit.backends.running import Run, over_stdio, over_web, running
from tests.unit.backends.serving import Act, Asked, Server, chunk, replying, stream, whole

pytestmark = pytest.mark.anyio

SCRIPT = Script(era="handshake", get_stream=False, tools=(tool("echo"),))
CHALLENGE = (("WWW-Authenticate", 'Bearer resource_metadata="https://example.com/prm"'),)
REFUSALS = {
    **{str(status): Fault(status) for status in (400, 401, 403, 404, 405, 406, 415, 422, 500, 501, 502, 503)},
    "reset": Fault(kind="reset"),
    "ended stream": Fault(200, b": nothing\n\n", (("Content-Type", "text/event-stream"),)),
    "page": Fault(200, b"<html>", (("Content-Type", "text/html"),)),
    "empty": Fault(200),
    "accepted": Fault(202),
}


def refusing(fault: Fault, method: str) -> Fault:
    return Fault(fault.status, fault.body, fault.headers, fault.kind, method=method, times=0)


async def reason(run: Run) -> str:
    """Why the first attempt to connect failed."""
    await run.context.until(lambda: run.backend.status.state is State.BACKING_OFF)
    return run.backend.status.last_error


@pytest.mark.parametrize("way", REFUSALS)
async def test_any_refusal_of_discovery_leads_to_the_handshake(way: str) -> None:
    async with HttpBackend(SCRIPT) as server:
        server.fail(refusing(REFUSALS[way], "server/discover"))
        async with running(over_web(server.url, transport="http", isolation="shared")) as run:
            await run.listed()
            assert await run.echo("x") == "x"
            assert run.backend.era == "handshake"


@pytest.mark.parametrize("way", REFUSALS)
async def test_any_refusal_of_posts_lets_auto_try_sse(way: str) -> None:
    async with SseBackend(SCRIPT) as server:
        fault = REFUSALS[way]
        for method in ("server/discover", "initialize"):
            server.fail(Fault(fault.status, fault.body, fault.headers, fault.kind, method=method))
        async with running(over_web(server.url, isolation="shared")) as run:
            await run.listed()
            assert await run.echo("x") == "x"
            assert run.backend.kind == "sse"


async def test_a_server_that_is_not_there_is_not_asked_in_other_ways() -> None:
    async with Server() as server:
        url = server.url
    async with running(over_web(url)) as run:
        assert "refused" in await reason(run)


async def test_too_many_requests_are_not_answered_with_more() -> None:
    busy = replying(whole(429, b"", "retry-after: 60"))
    async with Server(rest=busy) as server, running(over_web(server.url)) as run:
        assert await reason(run) == "rate limited by the server (HTTP 429); try again in 60 s"
        assert len(server.asked) == 1


def by_kind(post: bytes, get: bytes) -> Act:
    async def act(peer: Peer, asked: Asked) -> None:
        await peer.send(post if asked.method == "POST" else get)

    return act


UNAUTHORIZED = whole(401, b'{"error":"invalid_token"}', 'www-authenticate: Bearer realm="mcp"')
REJECTED = 'the server rejected the credentials (HTTP 401, Bearer realm="mcp")'


@pytest.mark.parametrize(
    ("post", "get", "words"),
    [
        (UNAUTHORIZED, whole(405), REJECTED),
        (UNAUTHORIZED, UNAUTHORIZED, REJECTED),
        (whole(405), UNAUTHORIZED, REJECTED),
        (whole(503), whole(404), "the server answered HTTP 503 instead of MCP"),
        (whole(404), whole(404), "no MCP endpoint at that URL (HTTP 404)"),
        (whole(404), whole(502), "the server answered HTTP 502 instead of MCP"),
        (whole(405), stream() + chunk(b""), "the server closed the event stream"),
        (whole(200, b"<html>", kind="text/html"), whole(200, b"<html>", kind="text/html"), "a web page"),
        (whole(302, b"", "location: /login"), whole(404), "the server redirects to /login (HTTP 302)"),
    ],
)
async def test_the_reason_is_the_first_most_specific_one(post: bytes, get: bytes, words: str) -> None:
    async with Server(rest=by_kind(post, get)) as server, running(over_web(server.url)) as run:
        assert words in await reason(run)
        assert {asked.method for asked in server.asked} == {"POST", "GET"}


async def test_the_words_of_a_server_that_refuses_the_handshake_are_told() -> None:
    async with HttpBackend(SCRIPT) as server:
        server.fail(refusing(Fault(400), "server/discover"))
        body = b'{"jsonrpc":"2.0","id":null,"error":{"code":-32000,"message":"licence expired"}}'
        server.fail(refusing(Fault(400, body), "initialize"))
        async with running(over_web(server.url)) as run:
            assert await reason(run) == "connection refused by the server: licence expired (-32000)"


async def test_an_unknown_discovery_does_not_hide_why_a_process_refused_the_handshake() -> None:
    made = Script(era="handshake", on={"initialize": Reply("error", '{"code":-32603,"message":"API key is missing"}')})
    async with running(over_stdio(StdioBackend(made))) as run:
        assert await reason(run) == "connection refused by the server: API key is missing (-32603)"


async def test_a_challenge_is_told_by_a_server_of_either_transport() -> None:
    for made in (HttpBackend(SCRIPT, token="t"), SseBackend(SCRIPT, token="t")):
        async with made, running(over_web(made.url)) as run:
            told = await reason(run)
            assert 'HTTP 401, Bearer error="invalid_token"' in told
            assert "no event stream" not in told
