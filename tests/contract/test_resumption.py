"""Streams that break, and clients that come back for the rest of them: a call's stream and the standing one."""

import asyncio
from collections.abc import Callable

import pytest

from tests.contract.behaviours import shows
from tests.contract.stand import KINDS, LATEST, script_of, standing
from tests.peers import BOUND, jsontext, message
from tests.peers.backend import Act, Script, tool
from tests.peers.clients import MODERN_VERSION, HttpClient
from tests.peers.http_wire import WireEvent
from tests.peers.message import Message
from tests.peers.ways import Way

pytestmark = pytest.mark.anyio

RESUMING = ("2025-03-26", "2025-06-18", "2025-11-25")
CHANGED = "notifications/tools/list_changed"


def scripts() -> dict[str, Script]:
    """Servers with a tool that reports progress and goes on only when it is let."""
    step = '{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":$TOKEN,"progress":1}}'
    slow = tool("slow", Act("notify", step, then=Act("hang", "end")))
    return {kind: script_of(kind, tools=(slow, tool("echo"))) for kind in KINDS}


async def begun(client: HttpClient, name: str, id_: int) -> list[WireEvent]:
    """Call a tool, read its stream until there is progress, and lose the connection; what was read."""
    params = b'{"name":"%b","_meta":{"progressToken":"t"}}' % name.encode()
    body = message.request(b"%d" % id_, "tools/call", params)
    read: list[WireEvent] = []
    async with asyncio.timeout(BOUND), await client.caller.send("POST", client.headers_for(None), body) as response:
        assert response.is_stream
        while not read or b"progress" not in read[-1].data:
            event = await response.events.next()
            assert event is not None
            read.append(event)
    return read


def is_answer(id_: int) -> Callable[[Message], bool]:
    """Tells the answer to a call."""
    return lambda each: each.is_response and each.id == b"%d" % id_


@shows("resume-call", "resume-opening")
@pytest.mark.parametrize("version", RESUMING)
async def test_the_rest_of_a_broken_stream_comes_to_who_names_its_last_event(version: str) -> None:
    async with standing(scripts()) as stand, stand.client(Way("http", version)) as client:
        for number, kind in enumerate(KINDS, start=100):
            read = await begun(client, f"{kind}__slow", number)
            is_opened = (read[0].data, read[0].retry) == (b"", "1000")
            assert is_opened == (version == "2025-11-25")
            stream = await client.open_get_stream(last_event_id=read[-1].id)
            assert stream.status == 200
            assert stand[kind].cancelled == []
            await stand[kind].release("end")
            answer: Message = await client.wait_for(is_answer(number))
            assert answer.result is not None
            assert len(stream.events) == 1
            missed = await client.open_get_stream(last_event_id=read[0].id)
            await client.wait_for(is_answer(number), count=2)
            assert [event.data for event in missed.events if event.data][-1] == stream.events[0].data


@shows("resume-standing")
@pytest.mark.parametrize("version", RESUMING)
async def test_a_standing_stream_goes_on_where_it_broke(version: str) -> None:
    async with standing(scripts()) as stand, stand.client(Way("http", version)) as client:
        first = await client.open_get_stream()
        await stand["web"].set_tools((tool("other"),))
        await client.wait_for(CHANGED)
        again = await client.open_get_stream(last_event_id=first.events[-1].id)
        assert again.status == 200
        await stand["web"].set_tools((tool("another"),))
        await client.wait_for(CHANGED, count=2)
        assert len(again.events) == 1


@shows("resume-own")
async def test_an_event_of_another_session_leads_nowhere() -> None:
    way = Way("http", LATEST)
    async with standing(scripts()) as stand, stand.client(way) as client, stand.client(way) as other:
        read = await begun(client, "web__slow", 100)
        stream = await other.open_get_stream(last_event_id=read[0].id)
        assert stream.status == 200
        await stand["web"].release("end")
        await client.open_get_stream(last_event_id=read[0].id)
        await client.wait_for(is_answer(100))
        assert stream.events == []


@shows("resume-modern")
async def test_the_modern_revision_knows_no_event_ids() -> None:
    async with standing(scripts()) as stand, stand.client(Way("http", MODERN_VERSION)) as client:
        params = {"name": "web26__slow", "_meta": {"progressToken": "t"}}
        pending = await client.begin("tools/call", params)
        await client.wait_for("notifications/progress")
        await stand["web26"].release("end")
        assert (await pending.reply()).result is not None
        body = jsontext.text({"jsonrpc": "2.0", "id": 1, "method": "tools/list"})
        assert (await client.exchange(body, (("Last-Event-ID", "a-1"),), method="GET")).status == 405
