"""Who is missing: what lists say of it, how long entries stay, and when there is nothing left to say but an error."""

import asyncio
import json
from typing import Any

import pytest

from mcp_manifold.config import BrokenServer, ManifoldSettings
from mcp_manifold.core.hub import MERGED, Hub
from mcp_manifold.core.scope_responder import ScopeResponder
from mcp_manifold.errors import AllUnavailable
from mcp_manifold.model.call import Call, Session
from mcp_manifold.model.policy import ANONYMOUS, policy_of
from mcp_manifold.model.unavailability import Unavailability, UnavailableServer
from mcp_manifold.wire import LATEST_HANDSHAKE, MODERN_VERSION, Payload
from tests.unit.core.test_hub import BOUND, Watching, listing, server

pytestmark = pytest.mark.anyio

SINCE = "2026-01-31T11:00:01.250Z"
KEY = "mcp-manifold/missing"
GONE = {"server": "git", "reason": "connection refused", "since": SINCE, "entries": "kept"}


class House:
    """A hub with two servers, of which one may be missing, and what it lists."""

    def __init__(self, *, broken: tuple[BrokenServer, ...] = (), **settings: Any) -> None:
        self.servers = (server("git"), server("files"))
        self.settings = ManifoldSettings.model_validate({"startup_timeout": 0.01, **settings})
        self.hub = Hub(self.servers, self.settings, policy_of(self.servers), broken=broken)
        self.offering = ScopeResponder(self.hub, server_info=Payload(b'{"name":"m","version":"1"}'), instructions="")

    def __repr__(self) -> str:
        return f"<House {self.hub!r}>"

    def lists(self, *servers: str) -> None:
        for name in servers:
            self.hub.adopt(listing(name, tools=["t"], resources=[f"{name}://r"]))

    def misses(self, name: str, reason: str = "connection refused") -> None:
        self.hub.settled(name)
        self.hub.missed(name, reason, SINCE)

    async def answer(self, *, scope: str = MERGED, version: str = LATEST_HANDSHAKE, kind: str = "tools") -> Any:
        session = Session("", ANONYMOUS, scope, version)
        call = Call(f"{kind}/list", {}, session, lambda *_, **__: None)
        async with asyncio.timeout(BOUND):
            return json.loads(bytes(await self.offering.methods[call.method](call)))

    async def tools(self) -> list[str]:
        return [tool["name"] for tool in (await self.answer())["tools"]]


# --- how long (pure) -----------------------------------------------------------------------------------------------


def test_an_absence_begins_once_and_ends_with_the_return() -> None:
    unavailable = Unavailability(10.0)
    assert unavailable.mark_unavailable("a", "refused", now=100.0, since=SINCE)
    assert not unavailable.mark_unavailable("a", "refused", now=105.0, since="later")
    assert unavailable.mark_unavailable("a", "no such program", now=106.0, since="later")
    assert unavailable.find("a") == UnavailableServer("a", "no such program", SINCE)
    assert [unavailable.is_grace_over("a", now) for now in (109.0, 110.0)] == [False, True]
    assert unavailable.mark_available("a")
    assert not unavailable.mark_available("a")
    assert unavailable.find("a") is None
    assert not unavailable.is_grace_over("a", 1000.0)


def test_no_grace_is_over_at_once() -> None:
    unavailable = Unavailability(0.0)
    unavailable.mark_unavailable("a", "refused", now=100.0, since="")
    assert unavailable.is_grace_over("a", 100.0)


def test_who_is_not_kept_is_forgotten() -> None:
    unavailable = Unavailability(1.0)
    unavailable.mark_unavailable("a", "refused", now=1.0, since="")
    unavailable.mark_unavailable("b", "refused", now=1.0, since="")
    unavailable.retain({"b"})
    assert list(unavailable) == ["b"]


# --- what lists say ------------------------------------------------------------------------------------------------


async def test_a_list_of_servers_that_are_all_there_says_nothing_of_it() -> None:
    house = House()
    house.lists("git", "files")
    assert "_meta" not in await house.answer()
    assert KEY not in (await house.answer(version=MODERN_VERSION))["_meta"]


@pytest.mark.parametrize("version", [LATEST_HANDSHAKE, MODERN_VERSION])
@pytest.mark.parametrize("kind", ["tools", "prompts", "resources", "resources/templates"])
async def test_every_list_says_who_is_missing_and_why(kind: str, version: str) -> None:
    house = House()
    house.lists("git", "files")
    await house.answer(kind=kind, version=version)
    house.misses("git")
    found = await house.answer(kind=kind, version=version)
    assert found["_meta"][KEY] == [GONE]
    assert found.get("ttlMs", 0) == 0
    assert found.get("cacheScope", "private") == "private"
    house.hub.returned("git")
    assert KEY not in (await house.answer(kind=kind, version=version)).get("_meta", {})


async def test_the_entries_of_a_server_that_failed_stay_for_the_grace() -> None:
    house = House()
    house.lists("git", "files")
    house.misses("git")
    assert await house.tools() == ["git__t", "files__t"]


async def test_after_the_grace_they_go_and_clients_are_told() -> None:
    house, watching = House(list_grace=0.05), Watching()
    house.lists("git", "files")
    house.hub.watch(MERGED, watching)
    house.misses("git")
    assert await house.tools() == ["git__t", "files__t"]
    assert await watching.until(1) == [["notifications/resources/list_changed", "notifications/tools/list_changed"]]
    assert await house.tools() == ["files__t"]
    assert (await house.answer())["_meta"][KEY] == [{**GONE, "entries": "none"}]
    house.hub.returned("git")
    await watching.until(2)
    assert await house.tools() == ["git__t", "files__t"]


async def test_who_comes_back_within_the_grace_costs_nobody_a_change() -> None:
    house, watching = House(list_grace=60.0), Watching()
    house.lists("git", "files")
    house.hub.watch(MERGED, watching)
    house.misses("git")
    house.hub.returned("git")
    house.lists("git")
    assert not house.hub._changes
    assert watching.told == []


async def test_a_name_that_is_not_listed_any_more_still_leads_to_its_server() -> None:
    house = House(list_grace=0)
    house.lists("git", "files")
    house.misses("git")
    assert await house.tools() == ["files__t"]
    view = house.hub.view(MERGED)
    assert "git__t" in view.catalogue.tools
    assert house.hub.route_resource(MERGED, "git://r") is not None


async def test_another_grace_holds_at_once() -> None:
    house = House(list_grace=0)
    house.lists("git", "files")
    house.misses("git")
    assert await house.tools() == ["files__t"]
    settings = house.settings.model_copy(update={"list_grace": 60.0})
    house.hub.apply(house.servers, settings, policy_of(house.servers))
    assert await house.tools() == ["git__t", "files__t"]


async def test_a_server_that_never_listed_is_missing_too() -> None:
    house = House()
    house.lists("files")
    found = await house.answer()
    reason = "has not listed what it offers yet"
    assert found["_meta"][KEY] == [{"server": "git", "reason": reason, "entries": "none"}]


async def test_a_server_whose_configuration_is_broken_is_missing_where_it_belongs() -> None:
    house = House(broken=(BrokenServer("web", "KEY is not set"),), groups={"one": ["web", "git"], "two": ["git"]})
    house.lists("git", "files")
    told = [{"server": "web", "reason": "KEY is not set", "entries": "none"}]
    assert (await house.answer())["_meta"][KEY] == told
    assert (await house.answer(scope="group:one"))["_meta"][KEY] == told
    assert "_meta" not in await house.answer(scope="group:two")
    assert "_meta" not in await house.answer(scope="server:git")


async def test_servers_of_other_endpoints_are_not_missing_here() -> None:
    house = House()
    house.lists("git", "files")
    house.misses("git")
    assert "_meta" not in await house.answer(scope="server:files")


# --- all of them ---------------------------------------------------------------------------------------------------


async def test_when_all_failed_and_nothing_is_known_lists_are_errors() -> None:
    house = House()
    house.misses("git")
    house.misses("files", "no such program")
    for kind in ("tools", "prompts", "resources", "resources/templates"):
        with pytest.raises(AllUnavailable, match=r"git: connection refused; files: no such program"):
            await house.answer(kind=kind)
    house.lists("files")
    house.hub.returned("files")
    assert await house.tools() == ["files__t"]


async def test_while_entries_are_kept_lists_are_no_errors() -> None:
    house = House()
    house.lists("git", "files")
    house.misses("git")
    house.misses("files")
    assert await house.tools() == ["git__t", "files__t"]


async def test_after_the_grace_of_all_lists_are_errors() -> None:
    house = House(list_grace=0)
    house.lists("git", "files")
    house.misses("git")
    house.misses("files")
    with pytest.raises(AllUnavailable):
        await house.answer()


async def test_one_that_has_only_not_listed_yet_is_no_failure() -> None:
    house = House()
    house.misses("git")
    assert await house.tools() == []


async def test_nothing_configured_and_everything_hidden_are_empty_lists() -> None:
    house = House()
    house.hub.apply((), house.settings, policy_of(()))
    assert await house.tools() == []
    hiding = (server("git", tools={"allow": []}),)
    house.hub.apply(hiding, house.settings, policy_of(hiding))
    house.lists("git")
    house.misses("git")
    assert await house.tools() == []


async def test_only_broken_servers_are_all_that_failed() -> None:
    house = House(broken=(BrokenServer("web", "KEY is not set"),))
    house.hub.apply((), house.settings, policy_of(()), broken=(BrokenServer("web", "KEY is not set"),))
    with pytest.raises(AllUnavailable, match="web: KEY is not set"):
        await house.answer()
