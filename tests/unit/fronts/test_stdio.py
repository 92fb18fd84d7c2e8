"""The stdio front, over real pipes, sockets and files."""

import asyncio
import json
import os
import socket
import stat
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from mcp_manifold.errors import RequestError
from mcp_manifold.fronts.stdio import StdioFront
from mcp_manifold.model.call import Call
from mcp_manifold.wire import Payload
from tests.unit.fronts.fakes import (
    META,
    PROGRESS,
    FakeGateway,
    Held,
    constant,
    encoded,
    initialize,
    note,
    raising,
    request,
    scripted,
)

pytestmark = pytest.mark.anyio

BOUND = 5.0
CHANGED = "notifications/tools/list_changed"


class Peer:
    """The client at the other end."""

    def __init__(self, source: int, target: int) -> None:
        self._source, self._target = source, target
        self._held = b""

    def send(self, *messages: Any) -> None:
        self.send_raw(b"".join(encoded(message) + b"\n" for message in messages))

    def send_raw(self, data: bytes) -> None:
        while data:
            data = data[os.write(self._target, data) :]

    async def line(self) -> bytes:
        while b"\n" not in self._held:
            async with asyncio.timeout(BOUND):
                data = await asyncio.to_thread(os.read, self._source, 65536)
            if not data:
                raise EOFError
            self._held += data
        line, _, self._held = self._held.partition(b"\n")
        return line

    async def receive(self) -> Any:
        return json.loads(await self.line())

    def leave(self) -> None:
        if self._target >= 0:
            if stat.S_ISSOCK(os.fstat(self._target).st_mode):
                with socket.socket(fileno=os.dup(self._target)) as connection:
                    connection.shutdown(socket.SHUT_WR)
            os.close(self._target)
            self._target = -1

    def stop_reading(self) -> None:
        if self._source >= 0:
            os.close(self._source)
            self._source = -1

    async def greet(self) -> None:
        self.send(initialize())
        await self.receive()
        self.send(note("notifications/initialized"))


def claim(source: int, target: int) -> Callable[[], Any]:
    @contextmanager
    def claimed() -> Iterator[tuple[int, int]]:
        yield source, target

    return claimed


def pipes() -> tuple[tuple[int, int], tuple[int, int]]:
    their_in, our_out = os.pipe()
    our_in, their_out = os.pipe()
    return (our_in, our_out), (their_in, their_out)


def sockets() -> tuple[tuple[int, int], tuple[int, int]]:
    ours, theirs = socket.socketpair()
    fd, other = ours.detach(), theirs.detach()
    return (fd, os.dup(fd)), (other, os.dup(other))


@asynccontextmanager
async def serving(
    gateway: FakeGateway, ends: tuple[tuple[int, int], tuple[int, int]] | None = None, scope: str = ""
) -> AsyncIterator[tuple[Peer, "asyncio.Task[None]"]]:
    (source, target), theirs = ends or pipes()
    front = StdioFront(gateway, scope=scope, claim=claim(source, target))
    task = asyncio.create_task(front.serve())
    peer = Peer(*theirs)
    try:
        yield peer, task
    finally:
        peer.leave()
        async with asyncio.timeout(BOUND):
            await task
        peer.stop_reading()


@pytest.mark.parametrize("ends", [pipes, sockets])
async def test_a_handshake_client_is_served(ends: Any) -> None:
    gateway = scripted(tools_call=constant(b'{"big":123456789012345678901234567890}'))
    async with serving(gateway, ends(), "group:team") as (peer, _):
        peer.send(initialize("2025-06-18"))
        assert (await peer.receive())["result"] == {"protocolVersion": "2025-11-25"}
        peer.send(note("notifications/initialized"), request("tools/call", "x", name="echo"))
        assert await peer.line() == b'{"jsonrpc":"2.0","id":"x","result":{"big":123456789012345678901234567890}}'
        session = gateway.calls[0].session
        assert (session.version, session.scope, session.principal.name) == ("2025-06-18", "group:team", "local")
        assert session.key
    assert gateway.ends == [session]


async def test_a_stateless_client_needs_no_handshake() -> None:
    gateway = FakeGateway()
    async with serving(gateway) as (peer, _):
        peer.send(request("tools/call", 1, name="echo", _meta=META))
        assert (await peer.receive())["result"] == {}
        assert (gateway.calls[0].session.version, gateway.calls[0].session.key) == ("2026-07-28", "")
        unsupported = {**META, "io.modelcontextprotocol/protocolVersion": "2099-01-01"}
        peer.send(request("tools/call", 2, name="echo", _meta=unsupported))
        assert (await peer.receive())["error"]["code"] == -32022
        peer.send(request("server/discover", 3))
        assert (await peer.receive())["error"]["code"] == -32602


async def test_a_request_before_initialize_is_an_error() -> None:
    async with serving(FakeGateway()) as (peer, _):
        peer.send(request("tools/list", 1))
        assert (await peer.receive())["error"]["code"] == -32600


async def test_a_failed_initialize_may_be_tried_again() -> None:
    gateway = FakeGateway()
    script, gateway.scripts["initialize"] = gateway.scripts["initialize"], raising(RuntimeError("x"))
    async with serving(gateway) as (peer, _):
        peer.send(initialize())
        assert (await peer.receive())["error"]["code"] == -32603
        gateway.scripts["initialize"] = script
        peer.send(initialize())
        assert "result" in await peer.receive()
        peer.send(initialize())
        assert (await peer.receive())["error"]["code"] == -32600


@pytest.mark.parametrize("params", [{"_meta": META}, {"_meta": META, "protocolVersion": 1}, {}], ids=str)
@pytest.mark.parametrize("answers", ["later", "at once"])
async def test_another_initialize_that_fails_leaves_the_session_as_it_is(params: dict[str, Any], answers: str) -> None:
    gateway = FakeGateway()
    async with serving(gateway) as (peer, _):
        await peer.greet()
        if answers == "later":
            gateway.scripts["initialize"] = raising(RequestError("x"))
        else:
            gateway.at_once["initialize"] = RequestError("x")
        peer.send(request("initialize", 5, **params))
        assert "error" in await peer.receive()
        peer.send(request("tools/call", 6, name="x"))
        assert (await peer.receive())["result"] == {}
        peer.send(request("initialize", 7, **params), {**initialize(), "id": 8})
        refused = {answer["id"]: answer["error"]["message"] for answer in [await peer.receive() for _ in range(2)]}
        assert refused[8].endswith("initialized already")


async def test_a_slow_call_does_not_hold_up_others() -> None:
    gateway = FakeGateway()
    held = Held(emits=[PROGRESS % 1])
    gateway.scripts |= {"tools/call": held, "ping": constant(b"{}")}
    async with serving(gateway) as (peer, _):
        await peer.greet()
        peer.send(request("tools/call", 1, name="x"))
        assert (await peer.receive())["method"] == "notifications/progress"
        peer.send(request("ping", 2))
        assert (await peer.receive())["id"] == 2
        held.released.set()
        assert (await peer.receive())["id"] == 1


@pytest.mark.parametrize("params", [{}, {"_meta": META}])
async def test_a_cancelled_call_is_not_answered(params: dict[str, Any]) -> None:
    gateway = FakeGateway()
    held = Held()
    gateway.scripts |= {"tools/call": held, "ping": constant(b"{}")}
    async with serving(gateway) as (peer, _):
        await peer.greet()
        peer.send(request("tools/call", 1, name="x", **params))
        await asyncio.wait_for(held.begun.wait(), BOUND)
        peer.send(note("notifications/cancelled", requestId=1))
        await asyncio.wait_for(held.cancelled.wait(), BOUND)
        peer.send(request("ping", 1))
        assert await peer.receive() == {"jsonrpc": "2.0", "id": 1, "result": {}}


async def test_calls_in_flight_are_bounded() -> None:
    gateway = FakeGateway(limits={"max_calls_per_session": 1})
    held = Held()
    gateway.scripts["tools/call"] = held
    async with serving(gateway) as (peer, _):
        await peer.greet()
        peer.send(request("tools/call", 1, name="x"), request("tools/call", 2, name="x"))
        refused = await peer.receive()
        assert (refused["id"], refused["error"]["data"]["retryAfterSeconds"]) == (2, 1.0)
        held.released.set()
        assert (await peer.receive())["id"] == 1


@pytest.mark.parametrize(("line", "code"), [(b"not json", -32700), (b"\xff\xfe", -32700), (b"[]", -32600)])
async def test_a_malformed_line_costs_an_error_and_nothing_else(line: bytes, code: int) -> None:
    async with serving(FakeGateway()) as (peer, _):
        peer.send_raw(line + b"\n\n  \r\n")
        error = await peer.receive()
        assert (error["id"], error["error"]["code"]) == (None, code)
        peer.send(request("ping", 1))
        assert (await peer.receive())["id"] == 1


async def test_a_line_over_the_limit_is_skipped_and_told() -> None:
    gateway = FakeGateway(limits={"max_body": 200_000})
    async with serving(gateway) as (peer, _):
        sending = asyncio.to_thread(peer.send_raw, b"x" * 3_000_000 + b"\n" + encoded(request("ping", 1)) + b"\n")
        error, _ = await asyncio.gather(peer.receive(), sending)
        assert (error["id"], error["error"]["code"]) == (None, -32600)
        assert (await peer.receive())["id"] == 1


async def test_line_ends_inside_a_result_do_not_end_the_line() -> None:
    gateway = scripted(ping=constant(b'{\r\n  "a": 1\n}'))
    async with serving(gateway) as (peer, _):
        peer.send(request("ping", 1))
        assert (await peer.receive())["result"] == {"a": 1}


async def test_changes_are_told_once_the_client_is_ready() -> None:
    gateway = FakeGateway()
    async with serving(gateway) as (peer, _):
        peer.send(initialize())
        await peer.receive()
        gateway.change(CHANGED)  # it cannot have listed before, so nothing changed for it
        peer.send(note("notifications/initialized"))
        peer.send(request("ping", 1))
        assert (await peer.receive())["id"] == 1
        gateway.change(CHANGED)
        assert (await peer.receive())["method"] == CHANGED
    assert not gateway.watchers


async def test_other_notifications_are_handed_on() -> None:
    gateway = FakeGateway()
    async with serving(gateway) as (peer, _):
        await peer.greet()
        peer.send(note("notifications/roots/list_changed"), {"jsonrpc": "2.0", "id": 1, "result": {}}, request("ping"))
        await peer.receive()
        assert gateway.notes == [("notifications/roots/list_changed", {})]


async def test_the_end_of_input_ends_everything() -> None:
    held = Held()
    gateway = scripted(tools_call=held)
    async with serving(gateway) as (peer, task):
        await peer.greet()
        peer.send(request("tools/call", 1, name="x"))
        await asyncio.wait_for(held.begun.wait(), BOUND)
        peer.leave()
        async with asyncio.timeout(BOUND):
            await task
        assert gateway.calls[1].is_cancelled
        assert len(gateway.ends) == 1
        refused = await peer.receive()
        assert (refused["id"], refused["error"]["code"]) == (1, -32800)
        with pytest.raises(EOFError):
            await peer.line()


async def test_requests_already_piped_in_are_answered_before_the_end() -> None:
    async with serving(FakeGateway()) as (peer, _):
        peer.send_raw(encoded(request("ping", 1)) + b"\n" + encoded(request("ping", 2)))  # the last without a line end
        peer.leave()
        assert [(await peer.receive())["id"], (await peer.receive())["id"]] == [1, 2]


async def test_a_reader_that_is_gone_ends_everything() -> None:
    gateway = FakeGateway()
    async with serving(gateway) as (peer, task):
        await peer.greet()
        peer.stop_reading()
        peer.send(request("ping", 1))
        async with asyncio.timeout(BOUND):
            await task
    assert len(gateway.ends) == 1


async def test_more_answers_than_a_pipe_holds_arrive_in_order() -> None:
    gateway = scripted(ping=constant(b'{"x":"' + b"y" * 1000 + b'"}'))
    count = 3000
    async with serving(gateway) as (peer, _):
        requests = b"".join(encoded(request("ping", n)) + b"\n" for n in range(count))
        sending = asyncio.create_task(asyncio.to_thread(peer.send_raw, requests))
        assert [(await peer.receive())["id"] for _ in range(count)] == list(range(count))
        await sending


async def test_close_ends_serving() -> None:
    gateway = FakeGateway()
    (source, target), theirs = pipes()
    front = StdioFront(gateway, claim=claim(source, target))
    task = asyncio.create_task(front.serve())
    peer = Peer(*theirs)
    await peer.greet()
    front.close()
    async with asyncio.timeout(BOUND):
        await task
    peer.leave()
    peer.stop_reading()
    assert len(gateway.ends) == 1


async def test_files_serve_as_input_and_output(tmp_path: Path) -> None:
    gateway = FakeGateway()
    source, target = tmp_path / "in", tmp_path / "out"
    source.write_bytes(b"".join(encoded(request("ping", n)) + b"\n" for n in range(300)))
    ends = os.open(source, os.O_RDONLY), os.open(target, os.O_WRONLY | os.O_CREAT)
    async with asyncio.timeout(BOUND):
        await StdioFront(gateway, claim=claim(*ends)).serve()
    answers = [json.loads(line) for line in target.read_bytes().splitlines()]
    assert [answer["id"] for answer in answers] == list(range(300))


async def test_a_terminal_serves_as_input_and_stays_blocking() -> None:
    gateway = FakeGateway()
    controller, terminal = os.openpty()
    their_in, our_out = os.pipe()
    async with serving(gateway, ((os.dup(terminal), our_out), (their_in, controller))) as (peer, _):
        peer.send(request("ping", 1))
        assert (await peer.receive())["id"] == 1
        assert os.get_blocking(terminal)
        os.close(terminal)


async def test_the_blocking_mode_of_a_shared_pipe_is_given_back() -> None:
    (source, target), theirs = pipes()
    shared = os.dup(source), os.dup(target)
    async with serving(FakeGateway(), ((source, target), theirs)) as (peer, _):
        peer.send(b"x")
        await peer.receive()
    assert all(os.get_blocking(fd) for fd in shared)
    for fd in shared:
        os.close(fd)


@pytest.mark.parametrize("ends", [pipes, sockets])
async def test_from_a_client_that_does_not_read_no_more_is_taken_than_can_wait_for_it(ends: Any) -> None:
    gateway = FakeGateway()
    answer, thousandth, count = constant(b'{"x":"' + b"y" * 1000 + b'"}'), asyncio.Event(), 6000

    async def ping(call: Call) -> Payload:
        if len(gateway.calls) >= 1000:
            thousandth.set()
        return await answer(call)

    gateway.scripts["ping"] = ping
    requests = b"".join(encoded(request("ping", n)) + b"\n" for n in range(count))
    async with serving(gateway, ends()) as (peer, _):
        sending = asyncio.create_task(asyncio.to_thread(peer.send_raw, requests))
        await asyncio.wait_for(thousandth.wait(), BOUND)
        for _ in range(2000):  # turns, in which it takes what it may
            await asyncio.sleep(0)
        assert len(gateway.calls) < 3000
        assert [(await peer.receive())["id"] for _ in range(count)] == list(range(count))
        await sending


async def test_the_blocking_mode_of_one_socket_for_both_is_given_back() -> None:
    ours, theirs = sockets()
    shared = os.dup(ours[0])
    async with serving(FakeGateway(), (ours, theirs)) as (peer, _):
        peer.send(b"x")
        await peer.receive()
    assert os.get_blocking(shared)
    os.close(shared)
