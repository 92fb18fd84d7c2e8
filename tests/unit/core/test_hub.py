"""The Hub: views of listings, waiting for first attempts, announcements, and routes of URIs."""

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import pytest

from mcp_manifold.config import ManifoldSettings, ServerSettings
from mcp_manifold.core.hub import ANNOUNCE_AFTER, MAX_REFS, MERGED, Hub, terms_of
from mcp_manifold.model.catalogue import Kind, Listing, ResourceRoute
from mcp_manifold.model.names import MAX_URI
from mcp_manifold.model.policy import policy_of
from tests.fakes.clock import FakeClock, settled
from tests.fakes.news import News

pytestmark = pytest.mark.anyio


def server(name: str, **settings: Any) -> ServerSettings:
    return ServerSettings.model_validate({"name": name, "command": "x", **settings})


def listing(
    backend: str,
    *,
    tools: Sequence[str] = (),
    prompts: Sequence[str] = (),
    resources: Sequence[str] = (),
    templates: Sequence[str] = (),
    revision: int = 1,
) -> Listing:
    def items(member: str, values: Sequence[str]) -> tuple[bytes, ...]:
        return tuple(json.dumps({"name": value, member: value}).encode() for value in values)

    return Listing(
        backend,
        revision,
        "handshake",
        items("name", tools),
        items("name", prompts),
        items("uri", resources),
        items("uriTemplate", templates),
    )


def hub(*servers: ServerSettings, clock: FakeClock | None = None, **settings: Any) -> Hub:
    return Hub(servers, ManifoldSettings.model_validate(settings), policy_of(servers), clock=clock)


def names(made: Hub, scope: str = MERGED, kind: Kind = Kind.TOOL) -> list[str]:
    return list(made.view(scope).catalogue.table(kind))


class Watching:
    """A watcher that remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[list[str]] = []
        self._news = News()

    def __call__(self, methods: Sequence[str]) -> None:
        self.told.append(list(methods))
        self._news.tell()

    async def until(self, count: int) -> list[list[str]]:
        await self._news.nth(count, lambda: self.told)
        return self.told


# --- scopes ---------------------------------------------------------------------------------------------------------


async def test_every_endpoint_is_a_scope_and_nothing_else_is() -> None:
    made = hub(server("a"), server("b"), server("off", disabled=True), groups={"team": ["b", "a"]})
    assert [scope for scope in ("", "server:a", "server:b", "group:team") if not made.has_scope(scope)] == []
    for scope in ("server:", "server:c", "server:off", "group:", "group:a", "team", "a", "x:a", "server:a:b"):
        assert not made.has_scope(scope)


async def test_members_are_in_configuration_order_and_enabled() -> None:
    made = hub(server("b"), server("a"), server("off", disabled=True), groups={"team": ["off", "a", "b"], "one": ["a"]})
    assert made.members(MERGED) == ("b", "a")
    assert made.members("group:team") == ("b", "a")
    assert made.members("group:one") == ("a",)
    assert made.members("server:a") == ("a",)
    assert made.members("server:off") == ()
    assert made.members("group:none") == ()


async def test_the_settings_of_names_hold() -> None:
    made = hub(server("a"), separator="-", name_budget=16)
    made.adopt(listing("a", tools=["t", "x" * 40]))
    short, long = names(made)
    assert short == "a-t"
    assert len(long) == 16


async def test_a_catalogue_is_in_configuration_order_whoever_listed_first() -> None:
    made = hub(server("a"), server("b"))
    made.adopt(listing("b", tools=["t"]))
    made.adopt(listing("a", tools=["t"]))
    assert names(made) == ["a__t", "b__t"]


async def test_a_view_once_taken_never_changes() -> None:
    made = hub(server("a"))
    made.adopt(listing("a", tools=["old"]))
    taken = made.view(MERGED)
    assert made.view(MERGED) is taken
    made.adopt(listing("a", tools=["new"], revision=2))
    assert list(taken.catalogue.tools) == ["a__old"]
    assert names(made) == ["a__new"]


async def test_a_view_stays_when_a_backend_of_another_scope_lists() -> None:
    made = hub(server("a"), server("b"))
    taken = made.view("server:a")
    made.adopt(listing("b", tools=["t"]))
    assert made.view("server:a") is taken


async def test_overrides_rename_every_kind() -> None:
    overrides = {
        "tools": {"t": {"name": "renamed", "description": "D"}},
        "prompts": {"p": {"title": "T"}},
        "resources": {"x:1": {"name": "R"}, "x:{v}": {"description": "V"}},
    }
    terms = terms_of(server("a", overrides=overrides), native=False)
    assert {key: (value.name, value.title, value.description) for key, value in terms.overrides.items()} == {
        (Kind.TOOL, "t"): ("renamed", None, "D"),
        (Kind.PROMPT, "p"): (None, "T", None),
        (Kind.RESOURCE, "x:1"): ("R", None, None),
        (Kind.RESOURCE, "x:{v}"): (None, None, "V"),
        (Kind.TEMPLATE, "x:1"): ("R", None, None),
        (Kind.TEMPLATE, "x:{v}"): (None, None, "V"),
    }
    made = hub(server("a", overrides=overrides))
    made.adopt(listing("a", tools=["t"]))
    (entry,) = made.view(MERGED).catalogue.entries(Kind.TOOL)
    assert (entry.key, entry.native, json.loads(entry.raw)["description"]) == ("a__renamed", "t", "D")


@pytest.mark.parametrize(
    ("settings", "native", "expected"),
    [
        ({}, False, ("a", "auto")),
        ({"prefix": "p"}, False, ("p", "auto")),
        ({"prefix": ""}, False, ("", "auto")),
        ({"uris": "prefix"}, False, ("a", "prefix")),
        ({"prefix": "p", "uris": "prefix"}, True, ("", "auto")),
    ],
)
async def test_terms_are_those_of_the_endpoint(settings: Any, native: bool, expected: tuple[str, str]) -> None:
    terms = terms_of(server("a", **settings), native=native)
    assert (terms.prefix, terms.uris) == expected


# --- first attempts ---------------------------------------------------------------------------------------------------


async def test_a_list_waits_for_the_first_attempts_of_its_own_scope() -> None:
    clock = FakeClock()
    made = hub(server("a"), server("b"), startup_timeout=10, clock=clock)
    one, all_ = (asyncio.create_task(made.wait_listable(scope)) for scope in ("server:a", MERGED))
    await settled()
    made.adopt(listing("a", tools=["t"]))
    await settled()
    assert (one.done(), all_.done(), made.is_started) == (True, False, False)
    made.mark_attempted("b")
    await settled()
    assert (all_.done(), made.is_started, clock.pending) == (True, True, 0)
    await made.wait_listable(MERGED)


async def test_a_list_waits_no_longer_than_the_startup_timeout() -> None:
    clock = FakeClock()
    made = hub(server("a"), startup_timeout=10, clock=clock)
    waiting = asyncio.create_task(made.wait_attempted(MERGED))
    await clock.advance(9)
    assert not waiting.done()
    await clock.advance(1)
    assert (waiting.done(), waiting.exception(), made.is_started, made.is_listable(MERGED)) == (True, None, True, True)


async def test_a_cached_listing_is_listed_at_once() -> None:
    made = hub(server("a"), server("b"), startup_timeout=60, clock=FakeClock())
    made.adopt_cached(listing("a", tools=["t"]))
    await made.wait_listable(MERGED)
    assert (names(made), made.is_started, made.has_attempted(MERGED)) == (["a__t"], False, False)


async def test_another_attempt_can_be_waited_for() -> None:
    made = hub(server("a"), startup_timeout=60, clock=FakeClock())
    made.adopt(listing("a"))
    made.expect_attempt("a")
    assert not made.is_listable(MERGED)


async def test_without_servers_there_is_nothing_to_wait_for() -> None:
    made = hub(startup_timeout=60, clock=FakeClock())
    assert made.is_started
    await made.wait_listable(MERGED)
    assert names(made) == []


# --- announcements ----------------------------------------------------------------------------------------------------


class Announced:
    """A hub on a clock moved by hand, and the methods announced to a watcher of each scope."""

    def __init__(self, *servers: ServerSettings) -> None:
        self.clock = FakeClock()
        self.hub = hub(*servers, clock=self.clock)

    def watch(self, scope: str = MERGED) -> list[list[str]]:
        found: list[list[str]] = []
        self.hub.watch(scope, lambda methods: found.append(list(methods)))
        return found

    async def adopt(self, *listings: Listing) -> None:
        for each in listings:
            self.hub.adopt(each)
        await self.clock.advance(ANNOUNCE_AFTER)


def changed(*kinds: str) -> list[str]:
    return [f"notifications/{kind}/list_changed" for kind in kinds]


async def test_changes_that_come_together_are_announced_once() -> None:
    made = Announced(server("a"), server("b"))
    found = made.watch()
    await made.adopt(listing("a", tools=["t"], resources=["x:1"]), listing("b", tools=["t"], prompts=["p"]))
    await made.adopt(listing("b", tools=["t"], prompts=["q"]))
    assert found == [changed("prompts", "resources", "tools"), changed("prompts")]


async def test_changes_that_clients_do_not_see_are_not_announced() -> None:
    made = Announced(server("a", tools={"block": ["secret*"]}))
    await made.adopt(listing("a", tools=["t"], prompts=["p"]))
    found = made.watch()
    await made.adopt(listing("a", tools=["t"], prompts=["p"], revision=2))
    await made.adopt(listing("a", tools=["t", "secret"], prompts=["p"], revision=3))
    await made.adopt(listing("a", tools=["t", "secret"], prompts=["q"], revision=4))
    assert found == [changed("prompts")]


async def test_a_scope_announces_changes_of_its_own_backends_only() -> None:
    made = Announced(server("a"), server("b"))
    everything, one = made.watch(), made.watch("server:a")
    await made.adopt(listing("b", tools=["t"]))
    await made.adopt(listing("a", prompts=["p"]))
    assert (everything, one) == ([changed("tools"), changed("prompts")], [changed("prompts")])


async def test_templates_change_as_resources_do() -> None:
    made = Announced(server("a"))
    found = made.watch()
    await made.adopt(listing("a", templates=["x:{v}"]))
    assert found == [changed("resources")]


async def test_a_watcher_that_stopped_is_not_called() -> None:
    made, gone = Announced(server("a")), list[Sequence[str]]()
    unwatch = made.hub.watch(MERGED, gone.append)
    found = made.watch()
    made.hub.adopt(listing("a", tools=["t"]))
    unwatch()
    unwatch()
    await made.clock.advance(ANNOUNCE_AFTER)
    assert (gone, found) == ([], [changed("tools")])


# --- resources ------------------------------------------------------------------------------------------------------


async def test_a_uri_seen_in_a_result_leads_back_to_its_backend() -> None:
    made = hub(server("a"), server("b"))
    made.adopt(listing("a"))
    made.adopt(listing("b"))
    assert made.route_resource(MERGED, "x:1") is None
    assert made.public_uri(MERGED, "b", "x:1") == "x:1"
    assert made.route_resource(MERGED, "x:1") == ResourceRoute("b", "x:1")
    assert made.route_resource("server:a", "x:1") is None


async def test_a_uri_seen_in_a_result_never_replaces_a_listed_one() -> None:
    made = hub(server("a"), server("b"))
    made.adopt(listing("a", resources=["x:1"], templates=["y:{v}"]))
    made.adopt(listing("b"))
    told = [made.public_uri(MERGED, "b", uri) for uri in ("x:1", "y:2", "x:3")]
    assert told == ["b+x:1", "b+y:2", "b+x:3"]
    assert [made.route_resource(MERGED, uri) for uri in ("x:1", "y:2", "x:3")] == [
        ResourceRoute("a", "x:1"),
        ResourceRoute("a", "y:2"),
        ResourceRoute("a", "x:3"),
    ]
    assert [made.route_resource(MERGED, uri) for uri in told] == [
        ResourceRoute("b", uri) for uri in ("x:1", "y:2", "x:3")
    ]


async def test_s43_a_uri_seen_in_a_result_does_not_bypass_a_filter() -> None:
    made = hub(server("a", resources={"block": ["x:secret*"]}))
    made.adopt(listing("a"))
    for uri in ("x:secret", "x:secret/1", "X:secret", "x:%73ecret", "x:a/../secret", "x:open"):
        made.public_uri(MERGED, "a", uri)
    assert made.route_resource(MERGED, "x:open") == ResourceRoute("a", "x:open")
    for uri in ("x:secret", "x:secret/1", "X:secret", "x:%73ecret", "x:a/../secret", "a+x:secret"):
        assert made.route_resource(MERGED, uri) is None


async def test_uris_seen_in_results_are_forgotten_oldest_first() -> None:
    made = hub(server("a"))
    made.adopt(listing("a"))
    for uri in ("x:first", "x:second", "x:first", *(f"x:{number}" for number in range(MAX_REFS - 1))):
        made.public_uri(MERGED, "a", uri)
    assert made.route_resource(MERGED, "x:second") is None
    assert made.route_resource(MERGED, "x:first") == ResourceRoute("a", "x:first")
    assert made.route_resource(MERGED, "x:0") == ResourceRoute("a", "x:0")


async def test_a_uri_too_long_for_filters_is_not_remembered() -> None:
    made = hub(server("a"))
    made.adopt(listing("a"))
    long = "x:" + "1" * MAX_URI
    made.public_uri(MERGED, "a", long)
    assert made.route_resource(MERGED, long) is None
