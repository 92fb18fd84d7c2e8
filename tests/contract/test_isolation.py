"""Which connection of a backend serves which client, and what the backend is told of who is behind it."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from tests.contract.asking import (
    ACCEPTED,
    BOTH_MODES,
    FORM,
    ONE_BLOCK,
    ROOTS,
    SESSIONS,
    ResultCallback,
    answers,
    members,
    one,
    scripts,
)  # fmt: skip
from tests.contract.behaviours import shows
from tests.contract.stand import HANDSHAKE_KINDS, LATEST, MODERN, script_of, standing
from tests.peers import BOUND, jsontext
from tests.peers.backend import Act, Received, Script, tool
from tests.peers.clients import MODERN_VERSION
from tests.peers.message import META
from tests.peers.ways import Way

pytestmark = pytest.mark.anyio

WEB = Way("http", LATEST)
WEB26 = Way("http", MODERN_VERSION)
TOKENS = {"tokens": [{"token": "one", "name": "one"}, {"token": "two", "name": "two"}]}
OWN = {"isolation": "client"}
INFO = '{"name":"the \\u00fc client","version":"1.50","x-n":null}'
DECLARED = '{"roots":{"listChanged":true,"x":null},"sampling":{},"tasks":{"list":{}},"experimental":{"e":{}}}'
RELAYED = '{"roots":{"listChanged":true,"x":null},"sampling":{},"experimental":{"e":{}}}'


def who(server: str, **more: Any) -> Script:
    """A server that says which process it is, and asks."""
    form = one("elicitation/create", FORM)
    tools = (tool("pid", Act("pid")), tool("echo"), tool("hang", Act("hang")), tool("elicit", Act("ask", form)))
    return replace(script_of(server, tools=tools), **more)


def greetings(received: list[Received]) -> list[tuple[bytes | None, dict[str, bytes]]]:
    """Who greeted a backend, and what it declared, in order."""
    asked = [item for item in received if item.method == "initialize"]
    declared = [jsontext.member(item.params, "capabilities") or b"{}" for item in asked]
    infos = [jsontext.member(item.params, "clientInfo") for item in asked]
    return list(zip(infos, map(members, declared), strict=True))


# --- what a backend is told of its client ---------------------------------------------------------------------------


@shows("isolation-mirror")
@pytest.mark.parametrize("way", SESSIONS, ids=str)
async def test_on_a_clients_own_link_the_backend_meets_that_client_and_what_it_can_do(way: Way) -> None:
    async with (
        standing(scripts(*HANDSHAKE_KINDS), pipe=OWN) as stand,
        stand.client(way, connect=False, capabilities=DECLARED) as client,
    ):
        client.client_info = INFO
        await client.connect(way.version)
        for kind in HANDSHAKE_KINDS:
            await client.call(f"{kind}__echo")
            (shared, everything), (own, exact) = greetings(stand[kind].requests)
            assert b'"mcp-manifold"' in (shared or b"")
            assert everything.keys() >= {"roots", "sampling", "elicitation"}
            assert own == INFO.encode()
            assert exact == members(RELAYED.encode())
            await client.call(f"{kind}__echo")
            assert len(stand[kind].calls("initialize")) == 2


@shows("isolation-mirror")
@pytest.mark.parametrize("way", [*SESSIONS[-3:], *MODERN], ids=str)
async def test_a_modern_backend_is_told_with_each_request_what_its_client_can_do(way: Way) -> None:
    async with (
        standing(scripts("web26", "pipe26"), pipe26={"era": "modern"}) as stand,
        stand.client(way, capabilities=DECLARED) as client,
    ):
        for kind in ("web26", "pipe26"):
            await client.call(f"{kind}__echo")
            (asked,) = stand[kind].calls("tools/call")
            told = members(jsontext.member(asked.params, "_meta", META + "clientCapabilities") or b"")
            assert told["roots"] == b'{"listChanged":true,"x":null}'
            assert told["sampling"] == b"{}"
            assert "elicitation" not in told
            refused = await client.call(f"{kind}__elicit")
            assert jsontext.value(refused.error)["message"] == "Missing required client capability"


@shows("isolation-era")
async def test_over_http_a_backend_of_both_eras_is_spoken_to_in_the_clients_own() -> None:
    script = who("web", era="both")
    told = ResultCallback()
    async with (
        standing({"web": script}) as stand,
        stand.client(WEB, answers=told.answers) as old,
        stand.client(WEB26, answers=told.answers) as new,
    ):
        for client, session in ((old, True), (new, False), (old, True), (new, False)):
            assert answers(await client.call("elicit")) == [ACCEPTED.encode()]
            asked = stand["web"].calls("tools/call")[-1]
            assert (asked.header("mcp-session-id") is not None) is session
            assert (jsontext.member(asked.params, "_meta", META + "protocolVersion") is not None) is not session
        assert len(stand["web"].calls("initialize")) == 1
        assert len(told.take()) == 4


# --- one link for each, or one for all ------------------------------------------------------------------------------


@shows("isolation-auto")
async def test_a_process_is_shared_until_it_asks_then_each_client_that_can_answer_has_its_own() -> None:
    told, also = ResultCallback(), ResultCallback()
    async with (
        standing({"pipe": who("pipe")}) as stand,
        stand.client(WEB, answers=told.answers) as first,
        stand.client(WEB, answers=also.answers) as second,
        stand.client(WEB) as mute,
        stand.client(WEB26) as mute26,
    ):
        shared = {(await client.call("pid")).text for client in (first, second, mute, mute26)}
        assert len(shared) == 1
        assert answers(await first.call("elicit")) == [ACCEPTED.encode()]
        own = [(await client.call("pid")).text for client in (first, second)]
        plain = [(await client.call("pid")).text for client in (mute, mute26)]
        assert len({*shared, *own, *plain}) == 4
        assert plain[0] == plain[1]
        assert answers(await second.call("elicit")) == [ACCEPTED.encode()]
        assert (len(told.take()), len(also.take())) == (1, 1)
        assert [exact for _, exact in greetings(stand["pipe"].requests)[3:]] == [{}]


@shows("isolation-auto")
async def test_a_client_that_can_answer_something_else_is_not_taken_for_one_that_can_answer_nothing() -> None:
    sampled, told = ResultCallback(), ResultCallback()
    script = who("pipe", tools=(tool("pid", Act("pid")), *(each for each in scripts("pipe")["pipe"].tools)))
    sampling = '{"sampling":{}}'
    async with (
        standing({"pipe": script}) as stand,
        stand.client(WEB, answers=told.answers) as first,
        stand.client(WEB, answers=sampled.answers, capabilities=sampling) as second,
        stand.client(WEB, capabilities=sampling) as third,
    ):
        await first.call("elicit")
        assert (await second.call("pid")).text == (await third.call("pid")).text
        assert list(greetings(stand["pipe"].requests)[-1][1]) == ["sampling"]
        assert answers(await second.call("sample")) == [ONE_BLOCK.encode()]
        assert (await second.call("pid")).text != (await third.call("pid")).text
        assert [method for method, _ in sampled.take()] == ["sampling/createMessage"]


@shows("isolation-auto")
async def test_modern_calls_that_come_at_once_have_a_process_each_and_are_all_asked() -> None:
    told = ResultCallback()
    async with standing({"pipe": who("pipe")}) as stand, stand.client(WEB26, answers=told.answers) as client:
        await client.call("elicit")
        for _ in range(3):
            replies = await asyncio.gather(*(client.call("elicit") for _ in range(4)))
            assert [answers(reply) for reply in replies] == [[ACCEPTED.encode()]] * 4
        assert len(told.take()) == 13
        assert len(stand["pipe"].pids) <= 5


@shows("isolation-auto")
async def test_modern_clients_that_are_asked_at_the_same_time_never_share_a_process() -> None:
    async with standing({"pipe": who("pipe")}) as stand, stand.client(WEB26, capabilities=BOTH_MODES) as client:
        told = ResultCallback()
        parked = await client.call("elicit")
        wanted = [parked, *[await client.call("elicit") for _ in range(2)]]
        assert len(stand["pipe"].pids) == 3
        for number, each in enumerate(reversed(wanted)):
            (key,) = each.value["inputRequests"]
            said = f'{{"action":"accept","content":{{"a":{number}.50}}}}'
            state = (each.slice("requestState") or b"").decode()
            retry = f'{{"name":"elicit","inputResponses":{{"{key}":{said}}},"requestState":{state}}}'
            assert answers(await client.request("tools/call", retry)) == [said.encode()]
        client.answers = told.answers
        await client.call("elicit")
        assert len(stand["pipe"].pids) == 3


@shows("isolation-shared")
@pytest.mark.parametrize("kind", ["pipe", "stream"])
async def test_on_a_shared_link_a_question_is_refused_when_it_could_be_about_either_of_two(kind: str) -> None:
    told, also = ResultCallback(), ResultCallback()
    async with (
        standing({kind: who(kind)}, **{kind: {"isolation": "shared"}}) as stand,
        stand.client(WEB, answers=told.answers) as first,
        stand.client(WEB, answers=also.answers) as second,
    ):
        assert answers(await first.call("elicit")) == [ACCEPTED.encode()]
        waiting = await second.begin("tools/call", {"name": "hang"})
        await stand[kind].wait_for("tools/call", count=2)
        (refused,) = answers(await first.call("elicit"))
        assert jsontext.value(refused)["error"]["code"] == -32601
        await stand[kind].release()
        await waiting.reply()
        assert (len(told.take()), len(also.take())) == (1, 0)
        assert len(stand[kind].calls("initialize")) == 1


@shows("isolation-shared")
@pytest.mark.parametrize("kind", ["pipe", "stream"])
async def test_what_a_server_asks_for_a_call_that_was_cancelled_is_nobody_elses_to_answer(kind: str) -> None:
    late = tool("late", Act("late", "later", then=Act("insist", one("elicitation/create", FORM))))
    script = who(kind, tools=(late, tool("hang", Act("hang"))))
    told, also = ResultCallback(), ResultCallback()
    async with (
        standing({kind: script}, **{kind: {"isolation": "shared"}}) as stand,
        stand.client(WEB, answers=told.answers) as first,
        stand.client(WEB, answers=also.answers) as second,
    ):
        given_up = await first.begin("tools/call", {"name": "late"})
        await stand[kind].wait_for("tools/call")
        await first.cancel(given_up)
        await stand[kind].wait_cancelled()
        waiting = await second.begin("tools/call", {"name": "hang"})
        await stand[kind].wait_for("tools/call", count=2)
        await stand[kind].release("later")
        answered = await stand[kind].wait_for(lambda item: item.kind == "response")
        assert b'"error"' in answered.raw
        assert also.take() == []
        await stand[kind].release()
        await waiting.reply()


@shows("isolation-client")
@pytest.mark.parametrize("kind", HANDSHAKE_KINDS)
async def test_clients_with_different_tokens_never_share_a_stateful_link(kind: str) -> None:
    async with (
        standing({kind: who(kind)}, manifold=TOKENS, **{kind: OWN}) as stand,
        stand.client(WEB, token="one") as first,
        stand.client(WEB, token="two") as second,
        stand.client(WEB26, token="one") as third,
        stand.client(WEB26, token="two") as fourth,
    ):
        for number, client in enumerate((first, second, third, fourth), start=1):
            await client.call("echo", {"text": str(number)})
            await client.call("echo", {"text": str(number)})
        serving: dict[object, set[bytes | None]] = {}
        for call in stand[kind].calls("tools/call"):
            place = call.connection if kind != "web" else call.session or call.header("mcp-session-id")
            serving.setdefault(place, set()).add(jsontext.member(call.params, "arguments", "text"))
        assert all(len(served) == 1 for served in serving.values())
        assert len(stand[kind].calls("initialize")) == 5


@shows("isolation-client")
async def test_modern_clients_of_one_token_have_one_process_of_their_own() -> None:
    async with (
        standing({"pipe": who("pipe")}, manifold=TOKENS, pipe=OWN) as stand,
        stand.client(WEB26, token="one") as first,
        stand.client(WEB26, token="one") as again,
        stand.client(WEB26, token="two") as other,
    ):
        pids = [(await client.call("pid")).text for client in (first, again, other, again, first)]
        assert pids[0] == pids[1] == pids[3] == pids[4] != pids[2]


# --- how many, and for how long -------------------------------------------------------------------------------------


@shows("isolation-cap")
async def test_more_clients_than_processes_are_refused_in_words_until_one_leaves() -> None:
    async with (
        standing({"pipe": who("pipe")}, manifold={"limits": {"maxClientProcesses": 1}}, pipe=OWN) as stand,
        stand.client(WEB) as first,
        stand.client(WEB) as second,
    ):
        assert (await first.call("echo", {"text": "1"})).text == "1"
        refused = jsontext.value((await second.call("echo")).error)
        assert refused["code"] == -32603
        assert "pipe: already has 1 clients with a connection of their own" in refused["message"]
        assert (await first.call("echo", {"text": "2"})).text == "2"
        assert await first.delete() == 204
        await stand["pipe"].recorder.wait_until(lambda: len(stand["pipe"].pids) == 1, "the end of its process")
        async with asyncio.timeout(BOUND):  # the manifold hears of the end a moment after the test does
            while (reply := await second.call("echo", {"text": "3"})).error is not None:
                assert jsontext.value(reply.error)["code"] == -32603
        assert reply.text == "3"


@shows("isolation-idle")
async def test_a_process_nobody_used_for_long_is_stopped_and_started_again_when_it_is() -> None:
    async with (
        standing({"pipe": who("pipe")}, manifold={"limits": {"clientIdle": "150ms"}}, pipe=OWN) as stand,
        stand.client(WEB) as client,
    ):
        first = (await client.call("pid")).text
        waiting = await client.begin("tools/call", {"name": "hang"})
        await stand["pipe"].wait_for(lambda item: item.method == "tools/call" and b'"hang"' in item.raw)
        async with stand.client(WEB) as other:  # comes, is idle, and is reaped while the first one's call goes on
            await other.call("echo")
            await stand["pipe"].recorder.wait_until(lambda: len(stand["pipe"].pids) == 2, "the end of the idle one")
        assert not waiting.is_done
        await stand["pipe"].release()
        await waiting.reply()
        await stand["pipe"].recorder.wait_until(lambda: len(stand["pipe"].pids) == 1, "the end of the other")
        assert (await client.call("pid")).text != first


@shows("isolation-left")
@pytest.mark.parametrize("way", [WEB, Way("sse", LATEST)], ids=str)
async def test_the_links_of_a_client_that_left_are_closed(way: Way) -> None:
    async with standing({kind: who(kind) for kind in HANDSHAKE_KINDS}, pipe=OWN) as stand:
        async with stand.client(way) as client:
            for kind in HANDSHAKE_KINDS:
                await client.call(f"{kind}__echo")
            if way.transport == "http":
                await client.delete()
        await stand["pipe"].recorder.wait_until(lambda: len(stand["pipe"].pids) == 1, "the end of its process")
        await stand["web"].recorder.wait_until(lambda: stand["web"].deletes, "the end of its session")
        async with stand.client(way) as client:
            assert (await client.call("pipe__echo", {"text": "next"})).text == "next"


# --- questions without a call ---------------------------------------------------------------------------------------


@shows("ask-unprovoked")
@pytest.mark.parametrize("way", [*SESSIONS[-3:], WEB26], ids=str)
async def test_roots_asked_for_right_after_the_greeting_are_the_clients_whose_link_it_is(way: Way) -> None:
    told = ResultCallback()
    at_once = {"notifications/initialized": Act("insist", one("roots/list", "{}"))}
    servers = {kind: who(kind, on=at_once) for kind in HANDSHAKE_KINDS}
    async with standing(servers) as stand, stand.client(way, answers=told.answers) as client:
        for kind in HANDSHAKE_KINDS:
            refused = await stand[kind].wait_for(lambda item: item.kind == "response")
            assert jsontext.value(jsontext.member(refused.raw, "error", "code")) == -32601
            assert (await client.call(f"{kind}__echo", {"text": "x"})).text == "x"
            if not client.is_modern:
                given = await stand[kind].wait_for(lambda item: item.kind == "response", count=2)
                assert jsontext.member(given.raw, "result") == ROOTS.encode()
        assert {method for method, _ in told.take()} <= {"roots/list"}
