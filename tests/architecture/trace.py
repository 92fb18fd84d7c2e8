"""The files and functions of ours that one warm `tools/call` enters, from an HTTP client to a stdio server."""

import asyncio
import json
import os
import sys
import tempfile
from pathlib import Path
from types import FrameType
from typing import Final, NamedTuple

import mcp_manifold
from mcp_manifold import Manifold
from tests.architecture.source import ROOT
from tests.peers.clients import LATEST_HANDSHAKE, HttpClient

_OURS: Final = str(Path(mcp_manifold.__file__).parent) + os.sep
_CALL: Final = {"method": "tools/call", "params": {"name": "e__echo", "arguments": {"text": "hello"}}}
_SERVER: Final = {
    "command": sys.executable,
    "args": ["-m", "tests.peers.stdio_main", "--script", "echo"],
    "cwd": str(ROOT),
}
_WARM_UP: Final = 5  # calls before the one that are traced: heads are known and lazy modules imported by then
_CALLS: Final = 5  # traced calls, of which the shortest counts: a timer of the connection may fire during the others


class Trace(NamedTuple):
    """The functions entered, in order, as (file, qualified name)."""

    entered: tuple[tuple[str, str], ...]

    @property
    def files(self) -> set[str]:
        """The files entered."""
        return {file for file, _ in self.entered}

    def __str__(self) -> str:
        functions = len(set(self.entered))
        return f"tools/call: {len(self.files)} files, {functions} functions, {len(self.entered)} calls"


async def trace() -> Trace:
    """Serve one stdio server over HTTP, warm the path up, and trace one call."""
    with tempfile.TemporaryDirectory() as folder:
        config = {"mcpServers": {"e": _SERVER}, "manifold": {"port": 0, "stateDir": folder}}
        listening: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        async with Manifold.from_config(config) as manifold:
            serving = asyncio.create_task(manifold.serve_http(ready=lambda _, port: listening.set_result(port)))
            port = await listening
            await manifold.settle()
            try:
                async with HttpClient(f"http://127.0.0.1:{port}/mcp") as client:
                    return await _traced(client)
            finally:
                manifold.stop()
                await serving


async def _traced(client: HttpClient) -> Trace:
    await client.connect(LATEST_HANDSHAKE)
    for number in range(_WARM_UP):
        await _call(client, number)
    traces = [await _trace_call(client, number) for number in range(_CALLS)]
    return min(traces, key=lambda found: len(found.entered))


async def _call(client: HttpClient, number: int) -> bytes:
    """The answer to a call with spaces in it, as most clients write it."""
    return (await client.post(json.dumps({"jsonrpc": "2.0", "id": 100 + number, **_CALL}))).body


async def _trace_call(client: HttpClient, number: int) -> Trace:
    entered: list[tuple[str, str]] = []

    def profile(frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(_OURS):
            entered.append((code.co_filename.removeprefix(_OURS), code.co_qualname))

    sys.setprofile(profile)
    try:
        answer = await _call(client, _WARM_UP + number)
    finally:
        sys.setprofile(None)
    if b"hello" not in answer:
        raise RuntimeError(f"the call failed: {answer[:200]!r}")
    return Trace(tuple(entered))


if __name__ == "__main__":
    found = asyncio.run(trace())
    print(found)
    if "-v" in sys.argv:
        print("\n".join(f"  {file}  {name}" for file, name in found.entered))
