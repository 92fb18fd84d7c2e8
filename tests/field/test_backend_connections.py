"""Connections to servers: idle ones that servers close early, and TLS where plain HTTP was meant, or the reverse."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from mcp_manifold.backends.http.client_connection import tls_reason
from mcp_manifold.backends.http.exchange import HttpFailure, ResponseHeaders
from mcp_manifold.backends.http.pool import HttpPool
from mcp_manifold.backends.http.refusal import Refusal
from mcp_manifold.clock import Clock, LoopClock
from mcp_manifold.errors import BackendLost
from tests.fakes.certificate import tls_contexts
from tests.fakes.clock import FakeClock
from tests.fakes.hostile_http import HostileServer, Peer, answering, answering_always
from tests.fakes.http_receiver import Recorder
from tests.unit.backends.linking import eventually, within
from tests.unit.backends.serving import Asked, Server, opening, over_http, plain, whole

pytestmark = pytest.mark.anyio

PONG = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\npong"


@pytest.fixture(params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    """Both loops: they report the end of a connection differently."""
    return "asyncio", {"use_uvloop": request.param}


@asynccontextmanager
async def pool_of(
    url: str, *, clock: Clock | None = None, context: ssl.SSLContext | None = None
) -> AsyncIterator[HttpPool]:
    pool = HttpPool(url, max_body=1 << 20, clock=clock or LoopClock(), ssl_context=context)
    try:
        yield pool
    finally:
        await within(pool.aclose())


async def ping(pool: HttpPool) -> bytes:
    receiver = Recorder()
    pool.send(pool.head("POST"), b"ping", receiver)
    return await receiver.body_of_success()


async def failure(pool: HttpPool) -> HttpFailure:
    receiver = Recorder()
    pool.send(pool.head("POST"), b"ping", receiver)
    return await receiver.reason_of_failure()


# --- idle connections -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "idle", "connections"),
    [
        ("timeout=2", 1.0, 1),
        ("timeout=2", 1.5, 2),
        ("Timeout=2, max=100", 1.5, 2),
        ("timeout=0", 0.1, 2),
        ("timeout=60", 3.5, 1),
        ("max=5", 3.5, 1),
        ("timeout=soon", 3.5, 1),
    ],
)
async def test_a_connection_is_not_used_after_the_time_that_the_server_announces(
    field: str, idle: float, connections: int
) -> None:
    response = PONG.replace(b"content-length", b"Keep-Alive: %b\r\ncontent-length" % field.encode())
    clock = FakeClock()
    async with HostileServer(answering_always(response)) as server, pool_of(server.url, clock=clock) as pool:
        await ping(pool)
        await clock.advance(idle)
        await ping(pool)
        assert server.accepted == connections


async def test_connections_are_kept_for_a_shorter_time_once_the_server_closed_one_early() -> None:
    closing = asyncio.Event()

    async def early(peer: Peer) -> None:
        await answering(PONG)(peer)
        await closing.wait()

    clock = FakeClock()
    async with HostileServer(early, answering_always(PONG)) as server, pool_of(server.url, clock=clock) as pool:
        await ping(pool)
        await clock.advance(2.0)
        closing.set()
        await eventually(lambda: "open=0" in repr(pool))
        await ping(pool)
        await clock.advance(1.2)
        await ping(pool)
        await clock.advance(1.3)
        await ping(pool)
        assert server.accepted == 3


async def test_a_close_that_was_not_read_yet_is_seen_before_a_kept_connection_is_used() -> None:
    clock = FakeClock()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        async with pool_of(url, clock=clock) as pool:
            first = Recorder()
            pool.send(pool.head("POST"), b"ping", first)
            peer, _ = await asyncio.to_thread(listener.accept)
            await asyncio.to_thread(peer.recv, 65536)
            peer.sendall(PONG)
            await first.body_of_success()
            await clock.advance(1.0)
            peer.close()  # in this turn of the loop, which has not seen it
            second = Recorder()
            pool.send(pool.head("POST"), b"ping", second)
            other, _ = await asyncio.to_thread(listener.accept)
            await asyncio.to_thread(other.recv, 65536)
            other.sendall(PONG)
            assert await second.body_of_success() == b"pong"
            other.close()


async def closing_after_one(peer: Peer) -> None:
    """Answer one request, and close when the next one comes: it was sent before the close arrived."""
    await answering(PONG)(peer)
    await peer.request()


async def test_a_request_that_crossed_the_close_is_sent_once_more_if_it_only_reads() -> None:
    async with HostileServer(closing_after_one, answering_always(PONG)) as server, pool_of(server.url) as pool:
        await ping(pool)
        again = Recorder()
        pool.send(pool.head("POST"), b"ping", again, repeatable=True)
        assert await again.body_of_success() == b"pong"
        assert server.accepted == 2


async def test_a_request_is_repeated_once_and_never_on_a_new_connection() -> None:
    async def closing(peer: Peer) -> None:
        await peer.request()

    async with HostileServer(closing_after_one, closing) as server, pool_of(server.url) as pool:
        await ping(pool)
        again = Recorder()
        pool.send(pool.head("POST"), b"ping", again, repeatable=True)
        assert (await again.reason_of_failure()).kind == "reset"
        assert server.accepted == 2


@pytest.mark.parametrize("method", ["tools/list", "ping", "tools/call"])
async def test_lists_and_pings_cross_a_close_unharmed_and_a_call_is_not_repeated(method: str) -> None:
    async def dropped(peer: Peer, asked: Asked) -> None:
        peer.reset()

    async with Server(plain, dropped) as server, over_http(server.url) as (link, _):
        await within(link.request("ping", {}, timeout=30))
        asked = link.request(method, {}, timeout=30)
        if method == "tools/call":
            with pytest.raises(BackendLost, match="outcome is unknown"):
                await within(asked)
        else:
            assert bytes(await within(asked)) == b"{}"
        assert sum(method.encode() in one.body for one in server.asked) == {"ping": 3, "tools/list": 2}.get(method, 1)


async def test_a_session_that_ended_by_404_is_not_deleted() -> None:
    async def gone(peer: Peer, asked: Asked) -> None:
        await peer.send(whole(404))

    async with Server(opening(), gone) as server:
        async with over_http(server.url) as (link, _):
            await within(link.request("initialize", {}, timeout=30))
            await within(asyncio.gather(link.request("tools/call", {}, timeout=30), return_exceptions=True))
        assert [asked.method for asked in server.asked] == ["POST", "POST"]


# --- TLS -------------------------------------------------------------------------------------------------------------


async def test_a_server_that_requires_a_client_certificate_is_told_as_such(tmp_path: Path) -> None:
    serving, trusting = tls_contexts(tmp_path)
    serving.verify_mode = ssl.CERT_REQUIRED

    def refuse(listener: socket.socket) -> None:
        accepted, _ = listener.accept()
        with accepted.dup() as same, serving.wrap_socket(accepted, True, do_handshake_on_connect=False) as secured:
            with suppress(ssl.SSLError):
                secured.do_handshake()
            while same.recv(65536):  # closing with unread data would reset the connection, and lose the alert
                pass

    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"https://127.0.0.1:{listener.getsockname()[1]}/"
        async with pool_of(url, context=trusting) as pool:
            refusing = asyncio.ensure_future(asyncio.to_thread(refuse, listener))
            failed = await failure(pool)
            await within(refusing)
    assert (failed.kind, failed.sent) == ("tls", False)
    assert "the server requires a client certificate" in str(failed)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("TLSV13_ALERT_CERTIFICATE_REQUIRED", "the server requires a client certificate"),
        ("SSLV3_ALERT_HANDSHAKE_FAILURE", "it may require a client certificate"),
        ("WRONG_VERSION_NUMBER", "does not speak TLS on that port; use http:// in the url"),
        ("UNEXPECTED_EOF_WHILE_READING", "the TLS handshake failed: UNEXPECTED_EOF_WHILE_READING"),
    ],
)
async def test_a_failed_handshake_is_told_in_words(code: str, words: str) -> None:
    failed = ssl.SSLError(1, "whatever")
    failed.reason = code
    assert words in tls_reason(failed)


async def test_a_page_about_a_missing_client_certificate_is_told_as_such() -> None:
    page = b"<html><head><title>400 No required SSL certificate was sent</title></head></html>"
    refusal = Refusal(400, ResponseHeaders([(b"content-type", b"text/html")]), page)
    assert refusal.reason == "the server requires a client certificate (HTTP 400)"


async def test_plain_http_in_answer_to_a_tls_handshake_is_told_as_such(tmp_path: Path) -> None:
    async def script(peer: Peer) -> None:
        await peer.send(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")
        await peer.until_closed()

    server, trusting = HostileServer(script), tls_contexts(tmp_path)[1]
    async with server:
        url = server.url.replace("http:", "https:")
        async with pool_of(url, context=trusting) as pool:
            assert "the server does not speak TLS on that port; use http:// in the url" in str(await failure(pool))


async def test_a_tls_alert_in_answer_to_plain_http_is_told_as_such() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"\x15\x03\x01\x00\x02\x02\x46")

    async with HostileServer(script) as server, pool_of(server.url) as pool:
        assert "the server speaks TLS on that port; use https:// in the url" in str(await failure(pool))


async def test_a_tls_server_that_just_closes_is_hinted_at_until_the_server_has_answered_once(tmp_path: Path) -> None:
    hint = "if it speaks TLS, use https:// in the url"
    serving = HostileServer(Peer.until_closed, ssl_context=tls_contexts(tmp_path)[0])
    async with serving:
        url = serving.url.replace("https:", "http:")
        async with pool_of(url) as pool:
            assert hint in str(await failure(pool))
    async with HostileServer(closing_after_one) as server, pool_of(server.url) as pool:
        await ping(pool)
        assert hint not in str(await failure(pool))
