"""Merging listings into a catalogue: assigns every item its public key. Deterministic, and injective by construction.

Uses no policy and no live state. Backends are merged in the given order, their items in list order. A public key
belongs to the first item that claims it. A later item gets another key or is left out, and `problems` says so. A URI is
claimed in all equivalent spellings, so that a client's URL parser cannot turn one backend's URI into another's.
"""

import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final

from mcp_manifold.model.catalogue.entry import NAMED_KINDS, Entry, Kind, Listing, Override, Rules, Terms
from mcp_manifold.model.catalogue.payload import (
    Members,
    hints_of,
    parse_object,
    payload_of,
    ui_uris,
    with_ui_uris,
)
from mcp_manifold.model.catalogue.snapshot import Catalogue, ResourceRoutes, Table
from mcp_manifold.model.names import (
    MAX_URI,
    distinguish,
    normalise_uri,
    outside,
    prefixed_uri,
    qualify,
    split_prefixed_uri,
)
from mcp_manifold.wire import Payload, encode, text_at

_KEY_MEMBER: Final[Mapping[Kind, str]] = {
    Kind.TOOL: "name",
    Kind.PROMPT: "name",
    Kind.RESOURCE: "uri",
    Kind.TEMPLATE: "uriTemplate",
}
_UNCHANGED: Final = Override()
_NO_SCHEMA: Final = Payload(b"")


@dataclass(frozen=True, slots=True)
class _Offer:
    """One valid item of a listing, before it has a public key."""

    kind: Kind
    backend: str
    terms: Terms
    native: str
    native_name: str
    members: Members

    @property
    def override(self) -> Override:
        return self.terms.overrides.get((self.kind, self.native), _UNCHANGED)

    def __str__(self) -> str:
        return f"{self.kind} {_quoted(self.native)} of {self.backend}"


def _quoted(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:77] + "...")


def merge(
    listings: Sequence[tuple[Listing, Terms]], rules: Rules, reserved: Sequence[tuple[str, str]] = ()
) -> Catalogue:
    """The catalogue of these listings, in this order of precedence.

    Args:
        reserved: prefix and name of every configured server, listed or not. A name that begins with a prefix and the
            separator belongs to that server or to nobody. Of several prefixes, the longest counts.

    Raises:
        ValueError: the name budget is below `names.MIN_BUDGET`.
    """
    merging = _Merging(tuple(listings), rules, reserved)
    resources = merging.table(Kind.RESOURCE, merging.uri_key)
    templates = merging.table(Kind.TEMPLATE, merging.uri_key)
    routes = ResourceRoutes.to(
        resources.values(), templates.values(), {listing.backend: terms.uris for listing, terms in listings}
    )
    backends = tuple(routes.uris)
    linked = Catalogue(backends=backends, resources=resources, templates=templates, routes=routes)
    tools = merging.table(Kind.TOOL, merging.name_key)
    prompts = merging.table(Kind.PROMPT, merging.name_key)
    return replace(
        linked,
        tools=MappingProxyType({key: _with_public_ui(entry, linked) for key, entry in tools.items()}),
        prompts=prompts,
        aliases={**merging.aliases(tools), **merging.aliases(prompts)},
        problems=tuple(merging.problems),
    )


def _with_public_ui(tool: Entry, linked: Catalogue) -> Entry:
    if b"resourceUri" not in tool.raw:
        return tool
    members = parse_object(tool.raw) or {}
    public = {uri: linked.public_uri(tool.backend, uri) for uri in ui_uris(members)}
    return replace(tool, raw=encode(with_ui_uris(members, public)))


class _Merging:
    """One merge in progress: the claimed keys and the problems so far."""

    def __init__(
        self, listings: tuple[tuple[Listing, Terms], ...], rules: Rules, reserved: Sequence[tuple[str, str]]
    ) -> None:
        self.problems = [
            f"{method} of {listing.backend} failed: {reason}"
            for listing, _ in listings
            for method, reason in listing.failed.items()
        ]
        self.problems += [note for listing, _ in listings for note in listing.notes]
        self.problems += [str(fault) for listing, _ in listings for fault in listing.faults]
        self._listings = listings
        self._rules = rules
        self._owners = tuple(listing.backend for listing, _ in listings)
        known = [*((terms.prefix, listing.backend) for listing, terms in listings), *reserved]
        self._namespaces = [(prefix + rules.separator, backend) for prefix, backend in known if prefix]
        self._claims: dict[tuple[Kind, str], str] = {}

    def __repr__(self) -> str:
        return f"<merging {len(self._listings)} listings: {len(self.problems)} problems so far>"

    def table(self, kind: Kind, claim: Callable[[_Offer, Table], str | None]) -> Table:
        """Public key to entry, of one kind. `claim` returns the key for an offer, or None to leave it out."""
        table: dict[str, Entry] = {}
        seen: set[tuple[str, str]] = set()
        for listing, terms in self._listings:
            for place, raw in enumerate(listing.items(kind), start=1):
                offer = _read(kind, listing.backend, terms, raw)
                if isinstance(offer, str):
                    self.problems.append(f"{kind} #{place} of {listing.backend}: left out ({offer})")
                elif (offer.backend, offer.native) in seen:
                    self.problems.append(f"{offer}: listed more than once; the first is used")
                else:
                    seen.add((offer.backend, offer.native))
                    key = claim(offer, table)
                    if key is not None:
                        table[key] = _entry(offer, key, self._rules)
        return MappingProxyType(table)

    def name_key(self, offer: _Offer, table: Table) -> str:
        """The public name for a tool or prompt."""
        plain = _plain(offer, self._rules)
        name = _qualified(offer, self._rules)
        own = offer.terms.prefix + self._rules.separator if offer.terms.prefix else ""
        obstacle, stem = "", name
        if other := self._namespace_of(name, besides=offer.backend, own=own):
            obstacle = f"{name} is in the namespace of {other}"
            stem = outside(name, own, owner=offer.backend, native=offer.native, budget=self._rules.budget)
        free, attempt = stem, 0
        while free in table:
            obstacle = obstacle or f"{name} is already a {offer.kind} of {table[name].backend}"
            free = distinguish(
                stem, owner=offer.backend, native=offer.native, budget=self._rules.budget, attempt=attempt
            )
            attempt += 1
        if obstacle:
            self.problems.append(f"{offer}: renamed to {free} ({obstacle})")
        elif name != plain:
            self.problems.append(f"{offer}: renamed to {name} ({_quoted(plain)} is not a valid name)")
        return free

    def _namespace_of(self, name: str, *, besides: str, own: str = "") -> str:
        """The backend other than `besides` whose prefix, longer than `own`, starts `name`; empty if none."""
        for start, backend in self._namespaces:
            if backend != besides and len(start) > len(own) and name.startswith(start):
                return backend
        return ""

    def uri_key(self, offer: _Offer, table: Table) -> str | None:
        """The public URI or URI template for a resource; None to leave the resource out."""
        own = prefixed_uri(offer.backend, offer.native)
        key = own if offer.terms.uris == "prefix" else offer.native
        obstacle = self._uri_obstacle(offer, key, table)
        if obstacle and offer.terms.uris == "auto" and not self._uri_obstacle(offer, own, table):
            self.problems.append(f"{offer}: renamed to {_quoted(own)} ({obstacle})")
            key, obstacle = own, ""
        if obstacle:
            self.problems.append(f"{offer}: left out ({obstacle})")
            return None
        self._claims.setdefault((offer.kind, normalise_uri(key)), offer.backend)
        return key

    def _uri_obstacle(self, offer: _Offer, key: str, table: Table) -> str:
        claimed = self._claims.get((offer.kind, normalise_uri(key)), offer.backend)
        if claimed != offer.backend or key in table:
            return f"{_quoted(key)} is already listed by {claimed}"
        prefixed = split_prefixed_uri(key, self._owners)
        if prefixed is not None and prefixed[0] != offer.backend:
            return f"it has the prefix of {prefixed[0]}"
        return ""

    def aliases(self, table: Table) -> dict[tuple[Kind, str], Entry]:
        """Native names that are unambiguous: used by one backend only, and in no other server's namespace.

        A name with the separator is none, unless it begins with its backend's prefix: it may be the public name of a
        server that was renamed or removed.
        """
        owners: dict[str, list[Entry]] = {}
        for entry in table.values():
            owners.setdefault(entry.native, []).append(entry)
        return {
            (found[0].kind, native): found[0]
            for native, found in owners.items()
            if len(found) == 1 and native not in table and not self._is_foreign(native, found[0].backend)
        }

    def _is_foreign(self, native: str, backend: str) -> bool:
        """Whether a native name may be a public name of another server."""
        if self._namespace_of(native, besides=backend):
            return True
        is_own = any(owner == backend and native.startswith(start) for start, owner in self._namespaces)
        return len(self._rules.separator) > 1 and self._rules.separator in native and not is_own


def _read(kind: Kind, backend: str, terms: Terms, raw: bytes) -> _Offer | str:
    """The offer of a listed item, or the reason why the item is invalid."""
    members = parse_object(raw)
    if members is None:
        return "not a readable JSON object"
    key_member = _KEY_MEMBER[kind]
    routed = {"name", key_member}
    native, native_name = text_at(members.get(key_member)), text_at(members.get("name"))
    if not native or native_name is None:
        return f"no {' or no '.join(sorted(routed))} that is a string"
    if len(native) > MAX_URI:
        return f"{key_member} is longer than {MAX_URI} characters"
    folded = {member.casefold() for member in routed}
    for member in members.keys() - routed:
        # Some clients read `Name` or `na\u017fe` as `name`, and would see another item than we do.
        if unicodedata.normalize("NFKC", member).casefold() in folded:
            return f"member {_quoted(member)} is a look-alike of another"
    return _Offer(kind, backend, terms, native, native_name, members)


def _plain(offer: _Offer, rules: Rules) -> str:
    """The prefixed name, otherwise unchanged. Resources keep it, because clients do not address them by name."""
    wanted = offer.override.name or offer.native_name
    return f"{offer.terms.prefix}{rules.separator}{wanted}" if offer.terms.prefix else wanted


def _qualified(offer: _Offer, rules: Rules) -> str:
    return qualify(
        offer.terms.prefix,
        offer.override.name or offer.native_name,
        owner=offer.backend,
        separator=rules.separator,
        budget=rules.budget,
    )


def _entry(offer: _Offer, key: str, rules: Rules) -> Entry:
    name = key if offer.kind in NAMED_KINDS else _plain(offer, rules)
    override = offer.override
    members = {**offer.members, "name": payload_of(name)}
    if key != offer.native:
        members[_KEY_MEMBER[offer.kind]] = payload_of(key)
    if override.title is not None:
        members["title"] = payload_of(override.title)
    if override.description is not None:
        members["description"] = payload_of(override.description)
    is_tool = offer.kind is Kind.TOOL
    return Entry(
        kind=offer.kind,
        key=key,
        name=name,
        backend=offer.backend,
        native=offer.native,
        native_name=offer.native_name,
        native_json=bytes(payload_of(offer.native)),
        raw=encode(members),
        title=text_at(members.get("title")) or "",
        annotations=hints_of(offer.members) if is_tool else frozenset(),
        input_schema_has_headers=is_tool and b"x-mcp-header" in bytes(offer.members.get("inputSchema", _NO_SCHEMA)),
    )
