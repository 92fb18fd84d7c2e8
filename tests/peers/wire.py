"""A TCP connection as bytes to await, for scripted servers and raw clients. Knows no protocol."""

import asyncio
import socket
import struct
from collections.abc import Callable
from typing import Any


class SocketWire(asyncio.Protocol):
    """One TCP connection. Reading waits for marks or counts; writing waits for the peer to read."""

    def __init__(self, opened: "Callable[[SocketWire], object] | None" = None) -> None:
        self._opened = opened
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._news = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self.ended = asyncio.Event()
        """The peer closed its side, or is gone."""
        self.lost = asyncio.Event()
        """The socket is closed."""

    def __repr__(self) -> str:
        state = "lost" if self.lost.is_set() else "ended" if self.ended.is_set() else "open"
        return f"<SocketWire {state} {len(self._buffer)} bytes unread>"

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        if self._opened is not None:
            self._opened(self)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        self._news.set()

    def eof_received(self) -> bool:
        self._end()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._end()
        self.lost.set()

    def _end(self) -> None:
        self.ended.set()
        self._news.set()
        self._writable.set()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    async def until(self, mark: bytes) -> bytes:
        """Everything up to and including the mark.

        Raises:
            ConnectionError: the peer ended before that.
        """
        start = 0
        while (at := self._buffer.find(mark, start)) < 0:
            start = max(0, len(self._buffer) - len(mark) + 1)
            await self._more()
        return self._take(at + len(mark))

    async def exactly(self, count: int) -> bytes:
        """That many bytes.

        Raises:
            ConnectionError: the peer ended before that.
        """
        while len(self._buffer) < count:
            await self._more()
        return self._take(count)

    async def some(self) -> bytes:
        """Whatever there is, at least one byte; nothing at the end."""
        try:
            while not self._buffer:
                await self._more()
        except ConnectionError:
            return b""
        return self._take(len(self._buffer))

    async def _more(self) -> None:
        if self.ended.is_set():
            raise ConnectionResetError("the peer ended the connection")
        self._news.clear()
        await self._news.wait()

    def _take(self, count: int) -> bytes:
        taken = bytes(self._buffer[:count])
        del self._buffer[:count]
        return taken

    async def write(self, data: bytes) -> None:
        """Write, and wait while the peer does not read; nothing happens once it is gone."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)
            await self._writable.wait()

    def pause(self) -> None:
        """Stop reading, so that the peer's writes pile up."""
        if self._transport is not None:
            self._transport.pause_reading()

    def close(self) -> None:
        """Close after what was written is out."""
        if self._transport is not None:
            self._transport.close()

    def reset(self) -> None:
        """Close with a reset, throwing away what was not sent."""
        if self._transport is None or self._transport.is_closing():
            return
        sock: socket.socket = self._transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()


async def connect(host: str, port: int) -> SocketWire:
    """An open connection."""
    _, wire = await asyncio.get_running_loop().create_connection(SocketWire, host, port)
    return wire


async def first_of(*events: asyncio.Event) -> asyncio.Event:
    """Wait for the first of some events."""
    waits = {asyncio.create_task(event.wait()): event for event in events}
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)
    return next(event for event in events if event.is_set())
