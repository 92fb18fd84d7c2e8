"""The short way of a list: when it may be taken, and that it says what the long way does, from bytes that are kept."""

import asyncio
import json
from typing import Any

import pytest

from mcp_manifold.core.lists import Lists
from mcp_manifold.core.scope_responder import ScopeResponder
from mcp_manifold.errors import AllUnavailable, InvalidParams, ManifoldError, TooManyRequests
from mcp_manifold.model.call import Call, Session, Stages
from mcp_manifold.model.catalogue import Hint, Listing
from mcp_manifold.model.policy import ANONYMOUS
from mcp_manifold.wire import HANDSHAKE_VERSIONS, LATEST_HANDSHAKE, MODERN_VERSION, Payload, Pieces, encode
from tests.unit.core.house import INFO, LISTS, House, server, unheard
from tests.unit.core.test_lane import Watching

pytestmark = pytest.mark.anyio


class Ways:
    """Both ways of a list over one house, with two stages."""

    def __init__(self, house: House, *, page_size: int = 0) -> None:
        self.house = house
        self.first, self.second = Watching(), Watching()
        self.offering = ScopeResponder(house.hub, server_info=INFO, instructions="", page_size=page_size)
        self.lists = Lists(self.offering, Stages([self.first, self.second]))

    def call(self, method: str, version: str = LATEST_HANDSHAKE, scope: str = "", **params: Any) -> Call:
        raw = {key: Payload(encode(value)) for key, value in params.items()}
        return Call(method, raw, Session("", ANONYMOUS, scope, version), unheard)

    def listed(self, method: str = "tools/list", version: str = LATEST_HANDSHAKE, **of: Any) -> Pieces | None:
        return self.lists.listed(self.call(method, version, **of))

    async def both(self, method: str = "tools/list", version: str = LATEST_HANDSHAKE, **of: Any) -> Any:
        """What either way says, which is the same."""
        short = self.listed(method, version, **of)
        long = bytes(await self.offering.methods[method](self.call(method, version, **of)))
        assert short is not None
        assert b"".join(short) == long
        return json.loads(long)


def filled() -> House:
    house = House(server("a"), server("b"), groups={"team": ["b"]})
    for name in ("a", "b"):
        house.offers(name, tools=["t", "u", "v"], prompts=["p"], resources=[f"{name}:1"], templates=[f"{name}:{{v}}"])
    return house


@pytest.mark.parametrize("version", [*HANDSHAKE_VERSIONS, MODERN_VERSION])
@pytest.mark.parametrize("method", LISTS)
async def test_a_list_is_the_same_either_way(method: str, version: str) -> None:
    ways = Ways(filled())
    for scope in ("", "server:a", "group:team"):
        found = await ways.both(method, version, scope=scope)
        (items,) = [value for value in found.values() if isinstance(value, list)]
        assert items


async def test_what_is_given_is_what_is_kept() -> None:
    ways = Ways(filled())
    (first,), (second,) = ways.listed() or (), ways.listed() or ()
    assert first is second
    ways.house.offers("a", tools=["other"])
    (third,) = ways.listed() or ()
    assert b"a__other" in bytes(third)


async def test_the_time_a_list_may_be_kept_is_put_behind_what_is_kept() -> None:
    house = House(server("a"))
    hint = Hint(60_000, is_public=False, at=asyncio.get_running_loop().time())
    house.offers("a", era="modern", tools=["t"], hints={"tools/list": hint})
    ways = Ways(house)
    first, second = (ways.listed(version=MODERN_VERSION) for _ in range(2))
    assert first is not None
    assert second is not None
    assert isinstance(first[0], memoryview)
    assert isinstance(second[0], memoryview)
    assert first[0].obj is second[0].obj
    assert 59_000 < json.loads(b"".join(first))["ttlMs"] <= 60_000


async def test_pages_are_the_same_either_way_and_so_is_a_wrong_cursor() -> None:
    ways = Ways(filled(), page_size=4)
    cursor = (await ways.both())["nextCursor"]
    assert len((await ways.both(cursor=cursor))["tools"]) == 2
    with pytest.raises(InvalidParams):
        ways.listed(cursor="x")
    assert ways.second.ends[-1] == "InvalidParams"
    assert not ways.first.flying


async def test_who_is_missing_is_said_either_way() -> None:
    ways = Ways(filled())
    ways.house.hub.missed("a", "is gone", "")
    found = await ways.both()
    assert found["_meta"]["mcp-manifold/missing"][0]["server"] == "a"


async def test_a_scope_that_is_lost_is_an_error_either_way() -> None:
    ways = Ways(House(server("a")))
    ways.house.hub.missed("a", "is gone", "")
    ways.house.hub.settled("a")
    with pytest.raises(AllUnavailable):
        ways.listed()
    assert (ways.first.ends, ways.second.ends) == (["AllUnavailable"], ["AllUnavailable"])


async def test_during_start_up_a_list_has_to_wait_and_no_stage_hears_of_it() -> None:
    house = House(server("a"), server("b"), startup_timeout=60)
    ways = Ways(house)
    assert ways.listed() is None
    house.offers("a", tools=["t"])
    assert ways.listed() is None
    assert ways.listed(scope="server:a") is not None
    house.hub.settled("b")  # it failed
    assert ways.listed() is not None
    assert ways.first.ends == ["ok", "ok"]


async def test_what_is_known_from_last_time_is_listed_at_once() -> None:
    house = House(server("a"), startup_timeout=60)
    ways = Ways(house)
    house.hub.recall(Listing("a", 1, "handshake", tools=(b'{"name":"t"}',)))
    assert ways.listed() is not None


async def test_a_backend_that_gets_another_chance_is_waited_for() -> None:
    house = House(server("a"), startup_timeout=60)
    house.offers("a", tools=["t"])
    ways = Ways(house)
    house.hub.expect("a")
    assert ways.listed() is None


async def test_what_is_no_list_is_not_given() -> None:
    ways = Ways(filled())
    for method in ("ping", "tasks/list", "tools/call"):
        assert ways.listed(method) is None
    assert not ways.first.ends


async def test_every_stage_hears_of_a_list_and_may_refuse_it() -> None:
    ways = Ways(filled())
    assert ways.listed() is not None
    assert (ways.first.ends, ways.second.ends) == (["ok"], ["ok"])
    ways.second.refusal = TooManyRequests("not now", retry_after=1.0)
    with pytest.raises(ManifoldError, match="not now"):
        ways.listed()
    assert (ways.first.ends, ways.second.ends) == (["ok", "TooManyRequests"], ["ok"])
    assert not ways.first.flying
