"""The program under test: its configuration, its fronts, and how soon it lists what works; knows no client."""

import shlex
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backends import ROOT, CallTarget, ReferenceServer

from tests.peers.clients import tool_names
from tests.peers.processes import await_port, free_port, running

STUCK = ["-m", "tests.peers.stdio_main", "--script", "stuck"]  # a server that answers nothing
FRONTS = ("http", "sse", "stdio")


def configuration(backends: Iterable[ReferenceServer], python: str, environment: dict[str, str]) -> dict[str, Any]:
    """The `mcpServers` of all backends, with three that can never work among them."""
    servers: dict[str, Any] = {"missing": {"command": "no-such-command-anywhere", "args": []}}
    servers["hanging"] = {"command": python, "args": STUCK, "cwd": str(ROOT), "env": environment}
    servers |= {backend.name: _server(backend.target) for backend in backends}
    servers["refused"] = {"url": f"http://127.0.0.1:{free_port()}/mcp"}
    return {"mcpServers": servers}


def _server(target: CallTarget) -> dict[str, Any]:
    if target["kind"] == "stdio":
        command, *args = target["command"]
        return {"command": command, "args": args, "env": target["env"]}
    return {"url": target["url"]} | ({"type": "sse"} if target["kind"] == "sse" else {})


def of_this_checkout() -> str:
    """The manifold's command, before its arguments."""
    return f"{shutil.which('uv') or 'uv'} run --quiet --project {ROOT} mcp-manifold"


def stdio_target(program: str, config: Path, environment: dict[str, str]) -> CallTarget:
    """The stdio front, which each client starts for itself."""
    words = [*shlex.split(program), "stdio", "--config", str(config)]
    return {"kind": "stdio", "command": words, "env": environment}


@dataclass(frozen=True, slots=True)
class Serving:
    """A manifold that listens."""

    port: int
    opened: float
    log: Path

    def target(self, front: str) -> CallTarget:
        """Where a client finds that front."""
        path = {"http": "/mcp", "sse": "/sse"}[front]
        return {"kind": front, "url": f"http://127.0.0.1:{self.port}{path}"}


@contextmanager
def serving(program: str, config: Path, environment: dict[str, str]) -> Iterator[Serving]:
    """Run `mcp-manifold serve` for as long as the block lasts."""
    port, log = free_port(), config.with_name("manifold.log")
    words = [*shlex.split(program), "serve", "--config", str(config), "--port", str(port)]
    with running(words, log, env=environment) as process:
        await_port(process, port, log)
        yield Serving(port, time.monotonic(), log)


def unlisted(serving: Serving, backends: Iterable[ReferenceServer], startup: float) -> list[str]:
    """The backends of which no tool is listed when the bad ones have had their time to start."""
    wanted = {backend.name for backend in backends}
    missing = set(wanted)
    while missing and time.monotonic() < serving.opened + startup:
        names = tool_names(serving.target("http")["url"])
        missing = {name for name in wanted if not any(tool.startswith(f"{name}__") for tool in names)}
        time.sleep(0.1)
    return sorted(missing)
