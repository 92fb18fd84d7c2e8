"""Start-up with servers that cannot start: the others are listed in time, and late ones join."""

import asyncio
import json
from dataclasses import replace

import pytest

from tests.contract.offers import offering, offerings
from tests.contract.stand import LATEST, Stand, standing
from tests.peers import BOUND
from tests.peers.backend import HttpBackend, named
from tests.peers.clients import MODERN_VERSION, Client
from tests.peers.ways import Way

pytestmark = pytest.mark.anyio

FAST = {"startupTimeout": "3s"}
MISSING = {"command": "no-such-command-anywhere"}
every_front = pytest.mark.parametrize(
    "way", [Way("stdio", LATEST), Way("http", LATEST), Way("http", MODERN_VERSION), Way("sse", LATEST)], ids=str
)


def with_bad_neighbours(stand: Stand, stuck: HttpBackend) -> None:
    """Add a server whose command is missing, one whose URL is refused, and one that never answers."""
    servers = stand.config["mcpServers"]
    bad = {
        "missing": MISSING,
        "refused": {"url": "http://127.0.0.1:9/mcp", "transport": "http"},
        "stuck": {"url": stuck.url, "transport": "http"},
    }
    stand.config["mcpServers"] = {**bad, **servers}


async def servers_of(client: Client) -> set[str]:
    """The servers whose tools are listed."""
    listed = (await client.request("tools/list")).value["tools"]
    return {each["name"].partition("__")[0] for each in listed}


@every_front
async def test_servers_that_cannot_start_do_not_delay_the_others(way: Way) -> None:
    async with HttpBackend(named("stuck")) as stuck, standing(offerings(("pipe", "web")), manifold=FAST) as stand:
        with_bad_neighbours(stand, stuck)
        async with stand.client(way, process=True) as client:  # a hang here would be the servers' own 60 s
            assert await servers_of(client) == {"pipe", "web"}
            assert (await client.call("pipe__echo", {"text": "fine"})).text == "fine"
            for down in ("missing", "refused"):
                error = json.loads((await client.call(f"{down}__echo")).error or b"null")
                assert (error["code"], error["data"]["server"]) == (-32603, down)


async def test_servers_that_cannot_start_have_a_state_and_a_reason() -> None:
    async with HttpBackend(named("stuck")) as stuck, standing(offerings(("web",)), manifold=FAST) as stand:
        with_bad_neighbours(stand, stuck)
        async with stand.client(Way("http", LATEST)):
            found = {status.name: status for status in stand.manifold.status()}
            assert found["web"].state == "ready"
            assert found["stuck"].state == "connecting"
            assert "no-such-command-anywhere" in found["missing"].last_error
            assert "not found" in found["missing"].last_error
            assert "refused" in found["refused"].last_error
            assert stand.manifold.health()["status"] == "degraded"
            assert stand.manifold.readiness() == {"ready": True}


async def test_a_server_that_answers_late_joins_and_is_announced() -> None:
    late = replace(named("stuck"), tools=offering("web").tools)
    async with HttpBackend(late) as stuck, standing(offerings(("web",)), manifold=FAST) as stand:
        with_bad_neighbours(stand, stuck)
        async with stand.client(Way("http", LATEST)) as client:
            await client.watch()
            assert await servers_of(client) == {"web"}
            await stuck.release("start")
            announced = 0
            while await servers_of(client) != {"web", "stuck"}:
                announced += 1
                await client.wait_for("notifications/tools/list_changed", count=announced)
            assert (await client.call("stuck__echo", {"text": "late"})).text == "late"


async def test_the_first_list_waits_for_a_server_that_is_about_to_answer() -> None:
    async with HttpBackend(named("stuck")) as stuck, standing(offerings(("web",))) as stand:
        with_bad_neighbours(stand, stuck)
        async with stand.client(Way("http", MODERN_VERSION), connect=False) as client:
            listing = await client.begin("tools/list")
            await stuck.wait_for("server/discover")
            assert not listing.is_done
            await stuck.release("start")
            async with asyncio.timeout(BOUND):
                listed = (await listing.reply()).value["tools"]
            assert "stuck__echo" in [each["name"] for each in listed]
