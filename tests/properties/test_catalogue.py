"""Invariants of merging arbitrary listings."""

import json
import re
from collections.abc import Mapping

from hypothesis import given, settings
from hypothesis import strategies as st

from mcp_manifold.model.catalogue import Catalogue, Kind, Listing, ResourceRoute, Rules, Terms, diff, merge
from mcp_manifold.model.names import normalise_uri

RULES = Rules()
TRICKY = st.text(st.sampled_from("abAB_ .+\u200b\u0430\uff41é"), min_size=1, max_size=6)
SERVERS = st.sampled_from(["a", "b", "a__b", "a_", "_", "A", "a+b", "é", "\u0430", "my server"]) | TRICKY
TOOLS = (
    st.sampled_from(["c", "b__c", "__c", "C", "c ", "c\u200b", "\uff43", "\u0441", "a__c", "a__b__c", "x" * 80])
    | TRICKY
)
URIS = (
    st.sampled_from(
        ["x:1", "X:1", "x://H/p", "x://h/p", "a+x:1", "a.2bb+x:1", "b+a+x:1", "file:///a/../b", "file:///b"]
    )
    | st.builds("{}+{}".format, SERVERS, st.sampled_from(["x:1", "file:///b"]))
    | st.text(min_size=1, max_size=8)
)
TEMPLATES = st.sampled_from(["x:{v}", "{+any}", "x://h/{p}", "a+x:{v}", "{", "file:///{+path}"]) | URIS
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
EXTRA = st.dictionaries(st.text(max_size=4).map("z{}".format), JSON, max_size=2)


def raw(members: Mapping[str, object]) -> bytes:
    return json.dumps(members, ensure_ascii=False).encode(errors="replace")


def items(member: str, values: st.SearchStrategy[str]) -> st.SearchStrategy[tuple[bytes, ...]]:
    def item(value: str, extra: dict[str, object]) -> bytes:
        return raw({**extra, "name": "n", member: value})

    return st.lists(st.builds(item, values, EXTRA), max_size=4).map(tuple)


def terms(backend: str) -> st.SearchStrategy[Terms]:
    return st.builds(
        Terms, st.sampled_from([backend, backend, "", "a"]), st.sampled_from(["auto", "prefix", "verbatim"])
    )


@st.composite
def offers(draw: st.DrawFn) -> list[tuple[Listing, Terms]]:
    backends = draw(st.lists(SERVERS, min_size=1, max_size=4, unique_by=str.casefold))
    return [
        (
            Listing(
                backend,
                1,
                "handshake",
                tools=draw(items("name", TOOLS)),
                prompts=draw(items("name", TOOLS)),
                resources=draw(items("uri", URIS)),
                templates=draw(items("uriTemplate", TEMPLATES)),
            ),
            draw(terms(backend)),
        )
        for backend in backends
    ]


def member_of(kind: Kind) -> str:
    return {Kind.RESOURCE: "uri", Kind.TEMPLATE: "uriTemplate"}.get(kind, "name")


def offered_by(listing: Listing, kind: Kind) -> set[str]:
    return {json.loads(item)[member_of(kind)] for item in listing.items(kind)}


@given(offers())
def test_s24_every_public_key_routes_to_one_backend_that_lists_it(listings: list[tuple[Listing, Terms]]) -> None:
    catalogue = merge(listings, RULES)
    natives = {listing.backend: listing for listing, _ in listings}
    for kind in Kind:
        origins = [(entry.backend, entry.native) for entry in catalogue.entries(kind)]
        assert len(set(origins)) == len(origins)
        for key, entry in catalogue.table(kind).items():
            assert key == entry.key == json.loads(entry.raw)[member_of(kind)]
            assert entry.native in offered_by(natives[entry.backend], kind)
            assert json.loads(entry.native_json) == entry.native
            assert catalogue.find(kind, key) is entry


@given(offers())
def test_s24_no_tool_or_prompt_is_lost_and_all_names_fit(listings: list[tuple[Listing, Terms]]) -> None:
    catalogue = merge(listings, RULES)
    for kind in (Kind.TOOL, Kind.PROMPT):
        wanted = {(listing.backend, native) for listing, _ in listings for native in offered_by(listing, kind)}
        assert {(entry.backend, entry.native) for entry in catalogue.entries(kind)} == wanted
        assert all(re.fullmatch(r"[A-Za-z0-9_-]{1,64}", key) for key in catalogue.table(kind))


@given(offers())
def test_s24_a_call_meant_for_one_backend_never_reaches_another(listings: list[tuple[Listing, Terms]]) -> None:
    """The public name of a lone server's tool routes to that server in the merged catalogue too, if to any.

    Servers with the same prefix, or with a prefix that starts with it, are exempt: the name is not theirs alone.
    """
    catalogue = merge(listings, RULES)
    for listing, term in listings:
        own = term.prefix + RULES.separator
        others = [other.prefix for other_listing, other in listings if other_listing != listing]
        if not term.prefix or any((other + RULES.separator).startswith(own) for other in others):
            continue
        alone = merge([(listing, term)], RULES)
        for key, entry in alone.tools.items():
            found = catalogue.find(Kind.TOOL, key)
            if key == own + entry.native and not any(key.startswith(p + RULES.separator) for p in others if p):
                assert found is not None
                assert (found.backend, found.native) == (entry.backend, entry.native)


@given(offers())
def test_s24_an_alias_is_unique_to_its_backend(listings: list[tuple[Listing, Terms]]) -> None:
    catalogue = merge(listings, RULES)
    for (kind, native), entry in catalogue.aliases.items():
        assert [listing.backend for listing, _ in listings if native in offered_by(listing, kind)] == [entry.backend]
        assert native not in catalogue.table(kind)


@given(offers())
def test_s24_every_listed_uri_routes_to_the_backend_that_listed_it(listings: list[tuple[Listing, Terms]]) -> None:
    catalogue = merge(listings, RULES)
    for key, entry in catalogue.resources.items():
        assert catalogue.find_resource(key) == ResourceRoute(entry.backend, entry.native)
        respelled = catalogue.find_resource(normalise_uri(key))
        assert respelled is not None
        assert respelled.backend == entry.backend


@given(offers(), st.data())
def test_s24_the_public_uri_of_a_ref_routes_back_to_its_backend(
    listings: list[tuple[Listing, Terms]], data: st.DataObject
) -> None:
    catalogue = merge(listings, RULES)
    listing, term = data.draw(st.sampled_from(listings))
    uri = data.draw(URIS)
    route = catalogue.find_resource(catalogue.public_uri(listing.backend, uri))
    if route is not None and term.uris != "verbatim":
        assert route.backend == listing.backend
        assert normalise_uri(route.uri) == normalise_uri(uri)


@given(offers())
def test_members_other_than_names_and_uris_keep_their_bytes(listings: list[tuple[Listing, Terms]]) -> None:
    catalogue = merge(listings, RULES)
    by_origin = {
        (kind, listing.backend, json.loads(item)[member_of(kind)]): item
        for listing, _ in reversed(listings)
        for kind in Kind
        for item in reversed(listing.items(kind))
    }
    for kind in Kind:
        for entry in catalogue.entries(kind):
            sent = json.loads(by_origin[kind, entry.backend, entry.native])
            public = json.loads(entry.raw)
            assert list(public) == list(sent)
            for name in sent.keys() - {"name", member_of(kind)}:
                assert json.dumps(sent[name], ensure_ascii=False).encode() in entry.raw
                assert public[name] == sent[name]


@given(offers(), offers())
def test_merging_is_a_function_and_a_diff_is_symmetric(
    ours: list[tuple[Listing, Terms]], theirs: list[tuple[Listing, Terms]]
) -> None:
    old, new, again = merge(ours, RULES), merge(theirs, RULES), merge(list(ours), RULES)
    assert (again, diff(old, again)) == (old, frozenset())
    assert diff(old, new) == diff(new, old)
    assert bool(diff(old, new)) is any(
        [entry.raw for entry in old.entries(kind)] != [entry.raw for entry in new.entries(kind)] for kind in Kind
    )


@given(offers(), st.data())
def test_a_restricted_catalogue_never_routes_elsewhere_than_the_whole(
    listings: list[tuple[Listing, Terms]], data: st.DataObject
) -> None:
    catalogue = merge(listings, RULES)
    kept = data.draw(st.sets(st.sampled_from(catalogue.backends)))
    view = catalogue.restrict(lambda entry: entry.backend in kept)
    for key in data.draw(st.lists(TOOLS, max_size=5)) + list(catalogue.tools):
        found = view.find(Kind.TOOL, key)
        assert found is None or found == catalogue.find(Kind.TOOL, key)
        assert found is None or found.backend in kept
    for uri in data.draw(st.lists(URIS, max_size=5)) + list(catalogue.resources):
        route = view.find_resource(uri)
        assert route is None or route.backend in kept


@given(st.lists(st.binary(max_size=30) | JSON.map(lambda value: json.dumps(value).encode()), max_size=5))
@settings(max_examples=200)
def test_no_malformed_listing_stops_a_merge(rubbish: list[bytes]) -> None:
    good = b'{"name":"good","uri":"x:1","uriTemplate":"x:{v}"}'
    everything = (*rubbish, good)
    listing = Listing("s", 1, "modern", everything, everything, everything, everything)
    catalogue: Catalogue = merge([(listing, Terms("s"))], RULES)
    assert all("good" in entry.name for kind in Kind for entry in catalogue.entries(kind)[-1:])
    assert all(catalogue.entries(kind) for kind in Kind)
