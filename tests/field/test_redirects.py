"""Servers that redirect: /mcp to /mcp/ as frameworks do, to another host, in a loop, or to nowhere."""

import asyncio
from collections.abc import Callable

import pytest

from mcp_manifold.backends.http.redirect import MAX_REDIRECTS
from mcp_manifold.errors import BackendProtocolError
from tests.fakes.hostile_http import Peer
from tests.peers.backend import HttpBackend, Script, SseBackend, tool
from tests.unit.backends.linking import Caller, Heard, eventually, raw, within
from tests.unit.backends.running import over_web, running
from tests.unit.backends.serving import (
    Asked,
    Server,
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


def to(location: str, status: int = 307) -> bytes:
    """A redirect, with a page for people."""
    return whole(status, b"<h1>moved</h1>", f"location: {location}", kind="text/html")


def slashed(status: int, location: Callable[[Asked], str]) -> "Server":
    """A server whose endpoint is /mcp/, and that redirects from /mcp."""

    async def act(peer: Peer, asked: Asked) -> None:
        if asked.target == "/mcp":
            await peer.send(to(location(asked), status))
        elif asked.method == "GET":
            await holding(stream(event(CHANGED)))[0](peer, asked)
        elif asked.body and asked.message.get("method") == "initialize":
            await opening()(peer, asked)
        else:
            await plain(peer, asked)

    return Server(rest=act)


@pytest.mark.parametrize("status", [307, 308])
@pytest.mark.parametrize("location", ["/mcp/", "mcp/", "absolute"])
async def test_a_redirect_on_the_same_origin_is_followed_with_body_and_headers(status: int, location: str) -> None:
    heard = Heard()

    def where(asked: Asked) -> str:
        return f"http://{asked.headers['host']}/mcp/" if location == "absolute" else location

    async with (
        slashed(status, where) as server,
        over_http(server.url, headers={"X-Key": "k"}, heard=heard) as (link, transport),
    ):
        await within(link.request("initialize", {}, timeout=30))
        assert bytes(await within(link.request("tools/call", {}, timeout=30))) == b"{}"
        transport.listen()
        await heard.first("notifications/tools/list_changed")
    first, second, *later = server.asked
    assert (first.target, second.target, first.body) == ("/mcp", "/mcp/", second.body)
    assert second.headers["x-key"] == "k"
    assert {asked.target for asked in later} == {"/mcp/"}, "the new path is remembered for this session"
    assert later[-1].method == "DELETE"


async def test_every_request_follows_a_redirect() -> None:
    """Also those after the greeting: a server may move at any time."""
    moved = [replying(to(f"/new/{number}")) for number in range(MAX_REDIRECTS)]
    async with Server(opening(), *moved) as server, over_http(server.url) as (link, _):
        await within(link.request("initialize", {}, timeout=30))
        assert bytes(await within(link.request("tools/call", {}, timeout=30))) == b"{}"
        note = link.notify("notifications/initialized")
        assert note is not None
        await within(note)
        assert [asked.target for asked in server.asked][-2:] == [f"/new/{MAX_REDIRECTS - 1}"] * 2


@pytest.mark.parametrize(
    ("location", "status", "told"),
    [
        ("/mcp", 307, "/mcp"),
        ("", 307, "nowhere"),
        ("http://[", 307, "nowhere"),
        ("/mcp/", 301, "/mcp/"),
        ("/login?next=secret", 302, "/login"),
        ("https://127.0.0.1/mcp", 308, "https://127.0.0.1/mcp"),
        ("http://user:secret@elsewhere.example/mcp?token=secret", 307, "http://elsewhere.example/mcp"),
    ],
)
async def test_any_other_redirect_is_told_with_its_target(location: str, status: int, told: str) -> None:
    async with Server(rest=replying(to(location, status))) as server, over_http(server.url) as (link, _):
        with pytest.raises(BackendProtocolError) as caught:
            await within(link.request("tools/call", {}, timeout=30))
        assert f"the server redirects to {told} (HTTP {status}), which is not followed" in caught.value.message
        assert "secret" not in caught.value.message
        assert len(server.asked) == (1 + MAX_REDIRECTS if location == "/mcp" else 1)


async def test_a_large_request_is_not_kept_for_a_redirect() -> None:
    """The path is known after the greeting; a later redirect of a large request is told."""
    async with Server(opening(), replying(to("/mcp/")), rest=plain) as server, over_http(server.url) as (link, _):
        await within(link.request("initialize", {}, timeout=30))
        with pytest.raises(BackendProtocolError, match="redirects to /mcp/"):
            await within(link.request("tools/call", raw(text="x" * 300_000), timeout=30))


async def test_credentials_do_not_follow_a_redirect_to_another_origin() -> None:
    async with Server() as elsewhere, Server(rest=replying(to(elsewhere.url))) as server:
        async with over_http(server.url, headers={"Authorization": "Bearer x"}) as (link, _):
            with pytest.raises(BackendProtocolError, match=f"redirects to {elsewhere.url}"):
                await within(link.request("tools/call", {}, timeout=30))
        assert elsewhere.accepted == 0


async def test_a_redirect_that_never_ends_is_bounded_by_the_timeout_of_the_request() -> None:
    half, closed = holding(to("/mcp/")[:-3])
    async with Server(half) as server, over_http(server.url) as (link, _):
        pending = link.begin("tools/call", {}, timeout=30)
        await server.heard(1)
        link.abandon(pending, None)
        await within(closed.wait())


async def test_an_aborted_request_does_not_go_where_the_redirect_led() -> None:
    release = asyncio.Event()

    async def closing(peer: Peer, asked: Asked) -> None:
        await peer.send(to("/mcp/").replace(b"content-length", b"connection: close\r\ncontent-length"))
        release.set()

    async with Server(closing) as server, over_http(server.url) as (link, transport):
        pending = link.begin("tools/call", {}, timeout=30)
        await within(release.wait())
        await eventually(lambda: transport._pool._waiting)
        link.abandon(pending, None)
        await within(asyncio.gather(link.request("ping", {}, timeout=30)))
        assert not any(asked.target == "/mcp/" for asked in server.asked)


@pytest.mark.parametrize("transport", ["http", "sse"])
@pytest.mark.parametrize("era", ["handshake", "modern"])
async def test_a_backend_behind_a_redirect_is_negotiated_and_called(era: str, transport: str) -> None:
    script = Script(era="modern" if era == "modern" and transport == "http" else "handshake", tools=(tool("echo"),))
    backend = HttpBackend(script) if transport == "http" else SseBackend(script)
    async with backend:
        backend.redirects["/old"] = backend.url.removeprefix(backend.origin)
        url = f"{backend.origin}/old"
        async with running(over_web(url, transport=transport, isolation="shared")) as run:
            await run.listed()
            assert await run.echo("x", Caller()) == "x"
