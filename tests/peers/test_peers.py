"""The scripted peers themselves: every client against every backend, in both eras. Knows nothing of the product."""

import json

import pytest

from tests.peers import faithful, jsontext
from tests.peers.backend import Act, HttpBackend, Script, named, resource, tool
from tests.peers.clients import MODERN_VERSION, StdioClient
from tests.peers.ways import LATEST, WAYS, Way, talking

pytestmark = pytest.mark.anyio

every_way = pytest.mark.parametrize("way", WAYS, ids=str)
with_notifications = pytest.mark.parametrize("way", [each for each in WAYS if each.transport != "json"], ids=str)


@every_way
async def test_a_conversation_is_answered_as_its_era_says(way: Way) -> None:
    modern = way.version == MODERN_VERSION
    async with talking(way, named("everything")) as (backend, client):
        assert client.version == way.version
        assert backend.requests[0].method == ("server/discover" if modern else "initialize")
        assert b"raw-client" in backend.requests[0].raw
        assert len((await client.call("big")).text) == 1_000_000
        assert (await client.request("prompts/list")).value["prompts"][0]["name"] == "greet"
        assert (await client.request("resources/templates/list")).value["resourceTemplates"]
        read = await client.request("resources/read", {"uri": "db://t/1"})
        assert read.value["contents"] == [{"uri": "db://t/1", "text": "db://t/1"}]
        got = await client.request("prompts/get", {"name": "greet", "arguments": {"who": "me"}})
        assert got.value["messages"][0]["content"]["text"] == 'greet {"who":"me"}'
        if way.version != "2024-11-05":
            ref = {"ref": {"type": "ref/prompt", "name": "greet"}, "argument": {"name": "who", "value": "m"}}
            assert (await client.request("completion/complete", ref)).value["completion"]["values"] == ["m-a", "m-b"]
        assert (await client.call("nothing")).code == -32602
        assert (await client.request("no/such")).code == -32601
        missing = await client.request("resources/read", {"uri": "nowhere:x"})
        assert missing.code == (-32602 if modern else -32002)
        assert (await client.request("ping")).code == (-32601 if modern else None)


@every_way
async def test_odd_payloads_and_arguments_pass_byte_for_byte(way: Way) -> None:
    async with talking(way, faithful.script()) as (_, client):
        for name, result in faithful.RESULTS.items():
            assert (await client.call(name)).result == result.encode(), name
        for name, error in faithful.ERRORS.items():
            assert (await client.call(name)).error == error.encode(), name
        listed = await client.list_all("tools/list")
        assert tuple(each.decode() for each in listed[: len(faithful.TOOLS)]) == faithful.TOOLS
        for uri, read in faithful.READS.items():
            assert (await client.request("resources/read", {"uri": uri})).result == read.encode()
        for name, got in faithful.PROMPT_RESULTS.items():
            assert (await client.request("prompts/get", {"name": name})).result == got.encode()
        for arguments in faithful.ARGUMENTS:
            reply = await client.call("mirror", arguments)
            assert reply.slice("structuredContent", "params", "arguments") == arguments.encode()


@every_way
async def test_pages_follow_their_cursors_unknown_ones_are_refused_and_a_loop_never_ends(way: Way) -> None:
    script = Script(tools=tuple(tool(f"t{n}") for n in range(5)), page_size=2, cursors=('""', '"\\u0062 /"'))
    async with talking(way, script) as (backend, client):
        assert len(await client.list_all("tools/list")) == 5
        cursors = [jsontext.member(each.params, "cursor") for each in backend.calls("tools/list")]
        assert cursors == [None, b'""', b'"\\u0062 /"']
        assert (await client.request("tools/list", {"cursor": "x"})).code == -32602
    script = Script(tools=tuple(tool(f"t{n}") for n in range(3)), page_size=1, cursor_loop=True)
    async with talking(way, script) as (_, client):
        cursor, seen = None, []
        for _ in range(7):
            reply = await client.request("tools/list", {"cursor": cursor} if cursor else None)
            cursor = reply.value["nextCursor"]
            seen.append(reply.value["tools"][0]["name"])
        assert seen == ["t0", "t1", "t2", "t1", "t2", "t1", "t2"]


@with_notifications
async def test_progress_and_log_messages_come_before_the_result_as_far_as_they_are_wanted(way: Way) -> None:
    async with talking(way, named("everything")) as (_, client):
        heard: list[bytes] = []
        params = '{"name":"progress","arguments":{"text":"end"},"_meta":{"progressToken":"tok"}}'
        reply = await client.request("tools/call", params, on_notification=heard.append)
        assert (reply.notifications, reply.text) == (heard, "end")
        assert [json.loads(each)["params"]["progress"] for each in heard] == [1, 2, 3]
        assert b'"progress":1,"total":3,"message":"step 1","x-unknown":{"big":123456789012345678901234' in heard[0]
        assert (await client.call("progress")).notifications == []
        if not client.is_modern:
            assert len((await client.call("log")).notifications) == 2
            await client.request("logging/setLevel", {"level": "error"})
        assert (await client.call("log")).notifications == []
        if client.is_modern:
            client.log_level = "debug"
            assert b'"x-unknown":1.50' in (await client.call("log")).notifications[1]


@every_way
async def test_a_hanging_call_ends_when_its_gate_opens_or_unanswered_when_it_is_cancelled(way: Way) -> None:
    async with talking(way, named("everything")) as (backend, client):
        given_up = await client.begin("tools/call", {"name": "hang"}, id="a name")
        await backend.wait_for("tools/call")
        await client.cancel(given_up)
        cancelled = await backend.wait_cancelled()
        assert (cancelled.id, cancelled.method) == (b'"a name"', "tools/call")
        is_left = way.version == MODERN_VERSION and way.transport != "stdio"
        assert (cancelled.raw == b"disconnected") is is_left
        pending = await client.begin("tools/call", {"name": "hang", "arguments": {"text": "at last"}})
        await backend.wait_for("tools/call", count=2)
        assert not pending.is_done
        assert (await client.call("echo", {"text": "meanwhile"})).text == "meanwhile"
        await backend.release()
        assert (await pending.reply()).text == "at last"
        assert not any(each.result and each.id == b'"a name"' for each in client.received)


@with_notifications
async def test_a_question_reaches_a_client_that_can_answer_it_and_no_other(way: Way) -> None:
    sampling = '{"method":"sampling/createMessage","params":{ "x" : 1.50 }}'
    both = tool("both", Act("ask", '[{"method":"roots/list"},[' + sampling + "," + sampling + "]]"))
    form = tool("form", Act("ask", '{"method":"elicitation/create","params":{}}'))
    async with talking(way, Script(tools=(both, form))) as (backend, client):
        refused = await client.call("form")
        assert refused.code == -32021 if client.is_modern else refused.value["isError"]
        assert client.asked == []
        answers = (await client.call("both")).slice("structuredContent", "answers")
        assert answers == b'[{"roots":[ ]},{"got":{ "x" : 1.50 }},{"got":{ "x" : 1.50 }}]'
        if client.is_modern:
            assert len({each.id for each in backend.calls("tools/call")}) == 4
        else:
            assert [each.method for each in client.asked] == ["roots/list", *["sampling/createMessage"] * 2]
            assert len(backend.responses) == 3


@every_way
async def test_changes_go_to_who_watches_and_updates_to_who_subscribed(way: Way) -> None:
    async with talking(way, Script(tools=(tool("old"),), resources=(resource("a:1"), resource("b:2")))) as talk:
        backend, client = talk
        await client.watch()
        if client.is_modern:
            wanted = {"notifications": {"resourceSubscriptions": ["a:1"]}}
            await (await client.begin("subscriptions/listen", wanted)).heard()
        else:
            await client.request("resources/subscribe", {"uri": "a:1"})
            if isinstance(backend, HttpBackend):
                await backend.wait_get_stream()
        await backend.set_tools([tool("fresh")])
        changed = await client.wait_for("notifications/tools/list_changed")
        assert (b"subscriptionId" in changed.raw) is client.is_modern
        assert [json.loads(each)["name"] for each in await client.list_all("tools/list")] == ["fresh"]
        await backend.announce("notifications/resources/updated", '{"uri":"b:2"}')
        await backend.announce("notifications/resources/updated", '{"uri":"a:1","x":1.50}')
        updated = await client.wait_for("notifications/resources/updated")
        assert jsontext.member(updated.params, "uri") == b'"a:1"'
        assert b'"x":1.50' in updated.raw


@every_way
async def test_a_backend_that_dies_takes_its_calls_with_it(way: Way) -> None:
    async with talking(way, named("everything")) as (_, client):
        for name in ("cut",) if way.transport in ("stdio", "sse") else ("die", "cut"):
            pending = await client.begin("tools/call", {"name": name})
            with pytest.raises(ConnectionError):
                await pending.reply()


STRANGE = {
    "garbage": b"this is not JSON",
    "invalid_utf8": b"\xff\xfe",
    "wrong_id": b'"id":987654321',
    "duplicate": b"the second reply",
}


@pytest.mark.parametrize("way", [Way("stdio", LATEST), Way("events", LATEST), Way("sse", "2024-11-05")], ids=str)
async def test_strange_lines_are_sent_and_the_reply_still_comes(way: Way) -> None:
    async with talking(way, named("everything")) as (_, client):
        for name, sent in STRANGE.items():
            assert (await client.call(name, {"text": "fine"})).text == "fine"
            await client.call("echo")
            seen = client.lines if isinstance(client, StdioClient) else [each.raw for each in client.received]
            if way.transport == "stdio" or name not in ("garbage", "invalid_utf8"):
                assert any(sent in each for each in seen)
