"""All backends together: one that is down, hanging or broken costs the others nothing, and stopping ends everything."""

import asyncio

import psutil
import pytest

from mcp_manifold.errors import BackendError, BackendUnavailable
from mcp_manifold.model.lifecycle import State
from tests.peers.backend import Act, HttpBackend, Script, SseBackend, StdioBackend, named, tool
from tests.unit.backends.linking import Caller, text_of, within
from tests.unit.backends.linking import tool as executor
from tests.unit.backends.running import fleet_of, over_stdio, over_web

pytestmark = pytest.mark.anyio

HANDSHAKE = Script(era="handshake", tools=(tool("echo"), tool("hang", Act("hang"))))


async def test_bad_backends_do_not_hold_up_or_end_the_good_one() -> None:
    async with (
        HttpBackend(HANDSHAKE) as good,
        StdioBackend(named("stuck")) as stuck,
        StdioBackend(Script(banner="not MCP\n" * 100, on={"initialize": Act("garbage", then=Act("die"))})) as broken,
    ):
        settings = (
            over_stdio(stuck, "stuck"),
            over_web("http://127.0.0.1:9/mcp", "down"),
            over_stdio(broken, "broken"),
            over_web(good.url, "good"),
        )
        async with fleet_of(*settings, patience=0.2) as (fleet, context):
            await context.until(lambda: fleet["good"].listing is not None)
            for name in ("down", "broken"):
                await context.until(lambda name=name: fleet[name].status.failures >= 2)  # type: ignore[misc]  # a lambda
            result = await within(fleet["good"].request(Caller().call(), "tools/call", executor("echo", text="x")))
            assert text_of(result) == "x"
            for name in ("stuck", "down", "broken"):
                with pytest.raises(BackendError) as caught:
                    await within(fleet[name].request(Caller().call(), "tools/call", executor("echo")))
                assert caught.value.backend == name
            assert fleet["good"].status.state is State.READY


async def test_it_is_a_mapping_in_configuration_order_without_the_disabled() -> None:
    settings = [over_web("http://127.0.0.1:9/mcp", name) for name in ("z", "a", "m")]
    settings.append(over_web("http://127.0.0.1:9/mcp", "off", disabled=True))
    async with fleet_of(*settings) as (fleet, _):
        assert list(fleet) == ["z", "a", "m"]
        assert len(fleet) == 3
        assert fleet.find("a") is fleet["a"]
        with pytest.raises(BackendUnavailable, match="off: is no longer configured"):
            fleet.find("off")


async def test_without_backends_it_runs_until_it_is_stopped() -> None:
    async with fleet_of() as (fleet, _):
        assert len(fleet) == 0


async def test_a_released_session_is_released_everywhere() -> None:
    async with (
        HttpBackend(HANDSHAKE) as one,
        HttpBackend(HANDSHAKE) as two,
        fleet_of(over_web(one.url, "one"), over_web(two.url, "two")) as (fleet, _),
    ):
        for name in fleet:
            await within(fleet[name].request(Caller("c").call(), "tools/call", executor("echo")))
        fleet.release("c")
        for server in (one, two):
            await server.recorder.wait_until(lambda server=server: server.deletes, "the end of a session")  # type: ignore[misc]  # a lambda


async def test_stopping_leaves_no_task_no_process_and_no_connection() -> None:
    before = asyncio.all_tasks()
    ours = psutil.Process()
    async with HttpBackend(HANDSHAKE) as web, SseBackend(HANDSHAKE) as sse, StdioBackend(HANDSHAKE) as child:
        listening = asyncio.all_tasks()
        files = ours.num_fds()
        settings = (
            over_web(web.url, "web"),
            over_web(sse.url, "events", transport="sse"),
            over_stdio(child, "child", isolation="client"),
            over_web("http://127.0.0.1:9/mcp", "down"),
        )
        async with fleet_of(*settings) as (fleet, context):
            for name in ("web", "events", "child"):
                await within(fleet[name].request(Caller("c").call(), "tools/call", executor("echo")))
                await context.until(lambda name=name: fleet[name].listing is not None)  # type: ignore[misc]  # a lambda
        await child.wait_all_gone()
        for server in (web, sse):
            await server.recorder.wait_until(
                lambda server=server: not server.open_connections,  # type: ignore[misc]  # a lambda
                "the end of all connections",
            )
        left = {task for task in asyncio.all_tasks() - listening if "connection" not in task.get_name()}
        assert {task.get_name() for task in left if not task.done()} == set()
        assert [process.pid for process in ours.children(recursive=True)] == []
        assert ours.num_fds() <= files
    assert asyncio.all_tasks() <= before | {asyncio.current_task()}
