"""Many clients and many restarts: tasks, descriptors and children stay as many as they were. Warms up, then counts."""

import asyncio
import os
import signal

import pytest

from tests.contract.offers import offerings
from tests.contract.stand import LATEST, OLDEST, Stand, standing
from tests.peers.backend import StdioBackend
from tests.peers.clients import MODERN_VERSION, Client
from tests.peers.processes import Holdings, holdings, most, steady, until
from tests.peers.ways import Way

pytestmark = pytest.mark.anyio

SLACK = 8
"""Connections kept for the next request, and their tasks: fewer than there are visits or restarts."""
WAYS = (Way("http", LATEST), Way("sse", OLDEST), Way("http", MODERN_VERSION))


async def _visit(stand: Stand, way: Way) -> None:
    """One client: comes, calls, leaves with a call in flight, in the way of its front."""
    async with stand.client(way) as client:
        assert (await client.call("web__echo", {"text": "x"})).text == "x"
        await client.call("web26__echo")
        seen = len(stand["web"].calls("tools/call"))
        await client.begin("tools/call", {"name": "web__hang"})
        await stand["web"].wait_for("tools/call", count=seen + 1)
        if way == WAYS[0]:
            assert await client.delete() == 204


@pytest.mark.parametrize("visits", [60, pytest.param(200, marks=pytest.mark.slow)])
async def test_i4_clients_that_come_and_go_leave_nothing_behind(visits: int) -> None:
    async with standing(offerings(("web", "web26"))) as stand:
        for number in range(15):
            await _visit(stand, WAYS[number % 3])
        before = await steady()
        for number in range(visits):
            await _visit(stand, WAYS[number % 3])
        await until(lambda: not holdings().grew_beyond(before, by=SLACK), f"what there was before: {before}")
        # each client's own link is gone as well: what stays is the one the lists come by
        await until(lambda: len(stand["web"].sessions) <= 2, "the end of the links held for clients")


SERVERS = (*(f"{kind}_{number}" for kind in ("web", "web26", "stream") for number in range(3)), "pipe_1")


async def _restart(stand: Stand, server: str) -> None:
    backend = stand[server]
    if isinstance(backend, StdioBackend):
        for pid in backend.pids:
            os.kill(pid, signal.SIGKILL)
    else:
        await backend.refuse()
        await backend.listen()


async def _back(client: Client, server: str) -> None:
    for _ in range(200):
        if (await client.call(f"{server}__echo", {"text": "x"})).error is None:
            return
        await asyncio.sleep(0.05)  # it refuses at once while it waits for its next attempt
    raise AssertionError(f"{server} never came back")


@pytest.mark.parametrize("rounds", [2, pytest.param(5, marks=pytest.mark.slow)])
async def test_i4_backends_that_restart_leave_nothing_behind(rounds: int) -> None:
    async with standing(offerings(SERVERS)) as stand, stand.client(Way("http", LATEST)) as client:
        warm = [
            await _round(stand, client) for _ in range(3)
        ]  # what is open between restarts differs from time to time
        for _ in range(rounds):  # of ten servers at once, since each takes its time to come back
            await _round(stand, client)
        await until(lambda: not holdings().grew_beyond(most(warm), by=SLACK), f"what there was before: {warm}")


async def _round(stand: Stand, client: Client) -> Holdings:
    """Restart every server and wait until all are back; what is held then."""
    await asyncio.gather(*(_restart(stand, server) for server in SERVERS))
    await asyncio.gather(*(_back(client, server) for server in SERVERS))
    return await steady()
