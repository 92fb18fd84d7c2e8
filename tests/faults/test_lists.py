"""Lists while servers are slow, flap, fail or storm: what is known stays, who is late joins, few are told of it."""

import os
import signal
from dataclasses import replace

import pytest

from tests.contract.offers import offering, offerings
from tests.contract.stand import LATEST, Stand, announced, names, servers_of, until_listed, until_well
from tests.faults.invariants import BYSTANDER, enduring
from tests.peers.backend import Act, Fault, tool
from tests.peers.ways import Way

pytestmark = pytest.mark.anyio

HTTP = Way("http", LATEST)
# --- slow (R4) -------------------------------------------------------------------------------------------------------

SLOW = {
    **{f"{kind}_greets": "initialize" for kind in ("pipe", "web", "stream")},
    **{f"{kind}_greets": "server/discover" for kind in ("pipe26", "web26")},
    **{f"{kind}_lists": "tools/list" for kind in ("pipe", "web26")},
}


async def test_r4_servers_that_are_slow_to_begin_keep_nobody_waiting_and_join_when_they_are_there() -> None:
    slow = {
        server: replace(offering(server), on={method: Act("hang", "start", then=Act("default"))})
        for server, method in SLOW.items()
    }
    everyone = {**slow, "web_quick": offering("web_quick")}
    async with enduring(everyone, manifold={"startupTimeout": "700ms"}) as stand, stand.client(HTTP) as client:
        await client.watch()
        await until_listed(client, lambda found: "web_quick__echo" in found)
        assert await servers_of(client) - {BYSTANDER} == {"web_quick"}
        for server in SLOW:
            await stand[server].release("start")
            await until_listed(client, lambda found, server=server: f"{server}__echo" in found)  # type: ignore[misc]
            assert (await client.call(f"{server}__echo", {"text": "there"})).text == "there"


# --- flapping (R5) ---------------------------------------------------------------------------------------------------


async def test_r5_a_server_that_flaps_stays_listed_and_nobody_is_told_again_and_again() -> None:
    async with enduring(offerings(("pipe", "web"))) as stand, stand.client(HTTP) as client:
        await client.watch()
        before = await names(client)
        for _ in range(4):
            os.kill(stand["pipe"].pids[-1], signal.SIGKILL)
            assert await names(client) == before
            await until_well(client, "pipe__echo")
            await stand["web"].refuse()
            assert await names(client) == before
            await stand["web"].listen()
            await until_well(client, "web__echo")
        assert await names(client) == before
        assert announced(client) == 0  # nothing differs, whoever came and went


# --- failing (R6) ----------------------------------------------------------------------------------------------------

TEN = tuple(f"web_{number}" for number in range(10))


async def test_r6_a_list_that_fails_at_one_of_ten_leaves_its_last_entries_and_all_others() -> None:
    async with enduring(offerings(TEN)) as stand, stand.client(HTTP) as client:
        before = await names(client)
        assert len(await servers_of(client) - {BYSTANDER}) == 10
        stand["web_3"].fail(Fault(500, method="tools/list", times=0))
        await stand["web_3"].set_tools((*stand["web_3"].script.tools, tool("fresh")))
        await stand["web_3"].wait_for(lambda item: item.kind == "http" and b'"tools/list"' in item.raw, count=2)
        assert await names(client) == before
        assert (await client.call("web_3__echo", {"text": "still"})).text == "still"
        await client.watch()
        stand["web_3"].heal()
        await until_listed(client, lambda found: "web_3__fresh" in found)


async def test_r6_when_all_that_is_asked_for_are_away_the_list_is_an_error_and_no_empty_one() -> None:
    groups = {"startupTimeout": "300ms", "groups": {"down": ["one", "two"]}}
    down = {name: {"command": "/no/such/program"} for name in ("one", "two")}
    async with enduring({}, manifold=groups, more=down) as stand, stand.client(HTTP, scope="groups/down") as client:
        reply = await client.request("tools/list")
        assert reply.code == -32603, reply
        assert all(name in str(reply.error) for name in down)


# --- storms (R28) ----------------------------------------------------------------------------------------------------


def _lists(stand: Stand, server: str) -> int:
    return len(stand[server].calls("tools/list"))


async def test_r28_a_thousand_changes_are_a_few_lists_and_a_few_announcements() -> None:
    kinds = ("pipe", "web", "web26")
    async with enduring(offerings(kinds)) as stand, stand.client(HTTP) as client:
        await client.watch()
        before = {kind: _lists(stand, kind) for kind in kinds}
        for kind in kinds:
            await stand[kind].set_tools((*stand[kind].script.tools, tool("fresh")), times=1000)
            await until_listed(client, lambda found, kind=kind: f"{kind}__fresh" in found)  # type: ignore[misc]
            assert _lists(stand, kind) - before[kind] <= 20
            assert (await client.call(f"{kind}__echo", {"text": "x"})).text == "x"
        assert announced(client) <= 60
