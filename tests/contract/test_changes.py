"""What a client is told when the lists change under it, on the fronts that tell it without being asked."""

import pytest

from tests.contract.behaviours import shows
from tests.contract.offers import offering, offerings
from tests.contract.stand import KINDS, LATEST, STREAMED, standing
from tests.peers.backend import prompt, tool
from tests.peers.clients import Client
from tests.peers.ways import Way

pytestmark = pytest.mark.anyio

CHANGED = "notifications/%s/list_changed"
_IN_TIME = 8.0
"""Seconds in which a change has to be heard of: a listing a second, an attempt in less than one."""


async def _names(client: Client) -> list[str]:
    return [each["name"] for each in (await client.request("tools/list")).value["tools"]]


async def _until(client: Client, names: set[str]) -> None:
    """List each time a change of the tools is announced, until they are these servers' tools."""
    announced = 0
    while {name.partition("__")[0] for name in await _names(client)} != names:
        announced += 1
        await client.wait_for(CHANGED % "tools", count=announced, timeout=_IN_TIME)


@shows("changes-late")
@pytest.mark.parametrize("way", STREAMED, ids=str)
async def test_a_backend_that_comes_up_late_is_announced(way: Way) -> None:
    async with standing(offerings(("web", "web26"))) as stand:
        await stand["web26"].refuse()
        async with stand.client(way) as client:
            await client.watch()
            assert {name.partition("__")[0] for name in await _names(client)} == {"web"}
            await stand["web26"].listen()
            await _until(client, {"web", "web26"})
            for changed in ("tools", "resources", "prompts"):
                await client.wait_for(CHANGED % changed, timeout=_IN_TIME)
            assert (await client.call("web26__echo", {"text": "late"})).text == "late"


@shows("changes-real")
@pytest.mark.parametrize("way", STREAMED, ids=str)
async def test_only_real_differences_are_announced_and_once(way: Way) -> None:
    async with standing(offerings(("web",))) as stand, stand.client(way) as client:
        await client.watch()
        await _names(client)
        heard = len(client.received)
        if way.transport != "stdio":
            await stand["web"].wait_get_stream()
        await stand["web"].set_tools(offering("web").tools, times=3)
        await stand["web"].set_offers("prompts", [prompt("fresh")], times=3)
        await client.wait_for(CHANGED % "prompts", timeout=_IN_TIME)
        await client.request("ping")
        assert [each.method for each in client.received[heard:] if each.method] == [CHANGED % "prompts"]


@shows("changes-real")
@pytest.mark.parametrize("kind", [kind for kind in KINDS if not kind.endswith("26")])
async def test_a_change_at_every_kind_of_backend_is_heard_of(kind: str) -> None:
    async with standing(offerings((kind,))) as stand, stand.client(Way("http", LATEST)) as client:
        await client.watch()
        await _names(client)
        if kind == "web":
            await stand[kind].wait_get_stream()
        await stand[kind].set_tools([tool("fresh")])
        announced = 0
        while await _names(client) != [f"{kind}__fresh"]:
            announced += 1
            await client.wait_for(CHANGED % "tools", count=announced, timeout=_IN_TIME)


@shows("changes-before-initialized")
@pytest.mark.parametrize("front", ["sse", "stdio"])
async def test_nothing_is_announced_before_the_client_is_initialized(front: str) -> None:
    async with standing(offerings(("web", "web26"))) as stand:
        await stand["web26"].refuse()
        async with stand.client(Way(front, LATEST), connect=False) as client:
            if front == "sse":
                await client.open_stream()
            hello = {"protocolVersion": LATEST, "capabilities": {}, "clientInfo": {"name": "n", "version": "1"}}
            await client.request("initialize", hello)
            await stand["web26"].listen()
            await stand["web26"].wait_for("tools/list")
            while (await client.call("only_web26", {"text": "x"})).error is not None:
                await client.request("ping")
            assert [each.method for each in client.received if each.method] == []
            await client.notify("notifications/initialized")
            await stand["web"].set_tools([tool("fresh")])
            await client.wait_for(CHANGED % "tools", timeout=_IN_TIME)
