"""Our HTTP connections over a real socket: requests in any pieces, answers in order, and everybody who leaves."""

import asyncio
import logging

import pytest

from mcp_manifold.fronts.http.asgi import AsgiSend
from mcp_manifold.fronts.http.reply import HttpWriter
from mcp_manifold.fronts.http_errors import CLOSE
from mcp_manifold.fronts.server.request_cycle import HIGH_WATER
from mcp_manifold.fronts.server.service import SMALL, Limits
from mcp_manifold.http1.head import Head
from tests.fakes.clock import FakeClock
from tests.peers.processes import until
from tests.unit.fronts.wires import (
    BOUND,
    Answer,
    Script,
    Scripted,
    Served,
    Taken,
    Wire,
    answering,
    chunked,
    request,
    staged,
    steady,
    taking,
    wired,
)  # fmt: skip

pytestmark = pytest.mark.anyio

BIG = b"x" * (SMALL + 1)
PART = 400_000
"""Bytes that one read takes: more than the system keeps for a client."""
CONTINUED = request("/e", b"abc", "expect: 100-continue")


# --- requests in pieces -----------------------------------------------------------------------------------------------

WHOLE = {
    "no body": (request("/a"), b"asgi /a "),
    "taken whole": (request("/taken", b"abc"), b"taken /taken abc"),
    "over ASGI": (request("/b", b"abc"), b"asgi /b abc"),
    "empty body": (request("/taken", b""), b"taken /taken "),
    "chunked": (chunked("/c", b"ab", b"c"), b"asgi /c abc"),
    "chunked, never taken": (chunked("/taken", b"abc"), b"asgi /taken abc"),
    "trailers": (chunked("/c", b"abc", end=b"0\r\nx-host: evil\r\n\r\n"), b"asgi /c abc"),
    "absolute form": (request("http://elsewhere:1/d?q=1", b"abc"), b"asgi /d abc"),
    "asterisk": (request("*", method="OPTIONS"), b"asgi * "),
    "empty lines before it": (b"\r\n\r\n" + request("/f"), b"asgi /f "),
    "header of bytes": (request("/g", None, "x: \xff\xe9"), b"asgi /g "),
}


@pytest.mark.parametrize("step", [1, 2, 7, 1 << 40])
@pytest.mark.parametrize("whole", WHOLE.values(), ids=WHOLE)
async def test_a_request_is_served_however_it_is_cut_and_the_next_too(whole: tuple[bytes, bytes], step: int) -> None:
    sent, expected = whole
    async with staged(Scripted(), own=[(b"x-own", b"1")]) as stage:
        for answer in await stage.asks(sent, sent, step=step):
            assert answer.status == 200
            assert answer.body == expected
            assert answer.headers[b"x-own"] == b"1"
            assert not answer.closes


async def test_an_application_is_told_what_asgi_says() -> None:
    async with staged(Scripted()) as stage:
        await stage.asks(request("http://h/k%C3%B6ln/%2F?a=%20", b"abc", "X-One: 1", "x-one: \t 2 \t"))
        scope = stage.app.served[0].scope
    assert scope["type"] == "http"
    assert (scope["method"], scope["scheme"], scope["http_version"]) == ("POST", "http", "1.1")
    assert (scope["path"], scope["raw_path"], scope["query_string"]) == ("/köln//", b"/k%C3%B6ln/%2F", b"a=%20")
    assert scope["headers"] == [
        (b"host", b"localhost"), (b"content-length", b"3"), (b"x-one", b"1"), (b"x-one", b"2")
    ]  # fmt: skip
    assert scope["client"][0] == scope["server"][0] == "127.0.0.1"


async def test_what_is_taken_comes_with_its_head_and_its_whole_body() -> None:
    async with staged(Scripted()) as stage:
        await stage.asks(request("/taken?x", b"a" * SMALL, "X-One: 1", "x-one: 2"), step=100_000)
        taken = stage.app.taken[0]
    assert (taken.head.method, taken.head.target, taken.head.version) == (b"POST", b"/taken?x", "1.1")
    assert taken.head.headers[b"x-one"] == b"2"
    assert [value for name, value in taken.head.lines if name == b"x-one"] == [b"1", b"2"]
    assert taken.body == b"a" * SMALL


async def test_a_large_request_is_not_offered_whole() -> None:
    async with staged(Scripted()) as stage:
        (answer,) = await stage.asks(request("/taken", BIG))
    assert answer.body == b"asgi /taken " + BIG
    assert not stage.app.taken


# --- one after the other ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [1, 50, 1 << 40])
async def test_requests_sent_ahead_are_answered_in_their_order_whichever_way_they_go(step: int) -> None:
    targets = ["/taken1", "/a", "/taken2", "/taken3", "/b", "/c", "/taken4"]
    async with wired(Scripted()) as (_, wire):
        await wire.send(b"".join(request(target, target.encode()) for target in targets), step)
        for target in targets:
            assert (await wire.answer()).body.split(b" ", 1)[1] == f"{target} {target}".encode()


async def test_a_request_is_not_begun_before_the_one_before_it_is_answered() -> None:
    app = Scripted(echoes=False)
    async with wired(app) as (_, wire):
        await wire.send(request("/taken1", b"") + request("/b") + request("/taken2", b""))
        first = await app.was_taken()
        assert not app.served
        first.echo()
        await app.was_served()
        assert (await wire.answer()).body == b"taken /taken1 "
        assert (await wire.answer()).body == b"asgi /b "
        (await app.was_taken(2)).echo()
        assert (await wire.answer()).body == b"taken /taken2 "


async def test_a_client_that_sends_ahead_without_end_is_not_read() -> None:
    app = Scripted(echoes=False)
    async with wired(app) as (stage, wire):
        wire.writer.write(request("/taken", b"x" * 100_000) * 500)
        taken = await app.was_taken()
        (connection,) = stage.connections
        assert "ahead=" in repr(connection)
        assert wire.writer.transport.get_write_buffer_size() > 0
        app.echoes = True
        taken.echo()
        for _ in range(500):
            assert len((await wire.answer()).body) == 100_013


@pytest.mark.parametrize("target", ["/taken", "/a"])
async def test_close_is_answered_and_done(target: str) -> None:
    async with wired(Scripted()) as (_, wire):
        await wire.send(request(target, b"abc", "Connection: close"))
        assert (await wire.last()).status == 200


@pytest.mark.parametrize("lines", [[], ["connection: keep-alive"]])
@pytest.mark.parametrize("target", ["/taken", "/a"])
async def test_http_1_0_is_answered_and_closed(target: str, lines: list[str]) -> None:
    async with wired(Scripted()) as (_, wire):
        await wire.send(request(target, b"abc", *lines, version="1.0"))
        answer = await wire.last()
        assert answer.body.endswith(b"abc")


@pytest.mark.parametrize("version", ["0.9", "2.0", "1.2", "3.0"])
async def test_no_other_version_is_served(version: str) -> None:
    async with wired(Scripted()) as (stage, wire):
        await wire.send(request("/a", version=version))
        assert (await wire.last()).status in (400, 505)
        assert not stage.app.served


@pytest.mark.parametrize("target", ["/taken", "/a"])
async def test_what_comes_behind_a_request_does_not_cost_it_its_answer(target: str) -> None:
    app = Scripted(echoes=False)
    release = asyncio.Event()

    async def held(served: Served) -> None:
        await release.wait()
        await served.respond(b"answer")

    app.scripts["a"] = held
    async with wired(app) as (_, wire):
        await wire.send(request(target, b"abc") + b"this is no request\r\n\r\n")
        if target == "/taken":
            (await app.was_taken()).writer.respond(200, b"answer")
        else:
            await app.was_served()
            release.set()
        assert (await wire.answer()).body == b"answer"
        assert await wire.ended() == b""


async def test_nothing_is_begun_after_a_close() -> None:
    async with wired(Scripted()) as (stage, wire):
        await wire.send(request("/a", b"1", "connection: close") + request("/b", b"2") + request("/taken", b"3"))
        assert (await wire.answer()).body == b"asgi /a 1"
        assert await wire.ended() == b""
        assert len(stage.app.served) == 1
        assert not stage.app.taken


@pytest.mark.parametrize("lines", [[], ["connection: close"]], ids=["kept", "closed"])
@pytest.mark.parametrize("status", [200, 202, 503])
async def test_a_response_that_says_close_is_the_last_one(status: int, lines: list[str]) -> None:
    body = b"" if status == 202 else b"x"
    async with taking(request("/taken", b"1", *lines), request("/taken", b"2"), request("/b")) as (stage, wire, taken):
        taken.writer.respond(status, body, (CLOSE,))
        answer = await wire.last()
        assert (answer.status, answer.body) == (status, body)
        assert (len(stage.app.taken), stage.app.served) == (1, [])


@pytest.mark.parametrize("says", ["the response", "the server"])
async def test_nothing_is_begun_after_a_close_that_takes_long_to_read(says: str) -> None:
    ahead = (request("/taken", b"2"), request("/b"))
    async with taking(request("/taken", b"1"), *ahead, buffer=4096) as (stage, wire, taken):
        if says == "the server":
            stage.connections[0].shutdown()
        taken.writer.respond(200, BIG * 20, (CLOSE,) if says == "the response" else ())
        assert (await wire.last(is_announced=says == "the response")).body == BIG * 20
        assert (len(stage.app.taken), stage.app.served) == (1, [])


async def test_what_comes_behind_a_close_is_not_even_refused() -> None:
    class Closing(Scripted):
        def take(self, head: Head, body: bytes, writer: HttpWriter) -> Taken | bool:
            writer.respond(503, BIG * 20, (CLOSE,))
            return True

    async with wired(Closing(), buffer=4096) as (_, wire):
        await wire.send(request("/taken", b"1") + b"this is no request\r\n\r\n")
        assert (await wire.last()).body == BIG * 20


# --- responses --------------------------------------------------------------------------------------------------------


async def _without_length(served: Served) -> None:
    await served.read()
    await served.start(200, (b"content-type", b"text/plain"))
    for piece in (b"one", b"", b"two" * 100_000):
        await served.write(piece, more=True)
    await served.write(b"")


async def test_a_response_without_a_length_comes_in_chunks() -> None:
    async with wired(Scripted(a=_without_length)) as (_, wire):
        for _ in range(2):
            await wire.send(request("/a"))
            answer = await wire.answer()
            assert answer.headers[b"transfer-encoding"] == b"chunked"
            assert answer.body == b"one" + b"two" * 100_000


async def test_a_response_without_a_length_to_http_1_0_ends_with_the_connection() -> None:
    async with staged(Scripted(a=_without_length)) as stage:
        (answer,) = await stage.asks(request("/a", version="1.0"))
        assert b"transfer-encoding" not in answer.headers
        assert answer.closes
        assert answer.body == b"one" + b"two" * 100_000


@pytest.mark.parametrize("script", [None, _without_length])
async def test_head_has_no_body_whatever_is_sent(script: Script | None) -> None:
    app = Scripted() if script is None else Scripted(a=script)
    async with staged(app) as stage:
        first, second = await stage.asks(request("/a", method="HEAD"), request("/b"))
        assert first.status == 200
        assert second.body == b"asgi /b "


@pytest.mark.parametrize("status", [204, 304])
async def test_a_status_without_a_body_has_none(status: int) -> None:
    async def empty(served: Served) -> None:
        await served.start(status)
        await served.write(b"")

    async with staged(Scripted(a=empty)) as stage:
        first, second = await stage.asks(request("/a"), request("/b"))
        assert first.status == status
        assert not {b"content-length", b"transfer-encoding"} & set(first.headers)
        assert second.body == b"asgi /b "


async def test_a_large_response_arrives_whole_either_way() -> None:
    app = Scripted(echoes=False, a=answering(b"y" * 3_000_000))
    async with wired(app) as (_, wire):
        await wire.send(request("/a") + request("/taken", b""))
        assert (await wire.answer()).body == b"y" * 3_000_000
        (await app.was_taken()).writer.respond(404, b"z" * 3_000_000)
        answer = await wire.answer()
        assert (answer.status, answer.body) == (404, b"z" * 3_000_000)
        assert answer.headers[b"content-type"] == b"application/json"


@pytest.mark.parametrize("value", [b"a\r\nx-evil: 1", b"a\nb", b"a\rb", b"a\0b"])
@pytest.mark.parametrize("place", ["name", "value"])
async def test_s5_a_header_of_ours_that_would_end_its_line_is_not_sent(value: bytes, place: str) -> None:
    refused = asyncio.Event()

    async def splitting(served: Served) -> None:
        line = (value, b"v") if place == "name" else (b"x-n", value)
        try:
            await served.respond(b"", 200, line)
        except ValueError:
            refused.set()
            await served.respond(b"other", 500)

    async with staged(Scripted(a=splitting)) as stage:
        (answer,) = await stage.asks(request("/a"))
        assert refused.is_set()
        assert answer.status == 500
        assert b"x-evil" not in answer.headers


# --- 100-continue -----------------------------------------------------------------------------------------------------


async def test_who_expects_it_is_told_to_go_on_when_the_body_is_wanted() -> None:
    async with wired(Scripted()) as (_, wire):
        await wire.send(CONTINUED[:-3])
        assert (await wire.answer()).status == 100
        await wire.send(b"abc")
        assert (await wire.answer()).body == b"asgi /e abc"
        await wire.send(request("/taken", b"on"))
        assert (await wire.answer()).body == b"taken /taken on"


async def test_who_is_refused_is_not_told_to_go_on() -> None:
    async with wired(Scripted(e=answering(b"no", 401))) as (_, wire):
        await wire.send(CONTINUED[:-3])
        assert (await wire.last(is_announced=False)).status == 401


async def test_a_response_that_began_is_not_interrupted_to_say_go_on() -> None:
    async def streaming(served: Served) -> None:
        await served.start(200)
        await served.write(b"one", more=True)
        await served.read()  # who watches for the client's leaving reads as well
        await served.write(b"two")

    async with wired(Scripted(e=streaming)) as (_, wire):
        await wire.send(CONTINUED[:-3])
        assert (await wire.head()).status == 200
        assert await wire.chunk() == b"one"
        await wire.send(b"abc")
        assert await wire.chunk() == b"two"


# --- large bodies -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("framing", ["length", "chunks"])
async def test_a_large_body_is_streamed_and_not_read_faster_than_it_is_wanted(framing: str) -> None:
    go_on, pieces = asyncio.Event(), []

    async def slow(served: Served) -> None:
        await go_on.wait()
        more = True
        while more:
            message = await served.receive()
            more = message["more_body"]
            pieces.append(len(message["body"]))
        await served.respond(b"%d" % sum(pieces))

    size = 30_000_000
    body = b"x" * 30_000
    sent = request("/a", body * 1000) if framing == "length" else chunked("/a", *([body] * 1000))
    async with wired(Scripted(a=slow)) as (stage, wire):
        wire.writer.write(sent)
        await stage.app.was_served()
        assert await steady(wire.writer.transport.get_write_buffer_size) > size // 2
        go_on.set()
        assert (await wire.answer()).body == b"%d" % size
        assert max(pieces) < HIGH_WATER + 2 * 256 * 1024
        await wire.send(request("/b"))
        assert (await wire.answer()).body == b"asgi /b "


async def test_a_body_in_tiny_chunks_costs_what_it_weighs() -> None:
    """Not its square: this would not end within the bound."""
    async with staged(Scripted()) as stage:
        (answer,) = await stage.asks(chunked("/a", *[b"x"] * 200_000))
        assert answer.body == b"asgi /a " + b"x" * 200_000


@pytest.mark.parametrize("is_whole", [False, True])
@pytest.mark.parametrize("framing", ["length", "chunks"])
async def test_s6_an_answer_before_the_body_arrived_reaches_who_sends_on_all_the_same(
    framing: str, is_whole: bool
) -> None:
    body = b"x" * 20_000_000
    sent = request("/a", body) if framing == "length" else chunked("/a", body)
    async with wired(Scripted(a=answering(b"no", 413))) as (stage, wire):
        await wire.send(sent if is_whole else sent[: SMALL // 2])
        answer = await wire.last(is_announced=False)
        assert (answer.status, answer.body) == (413, b"no")
        wire.leave()
        await stage.at_rest()


async def test_who_sends_on_after_its_answer_is_cut_off_in_the_end() -> None:
    clock = FakeClock()
    async with wired(Scripted(a=answering(b"no", 413)), clock=clock) as (stage, wire):
        await wire.send(request("/a", BIG)[:-1])
        assert (await wire.answer()).status == 413
        assert stage.connections
        await clock.advance(Limits().linger)
        await stage.at_rest()  # though the client stays


# --- leaving ----------------------------------------------------------------------------------------------------------

PARTS = {
    "nothing": b"",
    "half a head": request("/taken", b"abc")[:20],
    "half a small body": request("/taken", b"abc")[:-1],
    "half a large body": request("/a", BIG)[:-1],
    "half a chunk": chunked("/a", b"abc", end=b"5\r\nab"),
    "half a trailer": chunked("/a", b"abc", end=b"0\r\nx-y: z"),
}


@pytest.mark.parametrize("part", PARTS.values(), ids=PARTS)
@pytest.mark.parametrize("how", ["leave", "reset"])
async def test_a_client_may_leave_in_the_middle_of_a_request(part: bytes, how: str) -> None:
    async with wired(Scripted(a=Served.until_left)) as (stage, wire):
        await wire.send(part)
        if b"/a" in part:
            await stage.app.was_served()
        getattr(wire, how)()
        await stage.at_rest()
        assert not stage.app.taken
        assert all(served.left.is_set() for served in stage.app.served)


@pytest.mark.parametrize("how", ["leave", "reset"])
async def test_the_client_of_a_reply_may_leave(how: str) -> None:
    async with taking(request("/taken", b"abc")) as (stage, wire, taken):
        getattr(wire, how)()
        async with asyncio.timeout(BOUND):
            await taken.gone.wait()
        taken.echo()  # its result comes in all the same
        await stage.at_rest()


async def test_who_answered_is_not_told_of_the_leaving() -> None:
    async with wired(Scripted()) as (stage, wire):
        await wire.send(request("/taken", b"abc"))
        await wire.answer()
        wire.leave()
        await stage.at_rest()
        assert not stage.app.taken[0].gone.is_set()


@pytest.mark.parametrize("begun", [False, True])
async def test_the_client_of_an_asgi_call_may_leave(begun: bool) -> None:
    sent_after = asyncio.Event()

    async def waiting(served: Served) -> None:
        await served.read()
        if begun:
            await served.start(200)
            await served.write(b"begun", more=True)
        await served.until_left()
        await (served.write(b"late") if begun else served.respond(b"late"))  # silent
        sent_after.set()

    async with wired(Scripted(a=waiting)) as (stage, wire):
        await wire.send(request("/a", b"abc"))
        await stage.app.was_served()
        wire.leave()
        async with asyncio.timeout(BOUND):
            await sent_after.wait()
        await stage.at_rest()


async def test_who_left_with_requests_sent_ahead_gets_hardly_any_begun() -> None:
    app = Scripted(echoes=False)
    async with wired(app) as (stage, wire):
        await wire.send(request("/taken", b"1"))
        first = await app.was_taken()
        await wire.send(request("/taken", b"2") * 50)
        wire.reset()
        app.echoes = True
        first.echo()
        await stage.at_rest()
        assert len(app.taken) < 50  # that nobody reads is noticed when an answer is written


# --- a reply that becomes a stream ------------------------------------------------------------------------------------


async def _stream(send: AsgiSend, *pieces: bytes) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for piece in pieces:
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def test_a_reply_can_become_a_stream_and_the_connection_goes_on() -> None:
    app = Scripted(echoes=False)
    async with wired(app) as (_, wire):
        await wire.send(request("/taken", b"1") + request("/taken", b"2"))
        writer = (await app.was_taken()).writer
        writer.own(_stream(writer.upgrade_to_stream(), b"one", b"two"))
        answer = await wire.answer()
        assert answer.headers[b"transfer-encoding"] == b"chunked"
        assert answer.body == b"onetwo"
        (await app.was_taken(2)).echo()
        assert (await wire.answer()).body == b"taken /taken 2"


@pytest.mark.parametrize("begun", [True, False])
async def test_a_reply_whose_client_leaves_is_told_once_and_may_stream_on_in_silence(begun: bool) -> None:
    async with taking(request("/taken", b"1")) as (_, wire, taken):
        send = None
        if begun:
            send = taken.writer.upgrade_to_stream()
            await send({"type": "http.response.start", "status": 200, "headers": []})
            assert (await wire.head()).status == 200
        wire.reset()
        async with asyncio.timeout(BOUND):
            await taken.gone.wait()
        if send is None:
            await _stream(taken.writer.upgrade_to_stream(), b"late")
        else:
            await send({"type": "http.response.body", "body": b"late"})


# --- upgrades ---------------------------------------------------------------------------------------------------------

H2C = ("upgrade: h2c", "connection: Upgrade, HTTP2-Settings", "http2-settings: AAMAAABkAAQAAP__")
UPGRADES = {
    "websocket": (request("/a", None, "upgrade: websocket", "connection: upgrade"), b"asgi /a "),
    "taken whole": (request("/taken", b"abc", *H2C), b"taken /taken abc"),
    "large": (request("/a", BIG, *H2C), b"asgi /a " + BIG),
    "chunked": (
        chunked("/a", b"ab", b"c").replace(b"\r\n", b"\r\nupgrade: h2c\r\nconnection: upgrade\r\n", 1),
        b"asgi /a abc",
    ),
}


@pytest.mark.parametrize("step", [1, 1 << 40])
@pytest.mark.parametrize("upgrade", UPGRADES.values(), ids=UPGRADES)
async def test_an_upgrade_is_declined_by_serving_the_request_as_what_it_is(
    upgrade: tuple[bytes, bytes], step: int
) -> None:
    sent, expected = upgrade
    if step == 1 and len(sent) > 10_000:
        step = 10_000
    async with wired(Scripted()) as (_, wire):
        await wire.send(sent + request("/b"), step)
        answer = await wire.answer()
        assert (answer.status, answer.body) == (200, expected)
        assert (await wire.answer()).body == b"asgi /b "
        await wire.send(sent)
        assert (await wire.answer()).body == expected


async def test_an_upgrade_that_expects_to_go_on_is_told_so_once() -> None:
    async with wired(Scripted()) as (_, wire):
        sent = request("/e", b"abc", "expect: 100-continue", *H2C)
        await wire.send(sent[:-3])
        assert (await wire.answer()).status == 100
        await wire.send(b"abc")
        assert (await wire.answer()).body == b"asgi /e abc"


async def test_connect_is_refused() -> None:
    async with wired(Scripted()) as (stage, wire):
        await wire.send(request("localhost:80", method="CONNECT") + b"\x16\x03\x01")
        assert (await wire.last()).status == 400
        assert not stage.app.served


# --- applications that fail -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("begun", [False, True])
async def test_an_application_that_raises_ends_its_connection_and_no_other(
    begun: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async def failing(served: Served) -> None:
        if begun:
            await served.start(200)
            await served.write(b"begun", more=True)
        raise RuntimeError("a defect")

    async with staged(Scripted(a=failing)) as stage:
        other, wire = await stage.open(), await stage.open()
        with caplog.at_level(logging.CRITICAL):
            await wire.send(request("/a"))
            came = await wire.ended()
        assert not came.endswith(b"0\r\n\r\n")
        await other.send(request("/b"))
        assert (await other.answer()).body == b"asgi /b "


async def test_an_application_that_returns_without_an_answer_ends_its_connection() -> None:
    async def silent(served: Served) -> None:
        await served.read()

    async with wired(Scripted(a=silent)) as (_, wire):
        await wire.send(request("/a"))
        assert await wire.ended() == b""


async def test_a_defect_of_the_application_is_called_one(caplog: pytest.LogCaptureFixture) -> None:
    class Defective(Scripted):
        def take(self, head: Head, body: bytes, writer: HttpWriter) -> Taken | bool:
            raise KeyError("a defect")

    async with wired(Defective()) as (_, wire):
        await wire.send(request("/taken", b"abc"))
        assert (await wire.last()).status == 500
    assert [record.exc_info is not None for record in caplog.records if record.levelno >= logging.ERROR] == [True]


async def test_who_drops_a_request_ends_its_connection() -> None:
    async with taking(request("/taken", b"abc")) as (_, wire, taken):
        taken.writer.drop()
        assert await wire.ended() == b""


async def test_a_stream_that_is_given_up_ends_its_connection() -> None:
    app = Scripted(echoes=False)

    async def giving_up(send: AsgiSend) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async with wired(app) as (_, wire):
        await wire.send(request("/taken", b"abc"))
        writer = (await app.was_taken()).writer
        writer.own(giving_up(writer.upgrade_to_stream()))
        assert (await wire.head()).status == 200
        assert await wire.ended() == b""


# --- stopping ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("before", ["nothing", "a request"])
async def test_an_idle_connection_closes_at_once_when_the_server_stops(before: str) -> None:
    async with wired(Scripted()) as (stage, wire):
        await wire.send(request("/a"))
        await wire.answer()
        if before == "nothing":
            wire.leave()
            wire = await stage.open()
            await until(lambda: ["idle" in repr(each) for each in stage.connections] == [True], "the other one")
        for connection in list(stage.connections):
            connection.shutdown()
        assert await wire.ended() == b""


@pytest.mark.parametrize("way", ["taken", "asgi", "stream"])
async def test_what_is_being_answered_is_answered_before_the_server_stops(way: str) -> None:
    release = asyncio.Event()

    async def held(served: Served) -> None:
        await release.wait()
        await served.respond(b"answer")

    app = Scripted(echoes=False, a=held)
    async with wired(app) as (stage, wire):
        target = "/a" if way == "asgi" else "/taken"
        await wire.send(request(target, b"1") + request("/b") + request("/taken", b"2"))
        await (app.was_served() if way == "asgi" else app.was_taken())
        (connection,) = stage.connections
        connection.shutdown()
        release.set()
        if way == "taken":
            app.taken[0].writer.respond(200, b"answer")
        elif way == "stream":
            app.taken[0].writer.own(_stream(app.taken[0].writer.upgrade_to_stream(), b"answer"))
        assert (await wire.answer()).body == b"answer"
        assert await wire.ended() == b""
        assert len(app.taken) + len(app.served) == 1  # what was sent ahead is not begun any more


# --- clients that do not read -----------------------------------------------------------------------------------------


async def _stopped(wire: Wire) -> None:
    """Read no more."""
    wire.writer.transport.pause_reading()  # type: ignore[attr-defined]  # a socket's has it


@pytest.mark.parametrize("way", ["taken", "asgi"])
async def test_who_does_not_read_its_answer_at_all_loses_the_connection(way: str) -> None:
    app = Scripted(echoes=False, a=answering(b"y" * 30_000_000))
    async with wired(app, keep_alive=0.1) as (stage, wire):
        await _stopped(wire)
        await wire.send(request("/a" if way == "asgi" else "/taken", b""))
        if way == "taken":
            (await app.was_taken()).writer.respond(200, b"y" * 30_000_000)
        await stage.at_rest()


@pytest.mark.parametrize("way", ["taken", "asgi"])
async def test_who_reads_slowly_gets_everything(way: str) -> None:
    """Each part takes as long as an idle connection is kept; over ASGI it is still being written meanwhile."""

    async def parts(served: Served) -> None:
        await served.start(200, (b"content-length", b"%d" % (10 * PART)))
        for number in range(10):
            await served.write(b"y" * PART, more=number < 9)

    app, clock = Scripted(echoes=False, a=parts), FakeClock()
    async with staged(app, buffer=16_384, clock=clock) as stage:
        wire = await stage.open(limit=16_384)
        await wire.send(request("/a" if way == "asgi" else "/taken", b""))
        if way == "taken":
            (await app.was_taken()).writer.respond(200, b"y" * 10 * PART)
        await wire.head()
        for _ in range(10):
            async with asyncio.timeout(BOUND):
                assert await wire.reader.readexactly(PART) == b"y" * PART
            await clock.advance(Limits().keep_alive)


async def test_a_stream_waits_for_its_reader() -> None:
    written = 0

    async def endless(served: Served) -> None:
        nonlocal written
        await served.start(200)
        for _ in range(200):
            await served.write(b"y" * 100_000, more=True)
            written += 1
        await served.write(b"")

    async with wired(Scripted(a=endless)) as (stage, wire):
        await _stopped(wire)
        await wire.send(request("/a"))
        await stage.app.was_served()
        assert await steady(lambda: written) < 200
        wire.writer.transport.resume_reading()  # type: ignore[attr-defined]  # a socket's has it
        answer: Answer = await wire.answer()
        assert len(answer.body) == 20_000_000


# --- answers that others hold as well ---------------------------------------------------------------------------------

SHARED = (b'{"a":', b"y" * 3_000_000, b"}")


@pytest.mark.parametrize("pieces", [SHARED, (b'{"a":', b"1", b"}"), (b"1",)], ids=["bulky", "small", "one"])
async def test_an_answer_in_pieces_arrives_whole_and_the_connection_goes_on(pieces: tuple[bytes, ...]) -> None:
    app = Scripted(echoes=False)
    async with wired(app) as (_, wire):
        for number in (1, 2):
            await wire.send(request("/taken", b""))
            (await app.was_taken(number)).writer.respond_pieces(pieces, is_shared=True)
            answer = await wire.answer()
            assert answer.status == 200
            assert answer.headers[b"content-type"] == b"application/json"
            assert answer.body == b"".join(pieces)
        await wire.send(request("/taken", b"", "connection: close"))
        (await app.was_taken(3)).writer.respond_pieces(pieces, is_shared=True)
        await wire.last()


async def test_an_answer_that_others_hold_takes_no_room_of_its_own() -> None:
    app = Scripted(echoes=False)
    async with staged(app, buffer=16_384) as stage:
        wires = [await stage.open(limit=16_384) for _ in range(2)]
        for number, wire in enumerate(wires, 1):
            await _stopped(wire)
            await wire.send(request("/taken", b""))
            await app.was_taken(number)
        app.taken[0].writer.respond_pieces(SHARED, is_shared=True)
        assert stage.service.budget.held == 0
        app.taken[1].writer.respond(200, b"".join(SHARED))
        assert stage.service.budget.held > 1_000_000


async def test_an_answer_in_pieces_that_nobody_else_holds_takes_room_until_it_is_read() -> None:
    app = Scripted(echoes=False)
    async with staged(app, buffer=16_384) as stage:
        wire = await stage.open(limit=16_384)
        await _stopped(wire)
        await wire.send(request("/taken", b""))
        await app.was_taken(1)
        app.taken[0].writer.respond_pieces(SHARED)
        assert stage.service.budget.held > 1_000_000
        wire.reset()
        await stage.at_rest()
    assert stage.service.budget.held == 0


async def test_an_answer_in_pieces_to_who_left_is_nothing() -> None:
    async with taking(request("/taken", b"")) as (stage, wire, taken):
        wire.reset()
        async with asyncio.timeout(BOUND):
            await taken.gone.wait()
        taken.writer.respond_pieces(SHARED, is_shared=True)
        await stage.at_rest()


async def test_who_does_not_read_is_given_no_more_and_loses_the_connection() -> None:
    app = Scripted(echoes=False)
    async with staged(app, buffer=16_384, keep_alive=0.5) as stage:
        wire = await stage.open(limit=16_384)
        await _stopped(wire)
        await wire.send(request("/taken", b""))
        (await app.was_taken()).writer.respond_pieces(SHARED, is_shared=True)
        await wire.send(request("/taken", b"") * 3)
        await stage.at_rest()
        assert (len(app.taken), len(app.served)) == (1, 0)
