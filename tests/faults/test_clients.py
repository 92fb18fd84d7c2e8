"""Clients by the hundred, clients that leave, clients that only stay: what they cost, they cost themselves."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import replace
from typing import Any

import pytest

from mcp_manifold import Manifold
from tests.contract.offers import offering, offerings
from tests.contract.stand import LATEST, OLDEST, serving
from tests.faults.invariants import enduring
from tests.peers.backend import Act, tool
from tests.peers.clients import MODERN_VERSION, HttpClient, ModernClient
from tests.peers.processes import until
from tests.peers.ways import Way

pytestmark = pytest.mark.anyio

HTTP = Way("http", LATEST)
MODERN = Way("http", MODERN_VERSION)
SSE = Way("sse", OLDEST)
every_way = pytest.mark.parametrize("way", [HTTP, MODERN, SSE], ids=str)
many = pytest.mark.parametrize("number", [40, pytest.param(1000, marks=[pytest.mark.slow, pytest.mark.timeout(300)])])


# --- leaving (R15) ---------------------------------------------------------------------------------------------------


@many
@pytest.mark.parametrize("kind", ["pipe", "web26"])
async def test_r15_a_caller_who_leaves_takes_the_call_along(kind: str, number: int) -> None:
    async with enduring(offerings((kind,))) as stand, stand.client(MODERN) as client:
        for count in range(1, number + 1):
            pending = await client.begin("tools/call", {"name": f"{kind}__hang"})
            await stand[kind].wait_for("tools/call", count=count)
            client.abandon(pending)
            await stand[kind].wait_cancelled(count=count)
        assert (await client.call(f"{kind}__echo", {"text": "on"})).text == "on"


# --- coming and going (R16, R17) -------------------------------------------------------------------------------------


@every_way
async def test_r16_a_crowd_that_comes_and_goes_three_times_leaves_nothing_behind(way: Way) -> None:
    async with enduring(offerings(("pipe", "web26"))) as stand:
        for crowd in range(3):
            async with AsyncExitStack() as stack:
                clients = [await stack.enter_async_context(stand.client(way)) for _ in range(15)]
                for server in ("pipe", "web26"):
                    texts = [f"{server} {crowd} {number}" for number in range(len(clients))]
                    calls = [
                        client.call(f"{server}__echo", {"text": text})
                        for client, text in zip(clients, texts, strict=True)
                    ]
                    assert [reply.text for reply in await asyncio.gather(*calls)] == texts


async def test_r17_sessions_by_the_hundred_leave_nothing_behind() -> None:
    async with enduring(offerings(("web26",))) as stand, HttpClient(f"{await stand.origin()}/mcp") as client:
        for _ in range(150):
            client.session, client.is_connected = None, False
            assert (await client.connect(LATEST)).error is None
            assert await client.delete() == 204
        assert (await client.call("web26__echo")).status == 404
        client.session = None


# --- standing there (R19) --------------------------------------------------------------------------------------------


async def test_r19_streams_over_the_limit_are_refused_with_a_time_to_come_again() -> None:
    limits = {"limits": {"maxStreams": 10}}
    async with enduring(offerings(("web26",)), manifold=limits) as stand, AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(stand.client(HTTP)) for _ in range(15)]
        streams = [await client.open_get_stream() for client in clients]
        assert [stream.status for stream in streams] == [200] * 10 + [503] * 5
        assert [dict(stream.headers).get("retry-after") for stream in streams[10:]] == ["10"] * 5
        assert stand.manifold.asgi_app().front().tally.streams == 10
        for number, client in enumerate(clients):
            assert (await client.call("web26__echo", {"text": str(number)})).text == str(number)
        streams[0].close()
        await until(lambda: streams[0].has_ended, "the end of a stream")

        async def is_let_in() -> bool:
            return bool((await clients[-1].open_get_stream()).status == 200)

        await until(is_let_in, "the server to notice")


# --- moving (R34) ----------------------------------------------------------------------------------------------------


async def test_r34_another_replica_serves_2026_07_28_at_once_and_older_clients_after_a_404() -> None:
    async with enduring(offerings(("web26",))) as stand, AsyncExitStack() as stack:
        first = await stand.origin()
        replica = await stack.enter_async_context(Manifold.from_config(stand.config))
        second = await stack.enter_async_context(serving(replica))
        for origin in (first, second):
            async with ModernClient(f"{origin}/mcp") as modern:
                modern.version = MODERN_VERSION  # nothing is said beforehand
                assert (await modern.call("web26__echo", {"text": origin})).text == origin
        async with HttpClient(f"{first}/mcp") as old, HttpClient(f"{second}/mcp") as moved:
            await old.connect(LATEST)
            moved.session, moved.version, moved.is_connected = old.session, old.version, True
            assert (await moved.call("web26__echo")).status == 404
            moved.session, moved.is_connected = None, False
            await moved.connect(LATEST)
            assert (await moved.call("web26__echo", {"text": "again"})).text == "again"
            assert await moved.delete() == 204
            assert await old.delete() == 204


# --- a lot at once (R37) ---------------------------------------------------------------------------------------------

TEN_MB = 10 * 2**20
LONGEST = 0.5
"""Seconds of processor time one turn of the loop may take; what is measured is a tenth of it."""


@contextmanager
def longest_turn() -> Iterator[list[float]]:
    """The processor time of this thread between two looks for events: the longest, as the only item."""
    selector: Any = asyncio.get_running_loop()._selector  # type: ignore[attr-defined]  # asyncio's own loops have it
    select, longest, since = selector.select, [0.0], [time.thread_time()]

    def timed(timeout: float | None = None) -> Any:
        longest[0] = max(longest[0], time.thread_time() - since[0])
        found = select(timeout)
        since[0] = time.thread_time()
        return found

    selector.select = timed
    try:
        yield longest
    finally:
        del selector.select


@pytest.mark.parametrize("kind", ["pipe", "web26"])
async def test_r37_ten_megabytes_at_once_do_not_hold_up_the_loop(kind: str) -> None:
    script = replace(offering(kind), tools=(tool("big", Act("big", n=TEN_MB)),))
    async with enduring({kind: script}) as stand, stand.client(MODERN) as client:
        url = f"{await stand.origin()}/mcp"
        async with Counting(url) as counting:
            with longest_turn() as longest:
                size = await counting.size_of(f"{kind}__big")
        assert size > TEN_MB
        assert longest[0] < LONGEST
        assert (await client.request("tools/list")).error is None


class Counting(ModernClient):
    """A client that only counts what it gets: taking it apart would hold up this loop more than sending it does."""

    async def size_of(self, name: str) -> int:
        """The bytes of the answer to a call."""
        self.version = MODERN_VERSION
        params = self._stamped(b'{"name":"%b","arguments":{}}' % name.encode(), "tools/call") or b""
        body = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":%b}' % params
        extra = (("Mcp-Method", "tools/call"), ("Mcp-Name", name))
        return len((await self.exchange(body, (*self.headers_for(None), *extra))).body)
