"""Who may see and call what: Principal, Filter, Policy. Pure predicates; knows no session, no rate and no secret.

What a principal may not see is, to them, not there: nothing here tells hidden from unknown. Filters speak of native
names and URIs, so neither an alias nor a rename nor a prefix gets around one.
"""

import fnmatch
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from mcp_manifold.config.values import pattern_problem
from mcp_manifold.model.catalogue import Catalogue, Entry, Kind, Route
from mcp_manifold.model.names import MAX_URI, lower_scheme, spellings, walks

_DEFAULTS: Final[Mapping[str, bool]] = {
    "readOnlyHint": False,
    "destructiveHint": True,
    "idempotentHint": False,
    "openWorldHint": True,
}


@dataclass(frozen=True, slots=True)
class Principal:
    """Who is asking. `key` is an opaque stable identity to bind state to, never the secret that proved it."""

    name: str
    key: str


ANONYMOUS: Final = Principal("anonymous", "anonymous")
"""Whoever asks where nobody has to say who they are."""
LOCAL: Final = Principal("local", "local")
"""The one client of a stdio front: who started the program."""


@dataclass(frozen=True, slots=True)
class _Pattern:
    """One item of an allow or block list: a name, a glob, or a test of a tool's hints."""

    text: str
    glob: re.Pattern[str]
    uri_glob: re.Pattern[str]
    """The same with a lower-case scheme, for URIs nobody listed."""
    test: str = ""
    expected: bool = True

    def matches(self, entry: Entry) -> bool:
        if self.test:
            return entry.kind is Kind.TOOL and _passes(self.test, entry) is self.expected
        return any(self.text == name or self.glob.match(name) for name in {entry.native, entry.native_name})

    def matches_uri(self, uri: str) -> bool:
        return not self.test and (lower_scheme(self.text) == uri or self.uri_glob.match(uri) is not None)


def _passes(test: str, tool: Entry) -> bool:
    """Whether a tool passes an annotation test, with the protocol's defaults for hints it does not state."""
    hints = {**_DEFAULTS, **dict(tool.annotations)}
    if test == "destructive":  # means nothing on a tool that only reads
        return hints["destructiveHint"] and not hints["readOnlyHint"]
    return hints[f"{test}Hint"]


def _compiled(text: str) -> _Pattern:
    problem = pattern_problem(text)
    if problem:
        raise ValueError(f"{problem}, got {text[:40]!r}")
    test = text.lstrip("!@")
    if test != text:
        return _Pattern(text, _glob(text), _glob(text), test=test, expected="!" not in text)
    return _Pattern(text, _glob(text), _glob(lower_scheme(text)))


def _glob(text: str) -> re.Pattern[str]:
    # `translate` puts every star but the last into an atomic group: a match never goes back, it is linear.
    return re.compile(fnmatch.translate(text))


@dataclass(frozen=True, slots=True)
class Filter:
    """What an allow list and a block list let through. Block wins; no allow list allows all, an empty one nothing."""

    allow: tuple[_Pattern, ...] | None = None
    block: tuple[_Pattern, ...] = ()

    @classmethod
    def compile(cls, allow: Sequence[str] | None = None, block: Sequence[str] = ()) -> "Filter":
        """The filter of these lists: exact names, globs (`*`, `?`, `[...]`), or tests such as `@readOnly`.

        Raises:
            ValueError: a pattern names no known test, or costs too much to match.
        """
        return cls(None if allow is None else tuple(map(_compiled, allow)), tuple(map(_compiled, block)))

    def __repr__(self) -> str:
        allowed = "everything" if self.allow is None else [pattern.text for pattern in self.allow]
        return f"<Filter allowing {allowed}, blocking {[pattern.text for pattern in self.block]}>"

    @property
    def is_open(self) -> bool:
        """Whether everything passes."""
        return self.allow is None and not self.block

    def allows(self, entry: Entry) -> bool:
        """Whether `entry` passes."""
        if self.blocks(entry):
            return False
        return self.allow is None or any(pattern.matches(entry) for pattern in self.allow)

    def blocks(self, entry: Entry) -> bool:
        """Whether the block list names `entry`."""
        return any(pattern.matches(entry) for pattern in self.block)

    def allows_uri(self, uri: str) -> bool:
        """Whether a URI nobody listed passes."""
        if self.blocks_uri(uri):
            return False
        return self.allow is None or any(pattern.matches_uri(lower_scheme(uri)) for pattern in self.allow)

    def blocks_uri(self, uri: str) -> bool:
        """Whether a URI nobody listed is blocked, in any spelling.

        A filter that restricts anything also blocks what is too long to judge, and what walks (`..`), because it
        says one place and means another.
        """
        if self.is_open:
            return False
        if len(uri) > MAX_URI or walks(uri):
            return True
        return bool(self.block) and any(
            pattern.matches_uri(spelling) for spelling in spellings(uri) for pattern in self.block
        )

    def unmatched(self, entries: Iterable[Entry]) -> tuple[str, ...]:
        """The patterns that match none of `entries`: most likely typing errors."""
        known = tuple(entries)
        patterns = (*(self.allow or ()), *self.block)
        return tuple(
            dict.fromkeys(pattern.text for pattern in patterns if not any(pattern.matches(entry) for entry in known))
        )


OPEN: Final = Filter()


@dataclass(frozen=True, slots=True)
class Filters:
    """The filters of one backend. Templates are filtered as resources are."""

    tools: Filter = OPEN
    prompts: Filter = OPEN
    resources: Filter = OPEN

    def of(self, kind: Kind) -> Filter:
        """The filter for entries of a kind."""
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
    """What one principal is limited to: some backends (None: all), and filters on top of everybody's."""

    backends: frozenset[str] | None = None
    filters: Mapping[str, Filters] = field(default_factory=dict)


_UNLIMITED: Final = Grant()


@dataclass(frozen=True, slots=True)
class Policy:
    """Who may see and call which entry. `filters` hold for everybody, by backend; `grants` narrow by principal name."""

    filters: Mapping[str, Filters] = field(default_factory=dict)
    grants: Mapping[str, Grant] = field(default_factory=dict)

    def reaches(self, principal: Principal, backend: str) -> bool:
        """Whether the principal may deal with the backend at all."""
        limit = self._grant(principal).backends
        return limit is None or backend in limit

    def sees(self, principal: Principal, entry: Entry) -> bool:
        """Whether the principal may see the entry, which is also whether they may call it."""
        return self.reaches(principal, entry.backend) and all(
            each.allows(entry) for each in self._filters(principal, entry.backend, entry.kind)
        )

    def permits_uri(self, principal: Principal, backend: str, uri: str) -> bool:
        """Whether the principal may read a URI of the backend that nobody listed."""
        return self.reaches(principal, backend) and all(
            each.allows_uri(uri) for each in self._filters(principal, backend, Kind.RESOURCE)
        )

    def view(self, catalogue: Catalogue, principal: Principal) -> Catalogue:
        """What the principal sees of the catalogue."""
        members = [backend for backend in catalogue.backends if self.reaches(principal, backend)]
        return catalogue.restrict(lambda entry: self.sees(principal, entry), members=members)

    def route_resource(self, catalogue: Catalogue, view: Catalogue, principal: Principal, uri: str) -> Route | None:
        """Where the principal may read `uri`; None if nowhere, be it hidden or unknown.

        The whole catalogue decides whose the URI is, so that hiding one backend's resource does not send its readers
        to another backend; then it is readable if

        * it is listed, and the principal sees that entry; or
        * nobody listed it, no block list forbids it or a template that can expand to it, and the principal sees a
          template that can; or
        * nobody listed it, no hidden template can expand to it, and it passes the filters itself.
        """
        route = catalogue.find_resource(uri)
        if route is None or route.backend not in view.backends:
            return None
        entry = catalogue.listed(route)
        if entry is not None:
            return route if entry.key in view.resources else None
        return route if self._permits_unlisted(catalogue, view, principal, route) else None

    def _permits_unlisted(self, catalogue: Catalogue, view: Catalogue, principal: Principal, route: Route) -> bool:
        filters = self._filters(principal, route.backend, Kind.RESOURCE)
        # A hidden entry stays hidden under a spelling the backend may take for the same.
        alike = (catalogue.listed(Route(route.backend, uri)) for uri in spellings(route.uri))
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
