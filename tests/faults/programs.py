"""The program itself as a process, with what it starts: begun, signalled, watched. Judges nothing."""

import asyncio
import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO, Any

import psutil

from tests.contract.stand import LATEST
from tests.flows.processes import Holdings, until
from tests.peers.clients import HttpClient, StdioClient

WINDOW = 0.2
"""Seconds a process is watched for; it counts its time in hundredths."""
SUBREAPER = """\
import ctypes, os, sys
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


class Program:
    """`mcp-manifold serve` as a process of its own."""

    def __init__(self, process: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
        self.process = process
        self.port = port
        self._log = log

    def __repr__(self) -> str:
        return f"<Program pid={self.process.pid} port={self.port}>"

    @property
    def url(self) -> str:
        """Its merged endpoint."""
        return f"http://127.0.0.1:{self.port}/mcp"

    @property
    def log(self) -> str:
        """All it wrote on stdout and stderr."""
        return self._log.read_text(errors="replace") if self._log.is_file() else ""

    async def holds(self) -> Holdings:
        """What it holds now."""
        return await held_by(self.process.pid, self.port)

    async def rests(self) -> bool:
        """Whether it does nothing for a while."""
        return await is_at_rest(self.process.pid)

    def stumbled(self) -> list[str]:
        """Lines of its log that tell of a fault of its own."""
        return stumbles(self.log.splitlines())

    def family(self) -> list[psutil.Process]:
        """Everything below it."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def warden(self) -> psutil.Process:
        """The guard over its groups."""
        return next(each for each in self.family() if "mcp-manifold-warden" in each.cmdline())

    def send(self, number: int) -> None:
        """Signal it alone."""
        self.process.send_signal(number)

    async def ended(self) -> int:
        """Its exit code, once it ended."""
        await until(lambda: self.process.poll() is not None, "the end of the program")
        return self.process.returncode


async def held_by(pid: int, port: int) -> Holdings:
    """What a program holds now."""
    shown = await answer_of(port, "/metrics")
    found = re.search(rb"^mcp_proxy_tasks ([0-9.]+)", shown, re.M)
    assert found is not None, shown
    own = psutil.Process(pid)
    return Holdings(int(float(found[1])), own.num_fds(), len(own.children(recursive=True)), own.num_threads())


async def is_at_rest(pid: int) -> bool:
    """Whether a program does nothing for a while, by the processor time it takes."""
    own = psutil.Process(pid)
    before = sum(own.cpu_times()[:2])
    await asyncio.sleep(WINDOW)  # in which nothing should happen: there is no event to wait for
    return sum(own.cpu_times()[:2]) - before <= WINDOW / 4


def stumbles(log: Iterable[str]) -> list[str]:
    """Lines of a log that tell of a fault of the program's own."""
    signs = ("Traceback", "never retrieved", " ERROR ", "Task was destroyed")
    return [line for line in log if any(sign in line for sign in signs)]


def config_in(directory: Path, servers: Mapping[str, Any], **manifold: Any) -> Path:
    """A configuration file of these servers, on a free port."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    written = {"startupTimeout": "8s", "port": port, "watch": False, **manifold}
    path = directory / "mcp.json"
    path.write_text(json.dumps({"manifold": written, "mcpServers": dict(servers)}))
    return path


@asynccontextmanager
async def serving(
    config: Path,
    *,
    files: int = 0,
    before: Callable[[], None] | None = None,
    sink: Path | None = None,
    prefix: Sequence[str] = (),
    cwd: Path | None = None,
) -> AsyncIterator[Program]:
    """`serve` with that configuration, once it listens; killed with all it started if it is still there in the end.

    Args:
        files: descriptors it may have; 0 for the usual number.
        before: what its process does before it becomes the program.
        sink: where it writes, instead of a log that can be read.
        prefix: what stands between the interpreter and the program.
        cwd: where it is started.
    """
    before = _limited(files) if files else before
    log = sink or config.with_suffix(".log")
    with log.open("ab") as output:
        process = _begun([*prefix, "-m", "mcp_manifold", "serve", "-c", str(config)], output, before, cwd)
    program = Program(process, _port_in(config), log)
    try:
        await until(lambda: process.poll() is not None or _listens(program.port), "the port")
        assert process.poll() is None, program.log
        yield program
        assert program.stumbled() == [], "I3"
    finally:
        family = program.family() if process.poll() is None else []
        process.kill()
        process.wait()
        for each in family:
            end(each.pid)


def _begun(
    argv: Sequence[str], output: IO[bytes], before: Callable[[], None] | None, cwd: Path | None
) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, *argv], stdin=subprocess.DEVNULL, stdout=output, stderr=output, preexec_fn=before, cwd=cwd
    )


@asynccontextmanager
async def over_stdio(config: Path) -> AsyncIterator[StdioClient]:
    """`stdio` with that configuration, greeted."""
    argv = [sys.executable, "-m", "mcp_manifold", "stdio", "-c", str(config)]
    async with StdioClient(argv) as client:
        await client.connect(LATEST)
        yield client


async def connected(program: Program) -> HttpClient:
    """A client of it, to be closed by the caller."""
    client = HttpClient(program.url)
    await client.connect(LATEST)
    return client


async def until_ready(program: Program) -> None:
    """Wait until it says so."""
    await _until_probe(program, 200)


async def until_unready(program: Program) -> None:
    """Wait until it says that it is not, as it does once a signal has arrived."""
    await _until_probe(program, 503)


async def _until_probe(program: Program, wanted: int) -> None:
    for _ in range(500):
        if await status_of(program, "/_readyz") == wanted:
            return
        await asyncio.sleep(0.02)  # it is the one who is asked that tells
    raise AssertionError(program.log)


async def status_of(program: Program, path: str, body: bytes = b"") -> int:
    """The HTTP status of one request on a connection of its own."""
    return int((await answer_of(program.port, path, body)).split(b" ", 2)[1])


async def answer_of(port: int, path: str, body: bytes = b"") -> bytes:
    """The whole answer to one request on a connection of its own."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        head = f"{'POST' if body else 'GET'} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        writer.write(head.encode() + body)
        async with asyncio.timeout(10):
            return await reader.read()
    finally:
        writer.close()


def zombies(pid: int) -> list[int]:
    """The dead children nobody took leave of."""
    return [each.pid for each in psutil.Process(pid).children() if each.status() == psutil.STATUS_ZOMBIE]


def end(pid: int) -> None:
    """Kill a process, if it is still there."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _port_in(config: Path) -> int:
    port: int = json.loads(config.read_text())["manifold"]["port"]
    return port


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _limited(files: int) -> Callable[[], None]:
    return lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
