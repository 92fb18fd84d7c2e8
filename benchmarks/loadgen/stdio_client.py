"""A stdio client: starts the program and keeps several requests in flight."""

import asyncio
import os
import re
import subprocess
from collections.abc import Callable
from typing import Final, cast

from benchmarks.loadgen.messages import INITIALIZED
from benchmarks.loadgen.worker import Load, Worker

_ID: Final = re.compile(rb'"id":\s*(\d+)')
_PATIENCE: Final = 3.0  # seconds for a program to exit after the end of stdin


class StdioClient(asyncio.SubprocessProtocol):
    """One client and its program."""

    def __init__(self, load: Load) -> None:
        self.load = load
        self.pid = 0
        self.workers: list[Worker] = []
        self._waiting: dict[int, Callable[[bytes], None]] = {}
        self._parts: list[bytes] = []
        self._ended = asyncio.get_running_loop().create_future()
        self._transport: asyncio.SubprocessTransport | None = None
        self._stdin: asyncio.WriteTransport | None = None

    async def open(self) -> None:
        """Start the program and initialize a session. Raises RuntimeError: the program refused it."""
        job, loop = self.load.job, asyncio.get_running_loop()
        transport, _ = await loop.subprocess_exec(lambda: self, *job.command, cwd=job.cwd, stderr=subprocess.DEVNULL)
        self._transport = transport
        self.pid = transport.get_pid()
        if job.target_cpus:
            os.sched_setaffinity(self.pid, set(job.target_cpus))
        self._stdin = cast(asyncio.WriteTransport, transport.get_pipe_transport(0))
        answer: asyncio.Future[bytes] = loop.create_future()
        id_ = next(self.load.ids)
        self.send(id_, self.load.messages.initialize(id_), answer.set_result)
        if b'"result"' not in (body := await asyncio.wait_for(answer, job.timeout)):
            raise RuntimeError(f"initialize: {body[:300]!r}")
        self._write(INITIALIZED)
        self.workers = [Worker(self.load, self, number) for number in range(job.in_flight * job.clients)]

    async def close(self) -> None:
        """Close stdin and end the program."""
        if self._stdin is None or self._transport is None:
            return
        self._stdin.close()
        await asyncio.wait({self._ended}, timeout=_PATIENCE)
        if not self._ended.done():
            self._transport.kill()

    def emit(self, worker: Worker, body: bytes, tool: str) -> None:
        self.send(worker.id, body, worker.answered)

    def send(self, id_: int, body: bytes, done: Callable[[bytes], None]) -> None:
        """Send a request; `done` receives the line of its answer."""
        self._waiting[id_] = done
        self._write(body)

    def _write(self, body: bytes) -> None:
        assert self._stdin is not None, "it is started"
        self._stdin.write(body + b"\n")

    # asyncio.SubprocessProtocol

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        self._parts.append(data)
        if fd != 1 or b"\n" not in data:
            return
        *lines, rest = b"".join(self._parts).split(b"\n")
        self._parts = [rest] if rest else []
        for line in lines:
            found = _ID.search(line, 0, 200) or _ID.search(line, max(0, len(line) - 200))
            done = self._waiting.pop(int(found[1]), None) if found else None
            if done is not None:
                done(line)

    def process_exited(self) -> None:
        if not self._ended.done():
            self._ended.set_result(None)
        waiting, self._waiting = self._waiting, {}
        for done in waiting.values():
            done(b"the program ended")
