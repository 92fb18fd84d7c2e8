"""Faults nobody listed, as a careless or hostile hand makes them: commands, files, answers, floods, signals."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from mcp_manifold.config import load_dict
from tests.contract.offers import offering, offerings
from tests.contract.stand import LATEST, Stand, entry_of, refused, until_well
from tests.faults.invariants import BYSTANDER, enduring
from tests.faults.test_processes import enduring_program
from tests.peers import BOUND
from tests.peers.backend import Act, Offer, StdioBackend, tool
from tests.peers.processes import until
from tests.peers.program import config_in, connected, serving, status_of
from tests.peers.ways import Way

pytestmark = [pytest.mark.anyio, pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")]

HTTP = Way("http", LATEST)
QUICK = {"startupTimeout": "500ms"}


def told(stand: Stand, server: str) -> str:
    """What is said of a server."""
    return f"{stand.status(server).last_error} {stand.status(server).last_exit}"


# --- commands that are none ------------------------------------------------------------------------------------------

COMMANDS: dict[str, tuple[dict[str, Any], str]] = {
    "a_directory": ({"command": "DIR"}, "is a directory"),
    "not_executable": ({"command": "FILE"}, "is not executable"),
    "nowhere": ({"command": "/no/such/program"}, "was not found: install it"),
    "no_program": ({"command": "HOLLOW"}, "could not be started: Exec format error"),
    "no_interpreter": ({"command": "SCRIPT"}, "could not be started: No such file or directory"),
    "too_long": ({"command": "cat", "args": ["x" * 3_000_000]}, "could not be started: Argument list too long"),
    "no_text": ({"command": "cat", "args": ["\ud800"]}, "NUL or an invalid character"),
    "in_a_file": ({"command": "cat", "cwd": "FILE"}, "working directory"),
    "no_host": ({"url": "http://a..b/mcp"}, "url cannot be used"),
    "a_long_host": ({"url": f"http://{'a' * 300}.test/mcp"}, "url cannot be used"),
    "no_memory": ({"command": "cat", "rlimits": {"memory": 1}}, "the server"),
    "an_echo_of_us": ({"command": "cat", "timeout": "1s"}, "invalid output on stdout: "),
    "at_once_over": ({"command": "true"}, "exited with status 0"),
    "half_a_line": ({"command": "printf", "args": ['{"jsonrpc":"2.0","id":1,"resu']}, "exited with status 0"),
    "a_child_left": ({"command": "sh", "args": ["-c", "sleep 1000 & exit 3"]}, "exited with status 3"),
    "no_stdout": ({"command": "sh", "args": ["-c", "exec 1>&-; exec sleep 1000"]}, "closed its stdout"),
    "no_stdin": ({"command": "sh", "args": ["-c", "exec 0<&-; exec sleep 1000"]}, "closed its stdin"),
}


async def test_commands_that_are_no_servers_are_told_of_in_words_and_cost_nobody_anything(tmp_path: Path) -> None:
    made = {"DIR": tmp_path, **{each: tmp_path / each.lower() for each in ("FILE", "HOLLOW", "SCRIPT")}}
    made["FILE"].write_text("x")
    made["FILE"].chmod(0o644)
    for each, text in (("HOLLOW", ""), ("SCRIPT", "#!/no/such/interpreter\n")):
        made[each].write_text(text)
        made[each].chmod(0o755)
    bad = {name: {key: _filled(value, made) for key, value in entry.items()} for name, (entry, _) in COMMANDS.items()}
    async with enduring({}, manifold=QUICK, more=bad) as stand, stand.client(HTTP) as client:
        for name, (_, words) in COMMANDS.items():
            await until(lambda name=name, words=words: words in told(stand, name), f"{words!r} of {name!r}")  # type: ignore[misc]
            error = json.loads((await client.call(f"{name}__echo")).error or b"{}")
            assert (error["data"]["server"], error["data"]["reason"]) == (name, "BackendUnavailable"), error


def _filled(value: Any, made: Mapping[str, Path]) -> Any:
    return str(made.get(value, value)) if isinstance(value, str) else value


# --- floods ----------------------------------------------------------------------------------------------------------

FLOODS: dict[str, tuple[dict[str, Any], str]] = {
    "lines": ({"command": "yes"}, "too many invalid messages"),
    "line": ({"command": "cat", "args": ["/dev/zero"]}, "line without an end"),
    "stderr": ({"command": "sh", "args": ["-c", "yes >&2"], "timeout": "1s"}, ""),
}


async def test_servers_that_flood_us_are_ended_or_ignored(caplog: pytest.LogCaptureFixture) -> None:
    floods = {name: entry for name, (entry, _) in FLOODS.items()}
    small = {**QUICK, "limits": {"maxMessage": 1_000_000}}
    async with enduring({}, manifold=small, more=floods) as stand, stand.client(HTTP) as client:
        for name, (_, words) in FLOODS.items():
            await until(lambda name=name, words=words: words in told(stand, name), f"{words!r} of {name!r}")  # type: ignore[misc]
            refused(await client.call(f"{name}__echo"), name, "BackendUnavailable")
            del stand.config["mcpServers"][name]
        await stand.manifold.reload(load_dict(stand.config))
    assert len(caplog.records) < 5000


async def test_a_server_that_floods_its_callers_with_progress_and_messages_hurts_nobody_else() -> None:
    floods = tool("flood", Act("log", n=10_000, then=Act("progress", n=10_000)))
    script = replace(offering("pipe"), tools=(floods, tool("echo")))
    async with enduring({"pipe": script}) as stand, stand.client(HTTP) as client:
        call = {"name": "pipe__flood", "arguments": {"text": "behind it"}, "_meta": {"progressToken": 1}}
        assert (await client.request("tools/call", call, timeout=BOUND)).text == "behind it"
        assert (await client.call("pipe__echo", {"text": "next"})).text == "next"


async def test_a_server_that_does_not_read_refuses_calls_and_does_not_fill_our_memory() -> None:
    limits = {"limits": {"maxMessage": 200_000, "maxBody": 1_000_000}}
    async with enduring(offerings(("pipe",)), manifold=limits) as stand, stand.client(HTTP) as client:
        (pid,) = stand["pipe"].pids
        os.kill(pid, signal.SIGSTOP)
        try:
            calls = [
                await client.begin("tools/call", {"name": "pipe__echo", "arguments": {"text": "x" * 100_000}})
                for _ in range(20)
            ]
            await until(lambda: any(each.is_done for each in calls), "the first refusal")
            refused = [await each.reply() for each in calls if each.is_done]
            assert all(b"does not read its stdin" in (each.error or b"") for each in refused), refused
        finally:
            os.kill(pid, signal.SIGCONT)
        for each in calls:
            await each.reply()


# --- answers nobody asked for, or nobody can take ----------------------------------------------------------------


NESTED = "[" * 50_000 + "]" * 50_000
ODD_TOOLS = (
    tool("echo"),
    tool("x" * 1_000_000),
    tool(""),
    tool("\x1b[31m\x00\u202e"),
    tool("a/b c+d__e"),
    tool("echo"),  # once more
    *(tool(f"t{number}") for number in range(2000)),
)


@pytest.mark.parametrize("kind", ["web", "web26"])
async def test_tools_with_impossible_names_are_listed_so_that_they_can_be_called_or_not_at_all(kind: str) -> None:
    async with enduring({kind: replace(offering(kind), tools=ODD_TOOLS)}) as stand, stand.client(HTTP) as client:
        listed = [each["name"] for each in (await client.request("tools/list")).value["tools"]]
        ours = [name for name in listed if name.startswith(f"{kind}__")]
        assert len(ours) == len(set(ours)) >= 2003
        assert max(map(len, ours)) <= 64
        for name in (
            f"{kind}__echo",
            f"{kind}__t1999",
            *[each for each in ours if not each[len(kind) + 2 :].isalnum()],
        ):
            assert (await client.call(name, {"text": name})).text == name


@pytest.mark.parametrize("kind", ["pipe", "web26", "stream"])
async def test_an_answer_nested_without_end_costs_its_own_call(kind: str) -> None:
    tools = (tool("deep", Act("raw", f'{{"content":[],"x":{NESTED}}}')), tool("echo"))
    async with enduring({kind: replace(offering(kind), tools=tools)}) as stand, stand.client(HTTP) as client:
        reply = await client.exchange(
            b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"%b__deep"}}' % kind.encode(),
            client.headers_for(None),
        )
        assert reply.status == 200
        assert (await client.call(f"{kind}__echo", {"text": "next"})).text == "next"


async def test_a_list_nested_without_end_is_no_list_and_hides_nobody_elses() -> None:
    deep = Offer(f'{{"name":"deep","inputSchema":{{"type":"object","x":{NESTED}}}}}')
    async with (
        enduring({"web": replace(offering("web"), tools=(deep,))}, manifold=QUICK) as stand,
        stand.client(HTTP) as client,
    ):
        listing = b'{"jsonrpc":"2.0","id":1,"method":"tools/list"}'
        reply = await client.exchange(listing, client.headers_for(None))
        assert f"{BYSTANDER}__echo".encode() in reply.body
        assert NESTED.encode() not in reply.body


@pytest.mark.parametrize("kind", ["pipe", "web", "stream"])
async def test_half_an_answer_and_then_the_end_is_the_end_of_its_own_calls_only(kind: str) -> None:
    script = replace(offering(kind), tools=(tool("half", Act("cut")), tool("echo")))
    async with enduring({kind: script}) as stand, stand.client(HTTP) as client:
        for _ in range(2):
            refused(await client.call(f"{kind}__half"), kind)
            await until_well(client, f"{kind}__echo")


# --- clients that only take room -----------------------------------------------------------------------------------


async def test_requests_that_are_begun_and_never_ended_hold_nobody_up(tmp_path: Path) -> None:
    async with enduring_program(tmp_path) as (served, _, client):
        begun = []
        for head in (b"", b"POST /mcp HT", b"POST /mcp HTTP/1.1\r\nHost: 127.0.0.1\r\n", HALF_BODY) * 10:
            _, writer = await asyncio.open_connection("127.0.0.1", served.port)
            writer.write(head)
            begun.append(writer)
        assert (await client.call("pipe__echo", {"text": "x"})).text == "x"
        for writer in begun:
            writer.close()


HALF_BODY = b"POST /mcp HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{"


# --- signals ---------------------------------------------------------------------------------------------------------


async def test_a_manifold_that_was_stopped_for_a_while_goes_on_as_if_nothing_had_been(tmp_path: Path) -> None:
    async with enduring_program(tmp_path, entry={"timeout": "2s", "pingInterval": "300ms"}) as (
        served,
        backend,
        client,
    ):
        calls = [
            await client.begin("tools/call", {"name": "pipe__hang", "arguments": {"text": str(n)}}) for n in range(5)
        ]
        await backend.wait_for("tools/call", count=5)
        (child,) = backend.pids
        served.send(signal.SIGSTOP)
        await backend.release()  # so that the answers are there, unread
        await asyncio.sleep(3)  # longer than the calls may take
        served.send(signal.SIGCONT)
        assert [(await each.reply()).text for each in calls] == [str(n) for n in range(5)]
        assert (await client.call("pipe__echo", {"text": "on"})).text == "on"
        assert backend.pids == [child]


async def test_signals_that_mean_nothing_to_it_do_not_end_it(tmp_path: Path) -> None:
    async with enduring_program(tmp_path) as (served, backend, client):
        for number in (signal.SIGHUP, signal.SIGPIPE, signal.SIGWINCH, signal.SIGCHLD, signal.SIGCONT):
            served.send(number)
            assert (await client.call("pipe__echo", {"text": number.name})).text == number.name
        assert len(backend.children) == 1


# --- files and directories ---------------------------------------------------------------------------------------


async def test_it_serves_on_in_a_directory_that_is_gone(tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    nowhere.mkdir()
    async with StdioBackend(offering("pipe")) as backend:
        config = config_in(tmp_path, {"pipe": entry_of(backend), "plain": {"command": "cat"}})
        async with serving(config, cwd=nowhere) as served:
            nowhere.rmdir()
            async with await connected(served) as client:
                os.kill(backend.pids[0], signal.SIGKILL)
                await until_well(client, "pipe__echo")
            assert await status_of(served, "/_readyz") == 200


async def test_a_configuration_that_becomes_something_else_changes_nothing(tmp_path: Path) -> None:
    async with StdioBackend(offering("pipe")) as backend:
        config = config_in(tmp_path, {"pipe": entry_of(backend)}, watch=True)
        text = config.read_text()
        async with serving(config) as served:
            async with await connected(served) as client:
                for how in ("a directory", "gone", "a loop of links", "a pipe", "empty", "huge", "not text"):
                    before, said = served.log, len(served.said)
                    config.unlink()
                    become(config, how)
                    await until(lambda: served.log.count("not reloaded") > before.count("not reloaded"), how)  # noqa: B023
                    assert (await client.call("pipe__echo", {"text": how})).text == how
                    config.rmdir() if how == "a directory" else config.unlink(missing_ok=True)
                    config.write_text(text)
                    await served.says("reloaded: nothing changed", after=said)
            assert len(backend.children) == 1


def become(path: Path, how: str) -> None:
    """Put something at the path that is no configuration."""
    match how:
        case "a directory":
            path.mkdir()
        case "a loop of links":
            path.symlink_to(path)
        case "a pipe":
            os.mkfifo(path)
        case "empty":
            path.write_text("")
        case "huge":
            path.write_bytes(b"[" * 5_000_000)
        case "not text":
            path.write_bytes(b"\xff\xfe\x00{")


async def test_a_file_that_is_a_pipe_breaks_its_server_and_holds_nobody_up(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    bad = {
        "by_file": {"command": "cat", "envFile": str(pipe)},
        "by_reference": {"command": "cat", "args": [f"${{file:{pipe}}}"]},
        "endless": {"command": "cat", "args": ["${file:/dev/zero}"]},
    }
    async with StdioBackend(offering("pipe")) as backend:
        config = config_in(tmp_path, {"pipe": entry_of(backend), **bad})
        async with serving(config) as served, await connected(served) as client:
            assert (await client.call("pipe__echo", {"text": "x"})).text == "x"
            async with await client.caller.send("GET", target="/health/servers") as answer:
                found = {each["name"]: each for each in json.loads(await answer.body.all())["servers"]}
        assert {found[name]["state"] for name in bad} == {"broken"}
        assert "a pipe that nobody writes to" in found["by_file"]["lastError"]
        assert "larger than" in found["endless"]["lastError"]


@pytest.mark.parametrize("state_home", ["a file", "read-only"])
async def test_a_state_directory_that_cannot_be_used_is_done_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state_home: str
) -> None:
    place = tmp_path / "state"
    if state_home == "a file":
        place.write_text("x")
    monkeypatch.setenv("XDG_STATE_HOME", "/proc/1" if state_home == "read-only" else str(place))
    async with (
        StdioBackend(offering("pipe")) as backend,
        serving(config_in(tmp_path, {"pipe": entry_of(backend)})) as served,
    ):
        async with await connected(served) as client:
            assert (await client.call("pipe__echo", {"text": "x"})).text == "x"
        served.send(signal.SIGTERM)
        assert await served.ended() == 0


# --- other people's processes ----------------------------------------------------------------------------------------


async def test_everything_it_started_killed_at_once_comes_back(tmp_path: Path) -> None:
    async with enduring_program(tmp_path) as (served, backend, client):
        for _ in range(3):
            for each in served.family():
                os.kill(each.pid, signal.SIGKILL)
            await until_well(client, "pipe__echo")
        assert not [each for each in psutil.Process(served.process.pid).children() if each.status() == "zombie"]
        assert len(backend.children) == 4
