"""Reads file descriptors, including this process's stdin. Knows no JSON and no session.

The event loop reads pipes and sockets: data is handed on in the turn in which it arrives. A thread reads terminals and
regular files. A terminal must stay blocking, because the shell shares it. A regular file cannot be waited for.
"""

import asyncio
import os
import stat
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Final, Protocol, cast

_CHUNK: Final = 64 * 1024


class Inlet(Protocol):
    """The reader of a descriptor."""

    def pause(self) -> None:
        """Pause reading."""

    def resume(self) -> None:
        """Resume reading."""


Fed = Callable[[bytes, Inlet], None]
"""Receives the data, empty at the end, and the reader, for pausing."""


@asynccontextmanager
async def reading(fd: int, fed: Fed) -> AsyncIterator[None]:
    """A context in which `fd` is read and its data passed to `fed`. Closes `fd` at the end."""
    if not is_waitable(fd):
        thread = _ReadingThread(fd, fed)
        try:
            yield
        finally:
            thread.stop()
        return
    pipe = os.fdopen(fd, "rb", buffering=0)
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(lambda: _Reading(fed), pipe)
    try:
        yield
    finally:
        transport.close()


class _Reading(asyncio.Protocol):
    """Reads a descriptor that the event loop can watch."""

    def __init__(self, fed: Fed) -> None:
        self._fed = fed
        self._transport: asyncio.ReadTransport

    def __repr__(self) -> str:
        return "<_Reading>"

    def pause(self) -> None:
        if not self._transport.is_closing():
            self._transport.pause_reading()

    def resume(self) -> None:
        if not self._transport.is_closing():
            self._transport.resume_reading()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.ReadTransport, transport)

    def data_received(self, data: bytes) -> None:
        self._fed(data, self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._fed(b"", self)


class _ReadingThread:
    """Reads a blocking descriptor in a thread, and passes each piece to the event loop."""

    def __init__(self, fd: int, fed: Fed) -> None:
        self._fd = fd
        self._fed = fed
        self._loop = asyncio.get_running_loop()
        self._resume = threading.Event()
        self._is_paused = False
        self._stopped = False
        threading.Thread(target=self._run, name="front.stdin", daemon=True).start()

    def __repr__(self) -> str:
        return f"<_ReadingThread {'stopped' if self._stopped else 'paused' if self._is_paused else 'reading'}>"

    def pause(self) -> None:
        self._is_paused = True

    def resume(self) -> None:
        self._is_paused = False
        self._resume.set()

    def stop(self) -> None:
        """End the thread after its current read. That read may never return, so the thread is a daemon."""
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
        self._fed(data, self)
        if not self._is_paused:
            self._resume.set()


def is_waitable(fd: int) -> bool:
    """Whether the event loop can watch a descriptor."""
    mode = os.fstat(fd).st_mode
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)


@contextmanager
def unblocked(*fds: int) -> Iterator[None]:
    """A context in which those descriptors are non-blocking that the loop can watch. They may be closed before."""
    shared = [(os.dup(fd), os.get_blocking(fd)) for fd in fds if is_waitable(fd)]
    try:
        for kept, _ in shared:
            os.set_blocking(kept, False)
        yield
    finally:
        for kept, was_blocking in shared:
            os.set_blocking(kept, was_blocking)  # the parent may share the open file
            os.close(kept)


def is_file(fd: int) -> bool:
    """Whether a descriptor is a regular file."""
    return stat.S_ISREG(os.fstat(fd).st_mode)


@contextmanager
def claimed_stdio() -> Iterator[tuple[int, int]]:
    """The process's stdin and stdout as two new descriptors (input, output). The caller closes them.

    Meanwhile descriptor 0 reads nothing and descriptor 1 is stderr. So neither a stray `print` nor a child process that
    inherits them can disturb the protocol.
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
