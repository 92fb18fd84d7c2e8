"""What servers ask in the middle of a call: every front, every kind of backend, both eras on either side."""

import pytest

from tests.contract.asking import (
    ACCEPTED,
    BLOCKS,
    BOTH_MODES,
    ELICITED,
    FORM,
    LATEST_WAYS,
    ONE_BLOCK,
    ROOTS,
    SAMPLE,
    SESSIONS,
    STRANGE,
    TOOLED,
    ResultCallback,
    answers,
    members,
    scripts,
)  # fmt: skip
from tests.contract.behaviours import shows
from tests.contract.stand import HANDSHAKE_KINDS, KINDS, LATEST, OLDEST, WAYS, standing
from tests.peers import jsontext
from tests.peers.clients import MODERN_VERSION
from tests.peers.ways import Way

pytestmark = pytest.mark.anyio

# --- sampling, elicitation, roots -------------------------------------------------------------------------------------


@shows("ask-sampling", "ask-roots")
@pytest.mark.parametrize("way", WAYS, ids=str)
async def test_sampling_and_roots_are_asked_of_the_caller_and_answered_byte_for_byte(way: Way) -> None:
    told = ResultCallback()
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
@pytest.mark.parametrize("way", ELICITED, ids=str)
async def test_accept_decline_and_cancel_of_an_elicitation_reach_the_server_as_they_are(way: Way) -> None:
    told = ResultCallback()
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
    told = ResultCallback()
    told.said["sampling/createMessage"] = BLOCKS
    async with standing(scripts()) as stand, stand.client(way, answers=told.answers, capabilities=BOTH_MODES) as client:
        for kind in KINDS:
            assert answers(await client.call(f"{kind}__tooled")) == [BLOCKS.encode()]
            assert [members(params) for _, params in told.take()] == [members(TOOLED.encode())]


@shows("ask-url")
@pytest.mark.parametrize("way", LATEST_WAYS, ids=str)
async def test_a_url_has_an_elicitation_id_in_the_era_that_has_them_and_none_in_the_other(way: Way) -> None:
    told = ResultCallback()
    told.said["elicitation/create"] = '{"action":"accept"}'
    async with standing(scripts()) as stand, stand.client(way, answers=told.answers, capabilities=BOTH_MODES) as client:
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
@pytest.mark.parametrize("way", ELICITED, ids=str)
async def test_questions_one_after_the_other_and_several_at_once_are_all_answered_in_their_places(way: Way) -> None:
    told = ResultCallback()
    expected = [text.encode() for text in (ACCEPTED, ONE_BLOCK, ROOTS, ACCEPTED)]
    methods = ["elicitation/create", "sampling/createMessage", "roots/list", "elicitation/create"]
    async with standing(scripts()) as stand, stand.client(way, answers=told.answers) as client:
        for kind in KINDS:
            assert answers(await client.call(f"{kind}__rounds")) == expected
            assert [method for method, _ in told.take()] == methods
            assert answers(await client.call(f"{kind}__several")) == expected
            assert sorted(method for method, _ in told.take()) == sorted(methods)


@shows("ask-anywhere")
@pytest.mark.parametrize("way", ELICITED, ids=str)
async def test_prompts_and_resources_may_ask_as_tools_do(way: Way) -> None:
    told = ResultCallback()
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
    told = ResultCallback()
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
    told = ResultCallback()
    async with standing(scripts(*HANDSHAKE_KINDS)) as stand, stand.client(way, answers=told.answers) as client:
        for kind in HANDSHAKE_KINDS:
            assert answers(await client.call(f"{kind}__strange")) == [STRANGE.encode()]
            assert told.take() == [("vendor/ask", STRANGE.encode())]
        del client.answers["vendor/ask"]
        (refused,) = answers(await client.call("web__strange"))
        assert jsontext.value(refused)["error"]["code"] == -32601


# --- which server asks ------------------------------------------------------------------------------------------------


@shows("ask-signed")
@pytest.mark.parametrize("way", [Way("http", LATEST), Way("http", MODERN_VERSION)], ids=str)
async def test_the_asking_server_is_named_where_there_are_several_and_not_where_there_is_one(way: Way) -> None:
    told = ResultCallback()
    async with standing(scripts()) as stand:
        async with stand.client(way, answers=told.answers) as client:
            for kind in KINDS if way.version == LATEST else HANDSHAKE_KINDS:
                await client.call(f"{kind}__elicit")
                assert members(told.take()[0][1])["message"] == f'"[{kind}] Which \\u00fc?"'.encode()
        for kind in ("web", "web26", "pipe"):
            async with stand.client(way, scope=kind, answers=told.answers) as client:
                await client.call("elicit")
                assert members(told.take()[0][1]) == members(FORM.encode())


@shows("ask-signed")
async def test_the_asking_server_is_named_between_modern_ends_as_well() -> None:
    told = ResultCallback()
    async with (
        standing(scripts("web", "web26")) as stand,
        stand.client(Way("http", MODERN_VERSION), answers=told.answers) as client,
    ):
        await client.call("web26__elicit")
        assert b"[web26] " in members(told.take()[0][1])["message"]


# --- refusals ---------------------------------------------------------------------------------------------------------

REFUSED = (("sample", -32601), ("elicit", -32601), ("roots", -32601))
REFUSED_WITHIN = (("tooled", -32602), ("url", -32602))


@shows("ask-undeclared")
@pytest.mark.parametrize("way", ELICITED, ids=str)
async def test_a_client_is_not_asked_for_what_it_did_not_declare(way: Way) -> None:
    async with standing(scripts()) as stand:
        for declared, cases in (("{}", REFUSED), ('{"sampling":{},"elicitation":{}}', REFUSED_WITHIN)):
            told = ResultCallback()
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
                        assert "the client does not support" in error["message"]
                assert told.take() == []


@shows("ask-error")
@pytest.mark.parametrize("way", SESSIONS, ids=str)
async def test_a_clients_error_is_the_servers_answer_or_ends_the_call_of_one_that_does_not_wait(way: Way) -> None:
    told = ResultCallback()
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
