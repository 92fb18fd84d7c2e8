"""Start-up with servers that cannot start: the others are listed in time, and late ones join."""

import pytest

from tests.contract.offers import offerings
from tests.contract.stand import LATEST, Stand, refused, servers_of, standing
from tests.peers.backend import HttpBackend, named
from tests.peers.clients import MODERN_VERSION
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


@every_front
async def test_servers_that_cannot_start_do_not_delay_the_others(way: Way) -> None:
    async with HttpBackend(named("stuck")) as stuck, standing(offerings(("pipe", "web")), manifold=FAST) as stand:
        with_bad_neighbours(stand, stuck)
        async with stand.client(way, process=True) as client:  # a hang here would be the servers' own 60 s
            assert await servers_of(client) == {"pipe", "web"}
            assert (await client.call("pipe__echo", {"text": "fine"})).text == "fine"
            for down in ("missing", "refused"):
                refused(await client.call(f"{down}__echo"), down)


async def test_the_first_list_waits_for_a_server_that_is_about_to_answer() -> None:
    async with HttpBackend(named("stuck")) as stuck, standing(offerings(("web",))) as stand:
        with_bad_neighbours(stand, stuck)
        async with stand.client(Way("http", MODERN_VERSION), connect=False) as client:
            listing = await client.begin("tools/list")
            await stuck.wait_for("server/discover")
            assert not listing.is_done
            await stuck.release("start")
            listed = (await listing.reply()).value["tools"]
            assert "stuck__echo" in [each["name"] for each in listed]
