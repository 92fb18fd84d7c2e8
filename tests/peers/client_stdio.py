"""Raw clients of one message a line, both eras: over a child's stdio, or to a front in this process.

Start the child and end it and its group; know nothing of what serves in this process.
"""

import asyncio
import os
import signal
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from tests.peers import BOUND, message
from tests.peers.client import Client, Params, PendingRequest, raw_params

_LIMIT: Final = 2**30


class LineClient(Client):
    """The common part of line clients: one stream to write, one to read."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._writer: asyncio.StreamWriter | None = None
        self.lines: list[bytes] = []
        """Everything on stdout, line by line, without line ends."""
        self.stdout_ended = asyncio.Event()

    async def send_line(self, line: bytes) -> None:
        """Write a line as it is.

        Raises:
            ConnectionError: the other side does not read any more.
        """
        assert self._writer is not None, "not started"
        self._writer.write(line + b"\n")
        await self._writer.drain()

    async def notify(self, method: str, params: Params = None) -> None:
        """Send a notification."""
        await self.send_line(message.request(b"", method, raw_params(params)))

    async def watch(self) -> None:
        """Handshake era: nothing to open. Modern: listen to every list."""
        if self.is_modern:
            await (await self.begin("subscriptions/listen", {"notifications": dict(message.EVERY_CHANGE)})).heard()

    async def _send(self, pending: PendingRequest) -> None:
        await self.send_line(message.request(pending.id, pending.method, pending.params))

    async def _respond(self, response: bytes) -> None:
        await self.send_line(response)

    async def _read(self, reader: asyncio.StreamReader) -> None:
        while line := await reader.readline():
            self.lines.append(line.rstrip(b"\r\n"))
            self._take(self.lines[-1])
        self.stdout_ended.set()
        for pending in self.pending.values():
            pending.fail(ConnectionResetError("the other side's output ended"))


class PairClient(LineClient):
    """`async with PairClient() as c:` to something in this process that takes `c.theirs` as its stdin and stdout.

    The two ends are sockets, as they are for the children of some clients.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.theirs = (-1, -1)
        """The descriptors that the server reads and writes, and closes."""

    async def __aenter__(self) -> "PairClient":
        ours, theirs = socket.socketpair()
        reader, self._writer = await asyncio.open_connection(sock=ours, limit=_LIMIT)
        self.theirs = (theirs.fileno(), os.dup(theirs.detach()))
        self._start(self._read(reader))
        return self

    def close_stdin(self) -> None:
        """Close the sending direction."""
        assert self._writer is not None, "not started"
        self._writer.write_eof()

    async def close(self) -> None:
        """Hang up."""
        await self._end()
        if self._writer is not None:
            self._writer.close()
            self._writer = None


class StdioClient(LineClient):
    """`async with StdioClient(argv) as c: await c.connect(version)`."""

    def __init__(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self._argv = list(argv)
        self._env = None if env is None else dict(env)
        self._cwd = cwd
        self._process: asyncio.subprocess.Process | None = None
        self.stderr = bytearray()

    @property
    def process(self) -> asyncio.subprocess.Process:
        """The child."""
        assert self._process is not None, "not started"
        return self._process

    async def __aenter__(self) -> "StdioClient":
        await self.start()
        return self

    async def start(self) -> None:
        """Start the child, in a process group of its own."""
        pipe = asyncio.subprocess.PIPE
        options: dict[str, Any] = {"stdin": pipe, "stdout": pipe, "stderr": pipe, "start_new_session": True}
        self._process = await asyncio.create_subprocess_exec(
            *self._argv, env=self._env, cwd=self._cwd, limit=_LIMIT, **options
        )
        assert self._process.stdout is not None
        self._writer = self._process.stdin
        self._start(self._read(self._process.stdout))
        self._start(self._read_errors())

    async def wait_ended(self) -> int:
        """The exit code, when the child ended by itself."""
        async with asyncio.timeout(BOUND):
            await self.stdout_ended.wait()
            return await self.process.wait()

    def close_stdin(self) -> None:
        """End the child's stdin."""
        if self.process.stdin is not None:
            self.process.stdin.close()

    async def close(self) -> None:
        """End stdin, wait, and kill what is left of the group."""
        if self._process is None:
            return
        self.close_stdin()
        try:
            async with asyncio.timeout(BOUND):
                await self._process.wait()
        except TimeoutError:
            self.kill()
            await self._process.wait()
        finally:
            self.kill()
            await self._end()
            self._process._transport.close()  # type: ignore[attr-defined]  # a grandchild may hold the pipes open
            self._process = self._writer = None

    def kill(self) -> None:
        """Kill the child and its group."""
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return

    async def _read_errors(self) -> None:
        stderr = self.process.stderr
        assert stderr is not None
        while data := await stderr.read(65536):
            self.stderr += data
