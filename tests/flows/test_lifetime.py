"""Start-up with servers that cannot start, and shutdown: the others are listed in time, and nothing stays behind."""

import asyncio
import json
import signal
from functools import partial

import pytest

from tests.contract.offers import offerings
from tests.contract.stand import KINDS, LATEST, Stand, refused, servers_of, standing
from tests.peers.backend import HttpBackend, named
from tests.peers.clients import MODERN_VERSION
from tests.peers.listener import Listener
from tests.peers.processes import holdings, is_running, until
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
async def test_servers_that_cannot_start_cost_the_others_nothing(way: Way) -> None:
    async with HttpBackend(named("stuck")) as stuck, standing(offerings(("pipe", "web")), manifold=FAST) as stand:
        with_bad_neighbours(stand, stuck)
        async with stand.client(way, process=True) as client:  # a hang here would be the servers' own 60 s

            async def are_listed() -> bool:
                return await servers_of(client) == {"pipe", "web"}

            await until(are_listed, "the servers that can start")  # on a busy machine the first list is without them
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


# --- leaving


def _is_left(backend: Listener) -> bool:
    return backend.open_connections == 0


async def test_leaving_a_manifold_leaves_no_task_socket_or_process() -> None:
    before = holdings()
    async with standing(offerings()) as stand:
        for way in (Way("http", LATEST), Way("http", MODERN_VERSION), Way("sse", LATEST)):
            async with stand.client(way) as client:
                await client.begin("tools/call", {"name": "web__hang"})
                await asyncio.gather(*(client.call(f"{kind}__echo") for kind in KINDS))
        client = stand.client(Way("http", LATEST))
        still_there = await client.__aenter__()
        await still_there.watch()
        await still_there.begin("tools/call", {"name": "pipe__hang"})
        await stand["pipe"].wait_for(lambda item: b'"hang"' in item.raw)
        await stand.__aexit__()
        await client.__aexit__(None, None, None)
        for kind in ("pipe", "pipe26"):
            await stand[kind].wait_all_gone()
        for kind in ("web", "web26", "stream"):
            await stand[kind].recorder.wait_until(partial(_is_left, stand[kind]), f"the end of connections to {kind}")
    await until(lambda: not holdings().grew_beyond(before), "the end of everything")


@pytest.mark.parametrize(("end", "code"), [("stdin", 0), ("SIGTERM", 0), ("SIGINT", 0)])
async def test_over_stdio_every_end_is_an_orderly_exit_that_stops_the_servers(end: str, code: int) -> None:
    async with (
        standing(offerings(("pipe", "pipe26", "web"))) as stand,
        stand.client(Way("stdio", LATEST), process=True) as client,
    ):
        await client.begin("tools/call", {"name": "pipe__hang"})
        await stand["pipe"].wait_for("tools/call")
        children = [*stand["pipe"].pids, *stand["pipe26"].pids]
        assert all(is_running(pid) for pid in children)
        if end == "stdin":
            client.close_stdin()
        else:
            client.process.send_signal(getattr(signal, end))
        assert await client.wait_ended() == 0, bytes(client.stderr)
        assert not any(is_running(pid) for pid in children)
        assert b"Traceback" not in client.stderr
        assert all(json.loads(line)["jsonrpc"] == "2.0" for line in client.lines)
