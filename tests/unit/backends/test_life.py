"""A backend that is not needed all the time: started when it is, at rest otherwise; and one that answers nobody."""

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
from tests.unit.backends.linking import tool as arguments
from tests.unit.backends.running import Run, over_stdio, over_web, running

pytestmark = pytest.mark.anyio

HANDSHAKE = Script(era="handshake", tools=(tool("echo"), tool("hang", Act("hang")), tool("die", Act("die", n=3))))
SOON = 0.05
"""Seconds of idleness that are enough here."""


async def failure(run: Run, name: str = "echo") -> BackendError:
    with pytest.raises(BackendError) as caught:
        await run.call(name)
    return caught.value


async def at_rest(run: Run) -> None:
    """Wait until it is at rest, and listed."""
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


async def test_a_call_starts_a_lazy_backend_and_the_next_one_finds_it_running() -> None:
    async with StdioBackend(HANDSHAKE) as server, lazy(server) as run:
        assert await run.echo("first") == "first"
        assert await run.echo("second") == "second"
        assert len(server.children) == 2
        assert run.backend.status.state is State.READY


async def test_many_first_calls_start_a_lazy_backend_once() -> None:
    async with StdioBackend(HANDSHAKE) as server, lazy(server) as run:
        answers = await within(asyncio.gather(*(run.echo(str(number), Caller(str(number))) for number in range(20))))
        assert answers == [str(number) for number in range(20)]
        assert len(server.children) == 2


async def test_a_call_to_a_lazy_backend_may_wait_for_its_start_as_long_as_for_an_answer() -> None:
    async with StdioBackend(HANDSHAKE) as server, running(over_stdio(server, start="lazy"), patience=0.001) as run:
        await at_rest(run)
        assert await run.echo("patient") == "patient"


async def test_a_lazy_backend_that_is_lost_is_started_again_by_the_next_call_only() -> None:
    async with StdioBackend(HANDSHAKE) as server, lazy(server) as run:
        await failure(run, "die")
        await run.context.until(lambda: run.backend.status.state is State.IDLE)
        assert len(server.children) == 2
        assert (run.backend.is_resting, run.backend.status.failures) == (False, 1)
        assert "exited with status 3" in run.backend.status.last_error
        assert await run.echo("again") == "again"


async def test_a_watched_lazy_backend_that_is_lost_is_started_again_at_once() -> None:
    async with StdioBackend(HANDSHAKE) as server, lazy(server) as run:
        run.context.needed.add("notes")
        await failure(run, "die")
        await run.context.until(lambda: run.backend.status.failures > 0)
        await run.context.until(lambda: run.backend.status.state is State.READY)


async def test_a_lazy_backend_that_is_kept_alive_is_started_again_when_it_is_lost() -> None:
    kept: dict[str, Any] = {"start": "lazy", "keep_alive": True, "idle_timeout": SOON}
    async with StdioBackend(HANDSHAKE) as server, running(over_stdio(server, **kept)) as run:
        await run.listed()
        await failure(run, "die")
        await run.context.until(lambda: run.backend.status.failures > 0)
        await run.context.until(lambda: run.backend.status.state is State.READY)


async def test_a_lazy_backend_that_cannot_be_learnt_is_tried_as_any_other() -> None:
    async with running(over_web("http://127.0.0.1:9/mcp", start="lazy")) as run:
        await run.context.until(lambda: run.backend.status.failures >= 2)


async def test_made_eager_it_is_started() -> None:
    async with StdioBackend(HANDSHAKE) as server, lazy(server) as run:
        run.backend.adapt(over_stdio(server, start="eager"), run.context.surroundings())
        await run.context.until(lambda: run.backend.status.state is State.READY)


# --- idle ------------------------------------------------------------------------------------------------------------


async def test_what_nobody_uses_is_stopped_and_still_listed_and_the_next_call_starts_it() -> None:
    async with StdioBackend(HANDSHAKE) as server, running(over_stdio(server, idle_timeout=SOON)) as run:
        assert await run.echo("first") == "first"
        await at_rest(run)
        await server.wait_all_gone()
        listings = len(run.context.listings)
        assert await run.echo("again") == "again"
        await run.context.until(lambda: len(run.context.listings) > listings)
        assert len(server.children) == 2


async def test_over_http_the_session_is_closed() -> None:
    async with HttpBackend(HANDSHAKE) as server, running(over_web(server.url, idle_timeout=SOON)) as run:
        assert await run.echo("x", Caller("one")) == "x"
        await at_rest(run)
        await server.recorder.wait_until(lambda: len(server.deletes) == 2, "the end of both sessions")
        assert run.backend.links() == []
        assert await run.echo("again", Caller("one")) == "again"


async def test_a_call_in_flight_is_use() -> None:
    async with StdioBackend(HANDSHAKE) as server, running(over_stdio(server, idle_timeout=SOON)) as run:
        waiting = asyncio.ensure_future(run.call("hang"))
        await server.wait_for("tools/call")
        other = asyncio.get_running_loop().create_future()
        await asyncio.wait({other}, timeout=5 * SOON)
        assert run.backend.status.state is State.READY
        await server.release()
        await within(waiting)
        await at_rest(run)


async def test_a_watched_link_is_use() -> None:
    async with StdioBackend(HANDSHAKE) as server, running(over_stdio(server, idle_timeout=SOON)) as run:
        await run.echo()
        (link,) = run.backend.links()
        link.is_watched = True
        await asyncio.wait({link.ended}, timeout=5 * SOON)
        assert run.backend.status.state is State.READY
        link.is_watched = False
        await at_rest(run)


async def test_what_is_needed_for_other_reasons_is_not_stopped() -> None:
    async with StdioBackend(HANDSHAKE) as server, running(over_stdio(server, idle_timeout=SOON)) as run:
        run.context.needed.add("notes")
        await run.echo()
        (link,) = run.backend.links()
        await asyncio.wait({link.ended}, timeout=5 * SOON)
        assert run.backend.status.state is State.READY


async def test_what_is_kept_alive_is_not_stopped() -> None:
    kept: dict[str, Any] = {"keep_alive": True, "idle_timeout": SOON}
    async with StdioBackend(HANDSHAKE) as server, running(over_stdio(server, **kept)) as run:
        await run.echo()
        (link,) = run.backend.links()
        await asyncio.wait({link.ended}, timeout=5 * SOON)
        assert run.backend.status.state is State.READY


async def test_stopping_for_idleness_and_calls_at_the_same_time_lose_no_call() -> None:
    async with StdioBackend(HANDSHAKE) as server, running(over_stdio(server, idle_timeout=0.001)) as run:
        for number in range(10):
            assert await run.echo(str(number)) == str(number)
            await run.context.until(lambda: run.backend.links() == [])


# --- crash loop -------------------------------------------------------------------------------------------------------


async def test_r3_in_a_crash_loop_calls_start_nothing_and_say_so_at_once() -> None:
    clock, script = FakeClock(), Script(exit_code=7, stderr="KEY is not set\n")
    async with StdioBackend(script) as server, running(over_stdio(server), clock=clock) as run:
        for crashes in range(1, CRASHES + 1):
            await run.context.until(lambda crashes=crashes: run.backend.status.crashes == crashes)  # type: ignore[misc]
            if crashes < CRASHES:
                await clock.advance(60)
        assert run.backend.status.state is State.CRASH_LOOP
        before = run.backend.status
        assert before.crashes == CRASHES
        failed = await failure(run)
        assert isinstance(failed, BackendUnavailable)
        assert failed.next_try is not None
        assert failed.next_try > 20
        for said in (f"{CRASHES} times in a row", "exited with status 7", "KEY is not set", "next attempt in"):
            assert said in failed.message
        assert run.backend.stderr[-1] == "KEY is not set"
        assert run.backend.status is before


# --- the breaker ------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def unanswered(fault: Fault, **breaker: object) -> AsyncIterator[tuple[HttpBackend, Run]]:
    """A backend that can be reached, and whose calls all go wrong."""
    async with HttpBackend(HANDSHAKE) as server:
        settings = over_web(server.url, isolation="shared", breaker={"failures": 3, **breaker})
        async with running(settings) as run:
            await run.echo()
            server.fail(fault)
            yield server, run


FAILING = Fault(500, method="tools/call", times=0)


async def test_after_so_many_calls_without_an_answer_the_next_ones_are_not_sent() -> None:
    async with unanswered(FAILING, wait=60.0) as (server, run):
        for _ in range(3):
            assert "500" in (await failure(run)).message
        sent = len(server.exchanges)
        refused = await failure(run)
        assert isinstance(refused, BackendUnavailable)
        assert "had no answer to the last 3 calls" in refused.message
        assert "500" in refused.message
        assert refused.since.endswith("Z")
        assert "connected, but answers no calls" in refused.explanation
        assert refused.next_try is not None
        assert 50 < refused.next_try <= 60
        assert len(server.exchanges) == sent
        assert run.backend.executor.breaker.position is Position.OPEN
        assert run.backend.status.state is State.READY


async def test_when_it_answers_again_it_is_called_again() -> None:
    async with unanswered(FAILING, wait=0.02) as (server, run):
        for _ in range(3):
            await failure(run)
        assert run.backend.executor.breaker.is_shut
        server.heal()
        await asyncio.wait({asyncio.get_running_loop().create_future()}, timeout=0.1)
        assert await run.echo("again") == "again"
        assert run.backend.executor.breaker.position is Position.CLOSED


async def test_an_error_of_its_own_is_an_answer() -> None:
    async with HttpBackend(HANDSHAKE) as server, running(over_web(server.url, breaker={"failures": 1})) as run:
        for _ in range(3):
            with pytest.raises(RemoteError):
                await run.call("no such tool")
        assert run.backend.executor.breaker.position is Position.CLOSED


async def test_a_refusal_by_status_is_an_answer() -> None:
    async with unanswered(Fault(403, method="tools/call", times=0), failures=1) as (_, run):
        for _ in range(3):
            await failure(run)
        assert run.backend.executor.breaker.position is Position.CLOSED


async def test_calls_that_are_lost_with_their_process_do_not_open_it() -> None:
    async with StdioBackend(HANDSHAKE) as server, running(over_stdio(server, breaker={"failures": 1})) as run:
        await run.echo()
        await failure(run, "die")
        assert await run.echo("again") == "again"


async def test_calls_that_time_out_open_it_and_a_new_connection_closes_it() -> None:
    async with StdioBackend(HANDSHAKE) as server, running(over_stdio(server, breaker={"failures": 2})) as run:
        await run.echo()
        for _ in range(2):
            call = Caller().call()
            with pytest.raises(BackendError, match="no answer within"):
                await run.backend.request_aside(call, "tools/call", arguments("hang"), on=None, timeout=0.05)
        assert run.backend.executor.breaker.is_shut
        await server.exit(1)
        await run.context.until(lambda: run.backend.status.failures > 0)
        await run.context.until(lambda: run.backend.status.state is State.READY)
        assert await run.echo("again") == "again"


async def test_without_failures_to_count_every_call_is_sent() -> None:
    async with unanswered(FAILING, failures=0) as (_, run):
        for _ in range(20):
            assert "500" in (await failure(run)).message


async def test_other_settings_hold_at_once() -> None:
    async with unanswered(FAILING, wait=60.0) as (server, run):
        for _ in range(3):
            await failure(run)
        settings = over_web(server.url, isolation="shared", breaker={"failures": 0})
        run.backend.adapt(settings, run.context.surroundings())
        server.heal()
        assert await run.echo("at once") == "at once"


async def test_a_process_that_works_and_is_killed_again_and_again_is_in_no_crash_loop() -> None:
    async with StdioBackend(HANDSHAKE) as server, running(over_stdio(server)) as run:
        for number in range(CRASHES + 1):
            await run.context.until(lambda: run.backend.status.is_open)
            await run.context.until(lambda seen=number: len(run.context.listings) > seen)  # type: ignore[misc]
            await failure(run, "die")
            await run.context.until(lambda: not run.backend.status.is_open)
        assert run.backend.status.crashes == 0


async def test_calls_that_waited_for_their_turn_are_spared_once_it_opens() -> None:
    script = Script(era="handshake", tools=(tool("hang", Act("hang")), tool("echo")))
    settings: dict[str, Any] = {"max_concurrency": 1, "breaker": {"failures": 1, "wait": 60.0}}
    settings["overrides"] = {"tools": {"hang": {"timeout": 0.2}}}
    async with HttpBackend(script) as server, running(over_web(server.url, **settings)) as run:
        await run.listed()
        calls = [asyncio.ensure_future(failure(run, name)) for name in ("hang", "echo", "echo")]
        first, *others = await within(asyncio.gather(*calls))
        assert "no answer within 0.2 s" in first.message
        for spared in others:
            assert isinstance(spared, BackendUnavailable)
            assert "had no answer to the last 1 calls" in spared.message
        assert len(server.calls("tools/call")) == 1
        assert not run.backend.executor.limiter.is_busy
        await server.release()
