"""Owns the processes of one run, backends and manifolds; refuses to know what the suite asks them.

Everything is on loopback, every wait is bounded, every process is ended by its own pid.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from suite import progress

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
START_SECONDS = 30  # an interpreter with the SDK takes seconds on a busy machine; a dead one shows at once
READY_SECONDS = 15  # a manifold listens before its backends are listed; then the run goes on and will tell
STOP_SECONDS = 10  # a graceful end; after it the process is killed
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
    port = _free_port()
    with _running("backend", ["uv", "run", "python", str(HERE / "backend.py"), str(port)], port):
        yield endpoint(port)


@contextlib.contextmanager
def manifold(urls: Mapping[str, str], *, probed: bool) -> Iterator[str]:
    """A manifold in front of the named URLs; yields its own. Only the first backend has no prefix."""
    port = _free_port()
    first = next(iter(urls))
    servers = {n: {"type": "http", "url": u} | ({"prefix": ""} if n == first else {}) for n, u in urls.items()}
    with tempfile.TemporaryDirectory() as scratch:
        config = Path(scratch) / "config.json"
        config.write_text(json.dumps({"mcpServers": servers, "manifold": {}}))
        command = [*MANIFOLD, "serve", "--config", str(config), "--port", str(port)]
        with _running("manifold", command, port, _private(scratch)):
            if probed and not _lists_the_probed_tool(endpoint(port)):
                progress(f"the manifold does not list the backend's tools after {READY_SECONDS} s; going on")
            yield endpoint(port)


def _private(scratch: str) -> dict[str, str]:
    """An environment in which nothing remembered from another run is found, but uv's own cache is."""
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    uv_cache = os.environ.get("UV_CACHE_DIR") or str(Path(cache) / "uv")
    return {"XDG_CACHE_HOME": scratch, "XDG_STATE_HOME": scratch, "UV_CACHE_DIR": uv_cache}


@contextlib.contextmanager
def _running(name: str, command: Sequence[str], port: int, extra: Mapping[str, str] | None = None) -> Iterator[None]:
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, **(extra or {})},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # so that what it starts ends with it
        )
        try:
            if not _listens(process, port):
                log.seek(0)
                words = log.read().decode(errors="replace").strip()[-2000:]
                raise SystemExit(f"conformance: the {name} does not listen on port {port}:\n{words}")
            yield
        finally:
            _stop(process)


def _listens(process: subprocess.Popen[bytes], port: int) -> bool:
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
        time.sleep(0.1)
    return False


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        progress(f"process {process.pid} did not end within {STOP_SECONDS} s and is killed")
        # Not reaped yet, so the group is still the process's own (start_new_session) and nobody else's.
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


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


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
