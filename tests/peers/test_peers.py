"""The scripted peers themselves, where a mistake in them could hide one of the product, of which they know nothing."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from tests.peers import faithful, jsontext
from tests.peers.backend import Act, HttpBackend, Script, SseBackend, StdioBackend, named, template, tool
from tests.peers.clients import (
    LATEST_HANDSHAKE,
    MODERN_VERSION,
    Client,
    HttpClient,
    ModernClient,
    SseClient,
    StdioClient,
)
from tests.peers.script import from_json
from tests.peers.ways import Way

pytestmark = pytest.mark.anyio

HANDSHAKE_STDIO = Way("stdio", LATEST_HANDSHAKE)
WAYS = (HANDSHAKE_STDIO, Way("json", LATEST_HANDSHAKE), Way("sse", MODERN_VERSION), Way("legacy", "2024-11-05"))
"""A way of writing each: lines, JSON bodies, event streams, one stream for all."""


@asynccontextmanager
async def talking(way: Way, script: Script) -> AsyncIterator[Client]:
    """A client of a backend, connected."""
    if way.transport == "stdio":
        async with StdioBackend(script) as child, StdioClient(child.argv, cwd=child.cwd) as client:
            await client.connect(way.version)
            yield client
    elif way.transport == "legacy":
        async with SseBackend(script) as server, SseClient(server.url) as legacy:
            await legacy.connect(way.version)
            yield legacy
    else:
        scripted = replace(script, replies=way.transport)  # type: ignore[arg-type]  # one of the literals
        kind = ModernClient if way.version == MODERN_VERSION else HttpClient
        async with HttpBackend(scripted) as backend, kind(backend.url) as other:
            await other.connect(way.version)
            yield other


@pytest.mark.parametrize("way", WAYS, ids=str)
async def test_odd_payloads_and_arguments_pass_byte_for_byte(way: Way) -> None:
    async with talking(way, faithful.script()) as client:
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


MISSHAPEN = {
    "string_id": b'"id":"7"',
    "float_id": b'"id":7.0',
    "list_result": b'"id":7,"result":[]}',
    "null_id": b'"id":null,"error"',
    "null_result": b'"id":7,"result":null}',
    "no_result": b'{"jsonrpc":"2.0","id":7}',
}


async def test_misshapen_replies_are_sent_as_scripted() -> None:
    async with talking(HANDSHAKE_STDIO, Script(tools=tuple(tool(name, Act(name)) for name in MISSHAPEN))) as client:
        for name, sent in MISSHAPEN.items():
            await client.begin("tools/call", {"name": name}, id=7)
            found = await client.wait_for(lambda each, sent=sent: sent in each.raw)  # type: ignore[misc]
            assert found.raw.startswith(b"{")


def test_a_script_survives_its_trip_over_a_command_line_and_unknown_acts_are_refused() -> None:
    odd = {"ping": Act("garbage", "\udcff", then=Act("error"))}
    script = replace(named("everything"), on=odd, templates=(template("a:{b}"),))
    assert from_json(script.to_json()) == script
    with pytest.raises(ValueError, match="no act is called 'fly'"):
        HttpBackend(Script(tools=(tool("t", Act("progress", then=Act("fly"))),)))


async def test_a_stubborn_process_survives_stdin_and_sigterm_but_not_its_test() -> None:
    async with StdioBackend(named("stubborn")) as backend, StdioClient(backend.argv, cwd=backend.cwd) as client:
        await client.connect()
        client.process.terminate()
        client.close_stdin()
        await backend.wait_for(lambda item: item.kind == "closed")
        await backend.announce("still/here")
        await client.wait_for("still/here")
        client.kill()
        await backend.wait_all_gone()


def test_json_is_sliced_whatever_it_holds() -> None:
    odd = b' { "a" : [1e999 , "]}\\"" ,{}],"b":\t"\\ud800","a":NaN, "c":' + b"[" * 9999 + b"]" * 9999 + b"} "
    assert jsontext.member(odd, "a") == b"NaN"
    assert [key for key, _ in jsontext.walk(odd)] == ["a", "b", "a", "c"]
    assert jsontext.elements(jsontext.walk(odd)[0][1]) == [b"1e999", b'"]}\\""', b"{}"]
    assert jsontext.with_value(b'{"x":{},"m":{},"z":1}', "m", b"[]") == b'{"x":{},"m":[],"z":1}'
    for broken in (b"[]", b"{", b'{"a"}', b'{"a":1 "b":2}', b'{"a":}', b'{"a":[}'):
        with pytest.raises(ValueError, match=r"."):
            jsontext.walk(broken)
