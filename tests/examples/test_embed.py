"""The embedding examples work as their texts say: results of several servers, and MCP below an ASGI application."""

import json
import sys
from pathlib import Path
from runpy import run_path
from typing import Final

import pytest

from tests.examples.running import EXAMPLES
from tests.unit.fronts.fakes import Client, initialize

EMBED: Final = run_path(str(EXAMPLES / "embed.py"))
EMBED_ASGI: Final = run_path(str(EXAMPLES / "embed_asgi.py"))


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


@pytest.mark.anyio
async def test_a_program_gets_results_of_several_servers(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    await EMBED["run"](config)
    said = capsys.readouterr().out
    for text in ('"convert__convert_units"', '"notes__add_note"', "26.2 mi = 42.1648128 km", "There are no notes."):
        assert text in said


@pytest.mark.anyio
async def test_a_web_application_serves_mcp_beside_its_own_pages(config: str) -> None:
    application = EMBED_ASGI["application"](config)
    async with application.router.lifespan_context(application):
        client = Client(application)
        for path in ("/tools/mcp", "/tools/convert/mcp"):
            exchange = client.post(initialize(), path)
            await exchange.task  # until the servers were tried; the bound is pytest's
            status, body = exchange.answer.status, exchange.answer.body
            result = json.loads(body[body.index(b"{") :])["result"]  # plain, or in a stream
            assert (status, result["protocolVersion"]) == (200, "2025-11-25")
        assert (await client.send("GET", "/tools/health")).status == 200
        assert (await client.send("GET", "/")).body == b"An application with MCP at /tools/mcp\n"
        for path in ("/mcp", "/tools/elsewhere"):
            assert (await client.call(initialize(), path)).status == 404


@pytest.mark.anyio
async def test_an_sse_stream_names_its_endpoint_below_the_mount(config: str) -> None:
    application = EMBED_ASGI["application"](config)
    async with (
        application.router.lifespan_context(application),
        Client(application).open("GET", "/tools/convert/sse") as stream,
    ):
        answer = await stream.until(lambda answer: b"endpoint" in answer.body)
    assert (answer.status, answer.body.partition(b"?")[0]) == (200, b"event: endpoint\ndata: /tools/convert/messages")
