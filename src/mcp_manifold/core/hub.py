"""Owner of the current catalogue: adopts Listings, keeps a view for each scope, announces Changes.

A scope is an endpoint's set of backends: `""` all of them, `"group:<name>"` some, `"server:<name>"` one under its
native names. Every scope has a catalogue of its own, merged by itself, so that its names are as short as they can be.
Readers take one reference and keep it for the length of a request; nothing here locks.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import anyio

from mcp_manifold.config import BrokenServer, ManifoldSettings, OverrideSettings, ServerSettings
from mcp_manifold.errors import UnknownItem
from mcp_manifold.model.catalogue import (
    Catalogue,
    Change,
    Kind,
    Listing,
    Override,
    ResourceRoute,
    Rules,
    Terms,
    diff,
    merge,
)
from mcp_manifold.model.names import MAX_URI
from mcp_manifold.model.policy import ANONYMOUS, Filters, Policy
from mcp_manifold.model.unavailability import Unavailability, UnavailableServer

MERGED: Final = ""
ANNOUNCE_AFTER: Final = 0.1
"""Seconds changes are collected before they are announced: backends that come up together are one Change."""
MAX_LINKS: Final = 10_000
"""Links seen in results that are remembered; the oldest is forgotten first."""

Watcher = Callable[[Sequence[str]], None]


@dataclass(frozen=True, slots=True)
class View:
    """What one scope offers at one moment: the whole catalogue, and the part of it that may be seen."""

    whole: Catalogue
    catalogue: Catalogue
    listings: tuple[Listing, ...]
    missing: frozenset[str] = frozenset()
    """Members of the scope that have not listed yet."""
    shown: Catalogue = field(default_factory=Catalogue)
    """What lists show of it: not what belongs to servers that have failed for long."""
    unavailable: tuple[UnavailableServer, ...] = ()
    """The members of the scope that are missing, whether their entries are shown or not."""
    is_lost: bool = False
    """Every member failed, and nothing is known of what any offers."""
    encoded: dict[tuple[Kind, str, int], bytes] = field(default_factory=dict, repr=False)
    """Pages of lists, encoded once for each kind, protocol version and place."""


class Hub:
    """See the module. Synchronous but for `settle`; lives on one event loop."""

    def __init__(
        self,
        servers: Sequence[ServerSettings],
        settings: ManifoldSettings,
        policy: Policy,
        *,
        broken: Sequence[BrokenServer] = (),
    ) -> None:
        self._unavailability = Unavailability(settings.list_grace)
        self._take(servers, settings, policy, broken)
        self._startup = settings.startup_timeout
        self._listings: dict[str, Listing] = {}
        self.views: dict[str, View] = {}
        """The views made so far, by scope; only the hub changes it."""
        self._watchers: dict[str, list[Watcher]] = {}
        self._changes: dict[str, set[Change]] = {}
        self._settled: set[str] = set()
        self._recalled: set[str] = set()
        self._loop = asyncio.get_running_loop()
        self._started = self._loop.time()
        self._progress = asyncio.Event()
        self._links: OrderedDict[str, str] = OrderedDict()

    def __repr__(self) -> str:
        return f"<Hub listings={len(self._listings)}/{len(self._servers)} scopes={sorted(self.views)}>"

    def _take(
        self,
        servers: Sequence[ServerSettings],
        settings: ManifoldSettings,
        policy: Policy,
        broken: Sequence[BrokenServer],
    ) -> None:
        self._servers = {server.name: server for server in servers if not server.disabled}
        self._broken = tuple(UnavailableServer(server.name, server.reason) for server in broken)
        self._unavailability.change_grace(settings.list_grace)
        self._unavailability.retain(self._servers)
        self._groups = settings.groups
        self._rules = Rules(separator=settings.separator, budget=settings.name_budget)
        self._policy = policy
        self.is_same_for_all = not settings.tokens and policy == Policy(dict.fromkeys(policy.filters, Filters()))
        """Whether neither a token nor a filter could make two clients' answers differ."""

    def apply(
        self,
        servers: Sequence[ServerSettings],
        settings: ManifoldSettings,
        policy: Policy,
        *,
        broken: Sequence[BrokenServer] = (),
    ) -> None:
        """Go by other settings from now on. A server that stays is shown as it last listed, until it lists again."""
        self._take(servers, settings, policy, broken)
        self._listings = {name: listing for name, listing in self._listings.items() if name in self._servers}
        self._settled &= self._servers.keys()
        self._recalled &= self._servers.keys()
        old, self.views = self.views, {}
        for scope, view in old.items():
            if self.has_scope(scope) or self._watchers.get(scope):
                self._note(scope, diff(view.shown, self.view(scope).shown))
        for server in self._unavailability:
            self._await_end(server)

    # --- what is known from an earlier time ------------------------------------------------------------------------

    def recall(self, listing: Listing) -> None:
        """This is what a backend offered last time: as good as listed, until it lists."""
        self._recalled.add(listing.backend)
        self._publish(listing)

    def expect(self, backend: str) -> None:
        """There is another attempt at this backend to come, as if it were the first."""
        self._settled.discard(backend)

    # --- what the fleet reports ------------------------------------------------------------------------------------

    def adopt(self, listing: Listing) -> None:
        """A backend listed: publish the new catalogue of every scope it is in, and note what changed."""
        self._publish(listing)
        self.settled(listing.backend)

    def _publish(self, listing: Listing) -> None:
        self._listings[listing.backend] = listing
        for scope, old in list(self.views.items()):
            if listing.backend in self.members(scope):
                self.views[scope] = new = self._build(scope)
                self._note(scope, diff(old.shown, new.shown))

    def missed(self, backend: str, reason: str, since: str) -> None:
        """A backend failed: lists say so, and show its entries for a while."""
        if backend in self._servers and self._unavailability.mark_unavailable(
            backend, reason, now=self._loop.time(), since=since
        ):
            self._await_end(backend)
            self._look_again(backend)

    def returned(self, backend: str) -> None:
        """A backend is there, or at rest."""
        if self._unavailability.mark_available(backend):
            self._look_again(backend)

    def _await_end(self, backend: str) -> None:
        """Look again when its entries are not to be shown any more; too often does no harm."""
        left = self._unavailability.grace_left(backend, self._loop.time())
        if left:
            self._loop.call_later(left, self._look_again, backend)

    def _look_again(self, backend: str) -> None:
        """Who is missing has changed, or how long: the views say so from now on."""
        for scope, old in list(self.views.items()):
            if backend in self.members(scope):
                new = self.views[scope] = self._with_absences(scope, replace(old, encoded={}))
                self._note(scope, diff(old.shown, new.shown))

    def settled(self, backend: str) -> None:
        """The first attempt at this backend is over, well or not."""
        self._settled.add(backend)
        self._progress.set()
        self._progress = asyncio.Event()

    def _note(self, scope: str, changes: frozenset[Change]) -> None:
        if not changes or not self._watchers.get(scope):
            return
        waiting = self._changes.setdefault(scope, set())
        if not waiting:
            self._loop.call_later(ANNOUNCE_AFTER, self._announce, scope)
        waiting |= changes

    def _announce(self, scope: str) -> None:
        methods = [f"notifications/{change}/list_changed" for change in sorted(self._changes.pop(scope, ()))]
        for watcher in list(self._watchers.get(scope, ())):
            watcher(methods)

    # --- what calls read ------------------------------------------------------------------------------------------

    def has_scope(self, scope: str) -> bool:
        """Whether there is such a scope."""
        kind, _, name = scope.partition(":")
        if kind == "server":
            return name in self._servers
        return scope == MERGED or (kind == "group" and name in self._groups)

    def unlisted(self, scope: str) -> tuple[str, ...]:
        """The members of a scope that have not listed yet."""
        return tuple(name for name in self.members(scope) if name not in self._listings)

    def prefix(self, scope: str, backend: str) -> str:
        """What the names of a backend's tools and prompts begin with in a scope; empty where they are native."""
        prefix = terms_of(self._servers[backend], native=scope.startswith("server:")).prefix
        return f"{prefix}{self._rules.separator}" if prefix else ""

    def members(self, scope: str) -> tuple[str, ...]:
        """The backends of a scope, in configuration order."""
        kind, _, name = scope.partition(":")
        if kind == "server":
            return (name,) if name in self._servers else ()
        if kind == "group":
            wanted = self._groups.get(name, ())
            return tuple(server for server in self._servers if server in wanted)
        return tuple(self._servers)

    def view(self, scope: str) -> View:
        """The scope's view of this moment."""
        view = self.views.get(scope)
        if view is None:
            view = self.views[scope] = self._build(scope)
        return view

    @property
    def is_settled(self) -> bool:
        """Whether every backend was tried once, or the start-up timeout is over."""
        over = self._loop.time() >= self._started + self._startup
        return over or self._servers.keys() <= self._settled

    async def settle(self, scope: str) -> None:
        """Wait until the scope can be listed: nothing to wait for as soon as anything is known of it from last time.

        Whoever is not known yet joins when it has listed, and clients are told. Otherwise one server that hangs, and
        never listed, would cost every start the whole start-up timeout.
        """
        if not self.has_settled(scope):
            await self.tried(scope)

    def has_settled(self, scope: str) -> bool:
        """Whether `settle` would not wait."""
        members = self.members(scope)
        if not self._recalled.isdisjoint(members) or self._settled.issuperset(members):
            return True
        return self._loop.time() >= self._started + self._startup

    def was_tried(self, scope: str) -> bool:
        """Whether `tried` would not wait."""
        over = self._loop.time() >= self._started + self._startup
        return over or self._settled.issuperset(self.members(scope))

    async def tried(self, scope: str) -> None:
        """Wait for the scope's backends that are still at their first attempt, up to the start-up timeout in all."""
        members = set(self.members(scope))
        left = self._started + self._startup - self._loop.time()
        if left <= 0 or members <= self._settled:
            return
        with anyio.move_on_after(left):
            while not members <= self._settled:
                await self._progress.wait()

    def route_resource(self, scope: str, uri: str) -> ResourceRoute | None:
        """Where a URI is read: what is listed comes first, then who linked to it, then templates and schemes."""
        view = self.view(scope)
        linked = self._links.get(uri)
        if linked is not None and linked in view.catalogue.backends and view.whole.find_resource(uri) is None:
            return ResourceRoute(linked, uri) if self._policy.permits_uri(ANONYMOUS, linked, uri) else None
        return self._policy.route_resource(view.whole, view.catalogue, ANONYMOUS, uri)

    async def find_resource(self, scope: str, uri: str) -> ResourceRoute:
        """As `route_resource`, once the backends that are just connecting had their chance.

        Raises:
            UnknownItem: there is no such resource for the scope's clients.
        """
        route = self.route_resource(scope, uri)
        if route is None:
            await self.tried(scope)
            route = self.route_resource(scope, uri)
        if route is None:
            raise UnknownItem("resource", uri)
        return route

    def public_uri(self, scope: str, backend: str, uri: str) -> str:
        """The URI clients of the scope are told where the backend says `uri`; remembered, so that it can be read."""
        if len(uri) <= MAX_URI:
            self._links[uri] = backend
            self._links.move_to_end(uri)
            if len(self._links) > MAX_LINKS:
                self._links.popitem(last=False)
        return self.view(scope).whole.public_uri(backend, uri)

    def watch(self, scope: str, changed: Watcher) -> Callable[[], None]:
        """Call `changed` with the list_changed methods of real differences; returns how to stop."""
        self.view(scope)
        watchers = self._watchers.setdefault(scope, [])
        watchers.append(changed)

        def unwatch() -> None:
            if changed in watchers:
                watchers.remove(changed)

        return unwatch

    def _build(self, scope: str) -> View:
        native = scope.startswith("server:")
        members = self.members(scope)
        known = [name for name in members if name in self._listings]
        offers = [(self._listings[name], terms_of(self._servers[name], native=native)) for name in known]
        whole = merge(offers, self._rules)
        visible = self._policy.view(whole, ANONYMOUS)
        listings = tuple(self._listings[name] for name in known)
        view = View(whole, visible, listings, frozenset(members) - self._listings.keys())
        return self._with_absences(scope, view)

    def _with_absences(self, scope: str, view: View) -> View:
        """The view, with who is missing in it at this moment."""
        now, members = self._loop.time(), self.members(scope)
        over = {name for name in members if self._unavailability.is_grace_over(name, now)}
        found: list[UnavailableServer] = []
        for name in members:
            absence = self._unavailability.find(name)
            if absence is not None:
                found.append(replace(absence, is_listed=name not in view.missing and name not in over))
            elif name in view.missing:
                found.append(UnavailableServer(name, "has not listed what it offers yet", is_failure=False))
        found += [each for each in self._broken if self._has_broken(scope, each.server)]
        shown = view.catalogue
        if over & set(shown.backends):
            left = [name for name in shown.backends if name not in over]
            shown = shown.restrict(lambda entry: entry.backend not in over, members=left)
        lost = {each.server for each in found if each.is_failure and not each.is_listed}
        return replace(view, shown=shown, unavailable=tuple(found), is_lost=bool(lost) and lost.issuperset(members))

    def _has_broken(self, scope: str, name: str) -> bool:
        kind, _, group = scope.partition(":")
        return scope == MERGED or (kind == "group" and name in self._groups.get(group, ()))


def terms_of(server: ServerSettings, *, native: bool) -> Terms:
    """How a server is presented; `native`: on an endpoint of its own, under its own names."""
    prefix = "" if native else (server.name if server.prefix is None else server.prefix)
    overrides: dict[tuple[Kind, str], Override] = {}
    groups: tuple[tuple[Kind, Mapping[str, OverrideSettings]], ...] = (
        (Kind.TOOL, server.overrides.tools),
        (Kind.PROMPT, server.overrides.prompts),
        (Kind.RESOURCE, server.overrides.resources),
        (Kind.TEMPLATE, server.overrides.resources),
    )
    for kind, configured in groups:
        for name, override in configured.items():
            overrides[(kind, name)] = Override(override.name, override.title, override.description)
    return Terms(prefix, "auto" if native else server.uris, overrides)
