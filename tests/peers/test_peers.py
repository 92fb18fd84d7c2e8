"""The scripted peers themselves: every client against every backend, in both eras. Knows nothing of the product."""

import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import pytest

from tests.peers import faithful, jsontext
from tests.peers.backend import (
    Act,
    HttpBackend,
    Script,
    SseBackend,
    StdioBackend,
    Turn,
    named,
    prompt,
    read_record,
    resource,
    template,
    tool,
)
from tests.peers.clients import (
    HANDSHAKE_VERSIONS,
    MODERN_VERSION,
    Answer,
    Client,
    HttpClient,
    ModernClient,
    SseClient,
    StdioClient,
)
from tests.peers.face import Face
from tests.peers.script import from_json, offers_to

pytestmark = pytest.mark.anyio

ANSWERS: dict[str, Answer] = {
    "roots/list": '{"roots":[ ]}',
    "sampling/createMessage": lambda params: '{"got":' + params.decode() + "}",
}


@dataclass(frozen=True, slots=True)
class Way:
    """One transport in one era."""

    transport: str
    version: str

    def __str__(self) -> str:
        return f"{self.transport}-{self.version}"


LATEST = HANDSHAKE_VERSIONS[-1]
WAYS = (
    Way("stdio", LATEST),
    Way("stdio", MODERN_VERSION),
    Way("json", LATEST),
    Way("events", LATEST),
    Way("deferred", LATEST),
    Way("deferred", MODERN_VERSION),
    Way("json", MODERN_VERSION),
    Way("events", MODERN_VERSION),
    Way("sse", "2024-11-05"),
)
every_way = pytest.mark.parametrize("way", WAYS, ids=str)


@asynccontextmanager
async def talking(way: Way, script: Script) -> AsyncIterator[tuple[Face, Client]]:
    """A backend and a client of it, connected."""
    modes = {"json": "json", "events": "sse", "deferred": "deferred"}
    if way.transport == "stdio":
        async with StdioBackend(script) as child, StdioClient(child.argv, cwd=child.cwd, answers=ANSWERS) as client:
            await client.connect(way.version)
            yield child, client
    elif way.transport == "sse":
        async with SseBackend(script) as server, SseClient(server.url, answers=ANSWERS) as client:
            await client.connect(way.version)
            yield server, client
    else:
        scripted = replace(script, replies=modes[way.transport])  # type: ignore[arg-type]  # one of the literals
        kind = ModernClient if way.version == MODERN_VERSION else HttpClient
        async with HttpBackend(scripted) as backend, kind(backend.url, answers=ANSWERS) as client:
            await client.connect(way.version)
            yield backend, client


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


@pytest.mark.parametrize(
    ("name", "sent"),
    [
        ("string_id", b'"id":"7"'),
        ("float_id", b'"id":7.0'),
        ("null_result", b'"id":7,"result":null}'),
        ("no_result", b'{"jsonrpc":"2.0","id":7}'),
        ("surrogate", b'"id":7,"result":{"t":"\\ud800"}}'),
    ],
)
async def test_misshapen_replies_are_sent_as_scripted(name: str, sent: bytes) -> None:
    surrogate = tool("surrogate", Act("raw", '{"t":"\\ud800"}'))
    script = Script(tools=(*named("everything").tools, surrogate))
    async with talking(Way("stdio", LATEST), script) as (_, client):
        await client.begin("tools/call", {"name": name}, id=7)
        found = await client.wait_for(lambda each: sent in each.raw)
        assert found.raw.startswith(b"{")


async def test_big_results_arrive_whole() -> None:
    for way in WAYS:
        async with talking(way, named("everything")) as (_, client):
            assert len((await client.call("big")).text) == 1_000_000


async def test_a_function_can_be_a_behaviour() -> None:
    async def backwards(turn: Turn) -> None:
        await turn.reply(turn.text_result(turn.text_param("arguments", "text")[::-1]))

    async with talking(Way("json", LATEST), Script(tools=(tool("back", backwards),))) as (_, client):
        assert (await client.call("back", {"text": "abc"})).text == "cba"
    with pytest.raises(TypeError, match="function"):
        Script(tools=(tool("back", backwards),)).to_json()


def test_a_script_survives_its_trip_over_a_command_line() -> None:
    script = replace(
        named("everything"), on={"ping": Act("garbage", "\udcff", then=Act("error"))}, templates=(template("a:{b}"),)
    )
    assert from_json(script.to_json()) == script


def test_an_unknown_act_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="no act is called 'fly'"):
        HttpBackend(Script(tools=(tool("t", Act("progress", then=Act("fly"))),)))


async def test_swapped_tools_and_notifications_come_from_inside_a_call() -> None:
    fresh = json.dumps(offers_to([tool("fresh")]))
    note = Act("notify", '{"jsonrpc":"2.0","method":"x/$ID","params":{"token":$TOKEN}}', then=Act("swap", fresh))
    async with talking(Way("stdio", LATEST), Script(tools=(tool("go", note),), prompts=(prompt("p"),))) as (_, client):
        reply = await client.request("tools/call", {"name": "go", "_meta": {"progressToken": 1.5}}, id=9)
        assert reply.notifications[0] == b'{"jsonrpc":"2.0","method":"x/9","params":{"token":1.5}}'
        await client.wait_for("notifications/tools/list_changed")
        assert (await client.call("fresh", {"text": "new"})).text == "new"


# --- eras over stdio, and the process -------------------------------------------------------------------------------


@pytest.mark.parametrize("version", HANDSHAKE_VERSIONS)
async def test_every_handshake_revision_can_be_the_only_one(version: str) -> None:
    script = Script(era="handshake", versions=(version,), tools=(tool("echo"),))
    async with HttpBackend(script) as backend, HttpClient(backend.url) as client:
        assert (await client.connect("1999-01-01")).value["protocolVersion"] == version
        assert (await client.call("echo", {"text": "x"})).text == "x"
    async with HttpBackend(script) as backend, ModernClient(backend.url) as modern:
        refused = await modern.connect()
        assert (refused.status, refused.result) == (400, None)


async def test_a_locking_process_speaks_the_first_era_only() -> None:
    async with StdioBackend(named("locking")) as backend:
        async with StdioClient(backend.argv, cwd=backend.cwd) as client:
            await client.connect(MODERN_VERSION)
            refused = await client.request("initialize", {"protocolVersion": LATEST, "capabilities": {}})
            assert refused.code == -32022
        async with StdioClient(backend.argv, cwd=backend.cwd) as client:
            await client.connect(LATEST)
            client.version = MODERN_VERSION
            refused = await client.request("server/discover")
            assert jsontext.member(refused.error, "data", "supported") == b'["2026-07-28"]'


async def test_an_old_server_ignores_discover_and_dies_of_the_next_message() -> None:
    async with StdioBackend(named("silent_discover")) as backend:
        async with StdioClient(backend.argv, cwd=backend.cwd) as client:
            client.version = MODERN_VERSION
            probe = await client.begin("server/discover")
            await backend.wait_for("server/discover")
            assert not probe.is_done
            await client.notify("notifications/initialized")
            assert await client.wait_ended() == 1
        async with StdioClient(backend.argv, cwd=backend.cwd) as client:
            assert (await client.connect("2024-11-05")).result is not None
        assert len(backend.children) == 2


async def test_a_stuck_process_answers_nothing_until_told() -> None:
    async with StdioBackend(named("stuck")) as backend, StdioClient(backend.argv, cwd=backend.cwd) as client:
        hello = await client.begin("initialize", {"protocolVersion": LATEST, "capabilities": {}})
        await backend.wait_for("initialize")
        assert not hello.is_done
        await backend.release("start")
        assert (await hello.reply()).value["protocolVersion"] == LATEST


async def test_a_process_can_exit_at_once_with_words_on_stderr() -> None:
    script = Script(exit_code=3, stderr="no config\n", tools=())
    async with StdioBackend(script) as backend, StdioClient(backend.argv, cwd=backend.cwd) as client:
        assert await client.wait_ended() == 3
        assert client.stderr == b"no config\n"
        assert backend.children == []


async def test_a_banner_comes_before_everything() -> None:
    script = Script(banner="Welcome!\n\udcff\n", tools=(tool("echo"),))
    async with StdioBackend(script) as backend, StdioClient(backend.argv, cwd=backend.cwd) as client:
        await client.connect(LATEST)
        assert client.lines[:2] == [b"Welcome!", b"\xff"]


async def test_a_stubborn_process_survives_stdin_and_sigterm_but_not_its_test() -> None:
    async with StdioBackend(named("stubborn")) as backend, StdioClient(backend.argv, cwd=backend.cwd) as client:
        await client.connect(LATEST)
        client.process.terminate()
        client.close_stdin()
        await backend.wait_for(lambda item: item.kind == "closed")
        await backend.announce("still/here")
        await client.wait_for("still/here")
        client.kill()
        await backend.wait_all_gone()


async def test_a_process_shows_itself_and_leaves_a_grandchild() -> None:
    script = replace(named("everything"), tools=(*named("everything").tools, tool("spawn", Act("spawn"))))
    async with StdioBackend(script) as backend, StdioClient(backend.argv, cwd=backend.cwd) as client:
        await client.connect(LATEST)
        child = await backend.wait_child()
        assert (await client.call("pid")).value["structuredContent"]["pid"] == child.pid == client.process.pid
        assert "PATH" in (await client.call("env")).value["structuredContent"]
        assert set((await client.call("fds")).value["structuredContent"]) == {"0", "1", "2"}
        grandchild = (await client.call("spawn")).value["structuredContent"]["pid"]
        assert psutil.pid_exists(grandchild)
        await backend.exit(5)
        assert await client.wait_ended() == 5
        assert psutil.pid_exists(grandchild)


async def test_stderr_can_flood_and_lines_never_end() -> None:
    flood = tool("flood", Act("stderr", "x" * 999, n=2000))
    long = tool("long", Act("endless", n=3_000_000, then=Act()))
    async with talking(Way("stdio", LATEST), Script(tools=(flood, long))) as (_, client):
        assert isinstance(client, StdioClient)
        assert (await client.call("flood", {"text": "dry"})).text == "dry"
        assert (await client.call("long", {"text": "end"})).text == "end"
        assert max(len(line) for line in client.lines) == 3_000_000
        assert len(client.stderr) == 2_000_000


async def test_a_recording_file_tells_what_a_child_received(tmp_path: Path) -> None:
    record = tmp_path / "record"
    argv = [sys.executable, "-m", "tests.peers.stdio_main", "--script", "echo", "--record", str(record)]
    async with StdioBackend() as backend, StdioClient(argv, cwd=backend.cwd) as client:
        await client.connect(LATEST)
        await client.send_line(b"\xff garbage")
        await client.call("echo")
        client.close_stdin()
        assert await client.wait_ended() == 0
    kinds = [(each.kind, each.method) for each in read_record(record)]
    assert kinds == [
        ("request", "initialize"),
        ("notification", "notifications/initialized"),
        ("garbage", ""),
        ("request", "tools/call"),
        ("closed", ""),
    ]
    assert read_record(record)[2].raw == b"\xff garbage"


async def test_questions_outside_any_call_are_answered() -> None:
    async with talking(Way("stdio", LATEST), named("echo")) as (backend, client):
        assert isinstance(backend, StdioBackend)
        await backend.wait_for("notifications/initialized")
        await backend.ask_all("roots/list")
        assert (await backend.wait_response()).raw == b'{"jsonrpc":"2.0","id":1,"result":{"roots":[ ]}}'
        assert client.asked[0].method == "roots/list"


def test_json_is_sliced_whatever_it_holds() -> None:
    odd = b' { "a" : [1e999 , "]}\\"" ,{}],"b":\t"\\ud800","a":NaN, "c":' + b"[" * 9999 + b"]" * 9999 + b"} "
    assert jsontext.member(odd, "a") == b"NaN"
    assert [key for key, _ in jsontext.walk(odd)] == ["a", "b", "a", "c"]
    assert jsontext.elements(jsontext.walk(odd)[0][1]) == [b"1e999", b'"]}\\""', b"{}"]
    assert jsontext.with_value(b'{"x":{},"m":{},"z":1}', "m", b"[]") == b'{"x":{},"m":[],"z":1}'
    for broken in (b"[]", b"{", b'{"a"}', b'{"a":1 "b":2}', b'{"a":}', b'{"a":[}'):
        with pytest.raises(ValueError, match=r"."):
            jsontext.walk(broken)
