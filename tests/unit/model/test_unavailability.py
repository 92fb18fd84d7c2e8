"""Unavailable servers: their place in lists, how long their entries stay, and when lists fail."""

import json
from typing import Any

import pytest

from mcp_manifold.config import BrokenServer, ManifoldSettings
from mcp_manifold.core.hub import MERGED, Hub
from mcp_manifold.core.scope_responder import ScopeResponder
from mcp_manifold.errors import AllUnavailable
from mcp_manifold.model.policy import policy_of
from mcp_manifold.model.unavailability import Unavailability, UnavailableServer
from mcp_manifold.wire import LATEST_HANDSHAKE, MODERN_VERSION, Payload
from tests.fakes.clock import settled
from tests.unit.core.test_hub import Watching, listing, server
from tests.unit.stages.calls import make_call

pytestmark = pytest.mark.anyio

SINCE = "2026-01-31T11:00:01.250Z"
KEY = "mcp-manifold/missing"
GONE = {"server": "git", "reason": "connection refused", "since": SINCE, "entries": "kept"}


class House:
    """A hub with two servers that may become unavailable, and its lists."""

    def __init__(self, *, broken: tuple[BrokenServer, ...] = (), **settings: Any) -> None:
        self.servers = (server("git"), server("files"))
        self.settings = ManifoldSettings.model_validate({"startup_timeout": 0.01, **settings})
        self.hub = Hub(self.servers, self.settings, policy_of(self.servers), broken=broken)
        self.responder = ScopeResponder(self.hub, server_info=Payload(b'{"name":"m","version":"1"}'), instructions="")

    def lists(self, *servers: str) -> None:
        for name in servers:
            self.hub.adopt(listing(name, tools=["t"], resources=[f"{name}://r"]))

    def misses(self, name: str, reason: str = "connection refused") -> None:
        self.hub.mark_attempted(name)
        self.hub.mark_unavailable(name, reason, SINCE)

    async def answer(self, *, scope: str = MERGED, version: str = LATEST_HANDSHAKE, kind: str = "tools") -> Any:
        call = make_call(f"{kind}/list", version=version, scope=scope)
        return json.loads(b"".join(self.responder.answer(call)))

    async def tools(self) -> list[str]:
        return [tool["name"] for tool in (await self.answer())["tools"]]


def test_only_new_failures_and_recoveries_count_as_changes() -> None:
    unavailable = Unavailability(10.0)
    assert unavailable.mark_unavailable("a", "refused", now=100.0, since=SINCE)
    assert not unavailable.mark_unavailable("a", "refused", now=105.0, since="later")
    assert unavailable.mark_unavailable("a", "no such program", now=106.0, since="later")
    assert unavailable.find("a") == UnavailableServer("a", "no such program", SINCE)
    assert [unavailable.is_grace_over("a", now) for now in (109.0, 110.0)] == [False, True]
    assert unavailable.mark_available("a")
    assert not unavailable.mark_available("a")
    assert (unavailable.find("a"), unavailable.is_grace_over("a", 1000.0)) == (None, False)
    for name in ("a", "b"):
        unavailable.mark_unavailable(name, "refused", now=1.0, since="")
    unavailable.retain({"b"})
    assert list(unavailable) == ["b"]


@pytest.mark.parametrize("version", [LATEST_HANDSHAKE, MODERN_VERSION])
@pytest.mark.parametrize("kind", ["tools", "prompts", "resources", "resources/templates"])
async def test_every_list_names_unavailable_servers_and_reasons(kind: str, version: str) -> None:
    house = House()
    house.lists("git", "files")
    assert KEY not in (await house.answer(kind=kind, version=version)).get("_meta", {})
    house.misses("git")
    found = await house.answer(kind=kind, version=version)
    assert found["_meta"][KEY] == [GONE]
    assert (found.get("ttlMs", 0), found.get("cacheScope", "private")) == (0, "private")
    house.hub.mark_available("git")
    assert KEY not in (await house.answer(kind=kind, version=version)).get("_meta", {})


async def test_after_the_grace_period_entries_leave_and_clients_are_notified() -> None:
    house, watching = House(list_grace=0.05), Watching()
    house.lists("git", "files")
    house.hub.watch(MERGED, watching)
    house.misses("git")
    assert await house.tools() == ["git__t", "files__t"]
    assert await watching.until(1) == [["notifications/resources/list_changed", "notifications/tools/list_changed"]]
    assert await house.tools() == ["files__t"]
    assert (await house.answer())["_meta"][KEY] == [{**GONE, "entries": "none"}]
    house.hub.mark_available("git")
    await watching.until(2)
    assert await house.tools() == ["git__t", "files__t"]


async def test_a_recovery_within_the_grace_period_sends_no_notification() -> None:
    house, watching = House(list_grace=60.0), Watching()
    house.lists("git", "files")
    house.hub.watch(MERGED, watching)
    house.misses("git")
    house.hub.mark_available("git")
    house.lists("git")
    await settled()
    assert watching.told == []


async def test_a_name_that_left_the_list_still_routes_and_returns_with_a_longer_grace() -> None:
    house = House(list_grace=0)
    house.lists("git", "files")
    house.misses("git")
    assert await house.tools() == ["files__t"]
    assert "git__t" in house.hub.view(MERGED).catalogue.tools
    assert house.hub.route_resource(MERGED, "git://r") is not None
    settings = house.settings.model_copy(update={"list_grace": 60.0})
    house.hub.apply(house.servers, settings, policy_of(house.servers))
    assert await house.tools() == ["git__t", "files__t"]


async def test_a_server_that_never_listed_is_named_too() -> None:
    house = House()
    house.lists("files")
    found = await house.answer()
    reason = "has not listed what it offers yet"
    assert found["_meta"][KEY] == [{"server": "git", "reason": reason, "entries": "none"}]


async def test_an_unusable_server_is_named_in_its_scopes_only() -> None:
    house = House(broken=(BrokenServer("web", "KEY is not set"),), groups={"one": ["web", "git"], "two": ["git"]})
    house.lists("git", "files")
    broken = [{"server": "web", "reason": "KEY is not set", "entries": "none"}]
    assert (await house.answer())["_meta"][KEY] == broken
    assert (await house.answer(scope="group:one"))["_meta"][KEY] == broken
    house.misses("git")
    assert (await house.answer(scope="group:two"))["_meta"][KEY] == [GONE]
    assert "_meta" not in await house.answer(scope="server:files")


async def test_lists_fail_when_all_servers_failed_without_entries() -> None:
    house = House()
    house.misses("git")
    house.misses("files", "no such program")
    for kind in ("tools", "prompts", "resources", "resources/templates"):
        with pytest.raises(AllUnavailable, match=r"git: connection refused; files: no such program"):
            await house.answer(kind=kind)
    house.lists("files")
    house.hub.mark_available("files")
    assert await house.tools() == ["files__t"]


@pytest.mark.parametrize("list_grace", [60, 0])
async def test_lists_succeed_while_entries_are_kept_or_a_server_has_not_listed(list_grace: int) -> None:
    house = House(list_grace=list_grace)
    house.misses("git")
    assert await house.tools() == [], "the other server may still list"
    house.lists("git", "files")
    house.misses("git")
    house.misses("files")
    if list_grace:
        assert await house.tools() == ["git__t", "files__t"]
    else:
        with pytest.raises(AllUnavailable):
            await house.answer()


async def test_without_servers_or_visible_entries_lists_are_empty() -> None:
    house = House()
    house.hub.apply((), house.settings, policy_of(()))
    assert await house.tools() == []
    hiding = (server("git", tools={"allow": []}),)
    house.hub.apply(hiding, house.settings, policy_of(hiding))
    house.lists("git")
    house.misses("git")
    assert await house.tools() == []


async def test_lists_fail_when_all_servers_are_misconfigured() -> None:
    house = House(broken=(BrokenServer("web", "KEY is not set"),))
    house.hub.apply((), house.settings, policy_of(()), broken=(BrokenServer("web", "KEY is not set"),))
    with pytest.raises(AllUnavailable, match="web: KEY is not set"):
        await house.answer()
