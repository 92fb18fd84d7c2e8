"""Health checks and readiness: they tell what is so, and cost nobody anything."""

import asyncio
import json
import os
import signal
from dataclasses import replace
from typing import Any

import pytest

from tests.contract.offers import offering, offerings
from tests.contract.stand import LATEST
from tests.faults.invariants import enduring
from tests.peers.backend import Act, Fault
from tests.peers.clients import HttpClient
from tests.peers.processes import until
from tests.peers.ways import Way

pytestmark = pytest.mark.anyio

HTTP = Way("http", LATEST)
OFTEN = {"pingInterval": "250ms"}
"""Often, and long enough for an answer on a busy machine."""
HELLO = {"pipe": "initialize", "web": "initialize", "stream": "initialize", "pipe26": "x", "web26": "x"}
PROBE = {"handshake": "ping", "modern": "server/discover"}


async def site(client: HttpClient, path: str) -> tuple[int, Any]:
    """Status and body of a page beside the conversation."""
    async with await client.caller.send("GET", target=path) as response:
        return response.status, json.loads(await response.body.all())


# --- probes (R29) ----------------------------------------------------------------------------------------------------


async def test_r29_probes_open_no_session_and_start_no_process() -> None:
    often = dict.fromkeys(HELLO, OFTEN)
    async with enduring(offerings(HELLO), **often) as stand, stand.client(HTTP) as client:
        for kind in HELLO:
            assert (await client.call(f"{kind}__echo", {"text": "x"})).text == "x"
        probes = {kind: PROBE[offering(kind).era] for kind in HELLO}
        greeted = {kind: len(stand[kind].calls(hello)) for kind, hello in HELLO.items()}
        probed = {kind: len(stand[kind].calls(probe)) for kind, probe in probes.items()}
        await asyncio.gather(*(stand[kind].wait_for(probes[kind], count=probed[kind] + 4) for kind in HELLO))
        for kind, hello in HELLO.items():
            assert len(stand[kind].calls(hello)) == greeted[kind]
            if kind.startswith("pipe"):
                assert len(stand[kind].children) == 1
            else:
                assert stand[kind].connections <= 6


async def test_r29_one_probe_that_is_missed_changes_nothing() -> None:
    async with enduring(offerings(("web26",)), web26=OFTEN) as stand, stand.client(HTTP) as client:
        for _ in range(3):
            seen = len(stand["web26"].calls("server/discover"))
            stand["web26"].fail(Fault(kind="hang", method="server/discover"))
            await stand["web26"].wait_for("server/discover", count=seen + 2)
            assert stand.status("web26").state == "ready"
        await stand["web26"].release("fault")
        assert (await client.call("web26__echo", {"text": "x"})).text == "x"


async def test_r29_a_server_that_stands_still_stays_listed_and_recovers_by_itself() -> None:
    async with enduring(offerings(("pipe",)), pipe=OFTEN) as stand, stand.client(HTTP) as client:
        before = (await client.request("tools/list")).result
        (pid,) = stand["pipe"].pids
        os.kill(pid, signal.SIGSTOP)
        try:
            await until(lambda: stand.status("pipe").state == "degraded", "the probes to be missed")
            assert (await client.request("tools/list")).result == before
            assert "no answer" in stand.status("pipe").last_error
            _, health = await site(client, "/health")
            assert health == {"status": "degraded", "servers": {"configured": 2, "connected": 2, "healthy": 1}}
        finally:
            os.kill(pid, signal.SIGCONT)
        await until(lambda: stand.status("pipe").state == "ready", "the recovery")
        assert stand.status("pipe").last_error == ""
        assert stand["pipe"].pids == [pid]


# --- readiness (R30) -------------------------------------------------------------------------------------------------


async def test_r30_it_is_ready_when_the_required_servers_are_and_not_before() -> None:
    slow = replace(offering("web"), on={"initialize": Act("hang", "start", then=Act("default"))})
    everyone = {"web": slow, "web_quick": offering("web_quick")}
    needed = {"web": {"required": True}}
    quick = {"startupTimeout": "300ms"}
    async with enduring(everyone, manifold=quick, **needed) as stand, stand.client(HTTP) as client:
        assert await site(client, "/_healthz") == (200, {"status": "ok"})
        await until(lambda: stand.status("web_quick").state == "ready", "the one that is quick")
        assert await site(client, "/_readyz") == (503, {"ready": False})
        _, health = await site(client, "/health")
        assert health == {"status": "degraded", "servers": {"configured": 3, "connected": 2, "healthy": 2}}
        await stand["web"].release("start")
        await until(lambda: stand.status("web").state == "ready", "the one that is slow")
        assert await site(client, "/_readyz") == (200, {"ready": True})


async def test_r30_an_optional_server_that_hangs_keeps_nothing_unready_and_is_told_of() -> None:
    slow = replace(offering("web"), on={"initialize": Act("hang", "start", then=Act("default"))})
    quick = {"startupTimeout": "300ms"}
    async with enduring({"web": slow}, manifold=quick) as stand, stand.client(HTTP) as client:
        await client.request("tools/list")  # which waits for as long as the start may take
        assert (await site(client, "/_readyz"))[0] == 200
        _, health = await site(client, "/health/servers")
        found = {each["name"]: each for each in health["servers"]}
        assert (found["web"]["status"], found["web"]["state"]) == ("unhealthy", "connecting")
