"""All backends together: one that is down, hanging or broken costs the others nothing, and stopping ends everything."""

import pytest

from mcp_manifold.errors import BackendError, BackendUnavailable
from mcp_manifold.model.lifecycle import State
from tests.peers.backend import Act, HttpBackend, Script, StdioBackend, named, tool
from tests.unit.backends.linking import Caller, text_of, within
from tests.unit.backends.running import fleet_of, over_stdio, over_web, request

pytestmark = pytest.mark.anyio

HANDSHAKE = Script(era="handshake", tools=(tool("echo"), tool("hang", Act("hang"))))


async def test_bad_backends_do_not_hold_up_or_end_the_good_one() -> None:
    async with (
        HttpBackend(HANDSHAKE) as good,
        StdioBackend(named("stuck")) as stuck,
        StdioBackend(Script(banner="not MCP\n" * 100, on={"initialize": Act("garbage", then=Act("die"))})) as broken,
    ):
        settings = (
            over_stdio(stuck, "stuck", timeout=0.2),
            over_web("http://127.0.0.1:9/mcp", "down"),
            over_stdio(broken, "broken"),
            over_web(good.url, "good"),
        )
        async with fleet_of(*settings, patience=0.2) as (fleet, context):
            await context.until(lambda: fleet["good"].listing is not None)
            for name in ("down", "broken"):
                await context.until(lambda name=name: fleet[name].status.failures >= 2)  # type: ignore[misc]  # a lambda
            result = await within(request(fleet, "good", Caller().call(name="echo", arguments={"text": "x"})))
            assert text_of(result) == "x"
            for name in ("stuck", "down", "broken"):
                with pytest.raises(BackendError) as caught:
                    await within(request(fleet, name, Caller().call(name="echo", arguments={})))
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


async def test_a_released_session_is_released_everywhere() -> None:
    async with (
        HttpBackend(HANDSHAKE) as one,
        HttpBackend(HANDSHAKE) as two,
        fleet_of(over_web(one.url, "one"), over_web(two.url, "two")) as (fleet, _),
    ):
        for name in fleet:
            await within(request(fleet, name, Caller("c").call(name="echo", arguments={})))
        fleet.release("c")
        for server in (one, two):
            await server.recorder.wait_until(lambda server=server: server.deletes, "the end of a session")  # type: ignore[misc]  # a lambda
