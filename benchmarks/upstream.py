"""The servers behind the measured proxies, on the processors of the load."""

import random
import socket
import subprocess
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Final

from benchmarks import processes
from benchmarks.plan import HERE, ROOT, Plan
from tests.peers.processes import stop

_PORTS: Final = (20_000, 30_000)


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """One server, as a configuration names it."""

    name: str
    url: str = ""
    pid: int = 0
    command: tuple[str, ...] = ()

    @property
    def entry(self) -> dict[str, Any]:
        """Its entry under `mcpServers`."""
        return {"url": self.url} if self.url else {"command": self.command[0], "args": list(self.command[1:])}


class Upstream:
    """Starts servers, and stops them at the end of the context."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._stack = ExitStack()

    def __enter__(self) -> "Upstream":
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def some(self, kind: str, count: int, *, tools: int = 5) -> list[Server]:
        """This many servers of a kind: `http`, `http-sse` or `stdio`."""
        if kind == "stdio":
            return self.stdio(count, tools=tools)
        return self.http(count, tools=tools, streams=kind == "http-sse")

    def http(self, count: int, *, tools: int = 5, streams: bool = False) -> list[Server]:
        """HTTP servers in one process."""
        first = _free_range(count)
        ports, more = f"{first}-{first + count - 1}", ["--stream"] if streams else []
        command = [self._plan.python, "-m", "benchmarks.servers.http_server", "--modern", "--ports", ports, *more]
        process = subprocess.Popen([*command, "--tools", str(tools)], stdout=subprocess.PIPE, cwd=ROOT)
        self._stack.callback(stop, process)
        if process.stdout is None or process.stdout.readline().strip() != b"ready":
            raise RuntimeError("the servers did not start")
        processes.pin(process.pid, self._plan.load_cpus, ())
        urls = [f"http://127.0.0.1:{first + number}/mcp" for number in range(count)]
        return [Server(name=f"s{number}", url=url, pid=process.pid) for number, url in enumerate(urls)]

    def stdio(self, count: int, *, tools: int = 5, silent: Sequence[int] = ()) -> list[Server]:
        """stdio servers, which the proxy starts."""
        command = [self._plan.python, str(HERE / "servers" / "stdio_server.py"), "--tools", str(tools)]
        if self._plan.load_cpus:
            command += ["--cpus", ",".join(map(str, self._plan.load_cpus))]
        commands = [(*command, *(["--silent"] if number in silent else [])) for number in range(count)]
        return [Server(name=f"s{number}", command=words) for number, words in enumerate(commands)]


def _free_range(count: int) -> int:
    """The first of this many free ports in a row."""
    while True:
        first = random.randrange(*_PORTS)
        try:
            for port in range(first, first + count):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
        except OSError:
            continue
        return first
