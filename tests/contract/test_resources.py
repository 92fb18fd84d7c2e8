"""Resources and templates through the merged endpoint: every front, every kind of backend."""

from dataclasses import replace

import pytest

from tests.contract.behaviours import shows
from tests.contract.offers import SHARED, SHARED_TEMPLATE, UNLISTED, offering, offerings
from tests.contract.stand import ERAS, KINDS, WAYS, standing
from tests.peers import jsontext
from tests.peers.backend import Act, resource
from tests.peers.clients import MODERN_VERSION
from tests.peers.ways import Way

pytestmark = pytest.mark.anyio


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
