"""A backend as a child process: one JSON message a line on its stdin and stdout, its stderr drained, its group stopped.

Owns the process from spawn to the last member of its group. Knows lines, not MCP; the link does.
"""

import asyncio
import contextlib
import logging
import pathlib
import shutil
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from subprocess import Popen, SubprocessError
from typing import Final, cast

import anyio

from mcp_manifold.backends.link.link import Link
from mcp_manifold.backends.link.pending import PendingRequest, number_in
from mcp_manifold.backends.process.process import UNBOUNDED, Ceilings, Groups, on_end
from mcp_manifold.backends.process.stderr_tail import StderrTail
from mcp_manifold.clock import RateLimiter
from mcp_manifold.errors import (
    AnswerDropped,
    BackendCrashed,
    BackendError,
    BackendLost,
    BackendProtocolError,
    BackendUnavailable,
)
from mcp_manifold.model.budget import MIN_COUNTED, MemoryBudget, Reservation
from mcp_manifold.wire import one_line
from mcp_manifold.wire.lines import LineSplitter

logger = logging.getLogger(__name__)

STDIN_GRACE: Final = 2.0
"""Seconds a server gets to leave after its stdin closed, before SIGTERM (2026-07-28 stdio, Shutdown)."""
TERM_GRACE: Final = 2.0
"""Seconds a process group gets after SIGTERM, before SIGKILL."""
KILL_GRACE: Final = 2.0
"""Seconds to wait for a killed process; only one stuck in the kernel outlives it."""
EXIT_GRACE: Final = 0.2
"""Seconds between a server's closed stdout and its exit, either way, before the one is reported without the other."""
LINES_A_SECOND: Final = 20_000
"""Messages a server may write in a second before it is not read for the rest of it: more is no work, but a flood."""
STDERR_A_SECOND: Final = 16 << 20
"""Bytes of stderr, likewise."""


@dataclass(frozen=True, slots=True)
class StdioCommand:
    """How to start a server: the vector is executed as it is, never through a shell."""

    program: str
    args: tuple[str, ...]
    env: Mapping[str, str]
    cwd: str | None = None
    ceilings: Ceilings = UNBOUNDED

    def __repr__(self) -> str:
        return f"<StdioCommand {self.program} args={len(self.args)}>"


class _Pipes:
    """Feeds the link from the child's stdout; synchronous, in the order of the bytes. Knows when it has all been."""

    def __init__(self, link: Link, tail: StderrTail, limit: int, budget: MemoryBudget) -> None:
        self._link = link
        self._tail = tail
        self._lines = LineSplitter(limit)
        self._reservation = Reservation(budget)
        self._loop = asyncio.get_running_loop()
        self._stdout, self._stderr = RateLimiter(LINES_A_SECOND), RateLimiter(STDERR_A_SECOND)
        self._open = {1, 2}
        self._has_exited = False
        self.exited: asyncio.Future[None] = self._loop.create_future()

    def __repr__(self) -> str:
        return f"<_Pipes {self._link.backend}{' exited' if self._has_exited else ''}>"

    def received(self, fd: int, data: bytes) -> float:
        """The child wrote this to its stdout or stderr; for how many seconds it is not to be read."""
        if fd == 2:
            self._tail.fed(data, self._loop.time())
            return self._stderr.rest(len(data), self._loop.time())
        lines = 0
        for line in self._lines.feed(data):
            lines += 1
            if line:
                self._link.fed(line)
        if self._lines.is_idle and not self._reservation.size:
            return self._stdout.rest(lines, self._loop.time())
        if self._lines.oversized:
            for start in self._lines.oversized:
                self._link.oversized(start)
            self._lines.oversized.clear()
        held = self._lines.held
        if (held > MIN_COUNTED or self._reservation.size) and not self._reservation.try_resize(held):
            self._drop()
        if self._lines.is_endless:
            self._link.lost(BackendProtocolError(self._link.backend, "it writes a line that does not end"))
        return self._stdout.rest(lines, self._loop.time())

    def _drop(self) -> None:
        """There is no room for the message that comes in: its caller is told so."""
        pending = self._link.pending.get(number_in(self._lines.skip()))
        self._reservation.release()
        if pending is not None:
            self._link.fail(pending, AnswerDropped(self._link.backend))

    @property
    def is_flooded(self) -> bool:
        """Whether the link was ended for what the child writes: the rest of it must not cost anything."""
        ended = self._link.ended
        return ended.done() and isinstance(ended.result(), BackendProtocolError)

    def closed(self, fd: int) -> None:
        """The child, and whoever inherited it, closed its stdout or stderr."""
        self._open.discard(fd)
        if self._has_exited:
            self._settle()
        elif fd == 1:  # usually its exit follows at once, and knows the better reason
            reason = BackendLost(self._link.backend, "the server closed its stdout")
            self._loop.call_later(EXIT_GRACE, self._link.lost, reason)

    def ended(self) -> None:
        """The child has exited; what it wrote before may still be on its way."""
        self._has_exited = True
        self._settle()
        self._loop.call_later(EXIT_GRACE, self._give_up)

    def _give_up(self) -> None:
        self._open.clear()
        self._settle()

    def _settle(self) -> None:
        if not self._open and not self.exited.done():
            self._reservation.release()
            self.exited.set_result(None)


class _Output(asyncio.Protocol):
    """A child's stdout or stderr, as the loop sees it."""

    def __init__(self, pipes: _Pipes, fd: int) -> None:
        self._pipes = pipes
        self._fd = fd
        self._transport: asyncio.ReadTransport

    def __repr__(self) -> str:
        return f"<_Output {self._fd} of {self._pipes!r}>"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.ReadTransport, transport)

    def data_received(self, data: bytes) -> None:
        rest = self._pipes.received(self._fd, data)
        if rest or self._pipes.is_flooded:
            self._transport.pause_reading()
            asyncio.get_running_loop().call_later(rest, self._go_on)

    def _go_on(self) -> None:
        if not self._transport.is_closing() and not self._pipes.is_flooded:
            self._transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self._pipes.closed(self._fd)


class _Input(asyncio.BaseProtocol):
    """A child's stdin, as the loop sees it."""

    def __init__(self) -> None:
        self.is_open = False

    def __repr__(self) -> str:
        return f"<_Input {'open' if self.is_open else 'closed'}>"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.is_open = True

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_open = False


class StdioTransport:
    """A running child process that carries one link."""

    def __init__(self, link: Link, process: Popen[bytes], groups: Groups, pipes: _Pipes, tail: StderrTail) -> None:
        self._link = link
        self._process = process
        self._groups = groups
        self._pipes = pipes
        self._tail = tail
        self.pid = process.pid
        self._input = _Input()
        self._stdin: asyncio.WriteTransport
        self._outputs: list[asyncio.BaseTransport] = []
        self._waiting = [pipe for pipe in (process.stdin, process.stdout, process.stderr) if pipe is not None]
        self._is_closing = False
        pipes.exited.add_done_callback(self._on_exit)

    def __repr__(self) -> str:
        return f"<StdioTransport {self._link.backend} pid={self.pid}>"

    async def connect(self) -> None:
        """Take the child's pipes into the loop, and notice its end."""
        loop, pipes, waiting = asyncio.get_running_loop(), self._pipes, self._waiting
        on_end(self._process, pipes.ended)
        self._stdin, _ = await loop.connect_write_pipe(lambda: self._input, waiting.pop(0))
        for protocol in (_Output(pipes, 1), _Output(pipes, 2)):
            output, _ = await loop.connect_read_pipe(partial(_same, protocol), waiting.pop(0))
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
        """Close stdin, then SIGTERM, then SIGKILL the whole process group; every wait is bounded."""
        self._is_closing = True
        self._link.lost(BackendUnavailable(self._link.backend, "the connection was closed"))
        self._stdin.close()
        if not await self._gone(STDIN_GRACE):
            self._groups.terminate(self.pid)
            await self._gone(TERM_GRACE)
        await self._end_group()
        self._release()

    async def kill(self) -> None:
        """End it without a word; for one that could not be taken into the loop."""
        self._groups.end(self.pid)
        await self._gone(KILL_GRACE)
        self._release()

    def _release(self) -> None:
        if self._input.is_open:
            self._stdin.abort()  # what it never read
        for output in self._outputs:
            output.close()
        for pipe in self._waiting:
            pipe.close()
        self._groups.forget(self.pid)

    async def _gone(self, seconds: float) -> bool:
        done, _ = await asyncio.wait({self._pipes.exited}, timeout=seconds)
        return bool(done)

    async def _end_group(self) -> None:
        """Whoever of the group outlived the child (a wrapper's grandchild) gets SIGTERM, then SIGKILL."""
        if not self._groups.terminate(self.pid):
            return
        for _ in range(int(TERM_GRACE / 0.05)):
            if not self._groups.lives(self.pid):
                return
            await asyncio.sleep(0.05)  # a group's end cannot be waited for, only asked
        self._groups.end(self.pid)
        await self._gone(KILL_GRACE)

    def _write(self, body: bytes) -> None:
        if self._stdin.is_closing():
            raise BackendUnavailable(self._link.backend, "the server closed its stdin").unsent()
        if self._stdin.get_write_buffer_size() > self._link.write_limit:
            raise BackendUnavailable(self._link.backend, "the server does not read its input; too much is waiting")
        self._stdin.write(one_line(body) + b"\n")

    def _on_exit(self, _: asyncio.Future[None]) -> None:
        code = self._process.poll()
        if not self._is_closing:
            self._tail.exit = ending(code)
        self._link.lost(BackendCrashed(self._link.backend, exit_reason(code, self._tail)))


def _same(protocol: _Output) -> _Output:
    return protocol


def exit_reason(code: int | None, tail: StderrTail) -> str:
    """Why a server left, in words, with the last thing it said."""
    what = ending(code)
    return f"{what}; its last words: {tail.last()}" if tail.last() else what


def ending(code: int | None) -> str:
    """How a server left, in words."""
    if code is not None and code < 0:
        with contextlib.suppress(ValueError):
            return f"the server was killed by {signal.Signals(-code).name}"
    return f"the server exited with status {code}"


def _missing(program: str) -> str:
    """Why a program cannot be the command, in words."""
    path = pathlib.Path(program)
    if path.name == program:
        return f"the command {program!r} was not found on PATH: install it, or give its full path"
    if path.is_dir():
        return f"the command {program!r} is a directory"
    if path.exists():
        return f"the command {program!r} is not executable"
    return f"the command {program!r} was not found: install it, or correct its path"


def _located(backend: str, command: StdioCommand) -> str:
    """The program's full path, its working directory checked, since both would fail with the same words later."""
    program = shutil.which(command.program, path=command.env.get("PATH"))
    if program is None:
        raise BackendUnavailable(backend, _missing(command.program))
    if command.cwd is not None and not pathlib.Path(command.cwd).is_dir():
        raise BackendUnavailable(backend, f"its working directory {command.cwd!r} does not exist")
    return program


async def open_stdio(
    link: Link,
    command: StdioCommand,
    *,
    tail: StderrTail,
    limit: int,
    groups: Groups | None = None,
    budget: MemoryBudget | None = None,
) -> StdioTransport:
    """Start the server in a process group of its own.

    Args:
        groups: where the group belongs; without it nobody ends it if we are killed.
        budget: what large messages take their room from.

    Raises:
        BackendUnavailable: it cannot be started; the message says what to do.
    """
    program = _located(link.backend, command)
    groups = groups or Groups(guarded=False)
    try:
        process = groups.begin([program, *command.args], env=command.env, cwd=command.cwd, ceilings=command.ceilings)
    except (OSError, SubprocessError, ValueError) as exc:  # ValueError: text that no system call takes
        odd = "its arguments or its environment cannot be passed on" if isinstance(exc, ValueError) else str(exc)
        reason = getattr(exc, "strerror", None) or odd
        raise BackendUnavailable(link.backend, f"{command.program!r} could not be started: {reason}") from exc
    transport = StdioTransport(link, process, groups, _Pipes(link, tail, limit, budget or MemoryBudget()), tail)
    with anyio.CancelScope(shield=True):  # it takes no time, and half of it would leave pipes to nobody
        try:
            await transport.connect()
        except BaseException:
            await transport.kill()
            raise
    return transport
