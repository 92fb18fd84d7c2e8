"""A client for load: one connection, one request at a time, as little work as possible. Judges nothing."""

import asyncio
import json
from typing import Any

MODERN = "2026-07-28"
HANDSHAKE = "2025-11-25"
_INFO = {"name": "soak", "version": "1"}
_META = {
    "io.modelcontextprotocol/protocolVersion": MODERN,
    "io.modelcontextprotocol/clientInfo": _INFO,
    "io.modelcontextprotocol/clientCapabilities": {},
}
_HELLO = {"protocolVersion": HANDSHAKE, "capabilities": {}, "clientInfo": _INFO}
BOUND = 90.0
"""Seconds an answer may take: longer than any time the manifold itself gives anybody."""


class Client:
    """`async with Client(port) as client: await client.call(...)`; opens its connection again when it was closed."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.session = ""
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._number = 0

    async def __aenter__(self) -> "Client":
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Leave, whatever is in flight."""
        if self._writer is not None:
            self._writer.close()
        self._writer = None

    async def call(self, tool: str, **arguments: object) -> dict[str, Any]:
        """The answer to a `tools/call`: the message, result or error."""
        params: dict[str, Any] = {"name": tool, "arguments": arguments}
        return await self.request("tools/call", params, tool)

    async def request(self, method: str, params: dict[str, Any], name: str = "") -> dict[str, Any]:
        """The answer to a request, in the session if there is one, else in 2026-07-28."""
        self._number += 1
        headers = [f"Mcp-Session-Id: {self.session}", f"MCP-Protocol-Version: {HANDSHAKE}"]
        if not self.session and method != "initialize":
            params = {**params, "_meta": _META}
            headers = [f"MCP-Protocol-Version: {MODERN}", f"Mcp-Method: {method}"]
            headers += [f"Mcp-Name: {name}"] if name else []
        elif not self.session:
            headers = []
        message = {"jsonrpc": "2.0", "id": self._number, "method": method, "params": params}
        status, received, body = await self._exchange("POST", json.dumps(message).encode(), headers)
        self.session = received.get("mcp-session-id", self.session)
        return _message(status, received, body)

    async def connect(self) -> None:
        """Begin a session of the handshake era."""
        answer = await self.request("initialize", _HELLO)
        if "result" not in answer:
            raise ConnectionError(f"no session: {answer}")
        note = json.dumps({"jsonrpc": "2.0", "method": "notifications/initialized"}).encode()
        await self._exchange("POST", note, self._session_headers())

    async def leave(self) -> int:
        """End the session; the status."""
        status, _, _ = await self._exchange("DELETE", b"", self._session_headers())
        self.session = ""
        return status

    async def get(self, path: str) -> bytes:
        """A page beside the conversation."""
        return (await self._exchange("GET", b"", [], path))[2]

    def _session_headers(self) -> list[str]:
        return [f"Mcp-Session-Id: {self.session}", f"MCP-Protocol-Version: {HANDSHAKE}"]

    async def _exchange(
        self, verb: str, body: bytes, headers: list[str], path: str = "/mcp"
    ) -> tuple[int, dict[str, str], bytes]:
        lines = [f"{verb} {path} HTTP/1.1", f"Host: 127.0.0.1:{self.port}", f"Content-Length: {len(body)}"]
        lines += ["Content-Type: application/json", "Accept: application/json, text/event-stream", *headers, "", ""]
        try:
            async with asyncio.timeout(BOUND):
                if self._writer is None or self._reader is None or self._writer.is_closing() or self._reader.at_eof():
                    self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self.port, limit=2**26)
                self._writer.write("\r\n".join(lines).encode() + body)
                return await _response(self._reader)
        except BaseException:
            self.close()
            raise


async def _response(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
    if headers.get("transfer-encoding") == "chunked":
        parts = []
        while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
            parts.append(await reader.readexactly(size))
            await reader.readexactly(2)
        await reader.readexactly(2)
        body = b"".join(parts)
    else:
        body = await reader.readexactly(int(headers.get("content-length", 0)))
    return int(head[0].split(" ")[1]), headers, body


def _message(status: int, headers: dict[str, str], body: bytes) -> dict[str, Any]:
    """The last message of a body, which is JSON or a stream of events; what is neither is an error with its status."""
    if headers.get("content-type", "").startswith("text/event-stream"):
        body = [line[5:] for line in body.split(b"\n") if line.startswith(b"data:") and len(line) > 6][-1]
    try:
        return {"status": status, **json.loads(body)}
    except (ValueError, TypeError):
        return {"status": status, "error": {"code": 0, "message": body.decode(errors="replace")[:200]}}
