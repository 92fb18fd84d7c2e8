"""The lower bound for stdio servers: HTTP on a bare uvloop protocol, and one child process per server.

    python -m benchmarks.limits.stdio_hop --port 9000 --config mcp.json

It parses and writes each message once in each direction and assigns its own request ids. It checks nothing else.
"""

import argparse
import asyncio
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import orjson
import uvloop

_TAKEN: Final = b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n"
_REFUSED: Final = b"HTTP/1.1 405 Method Not Allowed\r\ncontent-length: 0\r\n\r\n"


class Child(asyncio.SubprocessProtocol):
    """One server's process and its pending requests."""

    def __init__(self) -> None:
        self._waiting: dict[int, tuple[Any, Callable[[bytes], None]]] = {}
        self._parts: list[bytes] = []
        self._ids = itertools.count(1)
        self.stdin: Any = None

    def ask(self, message: dict[str, Any], done: Callable[[bytes], None]) -> None:
        """Forward a request."""
        id_ = next(self._ids)
        self._waiting[id_] = (message["id"], done)
        message["id"] = id_
        self.stdin.write(orjson.dumps(message) + b"\n")

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        self._parts.append(data)
        if fd != 1 or b"\n" not in data:
            return
        *lines, rest = b"".join(self._parts).split(b"\n")
        self._parts = [rest] if rest else []
        for line in lines:
            message = orjson.loads(line)
            message["id"], done = self._waiting.pop(message["id"])
            done(orjson.dumps(message))


class Front(asyncio.Protocol):
    """One client's connection."""

    def __init__(self, children: dict[str, Child]) -> None:
        self._children = children
        self._start = b""
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        data = self._start + data if self._start else data
        end = data.find(b"\r\n\r\n")
        head = data[: end + 2].lower()
        at = head.find(b"\r\ncontent-length:") + 17
        size = int(head[at : head.find(b"\r\n", at)]) if at > 16 else 0
        if end < 0 or len(data) < end + 4 + size:
            self._start = data
            return
        self._start = b""
        if head.startswith(b"post"):
            self._ask(data[end + 4 : end + 4 + size])
        else:
            self._transport.write(_REFUSED)

    def _ask(self, body: bytes) -> None:
        message = orjson.loads(body)
        if "id" not in message:
            self._transport.write(_TAKEN)
            return
        child = next(iter(self._children.values()))
        if message["method"] == "tools/call":
            name, _, tool = message["params"]["name"].partition("__")
            child = self._children[name]
            message["params"]["name"] = tool
        child.ask(message, self._answer)

    def _answer(self, body: bytes) -> None:
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
        self._transport.write(head + body)


async def _serve(port: int, servers: dict[str, Any]) -> None:
    loop = asyncio.get_running_loop()
    children: dict[str, Child] = {}
    for name, server in servers.items():
        transport, child = await loop.subprocess_exec(Child, server["command"], *server["args"])
        child.stdin = transport.get_pipe_transport(0)
        children[name] = child
    await loop.create_server(lambda: Front(children), "127.0.0.1", port, backlog=1024)
    await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--config", type=Path, required=True)
    given = parser.parse_args()
    uvloop.run(_serve(given.port, json.loads(given.config.read_text())["mcpServers"]))


if __name__ == "__main__":
    main()
