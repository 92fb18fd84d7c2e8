"""A backend as a child process: one JSON message a line on its stdin and stdout, its stderr drained, its group stopped.

Owns the process from spawn to the last member of its group. Knows lines, not MCP; the link does.
"""

import asyncio
import contextlib
import logging
import os
import pathlib
import shutil
import signal
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, cast

from mcp_manifold.backends.lines import LineSplitter
from mcp_manifold.backends.link import Link, Pending
from mcp_manifold.errors import BackendError, BackendLost, BackendUnavailable

logger = logging.getLogger(__name__)

STDIN_GRACE: Final = 2.0
"""Seconds a server gets to leave after its stdin closed, before SIGTERM (2026-07-28 stdio, Shutdown)."""
TERM_GRACE: Final = 2.0
"""Seconds a process group gets after SIGTERM, before SIGKILL."""
KILL_GRACE: Final = 2.0
"""Seconds to wait for a killed process; only one stuck in the kernel outlives it."""
EXIT_GRACE: Final = 0.2
"""Seconds between a server's closed stdout and its exit before the one is reported without the other."""
TAIL_LINES: Final = 20
LINE_LIMIT: Final = 4096
LOG_RATE: Final = 50
"""Lines of stderr logged in a second; the rest is counted, so that a flood costs nobody anything."""


@dataclass(frozen=True, slots=True)
class Command:
    """How to start a server: the vector is executed as it is, never through a shell."""

    program: str
    args: tuple[str, ...]
    env: Mapping[str, str]
    cwd: str | None = None

    def __repr__(self) -> str:
        return f"<Command {self.program} args={len(self.args)}>"


class StderrTail:
    """The last lines a server wrote to stderr, logged at a bounded rate."""

    def __init__(self, backend: str) -> None:
        self._backend = backend
        self._lines = LineSplitter(LINE_LIMIT)
        self._tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._second = 0
        self._logged = 0
        self._suppressed = 0

    def __repr__(self) -> str:
        return f"<StderrTail {self._backend} lines={len(self._tail)}>"

    def fed(self, data: bytes, now: float) -> None:
        """Take what the server wrote."""
        for line in self._lines.feed(data):
            text = printable(line.decode("utf-8", "replace"))
            if text:
                self._tail.append(text)
                self._log(text, int(now))
        self._lines.oversized.clear()

    def last(self) -> str:
        """The last line, for an error message; empty when there was none."""
        return self._tail[-1] if self._tail else ""

    def lines(self) -> tuple[str, ...]:
        """The last lines, oldest first."""
        return tuple(self._tail)

    def _log(self, text: str, second: int) -> None:
        if second != self._second:
            if self._suppressed:
                logger.info("stderr lines not shown", extra={"backend": self._backend, "lines": self._suppressed})
            self._second, self._logged, self._suppressed = second, 0, 0
        if self._logged < LOG_RATE:
            self._logged += 1
            logger.info("stderr: %s", text, extra={"backend": self._backend})
        else:
            self._suppressed += 1


def printable(text: str) -> str:
    """`text` without control characters: what a server writes must not drive the terminal that shows our log (S44)."""
    return "".join(char if char.isprintable() else " " for char in text).strip()


class _Pipes(asyncio.SubprocessProtocol):
    """Feeds the link from the child's stdout; synchronous, in the order of the bytes."""

    def __init__(self, link: Link, tail: StderrTail, limit: int) -> None:
        self._link = link
        self._tail = tail
        self._lines = LineSplitter(limit)
        self._loop = asyncio.get_running_loop()
        self.exited: asyncio.Future[None] = self._loop.create_future()

    def __repr__(self) -> str:
        return f"<_Pipes {self._link.backend}>"

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        if fd == 2:
            self._tail.fed(data, self._loop.time())
            return
        for line in self._lines.feed(data):
            if line:
                self._link.fed(line)
        if self._lines.oversized:
            for start in self._lines.oversized:
                self._link.oversized(start)
            self._lines.oversized.clear()

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        if fd == 1:  # usually its exit follows at once, and knows the better reason
            reason = BackendLost(self._link.backend, "the server closed its stdout")
            self._loop.call_later(EXIT_GRACE, self._link.lost, reason)

    def process_exited(self) -> None:
        if not self.exited.done():
            self.exited.set_result(None)


class StdioTransport:
    """A running child process that carries one link."""

    def __init__(self, link: Link, process: asyncio.SubprocessTransport, pipes: _Pipes, tail: StderrTail) -> None:
        self._link = link
        self._process = process
        self._pipes = pipes
        self._tail = tail
        self.pid = process.get_pid()
        # uvloop's transports have the methods, not the base class, of asyncio's
        self._stdin = cast(asyncio.WriteTransport, process.get_pipe_transport(0))
        pipes.exited.add_done_callback(self._on_exit)

    def __repr__(self) -> str:
        return f"<StdioTransport {self._link.backend} pid={self.pid}>"

    def send_request(self, pending: Pending, body: bytes) -> None:
        self._write(body)

    def send_note(self, body: bytes) -> asyncio.Future[None] | None:
        with contextlib.suppress(BackendError):
            self._write(body)
        return None

    def adopt(self, version: str) -> None:
        pass  # nothing on a pipe depends on the revision

    async def aclose(self) -> None:
        """Close stdin, then SIGTERM, then SIGKILL the whole process group; every wait is bounded."""
        self._link.lost(BackendUnavailable(self._link.backend, "the connection was closed"))
        self._stdin.close()
        if not await self._gone(STDIN_GRACE):
            self._signal(signal.SIGTERM)
            await self._gone(TERM_GRACE)
        await self._end_group()
        self._process.close()

    async def _gone(self, seconds: float) -> bool:
        done, _ = await asyncio.wait({self._pipes.exited}, timeout=seconds)
        return bool(done)

    async def _end_group(self) -> None:
        """Whoever of the group outlived the child (a wrapper's grandchild) gets SIGTERM, then SIGKILL."""
        if not self._signal(signal.SIGTERM):
            return
        for _ in range(int(TERM_GRACE / 0.05)):
            if not self._signal(0):
                return
            await asyncio.sleep(0.05)  # a group's end cannot be waited for, only asked
        self._signal(signal.SIGKILL)
        await self._gone(KILL_GRACE)

    def _signal(self, number: int) -> bool:
        """Signal the child's whole group; False when nobody of it is left."""
        try:
            os.killpg(self.pid, number)
        except (ProcessLookupError, PermissionError):
            return False
        return True

    def _write(self, body: bytes) -> None:
        if self._stdin.is_closing():
            raise BackendUnavailable(self._link.backend, "the server closed its stdin")
        if self._stdin.get_write_buffer_size() > self._link.write_limit:
            raise BackendUnavailable(self._link.backend, "the server does not read its input; too much is waiting")
        self._stdin.write(one_line(body))

    def _on_exit(self, _: asyncio.Future[None]) -> None:
        self._link.lost(BackendLost(self._link.backend, exit_reason(self._process.get_returncode(), self._tail)))


def one_line(body: bytes) -> bytes:
    """A message as one line. A line break in JSON text is white space between tokens, but here it would be the end of
    the message, and what follows a message of the caller's own making, past every check.
    """
    if b"\n" in body or b"\r" in body:
        body = body.replace(b"\n", b" ").replace(b"\r", b" ")
    return body + b"\n"


def exit_reason(code: int | None, tail: StderrTail) -> str:
    """Why a server left, in words, with the last thing it said."""
    if code is not None and code < 0:
        with contextlib.suppress(ValueError):
            what = f"the server was killed by {signal.Signals(-code).name}"
            return f"{what}; its last words: {tail.last()}" if tail.last() else what
    what = f"the server exited with status {code}"
    return f"{what}; its last words: {tail.last()}" if tail.last() else what


def _located(backend: str, command: Command) -> str:
    """The program's full path, its working directory checked, since both would fail with the same words later."""
    program = shutil.which(command.program, path=command.env.get("PATH"))
    if program is None:
        reason = f"the command {command.program!r} was not found on PATH: install it, or give its full path"
        raise BackendUnavailable(backend, reason)
    if command.cwd is not None and not pathlib.Path(command.cwd).is_dir():
        raise BackendUnavailable(backend, f"its working directory {command.cwd!r} does not exist")
    return program


async def open_stdio(link: Link, command: Command, *, tail: StderrTail, limit: int) -> StdioTransport:
    """Start the server in a process group of its own.

    Raises:
        BackendUnavailable: it cannot be started; the message says what to do.
    """
    program = _located(link.backend, command)
    try:
        process, pipes = await asyncio.get_running_loop().subprocess_exec(
            lambda: _Pipes(link, tail, limit),
            program,
            *command.args,
            env=dict(command.env),
            cwd=command.cwd,
            start_new_session=True,
        )
    except OSError as exc:
        raise BackendUnavailable(link.backend, f"{command.program!r} could not be started: {exc.strerror}") from exc
    return StdioTransport(link, process, pipes, tail)
