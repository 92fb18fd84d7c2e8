"""The embedding examples work as their texts say: results of several servers, and MCP below an ASGI application."""

import asyncio
import json
import sys
from collections.abc import MutableMapping
from pathlib import Path
from runpy import run_path
from typing import Any, Final

import pytest

from tests.examples.running import EXAMPLES

EMBED: Final = run_path(str(EXAMPLES / "embed.py"))
EMBED_ASGI: Final = run_path(str(EXAMPLES / "embed_asgi.py"))
INITIALIZE: Final = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}},
}


@pytest.fixture
def config(tmp_path: Path) -> str:
    """A configuration file with two of the example servers."""
    servers = {
        "convert": {"command": sys.executable, "args": [str(EXAMPLES / "convert.py")]},
        "notes": {"command": sys.executable, "args": [str(EXAMPLES / "notes.py"), "--dir", str(tmp_path / "notes")]},
    }
    file = tmp_path / "mcp.json"
    file.write_text(json.dumps({"manifold": {"remember": False}, "mcpServers": servers}), "utf-8")
    return str(file)


async def asked(app: Any, method: str, path: str, message: object = None) -> tuple[int, bytes]:
    """Status and body of an ASGI application's answer, up to its first message; the client then leaves."""
    headers = [
        (b"host", b"localhost"),
        (b"content-type", b"application/json"),
        (b"accept", b"application/json, text/event-stream"),
    ]
    kind: dict[str, Any] = {"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "scheme": "http"}
    place = {"method": method, "path": path, "raw_path": path.encode(), "root_path": "", "query_string": b""}
    answer = asyncio.get_running_loop().create_future()
    sent: list[MutableMapping[str, Any]] = []
    requests = [{"type": "http.request", "body": json.dumps(message).encode(), "more_body": False}]

    async def receive() -> MutableMapping[str, Any]:
        if requests:
            return requests.pop()
        await answer
        return {"type": "http.disconnect"}

    async def send(event: MutableMapping[str, Any]) -> None:
        sent.append(event)
        body = b"".join(each.get("body", b"") for each in sent)
        is_enough = b"}" in body or b"endpoint" in body or ("body" in event and not event.get("more_body"))
        if is_enough and not answer.done():
            answer.set_result(body)

    await app({**kind, **place, "headers": headers, "server": ("localhost", 80), "client": None}, receive, send)
    return sent[0]["status"], await answer


@pytest.mark.anyio
async def test_a_program_gets_results_of_several_servers(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    await EMBED["run"](config)
    said = capsys.readouterr().out
    assert '"convert__convert_units"' in said
    assert '"notes__add_note"' in said
    assert "26.2 mi = 42.1648128 km" in said
    assert "There are no notes." in said


@pytest.mark.anyio
async def test_a_web_application_serves_mcp_beside_its_own_pages(config: str) -> None:
    application = EMBED_ASGI["application"](config)
    async with application.router.lifespan_context(application):
        for path in ("/tools/mcp", "/tools/convert/mcp"):
            status, body = await asked(application, "POST", path, INITIALIZE)
            assert status == 200
            assert json.loads(body[body.index(b"{") :])["result"]["protocolVersion"] == "2025-11-25"
        assert (await asked(application, "GET", "/tools/health"))[0] == 200
        assert (await asked(application, "GET", "/"))[1] == b"An application with MCP at /tools/mcp\n"
        for path in ("/mcp", "/tools/elsewhere"):
            assert (await asked(application, "POST", path, INITIALIZE))[0] == 404


@pytest.mark.anyio
async def test_an_sse_stream_names_its_endpoint_below_the_mount(config: str) -> None:
    application = EMBED_ASGI["application"](config)
    async with application.router.lifespan_context(application):
        status, event = await asked(application, "GET", "/tools/convert/sse")
        assert (status, event.partition(b"?")[0]) == (200, b"event: endpoint\ndata: /tools/convert/messages")
