"""Start-up imports: libraries that only other commands or fronts need are not imported."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.contract.offers import offering
from tests.contract.stand import entry_of
from tests.flows.test_remembered import backends, learnt

pytestmark = pytest.mark.anyio

SCRIPT = """\
import json, runpy, sys
sys.argv = ["mcp-manifold", *sys.argv[1:]]
try:
    runpy.run_module("mcp_manifold", run_name="__main__")
finally:
    print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})), file=sys.stderr)
"""
HELLO = (
    b'{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},'
    b'"clientInfo":{"name":"x","version":"1"}}}\n{"jsonrpc":"2.0","id":2,"method":"tools/list"}\n'
)


def imported(arguments: Sequence[str], said: bytes = b"") -> tuple[set[str], bytes]:
    """The libraries that a run of the program imported, and its output."""
    done = subprocess.run([sys.executable, "-c", SCRIPT, *arguments], input=said, capture_output=True, check=True)
    return set(json.loads(done.stderr.splitlines()[-1])), done.stdout


async def test_cached_lists_need_neither_the_sdk_nor_an_http_server(tmp_path: Path) -> None:
    async with backends({"pipe": offering("pipe")}) as servers:
        await learnt(servers, tmp_path)
        config = tmp_path / "mcp.json"
        manifold = {"stateDir": str(tmp_path), "start": "lazy"}
        config.write_text(json.dumps({"mcpServers": {"pipe": entry_of(servers["pipe"])}, "manifold": manifold}))
        libraries, answers = imported(["stdio", "-c", str(config)], HELLO)
        assert b"pipe__echo" in answers
        assert not libraries & {"mcp", "mcp_types", "uvicorn", "starlette", "httpx2", "prometheus_client"}
        assert "pydantic_settings" not in libraries  # neither flags nor variables of ours
        assert len(servers["pipe"].children) == 1


def test_the_version_needs_almost_no_library() -> None:
    libraries, answer = imported(["--version"])
    assert answer.startswith(b"mcp-manifold ")
    assert not libraries & {"mcp", "pydantic", "msgspec", "anyio", "uvicorn", "starlette", "asyncio"}
