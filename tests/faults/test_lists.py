"""Lists while servers are slow, flap, fail or storm: what is known stays, who is late joins, nobody is told too often."""

import asyncio
import os
import signal
from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.contract.offers import offering, offerings
from tests.contract.stand import LATEST, Stand
from tests.faults.invariants import BYSTANDER, enduring
from tests.faults.test_backends import until_well
from tests.peers.backend import Act, Fault, tool
from tests.peers.clients import Client
from tests.peers.ways import Way

pytestmark = pytest.mark.anyio

HTTP = Way("http", LATEST)
CHANGED = "notifications/tools/list_changed"


async def listed(client: Client) -> set[str]:
    """The tools, by public name."""
    return {each["name"] for each in (await client.request("tools/list")).value["tools"]}


async def servers(client: Client) -> set[str]:
    """The servers of which tools are listed, but for the bystander."""
    return {name.rpartition("__")[0] for name in await listed(client)} - {BYSTANDER}


def announced(client: Client) -> int:
    """How often the client was told that the tools changed."""
    return sum(each.method == CHANGED for each in client.received)


async def until_listed(client: Client, is_so: Callable[[set[str]], bool]) -> None:
    """List each time a change is announced, until it is so."""
    count = announced(client)
    while not is_so(await listed(client)):
        count += 1
        await client.wait_for(CHANGED, count=count, timeout=20)


# --- slow (R4) -------------------------------------------------------------------------------------------------------

SLOW = [
    *((kind, "initialize") for kind in ("pipe", "web", "stream")),
    *((kind, "server/discover") for kind in ("pipe26", "web26")),
    *((kind, "tools/list") for kind in ("pipe", "web26")),
]


@pytest.mark.parametrize(("kind", "method"), SLOW)
async def test_r4_a_server_that_is_slow_to_begin_keeps_nobody_waiting_and_joins_when_it_is_there(
    kind: str, method: str
) -> None:
    slow = replace(offering(kind), on={method: Act("hang", "start", then=Act("default"))})
    everyone = {kind: slow, "web_quick": offering("web_quick")}
    async with enduring(everyone, manifold={"startupTimeout": "700ms"}) as stand, stand.client(HTTP) as client:
        await client.watch()
        await until_listed(client, lambda found: "web_quick__echo" in found)
        assert await servers(client) == {"web_quick"}
        await stand[kind].release("start")
        await until_listed(client, lambda found: f"{kind}__echo" in found)
        assert (await client.call(f"{kind}__echo", {"text": "there"})).text == "there"


# --- flapping (R5) ---------------------------------------------------------------------------------------------------


async def test_r5_a_server_that_flaps_stays_listed_and_nobody_is_told_again_and_again() -> None:
    async with enduring(offerings(("pipe", "web"))) as stand, stand.client(HTTP) as client:
        await client.watch()
        before = await listed(client)
        for _ in range(4):
            os.kill(stand["pipe"].pids[-1], signal.SIGKILL)
            assert await listed(client) == before
            await until_well(client, "pipe__echo")
            await stand["web"].refuse()
            assert await listed(client) == before
            await stand["web"].listen()
            await until_well(client, "web__echo")
        assert await listed(client) == before
        assert announced(client) == 0  # nothing differs, whoever came and went


# --- failing (R6) ----------------------------------------------------------------------------------------------------

TEN = tuple(f"web_{number}" for number in range(10))


async def test_r6_a_list_that_fails_at_one_of_ten_leaves_its_last_entries_and_all_others() -> None:
    async with enduring(offerings(TEN)) as stand, stand.client(HTTP) as client:
        before = await listed(client)
        assert len({name.rpartition("__")[0] for name in before} - {BYSTANDER}) == 10
        stand["web_3"].fail(Fault(500, method="tools/list", times=0))
        await stand["web_3"].set_tools((*stand["web_3"].script.tools, tool("fresh")))
        await stand["web_3"].wait_for(lambda item: item.kind == "http" and b'"tools/list"' in item.raw, count=2)
        assert await listed(client) == before
        assert (await client.call("web_3__echo", {"text": "still"})).text == "still"
        await client.watch()
        stand["web_3"].heal()
        await until_listed(client, lambda found: "web_3__fresh" in found)


# --- storms (R28) ----------------------------------------------------------------------------------------------------


def _lists(stand: Stand, server: str) -> int:
    return len(stand[server].calls("tools/list"))


@pytest.mark.parametrize("kind", ["pipe", "web", "web26"])
async def test_r28_a_thousand_changes_are_a_few_lists_and_a_few_announcements(kind: str) -> None:
    async with enduring(offerings((kind,))) as stand, stand.client(HTTP) as client:
        await client.watch()
        before = _lists(stand, kind)
        await stand[kind].set_tools((*stand[kind].script.tools, tool("fresh")), times=1000)
        await until_listed(client, lambda found: f"{kind}__fresh" in found)
        await stand[kind].wait_for("tools/list", count=before + 1)
        assert _lists(stand, kind) - before <= 20
        assert announced(client) <= 20
        await asyncio.wait_for(client.call(f"{kind}__echo", {"text": "x"}), 20)
