"""A server whose answers are large, and clients that read them, both as quick as sockets are. Judges nothing."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from tests.faults.programs import Program
from tests.peers.message import LATEST_HANDSHAKE

_GREETING = {
    "protocolVersion": LATEST_HANDSHAKE,
    "capabilities": {"tools": {}},
    "serverInfo": {"name": "heavy", "version": "1"},
}
_TOOLS = {"tools": [{"name": "big", "inputSchema": {"type": "object"}}]}


@asynccontextmanager
async def heavy_server(size: int) -> AsyncIterator[str]:
    """The URL of a Streamable HTTP server with one tool, `big`, whose answer has a text of `size` bytes."""
    text = b'{"content":[{"type":"text","text":"%b"}]}' % (b"x" * size)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                await _answer(await _request(reader), writer, text)
        except (asyncio.IncompleteReadError, OSError):
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/mcp"
    finally:
        server.close()


async def _request(reader: asyncio.StreamReader) -> Any:
    """The message of the next request; None for one without a body."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    _, found, rest = head.partition(b"content-length: ")
    body = await reader.readexactly(int(rest.partition(b"\r\n")[0])) if found else b""
    return json.loads(body) if body else None


async def _answer(message: Any, writer: asyncio.StreamWriter, text: bytes) -> None:
    method = "" if message is None else str(message["method"])
    if message is None:
        head, body = b"405 Method Not Allowed", b""
    elif "id" not in message:
        head, body = b"202 Accepted", b""
    else:
        known = {"initialize": json.dumps(_GREETING).encode(), "tools/list": json.dumps(_TOOLS).encode()}
        result = text if method == "tools/call" else known.get(method, b"{}")
        head, body = b"200 OK", b'{"jsonrpc":"2.0","id":%d,"result":%b}' % (message["id"], result)
    writer.write(b"HTTP/1.1 %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % (head, len(body)))
    writer.write(body)
    await writer.drain()


async def opened(program: Program) -> str:
    """The id of a new session."""
    params = {"protocolVersion": LATEST_HANDSHAKE, "capabilities": {}, "clientInfo": {"name": "raw", "version": "1"}}
    reader, writer = await _sent(program, "initialize", params, 0, "")
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    writer.close()
    return next(line.split(": ")[1] for line in head.split("\r\n") if line.lower().startswith("mcp-session-id"))


async def ended(program: Program, session: str) -> None:
    """End a session, and with it what is kept for a client that might come back to a broken stream."""
    reader, writer = await asyncio.open_connection("127.0.0.1", program.port)
    head = f"DELETE /mcp HTTP/1.1\r\nHost: 127.0.0.1:{program.port}\r\nMcp-Session-Id: {session}\r\n"
    writer.write(f"{head}Connection: close\r\n\r\n".encode())
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 204 ")
    writer.close()


async def called(program: Program, session: str, number: int) -> tuple[int, bytes]:
    """How many bytes the answer to a call of `big` had, and how it ended."""
    reader, writer = await begun(program, session, number)
    size, end = 0, b""
    while piece := await reader.read(1 << 18):
        size += len(piece)
        end = (end + piece)[-1000:]
    writer.close()
    return size, end


async def begun(program: Program, session: str, number: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A call of `big` whose answer nobody has read yet."""
    return await _sent(program, "tools/call", {"name": "heavy__big", "arguments": {}}, number, session)


async def _sent(
    program: Program, method: str, params: Any, number: int, session: str
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    body = json.dumps({"jsonrpc": "2.0", "id": number, "method": method, "params": params})
    named = f"Mcp-Session-Id: {session}\r\n" if session else ""
    head = (
        f"POST /mcp HTTP/1.1\r\nHost: 127.0.0.1:{program.port}\r\nContent-Type: application/json\r\n"
        f"Accept: application/json, text/event-stream\r\n{named}Connection: close\r\n"
    )
    reader, writer = await asyncio.open_connection("127.0.0.1", program.port, limit=1 << 18)
    writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
    return reader, writer
