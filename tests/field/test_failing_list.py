"""A list that fails: the other lists of its server stay, and its health says which one failed and why."""

import json
from typing import Any, Final

import pytest

from tests.contract.stand import KINDS, standing
from tests.peers.acts import perform
from tests.peers.backend import Act, Script, prompt, resource, tool
from tests.peers.clients import MODERN_VERSION
from tests.peers.script import Behaviour
from tests.peers.turn import Turn
from tests.peers.ways import Way

pytestmark = pytest.mark.anyio

HTTP: Final = Way("http", MODERN_VERSION)
MISSING: Final = "mcp-manifold/missing"
ANSWERS: Final = {
    "internal error": Act("error", '{"code":-32603,"message":"store is down"}'),
    "invalid request": Act("error", '{"code":-32600,"message":"Invalid Request"}'),
    "invalid params": Act("error", '{"code":-32602,"message":"unknown method"}'),
    "code 0": Act("error", '{"code":0,"message":"Method not found"}'),
    "no resources": Act("error", '{"code":-32002,"message":"none"}'),
    "null list": Act("raw", '{"MEMBER":null}'),
    "object": Act("raw", '{"MEMBER":{}}'),
    "null": Act("null_result"),
    "list": Act("raw", "[]"),
    "cursor": Act("raw", '{"MEMBER":[],"nextCursor":0}'),
    "silence": Act("silent"),
}
OTHERS: Final = {
    "prompts/list": "prompts",
    "resources/list": "resources",
    "resources/templates/list": "resourceTemplates",
}


def script(kind: str, **on: Behaviour) -> Script:
    era: Any = "modern" if kind.endswith("26") else "handshake"
    return Script(
        name=kind, era=era, tools=(tool("echo"),), prompts=(prompt("p"),), resources=(resource("a:b"),), on=on
    )


def failing(method: str, answer: Act) -> Act:
    return Act(answer.do, answer.text.replace("MEMBER", OTHERS.get(method, "tools")))


@pytest.mark.parametrize("answer", ANSWERS)
@pytest.mark.parametrize("kind", ["pipe", "web", "web26"])
async def test_tools_stay_listed_and_callable_whatever_another_list_answers(kind: str, answer: str) -> None:
    on = {"prompts/list": failing("prompts/list", ANSWERS[answer])}
    entry = {"listTimeout": "1s"}
    async with standing({kind: script(kind, **on)}, **{kind: entry}) as stand, stand.client(HTTP) as client:
        tools = (await client.request("tools/list")).value
        assert [each["name"] for each in tools["tools"]] == [f"{kind}__echo"]
        assert MISSING not in tools["_meta"]
        assert (await client.call(f"{kind}__echo", {"text": "yes"})).text == "yes"
        listed = (await client.request("prompts/list")).value
        assert listed["prompts"] == []
        (missing,) = listed["_meta"][MISSING]
        assert (missing["server"], missing["entries"]) == (kind, "none")
        status = stand.status(kind)
        assert (status.state, status.word) == ("ready", "degraded")
        assert status.last_error.startswith(f"prompts/list failed: {missing['reason'][:10]}")
        assert any("prompts/list" in each for each in stand.manifold.problems())


@pytest.mark.parametrize("method", OTHERS)
@pytest.mark.parametrize("kind", KINDS)
async def test_no_list_takes_another_away(kind: str, method: str) -> None:
    on = {method: failing(method, ANSWERS["internal error"])}
    async with standing({kind: script(kind, **on)}) as stand, stand.client(HTTP) as client:
        found: dict[str, Any] = {}
        for each, member in {"tools/list": "tools", **OTHERS}.items():
            found[each] = [json.dumps(item) for item in (await client.request(each)).value[member]]
        assert found.pop(method) == []
        assert all(found[each] for each in found if each != "resources/templates/list")
        assert "store is down" in stand.status(kind).last_error


async def test_tools_with_an_unusable_cursor_are_used_as_far_as_they_came() -> None:
    first = '{"tools":[{"name":"one","inputSchema":{"type":"object"}}],"nextCursor":false}'
    made = Script(name="web", era="handshake", tools=(tool("one"),), on={"tools/list": Act("raw", first)})
    async with standing({"web": made}) as stand, stand.client(HTTP) as client:
        assert [each["name"] for each in (await client.request("tools/list")).value["tools"]] == ["web__one"]
        assert (await client.call("web__one", {"text": "yes"})).text == "yes"
        assert stand.status("web").last_error == "tools/list failed: unusable nextCursor false"


async def test_a_method_that_does_not_exist_is_an_empty_list_and_no_failure() -> None:
    on = {"prompts/list": Act("error", '{"code":-32601,"message":"Method not found"}')}
    async with standing({"web": script("web", **on)}) as stand, stand.client(HTTP) as client:
        assert MISSING not in (await client.request("prompts/list")).value["_meta"]
        assert stand.status("web").word == "healthy"


async def test_a_list_that_fails_later_keeps_its_last_items() -> None:
    is_broken = False

    async def answer(turn: Turn) -> None:
        await perform(turn, ANSWERS["internal error"] if is_broken else Act("default"))

    made = script("web", **{"prompts/list": answer})
    async with standing({"web": made}) as stand, stand.client(HTTP) as client:
        assert len((await client.request("prompts/list")).value["prompts"]) == 1
        is_broken = True
        await stand["web"].announce("notifications/prompts/list_changed")
        await stand.until(lambda: stand.status("web").word == "degraded")
        listed = (await client.request("prompts/list")).value
        assert [each["name"] for each in listed["prompts"]] == ["web__p"]
        assert listed["_meta"][MISSING][0]["entries"] == "kept"
        is_broken = False
        await stand.until(lambda: stand.status("web").word == "healthy")
