"""Endpoints that show a part of the whole, and filters, which show less of it."""

import pytest

from tests.contract.behaviours import shows
from tests.contract.offers import SHARED, offerings
from tests.contract.stand import IN_PROCESS, LATEST, OLDEST, WAYS, standing
from tests.peers.clients import HttpClient, Reply
from tests.peers.ways import Way

pytestmark = pytest.mark.anyio

FILTERS = {
    "tools": {"allow": ["echo", "h*", "only_*", "mirror"], "block": ["hang", "only_web"]},
    "resources": {"block": [SHARED, "row://*", "rows://*", "broken:*"]},
    "prompts": {"allow": []},
}


@shows("scope-server")
@pytest.mark.parametrize("way", WAYS, ids=str)
async def test_a_servers_own_endpoint_offers_its_items_under_their_own_names(way: Way) -> None:
    async with standing(offerings(("web", "web26"))) as stand, stand.client(way, scope="web26") as client:
        names = [each["name"] for each in (await client.request("tools/list")).value["tools"]]
        assert names[0] == "echo"
        assert "only_web26" in names
        assert len(names) == 9
        assert (await client.call("echo", {"text": "hi"})).text == "hi"
        assert (await client.call("web__echo")).code == -32602
        uris = [each["uri"] for each in (await client.request("resources/list")).value["resources"]]
        assert uris == ["note://web26/1", SHARED, "broken://web26"]
        read = await client.request("resources/read", {"uri": SHARED})
        assert read.value["contents"][0]["uri"] == SHARED
        missing = await client.request("resources/read", {"uri": "note://web/1"})
        assert missing.code in (-32602, -32002)
        got = await client.request("prompts/get", {"name": "quote"})
        assert got.value["messages"][0]["content"]["resource"]["uri"] == SHARED
        assert stand["web"].calls("tools/call") == stand["web"].calls("resources/read") == []


@shows("scope-group")
@pytest.mark.parametrize("way", WAYS, ids=str)
async def test_a_groups_endpoint_offers_its_servers_and_no_others(way: Way) -> None:
    groups = {"groups": {"pair": ["stream", "web26"]}}
    async with standing(offerings(IN_PROCESS), manifold=groups) as stand:
        async with stand.client(way, scope="groups/pair") as client:
            names = [each["name"] for each in (await client.request("tools/list")).value["tools"]]
            assert {name.partition("__")[0] for name in names} == {"stream", "web26"}
            assert (await client.call("web26__echo", {"text": "hi"})).text == "hi"
            for outside in ("web__echo", "only_web"):
                assert (await client.call(outside)).code == -32602
            uris = [each["uri"] for each in (await client.request("resources/list")).value["resources"]]
            assert uris.count(SHARED) == 1  # the first of the group keeps it
            assert f"web26+{SHARED}" in uris
            for outside in ("note://web/1", f"web+{SHARED}"):
                assert (await client.request("resources/read", {"uri": outside})).code in (-32602, -32002)
        assert stand["web"].calls("tools/call") == stand["web"].calls("resources/read") == []


@shows("scope-unknown")
async def test_an_endpoint_that_nobody_configured_is_not_found() -> None:
    async with standing(offerings(("web",)), manifold={"groups": {"own": ["web"]}}) as stand:
        origin = await stand.origin()
        for path in ("/nobody/mcp", "/groups/nobody/mcp", "/groups/mcp", "/own/mcp", "/web/own/mcp", "/", "/mcp/x"):
            async with HttpClient(origin + path) as client:
                assert (await client.connect(LATEST)).status == 404, path


@shows("filters", "filters-alias")
@pytest.mark.parametrize(
    ("way", "scope"), [*((way, "") for way in WAYS), *((way, "web") for way in WAYS if way.version != OLDEST)], ids=str
)
async def test_what_is_filtered_out_looks_like_what_does_not_exist(way: Way, scope: str) -> None:
    async with standing(offerings(("web", "web26")), web=FILTERS) as stand:
        async with stand.client(way, scope=scope) as client:
            own = "" if scope else "web__"
            names = [each["name"] for each in (await client.request("tools/list")).value["tools"]]
            assert [name for name in names if "web26__" not in name] == [own + "echo", own + "mirror"]
            assert (await client.call(own + "echo", {"text": "hi"})).text == "hi"
            for hidden in (own + "hang", own + "error", own + "only_web", "only_web"):
                assert _alike(await client.call(hidden), await client.call("xx_nothing"), hidden, "xx_nothing")
            for hidden in (f"web+{SHARED}", "row://web/1", "broken://web", "web+row://web/1", "web+rows://a/b"):
                reply = await client.request("resources/read", {"uri": hidden})
                other = await client.request("resources/read", {"uri": "xx:nothing"})
                assert _alike(reply, other, hidden, "xx:nothing")
            prompts = [each["name"] for each in (await client.request("prompts/list")).value["prompts"]]
            assert [name for name in prompts if "web26__" not in name] == []
            hidden_prompt = await client.request("prompts/get", {"name": own + "greet"})
            unknown_prompt = await client.request("prompts/get", {"name": "xx_nothing"})
            assert _alike(hidden_prompt, unknown_prompt, own + "greet", "xx_nothing")
            templates = await client.request("resources/templates/list")
            shown = [each["uriTemplate"] for each in templates.value["resourceTemplates"]]
            assert [uri for uri in shown if "web26" not in uri] == []
        called = [each.params for each in stand["web"].calls("tools/call")]
        assert len(called) == 1
        assert stand["web"].calls("resources/read") == stand["web"].calls("prompts/get") == []


def _alike(hidden: Reply, unknown: Reply, name: str, other: str) -> bool:
    """Whether two refusals differ in nothing but the names that were asked for."""
    assert hidden.error is not None, hidden
    assert unknown.error is not None, unknown
    told = hidden.error.replace(name.encode(), other.encode())
    return (told, hidden.status) == (unknown.error, unknown.status)
