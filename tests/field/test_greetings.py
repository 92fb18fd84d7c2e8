"""Greetings of servers written by hand: the revision before the first one is accepted, as by the TypeScript client."""

import pytest

from tests.contract.stand import LATEST, standing
from tests.peers.backend import Script, tool
from tests.peers.ways import Way

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("kind", ["pipe", "web", "stream"])
async def test_a_server_of_2024_10_07_is_used(kind: str) -> None:
    script = Script(name=kind, era="handshake", versions=("2024-10-07",), tools=(tool("echo"),))
    async with standing({kind: script}) as stand, stand.client(Way("http", LATEST)) as client:
        assert (await client.call(f"{kind}__echo", {"text": "x"})).text == "x"
        assert stand.status(kind).version == "2024-10-07"
