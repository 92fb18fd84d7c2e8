"""What a manifold stands on gives way: names, clocks, disks, files, directories."""

import os
import resource
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.contract.offers import offering, offerings
from tests.contract.stand import LATEST, Stand, entry_of, refused, until_well
from tests.faults.invariants import enduring
from tests.peers.backend import HttpBackend, StdioBackend
from tests.peers.processes import until
from tests.peers.program import config_in, connected, serving
from tests.peers.ways import Way

pytestmark = pytest.mark.anyio

HTTP = Way("http", LATEST)


# --- names (R31) -----------------------------------------------------------------------------------------------------


class Resolver:
    """In the place of the system's: what the one name is, and how long it takes to tell."""

    def __init__(self) -> None:
        self.port: int | None = None
        """Where the name leads; None: it does not exist."""
        self.answers = threading.Event()
        self.asked = 0
        self._real = socket.getaddrinfo

    def __call__(self, host: Any, port: Any, *rest: Any, **more: Any) -> Any:
        if host != "backend.test":
            return self._real(host, port, *rest, **more)
        self.asked += 1
        assert threading.current_thread() is not threading.main_thread(), "the loop waits for a name"
        assert self.answers.wait(20)
        if self.port is None:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", self.port))]


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> Resolver:
    made = Resolver()
    monkeypatch.setattr(socket, "getaddrinfo", made)
    return made


async def last_error(stand: Stand, server: str) -> str:
    await until(lambda: stand.status(server).last_error != "", "an error")
    return str(stand.status(server).last_error)


BY_NAME = {"web": {"url": "http://backend.test/mcp"}}


async def test_r31_a_name_that_takes_long_keeps_nobody_else_waiting(resolver: Resolver) -> None:
    quick = {"startupTimeout": "300ms"}
    async with enduring(offerings(("web",)), manifold=quick, **BY_NAME) as stand, stand.client(HTTP) as client:
        await until(lambda: resolver.asked > 0, "the name to be asked for")
        tools = (await client.request("tools/list")).value["tools"]
        assert not [each for each in tools if each["name"].startswith("web__")]
        resolver.port = stand["web"].port
        resolver.answers.set()
        await until(lambda: stand.status("web").last_error == "", "the server to be reached")
        await until_well(client, "web__echo")


async def test_r31_a_name_that_does_not_exist_is_said_and_looked_up_again(resolver: Resolver) -> None:
    resolver.answers.set()
    async with enduring(offerings(("web",)), **BY_NAME) as stand, stand.client(HTTP) as client:
        assert "the name cannot be resolved" in await last_error(stand, "web")
        refused(await client.call("web__echo"), "web", "BackendUnavailable")
        resolver.port = stand["web"].port
        await until_well(client, "web__echo")


async def test_r31_a_name_that_leads_elsewhere_now_is_followed(resolver: Resolver) -> None:
    resolver.answers.set()
    async with HttpBackend(offering("web")) as other:
        resolver.port = other.port
        async with enduring(offerings(("web",)), **BY_NAME) as stand, stand.client(HTTP) as client:
            await until_well(client, "web__echo")
            resolver.port = stand["web"].port
            await other.refuse()
            await until_well(client, "web__echo")
            assert stand["web"].calls("tools/call")


# --- clocks (R32) ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("jump", [3600.0, -3600.0])
async def test_r32_a_clock_that_jumps_ends_no_wait(monkeypatch: pytest.MonkeyPatch, jump: float) -> None:
    async with enduring(offerings(("pipe", "web"))) as stand, stand.client(HTTP) as client:
        calls = [await client.begin("tools/call", {"name": f"{kind}__hang"}) for kind in ("pipe", "web")]
        for kind in ("pipe", "web"):
            await stand[kind].wait_for("tools/call")
        real = time.time
        monkeypatch.setattr(time, "time", lambda: real() + jump)
        for kind in ("pipe", "web"):
            assert (await client.call(f"{kind}__echo", {"text": "on"})).text == "on"
        assert not any(each.is_done for each in calls)
        for kind in ("pipe", "web"):
            await stand[kind].release()
        assert [(await each.reply()).error for each in calls] == [None, None]


# --- disks (R23) -----------------------------------------------------------------------------------------------------


def full() -> None:
    """No file can be written any more, as on a full disk."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


@pytest.mark.skipif(sys.platform != "linux", reason="has /dev/full")
@pytest.mark.parametrize("what", ["log", "files"])
async def test_r23_it_serves_on_when_nothing_can_be_written(tmp_path: Path, what: str) -> None:
    async with StdioBackend(offering("pipe")) as backend:
        config = config_in(tmp_path, {"pipe": entry_of(backend)}, logLevel="debug")
        before: Callable[[], None] | None = full if what == "files" else None
        sink = Path("/dev/full") if what == "log" else None
        async with serving(config, before=before, sink=sink) as served:
            async with await connected(served) as client:
                assert (await client.call("pipe__echo", {"text": "x"})).text == "x"
                os.kill(backend.pids[0], signal.SIGKILL)
                await until_well(client, "pipe__echo")
            served.send(signal.SIGTERM)
            assert await served.ended() == 0
