"""What a client may send, and how long it may take: who exceeds it is answered and closed, and disturbs nobody."""

import asyncio
from typing import Any

import pytest

from mcp_manifold.fronts.server.service import SMALL, LingeringClose
from tests.fakes.clock import FakeClock
from tests.peers.processes import until
from tests.unit.fronts.wires import Scripted, Served, Wire, chunked, request, staged, wired

pytestmark = pytest.mark.anyio

HOST = b"host: localhost\r\n"


def post(*lines: bytes, body: bytes = b"") -> bytes:
    return b"POST /taken HTTP/1.1\r\n" + HOST + b"".join(line + b"\r\n" for line in lines) + b"\r\n" + body


def get(head: bytes, target: bytes = b"/a") -> bytes:
    return b"GET " + target + b" HTTP/1.1\r\n" + HOST + head + b"\r\n\r\n"


async def refusal(wire: Wire) -> int:
    """The status of the last answer on a connection, which is to end with it."""
    answer = await wire.last()
    assert b'"error"' in answer.body
    return answer.status


# --- framing nobody agrees on (S5) ------------------------------------------------------------------------------------

SMUGGLED = request("/smuggled")
SMUGGLING = {
    "length and chunks": post(b"content-length: 5", b"transfer-encoding: chunked", body=b"0\r\n\r\n" + SMUGGLED),
    "chunks and length": post(b"transfer-encoding: chunked", b"content-length: 5", body=b"0\r\n\r\n" + SMUGGLED),
    "two lengths": post(b"content-length: 0", b"content-length: 40", body=SMUGGLED),
    "the same length twice": post(b"content-length: 3", b"content-length: 3", body=b"abc"),
    "a list of lengths": post(b"content-length: 3, 3", body=b"abc"),
    "a signed length": post(b"content-length: +3", body=b"abc"),
    "a negative length": post(b"content-length: -1"),
    "a length in hex": post(b"content-length: 0x3", body=b"abc"),
    "a length beyond all numbers": post(b"content-length: 99999999999999999999999", body=b"abc"),
    "no length": post(b"content-length: "),
    "another encoding last": post(b"transfer-encoding: chunked, gzip", body=b"0\r\n\r\n"),
    "another encoding": post(b"transfer-encoding: xchunked", body=b"0\r\n\r\n"),
    "the encoding twice": post(b"transfer-encoding: chunked", b"transfer-encoding: chunked", body=b"0\r\n\r\n"),
    "space before the colon": post(b"content-length : 3", body=b"abc"),
    "a chunk of no size": chunked("/taken", end=b"x\r\n"),
    "a chunk too long for its size": chunked("/taken", end=b"1\r\nab\r\n0\r\n\r\n"),
    "bare LF in chunks": chunked("/taken", end=b"1\na\n0\n\n"),
    "a chunk's size with a space": chunked("/taken", end=b"1 \r\na\r\n0\r\n\r\n"),
    "obs-fold": get(b"x-a: 1\r\n x-b: 2"),
    "obs-fold with a tab": get(b"x-a: 1\r\n\tx-b: 2"),
    "NUL in a value": get(b"x-a: 1\x002"),
    "NUL in a name": get(b"x\0a: 1"),
    "a control byte": get(b"x-a: 1\x01"),
    "bare LF": b"GET /a HTTP/1.1\nhost: localhost\n\n",
    "bare LF in the head": get(b"x-a: 1\nx-b: 2"),
    "bare CR in the head": get(b"x-a: 1\rx-b: 2"),
    "no name": get(b": 1"),
    "no colon": get(b"x-a"),
    "no target": b"GET HTTP/1.1\r\n" + HOST + b"\r\n",
    "a target with a space": get(b"x-a: 1", b"/a b"),
    "a target beyond ASCII": get(b"x-a: 1", b"/\xff"),
    "a target that is none": get(b"x-a: 1", b"a:1"),
    "a method nobody knows": b"get /a HTTP/1.1\r\n" + HOST + b"\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 60,
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
}


@pytest.mark.parametrize("step", [1, 1 << 40])
@pytest.mark.parametrize("sent", SMUGGLING.values(), ids=SMUGGLING)
async def test_s5_what_two_sides_could_read_differently_is_refused_and_the_connection_closed(
    sent: bytes, step: int
) -> None:
    async with staged(Scripted(taken=Served.until_left)) as stage:
        other, wire = await stage.open(), await stage.open()
        await other.send(request("/b"))
        await other.answer()
        await wire.send(sent, step)
        assert await refusal(wire) in (400, 505)
        await other.send(request("/taken", b"on"))
        assert (await other.answer()).body == b"taken /taken on"
        assert "/smuggled" not in [served.scope["path"] for served in stage.app.served]


# --- large heads (S5) -------------------------------------------------------------------------------------------------

LARGE = {
    "one line": get(b"x-a: " + b"a" * 1200),
    "many lines": get(b"\r\n".join(b"x-%d: %s" % (number, b"a" * 100) for number in range(15))),
    "a name": get(b"x" * 1200 + b": 1"),
    "a target": get(b"x-a: 1", b"/" + b"a" * 1200),
    "without end": get(b"x-a: " + b"a" * 1200)[:-4],
    "a head in front of a body": post(b"x-a: " + b"a" * 1200, b"content-length: 3", body=b"abc"),
}


@pytest.mark.parametrize("step", [1, 300, 1 << 40])
@pytest.mark.parametrize("sent", LARGE.values(), ids=LARGE)
async def test_s5_a_head_that_is_too_large_is_refused_in_one_piece_or_in_many(sent: bytes, step: int) -> None:
    async with staged(Scripted(), head_bytes=1000) as stage:
        other, wire = await stage.open(), await stage.open()
        await wire.send(sent, step)
        assert await refusal(wire) == 431
        await other.send(request("/taken", b"x" * 5000))  # which is large, but no head
        assert (await other.answer()).status == 200
        assert len(stage.app.taken) == 1
        assert not stage.app.served


async def test_s5_a_head_of_64_kb_is_refused_by_the_limits_in_force() -> None:
    async with wired(Scripted()) as (stage, wire):
        await wire.send(get(b"x-a: " + b"a" * 70_000))
        assert await refusal(wire) == 431
        (answer,) = await stage.asks(get(b"x-a: " + b"a" * 60_000))
        assert answer.status == 200


@pytest.mark.parametrize(("lines", "status"), [(127, 200), (128, 431), (1000, 431)])
async def test_s5_a_head_has_only_so_many_lines(lines: int, status: int) -> None:
    async with wired(Scripted()) as (_, wire):
        await wire.send(get(b"\r\n".join(b"x: %d" % number for number in range(lines))))
        answer = await wire.answer()
        assert (answer.status, answer.closes) == (status, status == 431)


@pytest.mark.parametrize("end", [b"0\r\nx-a: " + b"a" * 200_000, b"0;" + b"a" * 200_000], ids=["trailer", "extension"])
async def test_s5_what_is_neither_head_nor_body_has_no_more_room_than_a_head(end: bytes) -> None:
    async with wired(Scripted(a=Served.until_left), head_bytes=1000) as (stage, wire):
        await wire.send(chunked("/a", b"abc", end=b""))
        await stage.app.was_served()
        await wire.send(end, 10_000)
        assert await refusal(wire) == 431
        await until(lambda: stage.app.served[0].left.is_set(), "the end of the request")


async def test_s5_empty_lines_without_end_are_none_of_a_request() -> None:
    async with wired(Scripted(), head_bytes=1000) as (_, wire):
        await wire.send(request("/a"))
        await wire.answer()
        await wire.send(b"\r\n" * 5000, 500)
        assert await refusal(wire) == 431


async def test_tiny_chunks_are_not_taken_for_a_large_head() -> None:
    async with staged(Scripted(), head_bytes=1000) as stage:
        (answer,) = await stage.asks(chunked("/a", *[b"x"] * 5000), step=777)
        assert answer.body == b"asgi /a " + b"x" * 5000


# --- slow clients (S7) ------------------------------------------------------------------------------------------------

SLOW = {
    "half a head": request("/taken", b"abc")[:30],
    "half a line": b"POST /tak",
    "half a small body": request("/taken", b"abc")[:-1],
    "half a second head": request("/a") + request("/taken", b"abc")[:30],
    "half a second body": request("/a") + request("/taken", b"abc")[:-1],
}


@pytest.mark.parametrize("part", SLOW.values(), ids=SLOW)
async def test_s7_who_does_not_complete_a_request_in_time_is_told_so_and_closed(part: bytes) -> None:
    limits: dict[str, Any] = {"head_seconds": 0.05, "body_seconds": 0.05, "keep_alive": 0.2}
    async with wired(Scripted(), **limits) as (stage, wire):
        if part.startswith(b"GET"):
            first, _, part = part.partition(b"\r\n\r\n")
            await wire.send(first + b"\r\n\r\n")
            assert (await wire.answer()).status == 200
        await wire.send(part)
        assert await refusal(wire) == 408
        assert not stage.app.taken


@pytest.mark.parametrize("part", ["head", "body"])
async def test_s7_bytes_that_drip_in_buy_no_more_time(part: str) -> None:
    limits: dict[str, Any] = {"head_seconds": 0.1, "body_seconds": 0.1}
    sent = request("/taken", b"a" * 100_000)
    async with wired(Scripted(), **limits) as (stage, wire):
        await wire.send(sent[:10] if part == "head" else sent[:-99_000])
        dripping = asyncio.create_task(wire.send(b"a" * 90_000, 1))
        try:
            await wire.ended()
        finally:
            dripping.cancel()
            await asyncio.wait({dripping})
        if not dripping.cancelled():
            assert isinstance(dripping.exception(), ConnectionError)
        assert not stage.app.taken


async def test_s7_a_connection_nobody_uses_is_closed_without_a_word() -> None:
    async with wired(Scripted(), keep_alive=0.05) as (stage, wire):
        assert await wire.ended() == b""
        wire = await stage.open()
        await wire.send(request("/taken", b""))
        await wire.answer()
        assert await wire.ended() == b""


async def test_s7_who_is_being_answered_has_all_the_time_there_is() -> None:
    app = Scripted(echoes=False, a=Served.until_left)
    limits: dict[str, Any] = {"head_seconds": 0.02, "body_seconds": 0.02, "keep_alive": 0.02}
    async with staged(app, **limits) as stage:
        idle, wire = await stage.open(), await stage.open()
        await wire.send(request("/taken", b"abc"))
        taken = await app.was_taken()
        for _ in range(5):  # connections that are closed for having been idle just as long, one after the other
            assert await idle.ended() == b""
            idle = await stage.open()
        taken.echo()
        assert (await wire.answer()).body == b"taken /taken abc"


async def test_s7_many_slow_clients_do_not_disturb_another() -> None:
    async with staged(Scripted(), head_seconds=0.3, body_seconds=0.3) as stage:
        slow = [await stage.open() for _ in range(100)]
        for number, wire in enumerate(slow):
            await wire.send(request("/taken", b"abc")[: -1 - 30 * (number % 2)])
        wire = await stage.open()
        for number in range(100):
            await wire.send(request("/taken" if number % 2 else "/a", b"%d" % number))
            assert (await wire.answer()).body.endswith(b" %d" % number)
        assert {await refusal(wire) for wire in slow} == {408}


@pytest.mark.parametrize("size", [100, SMALL + 100])
async def test_a_body_that_comes_slowly_but_in_time_is_served(size: int) -> None:
    async with staged(Scripted()) as stage:
        (answer,) = await stage.asks(request("/a", b"x" * size), step=size // 5)
        assert answer.body == b"asgi /a " + b"x" * size


class ResetTransport(asyncio.Transport):
    """A transport whose peer has reset the connection."""

    def __init__(self) -> None:
        super().__init__()
        self.is_aborted = False

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        pass

    def write_eof(self) -> None:
        raise OSError("not connected")

    def abort(self) -> None:
        self.is_aborted = True


async def test_a_lingering_close_of_a_reset_connection_aborts_it_quietly() -> None:
    transport = ResetTransport()
    LingeringClose(transport, asyncio.Protocol(), FakeClock(), 1.0).begin()
    assert transport.is_aborted
