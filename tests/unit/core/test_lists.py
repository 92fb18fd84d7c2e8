"""Instructions, and lists: by revision, in pages, and the bytes of them that are kept."""

import json
from typing import Any

import pytest

from mcp_manifold.core.scope_responder import MAX_INSTRUCTIONS
from mcp_manifold.errors import AllUnavailable
from mcp_manifold.model.call import Session
from mcp_manifold.model.catalogue import Hint
from mcp_manifold.model.policy import ANONYMOUS
from mcp_manifold.wire import HANDSHAKE_VERSIONS, LATEST_HANDSHAKE, MODERN_VERSION, Pieces
from tests.unit.core.house import House, call_of, server

pytestmark = pytest.mark.anyio


# --- initialize and discover ----------------------------------------------------------------------------------------


async def test_instructions_are_labelled_and_cut() -> None:
    house = House(server("a"), server("b"), server("c"), instructions="Ours.")
    house.offers("b", instructions="x" * (MAX_INSTRUCTIONS + 1))
    house.offers("a", instructions="Search first.")
    house.offers("c")
    found = (await house.ask("initialize"))["instructions"]
    assert found == f"Ours.\n\n# Server a\nSearch first.\n\n# Server b\n{'x' * MAX_INSTRUCTIONS} [...]"
    assert (await house.ask("initialize", scope="server:a"))["instructions"] == "Search first."
    assert "instructions" not in await house.ask("initialize", scope="server:c")


# --- lists ----------------------------------------------------------------------------------------------------------


async def test_lists_are_encoded_for_each_revision_once() -> None:
    house = House(server("a"))
    tool = {"name": "t", "inputSchema": {}, "outputSchema": {"type": "array"}, "execution": {"x": 1}}
    house.offers("a", tools=[tool])
    found = {
        version: (await house.ask("tools/list", version))["tools"][0]
        for version in (*HANDSHAKE_VERSIONS, MODERN_VERSION)
    }
    assert [version for version in found if "execution" in found[version]] == ["2025-11-25"]
    assert [version for version in found if "outputSchema" in found[version]] == [MODERN_VERSION]
    house.offers("a", tools=["other"])
    assert [tool["name"] for tool in (await house.ask("tools/list", MODERN_VERSION))["tools"]] == ["a__other"]


# --- pages ------------------------------------------------------------------------------------------------------------


def listed(house: House, version: str = LATEST_HANDSHAKE, **params: Any) -> Pieces:
    return house.facts.responder.answer(call_of(Session("", ANONYMOUS, "", version), "tools/list", **params))


async def test_a_page_is_encoded_once_until_the_list_changes() -> None:
    house = House(server("a"))
    house.offers("a", tools=["t"])
    (first,), (second,) = listed(house), listed(house)
    assert first is second
    house.offers("a", tools=["other"])
    (third,) = listed(house)
    assert b"a__other" in bytes(third)


async def test_only_the_remaining_cache_time_is_encoded_for_each_call() -> None:
    house = House(server("a"))
    hint = Hint(60_000, is_public=False, at=house.clock.now())
    house.offers("a", era="modern", tools=["t"], hints={"tools/list": hint})
    first = listed(house, MODERN_VERSION)
    await house.clock.advance(10)
    second = listed(house, MODERN_VERSION)
    assert isinstance(first[0], memoryview)
    assert isinstance(second[0], memoryview)
    assert first[0].obj is second[0].obj
    assert [json.loads(b"".join(each))["ttlMs"] for each in (first, second)] == [60_000, 50_000]


async def test_unavailable_servers_are_named_and_a_lost_scope_is_an_error() -> None:
    house = House(server("a"), server("b"))
    house.offers("a", tools=["t"])
    house.hub.mark_unavailable("b", "is gone", "")
    found = await house.ask("tools/list")
    assert [each["server"] for each in found["_meta"]["mcp-manifold/missing"]] == ["b"]
    lost = House(server("a"))
    lost.hub.mark_unavailable("a", "is gone", "")
    assert isinstance(await lost.refused("tools/list"), AllUnavailable)
