"""The stdio transport: a child process with one JSON message per line on its stdin and stdout.

Owns the process from its start to the end of its group, and drains its stderr. It cuts lines; the link reads messages.
"""

import asyncio
import contextlib
import signal
from collections.abc import Callable
from functools import partial
from subprocess import Popen, SubprocessError
from typing import Final, cast

import anyio

from mcp_manifold.backends.link.link import Link
from mcp_manifold.backends.link.pending import PendingRequest, answered_by
from mcp_manifold.backends.process.command import StdioCommand
from mcp_manifold.backends.process.groups import Groups, on_end
from mcp_manifold.backends.process.stderr_tail import StderrTail
from mcp_manifold.clock import Clock, LoopClock, RateLimiter
from mcp_manifold.errors import (
    AnswerDropped,
    BackendCrashed,
    BackendError,
    BackendLost,
    BackendProtocolError,
    BackendUnavailable,
)
from mcp_manifold.model.budget import MIN_COUNTED, MemoryBudget, Reservation
from mcp_manifold.paced_reader import SMALL_PORTION, PacedReader, Pacer
from mcp_manifold.wire import one_line
from mcp_manifold.wire.lines import LineCutter

STDIN_GRACE: Final = 2.0
"""Seconds from closing stdin to SIGTERM (2026-07-28 stdio, Shutdown)."""
TERM_GRACE: Final = 2.0
"""Seconds from SIGTERM to SIGKILL."""
KILL_GRACE: Final = 2.0
"""Seconds to wait for a killed process; one that is stuck in the kernel would hang the stop."""
EXIT_GRACE: Final = 0.2
"""Seconds between a closed stdout and the exit, in either order, before one is reported without the other."""
LINES_A_SECOND: Final = 20_000
"""Messages that are read in one second; the rest waits in the pipe."""
STDERR_A_SECOND: Final = 16 << 20
"""Bytes of stderr that are read in one second."""
_GROUP_POLL: Final = 0.05
"""Seconds between two looks at a group, whose end no event reports."""


class _Pipes:
    """Feeds the link from the child's stdout, synchronously and in order. `exited` is done once everything was read."""

    def __init__(self, link: Link, tail: StderrTail, limit: int, *, budget: MemoryBudget, clock: Clock) -> None:
        self._link = link
        self._clock = clock
        self._tail = tail
        self._lines = LineCutter(limit)
        self._limit = limit
        self._is_cutting = False
        """Whether a line is unfinished."""
        self._reservation = Reservation(budget)
        self._stdout, self._stderr = RateLimiter(LINES_A_SECOND), RateLimiter(STDERR_A_SECOND)
        self._open = {1, 2}
        self._has_exited = False
        self.exited: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def __repr__(self) -> str:
        return f"<_Pipes {self._link.backend}{' exited' if self._has_exited else ''}>"

    def received(self, fd: int, data: bytes) -> float:
        """Handle output of the child; returns the seconds to pause reading, 0 for none."""
        now = self._clock.now()
        if fd == 2:
            self._tail.fed(data, now)
            return self._stderr.rest(len(data), now)
        if not self._is_cutting and data.find(b"\n") == len(data) - 1 and len(data) <= self._limit:
            line = data[:-1].removesuffix(b"\r")  # one whole line, as most answers are, needs no cutting
            if line:
                self._link.fed(line)
            return self._stdout.rest(1, now)
        lines = self._lines.feed(data)
        for line in lines:
            if line:
                self._link.fed(line)
        self._is_cutting = not self._lines.is_idle or self._reservation.size > 0
        if not self._is_cutting:
            return self._stdout.rest(len(lines), now)
        self._note_prompt(data)
        for start in self._lines.take_oversized():
            self._link.oversized(start)
        held = self._lines.held
        if (held > MIN_COUNTED or self._reservation.size) and not self._reservation.try_resize(held):
            self._drop()
        if self._lines.is_endless:
            self._link.lost(BackendProtocolError(self._link.backend, "line without an end on stdout"))
        return self._stdout.rest(len(lines), now)

    def _note_prompt(self, data: bytes) -> None:
        """Note a line that begins as text before the greeting: a prompt waits for an answer without a line end."""
        if not self._link.version and self._lines.held == len(data) and data[:1] != b"{":
            self._link.invalid.note(data)

    def _drop(self) -> None:
        """Skip the incoming message and fail its request, because there is no room for the message."""
        pending = self._link.pending.get(answered_by(self._lines.skip()))
        self._reservation.release()
        if pending is not None:
            self._link.fail(pending, AnswerDropped(self._link.backend))

    @property
    def is_flooded(self) -> bool:
        """Whether too much output has ended the link, so that the rest of it is not read."""
        ended = self._link.ended
        return ended.done() and isinstance(ended.result(), BackendProtocolError)

    def closed(self, fd: int) -> None:
        """Handle the end of stdout or stderr: every process that held it has closed it."""
        self._open.discard(fd)
        if self._has_exited:
            self._finish_if_closed()
        elif fd == 1:  # usually its exit follows at once, and gives the better reason
            reason = BackendLost(self._link.backend, "the server closed its stdout")
            self._clock.call_later(EXIT_GRACE, self._link.lost, reason)

    def ended(self) -> None:
        """Handle the child's exit. Its last output may still be in the pipes."""
        self._has_exited = True
        self._finish_if_closed()
        self._clock.call_later(EXIT_GRACE, self._finish)

    def _finish_if_closed(self) -> None:
        if not self._open:
            self._finish()

    def _finish(self) -> None:
        if not self.exited.done():
            for line in self._lines.finish():
                self._link.fed(line)
            self._tail.ended(self._clock.now())
            self._reservation.release()
            self.exited.set_result(None)


class _Output(asyncio.Protocol):
    """A child's stdout or stderr, as a protocol of the event loop."""

    def __init__(self, pipes: _Pipes, fd: int, pacer: Pacer) -> None:
        self._pipes = pipes
        self._pacer = pacer
        self._fd = fd
        self._reader: PacedReader

    def __repr__(self) -> str:
        return f"<_Output {self._fd} of {self._pipes!r}>"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._reader = PacedReader(self._read, self._pacer, cast(asyncio.ReadTransport, transport))

    def data_received(self, data: bytes) -> None:
        if self._reader.is_behind or len(data) > SMALL_PORTION:
            self._reader.feed(data)
        else:
            seconds = self._pipes.received(self._fd, data)
            if seconds or self._pipes.is_flooded:
                self._reader.wait(seconds, is_unfinished=True)

    def _read(self, data: bytes) -> float | None:
        seconds = self._pipes.received(self._fd, data) if data else 0
        if self._pipes.is_flooded:
            self._reader.stop()
        return seconds or None

    def connection_lost(self, exc: Exception | None) -> None:
        self._pipes.closed(self._fd)


class _Input(asyncio.BaseProtocol):
    """A child's stdin, as a protocol of the event loop."""

    def __init__(self, on_closed: Callable[[], None]) -> None:
        self.is_open = False
        self._on_closed = on_closed

    def __repr__(self) -> str:
        return f"<_Input {'open' if self.is_open else 'closed'}>"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.is_open = True

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_open = False
        self._on_closed()


class StdioTransport:
    """A running child process that carries one link."""

    def __init__(
        self, link: Link, process: Popen[bytes], groups: Groups, *, pipes: _Pipes, tail: StderrTail, clock: Clock
    ) -> None:
        self._link = link
        self._clock = clock
        self._process = process
        self._groups = groups
        self._pipes = pipes
        self._tail = tail
        self.pid = process.pid
        self._input = _Input(self._on_closed)
        self._stdin: asyncio.WriteTransport
        self._outputs: list[asyncio.BaseTransport] = []
        self._waiting = [pipe for pipe in (process.stdin, process.stdout, process.stderr) if pipe is not None]
        self._is_closing = False
        pipes.exited.add_done_callback(self._on_exit)

    def __repr__(self) -> str:
        return f"<StdioTransport {self._link.backend} pid={self.pid}>"

    async def connect(self) -> None:
        """Connect the child's pipes to the event loop, and watch for its exit."""
        loop, pipes, waiting = asyncio.get_running_loop(), self._pipes, self._waiting
        pacer = Pacer(self._clock, loop.call_soon)
        on_end(self._process, pipes.ended)
        self._stdin, _ = await loop.connect_write_pipe(lambda: self._input, waiting.pop(0))
        for fd in (1, 2):
            output, _ = await loop.connect_read_pipe(partial(_Output, pipes, fd, pacer), waiting.pop(0))
            self._outputs.append(output)

    def send_request(self, pending: PendingRequest, body: bytes) -> None:
        self._write(body)

    def send_note(self, body: bytes) -> asyncio.Future[None] | None:
        with contextlib.suppress(BackendError):
            self._write(body)
        return None

    def adopt(self, version: str) -> None:
        pass  # nothing on a pipe depends on the revision

    async def aclose(self) -> None:
        """Stop the process group, each step within a time limit: close stdin, send SIGTERM, then SIGKILL."""
        self._is_closing = True
        self._link.lost(BackendUnavailable(self._link.backend, "the connection was closed"))
        self._stdin.close()
        if not await self._gone(STDIN_GRACE):
            self._groups.terminate(self.pid)
            await self._gone(TERM_GRACE)
        await self._end_group()
        self._release()

    async def kill(self) -> None:
        """Kill the process group at once, because its pipes could not be connected."""
        self._groups.kill(self.pid)
        await self._gone(KILL_GRACE)
        self._release()

    def _release(self) -> None:
        if self._input.is_open:
            self._stdin.abort()  # drops what the child never read
        for output in self._outputs:
            output.close()
        for pipe in self._waiting:
            pipe.close()
        self._groups.forget(self.pid)

    async def _gone(self, seconds: float) -> bool:
        return await self._clock.wait(self._pipes.exited, seconds=seconds)

    async def _end_group(self) -> None:
        """End the processes of the group that outlive the child, such as a wrapper's grandchild."""
        if not self._groups.terminate(self.pid):
            return
        for _ in range(int(TERM_GRACE / _GROUP_POLL)):
            if not self._groups.lives(self.pid):
                return
            await self._clock.sleep(_GROUP_POLL)
        self._groups.kill(self.pid)
        await self._gone(KILL_GRACE)

    def _write(self, body: bytes) -> None:
        if self._stdin.is_closing():
            raise BackendUnavailable(self._link.backend, "the server closed its stdin").unsent()
        if self._stdin.get_write_buffer_size() > self._link.write_limit:
            raise BackendUnavailable(self._link.backend, "the server does not read its stdin; send buffer is full")
        self._stdin.write(one_line(body) + b"\n")

    def _on_closed(self) -> None:
        """End the link, because no process reads stdin. Wait for the exit first, which gives a better reason."""
        if not self._is_closing:
            reason = BackendLost(self._link.backend, "the server closed its stdin")
            self._clock.call_later(2 * EXIT_GRACE, self._link.lost, reason)

    def _on_exit(self, _: asyncio.Future[None]) -> None:
        code = self._process.poll()
        if not self._is_closing:
            self._tail.exited(ending(code))
        self._link.lost(BackendCrashed(self._link.backend, exit_reason(code, self._tail)))


def exit_reason(code: int | None, tail: StderrTail) -> str:
    """How a server exited, as a sentence, with the lines of its stderr that tell why."""
    said = tail.summary()
    return f"{ending(code)}; {said}" if said else ending(code)


def ending(code: int | None) -> str:
    """How a server exited, as a sentence."""
    if code is not None and code < 0:
        with contextlib.suppress(ValueError):
            return f"the server was killed by {signal.Signals(-code).name}"
    return f"the server exited with status {code}"


async def open_stdio(
    link: Link,
    command: StdioCommand,
    *,
    tail: StderrTail,
    limit: int,
    groups: Groups | None = None,
    budget: MemoryBudget | None = None,
    clock: Clock | None = None,
) -> StdioTransport:
    """Start a server in a process group of its own.

    Args:
        tail: receives its stderr.
        limit: bytes of the largest message.
        groups: tracks the group; without it the group outlives a kill of this process.
        budget: room for large messages.

    Raises:
        BackendUnavailable: it cannot be started; the message says what to do.
    """
    program = command.located(link.backend)
    groups, clock = groups or Groups(guarded=False), clock or LoopClock()
    if not link.key:
        tail.began()
    try:
        process = groups.begin([program, *command.args], env=command.env, cwd=command.cwd, ceilings=command.ceilings)
    except (OSError, SubprocessError, ValueError) as exc:  # ValueError: text that no system call accepts
        odd = (
            "its arguments or environment contain NUL or an invalid character"
            if isinstance(exc, ValueError)
            else str(exc)
        )
        reason = getattr(exc, "strerror", None) or odd
        raise BackendUnavailable(link.backend, f"{command.program!r} could not be started: {reason}") from exc
    pipes = _Pipes(link, tail, limit, budget=budget or MemoryBudget(), clock=clock)
    transport = StdioTransport(link, process, groups, pipes=pipes, tail=tail, clock=clock)
    with anyio.CancelScope(shield=True):  # quick; a half-connected child would leak its pipes
        try:
            await transport.connect()
        except BaseException:
            await transport.kill()
            raise
    return transport
