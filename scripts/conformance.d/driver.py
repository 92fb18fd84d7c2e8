"""Owns one conversation through a manifold with the suite's mock server; judges nothing, the mock does.

Usage: driver.py {inside,handshake,modern} URL. The mock is the only server of a manifold made in this process. It is
asked as a library (inside), or over its HTTP front by a client of either era that answers what it is asked. Whatever
fails on the way is a line on stdout and exit code 1. The suite says the rest in MCP_CONFORMANCE_* variables.
"""

import asyncio
import contextlib
import json
import os
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import mcp_types as types
import uvicorn
from mcp.client import Client
from mcp.client.context import ClientRequestContext

from mcp_manifold import Manifold

Object = Mapping[str, Any]
MODES = {"handshake": "legacy", "modern": "2026-07-28"}
STEP_SECONDS = 20.0  # for each call, so that what hung is named
WHOLE_SECONDS = 25.0  # below the suite's own 30 s for a scenario, which ends the driver without a word
PLAUSIBLE: Object = {"string": "word", "integer": 5, "number": 2.5, "boolean": True, "array": [], "object": {}}
ONLY_LISTED = ("json-schema-ref-no-deref",)  # whose mock answers no calls
FOCAL, ECHO = "json_schema_2020_12_tool", "json_schema_echo"


@dataclass(frozen=True, slots=True)
class Offered:
    """What the mock offers through the manifold: tools with their schemas, URIs, prompts."""

    schemas: Mapping[str, Object]
    uris: tuple[str, ...]
    prompts: tuple[Object, ...]


class ManifoldCaller(Protocol):
    """A way to ask the manifold."""

    async def offer(self) -> Offered: ...
    async def call_tool(self, name: str, arguments: dict[str, Any]) -> object: ...
    async def read_resource(self, uri: str) -> object: ...
    async def get_prompt(self, name: str, arguments: dict[str, str]) -> object: ...


class Inside:
    """The manifold as a library."""

    def __init__(self, manifold: Manifold) -> None:
        self._manifold = manifold
        self.call_tool = manifold.call_tool
        self.read_resource = manifold.read_resource
        self.get_prompt = manifold.get_prompt

    async def offer(self) -> Offered:
        tools, prompts = await self._manifold.list_tools(), await self._manifold.list_prompts()
        uris = tuple(r["uri"] for r in await self._manifold.list_resources())
        return Offered({t["name"]: t["inputSchema"] for t in tools}, uris, tuple(prompts))


class Outside:
    """A client of the manifold's HTTP front. It asks only for what the manifold declares."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.call_tool = client.call_tool
        self.read_resource = client.read_resource
        self.get_prompt = client.get_prompt

    async def offer(self) -> Offered:
        tools = (await self._client.list_tools()).tools
        resources = (await self._client.list_resources()).resources
        prompts = (await self._client.list_prompts()).prompts
        return Offered(
            {t.name: t.input_schema for t in tools},
            tuple(str(r.uri) for r in resources),
            tuple(p.model_dump(by_alias=True, exclude_none=True) for p in prompts),
        )


def filled(schema: Object, *, whole: bool = False) -> dict[str, Any]:
    """Plausible values for what a schema requires (or, if `whole`, for everything it names); defaults go first."""
    named: Mapping[str, Object] = schema.get("properties") or {}
    wanted = named if whole else [n for n in schema.get("required") or () if n in named]
    return {name: _value(named[name]) for name in wanted}


def _value(schema: Object) -> Any:
    if "default" in schema:
        return schema["default"]
    return schema["enum"][0] if schema.get("enum") else PLAUSIBLE.get(str(schema.get("type")), "word")


async def on_elicitation(context: ClientRequestContext, params: types.ElicitRequestParams) -> types.ElicitResult:
    if isinstance(params, types.ElicitRequestFormParams):
        return types.ElicitResult(action="accept", content=filled(params.requested_schema, whole=True))
    return types.ElicitResult(action="accept")


async def on_sampling(context: ClientRequestContext, params: object) -> types.CreateMessageResult:
    return types.CreateMessageResult(role="assistant", content=types.TextContent(text="A word"), model="fixed")


async def on_roots(context: ClientRequestContext) -> types.ListRootsResult:
    return types.ListRootsResult(roots=[])


@contextlib.asynccontextmanager
async def caller(manifold: Manifold, way: str) -> AsyncIterator[ManifoldCaller]:
    if way == "inside":
        yield Inside(manifold)
        return
    async with _serving(manifold) as url, _client(url, way) as client:
        yield Outside(client)


def _client(url: str, way: str) -> Client:
    asked = {"elicitation_callback": on_elicitation, "sampling_callback": on_sampling, "list_roots_callback": on_roots}
    return Client(url, mode=MODES[way], **asked)


@contextlib.asynccontextmanager
async def _serving(manifold: Manifold) -> AsyncIterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(manifold.asgi_app(), lifespan="off", log_level="error", timeout_graceful_shutdown=1)
        server = uvicorn.Server(config)
        served = asyncio.create_task(server.serve([listener]))
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/mcp"
        finally:
            server.should_exit = True
            await served


def planned(offer: Offered) -> list[tuple[str, dict[str, Any]]]:
    """The tool calls of the scenario: those the suite dictates, else one of every tool that is offered."""
    context = json.loads(os.environ.get("MCP_CONFORMANCE_CONTEXT") or "{}")
    if dictated := context.get("toolCalls"):
        return [(call["name"], call["arguments"]) for call in dictated]
    if os.environ.get("MCP_CONFORMANCE_SCENARIO") in ONLY_LISTED:
        return []
    calls = [(name, filled(schema)) for name, schema in offer.schemas.items() if name != ECHO]
    if ECHO in offer.schemas:
        calls.append((ECHO, {"schema": offer.schemas.get(FOCAL, {})}))
    return calls


async def converse(asked: ManifoldCaller) -> list[str]:
    """Use everything that is offered, the tools all at once; returns what failed."""
    offer = await asked.offer()
    steps: list[tuple[str, Awaitable[object]]] = [
        (f"call of {name}", asked.call_tool(name, arguments)) for name, arguments in planned(offer)
    ]
    steps += [(f"read of {uri}", asked.read_resource(uri)) for uri in offer.uris]
    for prompt in offer.prompts:
        arguments = {a["name"]: "word" for a in prompt.get("arguments") or ()}
        steps.append((f"prompt {prompt['name']}", asked.get_prompt(prompt["name"], arguments)))
    results = await asyncio.gather(*(asyncio.wait_for(step, STEP_SECONDS) for _, step in steps), return_exceptions=True)
    return failures(zip((what for what, _ in steps), results, strict=True))


def failures(outcomes: Iterable[tuple[str, object]]) -> list[str]:
    return [f"{what}: {type(e).__name__}: {e}" for what, e in outcomes if isinstance(e, BaseException)]


async def drive(way: str, url: str) -> list[str]:
    try:
        async with asyncio.timeout(WHOLE_SECONDS):
            return await _driven(way, url)
    except Exception as error:  # noqa: BLE001 - whatever it is, the suite would not say that it was there
        return failures([("the conversation", error)])


async def _driven(way: str, url: str) -> list[str]:
    servers = {"mock": {"type": "http", "url": url, "prefix": ""}}
    async with Manifold.from_config({"mcpServers": servers}) as manifold:
        await manifold.settle()
        async with caller(manifold, way) as asked:
            failed = await converse(asked)
        return [*failed, *(f"{s.name} is {s.state}: {s.last_error}" for s in manifold.status() if s.state != "ready")]


def main(way: str, url: str) -> int:
    with tempfile.TemporaryDirectory() as scratch:  # where nothing remembered from another run is found
        os.environ |= {"XDG_CACHE_HOME": scratch, "XDG_STATE_HOME": scratch}
        failed = asyncio.run(drive(way, url))
    print("\n".join(failed), end="")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
