"""The scripted peers themselves: strange replies, processes, and what scripts are. Knows nothing of the product."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from tests.peers import jsontext
from tests.peers.backend import Act, HttpBackend, Script, StdioBackend, Turn, named, prompt, read_record, template, tool
from tests.peers.clients import HANDSHAKE_VERSIONS, MODERN_VERSION, HttpClient, ModernClient, StdioClient
from tests.peers.script import from_json, offers_to
from tests.peers.ways import LATEST, Way, talking

pytestmark = pytest.mark.anyio


MISSHAPEN = {
    "string_id": b'"id":"7"',
    "float_id": b'"id":7.0',
    "list_result": b'"id":7,"result":[]}',
    "null_id": b'"id":null,"error"',
    "null_result": b'"id":7,"result":null}',
    "no_result": b'{"jsonrpc":"2.0","id":7}',
    "surrogate": b'"id":7,"result":{"t":"\\ud800"}}',
}


async def test_misshapen_replies_are_sent_as_scripted() -> None:
    tools = tuple(tool(name, Act(name)) for name in MISSHAPEN if name != "surrogate")
    script = Script(tools=(*tools, tool("surrogate", Act("raw", '{"t":"\\ud800"}'))))
    async with talking(Way("stdio", LATEST), script) as (_, client):
        for name, sent in MISSHAPEN.items():
            await client.begin("tools/call", {"name": name}, id=7)
            found = await client.wait_for(lambda each, sent=sent: sent in each.raw)  # type: ignore[misc]
            assert found.raw.startswith(b"{")


async def test_a_late_reply_comes_although_the_call_was_cancelled() -> None:
    async with talking(Way("stdio", LATEST), named("everything")) as (backend, client):
        pending = await client.begin("tools/call", {"name": "late", "arguments": {"text": "too late"}})
        await client.cancel(pending)
        await backend.wait_cancelled()
        assert not pending.is_done
        await backend.release()
        assert (await pending.reply()).text == "too late"


async def test_methods_can_be_silent_refused_failing_or_ordinary() -> None:
    acts = {"ping": Act("silent"), "tools/list": Act("refuse"), "prompts/list": Act("error", '{"code":1,"x":null}')}
    async with talking(Way("stdio", LATEST), Script(on=acts, tools=(tool("echo"),))) as (backend, client):
        silent = await client.begin("ping")
        assert (await client.request("tools/list")).code == -32601
        assert (await client.request("prompts/list")).error == b'{"code":1,"x":null}'
        assert not silent.is_done
        assert [item.method for item in backend.requests] == ["initialize", "ping", "tools/list", "prompts/list"]


async def test_messages_are_sent_exactly_as_written() -> None:
    verbatim = Act("messages", '{"method":"a/b" , "jsonrpc":"2.0"}\n{ "result":$ARGS,"id" :$ID}')
    announce = Act("announce", 'x/y {"n":1e999}')
    async with talking(Way("stdio", LATEST), Script(tools=(tool("v", verbatim), tool("a", announce)))) as (_, client):
        reply = await client.call("v", '{"k": 1.50}')
        assert reply.notifications == [b'{"method":"a/b" , "jsonrpc":"2.0"}']
        assert (reply.raw, reply.result) == (b'{ "result":{"k": 1.50},"id" :2}', b'{"k": 1.50}')
        await client.call("a")
        assert (await client.wait_for("x/y")).params == b'{"n":1e999}'


async def test_a_function_can_be_a_behaviour() -> None:
    async def backwards(turn: Turn) -> None:
        await turn.reply(turn.text_result(turn.text_param("arguments", "text")[::-1]))

    async with talking(Way("json", LATEST), Script(tools=(tool("back", backwards),))) as (_, client):
        assert (await client.call("back", {"text": "abc"})).text == "cba"
    with pytest.raises(TypeError, match="function"):
        Script(tools=(tool("back", backwards),)).to_json()


def test_a_script_survives_its_trip_over_a_command_line_and_unknown_acts_are_refused() -> None:
    odd = {"ping": Act("garbage", "\udcff", then=Act("error"))}
    script = replace(named("everything"), on=odd, templates=(template("a:{b}"),))
    assert from_json(script.to_json()) == script
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


async def test_a_process_speaks_only_when_it_is_told_to_or_exits_at_once() -> None:
    async with StdioBackend(named("stuck")) as backend, StdioClient(backend.argv, cwd=backend.cwd) as client:
        hello = await client.begin("initialize", {"protocolVersion": LATEST, "capabilities": {}})
        await backend.wait_for("initialize")
        assert not hello.is_done
        await backend.release("start")
        assert (await hello.reply()).value["protocolVersion"] == LATEST
    banner = Script(banner="Welcome!\n\udcff\n")
    async with StdioBackend(banner) as backend, StdioClient(backend.argv, cwd=backend.cwd) as client:
        await client.connect(LATEST)
        assert client.lines[:2] == [b"Welcome!", b"\xff"]
    script = Script(exit_code=3, stderr="no config\n")
    async with StdioBackend(script) as backend, StdioClient(backend.argv, cwd=backend.cwd) as client:
        assert await client.wait_ended() == 3
        assert (bytes(client.stderr), backend.children) == (b"no config\n", [])


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
