"""A scripted backend over stdio: `python -m tests.peers.stdio_main --script NAME_OR_JSON [--control N]`.

Standard library only, so that it starts quickly. What it answers is the engine's business. It ends when stdin does
(unless told otherwise), when its control connection does, and after `--lifetime` seconds in any case.
"""

import argparse
import asyncio
import json
import os
import signal
import sys
from typing import Any, Final

from tests.peers.conversation import ScriptedConversation
from tests.peers.engine import Engine
from tests.peers.recorder import PeerRecorder, Received
from tests.peers.script import Script, from_json, named, offers_from

_LIFETIME: Final = 300
_LIMIT: Final = 2**30


class Stdout:
    """The channel of a stdio conversation: one message a line."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer

    def __repr__(self) -> str:
        return "<Stdout>"

    async def send(self, message: bytes, *, final: bool = False) -> None:
        """One line."""
        await self.write(message + b"\n")

    async def write(self, data: bytes) -> None:
        """Bytes as they are."""
        self._writer.write(data)
        await self._writer.drain()

    def drop(self, code: int) -> None:
        """End the process; what the pipe took is still readable."""
        os._exit(code)


class Child:
    """The process: its engine, its conversation and its control connection."""

    def __init__(self, script: Script, control: asyncio.StreamWriter | None) -> None:
        self._control = control
        self.engine = Engine(script, PeerRecorder(self._note, keeps=False))
        self.conversation = ScriptedConversation(self.engine)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._unseen = 0
        self._seen = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Child {self.engine!r}>"

    def _note(self, item: Received) -> None:
        if self._control is not None:
            self._control.write(item.to_json().encode() + b"\n")
            self._unseen += 1

    async def _reported(self) -> None:
        """Wait until the test has seen all records: what it reads from us it finds recorded already."""
        while self._unseen:
            self._seen.clear()
            await self._seen.wait()

    async def obey(self, orders: asyncio.StreamReader) -> None:
        """Carry out orders; the end of the control connection is the end of the process."""
        while line := await orders.readline():
            order = json.loads(line)
            await self._carry_out(order)
        os._exit(0)

    async def _carry_out(self, order: dict[str, Any]) -> None:
        match order["do"]:
            case "seen":
                self._unseen -= 1
                self._seen.set()
            case "exit":
                os._exit(order["code"])
            case "set_offers":
                await self.engine.command({**order, "offers": offers_from(order["offers"])})
            case _:
                await self.engine.command(order)

    async def serve(self, lines: asyncio.StreamReader, stdout: Stdout) -> None:
        """Read messages until stdin ends."""
        self.conversation.open_standing(stdout)
        while line := await lines.readline():
            await self._take(line.rstrip(b"\r\n"), stdout)
        self._note(Received("closed"))
        await self._reported()

    async def _take(self, line: bytes, stdout: Stdout) -> None:
        pending = self.conversation.accept(line)
        await self._reported()
        if pending is not None:
            task = asyncio.create_task(self.conversation.answer(pending, stdout))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)


async def run(script: Script, port: int | None) -> None:
    """The life of the process."""
    loop = asyncio.get_running_loop()
    orders, control = await asyncio.open_connection("127.0.0.1", port) if port else (None, None)
    if control is not None:
        control.write(json.dumps({"pid": os.getpid()}).encode() + b"\n")
    child = Child(script, control)
    lines = asyncio.StreamReader(limit=_LIMIT)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    transport, protocol = await loop.connect_write_pipe(
        lambda: asyncio.StreamReaderProtocol(asyncio.StreamReader()), sys.stdout
    )
    stdout = Stdout(asyncio.StreamWriter(transport, protocol, None, loop))
    obeying = loop.create_task(child.obey(orders)) if orders is not None else None
    if script.banner:
        await stdout.write(script.banner.encode("utf-8", "surrogateescape"))
    await child.serve(lines, stdout)
    if script.ignore_eof:
        await asyncio.Event().wait()
    del obeying


def main() -> None:
    """Start as the arguments say."""
    parser = argparse.ArgumentParser(prog="tests.peers.stdio_main")
    parser.add_argument("--script", required=True, help="a name from scripts.py, or a script as JSON")
    parser.add_argument("--control", type=int, help="report to, and take orders from, this port of 127.0.0.1")
    parser.add_argument("--lifetime", type=int, default=_LIFETIME, help="seconds; 0 for ever")
    chosen = parser.parse_args()
    script = from_json(chosen.script) if chosen.script.startswith("{") else named(chosen.script)
    signal.alarm(chosen.lifetime)
    if script.ignore_sigterm:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if script.stderr:
        sys.stderr.write(script.stderr)
        sys.stderr.flush()
    if script.exit_code is not None:
        os._exit(script.exit_code)
    asyncio.run(run(script, chosen.control))
    os._exit(0)


if __name__ == "__main__":
    main()
