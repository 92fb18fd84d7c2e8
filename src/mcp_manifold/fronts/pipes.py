"""Messages as lines over file descriptors: reading, cutting, writing. Knows no JSON and no session.

Pipes and sockets are the event loop's. A terminal is left as it is (making it non-blocking would do that to the shell
that shares it), and a regular file cannot be waited for at all: both are served by a thread.
"""

import asyncio
import os
import socket
import stat
import sys
import threading
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Final

_CHUNK: Final = 64 * 1024
Write = Callable[[bytes], Awaitable[None]]
_CLOSE_SECONDS: Final = 2.0
"""Seconds the last answers may take to be written; without it a parent that stopped reading would keep us alive."""


class Lines:
    """Cuts bytes into lines, in linear time, holding at most one unfinished line of `limit` bytes."""

    __slots__ = ("_held", "_limit", "_skipping")

    def __init__(self, limit: int) -> None:
        self._held = bytearray()
        self._limit = limit
        self._skipping = False

    def __repr__(self) -> str:
        return f"<Lines held={len(self._held)}{' skipping' if self._skipping else ''}>"

    def feed(self, data: bytes) -> Iterator[bytes | None]:
        """The lines that `data` completes, without their ends; None for one that was too long and is lost."""
        *whole, rest = data.split(b"\n")
        for line in whole:
            yield self._complete(line)
        self._hold(rest)

    def finish(self) -> Iterator[bytes | None]:
        """What came after the last line end."""
        if self._held or self._skipping:
            yield self._complete(b"")

    def _complete(self, line: bytes) -> bytes | None:
        self._hold(line)
        skipped, self._skipping = self._skipping, False
        line = bytes(self._held)
        self._held = bytearray()
        return None if skipped else line

    def _hold(self, piece: bytes) -> None:
        if self._skipping:
            return
        if len(self._held) + len(piece) > self._limit:
            self._skipping = True
            self._held = bytearray()
        else:
            self._held += piece


# --- reading ------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def reading(fd: int) -> AsyncIterator[asyncio.StreamReader]:
    """A reader on `fd`, which is closed at the end."""
    reader = asyncio.StreamReader(limit=_CHUNK)
    if not _is_waitable(fd):
        thread = _ReadingThread(fd, reader)
        try:
            yield reader
        finally:
            thread.stop()
        return
    was_blocking = os.get_blocking(fd)
    kept = os.dup(fd)
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(fd, "rb", buffering=0)
    )
    try:
        yield reader
    finally:
        transport.close()
        os.set_blocking(kept, was_blocking)  # the parent may share the open file
        os.close(kept)


class _ReadingThread:
    """Reads a descriptor in blocking mode and feeds a StreamReader, one piece at a time."""

    __slots__ = ("_fd", "_loop", "_reader", "_resume", "_stopped")

    def __init__(self, fd: int, reader: asyncio.StreamReader) -> None:
        self._fd = fd
        self._reader = reader
        self._loop = asyncio.get_running_loop()
        self._resume = threading.Event()
        self._stopped = False
        threading.Thread(target=self._run, name="front.stdin", daemon=True).start()

    def __repr__(self) -> str:
        return f"<_ReadingThread {'stopped' if self._stopped else 'reading'}>"

    def stop(self) -> None:
        """Let the thread end with the read it is in; it is a daemon because that read may never return."""
        self._stopped = True
        self._resume.set()

    def _run(self) -> None:
        try:
            while True:
                data = self._read()
                self._resume.clear()
                if self._stopped:
                    break
                self._loop.call_soon_threadsafe(self._feed, data)
                if not data:
                    break
                self._resume.wait()
        except RuntimeError:
            pass  # the loop is closed: nobody reads any more
        finally:
            os.close(self._fd)

    def _read(self) -> bytes:
        try:
            return os.read(self._fd, _CHUNK)
        except OSError:  # a terminal that went away
            return b""

    def _feed(self, data: bytes) -> None:
        if self._stopped:
            return
        if data:
            self._reader.feed_data(data)
            self._resume.set()
        else:
            self._reader.feed_eof()


# --- writing --------------------------------------------------------------------------------------------------------


class LineWriter:
    """Writes messages as lines, in order, by a task of its own; says when the reader falls behind.

    Args:
        limit: notifications waiting beyond this many are dropped.
    """

    __slots__ = ("_ended", "_free", "_limit", "_lines", "_wake", "broken", "dropped")

    def __init__(self, limit: int) -> None:
        self._lines: deque[bytes] = deque()
        self._limit = limit
        self._wake = asyncio.Event()
        self._free = asyncio.Event()
        self._free.set()
        self._ended = False
        self.broken = False
        """Nobody reads any more."""
        self.dropped = 0

    def __repr__(self) -> str:
        state = "broken" if self.broken else "ended" if self._ended else "open"
        return f"<LineWriter {state} waiting={len(self._lines)} dropped={self.dropped}>"

    def push(self, message: bytes) -> bool:
        """Queue a notification; False when the reader is too far behind."""
        if len(self._lines) >= self._limit:
            self.dropped += 1
            return False
        self.post(message)
        return not self.broken

    def post(self, message: bytes) -> None:
        """Queue an answer. Bounded by `free`, which whoever takes requests waits for."""
        if self.broken or self._ended:
            return
        if b"\n" in message or b"\r" in message:  # between JSON tokens, where they mean nothing but would end the line
            message = message.replace(b"\n", b" ").replace(b"\r", b" ")
        self._lines.append(message)
        if len(self._lines) >= self._limit:
            self._free.clear()
        self._wake.set()

    async def free(self) -> None:
        """Wait until the reader has caught up."""
        await self._free.wait()

    def end(self) -> None:
        """Nothing more comes: `run` ends when all is written."""
        self._ended = True
        self._wake.set()

    async def run(self, fd: int, broken: Callable[[], None]) -> None:
        """Write until the end, or until the reader is gone, which is told to `broken`. Closes `fd`."""
        try:
            async with _writing(fd) as write:
                while not (self._ended and not self._lines):
                    await self._wake.wait()
                    self._wake.clear()
                    await self._write_all(write)
        except OSError:
            self.broken = True
            broken()
        finally:
            self._lines.clear()
            self._free.set()

    async def _write_all(self, write: Write) -> None:
        while self._lines:
            size = 0
            batch: list[bytes] = []
            while self._lines and size < _CHUNK:
                batch += (self._lines.popleft(), b"\n")
                size += len(batch[-2])
            if len(self._lines) < self._limit:
                self._free.set()
            await write(b"".join(batch))


def _write_whole(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


@asynccontextmanager
async def _writing(fd: int) -> AsyncIterator[Write]:
    """How to write to `fd`, which is closed at the end."""
    mode = os.fstat(fd).st_mode
    if not _is_waitable(fd):
        try:
            yield lambda data: asyncio.to_thread(_write_whole, fd, data)
        finally:
            os.close(fd)
        return
    was_blocking = os.get_blocking(fd)
    kept = os.dup(fd)
    try:
        async with _writing_socket(fd) if stat.S_ISSOCK(mode) else _writing_pipe(fd) as write:
            yield write
    finally:
        os.set_blocking(kept, was_blocking)
        os.close(kept)


@asynccontextmanager
async def _writing_socket(fd: int) -> AsyncIterator[Write]:
    """Not as a pipe: that would take what the client sends on the same socket for its hanging up."""
    loop = asyncio.get_running_loop()
    with socket.socket(fileno=fd) as connection:
        connection.setblocking(False)
        yield lambda data: loop.sock_sendall(connection, data)


@asynccontextmanager
async def _writing_pipe(fd: int) -> AsyncIterator[Write]:
    loop = asyncio.get_running_loop()
    protocol = asyncio.StreamReaderProtocol(asyncio.StreamReader())
    transport, _ = await loop.connect_write_pipe(lambda: protocol, os.fdopen(fd, "wb", buffering=0))
    writer = asyncio.StreamWriter(transport, protocol, None, loop)

    async def write(data: bytes) -> None:
        writer.write(data)
        await writer.drain()

    try:
        yield write
    finally:
        writer.close()
        try:
            async with asyncio.timeout(_CLOSE_SECONDS):
                await writer.wait_closed()
        except (OSError, TimeoutError):
            transport.abort()


def _is_waitable(fd: int) -> bool:
    mode = os.fstat(fd).st_mode
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)


def is_file(fd: int) -> bool:
    """Whether a descriptor is a regular file, whose end says nothing about who waits for the answers."""
    return stat.S_ISREG(os.fstat(fd).st_mode)


@contextmanager
def claimed_stdio() -> Iterator[tuple[int, int]]:
    """The process's own stdin and stdout as (input, output), to be closed by whoever takes them.

    Meanwhile descriptor 0 reads nothing and descriptor 1 is stderr, so that neither a stray `print` nor a child
    process that inherits them can touch the protocol.
    """
    sys.stdout.flush()
    source, target = os.dup(0), os.dup(1)
    kept_in, kept_out = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    os.close(nothing)
    try:
        yield source, target
    finally:
        sys.stdout.flush()
        os.dup2(kept_in, 0)
        os.dup2(kept_out, 1)
        os.close(kept_in)
        os.close(kept_out)
