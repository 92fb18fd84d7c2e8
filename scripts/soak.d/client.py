"""A client for load: one connection, one request at a time, as little work as possible. Judges nothing."""

import asyncio
import json
from typing import Any

from tests.peers.http_caller import HttpCaller
from tests.peers.http_wire import Headers, parse_event
from tests.peers.message import LATEST_HANDSHAKE, META, MODERN_VERSION

_INFO = {"name": "soak", "version": "1"}
_META = {META + "protocolVersion": MODERN_VERSION, META + "clientInfo": _INFO, META + "clientCapabilities": {}}
_HELLO = {"protocolVersion": LATEST_HANDSHAKE, "capabilities": {}, "clientInfo": _INFO}
_PLAIN = (("Content-Type", "application/json"), ("Accept", "application/json, text/event-stream"))
ANSWER_SECONDS = 90.0  # bound of an answer: longer than any deadline of the manifold's own


class LoadClient:
    """`async with LoadClient(port) as client: await client.call(...)`; reconnects when the connection was closed."""

    def __init__(self, port: int) -> None:
        self.session = ""
        self._caller = HttpCaller(f"http://127.0.0.1:{port}/mcp", token=None)
        self._number = 0

    async def __aenter__(self) -> "LoadClient":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection, whatever is in flight."""
        await self._caller.close()

    async def call(self, tool: str, **arguments: object) -> dict[str, Any]:
        """The response message to a `tools/call`, with the HTTP status as `status`."""
        return await self.request("tools/call", {"name": tool, "arguments": arguments}, tool)

    async def request(self, method: str, params: dict[str, Any], name: str = "") -> dict[str, Any]:
        """The response message to a request: in the session if there is one, else in 2026-07-28."""
        self._number += 1
        headers = self._session_headers() if self.session else ()
        if not self.session and method != "initialize":
            params = {**params, "_meta": _META}
            headers = (("MCP-Protocol-Version", MODERN_VERSION), ("Mcp-Method", method))
            headers += (("Mcp-Name", name),) if name else ()
        message = {"jsonrpc": "2.0", "id": self._number, "method": method, "params": params}
        return await self._exchange("POST", headers, message)

    async def connect(self) -> None:
        """Open a session of the handshake era. Raises ConnectionError: it was refused."""
        answer = await self.request("initialize", _HELLO)
        if "result" not in answer:
            raise ConnectionError(f"no session: {answer}")
        note = {"jsonrpc": "2.0", "method": "notifications/initialized"}
        await self._exchange("POST", self._session_headers(), note)

    async def leave(self) -> int:
        """End the session; the HTTP status."""
        status: int = (await self._exchange("DELETE", self._session_headers(), None))["status"]
        self.session = ""
        return status

    def _session_headers(self) -> Headers:
        return (("Mcp-Session-Id", self.session), ("MCP-Protocol-Version", LATEST_HANDSHAKE))

    async def _exchange(self, verb: str, headers: Headers, message: object) -> dict[str, Any]:
        body = b"" if message is None else json.dumps(message).encode()
        async with asyncio.timeout(ANSWER_SECONDS), await self._caller.send(verb, _PLAIN + headers, body) as response:
            raw = await response.body.all()
            self.session = response.get("mcp-session-id") or self.session
            if response.is_stream:
                raw = [found.data for event in raw.split(b"\r\n\r\n") if (found := parse_event(event)).data][-1]
            try:
                return {"status": response.status, **json.loads(raw)}
            except (ValueError, TypeError):
                return {"status": response.status, "error": {"code": 0, "message": raw.decode(errors="replace")[:200]}}
