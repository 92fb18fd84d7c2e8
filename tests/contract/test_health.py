"""What an operator sees of a whole manifold: health, readiness and metrics, over HTTP, with real servers behind it."""

import re
from dataclasses import replace
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.contract.behaviours import shows
from tests.contract.offers import offerings
from tests.contract.stand import ERAS, LATEST, Stand, standing
from tests.peers.backend import named
from tests.peers.clients import MODERN_VERSION
from tests.peers.ways import Way
from tests.unit.fronts.fakes import Client

pytestmark = pytest.mark.anyio

SECRET = "hunter2"
TOKENS = {"tokens": [{"name": "ann", "token": SECRET}]}
MISSING = {"command": "no-such-command-anywhere"}
SERVER = {"name", "status", "latency", "state", "since", "era", "transport", "tools", "prompts", "resources",
          "lastError", "lastExit", "breaker", "invalidItems", "nextAttempt"}  # fmt: skip
MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


async def site_of(stand: Stand, **headers: str) -> Client:
    """A client of everything that is not MCP, once all servers were tried."""
    await stand.origin()
    await stand.manifold.settle()
    return Client(stand.manifold.asgi_app(), **headers)


async def shown(stand: Stand) -> dict[str, dict[str, Any]]:
    answer = await (await site_of(stand)).send("GET", "/health/servers")
    return {server["name"]: server for server in answer.json["servers"]}


async def scraped(client: Client) -> dict[str, float]:
    """The metrics: `name{label=value,...}` to number, labels in order of their names."""
    answer = await client.send("GET", "/metrics")
    assert answer.status == 200, answer
    return {
        sample.name
        + "{"
        + ",".join(f"{key}={value}" for key, value in sorted(sample.labels.items()))
        + "}": sample.value
        for family in text_string_to_metric_families(answer.body.decode())
        for sample in family.samples
    }


# --- health ---------------------------------------------------------------------------------------------------------


@shows("health")
async def test_health_is_in_one_word_and_three_numbers() -> None:
    async with standing(offerings(("web",))) as stand:
        client = await site_of(stand)
        whole = {"status": "healthy", "servers": {"configured": 1, "connected": 1, "healthy": 1}}
        assert (await client.send("GET", "/health")).json == whole
    async with standing(offerings(("web",))) as stand:
        stand.config["mcpServers"] |= {"missing": MISSING, "off": {**MISSING, "disabled": True}}
        client = await site_of(stand)
        part = {"status": "degraded", "servers": {"configured": 2, "connected": 1, "healthy": 1}}
        assert (await client.send("GET", "/health")).json == part


@shows("health")
async def test_every_kind_of_server_is_described_alike() -> None:
    async with standing(offerings()) as stand:
        found = await shown(stand)
        assert set(found) == set(ERAS)
        for name, server in found.items():
            assert set(server) == SERVER
            assert (server["status"], server["state"], server["era"]) == ("healthy", "ready", ERAS[name])
            assert (server["tools"] > 0, server["lastError"], server["nextAttempt"]) == (True, "", None)
            assert server["latency"] >= 0
            assert MOMENT.fullmatch(server["since"])


@shows("health")
async def test_a_server_that_is_away_says_why_and_when_it_is_tried_again() -> None:
    stuck = replace(named("stuck"), era="handshake")
    async with standing({**offerings(("web",)), "web_stuck": stuck}, manifold={"startupTimeout": "1s"}) as stand:
        refused = {"url": "http://127.0.0.1:9/mcp"}
        stand.config["mcpServers"] |= {"missing": MISSING, "refused": refused, "off": {**MISSING, "disabled": True}}
        await stand.origin()
        failing = ("missing", "refused")
        await stand.until(
            lambda: stand.status("web").state == "ready" and all(stand.status(name).last_error for name in failing)
        )
        found = await shown(stand)
        missing, off = found["missing"], found["off"]
        assert (missing["status"], missing["latency"], missing["tools"]) == ("unhealthy", None, 0)
        assert "no-such-command-anywhere" in missing["lastError"]
        assert "not found" in missing["lastError"]
        assert "refused" in found["refused"]["lastError"]
        assert missing["state"] == "connecting" or missing["nextAttempt"] >= 0
        assert (off["status"], off["state"], off["since"]) == ("disabled", "disabled", None)
        assert (found["web"]["state"], found["web_stuck"]["state"]) == ("ready", "connecting")
        assert stand.manifold.health()["status"] == "degraded"
        assert stand.manifold.readiness() == {"ready": True}


# --- readiness ------------------------------------------------------------------------------------------------------


@shows("ready")
async def test_it_is_ready_with_its_required_server_until_it_shuts_down() -> None:
    async with standing(offerings(("web",)), web={"required": True}) as stand:
        client = await site_of(stand)
        assert (await client.send("GET", "/_readyz")).status == 200
        stand.manifold.asgi_app().front().close()
        assert (await client.send("GET", "/_readyz")).status == 503
        assert (await client.send("GET", "/_healthz")).status == 200


# --- metrics --------------------------------------------------------------------------------------------------------


@shows("metrics")
@pytest.mark.parametrize("way", [Way("http", LATEST), Way("http", MODERN_VERSION)], ids=str)
async def test_calls_move_the_metrics_of_their_server_and_outcome(way: Way) -> None:
    async with standing(offerings(("web", "pipe"))) as stand, stand.client(way) as caller:
        client = await site_of(stand)
        before = await scraped(client)
        for tool in ("web__echo", "web__echo", "pipe__echo", "web__failed", "web__error", SECRET):
            await caller.call(tool, {"text": SECRET})
        after = await scraped(client)
        counts = {key: after[key] - before.get(key, 0) for key in after if key.startswith("mcp_proxy_requests_total")}
        assert {key: number for key, number in counts.items() if "tools/call" in key} == {
            "mcp_proxy_requests_total{method=tools/call,outcome=ok,server=pipe}": 1,
            "mcp_proxy_requests_total{method=tools/call,outcome=ok,server=web}": 2,
            "mcp_proxy_requests_total{method=tools/call,outcome=tool_error,server=web}": 1,
            "mcp_proxy_requests_total{method=tools/call,outcome=protocol_error,server=web}": 1,
            "mcp_proxy_requests_total{method=tools/call,outcome=invalid,server=}": 1,
        }
        assert after["mcp_proxy_latency_seconds_count{method=tools/call,server=web}"] == 4
        assert after["mcp_proxy_latency_seconds_bucket{le=+Inf,method=tools/call,server=web}"] == 4
        assert after["mcp_proxy_received_bytes_total{}"] > before["mcp_proxy_received_bytes_total{}"]
        assert after["mcp_proxy_sent_bytes_total{}"] > before["mcp_proxy_sent_bytes_total{}"]


@shows("metrics")
async def test_a_call_that_hangs_is_in_flight_and_its_server_owes_an_answer() -> None:
    async with standing(offerings(("web",))) as stand, stand.client(Way("http", LATEST)) as caller:
        client = await site_of(stand)
        pending = await caller.begin("tools/call", {"name": "web__hang", "arguments": {"text": "x"}})
        await stand["web"].wait_for("tools/call")
        found = await scraped(client)
        assert found["mcp_proxy_in_flight{method=tools/call}"] == 1
        assert found["mcp_backend_pending_requests{server=web}"] == 1
        assert found["mcp_proxy_sessions{}"] == 1
        await stand["web"].release()
        await pending.reply()
        found = await scraped(client)
        assert found["mcp_proxy_in_flight{method=tools/call}"] == 0
        assert found["mcp_backend_pending_requests{server=web}"] == 0


@shows("metrics")
async def test_a_restart_moves_the_metrics_of_its_server() -> None:
    async with standing(offerings(("pipe",))) as stand:
        client = await site_of(stand)
        found = await scraped(client)
        assert found["mcp_backend_state{server=pipe,state=ready}"] == 1
        assert found["mcp_backend_restarts_total{server=pipe}"] == 0
        assert found["mcp_backend_entries{kind=tool,server=pipe}"] > 0
        assert found["mcp_backend_listing_age_seconds{server=pipe}"] >= 0
        await stand["pipe"].exit(3)
        await stand.until(lambda: stand.manifold.status()[0].lives == 2)
        found = await scraped(client)
        assert found["mcp_backend_restarts_total{server=pipe}"] == 1
        assert found["mcp_backend_links_opened_total{server=pipe}"] == 2
        assert sum(number for key, number in found.items() if key.startswith("mcp_backend_state{server=pipe")) == 1


@shows("metrics-safe")
async def test_s44_what_clients_and_servers_say_is_in_no_metric() -> None:
    async with standing(offerings(("web",)), manifold=TOKENS) as stand:
        stand.config["mcpServers"]["missing"] = {"command": f"no-{SECRET}", "env": {"KEY": SECRET}}
        client = await site_of(stand, authorization=f"Bearer {SECRET}")
        async with stand.client(Way("http", LATEST), token=SECRET) as caller:
            series = 0
            for number in range(20):
                await caller.call(f"web__{SECRET}{number}", {"text": SECRET})
                await caller.request(f"{SECRET}/{number}")
                series = series or len(await scraped(client))
        answer = await client.send("GET", "/metrics")
        assert SECRET not in answer.body.decode()
        assert len(await scraped(client)) == series


@shows("metrics-safe")
async def test_s44_metrics_and_health_are_for_those_with_a_token_only() -> None:
    async with standing(offerings(("web",)), manifold=TOKENS) as stand:
        for path in ("/metrics", "/health", "/health/servers"):
            assert (await (await site_of(stand)).send("GET", path)).status == 401
            assert (await (await site_of(stand, authorization="Bearer no")).send("GET", path)).status == 401
            assert (await (await site_of(stand, authorization=f"Bearer {SECRET}")).send("GET", path)).status == 200
        strange = await site_of(stand, host="evil.example.com", authorization=f"Bearer {SECRET}")
        assert (await strange.send("GET", "/metrics")).status == 403


@shows("metrics")
async def test_without_metrics_there_is_no_page_of_them() -> None:
    async with standing(offerings(("web",)), manifold={"metrics": False}) as stand:
        client = await site_of(stand)
        assert (await client.send("GET", "/metrics")).status == 404
        async with stand.client(Way("http", LATEST)) as caller:
            assert (await caller.call("web__echo", {"text": "fine"})).text == "fine"
