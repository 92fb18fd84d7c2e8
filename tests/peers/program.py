"""`mcp-manifold` as a process of its own: its configuration file, its output, its probes."""

import asyncio
import json
import re
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final

import psutil

from tests.peers import BOUND
from tests.peers.client_http import HttpClient
from tests.peers.client_stdio import StdioClient
from tests.peers.message import LATEST_HANDSHAKE
from tests.peers.processes import Holdings, family, free_port, listens, running, stumbles, until

_WINDOW: Final = 0.2
"""Seconds a process is watched for; processor time is counted in hundredths."""


class Program:
    """A running `mcp-manifold serve`."""

    def __init__(self, process: Any, port: int, config: Path, log: Path, out: Path) -> None:
        self.process = process
        self.port = port
        self.config = config
        self._log = log
        self._out = out

    def __repr__(self) -> str:
        return f"<Program pid={self.process.pid} port={self.port}>"

    @property
    def url(self) -> str:
        """The merged endpoint."""
        return f"http://127.0.0.1:{self.port}/mcp"

    @property
    def log(self) -> str:
        """Everything on stderr so far."""
        return self._log.read_text(errors="replace") if self._log.is_file() else ""

    @property
    def said(self) -> list[str]:
        """The lines on stdout so far."""
        return self._out.read_text(errors="replace").splitlines() if self._out.is_file() else []

    async def says(self, start: str, *, after: int = 0) -> int:
        """Wait for a line on stdout with this beginning, past the first `after` lines; the number of lines up to it."""
        await until(lambda: any(line.startswith(start) for line in self.said[after:]), f"{start!r} in {self.said}")
        return after + next(at for at, line in enumerate(self.said[after:], start=1) if line.startswith(start))

    def write(self, config: Mapping[str, Any] | str) -> None:
        """Overwrite the configuration file in place."""
        self.config.write_text(config if isinstance(config, str) else json.dumps(config))

    def replace(self, config: Mapping[str, Any] | str) -> None:
        """Write a new file and rename it over the configuration."""
        new = self.config.with_suffix(".new")
        new.write_text(config if isinstance(config, str) else json.dumps(config))
        new.replace(self.config)

    async def metrics(self) -> dict[str, float]:
        """The metrics without labels, by name."""
        return await metrics_of(self.port)

    async def holds(self) -> Holdings:
        """Counts of the process."""
        own, tasks = psutil.Process(self.process.pid), (await self.metrics())["mcp_proxy_tasks"]
        return Holdings(int(tasks), own.num_fds(), len(self.family()), own.num_threads())

    async def rests(self) -> bool:
        """Whether it takes no processor time for a while."""
        own = psutil.Process(self.process.pid)
        before = sum(own.cpu_times()[:2])
        await asyncio.sleep(_WINDOW)  # nothing should happen meanwhile, so there is no event to wait for
        return sum(own.cpu_times()[:2]) - before <= _WINDOW / 4

    def stumbled(self) -> list[str]:
        """Lines of the log that report a fault of its own."""
        return stumbles(self.log)

    def family(self) -> list[psutil.Process]:
        """Every process below it."""
        return family(self.process.pid)

    def warden(self) -> psutil.Process:
        """The guard of its process groups."""
        return next(each for each in self.family() if "mcp-manifold-warden" in each.cmdline())

    def send(self, number: int) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    async def ended(self) -> int:
        """The exit code, once it ended."""
        await until(lambda: self.process.poll() is not None, "the end of the program")
        return int(self.process.returncode)


def config_in(directory: Path, servers: Mapping[str, Any], **manifold: Any) -> Path:
    """A new configuration file with these servers."""
    settings = {"startupTimeout": "8s", "watch": False, **manifold}
    path = directory / "mcp.json"
    path.write_text(json.dumps({"manifold": settings, "mcpServers": dict(servers)}))
    return path


@asynccontextmanager
async def serving(
    config: Path,
    *,
    before: Callable[[], None] | None = None,
    sink: Path | None = None,
    prefix: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> AsyncIterator[Program]:
    """`serve` on a free port, once it is ready; killed at the end. Its log must report no fault of its own.

    Args:
        before: what the child does between fork and exec.
        sink: where it writes, instead of files that can be read.
        prefix: what stands between the interpreter and the program.
    """
    port, log, out = free_port(), sink or config.with_suffix(".log"), sink or config.with_suffix(".out")
    command = [sys.executable, *prefix, "-m", "mcp_manifold", "serve", "-c", str(config), "--port", str(port)]
    with ExitStack() as stack:
        process = stack.enter_context(running(command, log, out=out, env=env, cwd=cwd, before=before, grace=0))
        program = Program(process, port, config, log, out)
        await until(lambda: process.poll() is not None or listens(port), "the port")
        assert process.poll() is None, program.log
        await until_probe(program, 200)
        yield program
        assert program.stumbled() == [], "I3"


async def command(*arguments: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of one run of `mcp-manifold`."""
    pipe = asyncio.subprocess.PIPE
    argv = (sys.executable, "-m", "mcp_manifold", *arguments)
    child = await asyncio.create_subprocess_exec(*argv, stdout=pipe, stderr=pipe)
    async with asyncio.timeout(BOUND):
        said, log = await child.communicate()
    return child.returncode or 0, said.decode(), log.decode()


@asynccontextmanager
async def over_stdio(config: Path) -> AsyncIterator[StdioClient]:
    """A connected client of `stdio` with that configuration."""
    async with StdioClient([sys.executable, "-m", "mcp_manifold", "stdio", "-c", str(config)]) as client:
        assert (await client.connect(LATEST_HANDSHAKE)).result is not None
        yield client


async def connected(program: Program) -> HttpClient:
    """A connected client, to be closed by the caller."""
    client = HttpClient(program.url)
    assert (await client.connect(LATEST_HANDSHAKE)).result is not None
    return client


async def until_probe(program: Program, wanted: int) -> None:
    """Poll the readiness probe until it answers with this status: 200 when ready, 503 while shutting down."""

    async def answers() -> bool:
        return await status_of(program, "/_readyz") == wanted

    await until(answers, f"readiness {wanted}: {program.log}")


async def metrics_of(port: int) -> dict[str, float]:
    """The metrics without labels that a manifold reports on this port, by name."""
    page = (await answer_of(port, "/metrics")).decode()
    return {name: float(value) for name, value in re.findall(r"^(\w+) (\S+)\r?$", page, re.M)}


async def status_of(program: Program, path: str) -> int:
    """The HTTP status of one GET on a connection of its own."""
    return int((await answer_of(program.port, path)).split(b" ", 2)[1])


async def answer_of(port: int, path: str, body: bytes = b"") -> bytes:
    """The whole response to one request on a connection of its own."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        head = f"{'POST' if body else 'GET'} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        writer.write(head.encode() + body)
        async with asyncio.timeout(BOUND):
            return await reader.read()
    finally:
        writer.close()
