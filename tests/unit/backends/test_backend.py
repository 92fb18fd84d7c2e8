"""One backend against real scripted servers: it becomes ready, comes back after a crash, and keeps clients apart."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from mcp_manifold.backends.life.life import NUDGE_EVERY
from mcp_manifold.errors import (
    BackendLost,
    BackendOverloaded,
    BackendUnavailable,
)
from mcp_manifold.model.lifecycle import State
from tests.fakes.clock import FakeClock
from tests.peers.backend import Act, HttpBackend, Script, SseBackend, StdioBackend, named, tool
from tests.unit.backends.linking import Caller, eventually, full_listener, within
from tests.unit.backends.running import Run, over_stdio, over_web, running

pytestmark = pytest.mark.anyio

HANDSHAKE = Script(era="handshake", tools=(tool("echo"), tool("hang", Act("hang")), tool("die", Act("die", n=3))))


# --- ready ---------------------------------------------------------------------------------------------------------


async def test_over_stdio_it_is_ready_lists_and_serves() -> None:
    async with StdioBackend(named("everything")) as server, running(over_stdio(server)) as run:
        assert await run.echo("hello") == "hello"
        await run.listed()
        assert (run.backend.status.state, run.backend.kind, run.backend.era) == (State.READY, "stdio", "handshake")
        assert run.backend.listing is not None
        assert run.backend.listing.instructions == "Use echo to hear yourself."
    assert run.backend.status.state is State.STOPPED
    await server.wait_all_gone()


async def test_over_http_the_modern_era_comes_first() -> None:
    async with HttpBackend(named("echo")) as server, running(over_web(server.url)) as run:
        assert await run.echo("hello") == "hello"
        assert (run.backend.kind, run.backend.era) == ("http", "modern")
        assert server.calls("initialize") == []


async def test_over_http_a_server_without_the_modern_era_is_spoken_to_in_its_own() -> None:
    async with HttpBackend(HANDSHAKE) as server, running(over_web(server.url)) as run:
        assert await run.echo("hello") == "hello"
        assert run.backend.era == "handshake"
        await server.wait_get_stream()
    assert len(server.deletes) == 1


async def test_an_address_that_is_no_streamable_http_is_tried_as_sse_and_that_is_remembered() -> None:
    async with SseBackend(HANDSHAKE) as server, running(over_web(server.url)) as run:
        assert await run.echo("hello") == "hello"
        assert run.backend.kind == "sse"
        posted = sum(item.method == "POST" for item in server.exchanges)
        server.end_streams()
        await run.context.until(lambda: run.backend.status.failures > 0)
        await run.context.until(lambda: run.backend.status.state is State.READY)
        assert await run.echo("again") == "again"
        refused = [item for item in server.exchanges[posted:] if item.method == "POST" and b'"discover"' in item.raw]
        assert refused == []
        assert run.backend.kind == "sse"


@asynccontextmanager
async def away(server: HttpBackend, clock: FakeClock) -> AsyncIterator[Run]:
    """A backend whose server cannot be reached, and that waits for its next attempt."""
    await server.refuse()
    async with running(over_web(server.url), clock=clock) as run:
        await run.context.until(lambda: run.backend.status.state is State.BACKING_OFF)
        yield run


# --- failing and coming back ---------------------------------------------------------------------------------------


async def test_after_a_crash_it_comes_back_by_itself_in_a_new_process(caplog: pytest.LogCaptureFixture) -> None:
    async with StdioBackend(HANDSHAKE) as server, running(over_stdio(server)) as run:
        await run.echo()
        failed = await run.failure("die")
        assert isinstance(failed, BackendLost)
        assert "exited with status 3" in failed.message
        await run.context.until(lambda: run.backend.status.failures > 0)
        await run.context.until(lambda: run.backend.status.state is State.READY)
        assert await run.echo("again") == "again"
        assert len(server.children) == 2
    assert "backend lost: the server exited with status 3" in [each.getMessage() for each in caplog.records]


async def test_a_call_right_after_a_crash_waits_for_the_new_process() -> None:
    async with StdioBackend(HANDSHAKE) as server, running(over_stdio(server)) as run:
        await run.echo()
        await run.failure("die")
        assert await run.echo("again") == "again"


async def test_a_call_while_it_backs_off_makes_one_attempt_at_once() -> None:
    clock = FakeClock()
    async with HttpBackend(HANDSHAKE) as server, away(server, clock) as run:
        failed = await run.failure()
        assert isinstance(failed, BackendUnavailable)
        assert "is not reachable" in failed.message
        assert failed.next_try is not None
        assert run.backend.status.failures == 2
        await server.listen()
        await clock.advance(NUDGE_EVERY)
        assert await run.echo("again") == "again"


async def test_calls_do_not_make_it_try_as_often_as_they_come() -> None:
    clock = FakeClock()
    async with HttpBackend(HANDSHAKE) as server, away(server, clock) as run:
        while (run.backend.status.next_try or 0) - clock.now() < NUDGE_EVERY:
            failures = run.backend.status.failures
            await run.next_attempt(clock)
            await run.context.until(lambda seen=failures: run.backend.status.failures > seen)  # type: ignore[misc]
        failures = run.backend.status.failures
        for _ in range(20):
            assert "next attempt in" in (await run.failure()).message
        assert run.backend.status.failures == failures + 1


async def test_why_it_cannot_be_reached_is_told_to_the_caller_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    async with running(over_web("http://127.0.0.1:9/mcp")) as run:
        failed = await run.failure()
        assert isinstance(failed, BackendUnavailable)
        assert "connection refused" in failed.message
    said = [each.getMessage() for each in caplog.records if each.levelname == "WARNING"]
    assert [words.startswith("backend not reached: ") and "connection refused" in words for words in said] == [True]


async def test_a_call_waits_no_longer_for_a_hanging_initialize_than_its_timeout() -> None:
    clock = FakeClock()
    async with StdioBackend(named("stuck")) as server, running(over_stdio(server, timeout=7), clock=clock) as run:
        asked = asyncio.ensure_future(run.failure())
        await server.wait_for("initialize")
        await clock.advance(7)
        assert "is still connecting" in (await within(asked)).message
        await server.release("start")
        await run.listed()
        assert await run.echo("at last") == "at last"


async def test_a_forgotten_session_of_the_shared_link_is_opened_anew_too() -> None:
    async with (
        HttpBackend(Script(era="handshake", get_stream=False, tools=(tool("echo"),))) as server,
        running(over_web(server.url, isolation="shared")) as run,
    ):
        await run.echo()
        await run.listed()
        server.forget_sessions()
        assert await run.echo("again") == "again"


# --- who shares what ------------------------------------------------------------------------------------------------


async def test_one_clients_crash_does_not_touch_another_clients_process() -> None:
    async with StdioBackend(HANDSHAKE) as server, running(over_stdio(server, isolation="client")) as run:
        one, two = Caller("one"), Caller("two")
        await run.echo("x", one)
        waiting = asyncio.ensure_future(run.call("hang", two))
        await server.wait_for("tools/call", count=2)
        assert isinstance(await run.failure("die", one), BackendLost)
        assert not waiting.done()
        await server.release()
        await waiting
        assert await run.echo("again", one) == "again"


# --- the end --------------------------------------------------------------------------------------------------------


async def test_stopping_fails_what_is_in_flight_and_ends_every_process() -> None:
    async with StdioBackend(HANDSHAKE) as server:
        async with running(over_stdio(server, isolation="client")) as run:
            await run.echo("x", Caller("one"))
            waiting = asyncio.ensure_future(run.failure("hang", Caller("one")))
            await server.wait_for("tools/call", count=2)
        assert isinstance(await within(waiting), BackendLost)
        await server.wait_all_gone()
        assert "is stopped" in (await run.failure()).message


async def test_stopping_while_it_connects_ends_the_process() -> None:
    async with StdioBackend(named("stuck")) as server:
        async with running(over_stdio(server)):
            await server.wait_for("initialize")
        await server.wait_all_gone()


# --- deadlines of its own ------------------------------------------------------------------------------------------


async def test_a_server_that_never_answers_initialize_has_a_deadline_for_that() -> None:
    clock = FakeClock()
    silent = Script(era="handshake", on={"initialize": Act("silent")})
    settings: dict[str, Any] = {"era": "handshake", "initialize_timeout": 7}
    async with HttpBackend(silent) as server, running(over_web(server.url, **settings), clock=clock) as run:
        await server.wait_for("initialize")
        await clock.advance(7)
        await run.context.until(lambda: run.backend.status.failures > 0)
        assert "within 7 s" in run.backend.status.last_error


async def test_a_server_that_never_lists_has_a_deadline_for_that(caplog: pytest.LogCaptureFixture) -> None:
    clock = FakeClock()
    silent = Script(era="handshake", tools=(tool("echo"),), on={"tools/list": Act("silent")})
    settings: dict[str, Any] = {"era": "handshake", "list_timeout": 7}
    async with HttpBackend(silent) as server, running(over_web(server.url, **settings), clock=clock) as run:
        await run.context.until(lambda: run.backend.status.state is State.READY)
        await within(server.wait_for("tools/list"))
        await clock.advance(7)
        await eventually(lambda: "tools/list failed" in caplog.text)


async def test_an_address_that_takes_no_connection_has_a_deadline_for_that() -> None:
    clock = FakeClock()
    with full_listener() as port:
        async with running(over_web(f"http://127.0.0.1:{port}/mcp", connect_timeout=3), clock=clock) as run:
            await eventually(lambda: clock.pending >= 3)  # of the request, its link and the dial
            await clock.advance(3)
            await run.context.until(lambda: run.backend.status.failures > 0)
            assert "no connection within 3 s" in run.backend.status.last_error


async def test_changed_limits_apply_to_new_calls() -> None:
    clock = FakeClock()
    async with HttpBackend(HANDSHAKE) as server, running(over_web(server.url), clock=clock) as run:
        await run.listed()
        run.backend.adapt(over_web(server.url, timeout=7, max_concurrency=1, max_queue=0), run.context.surroundings())
        waiting = asyncio.create_task(run.failure("hang"))
        await server.wait_for("tools/call")
        assert isinstance(await run.failure(), BackendOverloaded)
        await clock.advance(7)
        assert "within 7 s" in (await waiting).message
        await server.release()
