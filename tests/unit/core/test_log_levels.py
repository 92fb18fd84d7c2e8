"""Log levels of links, and the clients that a message is sent to."""

import asyncio

import pytest

from mcp_manifold.core.log_levels import SET_WAIT
from mcp_manifold.errors import RemoteError
from tests.fakes.clock import settled
from tests.unit.backends.linking import within
from tests.unit.core.test_watching import Place, client_of

pytestmark = pytest.mark.anyio


async def test_a_backend_without_logging_is_sent_no_level() -> None:
    place, client = Place("a", "b"), client_of()
    _, loud = await place.open("a")
    _, mute = await place.open("b", says=b"{}")
    await place.ask(client.call("logging/setLevel", level="debug"))
    assert (loud.methods, mute.methods) == (["logging/setLevel"], [])


async def test_a_client_of_one_server_does_not_change_the_level_of_another() -> None:
    place, client = Place("a", "b"), client_of(scope="server:a")
    _, mine = await place.open("a")
    link, other = await place.open("b")
    await place.ask(client.call("logging/setLevel", level="debug"))
    assert (mine.methods, other.methods) == (["logging/setLevel"], [])
    place.notice(link, "notifications/message", level="alert", data=1)
    assert client.told == []


async def test_a_level_that_a_backend_refuses_is_sent_once() -> None:
    place, client = Place("a"), client_of()
    link, transport = await place.open("a", deaf=True)
    asking = asyncio.ensure_future(place.ask(client.call("logging/setLevel", level="debug")))
    pending = await transport.sent(1)
    link.fail(pending, RemoteError(b"{}", code=-32603, backend="a"))
    assert bytes(await within(asking)) == b"{}"
    await place.ask(client.call("logging/setLevel", level="debug"))
    assert transport.methods == ["logging/setLevel"]


async def test_of_levels_set_in_a_row_only_the_first_and_the_last_are_sent() -> None:
    place, client = Place("a"), client_of()
    client.session.key = "own"
    place.backends["a"].places[client.session] = "own"
    link, transport = await place.open("a", "own", holder=client.session, deaf=True)
    asked = [
        asyncio.ensure_future(place.ask(client.call("logging/setLevel", level=level)))
        for level in ("debug", "error", "warning")
    ]
    for count in (1, 2):
        pending = await transport.sent(count)
        link.fed(b'{"jsonrpc":"2.0","id":%d,"result":{}}' % pending.number)
    await within(asyncio.gather(*asked))
    assert [body["params"]["level"] for _, body in transport.requests] == ["debug", "warning"]


async def test_a_message_that_may_be_about_several_calls_is_counted_and_dropped() -> None:
    place, client = Place("a"), client_of()
    link, _ = await place.open("a")
    await place.ask(client.call("logging/setLevel", level="debug"))
    place.notice(link, "notifications/message", level="alert", data=1, concurrent=True)
    assert client.told == []
    assert place.levels.dropped == 1


@pytest.mark.parametrize("level", ["loud", 7, None, "INFO"])
async def test_a_message_with_an_unknown_level_is_dropped(level: object) -> None:
    place, client = Place("a"), client_of()
    link, _ = await place.open("a")
    await place.ask(client.call("logging/setLevel", level="debug"))
    place.notice(link, "notifications/message", level=level, data=1)
    assert client.told == []


async def test_a_removed_server_affects_no_client() -> None:
    place, client = Place("a", "b"), client_of()
    link, _ = await place.open("a")
    await place.ask(client.call("logging/setLevel", level="debug"))
    del place.backends["a"]
    place.notice(link, "notifications/message", level="alert", data=1)
    await place.ask(client.call("logging/setLevel", level="info"))
    await place.levels.raise_level(link, "debug")
    place.levels.lower_level(link, "debug")
    place.levels.ended(client.session)
    assert client.told == []
    assert "clients=0" in repr(place.levels)


async def test_a_link_has_the_most_verbose_level_of_its_modern_calls() -> None:
    place = Place("a")
    link, transport = await place.open("a")
    for level in ("error", "debug"):
        await place.levels.raise_level(link, level)
    for level in ("debug", "error", "error"):
        place.levels.lower_level(link, level)
    await settled()
    assert [body["params"]["level"] for _, body in transport.requests] == ["info", "debug", "info"]


async def test_a_level_whose_call_is_cancelled_while_the_backend_thinks_is_lowered() -> None:
    place = Place("a")
    link, transport = await place.open("a", deaf=True)
    raising = asyncio.ensure_future(place.levels.raise_level(link, "debug"))
    pending = await transport.sent(1)
    raising.cancel()
    await asyncio.wait({raising})
    link.fed(b'{"jsonrpc":"2.0","id":%d,"result":{}}' % pending.number)
    await settled()
    assert [body["params"]["level"] for _, body in transport.requests] == ["debug", "info"]


async def test_a_client_waits_only_so_long_for_a_backend_to_accept_its_level() -> None:
    place, client = Place("a"), client_of()
    await place.open("a", deaf=True)
    asking = asyncio.ensure_future(place.ask(client.call("logging/setLevel", level="debug")))
    await place.clock.advance(SET_WAIT)
    assert bytes(await within(asking)) == b"{}"
