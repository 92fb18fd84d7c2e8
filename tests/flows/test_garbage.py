"""An answered call is gone with its answer: nothing of it waits for the garbage collector, and no payload with it."""

import asyncio
import gc
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.contract.offers import offerings
from tests.contract.stand import LATEST, OLDEST, standing
from tests.peers.clients import MODERN_VERSION
from tests.peers.ways import Way

pytestmark = pytest.mark.anyio

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


SERVERS = ("web", "web26", "stream", "pipe")


@pytest.mark.parametrize("tool", ["echo", "progress", "error"])
@pytest.mark.parametrize("way", [Way("http", LATEST), Way("http", MODERN_VERSION), Way("sse", OLDEST)], ids=str)
async def test_an_answered_call_leaves_nothing_to_the_collector(way: Way, tool: str) -> None:
    async with standing(offerings(SERVERS)) as stand, stand.client(way) as client:
        for server in SERVERS:
            await client.call(f"{server}__{tool}")  # what the first call sets up is not that call's alone
            await asyncio.sleep(0)
            found: Counter[str] = Counter()
            with _kept(found):
                for _ in range(CALLS):
                    await client.call(f"{server}__{tool}")
                await asyncio.sleep(0)  # the turn in which the last answer is put away
            assert not [kind for kind, count in found.items() if count >= CALLS], (server, found)
