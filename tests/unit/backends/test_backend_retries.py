"""Which requests are sent to a backend a second time after a failure; see `retry_policy` for the rules."""

import asyncio
from collections.abc import Callable

import pytest

from mcp_manifold.backends.calls.request_policy import PAUSE
from mcp_manifold.errors import BackendLost, BackendTimeout, BackendUnavailable, CallCancelled
from mcp_manifold.model.call import Call
from mcp_manifold.wire import Payload
from tests.fakes.clock import FakeClock
from tests.peers.backend import Fault, HttpBackend, Script, resource, tool
from tests.unit.backends.linking import Caller, eventually, reply_of, text_of, within
from tests.unit.backends.running import Run, over_web, running

pytestmark = pytest.mark.anyio

NOTE = "note://one"
SCRIPT = Script(
    era="handshake",
    tools=(tool("echo"), tool("twice", annotations={"idempotentHint": True})),
    resources=(resource(NOTE),),
)


def called(name: str) -> Call:
    return Caller().call(name=name, arguments={"text": "x"})


def read() -> Call:
    return Caller().call("resources/read", uri=NOTE)


async def outcome(run: Run, clock: FakeClock, call: Call) -> Payload:
    """The result of a call; the pause before its second attempt passes at once."""
    asking = asyncio.ensure_future(run.request(call))
    seen = run.backend.executor.retries
    await eventually(lambda: asking.done() or run.backend.executor.retries > seen)
    await clock.advance(PAUSE)
    result: Payload = await within(asking)
    return result


async def disconnected(server: HttpBackend, run: Run) -> None:
    """Stop the server, and let a call find out that its connections are gone."""
    await run.listed()
    await server.refuse()
    asking = run.dispatch(call := called("echo"))
    await eventually(lambda: run.backend.executor.retries > 0 or call.is_done)
    asking.cancel()
    await eventually(lambda: call.is_done)


@pytest.mark.parametrize("times", [1, 0])
async def test_a_read_without_an_answer_is_sent_twice_and_no_more(times: int) -> None:
    clock = FakeClock()
    async with HttpBackend(SCRIPT) as server, running(over_web(server.url), clock=clock) as run:
        await run.listed()
        server.fail(Fault(kind="reset", method="resources/read", times=times))
        if times:
            assert NOTE.encode() in bytes(await outcome(run, clock, read()))
        else:
            with pytest.raises(BackendLost):
                await outcome(run, clock, read())
        assert run.backend.executor.retries == 1


@pytest.mark.parametrize(
    ("retry", "call", "is_sent_again"),
    [
        ("never", read, False),
        ("safe", lambda: called("twice"), False),
        ("idempotent", lambda: called("echo"), False),
        ("idempotent", lambda: called("twice"), True),
    ],
)
async def test_a_call_with_an_unknown_outcome_is_sent_again_only_if_tool_and_settings_allow_it(
    retry: str, call: Callable[[], Call], is_sent_again: bool
) -> None:
    clock = FakeClock()
    async with HttpBackend(SCRIPT) as server, running(over_web(server.url, retry=retry), clock=clock) as run:
        await run.listed()
        made = call()
        server.fail(Fault(kind="reset", method=made.method))
        if is_sent_again:
            assert text_of(await outcome(run, clock, made)) == "x"
        else:
            with pytest.raises(BackendLost, match="unknown"):
                await outcome(run, clock, made)
        assert run.backend.executor.retries == is_sent_again


@pytest.mark.parametrize("happens", ["it comes back", "the call is cancelled", "it stays away"])
async def test_a_call_that_never_reached_the_backend_is_sent_again(happens: str) -> None:
    clock = FakeClock()
    async with HttpBackend(SCRIPT) as server, running(over_web(server.url), clock=clock) as run:
        await disconnected(server, run)
        seen, sent = run.backend.executor.retries, len(server.calls("tools/call"))
        in_flight = run.dispatch(call := called("echo"))
        await eventually(lambda: run.backend.executor.retries > seen)
        if happens == "it comes back":
            await server.listen()
        elif happens == "the call is cancelled":
            in_flight.cancel()
        await clock.advance(PAUSE)
        if happens == "it comes back":
            assert text_of(await within(reply_of(call).outcome())) == "x"
        else:
            error = CallCancelled if happens == "the call is cancelled" else BackendUnavailable
            with pytest.raises(error):
                await within(reply_of(call).outcome())
        assert run.backend.executor.retries == seen + 1
        assert len(server.calls("tools/call")) == sent + (happens == "it comes back")
        assert not run.backend.executor.is_busy


async def test_a_call_that_timed_out_is_not_sent_again() -> None:
    clock = FakeClock()
    async with HttpBackend(SCRIPT) as server, running(over_web(server.url, timeout=7), clock=clock) as run:
        await run.listed()
        server.fail(Fault(kind="hang", method="resources/read"))
        run.dispatch(call := read())
        await clock.advance(7)
        with pytest.raises(BackendTimeout):
            await within(reply_of(call).outcome())
        await server.release("fault")
        assert run.backend.executor.retries == 0
