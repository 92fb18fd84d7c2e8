"""Reloading under load: what a change does not touch does not notice it, what it touches serves the new definition."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from mcp_manifold.config import Reloaded, load_dict
from mcp_manifold.errors import ConfigError
from tests.contract.offers import offering, offerings
from tests.contract.stand import LATEST, Stand, backend_of, entry_of, standing
from tests.faults.invariants import unharmed
from tests.faults.programs import held_by, is_at_rest, stumbles
from tests.flows.processes import Holdings, is_running, until
from tests.peers.backend import Act, StdioBackend, tool
from tests.peers.clients import MODERN_VERSION, Client, HttpClient, Reply, StdioClient
from tests.peers.ways import Way

pytestmark = pytest.mark.anyio

HTTP = Way("http", LATEST)
CHANGED = "notifications/tools/list_changed"
BOUND = 20.0
"""Seconds anything may take."""
AT_ONCE = 8
"""Calls in flight at any time at each untouched server."""


# --- a real program -----------------------------------------------------------------------------------------------


class Program:
    """A running `serve`, and its configuration file."""

    def __init__(self, file: Path, process: asyncio.subprocess.Process) -> None:
        self.file = file
        self.process = process
        self.said: list[str] = []
        self.log: list[str] = []
        self._grown = asyncio.Event()
        self._tasks = [
            asyncio.create_task(self._read(process.stdout, self.said)),
            asyncio.create_task(self._read(process.stderr, self.log)),
        ]

    async def _read(self, stream: asyncio.StreamReader | None, into: list[str]) -> None:
        assert stream is not None
        while line := await stream.readline():
            into.append(line.decode().rstrip())
            self._grown.set()

    async def says(self, start: str, *, after: int = 0) -> int:
        """Wait for a line that begins like this, behind the first `after`; how many lines there are with it."""
        try:
            async with asyncio.timeout(BOUND):
                while True:
                    for index, line in enumerate(self.said[after:], start=after):
                        if line.startswith(start):
                            return index + 1
                    self._grown.clear()
                    await self._grown.wait()
        except TimeoutError:
            raise AssertionError(f"never said {start!r}: {self.said} {self.log}") from None

    @property
    def url(self) -> str:
        """The merged endpoint."""
        return next(line.split()[1] for line in self.said if line.strip().startswith("everything"))

    async def holds(self) -> Holdings:
        """What it holds now."""
        return await held_by(self.process.pid, urlsplit(self.url).port or 0)

    async def rests(self) -> bool:
        """Whether it does nothing for a while."""
        return await is_at_rest(self.process.pid)

    def stumbled(self) -> list[str]:
        """Lines of its log that tell of a fault of its own."""
        return stumbles(self.log)

    def write(self, config: Mapping[str, Any] | str) -> None:
        """Write the file in place."""
        self.file.write_text(config if isinstance(config, str) else json.dumps(config))

    def replace(self, config: Mapping[str, Any]) -> None:
        """Write another file, and give it the name."""
        new = self.file.with_suffix(".new")
        new.write_text(json.dumps(config))
        new.replace(self.file)

    async def end(self) -> None:
        with suppress(ProcessLookupError):
            self.process.terminate()
        async with asyncio.timeout(BOUND):
            await self.process.wait()
            await asyncio.gather(*self._tasks)


@asynccontextmanager
async def program(file: Path, config: Mapping[str, Any], *options: str) -> AsyncIterator[Program]:
    _write(file, json.dumps(config))
    pipe = asyncio.subprocess.PIPE
    arguments = ["-m", "mcp_manifold", "serve", "--port", "0", "--config", str(file), *options]
    process = await asyncio.create_subprocess_exec(sys.executable, *arguments, stdout=pipe, stderr=pipe)
    made = Program(file, process)
    try:
        await made.says("  everything")
        yield made
    finally:
        await made.end()


async def command(*arguments: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command of ours."""
    pipe = asyncio.subprocess.PIPE
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "mcp_manifold", *arguments, stdout=pipe, stderr=pipe
    )
    async with asyncio.timeout(BOUND):
        said, log = await child.communicate()
    return child.returncode or 0, said.decode(), log.decode()


@asynccontextmanager
async def scripted(*servers: str) -> AsyncIterator[dict[str, Any]]:
    """Running scripted backends of these names."""
    made = {server: backend_of(server.partition("_")[0], offering(server)) for server in servers}
    started = []
    try:
        for each in made.values():
            await each.__aenter__()
            started += [each]
        yield made
    finally:
        for each in reversed(started):
            await each.__aexit__(None, None, None)


def _write(file: Path, text: str) -> None:
    file.write_text(text)


class Load:
    """The same number of calls at a time, over and over, at each of some tools."""

    def __init__(self, client: Client, tools: list[str]) -> None:
        self.failed: list[Reply] = []
        self.done = 0
        self._client = client
        self._is_over = False
        self._more = asyncio.Event()
        self._tasks = [asyncio.create_task(self._call(each, n)) for each in tools for n in range(AT_ONCE)]

    async def _call(self, name: str, number: int) -> None:
        count = 0
        while not self._is_over:
            count += 1
            text = f"{name} {number} {count}"
            reply = await self._client.call(name, {"text": text})
            if reply.error is not None or reply.text != text:
                self.failed.append(reply)
            self.done += 1
            self._more.set()

    async def goes_on(self) -> None:
        """Wait until each of them did at least one more call."""
        wanted = self.done + 2 * len(self._tasks)
        async with asyncio.timeout(BOUND):
            while self.done < wanted:
                self._more.clear()
                await self._more.wait()

    async def end(self) -> None:
        self._is_over = True
        async with asyncio.timeout(BOUND):
            await asyncio.gather(*self._tasks)


async def names(client: Client) -> list[str]:
    return [each["name"] for each in (await client.request("tools/list")).value["tools"]]


async def until_listed(client: Client, is_so: Callable[[list[str]], bool]) -> None:
    """List each time a change is announced, until it is so."""
    announced = sum(each.method == CHANGED for each in client.received)
    while not is_so(await names(client)):
        announced += 1
        await client.wait_for(CHANGED, count=announced, timeout=BOUND)


def servers_in(found: list[str]) -> set[str]:
    return {name.partition("__")[0] for name in found}


async def test_r27_nothing_fails_at_servers_a_change_does_not_touch(tmp_path: Path) -> None:
    async with scripted("pipe", "web", "web26", "pipe_other", "web_new") as backends:
        entries = {name: entry_of(backend) for name, backend in backends.items()}
        entries["pipe"]["cwd"] = str(StdioBackend.cwd)

        def config(*present: str, **changed: Mapping[str, Any]) -> dict[str, Any]:
            return {"mcpServers": {name: {**entries[name], **changed.get(name, {})} for name in present}}

        start = config("pipe", "web", "web26", "pipe_other")
        async with program(tmp_path / "mcp.json", start) as it, HttpClient(it.url) as client:
            assert (await client.connect(LATEST)).result is not None
            await client.watch()
            await until_listed(client, lambda found: servers_in(found) == set(start["mcpServers"]))
            pids, sessions = list(backends["pipe"].pids), set(backends["web"].sessions)
            load = Load(client, ["pipe__echo", "web__echo", "web26__echo"])
            await load.goes_on()
            async with unharmed(it, client, "web26__echo"):
                it.write(config("pipe", "web", "web26", "pipe_other", "web_new"))  # added
                await until_listed(client, lambda found: "web_new__echo" in found)
                assert (await client.call("web_new__echo", {"text": "new"})).text == "new"
                await load.goes_on()

                (old,) = backends["pipe_other"].pids
                it.replace(
                    config("pipe", "web", "web26", "pipe_other", "web_new", pipe_other={"env": {"CHANGED": "1"}})
                )
                child = await backends["pipe_other"].wait_child(2)
                assert (await client.call("pipe_other__echo", {"text": "other"})).text == "other"
                assert not is_running(old)
                assert is_running(child.pid)
                await load.goes_on()

                it.replace(config("web", "pipe", "web26", "web_new", web_new={"prefix": "fresh", "tools": ["echo"]}))
                await until_listed(client, lambda found: servers_in(found) == {"pipe", "web", "web26", "fresh"})
                assert [name for name in await names(client) if name.startswith("fresh")] == ["fresh__echo"]
                await backends["pipe_other"].wait_all_gone()  # removed
                await load.goes_on()

                seen = await it.says("")
                it.write('{"mcpServers": {"pipe": {"command"')  # broken
                await it.says("not reloaded", after=len(it.said))
                await load.goes_on()
                assert servers_in(await names(client)) == {"pipe", "web", "web26", "fresh"}
                assert seen

                text = json.dumps(config("pipe", "web", "web26", "pipe_other"))
                it.write(text[: len(text) // 2])  # half written
                await asyncio.sleep(0)
                it.write(text)
                await until_listed(client, lambda found: servers_in(found) == {"pipe", "web", "web26", "pipe_other"})
                await load.goes_on()

                await load.end()
                assert load.failed == []
                assert backends["pipe"].pids == pids
                assert len(backends["pipe"].children) == 1
                assert set(backends["web"].sessions) >= sessions
                assert backends["web"].deletes == []
                assert not [line for line in it.log if "Traceback" in line]


async def test_a_bad_file_is_reported_once_with_its_place_and_changes_nothing(tmp_path: Path) -> None:
    async with scripted("web") as backends:
        config = {"mcpServers": {"web": entry_of(backends["web"])}}
        async with program(tmp_path / "mcp.json", config) as it, HttpClient(it.url) as client:
            assert (await client.connect(LATEST)).result is not None
            it.write('{\n  "mcpServers": {},\n  "manifold": {"prot": 1}\n}')
            await it.says("not reloaded")
            for _ in range(2):
                count = len(it.said)
                it.process.send_signal(signal.SIGHUP)
                await it.says("not reloaded", after=count)
            assert (await client.call("web__echo", {"text": "still"})).text == "still"
            (warning,) = [line for line in it.log if "not reloaded" in line]
            assert f'{it.file}:3:16: manifold.prot: unknown key "prot"; did you mean "port"?' in warning
            count = len(it.said)
            it.write(config)
            await it.says("reloaded: nothing changed", after=count)


async def configuration_in_health(client: HttpClient) -> Any:
    async with await client.caller.send("GET", target="/health") as answer:
        return json.loads(await answer.body.all()).get("configuration")


async def test_after_an_unclosed_comment_it_serves_on_and_takes_the_repaired_file_and_a_signal(tmp_path: Path) -> None:
    async with scripted("web") as backends:
        config = {"mcpServers": {"web": entry_of(backends["web"])}}
        async with program(tmp_path / "mcp.json", config) as it, HttpClient(it.url) as client:
            assert (await client.connect(LATEST)).result is not None
            it.write('{"mcpServers": {},\n /*' + '"a": {"command": "x"},\n' * 10_000)
            count = await it.says("not reloaded")
            assert (await client.call("web__echo", {"text": "still"})).text == "still"
            problem = f"{it.file}:2:2: the comment that begins here is never closed"
            assert await configuration_in_health(client) == {"error": problem}
            it.write(config)
            count = await it.says("reloaded: nothing changed", after=count)
            assert await configuration_in_health(client) is None
            it.write('{"mcpServers": {},\n /*')
            await it.says("not reloaded", after=count)


@pytest.mark.parametrize("name", [".env", "pipe.env"])
async def test_files_beside_the_configuration_count_as_well(tmp_path: Path, name: str) -> None:
    async with scripted("pipe") as backends:
        (tmp_path / "pipe.env").write_text("A=1")
        entry = {**entry_of(backends["pipe"]), "envFile": "pipe.env", "env": {"B": "${B:-unset}"}}
        async with program(tmp_path / "mcp.json", {"mcpServers": {"pipe": entry}}) as it:
            first = await backends["pipe"].wait_child(1)
            (tmp_path / name).write_text("A=2\nB=2")
            await it.says("reloaded: changed pipe")
            second = await backends["pipe"].wait_child(2)
            assert not is_running(first.pid)
            assert is_running(second.pid)


async def test_with_watch_off_it_takes_a_signal(tmp_path: Path) -> None:
    async with scripted("web", "web_b") as backends:
        entries = {name: entry_of(backend) for name, backend in backends.items()}
        config = {"manifold": {"watch": False}, "mcpServers": {"web": entries["web"]}}
        async with program(tmp_path / "mcp.json", config) as it:
            it.write({"manifold": {"watch": False}, "mcpServers": entries})
            it.process.send_signal(signal.SIGHUP)
            await it.says("reloaded: added web_b")
            count = len(it.said)
            it.write({"manifold": {"watch": True}, "mcpServers": entries})
            it.process.send_signal(signal.SIGHUP)
            count = await it.says("reloaded: set watch", after=count)
            it.write(config)
            await it.says("reloaded: removed web_b", after=count)


async def test_the_reload_command_tells_what_came_of_it(tmp_path: Path) -> None:
    file = tmp_path / "mcp.json"
    async with scripted("web", "web_b") as backends:
        entries = {name: entry_of(backend) for name, backend in backends.items()}
        config = {"manifold": {"watch": False}, "mcpServers": {"web": entries["web"]}}
        code, _, log = await command("reload", "-c", str(file))
        assert (code, "no running instance of this user" in log) == (1, True)
        async with program(file, config) as it:
            pid = it.process.pid
            assert await command("reload", "-c", str(file)) == (
                0,
                f"process {pid}: reloaded {file}\n  unchanged: web\n",
                "",
            )
            it.write({"manifold": {"watch": False, "basePath": "/x", "separator": "-"}, "mcpServers": entries})
            code, said, _ = await command("reload", "-c", str(file))
            assert (code, said.splitlines()[1:]) == (
                0,
                [
                    "  added: web_b",
                    "  unchanged: web",
                    "  settings changed: separator",
                    '  note: "basePath" changed, which needs a restart',
                ],
            )
            it.write("{")
            code, said, _ = await command("reload", "-c", str(file), "--json")
            (outcome,) = json.loads(said)
            assert (code, outcome["pid"], outcome["added"]) == (2, pid, [])
            assert outcome["error"].startswith(f"{file}:1:2: ")
        code, _, _ = await command("reload", "-c", str(file))
        assert code == 1


async def test_stdio_reloads_on_a_signal_and_by_itself(tmp_path: Path) -> None:
    file = tmp_path / "mcp.json"
    async with scripted("pipe", "web") as backends:
        entries = {name: entry_of(backend) for name, backend in backends.items()}
        config: dict[str, Any] = {"manifold": {"watch": False}, "mcpServers": {"web": entries["web"]}}
        _write(file, json.dumps(config))
        argv = [sys.executable, "-m", "mcp_manifold", "stdio", "--config", str(file)]
        async with StdioClient(argv) as client:
            assert (await client.connect(LATEST)).result is not None
            assert servers_in(await names(client)) == {"web"}
            _write(file, json.dumps({"mcpServers": entries}))
            client.process.send_signal(signal.SIGHUP)
            await until_listed(client, lambda found: servers_in(found) == {"web", "pipe"})
            _write(file, json.dumps({"mcpServers": {"pipe": entries["pipe"]}}))
            await until_listed(client, lambda found: servers_in(found) == {"pipe"})
            assert (await client.call("pipe__echo", {"text": "on"})).text == "on"


async def test_tokens_may_not_go_while_the_network_listens(tmp_path: Path) -> None:
    config: dict[str, Any] = {"mcpServers": {}, "manifold": {"host": "0.0.0.0", "tokens": ["secret-token"]}}
    async with program(tmp_path / "mcp.json", config) as it:
        it.write({**config, "manifold": {"host": "127.0.0.1"}})
        await it.says("not reloaded, the old configuration stays: refusing to listen")
        async with HttpClient(it.url.replace("0.0.0.0", "127.0.0.1")) as client:
            assert (await client.connect(LATEST)).status == 401


# --- in this process ------------------------------------------------------------------------------------------------


async def reloaded(stand: Stand, **servers: Mapping[str, Any] | None) -> Reloaded:
    """Reload with other entries, or without one."""
    for name, more in servers.items():
        if more is None:
            del stand.config["mcpServers"][name]
        else:
            stand.config["mcpServers"][name] = {**stand.config["mcpServers"].get(name, {}), **more}
    return await stand.manifold.reload(load_dict(stand.config))


async def test_a_call_in_flight_at_a_changed_server_ends_before_it_is_started_anew() -> None:
    async with standing(offerings(("pipe",))) as stand, stand.client(HTTP) as client:
        pending = await client.begin("tools/call", {"name": "pipe__hang", "arguments": {"text": "patient"}})
        await stand["pipe"].wait_for("tools/call")
        (old,) = stand["pipe"].pids
        assert (await reloaded(stand, pipe={"env": {"A": "1"}})).changed == ("pipe",)
        waiting = await client.begin("tools/call", {"name": "pipe__echo", "arguments": {"text": "new"}})
        assert len(stand["pipe"].children) == 1
        await stand["pipe"].release()
        assert (await pending.reply()).text == "patient"
        assert (await waiting.reply()).text == "new"
        assert not is_running(old)
        assert len(stand["pipe"].pids) == 1


@pytest.mark.parametrize("how", ["changed", "removed"])
async def test_a_call_that_does_not_end_is_given_the_drain_time(how: str) -> None:
    settings = {"drain": "100ms"}
    async with standing(offerings(("pipe", "web")), manifold=settings) as stand, stand.client(HTTP) as client:
        pending = await client.begin("tools/call", {"name": "pipe__hang"})
        await stand["pipe"].wait_for("tools/call")
        await reloaded(stand, pipe={"env": {"A": "1"}} if how == "changed" else None)
        error = json.loads((await pending.reply()).error or b"null")
        assert error["data"]["server"] == "pipe"
        if how == "changed":
            assert (await client.call("pipe__echo", {"text": "new"})).text == "new"
        else:
            await stand["pipe"].wait_all_gone()
            assert (await client.call("pipe__echo")).error is not None
        assert (await client.call("web__echo", {"text": "there"})).text == "there"


async def test_a_server_changed_twice_in_a_row_never_runs_twice() -> None:
    async with standing(offerings(("pipe",))) as stand, stand.client(HTTP) as client:
        pending = await client.begin("tools/call", {"name": "pipe__hang"})
        await stand["pipe"].wait_for("tools/call")
        for value in "123":
            await reloaded(stand, pipe={"env": {"A": value}})
        assert len(stand["pipe"].children) == 1
        await stand["pipe"].release()
        await pending.reply()
        assert (await client.call("pipe__echo", {"text": "last"})).text == "last"
        assert len(stand["pipe"].pids) == 1
        assert len(stand["pipe"].children) == 2


async def test_what_is_only_shown_differently_keeps_its_process_and_its_calls() -> None:
    async with standing(offerings(("pipe", "web"))) as stand, stand.client(HTTP) as client:
        await client.watch()
        pending = await client.begin("tools/call", {"name": "pipe__hang", "arguments": {"text": "kept"}})
        await stand["pipe"].wait_for("tools/call")
        pids = list(stand["pipe"].pids)
        found = await reloaded(
            stand,
            pipe={
                "prefix": "p",
                "tools": {"block": ["failed"]},
                "overrides": {"tools": {"echo": {"name": "say", "description": "Says it."}}},
            },
        )
        assert (found.changed, found.unchanged) == (("pipe",), ("web",))
        await client.wait_for(CHANGED, timeout=BOUND)
        shown = await names(client)
        assert "p__say" in shown
        assert not {"pipe__echo", "p__echo", "p__failed"} & set(shown)
        assert (await client.call("p__say", {"text": "hello"})).text == "hello"
        assert (await client.call("p__failed")).error is not None
        await stand["pipe"].release()
        assert (await pending.reply()).text == "kept"
        assert stand["pipe"].pids == pids


async def test_a_server_is_switched_off_and_on() -> None:
    async with standing(offerings(("pipe", "web"))) as stand, stand.client(HTTP) as client:
        await client.watch()
        assert (await reloaded(stand, pipe={"disabled": True})).removed == ("pipe",)
        await until_listed(client, lambda found: servers_in(found) == {"web"})
        await stand["pipe"].wait_all_gone()
        assert [(each.name, each.state) for each in stand.manifold.status()] == [("pipe", "disabled"), ("web", "ready")]
        assert (await reloaded(stand, pipe={"disabled": False})).added == ("pipe",)
        await until_listed(client, lambda found: servers_in(found) == {"pipe", "web"})
        assert (await client.call("pipe__echo", {"text": "back"})).text == "back"


async def test_groups_and_instructions_hold_at_once() -> None:
    groups = {"groups": {"one": ["web"]}}
    async with (
        standing(offerings(("web", "web26")), manifold=groups) as stand,
        stand.client(HTTP, scope="groups/one") as client,
    ):
        await client.watch()
        stand.config["manifold"] |= {"groups": {"one": ["web26"], "two": ["web"]}, "instructions": "Be kind."}
        assert (await reloaded(stand)).keys == ("instructions", "groups")
        await until_listed(client, lambda found: servers_in(found) == {"web26"})
        async with stand.client(HTTP, scope="groups/two", connect=False) as other:
            answer = (await other.connect(LATEST)).value
            assert answer["instructions"].startswith("Be kind.")
            assert servers_in(await names(other)) == {"web"}
        del stand.config["manifold"]["groups"]["one"]
        await reloaded(stand)
        assert (await client.request("tools/list")).status == 404


async def test_a_token_that_is_taken_away_is_of_no_use_from_then_on() -> None:
    tokens = {"tokens": [{"name": "ann", "token": "first-secret"}, {"name": "bob", "token": "second-secret"}]}
    async with (
        standing(offerings(("web",)), manifold=tokens) as stand,
        stand.client(HTTP, token="first-secret") as ann,
        stand.client(HTTP, token="second-secret") as bob,
        stand.client(Way("http", MODERN_VERSION), token="first-secret") as modern,
    ):
        stream = await ann.open_get_stream()
        listening = await modern.begin("subscriptions/listen", {"notifications": {"toolsListChanged": True}})
        await listening.heard()
        stand.config["manifold"]["tokens"] = [tokens["tokens"][1], {"name": "eve", "token": "third-secret"}]
        assert (await reloaded(stand)).keys == ("tokens",)
        await until(lambda: stream.has_ended, "the end of the stream")
        await listening.reply()
        assert (await ann.call("web__echo")).status == 401
        assert (await modern.call("web__echo")).status == 401
        assert (await bob.call("web__echo", {"text": "in"})).text == "in"
        async with stand.client(HTTP, token="third-secret") as eve:
            assert (await eve.call("web__echo", {"text": "in"})).text == "in"


async def test_a_configuration_that_cannot_be_used_changes_nothing() -> None:
    async with standing(offerings(("web",))) as stand, stand.client(HTTP) as client:
        before = stand.manifold.config
        with pytest.raises(ConfigError, match="invalid pattern"):
            await reloaded(stand, web={"tools": {"allow": ["@odd"]}}, other={"command": "x"})
        with pytest.raises(ConfigError, match="did not come from a file"):
            await stand.manifold.reload()
        assert stand.manifold.config is before
        assert stand.manifold.last_reload is not None
        assert "did not come from a file" in stand.manifold.last_reload.error
        assert stand.manifold.health()["configuration"] == {"error": stand.manifold.last_reload.error}
        assert (await client.call("web__echo", {"text": "on"})).text == "on"


async def test_a_server_that_answers_differently_now_is_listed_anew() -> None:
    async with standing(offerings(("pipe", "web"))) as stand, stand.client(HTTP) as client:
        await client.watch()
        other = offering("pipe")
        async with StdioBackend(type(other)(name="pipe", era="handshake", tools=(tool("fresh", Act("pid")),))) as fresh:
            await reloaded(stand, pipe=entry_of(fresh))
            await until_listed(client, lambda found: [name for name in found if name[:4] == "pipe"] == ["pipe__fresh"])
            shown = (await client.call("pipe__fresh")).value["structuredContent"]
            assert [shown["pid"]] == fresh.pids
            assert shown["pid"] != os.getpid()
            await stand["pipe"].wait_all_gone()
            await reloaded(stand, pipe=None)
            await fresh.wait_all_gone()
