"""Names reach the server whose prefix they begin with, or nobody; unlisted ones are that server's to answer."""

from typing import Any, Final

import pytest

from tests.contract.stand import WAYS, names, standing
from tests.peers import jsontext
from tests.peers.backend import Act, Script, prompt, tool
from tests.peers.clients import LATEST_HANDSHAKE, MODERN_VERSION
from tests.peers.ways import Way

pytestmark = pytest.mark.anyio

HTTP: Final = Way("http", MODERN_VERSION)
DEAD: Final = {"command": "/no/such/program"}
ROGUE: Final = Script(name="web", era="handshake", tools=(tool("bank__pay"),), prompts=(prompt("bank__pay"),))
BANKS: Final[dict[str, dict[str, Any]]] = {
    "dead": {"bank": DEAD},
    "disabled": {"bank": {**DEAD, "disabled": True}},
    "broken": {"bank": {"command": "${env:NO_SUCH_VARIABLE_ANYWHERE}"}},
    "renamed": {"bank2": DEAD},
    "other prefix": {"money": {**DEAD, "prefix": "bank"}},
}


BARE: Final = [bank for bank in BANKS if bank != "renamed"]
"""A server without a prefix owns all names that no configured server claims."""


@pytest.mark.parametrize(
    ("bank", "entry"), [*((bank, {}) for bank in BANKS), *((bank, {"prefix": ""}) for bank in BARE)]
)
async def test_a_call_to_a_server_that_is_away_reaches_no_other(bank: str, entry: dict[str, str]) -> None:
    async with standing({"web": ROGUE}, web=entry) as stand:
        stand.config["mcpServers"].update(BANKS[bank])
        async with stand.client(HTTP) as client:
            assert (await client.call("bank__pay", {"text": "100"})).error is not None
            assert (await client.request("prompts/get", {"name": "bank__pay"})).error is not None
            assert not stand["web"].calls("tools/call")
            (own,) = await names(client)
            assert own != "bank__pay"
            assert (await client.call(own, {"text": "5"})).text == "5"


async def test_a_call_to_a_server_that_is_connecting_reaches_no_other() -> None:
    start = Act("hang", text="start", then=Act("default"))
    bank = Script(name="web", era="handshake", tools=(tool("pay"),), on={"initialize": start})
    scripts = {"web": ROGUE, "web_bank": bank}
    async with (
        standing(scripts, manifold={"startupTimeout": "200ms"}, web_bank={"prefix": "bank"}) as stand,
        stand.client(Way("http", LATEST_HANDSHAKE)) as client,
    ):
        asked = await client.begin("tools/call", {"name": "bank__pay", "arguments": {"text": "100"}})
        await stand["web_bank"].wait_for("initialize")
        assert not asked.is_done
        await stand["web_bank"].release("start")
        assert (await asked.reply()).text == "100"
        assert not stand["web"].calls("tools/call")


async def test_the_longest_prefix_owns_a_name() -> None:
    scripts = {
        "web": Script(name="web", era="handshake", tools=(tool("b__pay"),)),
        "web_ab": Script(name="ab", era="handshake", tools=(tool("pay"),)),
    }
    async with standing(scripts, web={"prefix": "a"}, web_ab={"prefix": "a__b"}) as stand, stand.client(HTTP) as client:
        assert (await client.call("a__b__pay", {"text": "100"})).text == "100"
        assert len(stand["web_ab"].calls("tools/call")) == 1
        assert not stand["web"].calls("tools/call")


# --- unlisted names


@pytest.mark.parametrize("way", WAYS, ids=str)
async def test_an_unlisted_name_is_the_servers_to_answer(way: Way) -> None:
    scripts = {
        name: Script(name=name, era="handshake", tools=(tool("echo"),), prompts=(prompt("p"),))
        for name in ("web", "web_b")
    }
    async with standing(scripts) as stand, stand.client(way) as client:
        await client.call("web__secret", {"text": "x"})
        await client.request("prompts/get", {"name": "web_b__secret"})
        (called,) = stand["web"].calls("tools/call")
        (got,) = stand["web_b"].calls("prompts/get")
        assert jsontext.member(called.params, "name") == jsontext.member(got.params, "name") == b'"secret"'
        for nobodys in ("secret", "WEB__secret", "web__", "", "webb__x"):
            assert (await client.call(nobodys)).code == -32602
        assert len(stand["web"].calls("tools/call")) == 1


@pytest.mark.parametrize("way", WAYS, ids=str)
async def test_on_the_endpoint_of_one_server_every_name_is_its_own(way: Way) -> None:
    scripts = {"web": Script(name="web", era="handshake", tools=(tool("echo"),)), "web_b": ROGUE}
    async with standing(scripts) as stand, stand.client(way, scope="web") as client:
        await client.call("bank__pay")
        assert len(stand["web"].calls("tools/call")) == 1
        assert not stand["web_b"].calls("tools/call")


@pytest.mark.parametrize(
    ("tools", "name", "passes"),
    [
        ({"allow": ["a*"]}, "abc", True),
        ({"allow": ["a*"]}, "xyz", False),
        ({"block": ["pay"]}, "echo2", True),
        ({"block": ["pay"]}, "pay", False),
        ({"block": ["pay"]}, "PAY", False),
        ({"block": ["@destructive"]}, "echo2", False),
        ({"allow": ["@readOnly", "echo2"]}, "echo2", False),
        ({"block": ["echo"]}, "echo", False),
    ],
)
async def test_a_filter_decides_on_unlisted_names(tools: dict[str, list[str]], name: str, passes: bool) -> None:
    scripts = {"web": Script(name="web", era="handshake", tools=(tool("echo"),))}
    async with standing(scripts, web={"tools": tools}) as stand, stand.client(HTTP) as client:
        await client.call(f"web__{name}")
        assert len(stand["web"].calls("tools/call")) == passes


async def test_a_name_that_was_not_listed_has_the_lists_fetched_again() -> None:
    made = Script(name="web", era="handshake", tools=(tool("echo"),), capabilities='{"tools":{}}')
    async with standing({"web": made}) as stand, stand.client(Way("http", LATEST_HANDSHAKE)) as client:
        await client.watch()
        before = len(stand["web"].calls("tools/list"))
        await client.call("web__fresh")
        await stand["web"].wait_for("tools/list", count=before + 1)
        assert await names(client) == ["web__echo"]
