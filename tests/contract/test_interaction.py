"""What servers ask in the middle of a call: every front, every kind of backend, both eras on either side."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.contract.behaviours import shows
from tests.contract.stand import KINDS, LATEST, OLDEST, WAYS, Stand, standing
from tests.flows.processes import until
from tests.peers import jsontext
from tests.peers.backend import Act, Script, prompt, resource, tool
from tests.peers.clients import MODERN_VERSION, Answer, Client, Message, Reply
from tests.peers.ways import Way

pytestmark = pytest.mark.anyio

HANDSHAKE_KINDS = ("pipe", "web", "stream")
MODERN_WAYS = tuple(way for way in WAYS if way.version == MODERN_VERSION)
SESSIONS = tuple(way for way in WAYS if way.version in (OLDEST, LATEST))
LATEST_WAYS = tuple(way for way in WAYS if way.version != OLDEST)
BOTH_MODES = '{"sampling":{"tools":{}},"elicitation":{"form":{},"url":{}},"roots":{"listChanged":true}}'

SAMPLE = (
    '{"messages":[{"role":"user","content":{"type":"text","text":"gr\\u00fc\u00dfe"}}],"maxTokens":1e2,'
    '"metadata":{"nil":null,"big":123456789012345678901234},"includeContext":"none","x-n":1.50}'
)
TOOLED = '{"messages":[],"maxTokens":5,"tools":[{"name":"t","inputSchema":{"type":"object"}}],"toolChoice":{}}'
ONE_BLOCK = '{"model":"m","role":"assistant","stopReason":"odd","content":{"type":"text","text":"\u00fc"},"x":1.50}'
BLOCKS = '{"model":"m","role":"assistant","content":[ {"type":"tool_use","id":"1","name":"t","input":{}} ],"n":1e2}'
FORM = (
    '{"mode":"form","message":"Which \\u00fc?","requestedSchema":{"type":"object","properties":'
    '{"a":{"type":"number","default":1.50}},"x-n":null}}'
)
ACCEPTED = '{"action":"accept","content":{"a":1.50,"big":123456789012345678901234}}'
ROOTS = '{"roots":[ {"uri":"file:///caf\u00e9%20x","x":null} ]}'
URL = '{"mode":"url","message":"Please sign in","url":"https://id.example.test/a?b=c","elicitationId":"e/1"}'
STRANGE = '{"n":1.50,"deep":{"nil":null}}'


def one(method: str, params: str) -> str:
    """One question of an act's text."""
    return f'{{"method":"{method}","params":{params}}}'


def asking(server: str) -> Script:
    """A server of that kind that asks for everything there is."""
    url = URL if "26" not in server else URL.replace(',"elicitationId":"e/1"', "")
    form, sample, roots = one("elicitation/create", FORM), one("sampling/createMessage", SAMPLE), one("roots/list", "{}")
    texts = {
        "sample": sample,
        "tooled": one("sampling/createMessage", TOOLED),
        "elicit": form,
        "url": one("elicitation/create", url),
        "roots": roots,
        "rounds": f"[{form},{sample},{roots},{form}]",
        "several": f"[[{form},{sample},{roots},{form}]]",
        "strange": one("vendor/ask", STRANGE),
    }
    return Script(
        name=server,
        era="modern" if "26" in server else "handshake",
        tools=(
            tool("echo"),
            *(tool(name, Act("ask", text)) for name, text in texts.items()),
            *(tool(f"insist_{name}", Act("insist", text)) for name, text in texts.items()),
            tool("hang", Act("hang")),
        ),
        resources=(resource(f"ask://{server}", Act("ask", form)),),
        prompts=(prompt("elicit", Act("ask", form), arguments=[{"name": "who"}]),),
        on={"completion/complete": Act("insist", form)},
    )


def scripts(*servers: str) -> dict[str, Script]:
    return {server: asking(server) for server in servers or KINDS}


class Told:
    """What a client was asked, and what it answers."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, bytes]] = []
        self.said = {"sampling/createMessage": ONE_BLOCK, "elicitation/create": ACCEPTED, "roots/list": ROOTS}
        self.said |= {"vendor/ask": STRANGE}
        self.answers: dict[str, Answer] = {method: self._answering(method) for method in self.said}

    def __repr__(self) -> str:
        return f"<Told {len(self.asked)} questions>"

    def _answering(self, method: str) -> Callable[[bytes], str]:
        def answer(params: bytes) -> str:
            self.asked.append((method, params))
            return self.said[method]

        return answer

    def take(self) -> list[tuple[str, bytes]]:
        """What was asked since this was last called."""
        asked, self.asked = self.asked, []
        return asked


def answers(reply: Reply) -> list[bytes]:
    """What came back to the server, raw and in the order in which it asked."""
    assert reply.result is not None, reply
    return jsontext.elements(reply.slice("structuredContent", "answers") or b"[]")


def members(params: bytes) -> dict[str, bytes]:
    return {name: value for name, value in jsontext.walk(params)}


# --- sampling, elicitation, roots --------------------------------------------------------------------------------------


@shows("ask-sampling", "ask-roots")
@pytest.mark.parametrize("way", WAYS, ids=str)
async def test_sampling_and_roots_are_asked_of_the_caller_and_answered_byte_for_byte(way: Way) -> None:
    told = Told()
    async with standing(scripts()) as stand, stand.client(way, answers=told.answers) as client:
        for kind in KINDS:
            assert answers(await client.call(f"{kind}__sample")) == [ONE_BLOCK.encode()]
            assert [(method, members(params)) for method, params in told.take()] == [
                ("sampling/createMessage", members(SAMPLE.encode()))
            ]
            assert answers(await client.call(f"{kind}__roots")) == [ROOTS.encode()]
            assert told.take() == [("roots/list", b"{}")]
            assert (await client.call(f"{kind}__echo", {"text": "next"})).text == "next"


@shows("ask-elicitation")
@pytest.mark.parametrize("way", WAYS, ids=str)
async def test_accept_decline_and_cancel_of_an_elicitation_reach_the_server_as_they_are(way: Way) -> None:
    told = Told()
    async with standing(scripts()) as stand, stand.client(way, answers=told.answers) as client:
        for kind in KINDS:
            for said in (ACCEPTED, '{"action":"decline"}', '{"action":"cancel","x":null}'):
                told.said["elicitation/create"] = said
                assert answers(await client.call(f"{kind}__elicit")) == [said.encode()]
                ((method, params),) = told.take()
                assert method == "elicitation/create"
                assert {**members(params), "message": b""} == {**members(FORM.encode()), "message": b""}


@shows("ask-tools")
@pytest.mark.parametrize("way", LATEST_WAYS, ids=str)
async def test_tools_are_offered_for_sampling_to_who_declared_them_and_an_array_of_blocks_comes_back(way: Way) -> None:
    told = Told()
    told.said["sampling/createMessage"] = BLOCKS
    async with (
        standing(scripts()) as stand,
        stand.client(way, answers=told.answers, capabilities=BOTH_MODES) as client,
    ):
        for kind in KINDS:
            assert answers(await client.call(f"{kind}__tooled")) == [BLOCKS.encode()]
            assert [members(params) for _, params in told.take()] == [members(TOOLED.encode())]


@shows("ask-url")
@pytest.mark.parametrize("way", LATEST_WAYS, ids=str)
async def test_a_url_is_shown_with_an_elicitation_id_in_the_era_that_has_them_and_without_in_the_other(way: Way) -> None:
    told = Told()
    told.said["elicitation/create"] = '{"action":"accept"}'
    async with (
        standing(scripts()) as stand,
        stand.client(way, answers=told.answers, capabilities=BOTH_MODES) as client,
    ):
        for kind in KINDS:
            assert answers(await client.call(f"{kind}__url")) == [b'{"action":"accept"}']
            ((_, params),) = told.take()
            found = members(params)
            id_ = found.pop("elicitationId", None)
            assert (found["mode"], found["url"]) == (b'"url"', b'"https://id.example.test/a?b=c"')
            if client.is_modern:
                assert id_ is None
            elif kind in HANDSHAKE_KINDS:
                assert id_ == b'"e/1"'
            else:
                assert len(jsontext.value(id_)) >= 16


@shows("ask-rounds")
@pytest.mark.parametrize("way", WAYS, ids=str)
async def test_questions_one_after_the_other_and_several_at_once_are_all_answered_in_their_places(way: Way) -> None:
    told = Told()
    expected = [text.encode() for text in (ACCEPTED, ONE_BLOCK, ROOTS, ACCEPTED)]
    methods = ["elicitation/create", "sampling/createMessage", "roots/list", "elicitation/create"]
    async with standing(scripts()) as stand, stand.client(way, answers=told.answers) as client:
        for kind in KINDS:
            assert answers(await client.call(f"{kind}__rounds")) == expected
            assert [method for method, _ in told.take()] == methods
            assert answers(await client.call(f"{kind}__several")) == expected
            assert sorted(method for method, _ in told.take()) == sorted(methods)


@shows("ask-anywhere")
@pytest.mark.parametrize("way", WAYS, ids=str)
async def test_prompts_and_resources_may_ask_as_tools_do(way: Way) -> None:
    told = Told()
    async with standing(scripts()) as stand, stand.client(way, answers=told.answers) as client:
        for kind in KINDS:
            got = await client.request("prompts/get", {"name": f"{kind}__elicit"})
            assert answers(got) == [ACCEPTED.encode()]
            read = await client.request("resources/read", {"uri": f"ask://{kind}"})
            assert answers(read) == [ACCEPTED.encode()]
            assert len(told.take()) == 2


@shows("ask-anywhere")
@pytest.mark.parametrize("way", [way for way in WAYS if way.version != OLDEST], ids=str)
async def test_within_other_requests_only_clients_that_can_be_sent_requests_are_asked(way: Way) -> None:
    told = Told()
    async with standing(scripts(*HANDSHAKE_KINDS)) as stand, stand.client(way, answers=told.answers) as client:
        for kind in HANDSHAKE_KINDS:
            ref = {"type": "ref/prompt", "name": f"{kind}__elicit"}
            params = {"ref": ref, "argument": {"name": "who", "value": "a"}}
            (got,) = answers(await client.request("completion/complete", params))
            if client.is_modern:
                assert jsontext.value(got)["error"]["code"] == -32601
            else:
                assert got == ACCEPTED.encode()


@shows("ask-unknown")
@pytest.mark.parametrize("way", SESSIONS, ids=str)
async def test_a_question_nobody_here_knows_is_the_clients_to_answer(way: Way) -> None:
    told = Told()
    async with standing(scripts(*HANDSHAKE_KINDS)) as stand, stand.client(way, answers=told.answers) as client:
        for kind in HANDSHAKE_KINDS:
            assert answers(await client.call(f"{kind}__strange")) == [STRANGE.encode()]
            assert told.take() == [("vendor/ask", STRANGE.encode())]
        del client.answers["vendor/ask"]
        (refused,) = answers(await client.call("web__strange"))
        assert jsontext.value(refused)["error"]["code"] == -32601


# --- which server asks --------------------------------------------------------------------------------------------------


@shows("ask-signed")
@pytest.mark.parametrize("way", [Way("http", LATEST), Way("http", MODERN_VERSION)], ids=str)
async def test_the_asking_server_is_named_where_there_are_several_and_not_where_there_is_one(way: Way) -> None:
    told = Told()
    async with standing(scripts()) as stand:
        async with stand.client(way, answers=told.answers) as client:
            for kind in KINDS if way.version == LATEST else HANDSHAKE_KINDS:
                await client.call(f"{kind}__elicit")
                assert members(told.take()[0][1])["message"] == f'"[{kind}] Which \\u00fc?"'.encode()
        for kind in ("web", "web26", "pipe"):
            async with stand.client(way, scope=kind, answers=told.answers) as client:
                await client.call("elicit")
                assert members(told.take()[0][1]) == members(FORM.encode())


# --- refusals -----------------------------------------------------------------------------------------------------------

REFUSED = (("sample", -32601), ("elicit", -32601), ("roots", -32601))
REFUSED_WITHIN = (("tooled", -32602), ("url", -32602))


@shows("ask-undeclared")
@pytest.mark.parametrize("way", WAYS, ids=str)
async def test_a_client_is_not_asked_for_what_it_did_not_declare(way: Way) -> None:
    async with standing(scripts()) as stand:
        for declared, cases in (("{}", REFUSED), ('{"sampling":{},"elicitation":{}}', REFUSED_WITHIN)):
            told = Told()
            async with stand.client(way, answers=told.answers, capabilities=declared) as client:
                for kind in HANDSHAKE_KINDS:
                    for name, code in cases:
                        (refused,) = answers(await client.call(f"{kind}__insist_{name}"))
                        assert jsontext.value(refused)["error"]["code"] == code, (kind, name)
                for kind in ("pipe26", "web26") if not client.is_modern else ():
                    for name, _ in cases:
                        failed = await client.call(f"{kind}__insist_{name}")
                        error = jsontext.value(failed.error)
                        assert error["code"] == -32603
                        assert kind in error["message"]
                        assert "cannot be asked" in error["message"]
                assert told.take() == []


@shows("ask-error")
@pytest.mark.parametrize("way", SESSIONS, ids=str)
async def test_a_clients_error_is_the_servers_answer_or_ends_the_call_of_one_that_does_not_wait(way: Way) -> None:
    told = Told()
    error = '{"code":-1,"message":"User rejected \\u00fc","data":{"n":1.50,"x":null}}'
    told.said["sampling/createMessage"] = f"error:{error}"
    async with standing(scripts()) as stand, stand.client(way, answers=told.answers) as client:
        for kind in KINDS:
            reply = await client.call(f"{kind}__sample")
            if kind in HANDSHAKE_KINDS:
                assert answers(reply) == [b'{"error":%b}' % error.encode()]
            else:
                failed = jsontext.value(reply.error)
                assert (failed["code"], kind in failed["message"]) == (-32603, True)
            assert (await client.call(f"{kind}__echo", {"text": "next"})).text == "next"


# --- how a question ends ------------------------------------------------------------------------------------------------


class Pondering:
    """A client's answers, kept until they are let go: the person thinks it over."""

    def __init__(self, client: Any) -> None:
        self._send = client._respond
        self._kept: list[bytes] = []
        client._respond = self._keep

    def __repr__(self) -> str:
        return f"<Pondering {len(self._kept)} answers>"

    async def _keep(self, response: bytes) -> None:
        self._kept.append(response)

    async def decide(self) -> None:
        """Send what was kept."""
        kept, self._kept = self._kept, []
        for response in kept:
            await self._send(response)


def cancelling(server: str) -> Script:
    """A server that takes its question back, or answers without waiting for what it asked."""
    asked = f'{{"jsonrpc":"2.0","id":901,"method":"elicitation/create","params":{FORM}}}'
    taken_back = '{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":901}}'
    then = Act("hang", "back", then=Act("notify", taken_back, then=Act("hang", "end")))
    return Script(
        name=server,
        era="handshake",
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
    async with standing(servers) as stand, stand.client(way, answers=Told().answers) as client:
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
    async with standing(scripts()) as stand, stand.client(way, answers=Told().answers) as client:
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
        async with stand.client(way, answers=Told().answers) as client:
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
        parts = stand.manifold._running
        await until(lambda: "held=0" in repr(parts.fleet["web"]), "the end of the client's links")
        assert not [repr(task) for task in asyncio.all_tasks() if "front." in task.get_name()]


@shows("ask-left")
@pytest.mark.parametrize("kind", HANDSHAKE_KINDS)
async def test_a_client_that_hung_up_is_not_waited_for(kind: str) -> None:
    async with (
        standing(scripts(kind)) as stand,
        stand.client(Way("http", LATEST), answers=Told().answers) as client,
    ):
        Pondering(client)
        waiting = await client.begin("tools/call", {"name": f"{kind}__elicit"})
        await client.wait_for("elicitation/create")
        client.abandon(waiting)
        answered = await stand[kind].wait_for(lambda item: item.kind == "response")
        assert b'"error"' in answered.raw
        assert (await client.call(f"{kind}__echo", {"text": "next"})).text == "next"


@shows("ask-deadline")
@pytest.mark.parametrize("way", [Way("http", LATEST), Way("http", MODERN_VERSION), Way("sse", LATEST)], ids=str)
async def test_no_deadline_runs_while_a_person_is_asked(way: Way) -> None:
    short = {kind: {"timeout": "300ms"} for kind in KINDS}
    told = Told()
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
    told = Told()
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


# --- a parked call ------------------------------------------------------------------------------------------------------


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
        token = {"token": "one"} if "tokens" in options.get("manifold", {}) else {}
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
        assert "parked=0" in repr(stand.manifold._running.bridge)


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
        assert "parked=0" in repr(stand.manifold._running.bridge)
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
@pytest.mark.parametrize("way", MODERN_WAYS, ids=str)
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


# --- -32042 and the end of a URL elicitation ------------------------------------------------------------------------------

NEEDS_URL = f'{{"code":-32042,"message":"Sign in first","data":{{"elicitations":[{URL}]}}}}'


def signing_in(server: str) -> Script:
    """A server that wants its user to sign in first, and says when that is done."""
    url = one("elicitation/create", URL)
    done = 'notifications/elicitation/complete {"elicitationId":"e/1"}'
    return Script(
        name=server,
        era="handshake",
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
    told = Told()
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
