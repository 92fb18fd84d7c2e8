"""Owns the processes of a run, and what can be read of them from outside; refuses to know why they are run.

Everything is on loopback, every wait is bounded, every process is ended by its own id.
"""

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from client import Client

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
BACKEND = str(HERE / "backend.py")
START_SECONDS = 60.0  # an interpreter with everything takes seconds on a busy machine
TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
SIGNS = ("Traceback", "never retrieved", " ERROR ", "Task was destroyed")


@dataclass(frozen=True, slots=True)
class Sample:
    """What the manifold's process holds at one moment. Memory in bytes, processor time in seconds."""

    at: float
    memory: int
    processor: float
    descriptors: int
    threads: int
    children: int
    tasks: int
    sessions: int
    lag: float


class Web:
    """An HTTP server of the soak, which can be killed and started again on the same port."""

    def __init__(self) -> None:
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it."""
        self._process = subprocess.Popen([sys.executable, BACKEND, "http", str(self.port)], stdin=subprocess.DEVNULL)

    def stop(self) -> None:
        """Kill it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()


class Manifold:
    """`mcp-manifold serve` as a process, its configuration file, and what it says."""

    def __init__(self, directory: Path, servers: Mapping[str, Any]) -> None:
        self.port = free_port()
        self.servers = dict(servers)
        """The configured ones, in the beginning."""
        self.file = directory / "mcp.json"
        self._log = directory / "log"
        self.write(servers)
        with self._log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "mcp_manifold", "serve", "-c", str(self.file)],
                cwd=directory,
                env={**os.environ, "XDG_STATE_HOME": str(directory), "PYTHONPATH": str(ROOT / "src")},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        self.pid = self.process.pid
        self.client = Client(self.port)

    def text(self, servers: Mapping[str, Any]) -> str:
        """The configuration with these servers."""
        limits = {"maxSessions": 2000}
        settings = {"port": self.port, "limits": limits, "drain": "5s"}
        return json.dumps({"manifold": settings, "mcpServers": dict(servers)})

    def write(self, servers: Mapping[str, Any]) -> None:
        """Write the file, by another one that takes its name."""
        new = self.file.with_suffix(".new")
        new.write_text(self.text(servers))
        new.replace(self.file)

    @property
    def log(self) -> str:
        """All it wrote."""
        return self._log.read_text(errors="replace")

    def stumbles(self) -> list[str]:
        """Lines of the log that tell of a fault of its own (I3)."""
        return [line for line in self.log.splitlines() if any(sign in line for sign in SIGNS)]

    async def said(self, words: str, *, after: int = 0, seconds: float = 30.0) -> bool:
        """Whether these words come, behind so many characters of the log, within the time."""
        return await until(lambda: words in self.log[after:], seconds)

    def children(self, pid: int = 0) -> list[int]:
        """Everything below a process, its own processes first."""
        found = []
        for task in Path(f"/proc/{pid or self.pid}/task").iterdir():
            with suppress(OSError):
                found += [int(child) for child in (task / "children").read_text().split()]
        return found + [below for child in found for below in _below(self, child)]

    def zombies(self) -> list[int]:
        """The dead below it that nobody took leave of."""
        return [pid for pid in self.children() if _state(pid) == "Z"]

    async def sample(self) -> Sample:
        """What it holds now."""
        page = (await self.client.get("/metrics")).decode()
        base = Path(f"/proc/{self.pid}")
        fields = (base / "stat").read_text().rpartition(")")[2].split()
        return Sample(
            at=time.monotonic(),
            memory=int((base / "statm").read_text().split()[1]) * PAGE,
            processor=(int(fields[11]) + int(fields[12])) / TICKS,
            descriptors=len(list((base / "fd").iterdir())),
            threads=int(fields[17]),
            children=len(self.children()),
            tasks=int(_metric(page, "mcp_proxy_tasks")),
            sessions=int(_metric(page, "mcp_proxy_sessions")),
            lag=_metric(page, "mcp_proxy_loop_lag_max_seconds"),
        )

    async def states(self) -> dict[str, str]:
        """The state of every server."""
        page = json.loads(await self.client.get("/health/servers"))
        return {server["name"]: server["state"] for server in page["servers"]}

    async def ready(self, *servers: str) -> bool:
        """Whether these servers get ready within the time a start may take."""
        for _ in range(int(START_SECONDS / 0.1)):
            with suppress(OSError, asyncio.IncompleteReadError):
                states = await self.states()
                if all(states.get(server) == "ready" for server in servers):
                    return True
            if self.process.poll() is not None:
                return False
            await asyncio.sleep(0.1)
        return False

    def end(self) -> int:
        """Ask it to end; its exit code."""
        self.client.close()
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


@contextmanager
def running(webs: Mapping[str, Web], servers: Mapping[str, Any]) -> Iterator[Manifold]:
    """A manifold in front of these servers, in a directory of its own, with the HTTP ones among them running."""
    with tempfile.TemporaryDirectory(prefix="soak-") as directory:
        for web in webs.values():
            web.start()
        manifold = Manifold(Path(directory), servers)
        try:
            yield manifold
        finally:
            if manifold.process.poll() is None:
                manifold.end()
            for web in webs.values():
                web.stop()


def _below(manifold: Manifold, pid: int) -> list[int]:
    try:
        return manifold.children(pid)
    except OSError:
        return []


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def _metric(page: str, name: str) -> float:
    found = re.search(rf"^{name} (\S+)", page, re.MULTILINE)
    return float(found[1]) if found else 0.0


def stdio(**more: object) -> dict[str, Any]:
    """The entry of a server over stdio."""
    return {"command": sys.executable, "args": [BACKEND, "stdio"], **more}


def http(web: Web) -> dict[str, Any]:
    """The entry of a server over HTTP."""
    return {"type": "http", "url": f"http://127.0.0.1:{web.port}/mcp"}


def free_port() -> int:
    """A port nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


async def until(is_so: Any, seconds: float) -> bool:
    """Whether it is so within the time."""
    for _ in range(int(seconds / 0.05)):
        if is_so():
            return True
        await asyncio.sleep(0.05)
    return False
