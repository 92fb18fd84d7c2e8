"""A start with what is known from the last one: lists from disk, no server running, and soon what is true now."""

import json
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.contract.offers import offering, offerings
from tests.contract.stand import ERAS, LATEST, Stand, backend_of, entry_of, names, servers_of
from tests.peers import processes
from tests.peers.backend import HttpBackend, Script, StdioBackend, named, tool
from tests.peers.clients import MODERN_VERSION, Client
from tests.peers.ways import Way

pytestmark = pytest.mark.anyio

PATIENT = "10m"
"""A start-up timeout no test would live to see the end of: who waits for it hangs."""
TEN = tuple(f"pipe_{number}" for number in range(10))
LISTS = ("tools/list", "prompts/list", "resources/list", "resources/templates/list")
every_way = pytest.mark.parametrize(
    "way", [Way("stdio", LATEST), Way("http", LATEST), Way("http", MODERN_VERSION)], ids=str
)


@asynccontextmanager
async def backends(scripts: Mapping[str, Script]) -> AsyncIterator[dict[str, Any]]:
    """Backends that are there for several runs."""
    async with AsyncExitStack() as stack:
        yield {name: await stack.enter_async_context(backend_of(name, script)) for name, script in scripts.items()}


def run(servers: Mapping[str, Any], state: Path, *, wait: str = PATIENT, **manifold: Any) -> Stand:
    """One run of a manifold over these backends, or others by their entries, with its memory in `state`."""
    entries = {name: each if isinstance(each, dict) else entry_of(each) for name, each in servers.items()}
    settings = {"startupTimeout": wait, "stateDir": str(state), **manifold}
    return Stand(dict(servers), {"manifold": settings, "mcpServers": entries})


async def learnt(servers: Mapping[str, Any], state: Path) -> None:
    """A first run, until every server has listed and it is all on disk."""
    async with run(servers, state) as stand:
        await stand.origin()
        await until_ready(stand, *servers)
        await kept(state, len(servers))


async def kept(state: Path, number: int) -> None:
    """Wait until so many files are there."""
    await processes.until(lambda: len(files(state)) >= number, f"{number} files")


def files(state: Path) -> list[Path]:
    return sorted((state / "catalogue").glob("*.listing"))


async def until_ready(stand: Stand, *servers: str) -> None:
    """Wait until these are ready, and have listed in this run."""
    await stand.until(lambda: all(each.state == "ready" for each in stand.manifold.status() if each.name in servers))
    await stand.manifold.settle()


def told(client: Client) -> list[str]:
    """The changes a client was told of."""
    return [each.method for each in client.received if each.method is not None and "list_changed" in each.method]


async def everything(client: Client) -> dict[str, Any]:
    """All it lists, and what it said of itself."""
    found = {method: (await client.request(method)).value for method in LISTS}
    return {method: {key: page[key] for key in page if key not in ("ttlMs", "_meta")} for method, page in found.items()}


def children(servers: Mapping[str, Any]) -> int:
    """How many processes these servers had started, in all runs together."""
    return sum(len(each.children) for each in servers.values() if isinstance(each, StdioBackend))


# --- lists from disk --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", [Way("stdio", LATEST), Way("http", MODERN_VERSION)], ids=str)
async def test_ten_lazy_servers_are_listed_with_no_child_running_whatever_an_eleventh_does(
    tmp_path: Path, way: Way
) -> None:
    async with backends({name: offering("pipe") for name in TEN}) as servers, HttpBackend(named("stuck")) as stuck:
        await learnt(servers, tmp_path)
        before = children(servers)
        hanging = {"url": stuck.url, "transport": "http"}  # whoever waits for it waits longer than this test
        async with (
            run({**servers, "stuck": hanging}, tmp_path, start="lazy") as stand,
            stand.client(way, process=True) as client,
        ):
            assert await servers_of(client) == set(TEN)
            assert children(servers) == before


async def test_one_call_starts_one_server(tmp_path: Path) -> None:
    async with backends({name: offering("pipe") for name in TEN[:3]}) as servers:
        await learnt(servers, tmp_path)
        async with run(servers, tmp_path, start="lazy") as stand, stand.client(Way("http", LATEST)) as client:
            assert (await client.call("pipe_1__echo", {"text": "awake"})).text == "awake"
            states = {status.name: status.state for status in stand.manifold.status()}
            assert states == {"pipe_0": "idle", "pipe_1": "ready", "pipe_2": "idle"}
            assert [len(each.children) for each in servers.values()] == [1, 2, 1]


@every_way
async def test_what_comes_from_disk_is_what_was_listed_in_full(tmp_path: Path, way: Way) -> None:
    kinds = ("web", "web26", "stream", "pipe", "pipe26")
    async with backends(offerings(kinds)) as servers:
        async with run(servers, tmp_path) as stand:
            await stand.origin()
            await until_ready(stand, *kinds)
            async with stand.client(Way("http", way.version), connect=False) as client:
                hello, live = await greeting(client, way), await everything(client)
            await kept(tmp_path, len(kinds))
        async with run(servers, tmp_path, start="lazy") as stand, stand.client(way, connect=False) as client:
            assert await greeting(client, way) == hello
            assert await everything(client) == live


async def greeting(client: Client, way: Way) -> Any:
    """What it says of itself when it is greeted."""
    found = (await client.connect(way.version)).value
    return {key: found[key] for key in ("capabilities", "instructions")}


@pytest.mark.parametrize("kind", ERAS)
async def test_every_kind_of_server_is_called_after_it_was_listed_from_disk(tmp_path: Path, kind: str) -> None:
    async with backends({kind: offering(kind)}) as servers:
        await learnt(servers, tmp_path)
        async with run(servers, tmp_path, start="lazy") as stand:
            for version in (LATEST, MODERN_VERSION):
                async with stand.client(Way("http", version)) as client:
                    assert f"{kind}__only_{kind}" in await names(client)
                    assert (await client.call(f"{kind}__echo", {"text": "x"})).text == "x"


# --- the truth --------------------------------------------------------------------------------------------------------


async def test_eager_servers_list_again_and_clients_are_told_only_what_differs(tmp_path: Path) -> None:
    async with backends(offerings(("web", "pipe"))) as servers:
        await learnt(servers, tmp_path)
        await servers["web"].set_tools([*offering("web").tools, tool("fresh")])
        async with run(servers, tmp_path) as stand, stand.client(Way("http", LATEST)) as client:
            await client.watch()
            await client.wait_for("notifications/tools/list_changed")
            assert "web__fresh" in await names(client)
            await until_ready(stand, "web", "pipe")
            assert told(client) == ["notifications/tools/list_changed"]


async def test_a_new_server_beside_known_ones_joins_and_is_announced(tmp_path: Path) -> None:
    late = replace(named("stuck"), tools=offering("web").tools)
    async with backends(offerings(("web",))) as servers, HttpBackend(late) as stuck:
        await learnt(servers, tmp_path)
        async with (
            run({**servers, "late": {"url": stuck.url}}, tmp_path) as stand,
            stand.client(Way("http", LATEST)) as client,
        ):
            await client.watch()
            assert not [name for name in await names(client) if name.startswith("late")]
            await stuck.release("start")
            await client.wait_for("notifications/tools/list_changed")
            assert (await client.call("late__echo", {"text": "joined"})).text == "joined"


async def test_on_its_own_endpoint_a_new_server_is_waited_for(tmp_path: Path) -> None:
    late = replace(named("stuck"), tools=offering("web").tools)
    async with backends(offerings(("web",))) as servers, HttpBackend(late) as stuck:
        await learnt(servers, tmp_path)
        async with (
            run({**servers, "late": {"url": stuck.url}}, tmp_path) as stand,
            stand.client(Way("http", MODERN_VERSION), scope="late", connect=False) as client,
        ):
            listing = await client.begin("tools/list")
            await stuck.wait_for("server/discover")
            assert not listing.is_done
            await stuck.release("start")
            assert (await listing.reply()).value["tools"]


async def test_a_tool_nobody_knows_yet_is_waited_for(tmp_path: Path) -> None:
    async with backends(offerings(("web",))) as servers:
        await learnt(servers, tmp_path)
        await servers["web"].set_tools([*offering("web").tools, tool("fresh")])
        async with run(servers, tmp_path) as stand, stand.client(Way("http", LATEST)) as client:
            assert (await client.call("web__fresh", {"text": "x"})).text == "x"


async def test_a_server_that_is_gone_is_listed_as_it_was_and_says_so_when_it_is_called(tmp_path: Path) -> None:
    async with backends(offerings(("web",))) as servers:
        await learnt(servers, tmp_path)
        gone = entry_of(servers["web"])
    async with run({"web": gone}, tmp_path) as stand, stand.client(Way("http", LATEST)) as client:
        assert "web__echo" in await names(client)
        error = json.loads((await client.call("web__echo")).error or b"{}")
        assert error["data"]["server"] == "web"
        assert "refused" in error["message"]


async def test_a_server_that_speaks_another_era_now_is_spoken_to_in_it(tmp_path: Path) -> None:
    async with HttpBackend(offering("web26")) as modern:
        await learnt({"web": modern}, tmp_path)
        entry, port = entry_of(modern), int(modern.url.split(":")[2].split("/")[0])
    async with (
        HttpBackend(offering("web"), port=port),
        run({"web": entry}, tmp_path, start="lazy") as stand,
        stand.client(Way("http", MODERN_VERSION)) as client,
    ):
        assert (await client.call("web__echo", {"text": "x"})).text == "x"
        assert stand.manifold.status()[0].era == "handshake"


# --- who remembers ----------------------------------------------------------------------------------------------------


async def test_another_definition_is_another_server(tmp_path: Path) -> None:
    async with backends(offerings(("web",))) as servers:
        await learnt(servers, tmp_path)
        other = {**entry_of(servers["web"]), "headers": {"x-account": "another"}}
        async with run({"web": other}, tmp_path, start="lazy") as stand:
            await servers["web"].refuse()
            async with stand.client(Way("http", LATEST)) as client:
                refused = json.loads((await client.request("tools/list")).error or b"{}")
                assert refused["data"]["reason"] == "AllUnavailable"  # nothing is known of it from last time


async def test_another_name_and_another_presentation_are_the_same_server(tmp_path: Path) -> None:
    async with backends(offerings(("web",))) as servers:
        await learnt(servers, tmp_path)
        other = {**entry_of(servers["web"]), "timeout": "5s", "tools": ["echo"], "prefix": "short"}
        async with (
            run({"renamed": other}, tmp_path, start="lazy") as stand,
            stand.client(Way("http", LATEST)) as client,
        ):
            assert await names(client) == ["short__echo"]
            assert stand.manifold.status()[0].state == "idle"


async def test_without_remembering_nothing_is_read_and_nothing_written(tmp_path: Path) -> None:
    async with backends(offerings(("web",))) as servers:
        await learnt(servers, tmp_path)
        (file,) = files(tmp_path)
        file.write_bytes(b"untouched")
        async with run(servers, tmp_path, remember=False) as stand, stand.client(Way("http", LATEST)) as client:
            assert "web__echo" in await names(client)
        assert file.read_bytes() == b"untouched"


async def test_a_mapping_is_remembered_only_where_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    async with backends(offerings(("web",))) as servers, run(servers, tmp_path) as stand:
        del stand.config["manifold"]["stateDir"]
        async with stand.client(Way("http", LATEST)) as client:
            assert "web__echo" in await names(client)
    assert os.listdir(tmp_path) == []


async def test_what_was_stopped_for_idleness_is_listed_from_disk_by_the_next_run(tmp_path: Path) -> None:
    async with backends(offerings(("pipe",))) as servers:
        async with run(servers, tmp_path, idleTimeout="1ms") as stand, stand.client(Way("http", LATEST)) as client:
            assert (await client.call("pipe__echo", {"text": "x"})).text == "x"
            await stand.until(lambda: stand.manifold.status()[0].state == "idle")
            await servers["pipe"].wait_all_gone()
            assert "pipe__echo" in await names(client)
            health: Any = stand.manifold.health()
            assert health == {"status": "healthy", "servers": {"configured": 1, "connected": 0, "healthy": 1}}
        started = children(servers)
        async with run(servers, tmp_path, start="lazy") as stand, stand.client(Way("http", LATEST)) as client:
            assert "pipe__echo" in await names(client)
            assert children(servers) == started
            assert stand.manifold.readiness() == {"ready": True}
