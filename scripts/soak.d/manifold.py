"""The manifold under test as a process, with scripted servers behind it, and what can be read of it from outside."""

import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from client import LoadClient

from tests.peers.backend import Act, HttpBackend, Script, tool
from tests.peers.processes import ROOT, free_port, running, stop, until, zombies
from tests.peers.program import Program, answer_of, until_probe

FAULTS = {
    "half": Act("cut"),
    "exit": Act("die", n=0),
    "close": Act("close_stdout"),
    "noise": Act("garbage", "not json\n{}\n[]\n\udcff\udcfe\n" * 50),
    "stderr": Act("stderr", "something went wrong, as it seems", n=20_000),
    "storm": Act("notify", "\n".join(['{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}'] * 300)),
    "strangers": Act("garbage", "\n".join(f'{{"jsonrpc":"2.0","id":{10**6 + n},"result":{{}}}}' for n in range(99))),
}
"""The faults a stdio server makes when the tool of that name is called."""
PLAIN = (tool("echo"), tool("slow", Act("slow")), tool("pid", Act("pid")))
WEB = Script(name="soak", era="handshake", records=False, replies="json", tools=(*PLAIN, tool("reset", Act("die"))))
PIPE = Script(
    name="soak", era="handshake", records=False, tools=(*PLAIN, *(tool(name, act) for name, act in FAULTS.items()))
)


def stdio(**more: object) -> dict[str, Any]:
    """The configuration entry of a scripted stdio server."""
    args = ["-m", "tests.peers.stdio_main", "--script", PIPE.to_json(), "--lifetime", "0"]
    return {"command": sys.executable, "args": args, "cwd": str(ROOT), **more}


@dataclass(frozen=True, slots=True)
class Sample:
    """What the process holds at one moment. Memory in bytes, processor time in seconds, lag in seconds."""

    at: float
    memory: int
    processor: float
    descriptors: int
    threads: int
    children: int
    tasks: int
    sessions: int
    lag: float


class Site:
    """A running manifold, the servers it was configured with, and a client."""

    def __init__(self, program: Program, servers: Mapping[str, Any]) -> None:
        self.program = program
        self.servers = dict(servers)

    @property
    def port(self) -> int:
        """The port of its HTTP front."""
        return self.program.port

    async def sample(self) -> Sample:
        """What it holds now."""
        found, own = await self.program.metrics(), psutil.Process(self.program.process.pid)
        times = own.cpu_times()
        return Sample(
            at=time.monotonic(),
            memory=own.memory_info().rss,
            processor=times.user + times.system,
            descriptors=own.num_fds(),
            threads=own.num_threads(),
            children=len(self.program.family()),
            tasks=int(found["mcp_proxy_tasks"]),
            sessions=int(found["mcp_proxy_sessions"]),
            lag=found["mcp_proxy_loop_lag_max_seconds"],
        )

    def zombies(self) -> list[int]:
        """The dead children it did not wait for."""
        return zombies(self.program.process.pid)

    async def pid_of(self, server: str) -> int:
        """The process behind a stdio server."""
        async with LoadClient(self.port) as client:
            answer = await client.call(f"{server}__pid")
        return int(answer["result"]["structuredContent"]["pid"])

    async def are_ready(self) -> bool:
        """Whether every configured server is ready."""
        page = json.loads((await answer_of(self.port, "/health/servers")).partition(b"\r\n\r\n")[2])
        return {each["name"] for each in page["servers"] if each["state"] == "ready"} >= set(self.servers)

    async def says(self, words: str, after: int) -> bool:
        """Whether a line with this beginning comes on stdout, past the first `after` lines."""
        try:
            return bool(await self.program.says(words, after=after))
        except AssertionError:
            return False


def config_of(servers: Mapping[str, Any]) -> str:
    """The text of a configuration file with these servers."""
    settings = {"limits": {"maxSessions": 2000}, "drain": "5s"}
    return json.dumps({"manifold": settings, "mcpServers": dict(servers)})


@asynccontextmanager
async def five() -> AsyncIterator[tuple[Site, dict[str, HttpBackend]]]:
    """A manifold in front of three stdio and two HTTP servers, all of them ready."""
    async with AsyncExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="soak-")))
        webs = {name: await stack.enter_async_context(HttpBackend(WEB)) for name in ("web_a", "web_b")}
        servers: dict[str, Any] = {name: stdio() for name in ("pipe_a", "pipe_b", "pipe_c")}
        servers |= {name: {"type": "http", "url": web.url} for name, web in webs.items()}
        config, log, out, port = directory / "mcp.json", directory / "log", directory / "out", free_port()
        config.write_text(config_of(servers))
        command = [sys.executable, "-m", "mcp_manifold", "serve", "-c", str(config), "--port", str(port)]
        env = {**os.environ, "XDG_STATE_HOME": str(directory)}
        process = stack.enter_context(running(command, log, out=out, env=env, cwd=directory))
        site = Site(Program(process, port, config, log, out), servers)
        await until(lambda: process.poll() is not None or out.read_text() != "", "the start")
        await until_probe(site.program, 200)
        await until(site.are_ready, f"the servers to become ready: {site.program.log[-3000:]}")
        yield site, webs
        await asyncio.to_thread(stop, process)  # the servers in this process have to see the manifold leave
