"""The HTTP connection pool against scripted servers, on both event loops; every test ends without leftovers."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from mcp_manifold.backends.http.exchange import Exchange, HttpFailure
from mcp_manifold.backends.http.pool import HttpPool
from mcp_manifold.clock import LoopClock
from mcp_manifold.http1.head import header_line
from tests.fakes.certificate import tls_contexts
from tests.fakes.clock import FakeClock
from tests.fakes.hostile_http import HostileServer, Peer, Script, answering, answering_always
from tests.fakes.http_receiver import Recorder, within
from tests.peers import BOUND

pytestmark = pytest.mark.anyio

OK = b"HTTP/1.1 200 OK\r\n"
PONG = OK + b"content-length: 4\r\n\r\npong"

OpenPool = Callable[..., HttpPool]
Contexts = tuple[ssl.SSLContext, ssl.SSLContext]


@pytest.fixture(params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    """Both loops: their transports differ in what they report, and when."""
    return "asyncio", {"use_uvloop": request.param}


@pytest.fixture
async def open_pool() -> AsyncIterator[OpenPool]:
    """Makes pools, closes them, and finds nothing left of them."""
    before = asyncio.all_tasks()
    pools: list[HttpPool] = []

    def open_one(url: str, **options: object) -> HttpPool:
        settings: dict[str, object] = {"max_body": 10_000_000, "clock": LoopClock(), **options}
        pools.append(HttpPool(url, **settings))  # type: ignore[arg-type]  # each test names real options
        return pools[-1]

    yield open_one
    for pool in pools:
        await within(pool.aclose())
        assert repr(pool) == f"<HttpPool {pool.where} closed open=0 idle=0 waiting=0>"
    assert not [task for task in asyncio.all_tasks() - before if task.get_name().startswith("dial")]


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Contexts:
    """The contexts of a server and of a client that trusts it."""
    folder: Path = tmp_path_factory.mktemp("tls")
    return tls_contexts(folder)


def ask(pool: HttpPool, receiver: Recorder, body: bytes = b"ping") -> Exchange:
    return pool.send(pool.head("POST"), body, receiver)


async def ping(pool: HttpPool) -> bytes:
    receiver = Recorder()
    ask(pool, receiver)
    return await receiver.body_of_success()


async def refused(pool: HttpPool) -> HttpFailure:
    """The failure of a request; nothing is reported before `send` has returned."""
    receiver = Recorder()
    ask(pool, receiver)
    assert receiver.calls == [], "a receiver is never called before `send` has returned"
    return await receiver.reason_of_failure()


def until_closed(data: bytes) -> tuple[Script, asyncio.Event]:
    """A server that answers one request with `data`, and the event that the client closed the connection."""
    closed = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(data)
        await peer.until_closed()
        closed.set()

    return script, closed


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


async def hold(peer: Peer) -> None:
    """Read a request and never answer."""
    await peer.request()
    await peer.until_closed()


async def until_idle(pool: HttpPool, text: str) -> None:
    """Let the loop run until the pool's repr says so."""
    async with asyncio.timeout(BOUND):
        while text not in repr(pool):  # noqa: ASYNC110 - the pool has no event for it, and needs none
            await asyncio.sleep(0)


async def test_sequential_requests_share_one_connection(open_pool: OpenPool) -> None:
    async with HostileServer(answering_always(PONG)) as server:
        pool = open_pool(server.url)
        for _ in range(5):
            assert await ping(pool) == b"pong"
        assert server.accepted == 1
        assert repr(pool) == f"<HttpPool 127.0.0.1:{server.port} open=1 idle=1 waiting=0>"


async def test_a_request_sent_from_the_end_of_another_uses_its_connection(open_pool: OpenPool) -> None:
    async with HostileServer(answering_always(PONG)) as server:
        pool = open_pool(server.url)
        second = Recorder()
        ask(pool, Recorder(then=lambda: ask(pool, second)))
        assert await second.body_of_success() == b"pong"
        assert server.accepted == 1


async def test_concurrent_requests_have_a_connection_each_and_the_last_one_back_is_used_next(
    open_pool: OpenPool,
) -> None:
    async with HostileServer(answering_always(PONG)) as server:
        pool = open_pool(server.url)
        receivers = [Recorder() for _ in range(5)]
        for receiver in receivers:
            ask(pool, receiver)
        for receiver in receivers:
            assert await receiver.body_of_success() == b"pong"
        for _ in range(5):
            await ping(pool)
        assert server.accepted <= 5
        assert "waiting=0" in repr(pool)


async def test_a_request_arrives_as_it_was_written(open_pool: OpenPool) -> None:
    seen: list[bytes] = []

    async def script(peer: Peer) -> None:
        while True:
            seen.append(await peer.request())
            await peer.send(PONG)

    async with HostileServer(script) as server:
        pool = open_pool(server.url + "?k=v")
        host = f"host: 127.0.0.1:{server.port}\r\naccept-encoding: identity\r\n".encode()
        for head, body, extra in [
            (pool.head("POST", headers=[("accept", "a/b")]), b"{}", header_line("mcp-name", "x")),
            (pool.head("GET", "/other"), b"", b""),
            (pool.head("DELETE"), b"", b""),
            (pool.head("POST"), b"x" * 3_000_000, b""),
        ]:
            receiver = Recorder()
            pool.send(head, body, receiver, extra=extra)
            await receiver.body_of_success()
        assert (
            seen[0]
            == b"POST /mcp?k=v HTTP/1.1\r\n" + host + b"accept: a/b\r\nmcp-name: x\r\ncontent-length: 2\r\n\r\n{}"
        )
        assert seen[1] == b"GET /other HTTP/1.1\r\n" + host + b"\r\n"
        assert seen[2] == b"DELETE /mcp?k=v HTTP/1.1\r\n" + host + b"content-length: 0\r\n\r\n"
        assert seen[3].endswith(b"content-length: 3000000\r\n\r\n" + b"x" * 3_000_000)


@pytest.mark.parametrize("head", [b"connection: close\r\ncontent-length: 4\r\n", b""], ids=["close", "no length"])
async def test_a_connection_that_ends_with_its_response_is_replaced(open_pool: OpenPool, head: bytes) -> None:
    async with HostileServer(answering(OK + head + b"\r\npong")) as server:
        pool = open_pool(server.url)
        assert [await ping(pool) for _ in range(3)] == [b"pong"] * 3
        assert server.accepted == 3
        await until_idle(pool, "open=0")


@pytest.mark.parametrize(
    "part", [b"", b"HTTP/1.1 20", PONG[:-1], OK + b"\r\npart"], ids=["no-byte", "in-head", "in-body", "no-length"]
)
async def test_a_reset_fails_its_exchange_and_no_other(open_pool: OpenPool, part: bytes) -> None:
    received = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(part)
        await within(received.wait())
        peer.reset()

    async with HostileServer(script, answering_always(PONG)) as server:
        pool = open_pool(server.url)
        lost = Recorder()
        ask(pool, lost)
        await until_idle(pool, "waiting=0")
        assert await ping(pool) == b"pong"
        received.set()
        failure = await lost.reason_of_failure()
        assert (failure.kind, failure.sent) == ("reset", True)
        assert await ping(pool) == b"pong"


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://127.0.0.1:{port}/mcp?token=hunter2", "127.0.0.1:{port}: connection refused"),
        ("http://nowhere.invalid/", "nowhere.invalid:80: the name cannot be resolved"),
    ],
)
async def test_a_failed_connection_names_its_reason_and_sends_nothing(
    open_pool: OpenPool, url: str, message: str
) -> None:
    port = free_port()
    pool = open_pool(url.format(port=port))
    for failure in await asyncio.gather(*(refused(pool) for _ in range(3))):
        assert (failure.kind, failure.sent) == ("connect", False)
        assert str(failure) == message.format(port=port)
    await pool.aclose()
    failure = await refused(pool)
    assert (failure.kind, failure.sent) == ("connect", False)


async def test_a_name_is_tried_on_all_its_addresses(open_pool: OpenPool) -> None:
    async with HostileServer(answering_always(PONG)) as server:
        assert await ping(open_pool(f"http://localhost:{server.port}/")) == b"pong"


async def test_a_body_over_the_limit_closes_the_connection_unless_it_is_unlimited(open_pool: OpenPool) -> None:
    script, closed = until_closed(PONG)
    async with HostileServer(script, answering_always(PONG)) as server:
        pool = open_pool(server.url, max_body=3)
        assert (await refused(pool)).kind == "limit"
        await within(closed.wait())
        receiver = Recorder()
        pool.send(pool.head("GET"), b"", receiver, unlimited=True)
        assert await receiver.body_of_success() == b"pong"


@pytest.mark.parametrize("unasked", [b"", b"\r\n", PONG], ids=["eof", "a byte", "a response"])
async def test_an_idle_connection_on_which_the_peer_does_anything_is_dropped(
    open_pool: OpenPool, unasked: bytes
) -> None:
    answered = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(PONG)
        await within(answered.wait())
        if unasked:
            await peer.send(unasked)
            await peer.until_closed()

    evil = PONG.replace(b"pong", b"evil")
    async with HostileServer(script, answering_always(evil)) as server:
        pool = open_pool(server.url)
        await ping(pool)
        assert "idle=1" in repr(pool)
        answered.set()
        await until_idle(pool, "open=0 idle=0")
        assert await ping(pool) == b"evil"


async def test_a_connection_that_was_idle_too_long_is_not_used_though_nobody_dropped_it_yet(
    open_pool: OpenPool,
) -> None:
    async with HostileServer(answering_always(PONG)) as server:
        pool = open_pool(server.url, keepalive=-1.0)
        second = Recorder()
        ask(pool, Recorder(then=lambda: ask(pool, second)))  # before the timer that drops it can fire
        assert await second.body_of_success() == b"pong"
        assert server.accepted == 2


async def test_beyond_the_cap_requests_wait_their_turn_in_order(open_pool: OpenPool) -> None:
    order: list[str] = []
    async with HostileServer(answering_always(PONG)) as server:
        pool = open_pool(server.url, max_connections=1)
        receivers = {name: Recorder(then=lambda name=name: order.append(name)) for name in "abc"}  # type: ignore[misc]  # the default binds the name
        for receiver in receivers.values():
            ask(pool, receiver)
        assert "waiting=3" in repr(pool)
        for receiver in receivers.values():
            await receiver.body_of_success()
        assert order == ["a", "b", "c"]
        assert server.accepted == 1


async def test_a_waiting_request_gets_the_place_of_a_lost_connection(open_pool: OpenPool) -> None:
    async with HostileServer(answering(b"garbage"), answering_always(PONG)) as server:
        pool = open_pool(server.url, max_connections=1)
        first, second = Recorder(), Recorder()
        ask(pool, first)
        ask(pool, second)
        assert (await first.reason_of_failure()).kind == "protocol"
        assert await second.body_of_success() == b"pong"


async def test_a_connection_idle_for_less_than_its_time_stays(open_pool: OpenPool) -> None:
    async with HostileServer(answering_always(PONG)) as server:
        clock = FakeClock()
        pool = open_pool(server.url, keepalive=4.0, clock=clock)
        first, late = Recorder(), Recorder()
        ask(pool, first)
        ask(pool, late)
        await first.body_of_success()
        await late.body_of_success()
        await until_idle(pool, "open=2 idle=2")
        await clock.advance(3.0)
        await ping(pool)  # renews one of the two
        await clock.advance(1.0)
        await until_idle(pool, "open=1 idle=1")
        await clock.advance(3.0)
        await until_idle(pool, "open=0 idle=0")


async def test_a_request_that_waits_too_long_for_a_connection_times_out(open_pool: OpenPool) -> None:
    async with HostileServer(hold) as server:
        clock = FakeClock()
        pool = open_pool(server.url, max_connections=1, connect_timeout=10.0, clock=clock)
        ask(pool, Recorder())
        await until_idle(pool, "open=1 idle=0 waiting=0")
        first, second = Recorder(), Recorder()
        ask(pool, first)
        await clock.advance(5.0)
        ask(pool, second)
        await clock.advance(5.0)
        assert (second.calls, str(await first.reason_of_failure())) == ([], f"{pool.where}: no connection within 10 s")
        await clock.advance(5.0)
        failure = await second.reason_of_failure()
        assert (failure.kind, failure.sent) == ("timeout", False)
        assert "open=1 idle=0 waiting=0" in repr(pool)


async def test_the_queue_is_bounded(open_pool: OpenPool) -> None:
    async with HostileServer(hold) as server:
        pool = open_pool(server.url, max_connections=1)
        ask(pool, Recorder())
        await until_idle(pool, "open=1 idle=0 waiting=0")
        for _ in range(1000):
            ask(pool, Recorder())
        one_more = Recorder()
        ask(pool, one_more)
        assert one_more.calls == []
        failure = await one_more.reason_of_failure()
        assert (failure.kind, failure.sent) == ("limit", False)
        assert "waiting=1000" in repr(pool)


async def test_a_tls_handshake_without_an_answer_times_out(open_pool: OpenPool, tls: Contexts) -> None:
    async with HostileServer(Peer.until_closed) as server:
        clock = FakeClock()
        url = server.url.replace("http:", "https:")
        pool = open_pool(url, ssl_context=tls[1], connect_timeout=10.0, clock=clock)
        failing = asyncio.ensure_future(refused(pool))
        await clock.advance(10.0)
        failure = await failing
        assert (failure.kind, failure.sent) == ("timeout", False)
        await until_idle(pool, "open=0")


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # uvloop keeps such a socket until it is collected
async def test_a_connection_that_cannot_be_made_fails_its_request_once(open_pool: OpenPool, tls: Contexts) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)  # no context for a client: every handshake fails
    async with HostileServer(Peer.until_closed, ssl_context=tls[0]) as server:
        assert (await refused(open_pool(server.url, ssl_context=context))).kind in {"tls", "connect"}
        assert server.accepted <= 1


async def test_a_server_that_speaks_first_is_not_dialled_again_and_again(open_pool: OpenPool) -> None:
    async def script(peer: Peer) -> None:
        await peer.send(PONG)
        await peer.until_closed()

    async with HostileServer(script) as server:
        receiver = Recorder()
        ask(open_pool(server.url), receiver)
        await within(receiver.finished.wait())  # well or badly: whether it was asked already is a matter of timing
        assert server.accepted == 1


async def test_tls_connections_are_verified_and_reused(open_pool: OpenPool, tls: Contexts) -> None:
    async with HostileServer(answering_always(PONG), ssl_context=tls[0]) as server:
        pool = open_pool(server.url, ssl_context=tls[1])
        assert [await ping(pool), await ping(pool)] == [b"pong", b"pong"]
        assert server.accepted == 1


async def plain_http(peer: Peer) -> None:
    """Answer a TLS handshake in plain HTTP."""
    await peer.send(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")
    await peer.until_closed()


@pytest.mark.parametrize("fault", ["unknown issuer", "other name", "plain http"])
async def test_a_server_that_fails_tls_verification_is_sent_nothing(
    open_pool: OpenPool, tls: Contexts, fault: str
) -> None:
    context = tls[0] if fault != "plain http" else None
    async with HostileServer(answering_always(PONG) if context else plain_http, ssl_context=context) as server:
        host = "localhost" if fault == "other name" else "127.0.0.1"
        trusted = {} if fault == "unknown issuer" else {"ssl_context": tls[1]}
        failure = await refused(open_pool(f"https://{host}:{server.port}/", **trusted))
        assert (failure.kind, failure.sent) == ("tls", False)
        assert ("certificate" in str(failure)) == (fault != "plain http")


async def test_an_aborted_exchange_closes_its_connection(open_pool: OpenPool) -> None:
    script, closed = until_closed(PONG[:-1])
    async with HostileServer(script, answering_always(PONG)) as server:
        pool = open_pool(server.url)
        receiver = Recorder()
        exchange = ask(pool, receiver)
        await within(receiver.answered.wait())
        exchange.abort()
        assert exchange.done
        await within(closed.wait())
        assert await ping(pool) == b"pong"
        assert not receiver.finished.is_set()


async def test_an_exchange_aborted_while_it_waits_is_never_sent(open_pool: OpenPool) -> None:
    async with HostileServer(answering_always(PONG)) as server:
        pool = open_pool(server.url, max_connections=1)
        receiver = Recorder()
        ask(pool, Recorder())
        ask(pool, receiver, b"unwanted").abort()
        assert "waiting=1" in repr(pool)
        assert await ping(pool) == b"pong"
        assert receiver.calls == []


async def test_closing_fails_everything_in_flight(open_pool: OpenPool) -> None:
    async with HostileServer(hold) as server:
        pool = open_pool(server.url, max_connections=1)
        busy, waiting = Recorder(), Recorder()
        ask(pool, busy)
        await until_idle(pool, "open=1 idle=0 waiting=0")
        ask(pool, waiting)
        await within(pool.aclose())
        failure = await busy.reason_of_failure()
        assert (failure.kind, failure.sent) == ("reset", True)
        failure = await waiting.reason_of_failure()
        assert (failure.kind, failure.sent) == ("connect", False)


async def test_closing_ends_a_dial_under_way(open_pool: OpenPool, tls: Contexts) -> None:
    accepted = asyncio.Event()

    async def script(peer: Peer) -> None:
        accepted.set()
        await peer.until_closed()

    async with HostileServer(script) as server:
        pool = open_pool(server.url.replace("http:", "https:"), ssl_context=tls[1])
        receiver = Recorder()
        ask(pool, receiver)
        await within(accepted.wait())
        await within(pool.aclose())
        assert not (await receiver.reason_of_failure()).sent
