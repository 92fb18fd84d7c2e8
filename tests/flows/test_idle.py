"""Servers that are stopped for idleness, and everything that counts as use; what a reload makes of such settings."""

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from mcp_manifold.config import load_dict
from tests.contract import test_tasks as tasked
from tests.contract.offers import offering, offerings
from tests.contract.stand import LATEST, Stand, names, standing
from tests.contract.test_watching import listen, reported, updates, uri_of
from tests.flows.test_remembered import backends, files, learnt, run
from tests.peers import processes
from tests.peers.backend import StdioBackend
from tests.peers.clients import MODERN_VERSION
from tests.peers.ways import Way

pytestmark = pytest.mark.anyio

HTTP = Way("http", LATEST)
SOON = {"idleTimeout": "30ms"}
LONG = 0.3
"""Seconds, many times as long as what is enough to be idle."""


async def passes(seconds: float) -> None:
    """Let time go by, in which nothing is to happen."""
    await asyncio.wait({asyncio.get_running_loop().create_future()}, timeout=seconds)


async def until_idle(stand: Stand, server: str) -> None:
    await stand.until(lambda: stand.status(server).state == "idle")


def settings(stand: Stand, **change: Any) -> Any:
    """The stand's configuration with other values for keys of `manifold`, or of servers by their names."""
    config = json.loads(json.dumps(stand.config))
    for key, value in change.items():
        if key in config["mcpServers"]:
            config["mcpServers"][key] |= value
        else:
            config["manifold"][key] = value
    return load_dict(config)


# --- what is use ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["pipe", "web", "web26"])
async def test_a_subscription_keeps_a_server_and_its_end_lets_it_go(kind: str) -> None:
    async with standing(offerings((kind,)), manifold=SOON) as stand, stand.client(HTTP) as client:
        await client.watch()
        assert (await client.request("resources/subscribe", {"uri": uri_of(kind)})).result == b"{}"
        await passes(LONG)
        assert stand.status(kind).state == "ready"
        await reported(stand[kind], uri_of(kind))
        await client.wait_for("notifications/resources/updated")
        assert updates(client) == [uri_of(kind)]
        assert (await client.request("resources/unsubscribe", {"uri": uri_of(kind)})).result == b"{}"
        await until_idle(stand, kind)


async def test_a_subscription_of_a_modern_client_keeps_a_server_and_starts_one() -> None:
    async with standing(offerings(("pipe",)), manifold=SOON) as stand:
        async with stand.client(Way("http", MODERN_VERSION)) as client:
            await until_idle(stand, "pipe")
            await listen(client, uri_of("pipe"))
            await passes(LONG)
            assert stand.status("pipe").state == "ready"
        await until_idle(stand, "pipe")


async def test_a_subscription_to_lists_alone_keeps_nothing_and_starts_nothing() -> None:
    way = Way("http", MODERN_VERSION)
    async with standing(offerings(("pipe",)), manifold=SOON) as stand, stand.client(way) as client:
        await listen(client, toolsListChanged=True)
        await until_idle(stand, "pipe")


async def test_a_task_keeps_the_server_that_runs_it() -> None:
    async with standing(tasked.scripts("pipe"), manifold=SOON) as stand, stand.client(HTTP) as client:
        task = await tasked.begun(client, "pipe")
        await passes(LONG)
        assert stand.status("pipe").state == "ready"
        assert (await client.request("tasks/get", {"taskId": task})).value["status"] == "working"


async def test_pings_are_no_use(tmp_path: Path) -> None:
    entry = {"pingInterval": "10ms"}
    async with standing(offerings(("pipe",)), manifold=SOON, pipe=entry) as stand, stand.client(HTTP):
        await until_idle(stand, "pipe")


# --- reloading and waking ---------------------------------------------------------------------------------------------


def pids(servers: Mapping[str, Any]) -> list[list[int]]:
    return [each.pids for each in servers.values() if isinstance(each, StdioBackend)]


async def test_how_servers_start_and_stop_can_change_without_touching_them() -> None:
    scripts = {name: offering("pipe") for name in ("pipe_1", "pipe_2")}
    async with standing(scripts) as stand, stand.client(HTTP) as client:
        assert (await client.call("pipe_1__echo", {"text": "x"})).text == "x"
        before = pids(stand.backends)
        reloaded = await stand.manifold.reload(settings(stand, idleTimeout="1h", pipe_1={"keepAlive": True}))
        assert (reloaded.changed, reloaded.keys, reloaded.problems) == (("pipe_1",), ("idleTimeout",), ())
        assert pids(stand.backends) == before
        await stand.manifold.reload(settings(stand, pipe_2=SOON))
        await until_idle(stand, "pipe_2")
        assert stand.status("pipe_1").state == "ready"


async def test_a_server_added_by_a_reload_is_listed_from_disk_at_once(tmp_path: Path) -> None:
    async with backends({name: offering("pipe") for name in ("pipe_1", "pipe_2")}) as servers:
        await learnt(servers, tmp_path)
        first = {"pipe_1": servers["pipe_1"]}
        async with run(first, tmp_path, start="lazy") as stand, stand.client(HTTP) as client:
            await client.watch()
            assert not [name for name in await names(client) if name.startswith("pipe_2")]
            more = run(servers, tmp_path, start="lazy").config
            reloaded = await stand.manifold.reload(load_dict(more))
            assert reloaded.added == ("pipe_2",)
            assert "pipe_2__echo" in await names(client)
            await client.wait_for("notifications/tools/list_changed")
            assert len(servers["pipe_2"].children) == 1


async def test_waking_connects_to_lazy_servers_and_brings_what_is_kept_up_to_date(tmp_path: Path) -> None:
    async with backends(offerings(("pipe", "web"))) as servers:
        await learnt(servers, tmp_path)
        before = {file: file.stat().st_mtime_ns for file in files(tmp_path)}
        async with run(servers, tmp_path, wait="45s", start="lazy") as stand:
            await stand.origin()
            await stand.manifold.wake()
            assert [each.state for each in stand.manifold.status()] == ["ready", "ready"]
            await processes.until(lambda: all(file.stat().st_mtime_ns > at for file, at in before.items()), "new files")
