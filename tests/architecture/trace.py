"""The files and functions of ours that one warm `tools/call` enters, from an HTTP client to a stdio server."""

import asyncio
import json
import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import Any, Final, NamedTuple

import mcp_manifold
from mcp_manifold import Manifold

_OURS: Final = str(Path(mcp_manifold.__file__).parent) + os.sep
_VERSION: Final = "2025-11-25"
_SERVER: Final = f"""
import json, sys
RESULTS = {{
    "initialize": {{"protocolVersion": "{_VERSION}", "capabilities": {{"tools": {{}}}},
                    "serverInfo": {{"name": "echo", "version": "1"}}}},
    "tools/list": {{"tools": [{{"name": "echo", "inputSchema": {{"type": "object"}}}}]}},
    "tools/call": {{"content": [{{"type": "text", "text": "hello"}}]}},
}}
for line in sys.stdin:
    message = json.loads(line)
    if "id" in message:
        result = RESULTS.get(message["method"], {{}})
        print(json.dumps({{"jsonrpc": "2.0", "id": message["id"], "result": result}}), flush=True)
"""
_WARM_UP: Final = 5
"""Calls before the one that are traced: heads are known and lazy modules imported by then."""
_CALLS: Final = 5
"""Traced calls, of which the shortest counts: a timer of the connection may fire during the others."""


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


class _Client:
    """A client of the HTTP endpoint on one kept connection, which always sends the same head."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._session = ""

    def __repr__(self) -> str:
        return f"<_Client session={self._session!r}>"

    async def post(self, message: Mapping[str, Any]) -> bytes:
        """Send a message; the body of its response."""
        body = json.dumps({"jsonrpc": "2.0", **message}).encode()
        head = (
            "POST /mcp HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            f"Accept: application/json, text/event-stream\r\n{self._session}Content-Length: {len(body)}\r\n\r\n"
        )
        self._writer.write(head.encode() + body)
        lines = (await self._reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        if "mcp-session-id" in fields:
            self._session = f"Mcp-Session-Id: {fields['mcp-session-id']}\r\nMCP-Protocol-Version: {_VERSION}\r\n"
        return await self._reader.readexactly(int(fields.get("content-length", 0)))

    async def call(self, id_: int) -> bytes:
        """Call the tool."""
        return await self.post({"id": id_, "method": "tools/call", "params": {"name": "e__echo", "arguments": {}}})

    def close(self) -> None:
        """Close the connection."""
        self._writer.close()


async def trace() -> Trace:
    """Serve one stdio server over HTTP, warm the path up, and trace one call."""
    server = {"command": sys.executable, "args": ["-u", "-c", _SERVER]}
    with tempfile.TemporaryDirectory() as folder:
        config = {"mcpServers": {"e": server}, "manifold": {"port": 0, "stateDir": folder}}
        listening: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        async with Manifold.from_config(config) as manifold:
            serving = asyncio.create_task(manifold.serve_http(ready=lambda _, port: listening.set_result(port)))
            port = await listening
            await manifold.settle()
            client = _Client(*await asyncio.open_connection("127.0.0.1", port))
            try:
                return await _traced(client)
            finally:
                client.close()
                manifold.stop()
                await serving


async def _traced(client: _Client) -> Trace:
    params = {"protocolVersion": _VERSION, "capabilities": {}, "clientInfo": {"name": "trace", "version": "1"}}
    await client.post({"id": 0, "method": "initialize", "params": params})
    await client.post({"method": "notifications/initialized"})
    for number in range(1, _WARM_UP + 1):
        await client.call(number)
    traces = [await _trace_call(client, _WARM_UP + 1 + number) for number in range(_CALLS)]
    return min(traces, key=lambda found: len(found.entered))


async def _trace_call(client: _Client, id_: int) -> Trace:
    entered: list[tuple[str, str]] = []

    def profile(frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(_OURS):
            entered.append((code.co_filename.removeprefix(_OURS), code.co_qualname))

    sys.setprofile(profile)
    try:
        answer = await client.call(id_)
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
