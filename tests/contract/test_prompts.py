"""Prompts and completion through the merged endpoint: every front, every kind of backend."""

import pytest

from tests.contract.behaviours import shows
from tests.contract.offers import SHARED_TEMPLATE, offerings
from tests.contract.stand import KINDS, OLDEST, WAYS, standing
from tests.contract.test_resources import told
from tests.peers import jsontext
from tests.peers.ways import Way

pytestmark = pytest.mark.anyio


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
