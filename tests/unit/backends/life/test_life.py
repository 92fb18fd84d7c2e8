"""The life of a backend: lazy start, idle stop, crash loop, and its circuit breaker."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from mcp_manifold.backends.calls.breaker import Position
from mcp_manifold.errors import BackendError, BackendUnavailable, RemoteError
from mcp_manifold.model.lifecycle import CRASHES, State
from tests.fakes.clock import FakeClock
from tests.peers.backend import Act, Fault, HttpBackend, Script, StdioBackend, tool
from tests.unit.backends.linking import Caller, within
from tests.unit.backends.running import Run, over_stdio, over_web, running

pytestmark = pytest.mark.anyio

HANDSHAKE = Script(era="handshake", tools=(tool("echo"), tool("hang", Act("hang")), tool("die", Act("die", n=3))))
IDLE = 60.0
"""Seconds of idleness that are enough here."""


def clock_for_idleness() -> FakeClock:
    """A clock that begins with the loop's, by which calls record their end."""
    return FakeClock(asyncio.get_running_loop().time())


@asynccontextmanager
async def idle_soon(server: StdioBackend, **settings: Any) -> AsyncIterator[tuple[Run, FakeClock]]:
    """A backend that is closed after `IDLE` seconds without a use, and has answered a call."""
    clock = clock_for_idleness()
    async with running(over_stdio(server, idle_timeout=IDLE, ping_interval=0, **settings), clock=clock) as run:
        assert await run.echo("first") == "first"
        await run.listed()
        yield run, clock


async def at_rest(run: Run, clock: FakeClock | None = None) -> None:
    """Wait until it is at rest, and listed; a clock of the test's own is moved until it may be."""
    while clock is not None and run.backend.links():
        await clock.advance(1)
    await run.context.until(lambda: run.backend.is_resting and run.backend.listing is not None)


@asynccontextmanager
async def lazy(server: StdioBackend) -> AsyncIterator[Run]:
    """A lazy backend that has learnt what it offers, and is at rest."""
    async with running(over_stdio(server, start="lazy")) as run:
        await at_rest(run)
        await server.wait_all_gone()
        yield run


# --- lazy ------------------------------------------------------------------------------------------------------------


async def test_a_lazy_backend_is_started_once_to_learn_what_it_offers_and_stopped() -> None:
    async with StdioBackend(HANDSHAKE) as server, lazy(server) as run:
        assert len(server.children) == 1
        assert run.backend.listing is not None
        assert len(run.backend.listing.tools) == 3
        assert (run.backend.status.state, run.backend.status.last_error) == (State.IDLE, "")


async def test_first_calls_start_a_lazy_backend_once_and_later_ones_find_it_running() -> None:
    async with StdioBackend(HANDSHAKE) as server, lazy(server) as run:
        answers = await within(asyncio.gather(*(run.echo(str(number), Caller(str(number))) for number in range(20))))
        assert answers == [str(number) for number in range(20)]
        assert await run.echo("second") == "second"
        assert len(server.children) == 2
        assert run.backend.status.state is State.READY


async def test_a_call_to_a_lazy_backend_may_wait_for_its_start_as_long_as_for_an_answer() -> None:
    async with StdioBackend(HANDSHAKE) as server, running(over_stdio(server, start="lazy"), patience=0.001) as run:
        await at_rest(run)
        assert await run.echo("patient") == "patient"


async def test_a_lazy_backend_that_is_lost_is_started_again_by_the_next_call_only() -> None:
    async with StdioBackend(HANDSHAKE) as server, lazy(server) as run:
        await run.failure("die")
        await run.context.until(lambda: run.backend.status.state is State.IDLE)
        assert len(server.children) == 2
        assert (run.backend.is_resting, run.backend.status.failures) == (False, 1)
        assert "exited with status 3" in run.backend.status.last_error
        assert await run.echo("again") == "again"


@pytest.mark.parametrize("kept", [{}, {"keep_alive": True, "idle_timeout": IDLE}], ids=["watched", "kept alive"])
async def test_a_lazy_backend_that_is_needed_restarts_at_once_when_it_is_lost(kept: dict[str, Any]) -> None:
    async with StdioBackend(HANDSHAKE) as server, running(over_stdio(server, start="lazy", **kept)) as run:
        await run.listed()
        if not kept:
            run.context.needed.add("notes")
        await run.failure("die")
        await run.context.until(lambda: run.backend.status.failures > 0)
        await run.context.until(lambda: run.backend.status.state is State.READY)


async def test_a_lazy_backend_that_fails_is_retried() -> None:
    async with running(over_web("http://127.0.0.1:9/mcp", start="lazy")) as run:
        await run.context.until(lambda: run.backend.status.failures >= 2)


async def test_a_lazy_backend_made_eager_starts() -> None:
    async with StdioBackend(HANDSHAKE) as server, lazy(server) as run:
        run.backend.adapt(over_stdio(server, start="eager"), run.context.surroundings())
        await run.context.until(lambda: run.backend.status.state is State.READY)


# --- idle ------------------------------------------------------------------------------------------------------------


async def test_an_idle_backend_stops_and_stays_listed_and_the_next_call_starts_it() -> None:
    async with StdioBackend(HANDSHAKE) as server, idle_soon(server) as (run, clock):
        await at_rest(run, clock)
        await server.wait_all_gone()
        listings = len(run.context.listings)
        assert await run.echo("again") == "again"
        await run.context.until(lambda: len(run.context.listings) > listings)
        assert len(server.children) == 2


async def test_an_idle_http_backend_closes_its_sessions() -> None:
    clock = clock_for_idleness()
    async with (
        HttpBackend(HANDSHAKE) as server,
        running(over_web(server.url, idle_timeout=IDLE, ping_interval=0), clock=clock) as run,
    ):
        assert await run.echo("x", Caller("one")) == "x"
        await run.listed()
        await at_rest(run, clock)
        await server.recorder.wait_until(lambda: len(server.deletes) == 2, "the end of both sessions")
        assert run.backend.links() == []
        assert await run.echo("again", Caller("one")) == "again"


async def test_a_call_in_flight_is_use() -> None:
    async with StdioBackend(HANDSHAKE) as server, idle_soon(server, timeout=100 * IDLE) as (run, clock):
        waiting = asyncio.ensure_future(run.call("hang"))
        await server.wait_for("tools/call", count=2)
        await clock.advance(10 * IDLE)
        assert run.backend.status.state is State.READY
        await server.release()
        await within(waiting)
        await at_rest(run, clock)


async def test_a_watched_link_is_use() -> None:
    async with StdioBackend(HANDSHAKE) as server, idle_soon(server) as (run, clock):
        (link,) = run.backend.links()
        link.watch(True)
        await clock.advance(10 * IDLE)
        assert run.backend.status.state is State.READY
        link.watch(False)
        await at_rest(run, clock)


@pytest.mark.parametrize("kept", [{}, {"keep_alive": True}], ids=["needed", "kept alive"])
async def test_a_needed_backend_is_not_stopped(kept: dict[str, Any]) -> None:
    async with StdioBackend(HANDSHAKE) as server, idle_soon(server, **kept) as (run, clock):
        if not kept:
            run.context.needed.add("notes")
        await clock.advance(10 * IDLE)
        assert run.backend.status.state is State.READY


async def test_stopping_for_idleness_and_calls_at_the_same_time_lose_no_call() -> None:
    async with HttpBackend(HANDSHAKE) as server, running(over_web(server.url, idle_timeout=0.001)) as run:
        for number in range(10):
            assert await run.echo(str(number)) == str(number)
            await run.context.until(lambda: run.backend.links() == [])


# --- crash loop -------------------------------------------------------------------------------------------------------


async def test_r3_in_a_crash_loop_calls_start_nothing_and_fail_at_once() -> None:
    clock, script = FakeClock(), Script(exit_code=7, stderr="KEY is not set\n")
    async with StdioBackend(script) as server, running(over_stdio(server), clock=clock) as run:
        for crashes in range(1, CRASHES + 1):
            await run.context.until(lambda crashes=crashes: run.backend.status.crashes == crashes)  # type: ignore[misc]  # the default binds the count
            if crashes < CRASHES:
                await run.next_attempt(clock)
        before = run.backend.status
        assert (before.state, before.crashes) == (State.CRASH_LOOP, CRASHES)
        failed = await run.failure()
        assert isinstance(failed, BackendUnavailable)
        assert failed.next_try is not None
        assert failed.next_try > 20
        for said in (f"{CRASHES} times in a row", "exited with status 7", "KEY is not set", "next attempt in"):
            assert said in failed.message
        assert run.backend.stderr[-1] == "KEY is not set"
        assert run.backend.status is before


# --- the breaker ------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def unanswered(
    fault: Fault, *, clock: FakeClock | None = None, **breaker: object
) -> AsyncIterator[tuple[HttpBackend, Run]]:
    """A backend that can be reached, and whose calls all fail."""
    async with HttpBackend(HANDSHAKE) as server:
        settings = over_web(server.url, isolation="shared", breaker={"failures": 3, **breaker})
        async with running(settings, clock=clock) as run:
            await run.echo()
            server.fail(fault)
            yield server, run


FAILING = Fault(500, method="tools/call", times=0)


async def failed_often(run: Run) -> None:
    """Make as many calls as open the breaker."""
    for _ in range(3):
        assert "500" in (await run.failure()).message


async def test_the_breaker_opens_after_failures_and_refuses_calls_until_other_settings_close_it() -> None:
    async with unanswered(FAILING, wait=60.0) as (server, run):
        await failed_often(run)
        sent = len(server.exchanges)
        refused = await run.failure()
        assert isinstance(refused, BackendUnavailable)
        assert "no answer to the last 3 calls" in refused.message
        assert "500" in refused.message
        assert refused.since.endswith("Z")
        assert "connected, but answers no calls" in refused.explanation
        assert refused.next_try is not None
        assert 50 < refused.next_try <= 60
        assert len(server.exchanges) == sent
        assert run.backend.executor.breaker.position is Position.OPEN
        assert run.backend.status.state is State.READY
        settings = over_web(server.url, isolation="shared", breaker={"failures": 0})
        run.backend.adapt(settings, run.context.surroundings())
        server.heal()
        assert await run.echo("at once") == "at once"


async def test_an_answer_after_the_wait_closes_the_breaker() -> None:
    clock = FakeClock()
    async with unanswered(FAILING, clock=clock, wait=5.0) as (server, run):
        await failed_often(run)
        assert run.backend.executor.breaker.is_shut
        server.heal()
        await clock.advance(5.0)
        assert await run.echo("again") == "again"
        assert run.backend.executor.breaker.position is Position.CLOSED


@pytest.mark.parametrize("fault", [None, Fault(403, method="tools/call", times=0)], ids=["JSON-RPC error", "403"])
async def test_a_refusal_counts_as_an_answer(fault: Fault | None) -> None:
    async with HttpBackend(HANDSHAKE) as server, running(over_web(server.url, breaker={"failures": 1})) as run:
        if fault is not None:
            server.fail(fault)
        for _ in range(3):
            with pytest.raises(BackendError if fault else RemoteError):
                await run.call("no such tool")
        assert run.backend.executor.breaker.position is Position.CLOSED


async def test_calls_lost_with_their_process_do_not_open_the_breaker() -> None:
    async with StdioBackend(HANDSHAKE) as server, running(over_stdio(server, breaker={"failures": 1})) as run:
        await run.echo()
        await run.failure("die")
        assert await run.echo("again") == "again"


async def test_timeouts_open_the_breaker_and_a_new_connection_closes_it() -> None:
    settings: dict[str, Any] = {"breaker": {"failures": 2}, "overrides": {"tools": {"hang": {"timeout": 0.05}}}}
    async with StdioBackend(HANDSHAKE) as server, running(over_stdio(server, **settings)) as run:
        await run.echo()
        for _ in range(2):
            assert "no answer within 0.05 s" in (await run.failure("hang")).message
        assert run.backend.executor.breaker.is_shut
        await server.exit(1)
        await run.context.until(lambda: run.backend.status.failures > 0)
        await run.context.until(lambda: run.backend.status.state is State.READY)
        assert await run.echo("again") == "again"


async def test_a_process_that_works_between_its_ends_is_in_no_crash_loop() -> None:
    clock = FakeClock()
    async with StdioBackend(HANDSHAKE) as server, running(over_stdio(server), clock=clock) as run:
        for number in range(CRASHES + 1):
            await run.context.until(lambda seen=number: len(run.context.listings) > seen)  # type: ignore[misc]
            await run.failure("die")
            await run.next_attempt(clock)
        assert run.backend.status.crashes == 0


async def test_waiting_calls_are_refused_once_the_breaker_opens() -> None:
    script = Script(era="handshake", tools=(tool("hang", Act("hang")), tool("echo")))
    settings: dict[str, Any] = {"max_concurrency": 1, "breaker": {"failures": 1, "wait": 60.0}}
    settings["overrides"] = {"tools": {"hang": {"timeout": 0.2}}}
    async with HttpBackend(script) as server, running(over_web(server.url, **settings)) as run:
        await run.listed()
        calls = [asyncio.ensure_future(run.failure(name)) for name in ("hang", "echo", "echo")]
        first, *others = await within(asyncio.gather(*calls))
        assert "no answer within 0.2 s" in first.message
        for spared in others:
            assert isinstance(spared, BackendUnavailable)
            assert "no answer to the last 1 calls" in spared.message
        assert len(server.calls("tools/call")) == 1
        assert not run.backend.executor.is_busy
        await server.release()
