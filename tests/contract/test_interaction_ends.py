"""How questions end: answered late, taken back, given up, left; and calls that wait, parked, for their client."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.contract.asking import (
    ACCEPTED,
    BOTH_MODES,
    FORM,
    LATEST_WAYS,
    ONE_BLOCK,
    ROOTS,
    SAMPLE,
    SESSIONS,
    URL,
    Pondering,
    ResultCallback,
    answers,
    members,
    one,
    scripts,
)  # fmt: skip
from tests.contract.behaviours import shows
from tests.contract.stand import HANDSHAKE_KINDS, KINDS, LATEST, MODERN, OLDEST, Stand, script_of, standing
from tests.peers import jsontext
from tests.peers.backend import Act, Script, tool
from tests.peers.clients import MODERN_VERSION, Client, Message, Reply
from tests.peers.processes import until
from tests.peers.ways import Way

pytestmark = pytest.mark.anyio

# --- how a question ends ----------------------------------------------------------------------------------------------


def cancelling(server: str) -> Script:
    """A server that takes its question back, or answers without waiting for what it asked."""
    asked = f'{{"jsonrpc":"2.0","id":901,"method":"elicitation/create","params":{FORM}}}'
    taken_back = '{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":901}}'
    then = Act("hang", "back", then=Act("notify", taken_back, then=Act("hang", "end")))
    return script_of(
        server,
        tools=(
            tool("withdraws", Act("notify", asked, then=then)),
            tool("hurries", Act("notify", asked, then=Act("hang", "back"))),
        ),
    )


def is_taken_back(asked: Message) -> Callable[[Message], bool]:
    """Tells the notification that takes a question back."""
    return lambda each: (
        each.method == "notifications/cancelled" and jsontext.member(each.params, "requestId") == asked.id
    )


@shows("ask-withdrawn")
@pytest.mark.parametrize("way", SESSIONS[-3:], ids=str)
async def test_a_client_is_told_that_a_question_was_taken_back(way: Way) -> None:
    servers = {kind: cancelling(kind) for kind in HANDSHAKE_KINDS}
    async with standing(servers) as stand, stand.client(way, answers=ResultCallback().answers) as client:
        Pondering(client)
        for number, kind in enumerate(HANDSHAKE_KINDS):
            waiting = await client.begin("tools/call", {"name": f"{kind}__withdraws"})
            asked = await client.wait_for("elicitation/create", count=2 * number + 1)
            await stand[kind].release("back")
            await client.wait_for(is_taken_back(asked))
            assert not waiting.is_done
            await stand[kind].release("end")
            await waiting.reply()
            await stand[kind].hold("back")
            waiting = await client.begin("tools/call", {"name": f"{kind}__hurries"})
            asked = await client.wait_for("elicitation/create", count=2 * number + 2)
            await stand[kind].release("back")
            await waiting.reply()
            await client.wait_for(is_taken_back(asked))


@shows("ask-cancelled")
@pytest.mark.parametrize("way", SESSIONS[-3:], ids=str)
async def test_cancelling_the_call_takes_its_question_back_on_both_sides(way: Way) -> None:
    async with standing(scripts()) as stand, stand.client(way, answers=ResultCallback().answers) as client:
        Pondering(client)
        for number, kind in enumerate(KINDS, start=1):
            waiting = await client.begin("tools/call", {"name": f"{kind}__elicit"})
            asked = await client.wait_for("elicitation/create", count=number)
            await client.cancel(waiting)
            await client.wait_for(is_taken_back(asked))
            if kind in HANDSHAKE_KINDS:
                await stand[kind].wait_cancelled()
            assert (await client.call(f"{kind}__echo", {"text": "next"})).text == "next"


@shows("ask-left")
@pytest.mark.parametrize("way", SESSIONS[-3:], ids=str)
async def test_a_client_that_leaves_in_the_middle_of_a_question_leaves_nothing_behind(way: Way) -> None:
    async with standing(scripts()) as stand:
        async with stand.client(way, answers=ResultCallback().answers) as client:
            Pondering(client)
            for number, kind in enumerate(KINDS, start=1):
                await client.begin("tools/call", {"name": f"{kind}__elicit"})
                await client.wait_for("elicitation/create", count=number)
            if way.transport == "http":
                assert await client.delete() == 204
        await stand["web"].wait_cancelled()
        await stand["stream"].wait_cancelled()
        if way.transport == "stdio":
            await stand["pipe"].wait_all_gone()
            return
        await stand["pipe"].wait_cancelled()
        parts = stand.manifold.runtime
        await until(lambda: "held=0" in repr(parts.fleet["web"]), "the end of the client's links")
        assert not [repr(task) for task in asyncio.all_tasks() if "front." in task.get_name()]


@shows("ask-left")
@pytest.mark.parametrize("kind", HANDSHAKE_KINDS)
async def test_a_client_that_hung_up_and_cannot_come_back_is_not_waited_for(kind: str) -> None:
    async with (
        standing(scripts(kind)) as stand,
        stand.client(Way("http", OLDEST), answers=ResultCallback().answers) as client,
    ):
        Pondering(client)
        waiting = await client.begin("tools/call", {"name": f"{kind}__sample"})
        await client.wait_for("sampling/createMessage")
        client.abandon(waiting)
        answered = await stand[kind].wait_for(lambda item: item.kind == "response")
        assert b'"error"' in answered.raw
        assert (await client.call(f"{kind}__echo", {"text": "next"})).text == "next"


@shows("ask-deadline")
@pytest.mark.parametrize("way", [Way("http", LATEST), Way("http", MODERN_VERSION), Way("sse", LATEST)], ids=str)
async def test_no_deadline_runs_while_a_person_is_asked(way: Way) -> None:
    short = {kind: {"timeout": "300ms"} for kind in KINDS}
    told = ResultCallback()
    async with (
        standing(scripts(), **short) as stand,
        stand.client(way, answers=told.answers) as client,
        stand.client(way) as other,
    ):
        thought = None if client.is_modern else Pondering(client)
        for kind in KINDS:
            if thought is None:
                client.answers = {}
                parked = await client.call(f"{kind}__elicit")
                client.answers = told.answers
            else:
                waiting = await client.begin("tools/call", {"name": f"{kind}__elicit"})
                await client.wait_for("elicitation/create", count=KINDS.index(kind) + 1)
            late = await other.call(f"{kind}__hang")
            assert "no answer within 0.3 s" in jsontext.value(late.error)["message"]
            if thought is None:
                reply = await resumed(client, f"{kind}__elicit", parked, ACCEPTED)
            else:
                await thought.decide()
                reply = await waiting.reply()
            assert answers(reply) == [ACCEPTED.encode()]


@shows("ask-deadline")
@pytest.mark.parametrize("way", [Way("http", LATEST), Way("stdio", LATEST)], ids=str)
@pytest.mark.parametrize("kind", ["pipe", "stream"])
async def test_a_question_of_one_of_several_calls_stops_the_clock_for_each(way: Way, kind: str) -> None:
    told = ResultCallback()
    async with (
        standing(scripts(kind, "pipe_2"), **{kind: {"timeout": "500ms", "isolation": "client"}}) as stand,
        stand.client(way, answers=told.answers) as client,
    ):
        thought = Pondering(client)
        first = await client.begin("tools/call", {"name": f"{kind}__hang"})
        await stand[kind].wait_for("tools/call")
        second = await client.begin("tools/call", {"name": f"{kind}__elicit"})
        await client.wait_for("elicitation/create")
        async with stand.client(Way("http", LATEST)) as other:
            late = await other.call(f"{kind}__hang")
            assert "no answer within 0.5 s" in jsontext.value(late.error)["message"]
        assert not first.is_done
        await thought.decide()
        assert answers(await second.reply()) == [ACCEPTED.encode()]
        assert "no answer within 0.5 s" in jsontext.value((await first.reply()).error)["message"]


# --- a parked call ----------------------------------------------------------------------------------------------------


async def resumed(client: Client, name: str, parked: Reply, *said: str, state: bytes | None = None) -> Reply:
    """What comes of going on with a call that wanted input."""
    keys = [key for key, _ in jsontext.walk(parked.slice("inputRequests") or b"{}")]
    given = ",".join(f"{json.dumps(key)}:{text}" for key, text in zip(keys, said, strict=False))
    known = (state or parked.slice("requestState") or b"null").decode()
    return await client.request(
        "tools/call", f'{{"name":"{name}","arguments":{{}},"inputResponses":{{{given}}},"requestState":{known}}}'
    )


@asynccontextmanager
async def parking(*servers: str, **options: Any) -> AsyncIterator[tuple[Stand, Client]]:
    """A modern client that leaves it to the test to answer."""
    way = Way("http", MODERN_VERSION)
    async with standing(scripts(*servers), **options) as stand:
        token: dict[str, Any] = {"token": "one"} if "tokens" in options.get("manifold", {}) else {}
        async with stand.client(way, capabilities=BOTH_MODES, **token) as client:
            yield stand, client


@shows("ask-state")
@pytest.mark.parametrize("kind", HANDSHAKE_KINDS)
async def test_a_state_is_good_once_for_its_own_call_and_its_own_principal(kind: str) -> None:
    tokens = {"tokens": [{"token": "one", "name": "one"}, {"token": "two", "name": "two"}]}
    async with (
        parking(kind, manifold=tokens) as (stand, client),
        stand.client(Way("http", MODERN_VERSION), capabilities=BOTH_MODES, token="two") as other,
    ):
        parked = await client.call(f"{kind}__elicit")
        state = str(jsontext.value(parked.slice("requestState")))
        assert len(state) >= 32
        for wrong in (b'"' + state[:-1].encode() + b'"', b'""', b"7", jsontext.text(state + "x")):
            assert (await resumed(client, f"{kind}__elicit", parked, ACCEPTED, state=wrong)).code == -32602
        assert (await resumed(other, f"{kind}__elicit", parked, ACCEPTED)).code == -32602
        assert (await resumed(client, f"{kind}__sample", parked, ACCEPTED)).code == -32602
        assert answers(await resumed(client, f"{kind}__elicit", parked, ACCEPTED)) == [ACCEPTED.encode()]
        assert (await resumed(client, f"{kind}__elicit", parked, ACCEPTED)).code == -32602
        assert len(stand[kind].calls("tools/call")) == 1
        assert "parked=0" in repr(stand.manifold.runtime.bridge)


@shows("ask-state")
async def test_who_answers_a_part_is_asked_for_the_rest_under_a_new_state() -> None:
    async with parking("web") as (_, client):
        first = await client.call("several")
        second = await resumed(client, "several", first, ACCEPTED, ONE_BLOCK)
        assert second.slice("resultType") == b'"input_required"'
        assert second.slice("requestState") != first.slice("requestState")
        assert len(second.value["inputRequests"]) == 2
        done = await resumed(client, "several", second, ROOTS, ACCEPTED)
        assert answers(done) == [text.encode() for text in (ACCEPTED, ONE_BLOCK, ROOTS, ACCEPTED)]


@shows("ask-parked")
@pytest.mark.parametrize("kind", HANDSHAKE_KINDS)
async def test_a_parked_call_nobody_comes_back_for_is_cancelled_at_its_server(kind: str) -> None:
    async with parking(kind, manifold={"limits": {"parkTime": "100ms"}}) as (stand, client):
        parked = await client.call(f"{kind}__elicit")
        asked = stand[kind].calls("tools/call")[0]
        assert (await stand[kind].wait_cancelled()).id == asked.id
        assert (await resumed(client, f"{kind}__elicit", parked, ACCEPTED)).code == -32602
        assert "parked=0" in repr(stand.manifold.runtime.bridge)
        assert (await client.call(f"{kind}__echo", {"text": "next"})).text == "next"


@shows("ask-parked")
async def test_more_parked_calls_than_allowed_are_refused_and_the_server_hears_why() -> None:
    async with parking("web", manifold={"limits": {"maxParked": 2}}) as (_, client):
        parked = [await client.call("elicit") for _ in range(2)]
        (refused,) = answers(await client.call("elicit"))
        assert jsontext.value(refused)["error"]["code"] == -32603
        for each in parked:
            assert answers(await resumed(client, "elicit", each, ACCEPTED)) == [ACCEPTED.encode()]
        assert (await client.call("elicit")).slice("requestState") is not None


@shows("ask-parked")
async def test_the_end_of_the_server_is_told_to_who_comes_back() -> None:
    async with parking("pipe") as (stand, client):
        parked = await client.call("elicit")
        await stand["pipe"].exit(3)
        await stand["pipe"].recorder.wait_until(lambda: not stand["pipe"].children[0].is_alive, "its end")
        back = await resumed(client, "elicit", parked, ACCEPTED)
        assert back.code == -32603
        assert "pipe" in jsontext.value(back.error)["message"]


@shows("ask-untouched")
@pytest.mark.parametrize("way", MODERN, ids=str)
async def test_between_modern_ends_the_state_is_the_servers_own_byte_for_byte(way: Way) -> None:
    sent = jsontext.text('état/+= \u2028"0" of round 0')
    async with (
        standing(scripts("pipe26", "web26"), pipe26={"era": "modern"}) as stand,
        stand.client(way, capabilities=BOTH_MODES) as client,
    ):
        for kind in ("pipe26", "web26"):
            wanted = await client.call(f"{kind}__sample")
            assert wanted.slice("requestState") == sent
            assert members(wanted.slice("inputRequests", "ask-0-0", "params") or b"{}") == members(SAMPLE.encode())
            assert answers(await resumed(client, f"{kind}__sample", wanted, ONE_BLOCK)) == [ONE_BLOCK.encode()]
            again = stand[kind].calls("tools/call")[-1]
            assert jsontext.member(again.params, "requestState") == sent
            assert jsontext.member(again.params, "inputResponses", "ask-0-0") == ONE_BLOCK.encode()


# --- -32042 and the end of a URL elicitation --------------------------------------------------------------------------

NEEDS_URL = f'{{"code":-32042,"message":"Sign in first","data":{{"elicitations":[{URL}]}}}}'


def signing_in(server: str) -> Script:
    """A server that wants its user to sign in first, and says when that is done."""
    url = one("elicitation/create", URL)
    done = 'notifications/elicitation/complete {"elicitationId":"e/1"}'
    return script_of(
        server,
        tools=(
            tool("locked", Act("error", NEEDS_URL)),
            tool("url", Act("ask", url)),
            tool("finish", Act("announce", done)),
        ),
    )


@shows("url-required")
@pytest.mark.parametrize("way", LATEST_WAYS, ids=str)
async def test_what_needs_a_url_first_is_an_error_in_one_era_and_a_question_in_the_other(way: Way) -> None:
    servers = {kind: signing_in(kind) for kind in HANDSHAKE_KINDS}
    async with standing(servers) as stand, stand.client(way, capabilities=BOTH_MODES) as client:
        for kind in HANDSHAKE_KINDS:
            reply = await client.call(f"{kind}__locked")
            if not client.is_modern:
                assert reply.error == NEEDS_URL.encode()
                continue
            (asked,) = reply.value["inputRequests"].values()
            assert asked["method"] == "elicitation/create"
            assert asked["params"]["message"] == f"[{kind}] Please sign in"
            assert asked["params"]["url"] == "https://id.example.test/a?b=c"
            assert "elicitationId" not in asked["params"]
            again = await resumed(client, f"{kind}__locked", reply, '{"action":"accept"}')
            assert again.slice("requestState") not in (None, reply.slice("requestState"))
            assert len(stand[kind].calls("tools/call")) == 2
            assert jsontext.member(stand[kind].calls("tools/call")[1].params, "requestState") is None
            assert (await resumed(client, f"{kind}__locked", reply, '{"action":"accept"}')).code == -32602


@shows("url-required")
async def test_a_modern_client_that_shows_no_urls_gets_an_error_of_its_era() -> None:
    async with (
        standing({"web": signing_in("web")}) as stand,
        stand.client(Way("http", MODERN_VERSION), capabilities='{"elicitation":{}}') as client,
    ):
        assert (await client.call("locked")).code not in (None, -32042)


@shows("url-complete")
@pytest.mark.parametrize("way", [Way("http", LATEST), Way("sse", LATEST)], ids=str)
async def test_only_the_client_that_was_sent_to_a_url_is_told_that_it_is_done(way: Way) -> None:
    told = ResultCallback()
    servers = {kind: signing_in(kind) for kind in HANDSHAKE_KINDS}
    async with (
        standing(servers) as stand,
        stand.client(way, answers=told.answers, capabilities=BOTH_MODES) as client,
        stand.client(way, answers=told.answers, capabilities=BOTH_MODES) as other,
    ):
        await client.watch()
        await other.watch()
        for number, kind in enumerate(HANDSHAKE_KINDS, start=1):
            await client.call(f"{kind}__url")
            await client.call(f"{kind}__finish")
            done = await client.wait_for("notifications/elicitation/complete", count=number)
            assert done.params == b'{"elicitationId":"e/1"}'
        assert not [each for each in other.received if each.method == "notifications/elicitation/complete"]


@shows("url-complete")
async def test_two_servers_with_the_same_elicitation_id_are_told_apart() -> None:
    way, told = Way("http", LATEST), ResultCallback()
    async with (
        standing({server: signing_in(server) for server in ("web", "web_2")}) as stand,
        stand.client(way, answers=told.answers, capabilities=BOTH_MODES) as client,
        stand.client(way, answers=told.answers, capabilities=BOTH_MODES) as other,
    ):
        await client.watch()
        await other.watch()
        await client.call("web__url")
        await other.call("web_2__url")
        await client.call("web__finish")
        await client.wait_for("notifications/elicitation/complete")
        assert not [each for each in other.received if each.method == "notifications/elicitation/complete"]


@shows("url-complete", "url-required")
@pytest.mark.parametrize("kind", HANDSHAKE_KINDS)
async def test_who_was_told_by_an_error_to_visit_a_page_hears_that_it_is_done(kind: str) -> None:
    way, done = Way("http", LATEST), "notifications/elicitation/complete"
    id_ = jsontext.value(jsontext.member(NEEDS_URL.encode(), "data", "elicitations"))[0]["elicitationId"]
    async with (
        standing({kind: signing_in(kind)}, **{kind: {"isolation": "shared"}}) as stand,
        stand.client(way, capabilities=BOTH_MODES) as client,
        stand.client(way, capabilities=BOTH_MODES) as other,
    ):
        await client.watch()
        await other.watch()
        assert (await client.call(f"{kind}__locked")).error == NEEDS_URL.encode()
        await stand[kind].announce(done, f'{{"elicitationId":"{id_}"}}')
        assert (await client.wait_for(done)).params == f'{{"elicitationId":"{id_}"}}'.encode()
        assert not [each for each in other.received if each.method == done]
