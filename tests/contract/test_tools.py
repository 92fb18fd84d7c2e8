"""Tools through the merged endpoint: every front, every kind of backend."""

import asyncio

import pytest

from tests.contract.behaviours import shows
from tests.contract.offers import ERROR, FAILED, ODD, ODD_MEMBERS, offerings
from tests.contract.stand import EVERY_WAY, KINDS, WAYS, standing
from tests.peers import jsontext
from tests.peers.ways import Way

pytestmark = pytest.mark.anyio

TOOLS = ("echo", "mirror", "hang", "progress", "error", "failed", "odd", "links")


@shows("tools-list", "tools-call", "tools-alias", "tools-unknown")
@pytest.mark.parametrize("way", EVERY_WAY, ids=str)
async def test_tools_of_every_backend_are_listed_and_called_under_its_name(way: Way) -> None:
    async with standing(offerings()) as stand, stand.client(way, process=way in WAYS) as client:
        listed = await client.request("tools/list")
        names = [tool["name"] for tool in listed.value["tools"]]
        assert names == [f"{kind}__{name}" for kind in KINDS for name in (*TOOLS, f"only_{kind}")]
        assert "nextCursor" not in listed.value
        for kind in KINDS:
            assert (await client.call(f"{kind}__echo", {"text": f"to {kind}"})).text == f"to {kind}"
            sent = stand[kind].calls("tools/call")
            assert [jsontext.member(each.params, "name") for each in sent] == [b'"echo"']
            assert (await client.call(f"only_{kind}", {"text": "alias"})).text == "alias"
        for unknown in ("web__nothing", "nothing", "echo", "WEB__echo", "web__echo ", ""):
            reply = await client.call(unknown)
            assert reply.code == -32602, (unknown, reply)
        assert all(len(stand[kind].calls("tools/call")) == 2 for kind in KINDS)


@shows("tools-error", "tools-failed", "tools-unknown-members")
@pytest.mark.parametrize("way", WAYS, ids=str)
async def test_what_a_tool_answers_is_passed_on_as_it_is(way: Way) -> None:
    async with standing(offerings()) as stand, stand.client(way) as client:
        odd = [raw for raw in (await client.request("tools/list")).entries("tools") if b"__odd" in raw]
        assert len(odd) == len(KINDS)
        assert all(ODD_MEMBERS.encode() in raw for raw in odd)
        for kind in KINDS:
            assert (await client.call(f"{kind}__error")).error == ERROR.encode()
            failed = await client.call(f"{kind}__failed")
            assert failed.value["isError"] is True
            for raw, sent in ((failed.result, FAILED), (await _odd(client, kind), ODD)):
                assert dict(jsontext.walk(raw)).items() >= dict(jsontext.walk(sent.encode())).items()


async def _odd(client: object, kind: str) -> bytes:
    reply = await client.call(f"{kind}__odd")  # type: ignore[attr-defined]  # any client
    assert reply.result is not None, reply
    return bytes(reply.result)


@shows("concurrent")
@pytest.mark.parametrize("way", WAYS, ids=str)
async def test_calls_in_flight_together_each_get_their_own_answer(way: Way) -> None:
    async with standing(offerings()) as stand, stand.client(way) as client:
        held = [
            await client.begin("tools/call", {"name": f"{kind}__hang", "arguments": {"text": kind}}) for kind in KINDS
        ]
        for kind in KINDS:
            await stand[kind].wait_for("tools/call")
        wanted = [(kind, f"{kind} {number}") for number in range(6) for kind in KINDS]
        quick = await asyncio.gather(*(client.call(f"{kind}__echo", {"text": text}) for kind, text in wanted))
        assert [reply.text for reply in quick] == [text for _, text in wanted]
        assert not any(pending.is_done for pending in held)
        for kind, pending in reversed(list(zip(KINDS, held, strict=True))):
            await stand[kind].release()
            assert (await pending.reply()).text == kind
