"""A blocking Streamable HTTP client for everything but the load: readiness and first lists."""

import http.client
import json
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

_VERSION = "2025-06-18"


class BlockingClient:
    """One session, as a context manager."""

    def __init__(self, url: str, headers: Mapping[str, str], *, timeout: float) -> None:
        parts = urlsplit(url)
        self._path = parts.path
        self._connection = http.client.HTTPConnection(parts.netloc, timeout=timeout)
        self._headers = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream", **headers}
        self._deadline = time.perf_counter() + timeout
        self._id = 0

    def __enter__(self) -> "BlockingClient":
        """Open the session.

        Raises:
            RuntimeError: the server refused it.
            OSError: no connection, or no answer in time.
        """
        try:
            info = {"name": "benchmark", "version": "1"}
            self.ask("initialize", {"protocolVersion": _VERSION, "capabilities": {}, "clientInfo": info})
            self._headers["MCP-Protocol-Version"] = _VERSION
            self._post({"jsonrpc": "2.0", "method": "notifications/initialized"})
        except BaseException:
            self._connection.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def tools(self) -> list[str]:
        """The names of all tools."""
        names: list[str] = []
        cursor = None
        while True:
            listed = self.ask("tools/list", {"cursor": cursor} if cursor else {})
            names += [tool["name"] for tool in listed["tools"]]
            cursor = listed.get("nextCursor")
            if not cursor:
                return names

    def ask(self, method: str, params: Mapping[str, Any]) -> dict[str, Any]:
        """The result of a request."""
        self._id += 1
        body = self._post({"jsonrpc": "2.0", "id": self._id, "method": method, "params": params})
        found = [json.loads(text) for text in _messages(body)]
        answer: dict[str, Any] = next(message for message in found if message.get("id") == self._id)
        if "result" not in answer:
            raise RuntimeError(f"{method}: {answer}")
        result: dict[str, Any] = answer["result"]
        return result

    def get(self, path: str) -> str:
        """The body of another page of the same server."""
        self._connection.request("GET", path, headers=self._headers)
        return self._connection.getresponse().read().decode()

    def _post(self, message: Mapping[str, Any]) -> bytes:
        self._connection.request("POST", self._path, json.dumps(message), self._headers)
        response = self._connection.getresponse()
        body = b""
        while chunk := response.read1(1 << 20):  # comments of a stream must not extend the timeout
            body += chunk
            if time.perf_counter() > self._deadline:
                raise TimeoutError("no answer in time")
        response.read()
        if response.status not in (200, 202, 204):
            raise RuntimeError(f"HTTP {response.status} {body[:200]!r}")
        if session := response.getheader("mcp-session-id"):
            self._headers["Mcp-Session-Id"] = session
        return body


def _messages(body: bytes) -> list[bytes]:
    if body.lstrip()[:1] == b"{":
        return [body]
    return [line[5:] for line in body.splitlines() if line.startswith(b"data:") and line[5:].strip()]
