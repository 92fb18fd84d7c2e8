"""What is kept on disk, when the disk is not as it should be: it is said, and everything works as without it."""

import asyncio
import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.contract.offers import offering
from tests.contract.stand import LATEST, Stand, entry_of
from tests.peers.backend import HttpBackend
from tests.peers.clients import Client
from tests.peers.processes import until
from tests.peers.ways import Way

pytestmark = pytest.mark.anyio

SECRET = "correct-horse-battery-staple"


def files(state: Path) -> list[Path]:
    return sorted((state / "catalogue").glob("*.listing"))


@asynccontextmanager
async def manifold(server: HttpBackend, state: Path) -> AsyncIterator[Client]:
    """A client of a manifold with its memory in `state`."""
    entry = {**entry_of(server), "headers": {"authorization": f"Bearer {SECRET}"}}
    config = {"manifold": {"startupTimeout": "45s", "stateDir": str(state)}, "mcpServers": {"web": entry}}
    async with Stand({"web": server}, config) as stand, stand.client(Way("http", LATEST)) as client:
        yield client


async def works(client: Client) -> None:
    """It lists, and it calls."""
    listed = (await client.request("tools/list")).value["tools"]
    assert "web__echo" in [each["name"] for each in listed]
    assert (await client.call("web__echo", {"text": "x"})).text == "x"


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING]


async def test_two_manifolds_share_a_directory(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with HttpBackend(offering("web")) as server:
        async with manifold(server, tmp_path) as one, manifold(server, tmp_path) as two:
            await asyncio.gather(*(works(client) for client in (one, two) for _ in range(5)))
            await until(lambda: len(files(tmp_path)) == 1, "their file")
        await server.refuse()
        async with manifold(server, tmp_path) as client:
            listed = (await client.request("tools/list")).value["tools"]
            assert "web__echo" in [each["name"] for each in listed]
    assert not [said for said in warnings(caplog) if "last time" in said or "next start" in said]
    assert os.listdir(tmp_path / "catalogue") == [files(tmp_path)[0].name]


async def test_no_secret_of_the_configuration_is_on_the_disk(tmp_path: Path) -> None:
    async with HttpBackend(offering("web")) as server, manifold(server, tmp_path) as client:
        await works(client)
        await until(lambda: len(files(tmp_path)) == 1, "the file")
        (file,) = files(tmp_path)
        assert SECRET not in file.name
        assert SECRET.encode() not in file.read_bytes()
        assert server.url.encode() not in file.read_bytes()
