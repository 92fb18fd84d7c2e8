"""Processes: whatever ends, and however, nothing of it stays; and what is told to end does so in order."""

import asyncio
import contextlib
import os
import resource
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from mcp_manifold import Manifold
from mcp_manifold.backends.process import orphans
from mcp_manifold.config.environment import INHERITED, PROCESS_MARK, inherited
from mcp_manifold.errors import BackendUnavailable
from tests.contract.offers import offering
from tests.contract.stand import LATEST, entry_of, refused, standing, until_well
from tests.faults.invariants import BYSTANDER, enduring, unharmed
from tests.peers.backend import Act, HttpBackend, Script, StdioBackend, named, tool
from tests.peers.clients import MODERN_VERSION, HttpClient, ModernClient, SseClient
from tests.peers.processes import is_running, kill, until, zombies
from tests.peers.program import Program, answer_of, config_in, connected, over_stdio, serving, status_of, until_probe
from tests.peers.ways import Way

pytestmark = [pytest.mark.anyio, pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")]

HOST = replace(offering("pipe"), tools=(tool("echo"), tool("hang", Act("hang")), tool("spawn", Act("spawn"))))
STUBBORN = replace(named("stubborn"), name="pipe", tools=HOST.tools)
SUBREAPER = """\
import ctypes, os, sys
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""
PING = b'{"jsonrpc":"2.0","id":1,"method":"ping"}'


@asynccontextmanager
async def program(
    directory: Path, script: Script = HOST, *, wrap: list[str] | None = None, **options: Any
) -> AsyncIterator[tuple[Program, StdioBackend, HttpClient]]:
    """`serve` over one stdio backend, with a client."""
    async with AsyncExitStack() as stack:
        backend = await stack.enter_async_context(StdioBackend(script))
        entry = entry_of(backend)
        if wrap is not None:
            entry |= {"command": wrap[0], "args": [*wrap[1:], entry["command"], *entry["args"]]}
        entry |= options.pop("entry", {})
        servers = {"pipe": entry, **options.pop("others", {})}
        config = config_in(directory, servers, **options.pop("manifold", {}))
        served = await stack.enter_async_context(serving(config, **options))
        client = await connected(served)
        stack.push_async_callback(client.close)
        yield served, backend, client


@asynccontextmanager
async def enduring_program(
    directory: Path, script: Script = HOST, **options: Any
) -> AsyncIterator[tuple[Program, StdioBackend, HttpClient]]:
    """`program`, with a bystander beside its backend, and what holds whatever goes wrong asserted in the end."""
    async with AsyncExitStack() as stack:
        untouched = await stack.enter_async_context(HttpBackend(offering(BYSTANDER)))
        others = {BYSTANDER: entry_of(untouched)}
        served, backend, _ = await stack.enter_async_context(program(directory, script, others=others, **options))
        bystander = await stack.enter_async_context(ModernClient(served.url))
        await bystander.connect()
        await stack.enter_async_context(unharmed(served, bystander))
        async with await connected(served) as client:  # who is gone when it is counted
            yield served, backend, client
            await client.delete()


async def spawned(client: Any) -> int:
    """A process that the backend started and that nobody but its group's end ends."""
    found: int = (await client.call("pipe__spawn")).value["structuredContent"]["pid"]
    assert is_running(found)
    return found


# --- a backend dies, hangs, or never lives --------------------------------------------------------------------------


async def test_r1_a_killed_child_fails_its_calls_is_started_again_and_is_no_zombie(tmp_path: Path) -> None:
    async with enduring_program(tmp_path) as (served, backend, client):
        grandchild = await spawned(client)
        calls = [await client.begin("tools/call", {"name": "pipe__hang"}) for _ in range(20)]
        await backend.wait_for("tools/call", count=21)
        (child,) = backend.pids
        os.kill(child, signal.SIGKILL)
        for each in calls:
            assert "killed by SIGKILL" in refused(await each.reply(), "pipe", "BackendLost")["message"]
        await until_well(client, "pipe__echo")
        await until(lambda: not is_running(grandchild), "the end of what it had started")
        assert not psutil.pid_exists(child)
        assert zombies(served.process.pid) == []


async def test_r2_a_stopped_child_costs_its_callers_a_timeout_and_works_when_it_goes_on(tmp_path: Path) -> None:
    async with enduring_program(tmp_path, entry={"timeout": "400ms"}) as (_, backend, client):
        (child,) = backend.pids
        os.kill(child, signal.SIGSTOP)
        try:
            refused(await client.call("pipe__echo", {"text": "x"}), "pipe", "BackendTimeout")
        finally:
            os.kill(child, signal.SIGCONT)
        await backend.wait_for("notifications/cancelled")  # it may have answered before it reads that
        assert (await client.call("pipe__echo", {"text": "its own"})).text == "its own"
        assert backend.pids == [child]


async def test_r3_a_server_that_exits_at_once_is_started_ever_more_rarely_and_says_why(tmp_path: Path) -> None:
    starts = tmp_path / "starts"
    script = f"echo start >> {starts}; echo 'KEY is not set' >&2; exit 3"
    broken = {"broken": {"command": "sh", "args": ["-c", script]}}
    async with enduring({}, more=broken) as stand:
        status = partial(stand.status, "broken")
        await until(lambda: len(starts.read_text().split()) >= 5 if starts.exists() else False, "five starts")
        await until(lambda: status().state == "crash loop", "the fifth end")
        assert status().last_exit == "the server exited with status 3"
        assert status().stderr[-1] == "KEY is not set"
        assert "KEY is not set" in status().last_error
        assert (status().next_try or 0) > 20  # at most one start in 30 s, from now on
        with pytest.raises(BackendUnavailable, match="5 times in a row"):
            await stand.manifold.call_tool("broken__anything")
        assert len(starts.read_text().split()) == 5


# --- the program is killed ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("script", [HOST, STUBBORN], ids=["polite", "stubborn"])
async def test_r25_nothing_survives_a_killed_manifold(tmp_path: Path, script: Script) -> None:
    async with program(tmp_path, script) as (served, backend, client):
        grandchild = await spawned(client)
        (child,) = backend.pids
        family = [each.pid for each in served.family()]
        assert {child, grandchild} < set(family)
        served.send(signal.SIGKILL)
        await until(lambda: not any(is_running(pid) for pid in family), "the end of all it had started")


async def test_r25_nothing_survives_a_killed_manifold_over_stdio(tmp_path: Path) -> None:
    async with StdioBackend(STUBBORN) as backend:
        config = config_in(tmp_path, {"pipe": entry_of(backend)})
        async with over_stdio(config) as client:
            grandchild = await spawned(client)
            family = [each.pid for each in psutil.Process(client.process.pid).children(recursive=True)]
            assert {grandchild, *backend.pids} < set(family)
            client.process.kill()
            await client.wait_ended()
            await until(lambda: not any(is_running(pid) for pid in family), "the end of all it had started")


async def test_r25_what_even_the_warden_left_is_swept_at_the_next_start(tmp_path: Path) -> None:
    async with StdioBackend(HOST) as backend:
        config = config_in(tmp_path, {"pipe": entry_of(backend)})
        async with serving(config) as served, await connected(served) as client:
            orphan = await spawned(client)
            served.warden().kill()
            served.send(signal.SIGKILL)
            await backend.wait_all_gone()
            assert is_running(orphan)
        try:
            async with serving(config) as successor:
                assert not is_running(orphan)  # by whichever manifold started first on this machine
                async with await connected(successor) as client:
                    await until_well(client, "pipe__echo")
        finally:
            kill(orphan)


async def test_r25_the_processes_of_a_manifold_that_lives_are_not_swept(tmp_path: Path) -> None:
    async with program(tmp_path) as (_, backend, client):
        grandchild = await spawned(client)
        other = tmp_path / "other"
        other.mkdir()
        async with serving(config_in(other, {"gone": {"command": "false"}})):
            assert is_running(grandchild)
            await until_well(client, "pipe__echo")
            assert len(backend.children) == 1


# --- wrappers and zombies -------------------------------------------------------------------------------------------

WRAPPER = ["sh", "-c", '"$@"; exit $?', "sh"]
"""As `npx` and `uvx` are: a process around the one that does the work."""


async def test_r26_stopping_takes_the_server_behind_a_wrapper_along(tmp_path: Path) -> None:
    async with program(tmp_path, STUBBORN, wrap=WRAPPER) as (served, backend, client):
        family = [await spawned(client), *backend.pids, *(each.pid for each in served.family())]
        served.send(signal.SIGTERM)
        assert await served.ended() == 0, served.log
        assert not any(is_running(pid) for pid in family)


async def test_r26_a_killed_wrapper_takes_its_server_along_and_both_are_started_again(tmp_path: Path) -> None:
    async with enduring_program(tmp_path, wrap=WRAPPER) as (_, backend, client):
        (server,) = backend.pids
        wrapper = psutil.Process(server).parent()
        assert wrapper is not None
        wrapper.kill()
        await until(lambda: not is_running(server), "the end of the server")
        await until_well(client, "pipe__echo")
        assert len(backend.children) == 2


async def test_orphans_that_become_our_children_are_no_zombies(tmp_path: Path) -> None:
    async with enduring_program(tmp_path, prefix=("-c", SUBREAPER)) as (served, backend, client):
        orphan = await spawned(client)
        os.kill(backend.pids[0], signal.SIGKILL)  # its group is ended then, and who is left is ours
        await until(lambda: not psutil.pid_exists(orphan), "somebody to take leave of the orphan")
        await until_well(client, "pipe__echo")
        assert zombies(served.process.pid) == []


# --- the program is told to end -------------------------------------------------------------------------------------


async def test_r24_what_is_in_flight_finishes_and_what_is_new_is_refused(tmp_path: Path) -> None:
    async with program(tmp_path) as (served, backend, client):
        calls = [await client.begin("tools/call", {"name": "pipe__hang"}) for _ in range(50)]
        stream = await client.open_get_stream()
        await backend.wait_for("tools/call", count=50)
        family = [each.pid for each in served.family()]
        served.send(signal.SIGTERM)
        await until_probe(served, 503)
        assert await status_of(served, "/_healthz") == 200
        answer = (await answer_of(served.port, "/mcp", PING)).lower()
        assert answer.startswith(b"http/1.1 503 ")
        assert b"\r\nretry-after: " in answer
        assert b"\r\nconnection: close\r\n" in answer
        assert (await client.post(PING)).status == 503  # on a connection that was kept, too
        assert stream.status == 200
        assert not any(each.is_done for each in calls)
        await backend.release()
        for each in calls:
            assert (await each.reply()).error is None
        assert await served.ended() == 0, served.log
        await until(lambda: stream.has_ended, "the end of the standing stream")
        assert not any(is_running(pid) for pid in family)
        assert "Traceback" not in served.log


@pytest.mark.parametrize("way", [Way("sse", LATEST), Way("http", MODERN_VERSION)], ids=str)
async def test_r24_answers_arrive_whichever_way_they_go_and_watching_holds_nothing_up(tmp_path: Path, way: Way) -> None:
    async with program(tmp_path, manifold={"drain": "1h"}) as (served, backend, _):
        kind, path = (SseClient, "sse") if way.transport == "sse" else (ModernClient, "mcp")
        async with kind(f"http://127.0.0.1:{served.port}/{path}") as client:
            await client.connect(way.version)
            if way.transport != "sse":
                await client.watch()
            pending = await client.begin("tools/call", {"name": "pipe__hang"})
            await backend.wait_for("tools/call")
            served.send(signal.SIGTERM)
            await until_probe(served, 503)
            assert not pending.is_done
            await backend.release()
            assert (await pending.reply()).error is None
            assert await served.ended() == 0, served.log


async def test_r24_what_does_not_finish_is_not_waited_for_longer_than_said(tmp_path: Path) -> None:
    async with program(tmp_path, manifold={"drain": "300ms"}) as (served, backend, client):
        pending = await client.begin("tools/call", {"name": "pipe__hang"})
        await backend.wait_for("tools/call")
        served.send(signal.SIGINT)
        assert await served.ended() == 0, served.log
        with contextlib.suppress(ConnectionError):
            assert (await pending.reply()).error is not None


async def test_r24_a_second_signal_ends_everything_at_once(tmp_path: Path) -> None:
    async with program(tmp_path, STUBBORN, manifold={"drain": "1h"}) as (served, backend, client):
        await client.begin("tools/call", {"name": "pipe__hang"})
        await backend.wait_for("tools/call")
        family = [await spawned(client), *(each.pid for each in served.family())]
        served.send(signal.SIGTERM)
        await until_probe(served, 503)
        served.send(signal.SIGTERM)
        assert await served.ended() == 0, served.log
        assert not any(is_running(pid) for pid in family)


# --- out of descriptors ---------------------------------------------------------------------------------------------


def few_files() -> None:
    """Limit this process to 128 descriptors."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (128, 128))


async def test_r21_without_descriptors_connections_are_shed_and_it_recovers(tmp_path: Path) -> None:
    async with enduring_program(tmp_path, before=few_files) as (served, _, client):
        own = psutil.Process(served.process.pid)
        crowd = []
        try:
            for _ in range(200):
                each = socket.socket()
                each.setblocking(False)
                each.connect_ex(("127.0.0.1", served.port))
                crowd.append(each)
            await until(lambda: own.num_fds() > 110, "the descriptors to run out")
            before = sum(own.cpu_times()[:2])
            assert (await client.call("pipe__echo", {"text": "x"})).text == "x"
            await asyncio.sleep(1)  # in which a loop that accepts in vain would burn a second
            assert sum(own.cpu_times()[:2]) - before < 0.5
        finally:
            for each in crowd:
                each.close()
        await until(lambda: own.num_fds() < 60, "the descriptors to come back")
        assert await status_of(served, "/_readyz") == 200
        await until_well(client, "pipe__echo")


# --- what a process is given ----------------------------------------------------------------------------------------


async def told(settings: dict[str, Any], script: str, **manifold: Any) -> list[str]:
    """What a server says on stderr in its first moments."""
    entry = {"command": "sh", "args": ["-c", f"exec 1>&2; {script}; exit 1"], **settings}
    async with Manifold.from_config({"manifold": manifold, "mcpServers": {"teller": entry}}) as running:
        await until(lambda: running.status()[0].last_exit != "", "the end of the server")
        return list(running.status()[0].stderr)


async def test_s37_a_server_gets_the_usual_variables_our_mark_and_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUR_SECRET", "hush")
    assert orphans.MARK == PROCESS_MARK
    names = await told({"env": {"MINE": "1"}}, "env | cut -d= -f1")
    assert set(names) - {"PWD", "OLDPWD", "SHLVL", "_"} <= {*inherited(), *INHERITED, PROCESS_MARK, "MINE"}
    assert {PROCESS_MARK, "MINE"} <= set(names)


async def test_rlimits_bound_each_process_of_a_server() -> None:
    limits = {"rlimits": {"memory": "300MiB", "files": 100, "cpu": 20}}
    script = "ulimit -n; ulimit -t; ulimit -d"
    assert (await told(limits, script))[:3] == ["100", "20", str(300 * 1024)]
    assert (await told({}, script))[:3] != ["100", "20", str(300 * 1024)]


async def test_a_server_over_its_memory_ends_and_says_so() -> None:
    eater = 'import sys; sys.stderr.write("begun\\n"); x = bytearray(400 * 2**20)'
    limits = {"command": sys.executable, "args": ["-c", eater], "rlimits": {"memory": "200MiB"}}
    assert (await told(limits, "true"))[-1] == "MemoryError"


async def test_the_path_of_the_login_shell_is_taken_when_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shell, tool_ = tmp_path / "shell", tmp_path / "bin" / "only-here"
    tool_.parent.mkdir()
    shell.write_text(f'#!/bin/sh\necho welcome\nPATH="$PATH:{tool_.parent}"\neval "$2"\n')
    tool_.write_text("#!/bin/sh\necho found >&2\nexit 1\n")
    for each in (shell, tool_):
        each.chmod(0o755)
    monkeypatch.setenv("SHELL", str(shell))
    entry = {"command": "only-here", "args": []}
    assert (await told(entry, "true", loginShellPath=True))[0] == "found"
    async with Manifold.from_config({"mcpServers": {"teller": entry}}) as running:
        await running.settle()
        assert "was not found on PATH" in running.status()[0].last_error


async def test_a_login_shell_that_fails_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shell = tmp_path / "shell"
    shell.write_text("#!/bin/sh\nexit 1\n")
    shell.chmod(0o755)
    monkeypatch.setenv("SHELL", str(shell))
    assert await told({}, "echo $PATH", loginShellPath=True) == [os.environ["PATH"]]


async def test_the_warden_leaves_with_its_manifold_and_is_replaced_when_it_dies() -> None:
    def wardens() -> list[psutil.Process]:
        found = psutil.Process().children()
        return [each for each in found if is_running(each.pid) and "mcp-manifold-warden" in each.cmdline()]

    async with standing({"pipe": HOST}) as stand, stand.client(Way("http", LATEST)) as client:
        assert (await client.call("pipe__echo", {"text": "x"})).text == "x"
        (first,) = wardens()
        first.kill()
        await until(lambda: not is_running(first.pid), "the end of the first warden")
        os.kill(stand["pipe"].pids[0], signal.SIGKILL)
        await until_well(client, "pipe__echo")
        await until(lambda: [each.pid for each in wardens()] not in ([], [first.pid]), "another warden")
    await until(lambda: wardens() == [], "the end of the warden")
