"""The test's side of scripted stdio children: their command line, what they received, their controls.

The program under test starts the processes.
"""

import asyncio
import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tests.peers import BOUND
from tests.peers.face import Face
from tests.peers.recorder import received_from
from tests.peers.script import Script, offers_to

ROOT: Final = Path(__file__).resolve().parents[2]
_LIMIT: Final = 2**30


@dataclass(slots=True)
class Process:
    """One child that connected to the test."""

    pid: int
    orders: asyncio.StreamWriter = field(repr=False)
    is_alive: bool = True


class StdioBackend(Face):
    """`async with StdioBackend(script) as b:` then start `b.argv` (`b.command`, `b.args`) with `b.env` or in `b.cwd`.

    Every child that is started reports here: `Received.connection` is its index in `b.children`. Orders go to all
    children alive. Children end with this object.
    """

    cwd: Final = ROOT
    command: Final = sys.executable

    def __init__(self, script: Script) -> None:
        super().__init__(script)
        self.children: list[Process] = []
        self._server: asyncio.Server | None = None
        self._port = 0
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def env(self) -> dict[str, str]:
        """What the child's environment has to contain if it is not started in `cwd`."""
        return {"PYTHONPATH": str(ROOT)}

    @property
    def args(self) -> list[str]:
        """The arguments after the command."""
        return ["-m", "tests.peers.stdio_main", "--script", self.script.to_json(), "--control", str(self._port)]

    @property
    def argv(self) -> list[str]:
        """The whole command line."""
        return [self.command, *self.args]

    @property
    def pids(self) -> list[int]:
        """The process ids of the children alive."""
        return [child.pid for child in self.children if child.is_alive]

    async def __aenter__(self) -> "StdioBackend":
        self._server = await asyncio.start_server(self._joined, "127.0.0.1", 0, limit=_LIMIT)
        self._port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.close()
        for child in self.children:
            child.orders.close()
        async with asyncio.timeout(BOUND):
            await asyncio.gather(*self._tasks)
        if self._server is not None:
            await self._server.wait_closed()

    async def _joined(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._tasks.add(task)
        try:
            child = Process(json.loads(await reader.readline())["pid"], writer)
        except ValueError:
            writer.close()
            return
        self.children.append(child)
        self.recorder.wake()
        await self._follow(reader, child, len(self.children) - 1)
        child.is_alive = False
        self.recorder.wake()
        writer.close()

    async def _follow(self, reader: asyncio.StreamReader, child: Process, index: int) -> None:
        try:
            while (line := await reader.readline()).endswith(b"\n"):
                self.recorder.add(received_from(line, index))
                child.orders.write(b'{"do":"seen"}\n')
        except ConnectionError:
            return

    async def wait_child(self, count: int = 1) -> Process:
        """The `count`-th child ever started, once it reported in."""
        await self.recorder.wait_until(lambda: len(self.children) >= count, f"{count} children")
        return self.children[count - 1]

    async def wait_all_gone(self) -> None:
        """Wait until no child is alive."""
        await self.recorder.wait_until(lambda: not self.pids, "the end of all children")

    async def exit(self, code: int = 0) -> None:
        """End the children alive at once, with this exit code."""
        await self._order({"do": "exit", "code": code})

    async def _order(self, order: dict[str, Any]) -> None:
        if "offers" in order:
            order = {**order, "offers": offers_to(order["offers"])}
        for child in self.children:
            if child.is_alive:
                child.orders.write(json.dumps(order).encode() + b"\n")
                await child.orders.drain()
