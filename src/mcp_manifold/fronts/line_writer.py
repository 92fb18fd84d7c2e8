"""Writes messages as lines to a file descriptor; the messages of one turn are written together. Knows no JSON.

One system call for all of them: their reader is woken once, and finds them all there.
"""

import asyncio
import os
from collections import deque
from collections.abc import Callable
from typing import Final

from mcp_manifold.fronts.pipes import is_waitable
from mcp_manifold.wire import one_line

_CHUNK: Final = 64 * 1024


class LineWriter:
    """Writes messages as lines, in order, and applies back-pressure.

    What the system does not take at once waits here, and is written as soon as it does.

    Args:
        limit: notifications waiting beyond this many are dropped.
    """

    def __init__(self, limit: int) -> None:
        self._lines: deque[bytes] = deque()
        self._limit = limit
        self._loop = asyncio.get_running_loop()
        self._fd = -1
        """What the loop writes to; -1 before it does, and where a thread does."""
        self._rest: bytes | memoryview = b""
        """Of what the descriptor took a part."""
        self._is_due = False
        """It is going to be written: after this turn, or when the descriptor takes more."""
        self._is_watching = False
        """The loop looks when that is."""
        self._over: asyncio.Future[None] = self._loop.create_future()
        self._wake = asyncio.Event()
        self._freed: Callable[[], None] | None = None
        self._ended = False
        self.broken = False
        """Whether the reader is gone."""
        self.dropped = 0

    def __repr__(self) -> str:
        state = "broken" if self.broken else "ended" if self._ended else "open"
        return f"<LineWriter {state} waiting={len(self._lines)} dropped={self.dropped}>"

    @property
    def is_full(self) -> bool:
        """Whether the buffer is full. Then handle no request of this client."""
        return len(self._lines) >= self._limit

    def push(self, message: bytes) -> bool:
        """Queue a message that may be dropped; False when the buffer is full."""
        if len(self._lines) >= self._limit:
            self.dropped += 1
            return False
        self.post(message)
        return not self.broken

    def post(self, message: bytes) -> None:
        """Queue a message that is never dropped. Callers must check `is_full` before each request."""
        if self.broken or self._ended:
            return
        self._lines.append(one_line(message))
        if not self._is_due:
            self._is_due = True
            self._loop.call_soon(self._write)

    def when_free(self, told: Callable[[], None]) -> None:
        """Call `told` once the buffer has room again."""
        self._freed = told

    def end(self) -> None:
        """End the output: `run` returns when everything is written."""
        self._ended = True
        if not self._is_due:
            self._is_due = True
            self._loop.call_soon(self._write)

    async def run(self, fd: int, broken: Callable[[], None]) -> None:
        """Write until the end, or until the reader is gone; then call `broken`.

        Args:
            fd: is closed at last; `unblocked`, if it can be waited for.
        """
        try:
            await (self._run_ready(fd) if is_waitable(fd) else self._run_threaded(fd))
        except OSError:
            self.broken = True
            broken()
        finally:
            self._lines.clear()
            os.close(fd)
            self._tell_free()

    async def _run_ready(self, fd: int) -> None:
        self._fd = fd
        try:
            self._write()
            await self._over
        finally:
            self._fd = -1
            if self._is_watching:
                self._loop.remove_writer(fd)

    async def _run_threaded(self, fd: int) -> None:
        while self._lines or not self._ended:
            await self._wake.wait()
            self._wake.clear()
            while self._lines:
                await asyncio.to_thread(_write_whole, fd, self._batch())
                self._tell_free()

    def _write(self) -> None:
        """Write queued lines until the descriptor would block."""
        self._is_due = False
        if self._fd < 0:
            self._wake.set()
            return
        if self._over.done():
            return
        try:
            while data := self._rest or self._batch():
                self._rest = _unwritten(self._fd, data)
                if self._rest:
                    self._is_due = True
                    if not self._is_watching:
                        self._is_watching = True
                        self._loop.add_writer(self._fd, self._write)
                    return
                self._tell_free()
        except OSError as exc:
            self._over.set_exception(exc)
            return
        if self._is_watching:
            self._is_watching = False
            self._loop.remove_writer(self._fd)
        if self._ended:
            self._over.set_result(None)

    def _batch(self) -> bytes:
        """The next lines, joined."""
        size, batch = 0, []
        while self._lines and size < _CHUNK:
            batch.append(self._lines.popleft())
            size += len(batch[-1])
        batch.append(b"")
        return b"\n".join(batch)

    def _tell_free(self) -> None:
        if self._freed is not None and not self.is_full:
            freed, self._freed = self._freed, None
            freed()


def _unwritten(fd: int, data: bytes | memoryview) -> bytes | memoryview:
    """Write without blocking; returns the unwritten rest."""
    try:
        written = os.write(fd, data)
    except BlockingIOError:
        written = 0
    return b"" if written == len(data) else memoryview(data)[written:]


def _write_whole(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
