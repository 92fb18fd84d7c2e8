"""Lists, `initialize` and `server/discover`: capabilities, instructions, pages, and the bytes that are kept."""

import json
from typing import Any

import pytest

from mcp_manifold.core.lists import MAX_INSTRUCTIONS
from mcp_manifold.errors import AllUnavailable, InvalidParams
from mcp_manifold.model.call import Session
from mcp_manifold.model.catalogue import Hint
from mcp_manifold.model.policy import ANONYMOUS
from mcp_manifold.wire import HANDSHAKE_VERSIONS, LATEST_HANDSHAKE, MODERN_VERSION, Pieces
from tests.unit.core.house import LISTS, META, House, call_of, server

pytestmark = pytest.mark.anyio


# --- initialize and discover ----------------------------------------------------------------------------------------


async def test_initialize_answers_in_the_agreed_revision() -> None:
    house = House(server("a"))
    house.offers("a", capabilities=b'{"completions":{},"logging":{}}')
    for version in HANDSHAKE_VERSIONS:
        found = await house.ask("initialize", version)
        assert (found["protocolVersion"], found["serverInfo"]) == (version, {"name": "ours", "version": "1"})
        assert found["capabilities"]["tools"] == {"listChanged": True}
        assert ("completions" in found["capabilities"]) == (version != "2024-11-05")
        assert "instructions" not in found


async def test_discover_says_what_initialize_does_and_no_more_revisions_than_it_speaks() -> None:
    house = House(server("a"), instructions="Be kind.")
    house.offers("a", capabilities=b'{"completions":{}}')
    found = await house.ask("server/discover", MODERN_VERSION)
    assert found["supportedVersions"] == [MODERN_VERSION]
    assert set(found["capabilities"]) >= {"tools", "resources", "prompts", "completions"}
    assert found["instructions"] == "Be kind."
    assert (found["resultType"], found["ttlMs"], found["cacheScope"], found["_meta"]) == (
        "complete",
        0,
        "private",
        META,
    )


@pytest.mark.parametrize("capabilities", [b"null", b"[]", b"5", b'{"completions":NaN', b""])
async def test_one_backends_strange_capabilities_hurt_nobody(capabilities: bytes) -> None:
    house = House(server("a"), server("b"))
    house.offers("a", capabilities=capabilities)
    house.offers("b", capabilities=b'{"completions":{}}')
    assert "completions" in (await house.ask("initialize"))["capabilities"]
    assert "completions" in (await house.ask("server/discover", MODERN_VERSION))["capabilities"]


async def test_completions_are_offered_only_where_somebody_has_them() -> None:
    house = House(server("a"))
    house.offers("a", capabilities=b'{"tools":{}}')
    assert "completions" not in (await house.ask("initialize"))["capabilities"]


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


async def test_lists_are_of_the_scope_and_in_its_era() -> None:
    house = House(server("a"), server("b"), groups={"team": ["b"]})
    for name in ("a", "b"):
        house.offers(name, tools=["t"], prompts=["p"], resources=[f"{name}:1"], templates=[f"{name}:{{v}}"])
    assert [tool["name"] for tool in (await house.ask("tools/list"))["tools"]] == ["a__t", "b__t"]
    assert [prompt["name"] for prompt in (await house.ask("prompts/list"))["prompts"]] == ["a__p", "b__p"]
    assert [each["uri"] for each in (await house.ask("resources/list"))["resources"]] == ["a:1", "b:1"]
    templates = (await house.ask("resources/templates/list"))["resourceTemplates"]
    assert [each["uriTemplate"] for each in templates] == ["a:{v}", "b:{v}"]
    assert [tool["name"] for tool in (await house.ask("tools/list", scope="server:a"))["tools"]] == ["t"]
    assert [tool["name"] for tool in (await house.ask("tools/list", scope="group:team"))["tools"]] == ["b__t"]
    modern = await house.ask("tools/list", MODERN_VERSION)
    assert {key: modern[key] for key in modern if key != "tools"} == {
        "resultType": "complete",
        "ttlMs": 0,
        "cacheScope": "private",
        "_meta": META,
    }
    assert set(await house.ask("tools/list")) == {"tools"}


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


@pytest.mark.parametrize("method", LISTS)
async def test_a_cursor_nobody_gave_out_is_refused(method: str) -> None:
    house = House()
    cursors: tuple[object, ...] = ("x", "", 5, {})
    for cursor in cursors:
        assert isinstance(await house.refused(method, cursor=cursor), InvalidParams)
    assert await house.ask(method, cursor=None)


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


async def test_the_cursor_of_a_page_leads_to_the_next() -> None:
    house = House(server("a"), page_size=4)
    house.offers("a", tools=list("tuvwxy"))
    first = await house.ask("tools/list")
    second = await house.ask("tools/list", cursor=first["nextCursor"])
    assert [tool["name"] for tool in first["tools"] + second["tools"]] == [f"a__{name}" for name in "tuvwxy"]
    assert "nextCursor" not in second


async def test_unavailable_servers_are_named_and_a_lost_scope_is_an_error() -> None:
    house = House(server("a"), server("b"))
    house.offers("a", tools=["t"])
    house.hub.mark_unavailable("b", "is gone", "")
    found = await house.ask("tools/list")
    assert [each["server"] for each in found["_meta"]["mcp-manifold/missing"]] == ["b"]
    lost = House(server("a"))
    lost.hub.mark_unavailable("a", "is gone", "")
    assert isinstance(await lost.refused("tools/list"), AllUnavailable)
