"""What a client is told when the lists change under it, on the fronts that tell it without being asked."""

import pytest

from tests.contract.behaviours import shows
from tests.contract.offers import offering, offerings
from tests.contract.stand import KINDS, LATEST, STREAMED, names, servers_of, standing, until_listed
from tests.peers.backend import prompt, tool
from tests.peers.ways import Way

pytestmark = pytest.mark.anyio

LIST = "notifications/%s/list_changed"


@shows("changes-late")
@pytest.mark.parametrize("way", STREAMED, ids=str)
async def test_a_backend_that_comes_up_late_is_announced(way: Way) -> None:
    async with standing(offerings(("web", "web26"))) as stand:
        await stand["web26"].refuse()
        async with stand.client(way) as client:
            await client.watch()
            assert await servers_of(client) == {"web"}
            await stand["web26"].listen()
            await until_listed(client, lambda found: any(name.startswith("web26__") for name in found))
            for changed in ("tools", "resources", "prompts"):
                await client.wait_for(LIST % changed)
            assert (await client.call("web26__echo", {"text": "late"})).text == "late"


@shows("changes-real")
@pytest.mark.parametrize("way", STREAMED, ids=str)
async def test_only_real_differences_are_announced_and_once(way: Way) -> None:
    async with standing(offerings(("web",))) as stand, stand.client(way) as client:
        await client.watch()
        await names(client)
        heard = len(client.received)
        if way.transport != "stdio":
            await stand["web"].wait_get_stream()
        await stand["web"].set_tools(offering("web").tools, times=3)
        await stand["web"].set_offers("prompts", [prompt("fresh")], times=3)
        await client.wait_for(LIST % "prompts")
        await client.request("ping")
        assert [each.method for each in client.received[heard:] if each.method] == [LIST % "prompts"]


@shows("changes-real")
@pytest.mark.parametrize("kind", [kind for kind in KINDS if not kind.endswith("26")])
async def test_a_change_at_every_kind_of_backend_is_heard_of(kind: str) -> None:
    async with standing(offerings((kind,))) as stand, stand.client(Way("http", LATEST)) as client:
        await client.watch()
        await names(client)
        if kind == "web":
            await stand[kind].wait_get_stream()
        await stand[kind].set_tools([tool("fresh")])
        await until_listed(client, lambda found: found == [f"{kind}__fresh"])


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
            await client.wait_for(LIST % "tools")
