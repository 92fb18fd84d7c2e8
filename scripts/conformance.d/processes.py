"""The processes of one run: backends and manifolds on loopback, with bounded waits, stopped at the end."""

import contextlib
import json
import os
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from suite import progress

from tests.peers.processes import ROOT, await_port, free_port, running

HERE = Path(__file__).resolve().parent
READY_SECONDS = 15  # a manifold listens before its backends are listed; after this the run goes on without
MANIFOLD = ("uv", "run", "mcp-manifold")
PROBED_TOOL = b'"test_simple_text"'
PROBE_HEADERS = {
    "content-type": "application/json",
    "accept": "application/json, text/event-stream",
    "mcp-protocol-version": "2026-07-28",
    "mcp-method": "tools/list",
}
PROBE: dict[str, Any] = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "tools/list",
    "params": {
        "_meta": {
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientInfo": {"name": "conformance-probe", "version": "1"},
            "io.modelcontextprotocol/clientCapabilities": {},
        }
    },
}


def endpoint(port: int) -> str:
    return f"http://127.0.0.1:{port}/mcp"


@contextlib.contextmanager
def backend() -> Iterator[str]:
    """The project's own conformance backend; yields its URL."""
    port = free_port()
    with _listening(["uv", "run", "python", str(HERE / "backend.py"), str(port)], port):
        yield endpoint(port)


@contextlib.contextmanager
def manifold(urls: Mapping[str, str], *, probed: bool) -> Iterator[str]:
    """A manifold in front of the named URLs; yields its own. Only the first backend has no prefix."""
    port = free_port()
    first = next(iter(urls))
    servers = {n: {"type": "http", "url": u} | ({"prefix": ""} if n == first else {}) for n, u in urls.items()}
    with tempfile.TemporaryDirectory() as scratch:
        config = Path(scratch) / "config.json"
        config.write_text(json.dumps({"mcpServers": servers, "manifold": {}}))
        command = [*MANIFOLD, "serve", "--config", str(config), "--port", str(port)]
        with _listening(command, port, _private(scratch)):
            if probed and not _lists_the_probed_tool(endpoint(port)):
                progress(f"the manifold does not list the backend's tools after {READY_SECONDS} s; going on")
            yield endpoint(port)


def _private(scratch: str) -> dict[str, str]:
    """An environment without the state of other runs, but with uv's own cache."""
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    uv_cache = os.environ.get("UV_CACHE_DIR") or str(Path(cache) / "uv")
    return {"XDG_CACHE_HOME": scratch, "XDG_STATE_HOME": scratch, "UV_CACHE_DIR": uv_cache}


@contextlib.contextmanager
def _listening(command: Sequence[str], port: int, extra: Mapping[str, str] | None = None) -> Iterator[None]:
    """A process that listens on a port, in the project's directory; stopped at the end."""
    with tempfile.TemporaryDirectory() as scratch:
        log = Path(scratch) / "log"
        with running(command, log, env={**os.environ, **(extra or {})}, cwd=ROOT) as process:
            await_port(process, port, log)
            yield


def _lists_the_probed_tool(url: str) -> bool:
    request = urllib.request.Request(url, json.dumps(PROBE).encode(), PROBE_HEADERS)
    until = time.monotonic() + READY_SECONDS
    while time.monotonic() < until:
        with (
            contextlib.suppress(OSError, urllib.error.URLError),
            urllib.request.urlopen(request, timeout=5) as reply,
        ):
            if PROBED_TOOL in reply.read():
                return True
        time.sleep(0.2)
    return False
