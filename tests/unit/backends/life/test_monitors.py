"""The probe of an open link: sent only when the link is silent, and reported after three missing answers."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from mcp_manifold.backends.life.monitors import SILENCES, Probe
from mcp_manifold.backends.link.pending import PendingRequest
from mcp_manifold.clock import LoopClock
from mcp_manifold.errors import BackendLost, RemoteError
from mcp_manifold.model.lifecycle import State
from mcp_manifold.wire import Payload
from tests.fakes.news import News
from tests.peers.backend import HttpBackend, Script, StdioBackend, tool
from tests.unit.backends.linking import connected, within
from tests.unit.backends.running import over_stdio, over_web, running

pytestmark = pytest.mark.anyio

SOON = 0.02


class Probed:
    """A probe at work on a fake backend whose mood a test changes."""

    def __init__(self, *, modern: bool = False) -> None:
        self.says: bytes | None = b'"result":{}'
        self.mute = ""
        """The method that is never answered."""
        self.told: list[str] = []
        self._news = News()
        self.link, self.transport = connected(self._answer)
        if modern:
            self.link.stamp({})
        self.probe = Probe(
            self.link, LoopClock(), every=SOON, on_silence=self._tell, on_answer=lambda: self._tell("answered")
        )

    def __repr__(self) -> str:
        return f"<Probed {self.probe!r} told={self.told}>"

    def _answer(self, pending: PendingRequest) -> bytes | None:
        return None if pending.method == self.mute else self.says

    def _tell(self, what: str) -> None:
        self.told.append(what)
        self._news.tell()

    async def until_told(self, count: int) -> None:
        await self._news.until(lambda: len(self.told) >= count)


@asynccontextmanager
async def probed(*, modern: bool = False) -> AsyncIterator[Probed]:
    found = Probed(modern=modern)
    task = asyncio.ensure_future(found.probe.run())
    try:
        yield found
    finally:
        found.link.lost(BackendLost("notes", "over"))
        await within(task)


@pytest.mark.parametrize("odd", [b'"result":null', b'"result":[]', b'"result":"pong"', b'"result":true', b'"error":{}'])
async def test_a_ping_answered_with_anything_is_answered(odd: bytes) -> None:
    async with probed() as found:
        found.says = odd
        await found.transport.sent(SILENCES + 1)
        assert found.told == []


async def test_a_server_that_answers_no_ping_is_asked_for_its_tools() -> None:
    async with probed() as found:
        found.link.adopt("2025-06-18", Payload(b'{"tools":{}}'))
        found.mute = "ping"
        await found.transport.sent(2 * SILENCES)
        assert found.told == []
        found.mute = ""
        await found.transport.sent(2 * SILENCES + 2)
        found.says = None
        await found.until_told(1)
        assert found.transport.methods[-2:] == ["ping", "ping"]


@pytest.mark.parametrize(("modern", "method"), [(False, "ping"), (True, "server/discover")])
async def test_a_silent_link_is_probed_with_its_eras_method_and_any_answer_counts(modern: bool, method: str) -> None:
    async with probed(modern=modern) as found:
        await found.transport.sent(3)
        found.says = b'"error":{"code":-32601,"message":"Method not found"}'
        await found.transport.sent(SILENCES + 5)
        assert set(found.transport.methods) == {method}
        assert found.told == []


async def test_three_missing_answers_are_reported_once_and_then_the_next_answer() -> None:
    async with probed() as found:
        found.says = None
        await found.until_told(1)
        await found.transport.sent(SILENCES + 2)
        found.says = b'"result":{}'
        await found.until_told(2)
        assert found.told == ["no answer to 3 probes, the last after 0.02 s", "answered"]


async def test_any_answer_ends_the_silence_and_spares_the_probe() -> None:
    async with probed() as found:
        found.says = None
        await found.until_told(1)
        found.says = b'"result":{}'
        before = found.transport.methods.count("ping")
        await within(found.link.request("tools/list", {}, timeout=5))
        await found.until_told(2)
        asked = found.transport.methods[: found.transport.methods.index("tools/list") + 1].count("ping")
        assert (found.told[-1], asked) == ("answered", before)


async def test_a_link_that_ends_is_not_reported_as_silent() -> None:
    async with probed() as found:
        found.says = None
        await found.transport.sent()
    assert found.told == []


async def test_a_link_measures_the_latency_of_its_last_result_and_when_it_was_heard() -> None:
    found = Probed()
    assert (found.link.latency, found.link.heard, found.link.due) == (None, 0.0, 0)
    found.says = b'"error":{"code":1,"message":"no"}'
    with pytest.raises(RemoteError, match="error 1"):
        await within(found.link.request("ping", {}, timeout=5))
    assert found.link.latency is None
    assert found.link.heard > 0
    found.says = None
    waiting = found.link.begin("ping", {}, timeout=5)
    assert found.link.due == 1
    found.link.fed(b'{"jsonrpc":"2.0","id":%d,"result":{}}' % waiting.number)
    assert bytes(await within(waiting.future)) == b"{}"
    assert found.link.due == 0
    assert found.link.latency is not None


# --- in a backend ---------------------------------------------------------------------------------------------------

SCRIPT = Script(era="handshake", tools=(tool("echo"),))


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="needs a way to stop a process for a while")
async def test_a_stopped_process_is_degraded_and_recovers_by_itself() -> None:
    async with StdioBackend(SCRIPT) as server, running(over_stdio(server, ping_interval=SOON)) as run:
        await run.listed()
        (pid,) = server.pids
        os.kill(pid, signal.SIGSTOP)
        try:
            await run.context.until(lambda: run.backend.status.state is State.DEGRADED)
            assert run.backend.status.is_open
            assert "no answer to 3 probes" in run.backend.status.last_error
        finally:
            os.kill(pid, signal.SIGCONT)
        await run.context.until(lambda: run.backend.status.state is State.READY)
        assert await run.echo("hello") == "hello"
        assert (run.backend.stats.lives, run.backend.status.last_error) == (1, "")


async def test_a_backend_without_an_interval_is_never_probed() -> None:
    async with HttpBackend(SCRIPT) as server, running(over_web(server.url, ping_interval=0)) as run:
        await run.listed()
        assert await run.echo("hello") == "hello"
        tasks = {task.get_name() for task in asyncio.all_tasks()}
        assert not any("probe" in name for name in tasks)
        assert server.calls("ping") == []
