"""A client that calls an ASGI application directly."""

import json
from dataclasses import dataclass
from typing import Any

from mcp_manifold.app.serving import MountedApp


@dataclass
class Response:
    """An answer of the application; status 0 until it begins."""

    status: int = 0
    body: bytes = b""

    @property
    def json(self) -> Any:
        return json.loads(self.body)


async def send(app: MountedApp, method: str, path: str, message: object = None) -> Response:
    """The response to one request; `message` is the body, as JSON."""
    body = b"" if message is None else json.dumps(message).encode()
    headers = {"host": "127.0.0.1", "accept": "application/json, text/event-stream", "content-type": "application/json"}
    response = Response()

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body}

    async def on_message(event: Any) -> None:
        response.status = event.get("status", response.status)
        response.body += event.get("body", b"")

    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 8808),
    }
    await app(scope, receive, on_message)
    return response
