"""What is answered besides MCP."""

from typing import Any

import pytest

from mcp_manifold.fronts.http.front import HttpFront
from mcp_manifold.fronts.http.pages import site
from tests.unit.fronts.fakes import Client, FakeGateway, no_check

pytestmark = pytest.mark.anyio


def client(state: dict[str, Any]) -> Client:
    app = site("", health=lambda: state["health"], servers=lambda: state["servers"], ready=lambda: state["ready"])
    return Client(HttpFront(FakeGateway(), app, check_params=no_check))


async def test_health_pages_show_the_current_state() -> None:
    state = {"health": {"status": "starting"}, "servers": {"alpha": "down"}, "ready": {"ready": False}}
    asking = client(state)
    assert (await asking.send("GET", "/health")).json == {"status": "starting"}
    assert (await asking.send("GET", "/health/servers")).json == {"alpha": "down"}
    assert (await asking.send("GET", "/_readyz")).status == 503
    state["health"], state["ready"] = {"status": "ok"}, {"ready": True}
    assert (await asking.send("GET", "/health")).json == {"status": "ok"}
    assert (await asking.send("GET", "/_readyz")).status == 200
    assert (await asking.send("GET", "/_healthz")).json == {"status": "ok"}


@pytest.mark.parametrize("path", ["/", "/health/", "/mcpx", "/_healthz/x", "/mcp/..;/health", "/%2e%2e/health"])
async def test_an_unknown_path_lists_the_endpoints(path: str) -> None:
    answer = await client({}).send("GET", path)
    assert answer.status == 404
    assert "/{server}/mcp" in answer.json["endpoints"]


async def test_health_cannot_be_posted_to() -> None:
    answer = await client({}).send("POST", "/health")
    assert (answer.status, answer.header("allow")) == (405, "GET, HEAD")
