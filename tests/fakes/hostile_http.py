"""An HTTP server on the loopback that does exactly what a script says, however wrong. Parses no more than it must."""

import asyncio
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import Self


class Peer:
    """One accepted connection, as its script sees it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def request(self) -> bytes:
        """One whole request: head, and a body of the length it announces."""
        head = await self._reader.readuntil(b"\r\n\r\n")
        fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:-2])
        return head + await self._reader.readexactly(int(fields.get(b"content-length", b"0")))

    async def send(self, data: bytes) -> None:
        """Write, as one piece."""
        self._writer.write(data)
        await self._writer.drain()

    def reset(self) -> None:
        """Close with a RST."""
        linger = struct.pack("ii", 1, 0)
        sock: socket.socket = self._writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self._writer.transport.abort()

    async def until_closed(self) -> None:
        """Read on until the client closes, however it does that."""
        try:
            while await self._reader.read(65536):
                pass
        except ConnectionError:
            pass


Script = Callable[[Peer], Awaitable[None]]


def answering(*responses: bytes) -> Script:
    """Answer one request after the other, then close."""

    async def script(peer: Peer) -> None:
        for response in responses:
            await peer.request()
            await peer.send(response)

    return script


def answering_always(response: bytes) -> Script:
    """Answer every request alike, until the client closes."""

    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.send(response)

    return script


class HostileServer:
    """Plays the n-th script on the n-th connection, the last one on all others; ends with its `async with`."""

    def __init__(self, *scripts: Script, ssl_context: ssl.SSLContext | None = None) -> None:
        self._scripts: Sequence[Script] = scripts
        self._ssl = ssl_context
        self._tasks: set[asyncio.Task[None]] = set()
        self.accepted = 0
        self.port = 0

    def __repr__(self) -> str:
        return f"<HostileServer port={self.port} accepted={self.accepted}>"

    @property
    def url(self) -> str:
        """Where to connect to."""
        return f"{'https' if self._ssl else 'http'}://127.0.0.1:{self.port}/mcp"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=self._ssl)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        script = self._scripts[min(self.accepted, len(self._scripts) - 1)]
        self.accepted += 1
        try:
            await script(Peer(reader, writer))
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client has gone, or the test is over
        finally:
            self._tasks.discard(task)
            writer.close()
