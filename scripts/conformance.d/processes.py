"""The processes of one run, servers and manifolds, and the wait for what they list."""

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from suite import progress

from tests.peers.clients import tool_names
from tests.peers.processes import ROOT, await_port, free_port, running
from tests.peers.program import config_in

HERE = Path(__file__).resolve().parent
PROBED_TOOL = "test_simple_text"


def endpoint(port: int) -> str:
    """The MCP endpoint of a process on this port."""
    return f"http://127.0.0.1:{port}/mcp"


@contextlib.contextmanager
def backend() -> Iterator[str]:
    """The project's own conformance server; its URL."""
    with _listening(str(HERE / "server.py")) as port:
        yield endpoint(port)


@contextlib.contextmanager
def manifold(urls: Mapping[str, str], *, probed: bool) -> Iterator[str]:
    """A manifold in front of the named URLs; its own URL. Only the first backend has no prefix."""
    first = next(iter(urls))
    servers = {n: {"type": "http", "url": u} | ({"prefix": ""} if n == first else {}) for n, u in urls.items()}
    with tempfile.TemporaryDirectory() as scratch:
        config = config_in(Path(scratch), servers)
        with _listening("-m", "mcp_manifold", "serve", "--config", str(config), "--port", scratch=scratch) as port:
            if probed and PROBED_TOOL not in tool_names(endpoint(port)):  # which waits for servers that start
                progress("the manifold does not list the backend's tools; going on")
            yield endpoint(port)


@contextlib.contextmanager
def _listening(*arguments: str, scratch: str = "") -> Iterator[int]:
    """A Python process that takes a port as its last argument, once it listens there."""
    port = free_port()
    env = {**os.environ, **({"XDG_CACHE_HOME": scratch, "XDG_STATE_HOME": scratch} if scratch else {})}
    with tempfile.NamedTemporaryFile() as file:
        log = Path(file.name)
        with running([sys.executable, *arguments, str(port)], log, env=env, cwd=ROOT) as process:
            await_port(process, port, log)
            yield port
