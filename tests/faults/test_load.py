"""Too much of something: each costs its own cause an honest error, and nobody else anything."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.contract.offers import offerings
from tests.contract.stand import LATEST, Stand, entry_of, standing
from tests.faults.invariants import enduring
from tests.peers import BOUND
from tests.peers.backend import Act, HttpBackend, Script, tool
from tests.peers.clients import MODERN_VERSION, Client, HttpClient, PendingRequest
from tests.peers.http_caller import Response
from tests.peers.processes import until
from tests.peers.program import Program, config_in, connected, serving
from tests.peers.ways import Way

pytestmark = pytest.mark.anyio

HTTP = Way("http", LATEST)
MODERN = Way("http", MODERN_VERSION)


async def begin(client: Client, tool: str, count: int, text: str = "") -> list[PendingRequest]:
    """So many calls, the second only after the first was sent, and so on; the texts are numbered."""
    names = [{"name": tool, "arguments": {"text": f"{text}{number}"}} for number in range(count)]
    return [await client.begin("tools/call", name) for name in names]


def texts(stand: Stand, server: str) -> list[str]:
    """What the calls that reached a server said, in order."""
    return [json.loads(each.params)["arguments"]["text"] for each in stand[server].calls("tools/call")]


# --- a backend with more calls than it takes (R20) -----------------------------------------------------------------


@pytest.mark.parametrize("kind", ["pipe", "web", "web26"])
async def test_r20_more_calls_than_it_takes_wait_and_then_are_refused_at_once(kind: str) -> None:
    limits = {kind: {"maxConcurrency": 1, "maxQueue": 50}}
    async with enduring(offerings((kind, "stream")), **limits) as stand, stand.client(HTTP) as client:
        calls = await begin(client, f"{kind}__hang", 200)
        replies = [asyncio.create_task(each.reply()) for each in calls]
        refused: list[dict[str, Any]] = []
        for done in asyncio.as_completed(replies):
            refused.append(json.loads((await done).error or b"null"))
            if len(refused) == 149:  # all but the one in flight and the fifty that wait
                break
        assert {(each["code"], each["data"]["reason"], each["data"]["server"]) for each in refused} == {
            (-32603, "BackendOverloaded", kind)
        }
        assert "overloaded" in refused[0]["message"]
        assert (await client.call("stream__echo", {"text": "unharmed"})).text == "unharmed"
        assert len(stand[kind].calls("tools/call")) == 1
        await stand[kind].release()
        served = [reply for reply in await asyncio.gather(*replies) if reply.error is None]
        assert len(served) == 51
        assert len(stand[kind].calls("tools/call")) == 51


async def test_r20_who_floods_a_backend_does_not_starve_another_client() -> None:
    limits = {"web": {"maxConcurrency": 1, "maxQueue": 20}}
    async with (
        enduring(offerings(("web",)), **limits) as stand,
        stand.client(HTTP) as flooding,
        stand.client(HTTP) as other,
    ):
        flood = await begin(flooding, "web__hang", 60, "flood ")
        for refused in flood[21:]:
            assert b"BackendOverloaded" in ((await refused.reply()).error or b"")
        mine = await begin(other, "web__echo", 2, "mine ")
        for displaced in flood[19:21]:
            assert b"displaced" in ((await displaced.reply()).error or b"")
        await stand["web"].release()
        assert [(await each.reply()).text for each in mine] == ["mine 0", "mine 1"]
        assert [(await each.reply()).text for each in flood[:19]] == [f"flood {number}" for number in range(19)]
        order = texts(stand, "web")
        assert order[:5] == ["flood 0", "flood 1", "mine 0", "flood 2", "mine 1"]


# --- deadlines (R2) ------------------------------------------------------------------------------------------------


# --- large answers (R22), slow readers (R18) ----------------------------------------------------

MIB = 1 << 20
BIG = 4 * MIB


async def until_buffered(program: Program, met: Callable[[float], bool]) -> None:
    """Poll until the program reports that it holds this many bytes of large messages."""

    async def is_met() -> bool:
        return met((await program.metrics())["mcp_proxy_buffered_bytes"])

    await until(is_met, "the buffered bytes")


def peak(program: Program) -> int:
    """The largest memory the program ever had, in bytes."""
    status = Path(f"/proc/{program.process.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


@asynccontextmanager
async def heavy(directory: Path, size: int, buffered: str) -> AsyncIterator[tuple[Program, HttpClient]]:
    """A program with a client, over a server whose tool `big` answers with `size` bytes."""
    script = Script(name="heavy", era="handshake", replies="json", tools=(tool("big", Act("big", n=size)),))
    async with HttpBackend(script) as backend:
        entry = {**entry_of(backend), "breaker": {"failures": 1}}  # which never opens
        config = config_in(directory, {"heavy": entry}, limits={"maxBuffered": buffered})
        async with serving(config) as program, await connected(program) as client:
            yield program, client


async def begun(client: HttpClient, number: int) -> Response:
    """A call of `big` whose answer is not read."""
    body = b'{"jsonrpc":"2.0","id":%d,"method":"tools/call","params":{"name":"heavy__big"}}' % number
    return await client.caller.send("POST", client.headers_for(None), body)


async def called(client: HttpClient, number: int) -> tuple[int, bytes]:
    """The size of the answer to a call of `big`, and its end."""
    async with await begun(client, number) as response:
        body = await response.body.all()
        return len(body), body[-1000:]


async def test_r22_many_large_answers_at_once_are_shed_and_memory_is_bounded(tmp_path: Path) -> None:
    async with heavy(tmp_path, BIG, "13MiB") as (program, client):
        before = peak(program)
        answers = await asyncio.gather(*(called(client, number) for number in range(1, 101)))
        assert [size for size, _ in answers if size > BIG]
        shed = [end for size, end in answers if size <= BIG]
        assert shed
        assert [end for end in shed if b'"AnswerDropped"' not in end or b'"server":"heavy"' not in end] == []
        assert peak(program) - before < 80 * MIB
        size, end = await called(client, 101)
        assert size > BIG, end
        assert (await program.metrics())["mcp_proxy_buffer_refusals_total"] > 0


async def test_r18_who_does_not_read_a_large_answer_costs_only_its_room(tmp_path: Path) -> None:
    async with heavy(tmp_path, 5 * BIG, "100MiB") as (program, client):
        async with await begun(client, 1) as stalled:
            stalled.wire.pause()
            await until_buffered(program, lambda held: held > 3 * BIG)  # the rest is in the sockets
            size, end = await called(client, 2)
            assert size > 5 * BIG, end
            assert peak(program) < 250 * MIB
        await client.delete()  # a slow answer became a stream, which stays resumable until its session ends
        await until_buffered(program, lambda held: held == 0)


# --- floods of notifications (R28) ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["pipe", "web", "stream"])
async def test_r28_a_flood_of_progress_is_cut_and_the_call_goes_on(kind: str) -> None:
    script = Script(name=kind, era="handshake", tools=(tool("flood", Act("progress", n=3000)), tool("echo")))
    limits = {"limits": {"maxNotifications": 100}}
    async with enduring({kind: script}, manifold=limits) as stand, stand.client(HTTP) as client:
        params = {"name": f"{kind}__flood", "arguments": {}, "_meta": {"progressToken": 7}}
        heard: list[bytes] = []
        reply = await client.request("tools/call", params, on_notification=heard.append)
        assert reply.error is None
        assert 0 < len(heard) < 3000
        status = stand.manifold.status()[0]
        assert status.dropped == 3000 - len(heard)
        assert (await client.call(f"{kind}__echo", {"text": "next"})).text == "next"


async def test_r28_a_client_that_floods_notifications_is_heard_up_to_a_limit() -> None:
    limits = {"limits": {"maxNotifications": 5}}
    async with enduring(offerings(("web",)), manifold=limits) as stand, stand.client(HTTP) as client:
        for _ in range(40):
            await client.notify("notifications/roots/list_changed")
        assert stand.manifold.asgi_app().front().tally.dropped_notes > 0
        assert (await client.call("web__echo", {"text": "on"})).text == "on"


async def test_r10_a_call_that_never_arrived_is_sent_once_more_and_no_more() -> None:
    async with enduring(offerings(("web26",))) as stand, stand.client(MODERN) as client:
        await stand["web26"].refuse()
        while b"BackendLost" in ((await client.call("web26__echo")).error or b""):
            pass  # a connection it left behind, of which nobody knew yet that it is dead
        before = stand.manifold.status()[0].retries
        assert b"BackendUnavailable" in ((await client.call("web26__echo")).error or b"")
        assert stand.manifold.status()[0].retries - before <= 1


async def test_r21_more_connections_than_allowed_are_refused_in_words_and_the_others_go_on() -> None:
    limits = {"limits": {"maxConnections": 3}}
    async with standing(offerings(("web",)), manifold=limits) as stand, stand.client(HTTP) as client:
        port = int((await stand.origin()).rpartition(":")[2])
        request = f"GET /_healthz HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode()
        crowd = [await asyncio.open_connection("127.0.0.1", port) for _ in range(6)]
        for _, writer in crowd:
            writer.write(request)
        heads = [await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), BOUND) for reader, _ in crowd]
        assert sum(head.startswith(b"HTTP/1.1 200") for head in heads) in (2, 3)
        refused = [head for head in heads if head.startswith(b"HTTP/1.1 503")]
        assert len(refused) >= 3
        assert all(b"retry-after: 10" in head.lower() for head in refused)
        for _, writer in crowd:
            writer.close()

        async def is_let_in() -> bool:
            return bool((await client.request("ping")).status == 200)

        await until(is_let_in, "a free connection")
