"""A scripted HTTP server's plumbing: sockets, connections, tasks, faults on command. Knows no MCP."""

import asyncio
from abc import abstractmethod
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeVar

from tests.peers import BOUND, jsontext
from tests.peers.engine import Engine
from tests.peers.face import Face
from tests.peers.http_wire import Body, Headers, compose, header, read_head
from tests.peers.recorder import Received
from tests.peers.script import Script
from tests.peers.wire import SocketWire, first_of

T = TypeVar("T")

_REASON: Final = "As Scripted"


@dataclass(frozen=True, slots=True)
class HttpExchange:
    """One HTTP request with its body, and the connection it came on."""

    method: str
    target: str
    headers: Headers
    body: bytes
    wire: SocketWire
    number: int

    def get(self, name: str) -> str | None:
        """The first header of that name."""
        return header(self.headers, name)

    async def respond(self, status: int, body: bytes = b"", headers: Headers = ()) -> bool:
        """Answer with a whole response; the connection stays usable."""
        await self.wire.write(compose(f"HTTP/1.1 {status} {_REASON}", headers, body))
        return True

    async def respond_json(self, status: int, body: bytes, headers: Headers = ()) -> bool:
        """Answer with JSON."""
        return await self.respond(status, body, (("Content-Type", "application/json"), *headers))


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault instead of an answer, or before it (`hang`).

    `status`: this response. `reset`: the connection is reset without one. `cut`: an event stream begins with `body`
    and is reset. `hang`: nothing until the gate `gate` opens or the client leaves; then the ordinary answer.
    """

    status: int = 500
    body: bytes = b""
    headers: Headers = ()
    kind: Literal["status", "reset", "cut", "hang"] = "status"
    gate: str = "fault"
    method: str = ""
    """Only for this HTTP or JSON-RPC method; empty: any."""
    times: int = 1
    """How often; 0: until `heal()`."""


HTML: Final = Fault(200, b"<!doctype html><title>Sign in</title>", (("Content-Type", "text/html"),), times=0)


class Listener(Face):
    """A scripted backend that listens on 127.0.0.1."""

    def __init__(self, script: Script | None = None, *, token: str | None = None, port: int = 0) -> None:
        super().__init__(script or Script())
        self.engine = Engine(self.script, self.recorder)
        self.token = token
        self.port = port
        self.connections = 0
        """TCP connections accepted so far."""
        self.redirects: dict[str, str] = {}
        """Paths that are answered with a redirect, and where each leads."""
        self._faults: list[Fault] = []
        self._server: asyncio.Server | None = None
        self._wires: set[SocketWire] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._crashes: list[BaseException] = []

    @property
    def origin(self) -> str:
        """The scheme, host and port."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def open_connections(self) -> int:
        """TCP connections open now."""
        return len(self._wires)

    @property
    def exchanges(self) -> list[Received]:
        """Every HTTP request so far: `method` is the HTTP one, `raw` the body, with all headers."""
        return self.recorder.of("http")

    async def __aenter__(self) -> "Listener":
        await self.listen()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.refuse()
        for conversation in list(self.engine.conversations):
            conversation.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._crashes:
            raise BaseExceptionGroup("the scripted backend failed", self._crashes)

    async def listen(self) -> None:
        """Accept connections, on the same port as before."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: SocketWire(self._opened), "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def refuse(self) -> None:
        """Stop listening and reset every connection: connecting is refused from now on, until `listen()`."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
        await self.reset_connections()
        if server is not None:
            await server.wait_closed()

    async def reset_connections(self) -> None:
        """Reset every open connection."""
        wires = list(self._wires)
        for wire in wires:
            wire.reset()
        async with asyncio.timeout(BOUND):
            for wire in wires:
                await wire.lost.wait()

    def fail(self, fault: Fault) -> None:
        """Apply this fault to the next matching requests."""
        self._faults.append(fault)

    def heal(self) -> None:
        """Forget all faults."""
        self._faults.clear()

    def spawn(self, work: Coroutine[Any, Any, T], name: str) -> "asyncio.Task[T]":
        """Run a task that is cancelled with this backend."""
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._finished)
        return task

    def _finished(self, task: "asyncio.Task[Any]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (crash := task.exception()) is not None:
            self._crashes.append(crash)

    def _opened(self, wire: SocketWire) -> None:
        self.connections += 1
        self._wires.add(wire)
        self.spawn(self._converse(wire, self.connections), f"connection {self.connections}")
        self.recorder.wake()

    async def _converse(self, wire: SocketWire, number: int) -> None:
        try:
            with suppress(ConnectionError):
                while await self._exchange(await _read(wire, number)):
                    pass
        finally:
            wire.close()
            self._wires.discard(wire)
            self.recorder.add(Received("closed", connection=number))

    async def _exchange(self, exchange: HttpExchange) -> bool:
        what = Received("http", exchange.body, exchange.method, headers=exchange.headers, connection=exchange.number)
        self.recorder.add(what)
        fault = self._fault_for(exchange)
        if fault is not None and (fault.kind != "hang" or not await self._hung(fault, exchange.wire)):
            return await _suffer(fault, exchange)
        if self.token is not None and exchange.get("authorization") != f"Bearer {self.token}":
            return await exchange.respond(401, b"", (("WWW-Authenticate", 'Bearer error="invalid_token"'),))
        if exchange.target in self.redirects:
            return await exchange.respond(307, b"", (("Location", self.redirects[exchange.target]),))
        return await self._serve(exchange)

    async def _hung(self, fault: Fault, wire: SocketWire) -> bool:
        opened = await first_of(self.engine.gate(fault.gate), wire.ended)
        return opened is not wire.ended

    def _fault_for(self, exchange: HttpExchange) -> Fault | None:
        for at, fault in enumerate(self._faults):
            if fault.method in ("", exchange.method, _rpc_method(exchange.body)):
                if fault.times == 1:
                    del self._faults[at]
                elif fault.times > 1:
                    self._faults[at] = _once_less(fault)
                return fault
        return None

    async def _order(self, order: dict[str, Any]) -> None:
        await self.engine.command(order)

    @abstractmethod
    async def _serve(self, exchange: HttpExchange) -> bool:
        """Answer one exchange; False if the connection ends with it."""


async def _read(wire: SocketWire, number: int) -> HttpExchange:
    head = await read_head(wire)
    method, target, _ = head.first.split(" ")
    return HttpExchange(method, target, head.headers, await Body(wire, head, has_end=True).all(), wire, number)


async def _suffer(fault: Fault, exchange: HttpExchange) -> bool:
    if fault.kind == "status":
        return await exchange.respond(fault.status, fault.body, fault.headers)
    if fault.kind == "cut":
        stream = (("Content-Type", "text/event-stream"), ("Transfer-Encoding", "chunked"))
        half = fault.body or b"event: message\r\ndata: {"
        await exchange.wire.write(compose("HTTP/1.1 200 OK", stream) + b"%x\r\n%b\r\n" % (len(half), half))
    exchange.wire.reset()
    return False


def _once_less(fault: Fault) -> Fault:
    return Fault(fault.status, fault.body, fault.headers, fault.kind, fault.gate, fault.method, fault.times - 1)


def _rpc_method(body: bytes) -> str | None:
    try:
        found = jsontext.value(jsontext.member(body, "method"))
    except ValueError:
        return None
    return found if isinstance(found, str) else None
