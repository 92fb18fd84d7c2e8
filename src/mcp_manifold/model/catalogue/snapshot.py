"""The Catalogue value: all entries of all backends, and the routing of names and URIs to them.

No merging, principals or live links. A restricted catalogue never routes to anything that the whole one does not: its
aliases and routes are a subset, never computed anew, so that hiding one backend's entry cannot route its calls to
another backend.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from mcp_manifold.model.catalogue.entry import CHANGE_OF, Change, Entry, Kind, ResourceRoute, Uris
from mcp_manifold.model.names import (
    UriTemplate,
    compile_template,
    lower_scheme,
    normalise_uri,
    prefixed_uri,
    scheme,
    split_prefixed_uri,
)

Table = Mapping[str, Entry]


@dataclass(frozen=True, slots=True)
class Matcher:
    """A listed template, compiled for matching."""

    entry: Entry
    template: UriTemplate
    scheme: str
    """The template's scheme in the backend's spelling."""

    def native_of(self, uri: str) -> str | None:
        """`uri` with the scheme in the backend's spelling; None when the template cannot expand to it."""
        if not self.template.matches(lower_scheme(uri)):
            return None
        return self.scheme + uri[len(self.scheme) :] if self.scheme else uri


@dataclass(frozen=True, slots=True)
class ResourceRoutes:
    """The tables that route a URI to its backend if the URI is not a public key."""

    uris: Mapping[str, Uris] = field(default_factory=dict)
    """The `uris` setting of each backend."""
    natives: Mapping[tuple[str, str], Entry] = field(default_factory=dict)
    """Resources by backend and native URI, and by backend and normalised native URI."""
    spellings: Table = field(default_factory=dict)
    """Resources by normalised public URI."""
    matchers: tuple[Matcher, ...] = ()
    schemes: Mapping[str, str] = field(default_factory=dict)
    """URI schemes that only one backend lists, and that backend."""

    @classmethod
    def to(cls, resources: Iterable[Entry], templates: Iterable[Entry], uris: Mapping[str, Uris]) -> "ResourceRoutes":
        """The routes to these entries."""
        resources, templates = tuple(resources), tuple(templates)
        natives: dict[tuple[str, str], Entry] = {(entry.backend, entry.native): entry for entry in resources}
        spellings: dict[str, Entry] = {}
        for entry in resources:
            natives.setdefault((entry.backend, normalise_uri(entry.native)), entry)
            spellings.setdefault(normalise_uri(entry.key), entry)
        matchers = tuple(matcher for entry in templates if (matcher := _matcher(entry)) is not None)
        return cls(uris, natives, spellings, matchers, _only_owners((*resources, *templates)))

    def restrict(self, keep: Callable[[Entry], bool], members: Collection[str]) -> "ResourceRoutes":
        """The routes to the kept entries, and to `members` for unlisted URIs."""
        return ResourceRoutes(
            self.uris,
            {key: entry for key, entry in self.natives.items() if keep(entry)},
            {key: entry for key, entry in self.spellings.items() if keep(entry)},
            tuple(matcher for matcher in self.matchers if keep(matcher.entry)),
            {name: backend for name, backend in self.schemes.items() if backend in members},
        )


def _matcher(entry: Entry) -> Matcher | None:
    template = compile_template(lower_scheme(entry.native))
    return Matcher(entry, template, entry.native[: len(scheme(entry.native))]) if template else None


def _only_owners(entries: Iterable[Entry]) -> dict[str, str]:
    owners: dict[str, set[str]] = {}
    for entry in entries:
        owners.setdefault(scheme(entry.native), set()).add(entry.backend)
    return {name: next(iter(found)) for name, found in owners.items() if name and len(found) == 1}


@dataclass(frozen=True, slots=True)
class Catalogue:
    """All entries: public key to entry by kind, in the order of the backends and of their own lists."""

    backends: tuple[str, ...] = ()
    tools: Table = field(default_factory=dict)
    prompts: Table = field(default_factory=dict)
    resources: Table = field(default_factory=dict)
    templates: Table = field(default_factory=dict)
    aliases: Mapping[tuple[Kind, str], Entry] = field(default_factory=dict)
    """Native tool and prompt names that are unambiguous and not public names."""
    problems: tuple[str, ...] = ()
    """Problems of the merge for the user, one sentence each."""
    routes: ResourceRoutes = field(default_factory=ResourceRoutes, repr=False)

    def __repr__(self) -> str:
        counts = ", ".join(f"{len(self.table(kind))} {kind}s" for kind in Kind)
        return f"<Catalogue of {', '.join(self.backends) or 'no backend'}: {counts}; {len(self.problems)} problems>"

    def table(self, kind: Kind) -> Table:
        """Public key to entry of one kind."""
        match kind:
            case Kind.TOOL:
                return self.tools
            case Kind.PROMPT:
                return self.prompts
            case Kind.RESOURCE:
                return self.resources
            case Kind.TEMPLATE:
                return self.templates

    def entries(self, kind: Kind) -> tuple[Entry, ...]:
        """All entries of one kind, in order."""
        return tuple(self.table(kind).values())

    def find_tool(self, name: str) -> Entry | None:
        """The tool with a public key, else the one with that unambiguous native name."""
        return self.tools.get(name) or self.aliases.get((Kind.TOOL, name))

    def find(self, kind: Kind, key: str) -> Entry | None:
        """The entry with a public key, else the tool or prompt with that unambiguous native name."""
        return self.table(kind).get(key) or self.aliases.get((kind, key))

    def find_resource(self, uri: str) -> ResourceRoute | None:
        """The route of a URI, listed or not; None when no backend matches.

        Precedence: a public URI; another spelling of one; `<server>+<uri>`; the first backend with a matching
        template; the only backend that lists the URI's scheme.
        """
        entry = self.resources.get(uri) or self.routes.spellings.get(normalise_uri(uri))
        if entry is not None:
            return ResourceRoute(entry.backend, entry.native)
        prefixed = split_prefixed_uri(uri, self.routes.uris)
        if prefixed is not None:
            return self._of_member(*prefixed)
        return self._templated(uri) or self._by_scheme(uri)

    def _of_member(self, backend: str, own: str) -> ResourceRoute | None:
        if backend not in self.backends:
            return None
        entry = self.listed(ResourceRoute(backend, own))
        return ResourceRoute(backend, entry.native if entry else own)

    def _templated(self, uri: str) -> ResourceRoute | None:
        for matcher in self.routes.matchers:
            if matcher.entry.key == matcher.entry.native and (native := matcher.native_of(uri)) is not None:
                return ResourceRoute(matcher.entry.backend, native)
        return None

    def _by_scheme(self, uri: str) -> ResourceRoute | None:
        backend = self.routes.schemes.get(scheme(uri))
        return ResourceRoute(backend, uri) if backend is not None else None

    def listed(self, route: ResourceRoute) -> Entry | None:
        """The entry to which a route leads, if the backend lists that URI in any spelling."""
        natives = self.routes.natives
        return natives.get((route.backend, route.uri)) or natives.get((route.backend, normalise_uri(route.uri)))

    def matching(self, backend: str, uri: str) -> Iterator[Entry]:
        """The templates of `backend` that can expand to its native `uri`."""
        for matcher in self.routes.matchers:
            if matcher.entry.backend == backend and matcher.native_of(uri) is not None:
                yield matcher.entry

    def public_uri(self, backend: str, native: str) -> str:
        """The public URI for a backend's `native` URI: one that routes back to that backend.

        It is `native` itself, unless the backend's URIs are always prefixed or `native` routes to another backend.
        """
        entry = self.routes.natives.get((backend, native))
        if entry is not None:
            return entry.key
        style = self.routes.uris.get(backend, "auto")
        if style == "prefix":
            return prefixed_uri(backend, native)
        if style == "verbatim":
            return native
        route = self.find_resource(native)
        return native if route is None or route == ResourceRoute(backend, native) else prefixed_uri(backend, native)

    def restrict(self, predicate: Callable[[Entry], bool], *, members: Collection[str] | None = None) -> "Catalogue":
        """The catalogue of the entries for which `predicate` is true.

        `members` are the backends that unlisted URIs may still route to; by default those with an entry left.
        `problems` is empty, because it would reveal hidden entries.
        """
        tables = {kind: _only(self.table(kind), predicate) for kind in Kind}
        if members is None:
            members = {entry.backend for table in tables.values() for entry in table.values()}
        backends = tuple(backend for backend in self.backends if backend in members)
        if backends == self.backends and all(len(tables[kind]) == len(self.table(kind)) for kind in Kind):
            return self

        def keep(entry: Entry) -> bool:
            return entry.key in tables[entry.kind]

        return replace(
            self,
            backends=backends,
            tools=tables[Kind.TOOL],
            prompts=tables[Kind.PROMPT],
            resources=tables[Kind.RESOURCE],
            templates=tables[Kind.TEMPLATE],
            aliases={key: entry for key, entry in self.aliases.items() if keep(entry)},
            problems=(),
            routes=self.routes.restrict(keep, backends),
        )


def _only(table: Table, predicate: Callable[[Entry], bool]) -> Table:
    return MappingProxyType({key: entry for key, entry in table.items() if predicate(entry)})


def diff(old: Catalogue, new: Catalogue) -> frozenset[Change]:
    """The parts of the catalogue that differ for clients, in payloads or order."""
    return frozenset(CHANGE_OF[kind] for kind in Kind if _payloads(old, kind) != _payloads(new, kind))


def _payloads(catalogue: Catalogue, kind: Kind) -> list[bytes]:
    return [entry.raw for entry in catalogue.table(kind).values()]
