"""The invariants that hold during and after every fault.

I1  isolation: calls at a server that the fault does not touch succeed
I2  no leak: descriptors, threads, tasks and children return to their former count
I3  no defect of ours: no error in the log, no traceback, no exception that was never retrieved
I4  no busy loop: the event loop sleeps afterwards
I5  correlation: each call gets the answer to its own text

Times are not asserted here; `scripts/soak` measures them. The fixture of `conftest.py` asserts I3 for this process.
"""

import asyncio
import itertools
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final, Protocol

from tests.contract.offers import offering
from tests.contract.stand import Stand, standing, until_well
from tests.peers import BOUND
from tests.peers.backend import Script
from tests.peers.clients import MODERN_VERSION, Client, Reply
from tests.peers.processes import Holdings, holdings, until
from tests.peers.ways import Way

BYSTANDER: Final = "web26_by"
"""The server that no fault touches. It has no session of its own, so that what is counted is the fault's."""
AT_ONCE: Final = 2
"""Calls in flight at it at any time."""
PACE: Final = 0.01
"""Seconds between two of them: a load that leaves the processor to the rest."""
SLACK: Final = 8
"""Connections kept for the next request, with their tasks: fewer than any fault here has victims."""
WINDOW: Final = 0.1
"""Seconds the loop is watched for."""
TURNS: Final = 60
"""Turns of a loop in such a window that are still rest; one that spins makes thousands."""


class Watched(Protocol):
    """A process that runs a manifold: this one, or another."""

    async def holds(self) -> Holdings:
        """What it holds now."""

    async def rests(self) -> bool:
        """Whether it is idle for a while."""

    def stumbled(self) -> list[str]:
        """Lines of its log that tell of a fault of its own."""


class OwnProcess:
    """The process of the tests itself."""

    async def holds(self) -> Holdings:
        """What it holds now."""
        return holdings()

    async def rests(self) -> bool:
        """Whether its loop sleeps, counted by its select calls."""
        selector: Any = asyncio.get_running_loop()._selector  # type: ignore[attr-defined]  # asyncio's own loops have it
        select, turns = selector.select, itertools.count()

        def counted(timeout: float | None = None) -> Any:
            next(turns)
            return select(timeout)

        selector.select = counted
        try:
            await asyncio.sleep(WINDOW)  # in which nothing should happen: there is no event to wait for
        finally:
            del selector.select
        return next(turns) <= TURNS

    def stumbled(self) -> list[str]:
        """Asserted by the fixture of `conftest.py` instead."""
        return []


class Bystanders:
    """Repeated calls of tools that the fault does not touch, each call with a text of its own."""

    def __init__(self, client: Client, tools: Sequence[str], at_once: int) -> None:
        self.failed: list[Reply | str] = []
        self.done = 0
        self._client = client
        self._tools = tools
        self._is_over = False
        self._more = asyncio.Event()
        pairs = itertools.product(tools, range(at_once))
        self._tasks = [asyncio.create_task(self._call(tool, n), name=f"bystander {n}") for tool, n in pairs]

    def __repr__(self) -> str:
        return f"<Bystanders at {self._tools} done={self.done} failed={len(self.failed)}>"

    async def _call(self, tool: str, number: int) -> None:
        for count in itertools.count():
            if self._is_over:
                return
            text = f"{tool} {number} {count}"
            reply = await self._client.call(tool, {"text": text})
            if reply.error is not None or reply.text != text:
                self.failed.append(reply)
            self.done += 1
            self._more.set()
            await asyncio.sleep(PACE)

    async def go_on(self) -> None:
        """Wait until each of them did at least one more call from beginning to end."""
        wanted = self.done + 2 * len(self._tasks)
        async with asyncio.timeout(BOUND):
            while self.done < wanted:
                self._more.clear()
                await self._more.wait()

    async def end(self) -> None:
        """Stop calling."""
        self._is_over = True
        async with asyncio.timeout(BOUND):
            await asyncio.gather(*self._tasks)


@asynccontextmanager
async def unharmed(watched: Watched, client: Client, *tools: str, at_once: int = AT_ONCE) -> AsyncIterator[Bystanders]:
    """The fault happens inside; after it, I1 to I5 are asserted.

    Args:
        client: makes the calls meanwhile.
        tools: echo tools of servers that the fault does not touch; the bystander's if none is named.
        at_once: calls in flight at each of them.
    """
    bystanders = Bystanders(client, tools or (f"{BYSTANDER}__echo",), at_once)
    try:
        await bystanders.go_on()
        before = await watched.holds()
        yield bystanders
        await bystanders.go_on()
    finally:
        await bystanders.end()
    assert bystanders.failed == [], "I1, I5"
    await _until_as_before(watched, before)
    await _until_at_rest(watched)
    assert watched.stumbled() == [], "I3"


async def _until_as_before(watched: Watched, before: Holdings) -> None:
    deadline = asyncio.get_running_loop().time() + BOUND
    while (now := await watched.holds()).grew_beyond(before, by=SLACK):
        assert asyncio.get_running_loop().time() < deadline, f"I2: there were {before}, there are {now}"
        await asyncio.sleep(0.1)  # nothing announces the end of what ends in another process


async def _until_at_rest(watched: Watched) -> None:
    for _ in range(200):
        if await watched.rests():
            return
    raise AssertionError("I4: it never comes to rest")


@asynccontextmanager
async def enduring(
    scripts: Mapping[str, Script],
    *,
    manifold: Mapping[str, Any] | None = None,
    more: Mapping[str, Any] | None = None,
    **servers: Mapping[str, Any],
) -> AsyncIterator[Stand]:
    """`standing`, with a bystander beside these servers; asserts the invariants at the end.

    Args:
        more: entries of servers that are not scripted.
    """
    before = holdings()
    everyone = {**scripts, BYSTANDER: offering(BYSTANDER)}
    async with AsyncExitStack() as stack:
        stand = await stack.enter_async_context(standing(everyone, manifold=manifold, **servers))
        stand.config["mcpServers"] |= more or {}
        stand.takes_leave = True  # so that what is left when they are gone is the fault's
        async with stand.client(Way("http", MODERN_VERSION)) as client:
            await until_well(client, f"{BYSTANDER}__echo")
            async with unharmed(OwnProcess(), client):
                yield stand
    await until(lambda: not holdings().grew_beyond(before), f"what there was before: {before}")
