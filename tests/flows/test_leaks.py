"""Nothing stays: of answered calls for the garbage collector, of restarts as tasks, descriptors or children."""

import asyncio
import gc
import os
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.contract.offers import offerings
from tests.contract.stand import LATEST, OLDEST, Stand, standing, until_well
from tests.peers.backend import StdioBackend
from tests.peers.clients import MODERN_VERSION, Client
from tests.peers.processes import Holdings, holdings, most, steady, until
from tests.peers.ways import Way

pytestmark = pytest.mark.anyio

ONE_EACH = ("web", "web26", "stream", "pipe")
CALLS = 10


@contextmanager
def _kept(found: Counter[str]) -> Iterator[None]:
    """Count by type what of ours only the collector could free after what is done inside."""
    gc.collect()
    gc.freeze()  # what was there before need not be walked over again
    gc.disable()
    try:
        yield
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        found.update(type(each).__qualname__ for each in gc.garbage if _is_ours(each))
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.unfreeze()
        gc.enable()


def _is_ours(found: object) -> bool:
    return type(found).__module__.startswith("mcp_manifold.")


@pytest.mark.parametrize("tool", ["echo", "progress", "error"])
@pytest.mark.parametrize("way", [Way("http", LATEST), Way("http", MODERN_VERSION), Way("sse", OLDEST)], ids=str)
async def test_an_answered_call_leaves_nothing_to_the_collector(way: Way, tool: str) -> None:
    async with standing(offerings(ONE_EACH)) as stand, stand.client(way) as client:
        for server in ONE_EACH:
            await client.call(f"{server}__{tool}")  # what the first call sets up is not that call's alone
            await asyncio.sleep(0)
            found: Counter[str] = Counter()
            with _kept(found):
                for _ in range(CALLS):
                    await client.call(f"{server}__{tool}")
                await asyncio.sleep(0)  # the turn in which the last answer is put away
            assert not [kind for kind, count in found.items() if count >= CALLS], (server, found)


SLACK = 8
"""Connections kept for the next request, and their tasks: fewer than there are restarts."""


SERVERS = (*(f"{kind}_{number}" for kind in ("web", "web26", "stream") for number in range(3)), "pipe_1")


async def _restart(stand: Stand, server: str) -> None:
    backend = stand[server]
    if isinstance(backend, StdioBackend):
        for pid in backend.pids:
            os.kill(pid, signal.SIGKILL)
    else:
        await backend.refuse()
        await backend.listen()


@pytest.mark.parametrize("rounds", [1, pytest.param(5, marks=pytest.mark.slow)])
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
    await asyncio.gather(*(until_well(client, f"{server}__echo") for server in SERVERS))
    return await steady()
