"""Access rules: which principal may see and call which entry. Pure predicates; no sessions, rates or secrets.

A hidden entry looks like an unknown one: nothing here tells them apart. Filters match native names and URIs, so an
alias, a rename or a prefix cannot bypass one.
"""

import fnmatch
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from mcp_manifold.config import FilterSettings, ServerSettings
from mcp_manifold.config.values import pattern_problem
from mcp_manifold.model.catalogue import Catalogue, Entry, Fault, Kind, ResourceRoute
from mcp_manifold.model.names import MAX_URI, has_dot_segments, lower_scheme, spellings

_DEFAULTS: Final[Mapping[str, bool]] = {
    "readOnlyHint": False,
    "destructiveHint": True,
    "idempotentHint": False,
    "openWorldHint": True,
}
"""The protocol's defaults for hints that a tool does not state (2025-11-25 schema, ToolAnnotations)."""
_QUOTED: Final = 40
"""Characters of an invalid pattern that an error quotes."""


@dataclass(frozen=True, slots=True)
class Principal:
    """The authenticated caller. `key` is an opaque, stable identity to bind state to, never the credential itself."""

    name: str
    key: str
    credential: str = field(default="", compare=False, repr=False)
    """A digest of the credential that was used; a caller may have several."""


ANONYMOUS: Final = Principal("anonymous", "anonymous")
"""Every caller of an endpoint without authentication."""
LOCAL: Final = Principal("local", "local")
"""The single client of a stdio front: the user who started the program."""


@dataclass(frozen=True, slots=True)
class _Pattern:
    """One item of an allow or block list: a name, a glob, or a test of a tool's annotations."""

    text: str
    glob: re.Pattern[str]
    uri_glob: re.Pattern[str]
    """The glob with a lower-case scheme, for URIs that are not listed."""
    test: str
    """The annotation test; empty for a name or a glob."""
    expected: bool

    def matches(self, entry: Entry) -> bool:
        if self.test:
            return entry.kind is Kind.TOOL and _passes(self.test, entry) is self.expected
        return any(map(self.matches_name, {entry.native, entry.native_name}))

    def matches_name(self, name: str) -> bool:
        return self.text == name or self.glob.match(name) is not None

    def matches_folded(self, name: str) -> bool:
        text, name = _folded(self.text), _folded(name)
        return text == name or _glob(text).match(name) is not None

    def matches_uri(self, uri: str) -> bool:
        return not self.test and (lower_scheme(self.text) == uri or self.uri_glob.match(uri) is not None)


def _folded(name: str) -> str:
    return unicodedata.normalize("NFKC", name).casefold().strip()


def _passes(test: str, tool: Entry) -> bool:
    """Whether a tool passes an annotation test."""
    hints = {**_DEFAULTS, **dict(tool.annotations)}
    if test == "destructive":  # meaningless for a read-only tool
        return hints["destructiveHint"] and not hints["readOnlyHint"]
    return hints[f"{test}Hint"]


def _compiled(text: str) -> _Pattern:
    problem = pattern_problem(text)
    if problem:
        raise ValueError(f"{problem}, got {text[:_QUOTED]!r}")
    test = text.lstrip("!@")
    return _Pattern(text, _glob(text), _glob(lower_scheme(text)), "" if test == text else test, "!" not in text)


def _glob(text: str) -> re.Pattern[str]:
    # `translate` puts every star but the last into an atomic group, so a match never backtracks.
    return re.compile(fnmatch.translate(text))


@dataclass(frozen=True, slots=True)
class Filter:
    """An allow list and a block list; the block list wins. No allow list allows all, an empty one allows nothing."""

    allow: tuple[_Pattern, ...] | None = None
    block: tuple[_Pattern, ...] = ()

    @classmethod
    def compile(cls, allow: Sequence[str] | None = None, block: Sequence[str] = ()) -> "Filter":
        """The filter of these patterns: exact names, globs (`*`, `?`, `[...]`), or tests such as `@readOnly`.

        Raises:
            ValueError: a pattern names an unknown test, or is too expensive to match.
        """
        return cls(None if allow is None else tuple(map(_compiled, allow)), tuple(map(_compiled, block)))

    def __repr__(self) -> str:
        allowed = "everything" if self.allow is None else [pattern.text for pattern in self.allow]
        return f"<Filter allowing {allowed}, blocking {[pattern.text for pattern in self.block]}>"

    @property
    def is_open(self) -> bool:
        """Whether the filter allows everything."""
        return self.allow is None and not self.block

    def allows(self, entry: Entry) -> bool:
        """Whether the filter allows `entry`."""
        if self.blocks(entry):
            return False
        return self.allow is None or any(pattern.matches(entry) for pattern in self.allow)

    def blocks(self, entry: Entry) -> bool:
        """Whether the block list matches `entry`."""
        return any(pattern.matches(entry) for pattern in self.block)

    def allows_uri(self, uri: str) -> bool:
        """Whether the filter allows a URI that is not listed."""
        if self.blocks_uri(uri):
            return False
        return self.allow is None or any(pattern.matches_uri(lower_scheme(uri)) for pattern in self.allow)

    def blocks_uri(self, uri: str) -> bool:
        """Whether a URI that is not listed is blocked, in any equivalent spelling.

        A filter that restricts anything also blocks URIs over MAX_URI characters and URIs with `.` or `..` segments,
        which backends may resolve to another resource.
        """
        if self.is_open:
            return False
        if len(uri) > MAX_URI or has_dot_segments(uri):
            return True
        return bool(self.block) and any(
            pattern.matches_uri(spelling) for spelling in spellings(uri) for pattern in self.block
        )

    def allows_name(self, name: str) -> bool:
        """Whether the filter allows a tool or prompt that is not listed.

        Tests cannot judge it, so a filter with one refuses it. A block list also matches regardless of case and width,
        because backends may.
        """
        if any(pattern.test for pattern in (*(self.allow or ()), *self.block)):
            return False
        if any(pattern.matches_folded(name) for pattern in self.block):
            return False
        return self.allow is None or any(pattern.matches_name(name) for pattern in self.allow)

    def unmatched(self, entries: Iterable[Entry]) -> tuple[str, ...]:
        """The patterns that match none of `entries`, which are most likely typing errors."""
        known = tuple(entries)
        patterns = (*(self.allow or ()), *self.block)
        return tuple(
            dict.fromkeys(pattern.text for pattern in patterns if not any(pattern.matches(entry) for entry in known))
        )


OPEN: Final = Filter()


@dataclass(frozen=True, slots=True)
class Filters:
    """The filters of one backend. Templates use the filter of resources."""

    tools: Filter = OPEN
    prompts: Filter = OPEN
    resources: Filter = OPEN

    def of(self, kind: Kind) -> Filter:
        """The filter for entries of `kind`."""
        match kind:
            case Kind.TOOL:
                return self.tools
            case Kind.PROMPT:
                return self.prompts
            case Kind.RESOURCE | Kind.TEMPLATE:
                return self.resources


_UNFILTERED: Final = Filters()


@dataclass(frozen=True, slots=True)
class Grant:
    """The limits of one principal: its backends (None: all), and filters in addition to the general ones."""

    backends: frozenset[str] | None = None
    filters: Mapping[str, Filters] = field(default_factory=dict)


_UNLIMITED: Final = Grant()


@dataclass(frozen=True, slots=True)
class Policy:
    """The filters of all principals, by backend; and by principal name, the grants that narrow them."""

    filters: Mapping[str, Filters] = field(default_factory=dict)
    grants: Mapping[str, Grant] = field(default_factory=dict)

    def reaches(self, principal: Principal, backend: str) -> bool:
        """Whether the principal may use the backend at all."""
        limit = self._grant(principal).backends
        return limit is None or backend in limit

    def sees(self, principal: Principal, entry: Entry) -> bool:
        """Whether the principal may see the entry, and therefore call it."""
        return self.reaches(principal, entry.backend) and all(
            each.allows(entry) for each in self._filters(principal, entry.backend, entry.kind)
        )

    def tells(self, principal: Principal, fault: Fault) -> bool:
        """Whether the principal may learn of an invalid item: the filters hide nothing of its backend and kind."""
        filters = self._filters(principal, fault.backend, fault.kind)
        return self.reaches(principal, fault.backend) and all(each.is_open for each in filters)

    def permits_name(self, principal: Principal, backend: str, kind: Kind, native: str) -> bool:
        """Whether the principal may call a tool or get a prompt that the backend does not list."""
        return self.reaches(principal, backend) and all(
            each.allows_name(native) for each in self._filters(principal, backend, kind)
        )

    def permits_uri(self, principal: Principal, backend: str, uri: str) -> bool:
        """Whether the principal may read an unlisted URI of the backend."""
        return self.reaches(principal, backend) and all(
            each.allows_uri(uri) for each in self._filters(principal, backend, Kind.RESOURCE)
        )

    def view(self, catalogue: Catalogue, principal: Principal) -> Catalogue:
        """The part of the catalogue that the principal sees."""
        members = [backend for backend in catalogue.backends if self.reaches(principal, backend)]
        return catalogue.restrict(lambda entry: self.sees(principal, entry), members=members)

    def route_resource(
        self, catalogue: Catalogue, view: Catalogue, principal: Principal, uri: str
    ) -> ResourceRoute | None:
        """The route by which the principal may read `uri`; None when the URI is hidden or unknown.

        The whole catalogue decides which backend owns the URI, so that hiding one backend's resource does not route
        its readers to another backend. The URI is readable if one of these holds:

        * it is listed, and the principal sees that entry;
        * it is unlisted, the principal sees a matching template, and no block list matches the URI or any matching
          template;
        * it is unlisted, no hidden template matches it, and the filters allow the URI itself.
        """
        route = catalogue.find_resource(uri)
        if route is None or route.backend not in view.backends:
            return None
        entry = catalogue.listed(route)
        if entry is not None:
            return route if entry.key in view.resources else None
        return route if self._permits_unlisted(catalogue, view, principal, route) else None

    def _permits_unlisted(
        self, catalogue: Catalogue, view: Catalogue, principal: Principal, route: ResourceRoute
    ) -> bool:
        filters = self._filters(principal, route.backend, Kind.RESOURCE)
        # A hidden entry stays hidden under every spelling that the backend may treat as equal.
        alike = (catalogue.listed(ResourceRoute(route.backend, uri)) for uri in spellings(route.uri))
        if any(entry is not None and entry.key not in view.resources for entry in alike):
            return False
        shapes = {shape.key: shape for uri in spellings(route.uri) for shape in catalogue.matching(route.backend, uri)}
        if any(each.blocks_uri(route.uri) or any(map(each.blocks, shapes.values())) for each in filters):
            return False
        if any(shape.key in view.templates for shape in catalogue.matching(route.backend, route.uri)):
            return True
        hidden = shapes.keys() - view.templates.keys()
        return not hidden and self.permits_uri(principal, route.backend, route.uri)

    def _grant(self, principal: Principal) -> Grant:
        return self.grants.get(principal.name, _UNLIMITED)

    def _filters(self, principal: Principal, backend: str, kind: Kind) -> tuple[Filter, Filter]:
        own = self._grant(principal).filters
        return self.filters.get(backend, _UNFILTERED).of(kind), own.get(backend, _UNFILTERED).of(kind)


# --- the configured filters -----------------------------------------------------------------------------------


def policy_of(servers: Sequence[ServerSettings]) -> Policy:
    """The policy that the configured filters describe; `config` has validated their patterns."""
    filters = {
        server.name: Filters(_filter(server.tools), _filter(server.prompts), _filter(server.resources))
        for server in servers
    }
    return Policy(filters)


def _filter(settings: FilterSettings) -> Filter:
    return Filter.compile(settings.allow, settings.block)


def unmatched_patterns(servers: Sequence[ServerSettings], whole: Catalogue) -> tuple[str, ...]:
    """One sentence for each filter pattern and override that matches no item its server lists."""
    found: list[str] = []
    for server in servers:
        if server.disabled or server.name not in whole.backends:
            continue
        own = {kind: [each for each in whole.entries(kind) if each.backend == server.name] for kind in Kind}
        groups = (
            ("tools", server.tools, own[Kind.TOOL]),
            ("prompts", server.prompts, own[Kind.PROMPT]),
            ("resources", server.resources, own[Kind.RESOURCE] + own[Kind.TEMPLATE]),
        )
        for group, settings, entries in groups:
            natives = {entry.native for entry in entries}
            unmatched = [f'pattern "{pattern}"' for pattern in _filter(settings).unmatched(entries)]
            unmatched += [f'override "{name}"' for name in getattr(server.overrides, group) if name not in natives]
            found += [f'server "{server.name}": the {group} {each} matches no item' for each in unmatched]
    return tuple(found)
