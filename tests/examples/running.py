"""Connects the SDK's client to an example, or runs one as a process; knows nothing of what examples do."""

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Literal, TypeVar

import anyio
from mcp import Client

from tests.peers import BOUND

EXAMPLES = Path(__file__).parents[2] / "examples"

Era = Literal["legacy", "auto"]
ERAS: tuple[Era, ...] = ("legacy", "auto")
VERSIONS: dict[Era, str] = {"legacy": "2025-11-25", "auto": "2026-07-28"}

INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}},
}

Heard = TypeVar("Heard")


class Ear:
    """Keeps what a client is told outside of results, in the order it came."""

    def __init__(self) -> None:
        self._heard: asyncio.Queue[object] = asyncio.Queue()

    async def __call__(self, message: object) -> None:
        self._heard.put_nowait(message)

    async def next(self, kind: type[Heard]) -> Heard:
        """Wait for the next message of a kind, passing over others."""
        with anyio.fail_after(BOUND):
            while not isinstance(message := await self._heard.get(), kind):
                pass
        return message


@asynccontextmanager
async def connected(server: Any, *, era: Era, **options: Any) -> AsyncIterator[Client]:
    """Open a session with a server of this process, of the era asked for."""
    async with Client(server, mode=era, read_timeout_seconds=BOUND, **options) as client:
        assert client.protocol_version == VERSIONS[era]
        yield client


@contextmanager
def process_of(name: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run an example without a client, and end it whatever happens."""
    pipe = subprocess.PIPE
    command = [sys.executable, str(EXAMPLES / name), *arguments]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, encoding="utf-8") as process:
        try:
            yield process
        finally:
            process.kill()


def send(process: subprocess.Popen[str], message: dict[str, Any]) -> None:
    """Write one message to a process."""
    assert process.stdin is not None
    process.stdin.write(json.dumps(message) + "\n")
    process.stdin.flush()


def receive(process: subprocess.Popen[str]) -> dict[str, Any]:
    """Read one message from a process; pytest's own timeout is the bound."""
    assert process.stdout is not None
    message: dict[str, Any] = json.loads(process.stdout.readline())
    return message
