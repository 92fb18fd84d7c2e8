"""A ping that is answered with anything is answered: the server is ready, over a pipe and over HTTP."""

import pytest

from tests.contract.stand import LATEST, standing
from tests.peers.backend import Act, Script, tool
from tests.peers.ways import Way

pytestmark = pytest.mark.anyio

ANSWERS = {
    "an array": Act("raw", "[]"),
    "null": Act("raw", "null"),
    "text": Act("raw", '"pong"'),
    "true": Act("raw", "true"),
    "an error": Act("error", '{"code":-32601,"message":"Method not found"}'),
}


@pytest.mark.parametrize("what", ANSWERS)
@pytest.mark.parametrize("kind", ["pipe", "web"])
async def test_an_odd_answer_to_a_ping_is_an_answer(kind: str, what: str) -> None:
    script = Script(name=kind, era="handshake", on={"ping": ANSWERS[what]}, tools=(tool("echo"),))
    entry = {kind: {"pingInterval": "500ms"}}
    async with standing({kind: script}, **entry) as stand, stand.client(Way("http", LATEST)) as client:
        assert (await client.call(f"{kind}__echo", {"text": "x"})).text == "x"
        await stand[kind].wait_for("ping", count=4)
        assert stand.status(kind).state == "ready"


async def test_a_server_that_answers_no_ping_but_lists_its_tools_is_ready() -> None:
    script = Script(name="pipe", era="handshake", on={"ping": Act("silent")}, tools=(tool("echo"),))
    entry = {"pingInterval": "500ms"}
    async with standing({"pipe": script}, pipe=entry) as stand, stand.client(Way("http", LATEST)) as client:
        assert (await client.call("pipe__echo", {"text": "x"})).text == "x"
        await stand["pipe"].wait_for("ping", count=4)
        assert stand.status("pipe").state == "ready"
