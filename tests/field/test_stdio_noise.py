"""Noise on a stdio server's stdout: lines that mention an id cost neither a call nor the greeting; text is reported."""

import asyncio
import re
import sys
from typing import Any

import pytest

from mcp_manifold import Manifold
from mcp_manifold.cli.statuses import outcome, remedy
from mcp_manifold.errors import BackendUnavailable
from tests.contract.stand import LATEST, standing
from tests.peers import BOUND
from tests.peers.backend import Act, Script, tool
from tests.peers.ways import Way

pytestmark = pytest.mark.anyio

NOISE = {
    "a logger's line": '{"level":30,"time":1,"id":$ID,"msg":"request received"}',
    "a null error": '{"level":"info","id":$ID,"error":null,"msg":"start"}',
    "an error in words": '{"level":50,"id":$ID,"error":"not found"}',
    "a method": '{"level":30,"id":$ID,"method":"tools/list","msg":"request received"}',
    "a quoted id": 'DEBUG got {"id": $ID, "method": "x"}',
    "a quoted answer": '[debug] -> {"jsonrpc":"2.0","id":$ID,"result":{}}',
    "an array": '[{"id":$ID,"state":"running"}]',
    "an array with an answer": '[{"jsonrpc":"2.0","id":$ID,"result":{}}]',
    "half a request": '{"jsonrpc":"2.0","id":$ID,"method":"tools/',
    "half an answer": '{"jsonrpc":"2.0","id":$ID,"result":{"content":[{"ty',
    "only the id": '{"jsonrpc":"2.0","id":$ID}',
    "not UTF-8": "caf\udce9 $ID",
    "ruby": 'Started POST "/" {"id"=>$ID}',
}
ECHOES = {
    method: Act("garbage", f'{{"jsonrpc":"2.0","id":$ID,"method":"{method}","params":{{}}}}', then=Act("default"))
    for method in ("initialize", "tools/list")
}


@pytest.mark.parametrize("era", ["handshake", "modern"])
async def test_lines_that_mention_an_id_cost_neither_a_call_nor_the_greeting(era: Any) -> None:
    every = Act("garbage", "\n".join(NOISE.values()), then=Act("default"))
    on = dict.fromkeys(("initialize", "server/discover", "tools/list", "ping"), every)
    tools = tuple(tool(f"t{number}", Act("garbage", line)) for number, line in enumerate(NOISE.values()))
    script = Script(name="pipe", era=era, on=on, tools=tools)
    async with standing({"pipe": script}, pipe={"era": era}) as stand, stand.client(Way("http", LATEST)) as client:
        for number, what in enumerate(NOISE):
            assert (await client.call(f"pipe__t{number}", {"text": what})).text == what
        assert len(stand["pipe"].children) == 1


async def test_the_echo_of_a_request_is_not_answered() -> None:
    script = Script(name="pipe", era="handshake", on=ECHOES, tools=(tool("echo"),))
    async with standing({"pipe": script}) as stand, stand.client(Way("http", LATEST)) as client:
        assert (await client.call("pipe__echo", {"text": "fine"})).text == "fine"
        assert stand["pipe"].recorder.of("response") == []


def printing(program: str, **entry: object) -> Manifold:
    """A manifold of one server, a Python program."""
    server = {"command": sys.executable, "args": ["-c", program], "timeout": "2s", **entry}
    return Manifold.from_config({"mcpServers": {"web": server}, "manifold": {"remember": False}})


async def failed(manifold: Manifold) -> str:
    """Why the server failed, once it has."""
    moved = asyncio.Event()
    manifold.on_status(lambda _: moved.set())
    async with asyncio.timeout(BOUND):
        while (status := manifold.status()[0]).state != "backing off":
            moved.clear()
            await moved.wait()
    return status.last_error


TALKS = "print('\x1b[31mServing HTTP on port 8000'); print('x' * 500, flush=True); __import__('sys').stdin.read()"
WORDS = "invalid output on stdout: [31mServing HTTP on port 8000"


async def test_a_program_that_prints_text_is_reported_with_the_line_while_it_starts() -> None:
    async with printing(TALKS) as manifold:
        with pytest.raises(BackendUnavailable, match=re.escape(WORDS)):
            await manifold.call_tool("web__any")
        assert manifold.status()[0].last_error == WORDS
        assert outcome(manifold.status()[0]) == f"web: not connected yet ({WORDS})"
        assert "must speak MCP on stdout" in remedy(manifold.status()[0])


async def test_a_program_that_prints_text_is_reported_with_the_line_once_it_has_not_greeted() -> None:
    async with printing(TALKS, initializeTimeout="1s") as manifold:
        assert await failed(manifold) == f"{WORDS} (no answer within 1 s)"


async def test_a_program_that_prints_its_usage_and_exits_is_reported_with_the_line() -> None:
    async with printing("print('usage: tool [-h] FILE'); exit(2)") as manifold:
        words = "invalid output on stdout: usage: tool [-h] FILE (the server exited with status 2)"
        assert await failed(manifold) == words


async def test_what_is_shown_of_a_long_line_is_bounded() -> None:
    async with printing("print('y' * 100_000); exit(2)") as manifold:
        assert "invalid output on stdout: yyyy" in await failed(manifold)
        assert len(manifold.status()[0].last_error) < 300


async def test_a_prompt_that_waits_for_an_answer_is_reported() -> None:
    async with printing("input('Password: '); __import__('sys').stdin.read()") as manifold:
        with pytest.raises(BackendUnavailable, match="invalid output on stdout: Password:"):
            await manifold.call_tool("web__any")
