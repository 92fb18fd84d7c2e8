"""Peers that send as fast as they can: each turn handles a bounded part of it, and others are served."""

import asyncio
import gzip
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from mcp_manifold import wire
from mcp_manifold.backends.http.client_connection import STREAM_LINES_A_SECOND, ClientConnection
from mcp_manifold.backends.http.exchange import NO_LIMIT, Exchange
from mcp_manifold.backends.link.link import Link
from mcp_manifold.errors import BackendProtocolError, InvalidParams
from mcp_manifold.fronts.http.reply import HttpWriter
from mcp_manifold.fronts.server.service import LingeringClose
from mcp_manifold.http1.head import Head
from mcp_manifold.paced_reader import LARGEST_PORTION, MANY_LINES, SMALL_PORTION, line_ends
from mcp_manifold.wire import Payload
from mcp_manifold.wire.payload import MAX_MEMBERS
from tests.fakes.clock import FakeClock
from tests.fakes.hostile_http import Peer
from tests.fakes.http_receiver import Recorder
from tests.fakes.http_wire import FakeKeeper, FakeTransport
from tests.peers import BOUND
from tests.unit.backends.http.test_sse_transport import ENDPOINT, over_sse
from tests.unit.backends.linking import Heard, eventually, tool, within
from tests.unit.backends.process.test_stdio import started
from tests.unit.backends.serving import Act, Asked, Server, answer, event, over_http
from tests.unit.fronts.wires import Scripted, Taken, request, wired

pytestmark = pytest.mark.anyio

NOTE = b'{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":"x"}}'
KINDS = {
    "garbage": event(b"garbage"),
    "ids": b"id: 1\n\n",
    "answers to nothing": event(b'{"jsonrpc":"2.0","id":99999,"result":{}}'),
    "comments": b":\n",
    "empty lines": b"\n",
    "empty lines, CR": b"\r",
    "notifications": event(NOTE),
    "pings": event(b'{"jsonrpc":"2.0","id":5,"method":"ping"}'),
}
READ = 1 << 18
"""Bytes that the event loop reads at once."""
A_TURN = SMALL_PORTION // len(b"\n")
"""Lines that one turn may handle: those of a small portion, or MANY_LINES."""


# --- one connection, by hand -----------------------------------------------------------------------------------------


class Flooded:
    """A connection that is sent an event stream by hand."""

    def __init__(self, keeper: FakeKeeper, head: bytes = b"") -> None:
        self.keeper = keeper
        self.transport = FakeTransport()
        self.receiver = Recorder()
        self.connection = ClientConnection(keeper)
        self.connection.connection_made(self.transport)
        exchange = Exchange(self.receiver, self.connection, NO_LIMIT)
        self.connection.begin(exchange, b"POST / HTTP/1.1\r\nhost: a\r\n", b"", b"{}")
        self.connection.data_received(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n%b\r\n" % head)

    def __repr__(self) -> str:
        return f"<Flooded {self.receiver!r}>"

    def turns(self, data: bytes) -> list[bytes]:
        """What is handed on in each turn after this was read, until nothing waits."""
        handled, turns = list[bytes](), self.keeper.turns
        size = len(self.receiver.body)
        self.connection.data_received(data)
        while True:
            handled.append(self.receiver.body[size:])
            size = len(self.receiver.body)
            if not turns:
                return handled
            assert self.transport.is_paused, "nothing is read while input waits"
            turns.popleft()()


def new_keeper() -> FakeKeeper:
    return FakeKeeper(max_head=65536, max_body=1 << 30)


def flooded(head: bytes = b"") -> Flooded:
    return Flooded(new_keeper(), head)


@pytest.mark.parametrize("kind", KINDS)
def test_a_turn_handles_a_bounded_part_of_what_was_read(kind: str) -> None:
    data = KINDS[kind] * (READ // 4 // len(KINDS[kind]))
    line = flooded()
    handled = line.turns(data)
    assert b"".join(handled) == data
    assert max(map(line_ends, handled)) <= max(MANY_LINES, A_TURN)
    assert all(line_ends(part) <= MANY_LINES or len(part) <= SMALL_PORTION for part in handled)
    assert not line.transport.is_paused


def test_a_turn_handles_a_bounded_part_of_what_a_coded_stream_inflates_to() -> None:
    for kind in KINDS.values():
        data = kind * (READ // 4 // len(kind))
        line, coded = flooded(b"content-encoding: gzip\r\n"), gzip.compress(data)
        assert len(coded) < SMALL_PORTION
        handled = line.turns(coded)
        assert b"".join(handled) == data
        assert all(line_ends(part) <= MANY_LINES or len(part) <= SMALL_PORTION for part in handled)


def test_a_read_of_few_lines_is_handled_in_large_portions() -> None:
    line, data = flooded(), b"data: " + b"x" * (READ - 6)
    handled = line.turns(data)
    assert [len(part) for part in handled] == [LARGEST_PORTION] * (READ // LARGEST_PORTION) + [0]


def test_two_floods_take_turns() -> None:
    keeper = new_keeper()
    one, other = Flooded(keeper), Flooded(keeper)
    for line in (one, other):
        line.connection.data_received(b"\n" * 65_536)
    while keeper.turns:
        keeper.turns.popleft()()
        assert abs(len(one.receiver.body) - len(other.receiver.body)) <= 2 * SMALL_PORTION
    assert one.receiver.body == other.receiver.body == b"\n" * 65_536


async def test_an_event_stream_rests_after_its_lines_of_one_second() -> None:
    line = flooded()
    line.turns(b":\n" * (STREAM_LINES_A_SECOND + SMALL_PORTION))
    assert line.transport.is_paused
    before = len(line.receiver.body)
    assert before < 2 * (STREAM_LINES_A_SECOND + SMALL_PORTION)
    await line.keeper.clock.advance(1)
    line.keeper.run()
    assert len(line.receiver.body) == 2 * (STREAM_LINES_A_SECOND + SMALL_PORTION)
    assert not line.transport.is_paused


def test_input_that_waits_is_not_taken_for_the_next_response() -> None:
    keeper = new_keeper()
    line = Flooded(keeper, b"content-length: 3000\r\n")
    line.turns(b"\n" * 3000 + b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
    assert line.transport.aborted
    assert not keeper.released


# --- every transport --------------------------------------------------------------------------------------------------


class Flood:
    """A server that repeats one piece as fast as it is read, where it is told to."""

    def __init__(self, piece: bytes) -> None:
        self.closed = asyncio.Event()
        self.sent = 0
        self._data = piece * (READ // len(piece))

    def __repr__(self) -> str:
        return f"<Flood sent={self.sent}>"

    async def after(self, start: bytes, peer: Peer) -> None:
        """Send `start`, then the flood, until the client closes."""
        try:
            await peer.send(start)
            while True:
                await peer.send(self._data)
                self.sent += len(self._data)
        finally:
            self.closed.set()

    def reply(self, first: Callable[[Asked], bytes] = lambda asked: b"") -> Act:
        """Flood the reply to a request, after this."""

        async def act(peer: Peer, asked: Asked) -> None:
            await self.after(OPEN + first(asked), peer)

        return act


OPEN = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"


@asynccontextmanager
async def flooding(where: str, flood: Flood) -> AsyncIterator[tuple[Link, Heard]]:
    """A link to a server that floods it there, with notifications on stdio, and what the link passes on."""
    heard = Heard()
    if where == "stdio":
        async with started("yes", NOTE.decode()) as child:
            yield child.link, child.heard
        return
    start = ENDPOINT if where == "sse" else b""
    async with Server(flood.reply(lambda _: start)) as server:
        if where == "sse":
            async with over_sse(server.url, heard=heard) as (link, _):
                yield link, heard
            return
        async with over_http(server.url, heard=heard) as (link, transport):
            if where == "standing":
                transport.listen()
            else:
                link.begin("tools/call", tool("echo"))
            yield link, heard


@pytest.mark.parametrize("where", ["reply", "standing", "sse", "stdio"])
async def test_a_flood_leaves_turns_to_others(where: str) -> None:
    async with flooding(where, Flood(event(NOTE))) as (_, heard), Server() as good, over_http(good.url) as (other, _):
        await within(heard.first("notifications/message"))
        for _ in range(20):
            await within(other.request("tools/call", tool("echo"), timeout=30))
            before, most = len(heard.notes), 0
            for _ in range(50):
                await asyncio.sleep(0)
                most = max(most, len(heard.notes) - before)
                before = len(heard.notes)
            assert most <= 2 * MANY_LINES
        begun = len(heard.notes)
        await eventually(lambda: len(heard.notes) > begun)


async def test_a_reply_that_is_garbage_is_not_read_on() -> None:
    flood = Flood(KINDS["garbage"])
    async with Server(flood.reply()) as server, over_http(server.url) as (link, _):
        with pytest.raises(BackendProtocolError, match="its answer is not"):
            await within(link.request("tools/call", tool("echo"), timeout=30))
        await within(flood.closed.wait())
        await within(link.request("tools/call", tool("echo"), timeout=30))


@pytest.mark.parametrize("kind", ["comments", "notifications"])
async def test_a_stream_that_goes_on_after_its_response_is_not_read_on(kind: str) -> None:
    flood = Flood(KINDS[kind])
    act = flood.reply(lambda asked: event(answer(asked)))
    async with Server(act) as server, over_http(server.url) as (link, _):
        await within(link.request("tools/call", tool("echo"), timeout=30))
        await within(flood.closed.wait())


@pytest.mark.parametrize("where", ["standing", "sse"])
async def test_a_stream_of_nothing_but_garbage_ends_its_link(where: str) -> None:
    flood = Flood(KINDS["garbage"])
    async with flooding(where, flood) as (link, _):
        reason = await within(asyncio.shield(link.ended))
        assert "too many invalid messages" in reason.message
        await within(flood.closed.wait())


# --- clients ---------------------------------------------------------------------------------------------------------


class Accepting(Scripted):
    """Accepts every POST at once, as a front does with notifications."""

    def take(self, head: Head, body: bytes, writer: HttpWriter) -> Taken | bool:
        self.taken.append(Taken(head, body, writer))
        self._grown.set()
        writer.respond(202, b"")
        return True


async def test_a_client_that_floods_leaves_turns_to_others() -> None:
    count, app = 5000, Accepting()
    async with wired(app) as (stage, wire):
        other = await stage.open()
        flood = asyncio.ensure_future(wire.send(request("/taken", NOTE) * count))
        most = 0
        await app.was_taken(50)
        async with asyncio.timeout(BOUND):
            await other.send(request("/taken", NOTE))
            assert (await other.answer()).status == 202
            assert len(app.taken) < count
            while len(app.taken) < count:
                before = len(app.taken)
                await asyncio.sleep(0)
                most = max(most, len(app.taken) - before)
        assert most <= MANY_LINES
        await flood
        for _ in range(count):
            assert (await wire.answer()).status == 202


async def test_input_that_is_dropped_is_read_slowly() -> None:
    clock, transport = FakeClock(), FakeTransport()
    closing = LingeringClose(transport, asyncio.Protocol(), clock, 5.0)
    pauses = []
    for size in (1, LARGEST_PORTION):
        closing.data_received(b"x" * size)
        pauses.append(transport.is_paused)
    await clock.advance(1)
    assert [*pauses, transport.is_paused] == [False, True, False]


# --- one large message -----------------------------------------------------------------------------------------------

MANY = b",".join(b'"%x":1' % number for number in range(426_000))
"""Members of an object of 4 MiB."""


@pytest.mark.parametrize("spaced", [False, True])
@pytest.mark.parametrize("where", ["params", "_meta", "ref", "notifications", "inputResponses"])
def test_more_members_than_one_turn_can_parse_are_refused_with_the_limit(where: str, spaced: bool) -> None:
    members = MANY if where == "params" else b'"%b":{%b}' % (where.encode(), MANY)
    text = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo",%b}}' % members
    envelope = wire.parse(text.replace(b'"id":', b'"id": ') if spaced else text)
    with pytest.raises(InvalidParams, match=f"more than {MAX_MEMBERS} members"):
        wire.members_of(envelope)


def test_members_that_are_only_forwarded_are_not_counted() -> None:
    text = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","arguments":{%b}}}' % MANY
    assert bytes(wire.members_of(wire.parse(text))["arguments"]) == b"{%b}" % MANY


def test_a_long_list_of_texts_is_refused_with_the_limit() -> None:
    with pytest.raises(InvalidParams, match=f"at most {MAX_MEMBERS} strings"):
        wire.texts(Payload(b"[%b]" % b",".join([b'"x://a"'] * 300_000)), "resourceSubscriptions")


def test_many_members_from_a_server_are_left_out_where_they_are_parsed_and_forwarded_elsewhere() -> None:
    crowded = b'{"content":[],"_meta":{%b}}' % MANY
    envelope = wire.parse_backend(b'{"jsonrpc":"2.0","id":1,"result":%b}' % crowded)
    assert isinstance(envelope.result, Payload)
    forwarded = {"method": "tools/call", "backend": "handshake", "server_info": Payload(b"{}")}
    assert bytes(wire.adapt_result(envelope.result, client="handshake", **forwarded)) == crowded  # type: ignore[arg-type]
    stamped = bytes(wire.adapt_result(envelope.result, client="modern", **forwarded))  # type: ignore[arg-type]
    assert len(stamped) < SMALL_PORTION
    assert wire.object_members(Payload(b"{%b}" % MANY)) == {}
