"""Tools, resources, prompts and completion through the merged endpoint: every front, every kind of backend."""

import asyncio
from dataclasses import replace

import pytest

from tests.contract.behaviours import shows
from tests.contract.offers import (
    ERROR,
    FAILED,
    ODD,
    ODD_MEMBERS,
    SHARED,
    SHARED_TEMPLATE,
    UNLISTED,
    offering,
    offerings,
)  # fmt: skip
from tests.contract.stand import ERAS, EVERY_WAY, KINDS, OLDEST, WAYS, standing
from tests.peers import jsontext
from tests.peers.backend import Act, resource
from tests.peers.clients import MODERN_VERSION
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
        for unknown in ("nothing", "echo", "WEB__echo", "web__", ""):
            reply = await client.call(unknown)
            assert reply.code == -32602, (unknown, reply)
        assert all(len(stand[kind].calls("tools/call")) == 2 for kind in KINDS)
        for unlisted in ("nothing", "echo "):
            assert (await client.call(f"web__{unlisted}")).code == -32602, "so said the server"
        assert len(stand["web"].calls("tools/call")) == 4


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


# --- resources


def told(kind: str, uri: str) -> str:
    """What a URI that all backends list is called where `kind` lists it: only the first keeps it as it is."""
    return uri if kind == KINDS[0] else f"{kind}+{uri}"


@shows("resources-list", "resources-read", "resources-template", "resources-collision")
@pytest.mark.parametrize("way", WAYS, ids=str)
async def test_resources_keep_their_uris_unless_two_backends_claim_one(way: Way) -> None:
    async with standing(offerings()) as stand, stand.client(way) as client:
        listed = [each["uri"] for each in (await client.request("resources/list")).value["resources"]]
        expected = [(f"note://{kind}/1", told(kind, SHARED), f"broken://{kind}") for kind in KINDS]
        assert listed == [uri for uris in expected for uri in uris]
        templates = (await client.request("resources/templates/list")).value["resourceTemplates"]
        shown = [each["uriTemplate"] for each in templates]
        own = [(f"row://{kind}/{{id}}", told(kind, SHARED_TEMPLATE)) for kind in KINDS]
        assert [uri for uris in own for uri in uris] == [uri for uri in shown if "hidden" not in uri]
        for kind in KINDS:
            for public, native in (
                (f"note://{kind}/1", f"note://{kind}/1"),
                (f"row://{kind}/4%202", f"row://{kind}/4%202"),
                (told(kind, SHARED), SHARED),
                (f"{kind}+{SHARED}", SHARED),
                (told(kind, "rows://a/b"), "rows://a/b"),
            ):
                read = await client.request("resources/read", {"uri": public})
                asked = stand[kind].calls("resources/read")[-1]
                assert jsontext.value(jsontext.member(asked.params, "uri")) == native
                assert read.value["contents"] == [
                    {"uri": told(kind, native) if native != public else native, "text": native}
                ]


@shows("resources-unknown", "resources-error")
@pytest.mark.parametrize("way", WAYS, ids=str)
async def test_a_resource_nobody_has_gets_the_code_of_the_callers_era(way: Way) -> None:
    async with standing(offerings()) as stand, stand.client(way) as client:
        wanted = -32602 if way.version == MODERN_VERSION else -32002
        for uri in ("nowhere:x", f"nobody+{SHARED}", ""):
            reply = await client.request("resources/read", {"uri": uri})
            assert reply.code == wanted, (uri, reply)
            assert jsontext.value(reply.error)["data"] == {"uri": uri}
        for kind in KINDS:
            assert not stand[kind].calls("resources/read")
            missing = await client.request("resources/read", {"uri": f"{kind}+note://{kind}/nothing"})
            assert missing.code == wanted, (kind, missing)
            gone = await client.request("resources/read", {"uri": f"broken://{kind}"})
            assert gone.error == b'{"code":-32603,"message":"gone for now"}'


@shows("resources-linked", "resources-collision-in-results")
@pytest.mark.parametrize("way", WAYS, ids=str)
async def test_links_in_results_lead_back_to_the_backend_that_gave_them(way: Way) -> None:
    async with standing(offerings()) as stand, stand.client(way) as client:
        for kind in KINDS:
            unlisted = UNLISTED.replace("{server}", kind)
            link, shared, embedded = (await client.call(f"{kind}__links")).value["content"]
            assert (link["uri"], shared["uri"]) == (unlisted, told(kind, SHARED))
            assert embedded["resource"]["uri"] == told(kind, SHARED)
            got = await client.request("prompts/get", {"name": f"{kind}__quote"})
            assert got.value["messages"][0]["content"]["resource"]["uri"] == told(kind, SHARED)
            # the scripted backends know it no more than the catalogue does: that they are asked is the point
            assert (await client.request("resources/read", {"uri": unlisted})).code in (-32002, -32602)
            (asked,) = stand[kind].calls("resources/read")
            assert jsontext.value(jsontext.member(asked.params, "uri")) == unlisted


@shows("resources-collision-in-results")
@pytest.mark.parametrize("way", WAYS, ids=str)
async def test_an_error_names_the_resource_as_the_client_knows_it(way: Way) -> None:
    said = '{"code":%d,"message":"m","data":{ "n" : 1.50,"uri":"%s"},"x":null}'
    code = {"handshake": -32002, "modern": -32602}
    scripts = {
        kind: replace(
            offering(kind),
            resources=(resource(SHARED, Act("error", said % (code[era], SHARED))),),
            on={"resources/subscribe": Act("error", said % (code[era], SHARED))},
        )
        for kind, era in ERAS.items()
    }
    async with standing(scripts) as stand, stand.client(way) as client:
        for kind in KINDS:
            uri = told(kind, SHARED)
            refused = await client.request("resources/read", {"uri": uri})
            data = jsontext.member(refused.error, "data")
            assert jsontext.value(data) == {"n": 1.5, "uri": uri}
            assert b"1.50" in (data or b"")
            assert b'"x":null' in (refused.error or b"")
            if not client.is_modern and ERAS[kind] == "handshake":
                refused = await client.request("resources/subscribe", {"uri": uri})
                assert jsontext.value(jsontext.member(refused.error, "data")) == {"n": 1.5, "uri": uri}


# --- prompts


@shows("prompts-list", "prompts-get", "prompts-unknown", "complete-prompt", "complete-template")
@pytest.mark.parametrize("way", WAYS, ids=str)
async def test_prompts_are_listed_got_and_completed_under_their_servers_name(way: Way) -> None:
    async with standing(offerings()) as stand, stand.client(way) as client:
        listed = [each["name"] for each in (await client.request("prompts/list")).value["prompts"]]
        assert listed == [f"{kind}__{name}" for kind in KINDS for name in ("greet", "quote")]
        for kind in KINDS:
            got = await client.request("prompts/get", {"name": f"{kind}__greet", "arguments": {"who": "me"}})
            assert got.value["messages"][0]["content"]["text"] == 'greet {"who":"me"}'
            if way.version == OLDEST:
                continue
            refs: tuple[tuple[dict[str, str], dict[str, str]], ...] = (
                ({"type": "ref/prompt", "name": f"{kind}__greet"}, {"type": "ref/prompt", "name": "greet"}),
                (
                    {"type": "ref/resource", "uri": told(kind, SHARED_TEMPLATE)},
                    {"type": "ref/resource", "uri": SHARED_TEMPLATE},
                ),
            )
            for ref, native in refs:
                asked = {"ref": ref, "argument": {"name": "who", "value": "m"}, "x-unknown": None}
                done = await client.request("completion/complete", asked)
                assert done.value["completion"]["values"] == ["m-a", "m-b"]
                sent = stand[kind].calls("completion/complete")[-1]
                assert jsontext.value(jsontext.member(sent.params, "ref")) == native
        for unknown in ("web__nothing", "greet", ""):
            assert (await client.request("prompts/get", {"name": unknown})).code == -32602
            nobody = {"ref": {"type": "ref/prompt", "name": unknown}, "argument": {"name": "a", "value": ""}}
            assert (await client.request("completion/complete", nobody)).code == -32602
