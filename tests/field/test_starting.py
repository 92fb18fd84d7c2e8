"""A call to a server that is starting waits for it up to the call's own timeout, whatever `startupTimeout` is."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from mcp_manifold import Manifold
from mcp_manifold.errors import BackendUnavailable
from tests.contract.stand import LATEST, Stand, standing
from tests.peers import BOUND
from tests.peers.backend import ROOT, Act, Script, StdioBackend, prompt, resource, template, tool
from tests.peers.clients import MODERN_VERSION
from tests.peers.ways import Way

pytestmark = pytest.mark.anyio

IMPATIENT = {"startupTimeout": "1ms", "remember": False}
HELD = Act("hang", "start", then=Act("default"))
SLOW = Script(
    name="pipe",
    era="handshake",
    on={"initialize": HELD},
    tools=(tool("echo"), tool("progress", Act("progress", n=3))),
    prompts=(prompt("greet"),),
    resources=(resource("note://pipe/1"),),
    templates=(template("row://pipe/{id}"),),
)
FRONTS = (Way("http", LATEST), Way("http", MODERN_VERSION), Way("stdio", LATEST), Way("sse", LATEST))
REQUESTS: dict[str, tuple[str, dict[str, Any]]] = {
    "a tool": ("tools/call", {"name": "pipe__echo", "arguments": {"text": "x"}}),
    "progress": ("tools/call", {"name": "pipe__progress", "arguments": {}, "_meta": {"progressToken": 7}}),
    "a prompt": ("prompts/get", {"name": "pipe__greet"}),
    "a resource": ("resources/read", {"uri": "note://pipe/1"}),
    "a template": ("resources/read", {"uri": "row://pipe/5"}),
}


@asynccontextmanager
async def slow(script: Script = SLOW, **entry: Any) -> AsyncIterator[Stand]:
    """A server that is slow to start beside one that never does."""
    never = Script(name="pipe_never", era="handshake", on={"initialize": Act("silent")}, tools=(tool("x"),))
    async with standing({"pipe_never": never, "pipe": script}, manifold=IMPATIENT, pipe=entry) as stand:
        yield stand


async def answered(stand: Stand, way: Way, what: str) -> Any:
    """The reply to a request that was made before the server greeted."""
    method, params = REQUESTS[what]
    async with stand.client(way) as client:
        asked = asyncio.ensure_future(client.request(method, params, timeout=BOUND))
        await stand["pipe"].wait_for("initialize")
        assert not asked.done()
        await stand["pipe"].release("start")
        reply = await asked
        if what == "progress":
            assert sum(each.method == "notifications/progress" for each in client.received) == 3
        return reply


@pytest.mark.parametrize("way", FRONTS, ids=str)
async def test_a_first_call_waits_for_the_first_start(way: Way) -> None:
    async with slow() as stand:
        assert (await answered(stand, way, "a tool")).text == "x"


@pytest.mark.parametrize("what", REQUESTS)
async def test_so_does_every_request_for_an_item(what: str) -> None:
    async with slow() as stand:
        reply = await answered(stand, Way("http", LATEST), what)
        assert reply.error is None, reply


@pytest.mark.parametrize("entry", [{"start": "lazy"}, {"keepAlive": True}, {"prefix": ""}], ids=str)
async def test_so_does_a_call_to_a_server_of_any_life(entry: dict[str, Any]) -> None:
    async with slow(**entry) as stand:
        method, params = REQUESTS["a tool"]
        name = "echo" if "prefix" in entry else "pipe__echo"
        async with stand.client(Way("http", LATEST)) as client:
            asked = asyncio.ensure_future(client.request(method, {**params, "name": name}, timeout=BOUND))
            await stand["pipe"].wait_for("initialize")
            await stand["pipe"].release("start")
            assert (await asked).text == "x"


async def test_so_does_a_call_while_a_known_server_starts_again() -> None:
    script = Script(name="pipe", era="handshake", tools=(tool("echo"), tool("die", Act("die"))))
    async with slow(script) as stand, stand.client(Way("http", LATEST)) as client:
        assert (await client.call("pipe__echo", {"text": "x"})).text == "x"
        await client.call("pipe__die")
        assert (await client.call("pipe__echo", {"text": "y"})).text == "y"


@asynccontextmanager
async def library(tmp_path: Path, **entry: object) -> AsyncIterator[tuple[Manifold, StdioBackend, Path]]:
    async with StdioBackend(SLOW) as backend:
        server = {"command": backend.command, "args": backend.args, "cwd": str(ROOT), **entry}
        config = {"mcpServers": {"pipe": server}, "manifold": IMPATIENT}
        (tmp_path / "mcp.json").write_text(json.dumps(config))
        yield Manifold.from_config(config), backend, tmp_path / "mcp.json"


CALLS: dict[str, Callable[[Manifold], Awaitable[dict[str, Any]]]] = {
    "call_tool": lambda manifold: manifold.call_tool("pipe__echo", {"text": "x"}, on_progress=lambda _: None),
    "get_prompt": lambda manifold: manifold.get_prompt("pipe__greet"),
    "read_resource": lambda manifold: manifold.read_resource("note://pipe/1"),
}


@pytest.mark.parametrize("what", CALLS)
async def test_so_does_the_library(what: str, tmp_path: Path) -> None:
    async with library(tmp_path) as (manifold, backend, _), manifold:
        asked = asyncio.ensure_future(CALLS[what](manifold))
        await backend.wait_for("initialize")
        await backend.release("start")
        assert await asked


@pytest.mark.parametrize(
    "entry",
    [{"timeout": "500ms"}, {"overrides": {"tools": {"echo": {"timeout": "500ms"}}}}, {"maxTimeout": "500ms"}],
    ids=["of the server", "of the tool", "in all"],
)
async def test_it_waits_no_longer_than_its_timeout_and_says_so(entry: dict[str, object], tmp_path: Path) -> None:
    async with library(tmp_path, **entry) as (manifold, _, _path), manifold:
        with pytest.raises(BackendUnavailable, match="pipe: is still connecting"):
            await manifold.call_tool("pipe__echo")


@pytest.mark.parametrize(
    "command", [["call", "pipe__echo"], ["read", "note://pipe/1"], ["prompt", "pipe__greet"]], ids=str
)
async def test_so_do_the_commands(command: list[str], tmp_path: Path) -> None:
    async with library(tmp_path) as (_, backend, config):
        args = [sys.executable, "-m", "mcp_manifold", *command, "-c", str(config)]
        child = await asyncio.create_subprocess_exec(*args, stdout=-1, stderr=-2)
        await backend.wait_for("initialize")
        await backend.release("start")
        async with asyncio.timeout(BOUND):
            out, _ = await child.communicate()
        assert child.returncode == 0, out.decode()
