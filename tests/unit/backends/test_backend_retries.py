"""What a backend is sent once more when it failed, and what never: see `repeating` for the rules."""

import asyncio

import pytest

from mcp_manifold.backends.calls import executor as module
from mcp_manifold.errors import BackendError, BackendLost, BackendTimeout, BackendUnavailable, CallCancelled
from tests.peers.backend import Fault, HttpBackend, Script, resource, tool
from tests.peers.processes import until
from tests.unit.backends.linking import Caller, raw, text_of, within
from tests.unit.backends.linking import tool as params
from tests.unit.backends.running import Run, over_web, running

pytestmark = pytest.mark.anyio

NOTE = "note://one"
SCRIPT = Script(
    era="handshake",
    tools=(tool("echo"), tool("twice", annotations={"idempotentHint": True})),
    resources=(resource(NOTE),),
)


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAUSE", 0.0)


async def gone(server: HttpBackend, run: Run) -> None:
    """The server is away, and the connections it left behind are known to be dead."""
    await run.listed()
    await server.refuse()
    with pytest.raises(BackendError):
        await run.call("echo")
    run.backend.executor.retries = 0


async def read(run: Run) -> bytes:
    return bytes(await within(run.backend.request(Caller().call("resources/read"), "resources/read", raw(uri=NOTE))))


async def test_a_read_that_got_no_answer_is_sent_once_more() -> None:
    async with HttpBackend(SCRIPT) as server, running(over_web(server.url)) as run:
        await run.listed()
        server.fail(Fault(kind="reset", method="resources/read"))
        assert NOTE.encode() in await read(run)
        assert run.backend.executor.retries == 1


async def test_once_more_and_not_for_ever() -> None:
    async with HttpBackend(SCRIPT) as server, running(over_web(server.url)) as run:
        await run.listed()
        server.fail(Fault(kind="reset", method="resources/read", times=0))
        with pytest.raises(BackendLost):
            await read(run)
        assert run.backend.executor.retries == 1


async def test_nothing_is_sent_again_where_that_is_forbidden() -> None:
    async with HttpBackend(SCRIPT) as server, running(over_web(server.url, retry="never")) as run:
        await run.listed()
        server.fail(Fault(kind="reset", method="resources/read"))
        with pytest.raises(BackendLost):
            await read(run)
        assert run.backend.executor.retries == 0


@pytest.mark.parametrize(("name", "retry"), [("twice", "safe"), ("echo", "idempotent")])
async def test_a_tool_whose_outcome_is_unknown_is_not_called_again(name: str, retry: str) -> None:
    async with HttpBackend(SCRIPT) as server, running(over_web(server.url, retry=retry)) as run:
        await run.listed()
        server.fail(Fault(kind="reset", method="tools/call"))
        with pytest.raises(BackendLost, match="unknown"):
            await run.call(name, text="x")
        assert run.backend.executor.retries == 0


async def test_a_tool_that_says_so_is_called_again_where_it_is_believed() -> None:
    async with HttpBackend(SCRIPT) as server, running(over_web(server.url, retry="idempotent")) as run:
        await run.listed()
        server.fail(Fault(kind="reset", method="tools/call"))
        assert text_of(await run.call("twice", text="x")) == "x"
        assert run.backend.executor.retries == 1


async def test_a_call_that_never_reached_the_backend_is_sent_once_more(monkeypatch: pytest.MonkeyPatch) -> None:
    async with HttpBackend(SCRIPT) as server, running(over_web(server.url)) as run:
        await gone(server, run)
        monkeypatch.setattr(module, "PAUSE", 1.0)
        call = asyncio.create_task(run.call("echo", text="x"))
        await until(lambda: run.backend.executor.retries > 0, "the second attempt")
        await server.listen()
        assert text_of(await call) == "x"
        assert len(server.calls("tools/call")) == 1


async def test_a_call_that_is_taken_back_meanwhile_is_not_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async with HttpBackend(SCRIPT) as server, running(over_web(server.url)) as run:
        await gone(server, run)
        monkeypatch.setattr(module, "PAUSE", 0.05)
        call = Caller().call()
        sent = asyncio.create_task(run.backend.request(call, "tools/call", params("echo")))
        await until(lambda: run.backend.executor.retries > 0, "the second attempt")
        call.cancel()
        with pytest.raises(CallCancelled):
            await within(sent)


async def test_what_took_too_long_is_not_sent_again() -> None:
    script = Script(era="handshake", resources=(resource(NOTE),))
    async with HttpBackend(script) as server, running(over_web(server.url, timeout=0.2)) as run:
        await run.listed()
        server.fail(Fault(kind="hang", method="resources/read"))
        with pytest.raises(BackendTimeout):
            await read(run)
        await server.release("fault")


async def test_one_that_is_down_says_so_after_the_second_attempt() -> None:
    async with HttpBackend(SCRIPT) as server, running(over_web(server.url)) as run:
        await gone(server, run)
        with pytest.raises(BackendError) as caught:
            await run.call("echo")
        assert isinstance(caught.value, BackendUnavailable)
        assert run.backend.executor.retries == 1
