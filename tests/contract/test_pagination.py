"""Lists in pages, and how long they may be kept: every front."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from tests.contract.behaviours import shows
from tests.contract.offers import offerings
from tests.contract.stand import OLDEST, WAYS, standing
from tests.peers import BOUND
from tests.peers.backend import Script, prompt, resource, template, tool
from tests.peers.clients import MODERN_VERSION
from tests.peers.ways import Way

pytestmark = pytest.mark.anyio

PAGED = {"limits": {"pageSize": 4}}
LISTS = ("tools/list", "prompts/list", "resources/list", "resources/templates/list")
HTTP26 = Way("http", MODERN_VERSION)


@shows("pages", "pages-cursors")
@pytest.mark.parametrize("way", WAYS, ids=str)
async def test_a_list_in_pages_is_the_whole_list(way: Way) -> None:
    servers = ("web", "web26")
    async with standing(offerings(servers)) as whole, whole.client(way) as client:
        wanted = {method: await client.list_all(method) for method in LISTS}
    async with standing(offerings(servers), manifold=PAGED) as stand, stand.client(way) as client:
        for method in LISTS:
            first = await client.request(method)
            assert await client.list_all(method) == wanted[method]
            if len(wanted[method]) <= 4:
                assert "nextCursor" not in first.value
                continue
            cursor = first.value["nextCursor"]
            assert (await client.request(method, {"cursor": cursor})).value.get("nextCursor") != cursor
            other = next(each for each in LISTS if each != method)
            wrongs: tuple[object, ...] = ("", "x", cursor[:-4] + "AAA=", cursor + "A", "\u00e9", cursor[4:], 7, {})
            for wrong in wrongs:
                assert (await client.request(method, {"cursor": wrong})).code == -32602, wrong
            assert (await client.request(other, {"cursor": cursor})).code == -32602
            assert (await client.request(method, {"cursor": None})).result == first.result


@shows("pages-cursors")
async def test_a_cursor_is_of_the_endpoint_it_was_given_by() -> None:
    way = Way("http", OLDEST)
    async with (
        standing(offerings(("web", "web26")), manifold=PAGED) as stand,
        stand.client(way) as client,
        stand.client(way, scope="web") as own,
    ):
        cursor = (await client.request("tools/list")).value["nextCursor"]
        assert (await own.request("tools/list", {"cursor": cursor})).code == -32602


@shows("pages-changed")
@pytest.mark.parametrize("way", [way for way in WAYS if way.transport == "http"], ids=str)
async def test_a_cursor_goes_on_behind_its_entry_wherever_that_is_now(way: Way) -> None:
    def named(*names: str) -> Script:
        return Script(name="web", era="handshake", tools=tuple(tool(name) for name in names))

    async with (
        standing({"web": named("a", "b", "c", "d", "e", "f")}, manifold=PAGED) as stand,
        stand.client(way) as client,
    ):
        cursor = (await client.request("tools/list")).value["nextCursor"]

        async def changed(*names: str) -> None:
            heard = asyncio.Event()
            unwatch = stand.manifold.watch("", lambda _: heard.set())
            await stand["web"].set_tools([tool(name) for name in names])
            async with asyncio.timeout(BOUND):
                await heard.wait()
            unwatch()

        await changed("x", "y", "a", "d", "z")
        rest = (await client.request("tools/list", {"cursor": cursor})).value["tools"]
        assert [each["name"] for each in rest] == ["web__z"]
        await changed("x", "y", "z", "u", "v")
        assert (await client.request("tools/list", {"cursor": cursor})).code == -32602


# --- hints ----------------------------------------------------------------------------------------------------------


def hinted(server: str, hints: str) -> Script:
    return Script(
        name=server,
        era="modern",
        hints=hints,
        tools=tuple(tool(f"t{number}") for number in range(5)),
        prompts=(prompt("p"),),
        resources=(resource(f"note://{server}/1"),),
        templates=(template(f"row://{server}/{{id}}"),),
    )


PUBLIC = '"ttlMs":60000,"cacheScope":"public"'
SHORTER = '"ttlMs":30000,"cacheScope":"public"'
PRIVATE = '"ttlMs":60000,"cacheScope":"private"'


@shows("hints")
@pytest.mark.parametrize(
    ("hints", "scope", "most", "settings"),
    [
        ((PUBLIC, SHORTER), "public", 30000, {}),
        ((PUBLIC, PRIVATE), "private", 60000, {}),
        ((PUBLIC, '"x":1'), "private", 0, {}),
        ((PUBLIC, '"ttlMs":-5,"cacheScope":"public"'), "public", 0, {}),
        ((PUBLIC, PUBLIC), "private", 60000, {"tokens": ["secret"]}),
    ],
)
async def test_a_merged_list_may_be_kept_as_long_as_each_of_its_parts(
    hints: tuple[str, str], scope: str, most: int, settings: dict[str, object]
) -> None:
    made = {"web26": hinted("web26", hints[0]), "web26_2": hinted("web26_2", hints[1])}
    token: dict[str, Any] = {"token": "secret"} if settings else {}
    async with standing(made, manifold={**PAGED, **settings}) as stand, stand.client(HTTP26, **token) as client:
        for method in (*LISTS, "server/discover"):
            found = (await client.request(method)).value
            assert found["cacheScope"] == scope
            assert (most and most - 20000) <= found["ttlMs"] <= most
        first = (await client.request("tools/list")).value
        second = (await client.request("tools/list", {"cursor": first["nextCursor"]})).value
        assert second["cacheScope"] == scope
        assert second["ttlMs"] <= first["ttlMs"] <= most


@shows("hints")
async def test_with_a_backend_that_gives_no_hints_nothing_may_be_kept() -> None:
    old = replace(hinted("web", PUBLIC), era="handshake")
    async with standing({"web26": hinted("web26", PUBLIC), "web": old}) as stand, stand.client(HTTP26) as client:
        for method in (*LISTS, "server/discover"):
            found = (await client.request(method)).value
            assert (found["ttlMs"], found["cacheScope"]) == (0, "private")
        for server, hint in (("web", (0, "private")), ("web26", (60000, "public"))):
            read = (await client.request("resources/read", {"uri": f"note://{server}/1"})).value
            assert (read["ttlMs"], read["cacheScope"]) == hint


@shows("hints")
async def test_filters_make_a_list_private_and_what_is_missing_makes_it_stale() -> None:
    filtered = {"tools": {"block": ["nothing"]}}
    async with standing({"web26": hinted("web26", PUBLIC)}, web26=filtered) as stand, stand.client(HTTP26) as client:
        assert (await client.request("tools/list")).value["cacheScope"] == "private"
    async with standing({"web26": hinted("web26", PUBLIC)}) as stand:
        stand.config["mcpServers"]["absent"] = {"url": "http://127.0.0.1:9/mcp", "transport": "http"}
        async with stand.client(HTTP26) as client:
            found = (await client.request("tools/list")).value
            assert (len(found["tools"]), found["ttlMs"], found["cacheScope"]) == (5, 0, "private")
