"""The scripted peers themselves: every client against every backend, in both eras. Knows nothing of the product."""

import json

import pytest

from tests.peers import faithful, jsontext
from tests.peers.backend import (
    Act,
    HttpBackend,
    Script,
    named,
    resource,
    tool,
)
from tests.peers.clients import (
    MODERN_VERSION,
    StdioClient,
)
from tests.peers.ways import LATEST, WAYS, Way, talking

pytestmark = pytest.mark.anyio

every_way = pytest.mark.parametrize("way", WAYS, ids=str)


# --- every transport, every era ----------------------------------------------------------------------------------


@every_way
async def test_connecting_tells_the_version_the_client_asked_for(way: Way) -> None:
    async with talking(way, named("everything")) as (backend, client):
        assert client.version == way.version
        first = "server/discover" if way.version == MODERN_VERSION else "initialize"
        assert backend.requests[0].method == first
        assert b"raw-client" in backend.requests[0].raw


@every_way
async def test_a_text_comes_back_as_it_was_written(way: Way) -> None:
    async with talking(way, named("everything")) as (backend, client):
        reply = await client.call("echo", '{ "text" : "gr\\u00fc\\/ße \u2028" }')
        assert jsontext.member(reply.entries("content")[0], "text") == '"gr\\u00fc\\/ße \u2028"'.encode()
        sent = backend.calls("tools/call")[0]
        assert jsontext.member(sent.params, "arguments") == '{ "text" : "gr\\u00fc\\/ße \u2028" }'.encode()
        assert reply.raw.endswith(b"}")


@every_way
async def test_odd_payloads_pass_byte_for_byte(way: Way) -> None:
    async with talking(way, faithful.script()) as (_, client):
        for name, result in faithful.RESULTS.items():
            assert (await client.call(name)).result == result.encode("utf-8"), name
        for name, error in faithful.ERRORS.items():
            assert (await client.call(name)).error == error.encode("utf-8"), name
        listed = await client.list_all("tools/list")
        assert tuple(each.decode() for each in listed[: len(faithful.TOOLS)]) == faithful.TOOLS
        for uri, read in faithful.READS.items():
            assert (await client.request("resources/read", {"uri": uri})).result == read.encode()
        for name, got in faithful.PROMPT_RESULTS.items():
            assert (await client.request("prompts/get", {"name": name})).result == got.encode()


@every_way
async def test_odd_arguments_arrive_byte_for_byte(way: Way) -> None:
    async with talking(way, faithful.script()) as (_, client):
        for arguments in faithful.ARGUMENTS:
            reply = await client.call("mirror", arguments)
            assert reply.slice("structuredContent", "params", "arguments") == arguments.encode()


@every_way
async def test_lists_reads_prompts_and_completions_are_answered(way: Way) -> None:
    async with talking(way, named("everything")) as (_, client):
        assert (await client.request("prompts/list")).value["prompts"][0]["name"] == "greet"
        assert (await client.request("resources/templates/list")).value["resourceTemplates"]
        read = await client.request("resources/read", {"uri": "db://t/1"})
        assert read.value["contents"] == [{"uri": "db://t/1", "text": "db://t/1"}]
        got = await client.request("prompts/get", {"name": "greet", "arguments": {"who": "me"}})
        assert got.value["messages"][0]["content"]["text"] == 'greet {"who":"me"}'
        ref = {"ref": {"type": "ref/prompt", "name": "greet"}, "argument": {"name": "who", "value": "m"}}
        if way.version != "2024-11-05":
            done = await client.request("completion/complete", ref)
            assert done.value["completion"]["values"] == ["m-a", "m-b"]


@every_way
async def test_what_does_not_exist_is_refused_as_the_era_says(way: Way) -> None:
    async with talking(way, named("everything")) as (_, client):
        assert (await client.call("nothing")).code == -32602
        assert (await client.request("no/such")).code == -32601
        missing = await client.request("resources/read", {"uri": "nowhere:x"})
        assert missing.code == (-32602 if way.version == MODERN_VERSION else -32002)
        assert (await client.request("ping")).code == (-32601 if way.version == MODERN_VERSION else None)


@every_way
async def test_pages_follow_their_cursors_and_unknown_cursors_are_refused(way: Way) -> None:
    script = Script(tools=tuple(tool(f"t{n}") for n in range(5)), page_size=2, cursors=('""', '"\\u0062 /"'))
    async with talking(way, script) as (backend, client):
        assert len(await client.list_all("tools/list")) == 5
        cursors = [jsontext.member(each.params, "cursor") for each in backend.calls("tools/list")]
        assert cursors == [None, b'""', b'"\\u0062 /"']
        assert (await client.request("tools/list", {"cursor": "x"})).code == -32602


@every_way
async def test_a_cursor_loop_never_ends(way: Way) -> None:
    script = Script(tools=tuple(tool(f"t{n}") for n in range(3)), page_size=1, cursor_loop=True)
    async with talking(way, script) as (_, client):
        cursor, seen = None, []
        for _ in range(7):
            reply = await client.request("tools/list", {"cursor": cursor} if cursor else None)
            cursor = reply.value["nextCursor"]
            seen.append(reply.value["tools"][0]["name"])
        assert seen == ["t0", "t1", "t2", "t1", "t2", "t1", "t2"]


@pytest.mark.parametrize("way", [each for each in WAYS if each.transport != "json"], ids=str)
async def test_progress_comes_before_the_result_with_all_its_members(way: Way) -> None:
    async with talking(way, named("everything")) as (_, client):
        heard: list[bytes] = []
        params = '{"name":"progress","arguments":{"text":"end"},"_meta":{"progressToken":"tok"}}'
        reply = await client.request("tools/call", params, on_notification=heard.append)
        assert reply.notifications == heard
        assert [json.loads(each)["params"]["progress"] for each in heard] == [1, 2, 3]
        assert b'"progress":1,"total":3,"message":"step 1","x-unknown":{"big":123456789012345678901234' in heard[0]
        assert reply.text == "end"
        assert (await client.call("progress")).notifications == []


@pytest.mark.parametrize("way", [each for each in WAYS if each.transport != "json"], ids=str)
async def test_log_messages_respect_the_level_of_the_era(way: Way) -> None:
    async with talking(way, named("everything")) as (_, client):
        if not client.is_modern:
            assert len((await client.call("log")).notifications) == 2
            await client.request("logging/setLevel", {"level": "error"})
        assert (await client.call("log")).notifications == []
        if client.is_modern:
            client.log_level = "debug"
            assert b'"x-unknown":1.50' in (await client.call("log")).notifications[1]


@every_way
async def test_a_hanging_call_ends_when_its_gate_opens(way: Way) -> None:
    async with talking(way, named("everything")) as (backend, client):
        pending = await client.begin("tools/call", {"name": "hang", "arguments": {"text": "at last"}})
        await backend.wait_for("tools/call")
        assert not pending.is_done
        assert (await client.call("echo", {"text": "meanwhile"})).text == "meanwhile"
        await backend.release()
        assert (await pending.reply()).text == "at last"


@every_way
async def test_cancelling_is_recorded_with_the_id_and_not_answered(way: Way) -> None:
    async with talking(way, named("everything")) as (backend, client):
        pending = await client.begin("tools/call", {"name": "hang"}, id="a name")
        await backend.wait_for("tools/call")
        await client.cancel(pending)
        cancelled = await backend.wait_cancelled()
        assert (cancelled.id, cancelled.method) == (b'"a name"', "tools/call")
        is_left = way.version == MODERN_VERSION and way.transport != "stdio"
        assert (cancelled.raw == b"disconnected") is is_left
        assert (await client.call("echo", {"text": "next"})).text == "next"
        assert not any(each.result and each.id == b'"a name"' for each in client.received)


@pytest.mark.parametrize("way", [each for each in WAYS if each.transport != "json"], ids=str)
async def test_a_question_reaches_the_client_and_its_answer_the_backend(way: Way) -> None:
    sampling = '{"method":"sampling/createMessage","params":{ "x" : 1.50 }}'
    both = Act("ask", '[{"method":"roots/list"},[' + sampling + "," + sampling + "]]")
    async with talking(way, Script(tools=(tool("ask", both),))) as (backend, client):
        answers = (await client.call("ask")).slice("structuredContent", "answers")
        assert answers == b'[{"roots":[ ]},{"got":{ "x" : 1.50 }},{"got":{ "x" : 1.50 }}]'
        if client.is_modern:
            assert len({each.id for each in backend.calls("tools/call")}) == 3
        else:
            assert [each.method for each in client.asked] == ["roots/list", *["sampling/createMessage"] * 2]
            assert len(backend.responses) == 3


@every_way
async def test_a_question_the_client_cannot_answer_is_not_asked(way: Way) -> None:
    asking = Act("ask", '{"method":"elicitation/create","params":{}}')
    async with talking(way, Script(tools=(tool("ask", asking),))) as (_, client):
        reply = await client.call("ask")
        assert reply.code == -32021 if client.is_modern else reply.value["isError"]
        assert client.asked == []


@every_way
async def test_changed_tools_are_announced_to_who_watches(way: Way) -> None:
    async with talking(way, named("echo")) as (backend, client):
        await client.watch()
        if isinstance(backend, HttpBackend) and not client.is_modern:
            await backend.wait_get_stream()
        await backend.set_tools([tool("fresh")])
        changed = await client.wait_for("notifications/tools/list_changed")
        assert (b"subscriptionId" in changed.raw) is client.is_modern
        assert [json.loads(each)["name"] for each in await client.list_all("tools/list")] == ["fresh"]


@every_way
async def test_updates_go_to_subscribers_only(way: Way) -> None:
    async with talking(way, Script(resources=(resource("a:1"), resource("b:2")))) as (backend, client):
        if client.is_modern:
            listen = await client.begin("subscriptions/listen", {"notifications": {"resourceSubscriptions": ["a:1"]}})
            await listen.heard()
        else:
            await client.watch()
            await client.request("resources/subscribe", {"uri": "a:1"})
        if isinstance(backend, HttpBackend) and not client.is_modern:
            await backend.wait_get_stream()
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


@pytest.mark.parametrize("way", [Way("stdio", LATEST), Way("events", LATEST), Way("sse", "2024-11-05")], ids=str)
@pytest.mark.parametrize(
    ("name", "sent"),
    [
        ("garbage", b"this is not JSON"),
        ("invalid_utf8", b"\xff\xfe"),
        ("wrong_id", b'"id":987654321'),
        ("duplicate", b"the second reply"),
    ],
)
async def test_strange_lines_are_sent_and_the_reply_still_comes(way: Way, name: str, sent: bytes) -> None:
    async with talking(way, named("everything")) as (_, client):
        assert (await client.call(name, {"text": "fine"})).text == "fine"
        await client.call("echo")
        seen = client.lines if isinstance(client, StdioClient) else [each.raw for each in client.received]
        if way.transport == "stdio" or name not in ("garbage", "invalid_utf8"):
            assert any(sent in each for each in seen)
