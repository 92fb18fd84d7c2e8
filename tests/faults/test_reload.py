"""Reloading under load: what a change does not touch does not notice it, what it touches serves the new definition."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from mcp_manifold.config import Reloaded, load_dict
from mcp_manifold.errors import ConfigError
from tests.contract.offers import offering, offerings
from tests.contract.stand import CHANGED, LATEST, Stand, backend_of, entry_of, names, servers_of, standing, until_listed
from tests.faults.invariants import unharmed
from tests.peers.backend import Act, StdioBackend, tool
from tests.peers.clients import MODERN_VERSION, HttpClient, StdioClient
from tests.peers.processes import is_running, until
from tests.peers.program import command, serving
from tests.peers.ways import Way

pytestmark = pytest.mark.anyio

HTTP = Way("http", LATEST)


# --- a real program -----------------------------------------------------------------------------------------------


def written(file: Path, config: Mapping[str, Any]) -> Path:
    """The file, with this configuration in it."""
    file.write_text(json.dumps(config))
    return file


@asynccontextmanager
async def scripted(*servers: str) -> AsyncIterator[dict[str, Any]]:
    """Running scripted backends of these names."""
    async with AsyncExitStack() as stack:
        made = {server: backend_of(server.partition("_")[0], offering(server)) for server in servers}
        yield {server: await stack.enter_async_context(backend) for server, backend in made.items()}


def servers_in(found: list[str]) -> set[str]:
    return {name.partition("__")[0] for name in found}


async def test_r27_nothing_fails_at_servers_a_change_does_not_touch(tmp_path: Path) -> None:
    async with scripted("pipe", "web", "web26", "pipe_other", "web_new") as backends:
        entries = {name: entry_of(backend) for name, backend in backends.items()}
        entries["pipe"]["cwd"] = str(StdioBackend.cwd)

        def config(*present: str, **changed: Mapping[str, Any]) -> dict[str, Any]:
            return {"mcpServers": {name: {**entries[name], **changed.get(name, {})} for name in present}}

        start = config("pipe", "web", "web26", "pipe_other")
        async with serving(written(tmp_path / "mcp.json", start)) as it, HttpClient(it.url) as client:
            assert (await client.connect(LATEST)).result is not None
            await client.watch()
            await until_listed(client, lambda found: servers_in(found) == set(start["mcpServers"]))
            pids, sessions = list(backends["pipe"].pids), set(backends["web"].sessions)
            async with unharmed(it, client, "pipe__echo", "web__echo", "web26__echo", at_once=8) as load:
                it.write(config("pipe", "web", "web26", "pipe_other", "web_new"))  # added
                await until_listed(client, lambda found: "web_new__echo" in found)
                assert (await client.call("web_new__echo", {"text": "new"})).text == "new"
                await load.go_on()

                (old,) = backends["pipe_other"].pids
                it.replace(
                    config("pipe", "web", "web26", "pipe_other", "web_new", pipe_other={"env": {"CHANGED": "1"}})
                )
                child = await backends["pipe_other"].wait_child(2)
                assert (await client.call("pipe_other__echo", {"text": "other"})).text == "other"
                assert not is_running(old)
                assert is_running(child.pid)
                await load.go_on()

                it.replace(config("web", "pipe", "web26", "web_new", web_new={"prefix": "fresh", "tools": ["echo"]}))
                await until_listed(client, lambda found: servers_in(found) == {"pipe", "web", "web26", "fresh"})
                assert [name for name in await names(client) if name.startswith("fresh")] == ["fresh__echo"]
                await backends["pipe_other"].wait_all_gone()  # removed
                await load.go_on()

                it.write('{"mcpServers": {"pipe": {"command"')  # broken
                await it.says("not reloaded")
                await load.go_on()
                assert await servers_of(client) == {"pipe", "web", "web26", "fresh"}

                text = json.dumps(config("pipe", "web", "web26", "pipe_other"))
                it.write(text[: len(text) // 2])  # half written
                await asyncio.sleep(0)
                it.write(text)
                await until_listed(client, lambda found: servers_in(found) == {"pipe", "web", "web26", "pipe_other"})
                await load.go_on()

                assert backends["pipe"].pids == pids
                assert len(backends["pipe"].children) == 1
                assert set(backends["web"].sessions) >= sessions
                assert backends["web"].deletes == []


async def configuration_in_health(client: HttpClient) -> Any:
    async with await client.caller.send("GET", target="/health") as answer:
        return json.loads(await answer.body.all()).get("configuration")


async def test_after_an_unclosed_comment_it_serves_on_and_takes_the_repaired_file_and_a_signal(tmp_path: Path) -> None:
    async with scripted("web") as backends:
        config = {"mcpServers": {"web": entry_of(backends["web"])}}
        async with serving(written(tmp_path / "mcp.json", config)) as it, HttpClient(it.url) as client:
            assert (await client.connect(LATEST)).result is not None
            it.write('{"mcpServers": {},\n /*' + '"a": {"command": "x"},\n' * 10_000)
            count = await it.says("not reloaded")
            assert (await client.call("web__echo", {"text": "still"})).text == "still"
            problem = f"{it.config}:2:2: the comment that begins here is never closed"
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
        async with serving(written(tmp_path / "mcp.json", {"mcpServers": {"pipe": entry}})) as it:
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
        async with serving(written(tmp_path / "mcp.json", config)) as it:
            it.write({"manifold": {"watch": False}, "mcpServers": entries})
            it.send(signal.SIGHUP)
            await it.says("reloaded: added web_b")
            count = len(it.said)
            it.write({"manifold": {"watch": True}, "mcpServers": entries})
            it.send(signal.SIGHUP)
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
        async with serving(written(file, config)) as it:
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
            it.send(signal.SIGTERM)
            assert await it.ended() == 0
        code, _, _ = await command("reload", "-c", str(file))
        assert code == 1


async def test_stdio_reloads_on_a_signal_and_by_itself(tmp_path: Path) -> None:
    file = tmp_path / "mcp.json"
    async with scripted("pipe", "web") as backends:
        entries = {name: entry_of(backend) for name, backend in backends.items()}
        config: dict[str, Any] = {"manifold": {"watch": False}, "mcpServers": {"web": entries["web"]}}
        file.write_text(json.dumps(config))
        argv = [sys.executable, "-m", "mcp_manifold", "stdio", "--config", str(file)]
        async with StdioClient(argv) as client:
            assert (await client.connect(LATEST)).result is not None
            assert await servers_of(client) == {"web"}
            file.write_text(json.dumps({"mcpServers": entries}))
            client.process.send_signal(signal.SIGHUP)
            await until_listed(client, lambda found: servers_in(found) == {"web", "pipe"})
            file.write_text(json.dumps({"mcpServers": {"pipe": entries["pipe"]}}))
            await until_listed(client, lambda found: servers_in(found) == {"pipe"})
            assert (await client.call("pipe__echo", {"text": "on"})).text == "on"


async def test_tokens_may_not_go_while_the_network_listens(tmp_path: Path) -> None:
    config: dict[str, Any] = {"mcpServers": {}, "manifold": {"host": "0.0.0.0", "tokens": ["secret-token"]}}
    async with serving(written(tmp_path / "mcp.json", config)) as it:
        it.write({**config, "manifold": {"host": "127.0.0.1"}})
        await it.says("not reloaded, the old configuration stays: refusing to listen")
        async with HttpClient(it.url) as client:
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
        await client.wait_for(CHANGED)
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
            assert await servers_of(other) == {"web"}
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


async def test_a_server_keeps_its_definition_while_its_new_entry_has_errors() -> None:
    async with standing(offerings(("web", "pipe"))) as stand, stand.client(HTTP) as client:
        outcome = await reloaded(stand, web={"tools": {"allow": ["@odd"]}}, pipe={"prefix": "tube"})
        assert (outcome.changed, outcome.unchanged, outcome.removed) == (("pipe",), ("web",), ())
        assert any('server "web" keeps its old definition: invalid pattern' in each for each in outcome.problems)
        assert (await client.call("web__echo", {"text": "on"})).text == "on"
        assert (await client.call("tube__echo", {"text": "new"})).text == "new"
        assert [status.name for status in stand.manifold.status()] == ["web", "pipe"]


async def test_a_configuration_that_cannot_be_used_changes_nothing() -> None:
    async with standing(offerings(("web",))) as stand, stand.client(HTTP) as client:
        before = stand.manifold.config
        with pytest.raises(ConfigError, match="invalid pattern"):
            await reloaded(stand, web={"tools": {"allow": ["@odd"]}})
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
