"""The peers: read from peers.toml, configured for servers, started and stopped."""

import json
import os
import shutil
import subprocess
import time
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final

from benchmarks import processes
from benchmarks.client import BlockingClient
from benchmarks.plan import HERE, ROOT, Plan
from benchmarks.upstream import Server
from tests.peers.processes import free_port, stop

_INSTALL: Final = 600  # seconds for an installation
_READY: Final = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """A peer, as its table describes it."""

    name: str
    label: str
    direct: bool = False
    start: Sequence[str] = ()
    version: Sequence[str] = ()
    install: Sequence[str] = ()
    transport: str = "http"
    servers: Sequence[str] = ("http", "http-sse", "stdio")  # the kinds of servers the peer supports
    tool: str = "{tool}"  # the public name of a server's tool
    headers: Mapping[str, str] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)  # configuration besides the servers


def read(path: Path = HERE / "peers.toml") -> dict[str, Spec]:
    """All peers of a file."""
    return {name: Spec(name=name, **table) for name, table in tomllib.loads(path.read_text())["peers"].items()}


def filled(words: Sequence[str], values: Mapping[str, str | Sequence[str]]) -> list[str]:
    """The words with each `{name}` replaced; a word `{name...}` becomes several."""
    found: list[str] = []
    for word in words:
        several = values.get(word[1:-4]) if word.startswith("{") and word.endswith("...}") else None
        if several is not None:
            found += several
            continue
        for name, value in values.items():
            word = word.replace(f"{{{name}}}", value) if isinstance(value, str) else word
        found.append(word)
    return found


class Peer:
    """One peer in front of certain servers."""

    def __init__(self, spec: Spec, plan: Plan, servers: Sequence[Server], *, tools: int = 0) -> None:
        self.spec = spec
        self.servers = servers
        self.pid = 0
        self.started = 0.0
        self._plan = plan
        self._tools = tools
        self._process: subprocess.Popen[bytes] | None = None
        self._output: IO[bytes] | None = None
        self.port = free_port()
        self.work = plan.work / f"{spec.name}-{self.port}"
        self.url = servers[0].url if spec.direct else f"http://127.0.0.1:{self.port}/mcp"

    @property
    def transport(self) -> str:
        """The address of the peer."""
        return "stdio" if self.spec.direct and not self.url else self.spec.transport

    @property
    def command(self) -> list[str]:
        """The start command, after writing the configuration."""
        if self.spec.direct:
            return list(self.servers[0].command)
        self.work.mkdir(parents=True, exist_ok=True)
        config = self.work / "config.json"
        entries = {server.name: server.entry for server in self.servers}
        config.write_text(json.dumps({"mcpServers": entries, **self.spec.config}, indent=2))
        listed = [word for server in self.servers for word in ("--server", f"{server.name}={server.url}")]
        values = {**places(self.spec, self._plan), "port": str(self.port), "config": str(config)}
        return filled(self.spec.start, {**values, "servers": listed, "tools": str(self._tools)})

    def tools(self, tool: str) -> tuple[str, ...]:
        """The name of a tool at each server; a server without a proxy has one."""
        servers = self.servers[:1] if self.spec.direct else self.servers
        return tuple(self.spec.tool.format(server=server.name, tool=tool) for server in servers)

    def client(self, timeout: float = 10.0) -> BlockingClient:
        """A new client of the peer."""
        return BlockingClient(self.url, self.spec.headers, timeout=timeout)

    def start(self, *, expected: int | None = 1) -> None:
        """Start the peer and wait until it lists this many tools; None does not wait.

        Raises:
            RuntimeError: it did not start.
        """
        if self.spec.direct:
            self.pid = self.servers[0].pid
            return
        command = self.command
        self._output = (self.work / "output.log").open("ab")
        self._process = self.spawned(command, stdin=subprocess.DEVNULL, stdout=self._output, stderr=self._output)
        self.pid = self._process.pid
        if expected is not None:
            self.wait(expected)
            self.pin()

    def spawned(self, command: Sequence[str], **pipes: Any) -> "subprocess.Popen[bytes]":
        """The peer's process, on the measured processors, with its own state directory."""
        environment = {**os.environ, "XDG_STATE_HOME": str(self.work / "state")}
        words = _on(self._plan.target_cpus, command)
        self.started = time.perf_counter()
        return subprocess.Popen(words, cwd=ROOT, env=environment, start_new_session=True, **pipes)

    def wait(self, expected: int, limit: float = _READY) -> float:
        """Wait until the peer lists this many tools, or for 0 until it answers `initialize`; seconds since its start.

        Raises:
            RuntimeError: it did not in time.
        """
        last = ""
        while (left := self.started + limit - time.perf_counter()) > 0:
            if self._process is not None and self._process.poll() is not None:
                last = (self.work / "output.log").read_text(errors="replace").strip().rpartition("\n")[2]
                raise RuntimeError(f"it ended with {self._process.returncode}: {last[:200]}")
            try:
                with self.client(max(0.5, left)) as client:
                    found = len(client.tools()) if expected else 0
                if found >= expected:
                    return time.perf_counter() - self.started
                last = f"{found} tools"
            except (OSError, RuntimeError, ValueError) as exc:
                last = f"{type(exc).__name__}: {exc}"
            time.sleep(0.005)
        raise RuntimeError(f"no {expected} tools in {limit:g} s; the last was {last}")

    def pin(self) -> None:
        """Move the peer to the measured processors."""
        if self.pid and not self.spec.direct:
            processes.pin(self.pid, self._plan.target_cpus, self._plan.load_cpus)

    def stop(self, *, keep: bool = False) -> None:
        """Stop the peer; keep its files only if it starts again."""
        if self._process is not None:
            stop(self._process)
            self._process = None
        if self._output is not None:
            self._output.close()
            self._output = None
        if not keep and not self.spec.direct:
            shutil.rmtree(self.work, ignore_errors=True)


def places(spec: Spec, plan: Plan) -> dict[str, str]:
    """The placeholders of a table, for any servers."""
    environment = plan.environments / "-".join(spec.install).replace("==", "-")
    return {"python": plan.python, "here": str(HERE), "environment": str(environment)}


def install(spec: Spec, plan: Plan) -> None:
    """Create the environment of a peer that needs one, once."""
    environment = Path(places(spec, plan)["environment"])
    if not spec.install or (environment / "installed").exists():
        return
    for command in (["venv", "--quiet", str(environment)], ["pip", "install", "--quiet", "--python", str(environment)]):
        more = spec.install if command[0] == "pip" else ()
        subprocess.run(["uv", *command, *more], check=True, timeout=_INSTALL)
    (environment / "installed").touch()


def version(spec: Spec, plan: Plan) -> str:
    """The version that a peer reports."""
    if not spec.version:
        return ""
    command = filled(spec.version, places(spec, plan))
    said = subprocess.run(command, capture_output=True, text=True, timeout=_READY, check=False, cwd=ROOT)
    return (said.stdout.strip().splitlines() or ["unknown"])[-1]


def _on(cpus: Sequence[int], command: Sequence[str]) -> Sequence[str]:
    """A command that starts on certain processors."""
    if not cpus or not hasattr(os, "sched_setaffinity"):
        return command
    return ["taskset", "-c", ",".join(map(str, cpus)), *command]
