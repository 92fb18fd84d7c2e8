"""Many restarts: tasks, descriptors and children stay as many as they were. Warms up, then counts."""

import asyncio
import os
import signal

import pytest

from tests.contract.offers import offerings
from tests.contract.stand import LATEST, Stand, standing, until_well
from tests.peers.backend import StdioBackend
from tests.peers.clients import Client
from tests.peers.processes import Holdings, holdings, most, steady, until
from tests.peers.ways import Way

pytestmark = pytest.mark.anyio

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


@pytest.mark.parametrize("rounds", [2, pytest.param(5, marks=pytest.mark.slow)])
async def test_i4_backends_that_restart_leave_nothing_behind(rounds: int) -> None:
    async with standing(offerings(SERVERS)) as stand, stand.client(Way("http", LATEST)) as client:
        warm = [
            await _round(stand, client) for _ in range(2)
        ]  # what is open between restarts differs from time to time
        for _ in range(rounds):  # of ten servers at once, since each takes its time to come back
            await _round(stand, client)
        await until(lambda: not holdings().grew_beyond(most(warm), by=SLACK), f"what there was before: {warm}")


async def _round(stand: Stand, client: Client) -> Holdings:
    """Restart every server and wait until all are back; what is held then."""
    await asyncio.gather(*(_restart(stand, server) for server in SERVERS))
    await asyncio.gather(*(until_well(client, f"{server}__echo") for server in SERVERS))
    return await steady()
