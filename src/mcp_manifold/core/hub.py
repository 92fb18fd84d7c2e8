"""Owner of the current catalogue: adopts Listings, keeps a View for each scope, announces Changes.

A scope is an endpoint's set of backends: `""` is all of them, `"group:<name>"` some, `"server:<name>"` one under its
native names. Every scope has its own catalogue, so that its names are as short as possible. Readers take one reference
and keep it for the length of a request; nothing here locks.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Final

from mcp_manifold.clock import Clock, LoopClock
from mcp_manifold.config import BrokenServer, ManifoldSettings, OverrideSettings, ServerSettings
from mcp_manifold.errors import UnknownItem
from mcp_manifold.model.catalogue import (
    Catalogue,
    Change,
    Fault,
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
"""Seconds changes are collected before they are announced: backends that connect together cause one notification."""
MAX_REFS: Final = 10_000
"""URIs seen in results that are remembered; the oldest is forgotten first."""

ListCallback = Callable[[Sequence[str]], None]


@dataclass(frozen=True, slots=True)
class View:
    """The catalogue of one scope at one moment: all of it, and the part that clients may see."""

    whole: Catalogue
    catalogue: Catalogue
    listings: tuple[Listing, ...]
    missing: frozenset[str] = frozenset()
    """Members of the scope that have not listed yet."""
    shown: Catalogue = field(default_factory=Catalogue)
    """The entries that lists contain: those of servers that failed longer than the grace time ago are left out."""
    unavailable: tuple[UnavailableServer, ...] = ()
    """The unavailable members of the scope, whether their entries are shown or not."""
    faults: tuple[Fault, ...] = ()
    """Invalid items that clients may know of."""
    is_lost: bool = False
    """Every member failed, and no listing of any is known."""
    encoded: dict[tuple[Kind, str, int], bytes] = field(default_factory=dict, repr=False)
    """Pages of lists, encoded once for each kind, protocol version and first index."""


class Hub:
    """The catalogues of all scopes. Synchronous, except for the `wait_` methods; used from one event loop."""

    def __init__(
        self,
        servers: Sequence[ServerSettings],
        settings: ManifoldSettings,
        policy: Policy,
        *,
        broken: Sequence[BrokenServer] = (),
        clock: Clock | None = None,
    ) -> None:
        self.clock = clock or LoopClock()
        self._unavailability = Unavailability(settings.list_grace)
        self._take(servers, settings, policy, broken)
        self._startup = settings.startup_timeout
        self._listings: dict[str, Listing] = {}
        self.views: dict[str, View] = {}
        """The views made so far, by scope; only the hub changes it."""
        self._watchers: dict[str, list[ListCallback]] = {}
        self._changes: dict[str, set[Change]] = {}
        self._attempted: set[str] = set()
        self._cached: set[str] = set()
        self._started = self.clock.now()
        self._progress = asyncio.Event()
        self._refs: OrderedDict[str, str] = OrderedDict()

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
        self._prefixes = tuple((terms_of(each, native=False).prefix, each.name) for each in servers) + tuple(
            (each.name, each.name) for each in broken
        )
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
        """Use other settings from now on. A server that stays keeps its Listing until it lists again."""
        self._take(servers, settings, policy, broken)
        self._listings = {name: listing for name, listing in self._listings.items() if name in self._servers}
        self._attempted &= self._servers.keys()
        self._cached &= self._servers.keys()
        old, self.views = self.views, {}
        for scope, view in old.items():
            if self.has_scope(scope) or self._watchers.get(scope):
                self._note(scope, diff(view.shown, self.view(scope).shown))
        for server in self._unavailability:
            self._schedule_refresh(server)

    # --- cached listings ------------------------------------------------------------------------------------------

    def adopt_cached(self, listing: Listing) -> None:
        """Publish a backend's Listing of an earlier run, until the backend lists itself."""
        self._cached.add(listing.backend)
        self._publish(listing)

    def expect_attempt(self, backend: str) -> None:
        """Treat the next connection attempt to this backend as its first one."""
        self._attempted.discard(backend)

    # --- reports of the fleet -------------------------------------------------------------------------------------

    def adopt(self, listing: Listing) -> None:
        """Publish a new listing in every scope of its backend, and note the changes."""
        self._publish(listing)
        self.mark_attempted(listing.backend)

    def _publish(self, listing: Listing) -> None:
        self._listings[listing.backend] = listing
        for scope, old in list(self.views.items()):
            if listing.backend in self.members(scope):
                self.views[scope] = new = self._build(scope)
                self._note(scope, diff(old.shown, new.shown))

    def mark_unavailable(self, backend: str, reason: str, since: str) -> None:
        """Note that a backend failed. Lists report it, and contain its entries for the grace period."""
        if backend in self._servers and self._unavailability.mark_unavailable(
            backend, reason, now=self.clock.now(), since=since
        ):
            self._schedule_refresh(backend)
            self._refresh(backend)

    def mark_available(self, backend: str) -> None:
        """Note that a backend is connected, or has no link because none is needed."""
        if self._unavailability.mark_available(backend):
            self._refresh(backend)

    def _schedule_refresh(self, backend: str) -> None:
        """Refresh the views when the grace time of a backend ends. Refreshing twice is harmless."""
        left = self._unavailability.grace_left(backend, self.clock.now())
        if left:
            self.clock.call_later(left, self._refresh, backend)

    def _refresh(self, backend: str) -> None:
        """Update the views of a backend whose availability changed."""
        for scope, old in list(self.views.items()):
            if backend in self.members(scope):
                new = self.views[scope] = self._with_unavailable(scope, replace(old, encoded={}))
                self._note(scope, diff(old.shown, new.shown))

    def mark_attempted(self, backend: str) -> None:
        """Note that the first attempt at this backend has ended, with or without success."""
        self._attempted.add(backend)
        self._progress.set()
        self._progress = asyncio.Event()

    def _note(self, scope: str, changes: frozenset[Change]) -> None:
        if not changes or not self._watchers.get(scope):
            return
        waiting = self._changes.setdefault(scope, set())
        if not waiting:
            self.clock.call_later(ANNOUNCE_AFTER, self._announce, scope)
        waiting |= changes

    def _announce(self, scope: str) -> None:
        methods = [f"notifications/{change}/list_changed" for change in sorted(self._changes.pop(scope, ()))]
        for watcher in list(self._watchers.get(scope, ())):
            watcher(methods)

    # --- scopes and views -----------------------------------------------------------------------------------------

    def has_scope(self, scope: str) -> bool:
        """Whether a scope of that name exists."""
        kind, _, name = scope.partition(":")
        if kind == "server":
            return name in self._servers
        return scope == MERGED or (kind == "group" and name in self._groups)

    def prefix(self, scope: str, backend: str) -> str:
        """The prefix and separator of a backend's tool and prompt names in a scope; empty for native names."""
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
        """The current view of a scope."""
        view = self.views.get(scope)
        if view is None:
            view = self.views[scope] = self._build(scope)
        return view

    @property
    def is_started(self) -> bool:
        """Whether the first attempt at every backend has ended, or the start-up timeout is over."""
        return self._startup_left <= 0 or self._servers.keys() <= self._attempted

    @property
    def _startup_left(self) -> float:
        return self._started + self._startup - self.clock.now()

    def is_listable(self, scope: str) -> bool:
        """Whether the scope can be listed: it has a cached Listing, or the first attempt at each backend has ended.

        Backends without a listing are added when they list, and clients are notified. Otherwise one server that hangs
        and never listed would delay every start by the whole start-up timeout.
        """
        return not self._cached.isdisjoint(self.members(scope)) or self.has_attempted(scope)

    async def wait_listable(self, scope: str) -> None:
        """Wait until the scope can be listed, up to the start-up timeout."""
        if not self.is_listable(scope):
            await self.wait_attempted(scope)

    def has_attempted(self, scope: str) -> bool:
        """Whether the first attempt at every backend of the scope has ended, or the start-up timeout is over."""
        return self._attempted.issuperset(self.members(scope)) or self._startup_left <= 0

    async def wait_attempted(self, scope: str) -> None:
        """Wait until the first attempt at every backend of the scope has ended, up to the start-up timeout."""
        if not self.has_attempted(scope):
            await self.wait_tried(self.members(scope), self._startup_left)

    def untried(self, scope: str) -> tuple[str, ...]:
        """The members of a scope whose first attempt has not ended."""
        return tuple(name for name in self.members(scope) if name not in self._attempted)

    async def wait_tried(
        self, backends: Sequence[str], seconds: float, is_enough: Callable[[], bool] = lambda: False
    ) -> None:
        """Wait until the first attempt at each backend has ended, `is_enough` is true, or `seconds` are over."""
        with suppress(TimeoutError):
            async with self.clock.timeout(seconds):
                while not (is_enough() or self._attempted.issuperset(backends)):
                    await self._progress.wait()

    def route_resource(self, scope: str, uri: str) -> ResourceRoute | None:
        """The route of a public URI. Listed resources come first, then URIs seen in results, then templates."""
        view = self.view(scope)
        owner = self._refs.get(uri)
        if owner is not None and owner in view.catalogue.backends and view.whole.find_resource(uri) is None:
            return ResourceRoute(owner, uri) if self._policy.permits_uri(ANONYMOUS, owner, uri) else None
        return self._policy.route_resource(view.whole, view.catalogue, ANONYMOUS, uri)

    async def wait_routed(self, scope: str, uri: str, seconds: float) -> None:
        """Wait until a public URI has a route, as long as first attempts at the scope's backends are running.

        Raises:
            UnknownItem: it has none, or not within `seconds`.
        """
        await self.wait_tried(self.members(scope), seconds, lambda: self.route_resource(scope, uri) is not None)
        if self.route_resource(scope, uri) is None:
            raise UnknownItem("resource", uri)

    def route_name(self, scope: str, kind: Kind, name: str) -> tuple[str, str] | None:
        """The backend and the native name of an unlisted tool or prompt; None if it has no owner, or is hidden.

        It belongs to the server with the longest prefix that starts it, or to the only server of the scope.
        """
        members, separator = self.members(scope), self._rules.separator
        starts = (
            []
            if scope.startswith("server:")
            else [(f"{each}{separator}", owner) for each, owner in self._prefixes if each]
        )
        start = max((start for start, _ in starts if name.startswith(start)), key=len, default="")
        owners = [owner for each, owner in starts if each == start] if start else list(members)
        native = name[len(start) :]
        if len(owners) != 1 or owners[0] not in members or not 0 < len(native) <= MAX_URI:
            return None
        if not start and self.prefix(scope, owners[0]):
            return None
        backend, whole = owners[0], self.view(scope).whole
        renamed = terms_of(self._servers[backend], native=True).overrides.items()
        if any(of is kind and native == override.name for (of, _), override in renamed):
            return None  # the public name of another item, which may be hidden
        entries = whole.entries(kind)
        if name in whole.table(kind) or any((each.backend, each.native) == (backend, native) for each in entries):
            return None  # listed under another name, or hidden
        return (backend, native) if self._policy.permits_name(ANONYMOUS, backend, kind, native) else None

    async def find_resource(self, scope: str, uri: str) -> ResourceRoute:
        """Wait for the first attempts at the scope's backends, and return the route of a public URI.

        Raises:
            UnknownItem: the scope has no such resource.
        """
        route = self.route_resource(scope, uri)
        if route is None:
            await self.wait_attempted(scope)
            route = self.route_resource(scope, uri)
        if route is None:
            raise UnknownItem("resource", uri)
        return route

    def public_uri(self, scope: str, backend: str, uri: str) -> str:
        """The public URI of a backend's `uri` in a scope. The hub remembers it, so that clients can read it."""
        if len(uri) <= MAX_URI:
            self._refs[uri] = backend
            self._refs.move_to_end(uri)
            if len(self._refs) > MAX_REFS:
                self._refs.popitem(last=False)
        return self.view(scope).whole.public_uri(backend, uri)

    def watch(self, scope: str, changed: ListCallback) -> Callable[[], None]:
        """Call `changed` with the `list_changed` methods of lists that differ; returns a function that stops this."""
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
        whole = merge(offers, self._rules, () if native else self._prefixes)
        visible = self._policy.view(whole, ANONYMOUS)
        listings = tuple(self._listings[name] for name in known)
        faults = tuple(fault for each in listings for fault in each.faults if self._policy.tells(ANONYMOUS, fault))
        view = View(whole, visible, listings, frozenset(members) - self._listings.keys(), faults=faults)
        return self._with_unavailable(scope, view)

    def _with_unavailable(self, scope: str, view: View) -> View:
        """The view, with the servers that are unavailable now."""
        now, members = self.clock.now(), self.members(scope)
        over = {name for name in members if self._unavailability.is_grace_over(name, now)}
        found: list[UnavailableServer] = []
        for name in members:
            known = self._unavailability.find(name)
            if known is not None:
                found.append(replace(known, is_listed=name not in view.missing and name not in over))
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
    """The naming terms of a server. With `native`, its endpoint shows the server's own names."""
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
