"""How a conversation opens, over every front in every revision."""

import pytest

from tests.contract.behaviours import shows
from tests.contract.offers import offerings
from tests.contract.stand import EVERY_WAY, IN_PROCESS, LATEST, OLDEST, STREAMED, WAYS, standing
from tests.peers import jsontext
from tests.peers.clients import MODERN_VERSION
from tests.peers.message import META
from tests.peers.ways import Way

pytestmark = pytest.mark.anyio


@shows("version", "discover", "identity", "capabilities", "instructions", "ping", "ping-modern")
@pytest.mark.parametrize("way", EVERY_WAY, ids=str)
async def test_a_client_is_greeted_in_the_revision_it_asked_for(way: Way) -> None:
    async with standing(offerings(("web", "web26")), manifold={"name": "bench"}) as stand:
        async with stand.client(way, connect=False) as client:
            reply = await client.connect(way.version)
            pong = await client.request("ping")
        if way.version == MODERN_VERSION:
            assert reply.value["supportedVersions"] == [MODERN_VERSION]
            assert (reply.value["resultType"], reply.value["ttlMs"]) == ("complete", 0)
            assert reply.value["cacheScope"] == "private"
            info = reply.value["_meta"][META + "serverInfo"]
            assert pong.code == -32601
        else:
            assert reply.value["protocolVersion"] == way.version
            info = reply.value["serverInfo"]
            assert pong.result == b"{}"
        assert info["name"] == "bench"
        assert b"web26" not in jsontext.text(info)
        offered = reply.value["capabilities"]
        assert {"tools", "resources", "prompts"} <= offered.keys()
        assert ("completions" in offered) is (way.version != OLDEST)
        assert "Ask web first." in reply.value["instructions"].split("# Server web26")[0]
        assert not stand["web"].calls("ping")


@shows("capabilities")
@pytest.mark.parametrize("way", STREAMED, ids=str)
async def test_lists_that_may_change_are_declared_even_while_they_are_empty(way: Way) -> None:
    async with standing({}) as stand, stand.client(way, connect=False) as client:
        offered = (await client.connect(way.version)).value["capabilities"]
        for feature in ("tools", "resources", "prompts"):
            assert offered[feature]["listChanged"] is True
        assert "completions" not in offered
        assert (await client.request("tools/list")).value == {"tools": []}


@shows("version-other")
@pytest.mark.parametrize("asked", ["1999-01-01", MODERN_VERSION, ""])
@pytest.mark.parametrize("front", ["http", "sse", "stdio"])
async def test_a_revision_that_no_handshake_knows_is_answered_with_the_latest(front: str, asked: str) -> None:
    async with standing({}) as stand, stand.client(Way(front, LATEST), connect=False) as client:
        if front == "sse":
            await client.open_stream()
        hello = {"protocolVersion": asked, "capabilities": {}, "clientInfo": {"name": "n", "version": "1"}}
        assert (await client.request("initialize", hello)).value["protocolVersion"] == LATEST


@shows("initialize-first")
@pytest.mark.parametrize("front", ["stdio", "sse"])
async def test_nothing_but_ping_is_answered_before_initialize(front: str) -> None:
    async with standing(offerings(IN_PROCESS[:1])) as stand, stand.client(Way(front, LATEST), connect=False) as client:
        if front == "sse":
            await client.open_stream()
        assert (await client.request("tools/list")).code == -32600
        assert (await client.request("ping")).result == b"{}"
        assert (await client.connect(LATEST)).value["protocolVersion"] == LATEST
        assert (await client.request("initialize", {"protocolVersion": LATEST, "capabilities": {}})).code == -32600


@shows("identity")
@pytest.mark.parametrize("way", [way for way in WAYS if way.version == MODERN_VERSION], ids=str)
async def test_every_modern_result_carries_our_identity_and_no_other(way: Way) -> None:
    async with standing(offerings(("web", "web26"))) as stand, stand.client(way) as client:
        for server in ("web", "web26"):
            results = [
                await client.call(f"{server}__echo"),
                await client.request("resources/read", {"uri": f"note://{server}/1"}),
                await client.request("prompts/get", {"name": f"{server}__greet"}),
                await client.request("tools/list"),
            ]
            for reply in results:
                assert reply.value["resultType"] == "complete"
                assert reply.value["_meta"][META + "serverInfo"]["name"] == "mcp-manifold"
