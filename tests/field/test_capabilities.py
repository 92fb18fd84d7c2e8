"""What is announced is what some server has, and nothing else; what a server has without announcing it is used."""

from typing import Any, Final

import pytest

from tests.contract.stand import KINDS, LATEST, WAYS, names, standing
from tests.peers.backend import Act, Script, prompt, resource, template, tool
from tests.peers.clients import MODERN_VERSION
from tests.peers.ways import Way

pytestmark = pytest.mark.anyio

HTTP: Final = Way("http", MODERN_VERSION)
MISSING: Final = {"command": "/no/such/program"}


def script(kind: str, **more: Any) -> Script:
    return Script(name=kind, era="modern" if kind.endswith("26") else "handshake", **more)


async def announced(stand: Any, way: Way, scope: str = "") -> dict[str, Any]:
    async with stand.client(way, connect=False, scope=scope) as client:
        found: dict[str, Any] = (await client.connect(way.version)).value["capabilities"]
        return found


@pytest.mark.parametrize("way", WAYS, ids=str)
@pytest.mark.parametrize(
    ("offers", "kinds"),
    [
        ({"tools": (tool("t"),)}, {"tools"}),
        ({"prompts": (prompt("p"),)}, {"prompts"}),
        ({"resources": (resource("a:b"),)}, {"resources"}),
        ({"templates": (template("a:{b}"),)}, {"resources"}),
        ({"tools": (tool("t"),), "prompts": (prompt("p"),)}, {"tools", "prompts"}),
        ({"capabilities": '{"prompts":{}}'}, {"prompts"}),
    ],
    ids=["tools", "prompts", "resources", "templates", "two", "declared"],
)
async def test_a_capability_that_no_server_has_is_not_announced(
    way: Way, offers: dict[str, Any], kinds: set[str]
) -> None:
    async with standing({"web": script("web", **offers)}) as stand:
        found = await announced(stand, way)
        assert found.keys() & {"tools", "prompts", "resources"} == kinds
        assert all(found[kind]["listChanged"] is True for kind in kinds)


async def test_while_a_server_has_not_listed_every_capability_may_come() -> None:
    async with standing({"web": script("web", tools=(tool("t"),))}) as stand:
        stand.config["mcpServers"]["gone"] = MISSING
        assert {"tools", "prompts", "resources"} <= (await announced(stand, HTTP)).keys()
        assert {"prompts", "resources"}.isdisjoint(await announced(stand, HTTP, scope="web"))


@pytest.mark.parametrize("kind", KINDS)
async def test_tools_that_were_not_declared_are_used_with_a_note(kind: str) -> None:
    on = {
        "tools/list": Act("raw", '{"tools":[{"name":"t","inputSchema":{"type":"object"}}]}'),
        "tools/call": Act("echo"),
    }
    made = script(kind, capabilities="{}", on=on)
    async with standing({kind: made}) as stand, stand.client(HTTP) as client:
        assert await names(client) == [f"{kind}__t"]
        assert (await client.call(f"{kind}__t", {"text": "yes"})).text == "yes"
        assert "tools" in await announced(stand, HTTP)
        assert any(f"tools of {kind} are used" in each for each in stand.manifold.problems())


async def test_tools_that_were_not_declared_and_do_not_exist_are_no_failure() -> None:
    made = script("web", prompts=(prompt("p"),), on={"tools/list": Act("error", '{"code":-32603,"message":"no"}')})
    async with standing({"web": made}) as stand, stand.client(HTTP) as client:
        assert await names(client) == []
        assert stand.status("web").word == "healthy"


@pytest.mark.parametrize("way", [way for way in WAYS if way.version in (LATEST, MODERN_VERSION)], ids=str)
async def test_completion_without_a_provider_is_an_unknown_method(way: Way) -> None:
    asked = {"ref": {"type": "ref/prompt", "name": "web__p"}, "argument": {"name": "a", "value": ""}}
    made = script("web", prompts=(prompt("p"),), capabilities='{"prompts":{}}')
    async with standing({"web": made}) as stand, stand.client(way) as client:
        assert (await client.request("completion/complete", asked)).code == -32601
        assert not stand["web"].calls("completion/complete")
