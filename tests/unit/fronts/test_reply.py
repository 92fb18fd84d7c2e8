"""Replies over our own connections: what is written how, and what becomes of calls whose client leaves."""

import asyncio
import inspect
from collections.abc import Coroutine, Sequence
from typing import Any

import pytest

from mcp_manifold.errors import RequestError
from mcp_manifold.fronts.http.admission import ClientContext
from mcp_manifold.fronts.http.asgi import AsgiSend, AsgiWriter
from mcp_manifold.fronts.http.reply import BULKY, HttpReply
from mcp_manifold.http1.head import Head, Line
from mcp_manifold.model.budget import MemoryBudget
from mcp_manifold.wire import Payload, encode
from tests.fakes.clock import settled
from tests.unit.fronts import wires
from tests.unit.fronts.fakes import (
    META,
    PROGRESS,
    Client,
    FakeGateway,
    Held,
    HttpSession,
    constant,
    encoded,
    front,
    initialize,
    modern,
    note,
    prepared,
    request,
    scripted,
)

pytestmark = pytest.mark.anyio

PLAIN = ("content-type: application/json", "accept: application/json, text/event-stream")
CALL = request("tools/call", 7, name="x")


class Kept:
    """An HttpWriter that keeps what it is given."""

    def __init__(self) -> None:
        self.whole: list[tuple[int, bytes]] = []
        self.pieces: list[tuple[Sequence[bytes | memoryview], bool]] = []

    def respond(self, status: int, body: bytes, lines: Sequence[Line] = ()) -> None:
        self.whole.append((status, body))

    def respond_pieces(
        self, pieces: Sequence[bytes | memoryview], lines: Sequence[Line] = (), *, is_shared: bool = False
    ) -> None:
        self.pieces.append((pieces, is_shared))

    def upgrade_to_stream(self) -> AsgiSend:
        raise AssertionError("nothing streams here")

    def own(self, work: Coroutine[Any, Any, None]) -> None:
        raise AssertionError("nothing streams here")

    def drop(self) -> None:
        raise AssertionError("nothing is dropped here")


def take(client: Client, session: HttpSession, writer: Kept, message: Any = CALL) -> HttpReply | bool:
    base = {**client.headers, "content-type": "application/json", "mcp-session-id": session.id}
    lines = [(name.encode(), value.encode()) for name, value in base.items()]
    taken: HttpReply | bool = client.app.take(
        Head(b"POST", b"/mcp", lines, "1.1", keeps_alive=True), encoded(message), writer
    )
    return taken


@pytest.mark.parametrize("is_shared", [True, False])
async def test_a_bulky_or_shared_result_is_written_as_it_is_held(is_shared: bool) -> None:
    result = Payload(b'{"x":"%b"}' % (b"y" * BULKY))
    gateway, client = prepared()
    gateway.at_once["tools/call"] = (b'{"x":"', memoryview(result)[6:]) if is_shared else result
    session, writer = await client.session(), Kept()
    before = client.app.tally.bytes_out
    assert take(client, session, writer) is True
    ((pieces, shared),) = writer.pieces
    assert shared == is_shared
    assert any(isinstance(piece, memoryview) and piece.obj is result for piece in pieces)
    assert b"".join(pieces) == b'{"jsonrpc":"2.0","id":7,"result":%b}' % bytes(result)
    assert client.app.tally.bytes_out - before == sum(map(len, pieces))


@pytest.mark.parametrize("leaves", [False, True])
async def test_a_cancelled_call_is_answered_once_whatever_comes_later(leaves: bool) -> None:
    held = Held(b'{"x":"%b"}' % (b"y" * BULKY))
    _, client = prepared(tools_call=held)
    session, writer = await client.session(), Kept()
    reply = take(client, session, writer)
    assert isinstance(reply, HttpReply)
    await settled()
    if leaves:
        reply.disconnected()
    take(client, session, Kept(), note("notifications/cancelled", requestId=7))
    await settled()
    reply.emit(PROGRESS % 1)
    reply.cancel()
    await settled()
    ((status, body),) = writer.whole
    assert (status, b"-32800" in body) == (200, True)
    assert "in_flight=0" in repr(client.app)


def test_what_a_head_agreed_with_holds_for_the_same_method_name_and_meta_only() -> None:
    """All requests with one head share what was found of it: a body that differs is held to the head again."""
    _, mirrors = modern(name="a")
    headers = {name.encode(): value.encode() for name, value in mirrors}
    params = {"name": Payload(b'"a"'), "_meta": Payload(encode(META))}
    agreed = ClientContext("tools/call", params, headers)
    assert agreed.holds("tools/call", dict(params))
    assert not agreed.holds("tools/list", params)
    assert not agreed.holds("tools/call", {**params, "name": Payload(b'"b"')})
    assert not agreed.holds("tools/call", {"name": params["name"], "_meta": Payload(b"{}")})
    with pytest.raises(RequestError):
        ClientContext("tools/list", params, headers)


@pytest.mark.parametrize(("method", "key"), [("resources/read", "uri"), ("tasks/get", "taskId")])
def test_a_remembered_client_is_not_that_of_another_resource_or_task(method: str, key: str) -> None:
    message, lines = modern(method, **{key: "a:1"})
    headers = {name.encode(): value.encode() for name, value in [*lines, ("mcp-name", "a:1")]}
    params = {name: Payload(encoded(value)) for name, value in message["params"].items()}
    agreed = ClientContext(method, params, headers)
    assert agreed.holds(method, dict(params))
    assert not agreed.holds(method, {**params, key: Payload(b'"b:2"')})


@pytest.mark.parametrize("begins", ["before the end", "after the end"])
async def test_a_stream_that_nobody_writes_any_more_is_not_left_unawaited(begins: str) -> None:
    async def write() -> None:
        raise AssertionError("its request was cancelled")

    async def send(message: Any) -> None:
        raise AssertionError("nothing is sent")

    async def receive() -> Any:
        await asyncio.Event().wait()

    work = write()
    writer = AsgiWriter(receive, send, MemoryBudget())
    task = asyncio.create_task(writer.run(None))
    await settled()
    if begins == "before the end":
        writer.own(work)
    task.cancel()
    await asyncio.wait({task})
    if begins == "after the end":
        writer.own(work)
    assert inspect.getcoroutinestate(work) == inspect.CORO_CLOSED


# --- over our own connections -----------------------------------------------------------------------------------------


def post(message: Any, *lines: str) -> bytes:
    return wires.request("/mcp", encoded(message), *PLAIN, *lines)


def stateless(**params: Any) -> bytes:
    message, headers = modern(**params)
    return post(message, *(f"{name}: {value}" for name, value in headers))


async def test_pipelined_requests_are_answered_in_their_order_each_by_its_own_call() -> None:
    gateway = scripted(tools_call=Held(b"{}", [PROGRESS % 1]))
    async with wires.staged(front(gateway)) as stage:
        wire = await stage.open()
        await wire.send(post(initialize()))
        line = f"mcp-session-id: {(await wire.answer()).headers[b'mcp-session-id'].decode()}"
        ping, call = post(request("ping", 1), line), post(CALL, line)
        await wire.send(ping + call + post(request("ping", 2), line) + wires.request("/_healthz") + post(b"{", line))
        assert b'"id":1' in (await wire.answer()).body
        await wire.head()
        held = gateway.scripts["tools/call"]
        assert isinstance(held, Held)
        assert [each.method for each in gateway.calls] == ["initialize", "ping", "tools/call"]
        held.released.set()
        events = b""
        while chunk := await wire.chunk():
            events += chunk
        assert events.count(b"data: {") == 2
        assert b'"id":2' in (await wire.answer()).body
        assert [(await wire.answer()).status for _ in range(2)] == [200, 400]


@pytest.mark.parametrize("emits", [[], [PROGRESS % 1]], ids=["before the commit", "after the commit"])
async def test_a_stateless_client_that_leaves_cancels_its_call(emits: list[bytes]) -> None:
    held = Held(emits=emits)
    gateway, client = prepared(tools_call=held)
    async with wires.staged(client.app) as stage:
        wire = await stage.open()
        await wire.send(stateless())
        async with asyncio.timeout(wires.BOUND):
            await held.begun.wait()
            wire.reset()
            await held.cancelled.wait()
        await stage.at_rest()
        await settled()
        assert gateway.calls[0].is_done


async def test_a_body_over_the_limit_is_refused_whether_it_is_declared_or_not() -> None:
    app = front(FakeGateway(limits={"max_body": 1000}))
    large = b'{"jsonrpc":"2.0","id":1,"method":"ping","params":{"x":"' + b"y" * 1000 + b'"}}'
    async with wires.staged(app) as stage:
        for sent in (
            post(large),
            wires.chunked("/mcp", large).replace(b"\r\n", b"\r\ncontent-type: application/json\r\n", 1),
        ):
            wire = await stage.open()
            await wire.send(sent)
            answer = await wire.answer()
            assert (answer.status, answer.closes) == (413, True)


async def test_an_answer_to_a_client_that_does_not_read_waits_and_the_next_request_with_it() -> None:
    gateway = scripted(tools_call=constant(b'{"x":"%b"}' % (b"y" * 3_000_000)))
    async with wires.staged(front(gateway), buffer=16_384) as stage:
        wire = await stage.open(limit=16_384)
        await wire.send(stateless() + stateless())
        await wires.steady(lambda: len(gateway.calls))
        assert len(gateway.calls) == 1
        for _ in range(2):
            assert len((await wire.answer()).body) > 3_000_000


# --- drains and mounts ------------------------------------------------------------------------------------------------


async def test_a_drain_waits_for_calls_ends_standing_streams_and_is_reported_once() -> None:
    asked: asyncio.Future[Any] | None = None

    async def asking(call: Any) -> Any:
        nonlocal asked
        asked = call.session.reach.ask("roots/list", None, call)
        return (await asked).result

    _, client = prepared(tools_call=asking)
    busy, idle = await client.session(), await client.session()
    drained: list[int] = []
    async with busy.listen() as stream, idle.listen() as other, busy.post(CALL) as exchange:
        await exchange.until(lambda answer: len(answer.events) == 1)
        client.app.drain(lambda: drained.append(1))
        await other.done()
        assert not stream.answer.complete
        assert (await busy.call(request("ping", 8))).status == 503
        assert drained == []
        await busy.call({"jsonrpc": "2.0", "id": exchange.answer.events[0]["id"], "result": {"roots": []}})
        assert (await exchange.done()).events[-1]["result"] == {"roots": []}
        await stream.done()
        assert drained == [1]
        await busy.call(note("notifications/roots/list_changed"))
        assert drained == [1]


@pytest.mark.parametrize(
    ("mount", "path"),
    [("/apps", "/apps"), ("/a@b:c", "/a@b:c"), ("/bär", "/b%c3%a4r"), ("/a b/c", "/a%20b/c"), ("/apps/", "/apps")],
)
async def test_endpoints_are_below_the_path_an_application_mounts_us_at(mount: str, path: str) -> None:
    _, client = prepared()
    message, headers = modern()
    client.root_path = mount
    assert (await client.call(message, f"{path}/mcp", headers=headers)).status == 200
    assert (await client.call(message, f"{path}x/mcp", headers=headers)).status == 404
    async with client.open("GET", f"{path}/sse") as exchange:
        answer = await exchange.until(lambda answer: b"\n\n" in answer.body)
        assert answer.body.split(b"data: ")[1].startswith(f"{path}/messages?".encode())


async def test_what_is_asked_for_a_call_that_was_answered_reaches_the_client_elsewhere_or_fails() -> None:
    gateway, client = prepared()
    session = await client.session()
    await session.call(request("ping"))
    call = gateway.calls[-1]
    assert call.session.reach is not None
    failed = call.session.reach.ask("roots/list", None, call)
    assert isinstance(failed.exception(), Exception)
    async with session.listen() as stream:
        await stream.until(lambda answer: bool(answer.status))
        asked = call.session.reach.ask("roots/list", None, call)
        await stream.until(lambda answer: len(answer.events) == 1)
        asked.cancel()


async def test_the_same_id_in_two_sessions_names_two_calls() -> None:
    first, second = Held(b'{"n":1}'), Held(b'{"n":2}')
    scripts = iter([first, second])
    _, client = prepared(tools_call=lambda call: next(scripts)(call))
    one, other = await client.session(), await client.session()
    async with one.post(CALL) as exchange, other.post(CALL) as unharmed:
        await asyncio.wait_for(second.begun.wait(), 5)
        await one.call(note("notifications/cancelled", requestId=7))
        assert (await exchange.done()).error == -32800
        second.released.set()
        assert (await unharmed.done()).json["result"] == {"n": 2}
