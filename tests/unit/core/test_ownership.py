"""Whose the state of the Bridge is: a key that another principal presents finds nothing."""

import json

import pytest

from mcp_manifold.core.bridge import CallTarget, Repeat
from mcp_manifold.errors import InvalidParams, RemoteError
from mcp_manifold.model.policy import Principal
from tests.unit.core.house import House, modern_call, server

pytestmark = pytest.mark.anyio

ELICITATION = {"mode": "url", "message": "Sign in", "url": "https://x.test/", "elicitationId": "1"}
REQUIRED = json.dumps({"code": -32042, "message": "sign in", "data": {"elicitations": [ELICITATION]}}).encode()


async def test_a_call_to_repeat_is_found_by_its_own_principal_only() -> None:
    house = House(server("a"))
    house.offers("a", tools=["t"])
    alice, bob = Principal("alice", "1"), Principal("bob", "2")
    target = CallTarget("tools/call", house.backend(), "t")
    answer = house.bridge.url_required(
        RemoteError(REQUIRED, code=-32042, backend="a"), modern_call(principal=alice, name="t"), target
    )
    state = json.loads(bytes(answer or b"{}"))["requestState"]
    with pytest.raises(InvalidParams, match="requestState"):
        house.bridge.find_parked(modern_call(principal=bob, name="t", requestState=state), target)
    found = house.bridge.find_parked(modern_call(principal=alice, name="t", requestState=state), target)
    assert isinstance(found, Repeat)
