"""Our HTTP connections on a loopback socket, an application that answers as it is told, clients that write bytes."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from mcp_manifold.clock import Clock, LoopClock
from mcp_manifold.fronts.http.asgi import AsgiReceive, AsgiSend, Message, Scope
from mcp_manifold.fronts.http.reply import HttpWriter
from mcp_manifold.fronts.server.connection import Connection
from mcp_manifold.fronts.server.service import Limits, Service
from mcp_manifold.http1.head import Head
from tests.peers.processes import until

BOUND = 15.0
"""Seconds any test waits for anything."""
Script = Callable[["Served"], Awaitable[None]]


async def steady(measure: Callable[[], int], turns: int = 500) -> int:
    """The value of a measure once it stays the same for that many turns of the loop."""
    last, since = measure(), 0
    while since < turns:
        await asyncio.sleep(0)
        last, since = (last, since + 1) if (found := measure()) == last else (found, 0)
    return last


@dataclass(eq=False)
class Served:
    """A request served as an ASGI call."""

    scope: Scope
    receive: AsgiReceive
    send: AsgiSend
    body: bytes = b""
    left: asyncio.Event = field(default_factory=asyncio.Event)
    """It heard that its client is gone."""

    async def read(self) -> bytes:
        """Its whole body; less, if the client left before."""
        while True:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                self.left.set()
                return self.body
            self.body += message["body"]
            if not message["more_body"]:
                return self.body

    async def until_left(self) -> None:
        """Wait until the client is gone."""
        while (await self.receive())["type"] != "http.disconnect":
            pass
        self.left.set()

    async def start(self, status: int = 200, *lines: tuple[bytes, bytes]) -> None:
        """Begin the response."""
        await self.send({"type": "http.response.start", "status": status, "headers": list(lines)})

    async def write(self, body: bytes, *, more: bool = False) -> None:
        """Go on with it."""
        message: Message = {"type": "http.response.body", "body": body, "more_body": more}
        await self.send(message)

    async def respond(self, body: bytes, status: int = 200, *lines: tuple[bytes, bytes]) -> None:
        """The whole response."""
        await self.start(status, (b"content-length", b"%d" % len(body)), *lines)
        await self.write(body)


class Taken:
    """A request that was taken whole, without an ASGI call; the reply to it that is still to come."""

    def __init__(self, head: Head, body: bytes, writer: HttpWriter) -> None:
        self.head = head
        self.body = body
        self.writer = writer
        self.gone = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Taken {self.head!r}>"

    def disconnected(self) -> None:
        assert not self.gone.is_set(), "told twice"
        self.gone.set()

    def echo(self) -> None:
        """Answer."""
        self.writer.respond(200, b"taken " + self.head.target + b" " + self.body)


async def echo(served: Served) -> None:
    """Says what it was asked."""
    await served.read()
    await served.respond(b"asgi %b %b" % (served.scope["raw_path"], served.body))


def answering(body: bytes, status: int = 200) -> Script:
    """Answers without reading what it was asked."""

    async def answer(served: Served) -> None:
        await served.respond(body, status)

    return answer


class Scripted:
    """An application that takes POSTs to `/taken...` whole, and serves the rest over ASGI: by path, or with `echo`."""

    def __init__(self, *, echoes: bool = True, **scripts: Script) -> None:
        self.scripts = scripts
        self.taken: list[Taken] = []
        self.served: list[Served] = []
        self.echoes = echoes
        """Whether requests that were taken are answered a turn after they came."""
        self._grown = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Scripted taken={len(self.taken)} served={len(self.served)}>"

    def take(self, head: Head, body: bytes, writer: HttpWriter) -> Taken | bool:
        if not head.target.startswith(b"/taken"):
            return False
        taken = Taken(head, body, writer)
        self.taken.append(taken)
        self._grown.set()
        if self.echoes:
            asyncio.get_running_loop().call_soon(taken.echo)
        return taken

    async def __call__(self, scope: Scope, receive: AsgiReceive, send: AsgiSend) -> None:
        served = Served(scope, receive, send)
        self.served.append(served)
        self._grown.set()
        await self.scripts.get(scope["path"].strip("/"), echo)(served)

    async def was_served(self, count: int = 1) -> Served:
        """The `count`-th request served over ASGI."""
        await self._until(lambda: len(self.served) >= count)
        return self.served[count - 1]

    async def was_taken(self, count: int = 1) -> Taken:
        """The `count`-th request that was taken."""
        await self._until(lambda: len(self.taken) >= count)
        return self.taken[count - 1]

    async def _until(self, met: Callable[[], bool]) -> None:
        async with asyncio.timeout(BOUND):
            while not met():
                self._grown.clear()
                await self._grown.wait()


@dataclass
class Answer:
    """One response, as it came."""

    status: int
    lines: list[tuple[bytes, bytes]]
    body: bytes

    @property
    def headers(self) -> dict[bytes, bytes]:
        """Its header lines by name; none may come twice."""
        found = dict(self.lines)
        assert len(found) == len(self.lines), self.lines
        return found

    @property
    def closes(self) -> bool:
        """Whether it says that the connection ends with it."""
        return self.headers.get(b"connection") == b"close"


class Wire:
    """A client that writes bytes and reads responses."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes, step: int = 1 << 40) -> None:
        """Send bytes, in pieces of that size, each in a turn of its own."""
        async with asyncio.timeout(BOUND):
            for start in range(0, len(data), step):
                self.writer.write(data[start : start + step])
                await self.writer.drain()
                if step < len(data):
                    await asyncio.sleep(0)

    async def head(self) -> Answer:
        """The head of the next response."""
        async with asyncio.timeout(BOUND):
            head = await self.reader.readuntil(b"\r\n\r\n")
        first, *lines = head[:-4].split(b"\r\n")
        version, status, _ = first.split(b" ", 2)
        assert version == b"HTTP/1.1"
        split = [line.partition(b": ") for line in lines]
        return Answer(int(status), [(name.lower(), value) for name, _, value in split], b"")

    async def answer(self, *, bodiless: bool = False) -> Answer:
        """The next response, whole; `bodiless`: one to HEAD."""
        answer = await self.head()
        headers = answer.headers
        async with asyncio.timeout(BOUND):
            if bodiless or answer.status in (100, 204, 304):
                pass
            elif b"content-length" in headers:
                answer.body = await self.reader.readexactly(int(headers[b"content-length"]))
            elif headers.get(b"transfer-encoding") == b"chunked":
                while chunk := await self.chunk():
                    answer.body += chunk
            else:
                answer.body = await self.reader.read()
        return answer

    async def last(self, *, is_announced: bool = True) -> Answer:
        """The next response, after which the connection ends, as its head announces."""
        answer = await self.answer()
        assert answer.closes == is_announced
        assert await self.ended() == b""
        return answer

    async def chunk(self) -> bytes:
        """The next chunk of a response."""
        async with asyncio.timeout(BOUND):
            size = int(await self.reader.readline(), 16)
            return (await self.reader.readexactly(size + 2))[:-2]

    async def ended(self) -> bytes:
        """What comes until the connection ends."""
        found = b""
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(BOUND):
                while piece := await self.reader.read(65536):
                    found += piece
        return found

    def leave(self) -> None:
        """Close."""
        self.writer.close()

    def reset(self) -> None:
        """Break the connection."""
        self.writer.transport.abort()


@dataclass
class State:
    """What a server counts of its connections."""

    connections: set[Any] = field(default_factory=set)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)
    default_headers: list[tuple[bytes, bytes]] = field(default_factory=list)


class Stage:
    """A listening application."""

    def __init__(self, app: Any, service: Service, server: asyncio.Server) -> None:
        self.app = app
        self.service = service
        self._server = server
        self._wires: list[Wire] = []

    def __repr__(self) -> str:
        return f"<Stage {self.app!r}>"

    @property
    def connections(self) -> list[Connection]:
        """The connections that are open."""
        return list(self.service.state.connections)

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        host, port = self._server.sockets[0].getsockname()[:2]
        return host, port

    async def open(self, *, limit: int = 1 << 20) -> Wire:
        """A client that just connected, and reads no more than about twice the limit ahead."""
        client = socket.socket()
        client.setblocking(False)
        if limit < 1 << 20:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, limit)
        await asyncio.get_running_loop().sock_connect(client, self.address)
        wire = Wire(*await asyncio.open_connection(sock=client, limit=limit))
        self._wires.append(wire)
        return wire

    async def asks(self, *requests: bytes, step: int = 1 << 40) -> list[Answer]:
        """What a client gets for these, one by one on one connection."""
        wire, found = await self.open(), []
        for request in requests:
            await wire.send(request, step)
            found.append(await wire.answer(bodiless=request.startswith(b"HEAD")))
        return found

    async def at_rest(self) -> None:
        """Wait until no connection is open and no task runs."""
        await until(
            lambda: not self.service.state.connections and not self.service.state.tasks, "the end of all connections"
        )

    async def close(self) -> None:
        """End everything; nothing may stay."""
        for wire in self._wires:
            wire.reset()
        self._server.close()
        await self.at_rest()


@asynccontextmanager
async def staged(
    app: Any, own: Iterable[tuple[bytes, bytes]] = (), *, buffer: int = 0, clock: Clock | None = None, **limits: Any
) -> AsyncIterator[Stage]:
    """An application behind connections of ours. `buffer`: how much the system keeps for a client that is slow."""
    service = Service(app, Limits(**limits), State(default_headers=list(own)), clock or LoopClock())
    listening = socket.create_server(("127.0.0.1", 0))
    if buffer:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
    server = await asyncio.get_running_loop().create_server(lambda: Connection(service), sock=listening)
    stage = Stage(app, service, server)
    try:
        yield stage
    finally:
        await stage.close()


@asynccontextmanager
async def wired(app: Any, **options: Any) -> AsyncIterator[tuple[Stage, Wire]]:
    """The same, and one client that just connected."""
    async with staged(app, **options) as stage:
        yield stage, await stage.open()


@asynccontextmanager
async def taking(*sent: bytes, **options: Any) -> AsyncIterator[tuple[Stage, Wire, Taken]]:
    """The same, and what it sent, taken by an application that answers nothing by itself."""
    async with wired(Scripted(echoes=False), **options) as (stage, wire):
        await wire.send(b"".join(sent))
        yield stage, wire, await stage.app.was_taken()


def request(target: str = "/", body: bytes | None = None, *lines: str, method: str = "", version: str = "1.1") -> bytes:
    """A request; a POST if it has a body."""
    method = method or ("GET" if body is None else "POST")
    length = [] if body is None else [f"content-length: {len(body)}"]
    head = "".join(f"{line}\r\n" for line in (f"{method} {target} HTTP/{version}", "host: localhost", *length, *lines))
    return f"{head}\r\n".encode("latin-1") + (body or b"")


def chunked(target: str, *chunks: bytes, end: bytes = b"0\r\n\r\n") -> bytes:
    """A POST whose body comes in these chunks."""
    head = f"POST {target} HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n".encode()
    return head + b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + end
