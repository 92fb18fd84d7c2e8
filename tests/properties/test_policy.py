"""Invariants of arbitrary filters."""

import fnmatch
import json

from hypothesis import example, given, settings
from hypothesis import strategies as st

from mcp_manifold.model.catalogue import Catalogue, Entry, Kind, Listing, Rules, Terms, merge
from mcp_manifold.model.names import normalise_uri
from mcp_manifold.model.policy import ANONYMOUS, Filter, Filters, Policy

NATIVE = st.text(st.sampled_from("abAB_.\u200bé"), min_size=1, max_size=4)
URI = st.builds(
    "{}:{}".format, st.sampled_from(["x", "X", "y"]), st.sampled_from(["1", "2", "a/../1", "%31", "/1", "//1"])
)
SHAPE = st.sampled_from(["x:{v}", "x:{+v}", "y:{v}", "X:{v}", "x:1{v}"])
PATTERN = NATIVE | URI | SHAPE | st.sampled_from(["*", "a*", "?", "x:*", "[ab]*", "@readOnly", "!@destructive", "x:1*"])
ALLOW = st.none() | st.lists(PATTERN, max_size=3)
FILTERS = st.builds(Filter.compile, ALLOW, st.lists(PATTERN, max_size=3))
EACH = st.builds(Filters, FILTERS, FILTERS, FILTERS)
POLICIES = st.builds(Policy, st.dictionaries(st.sampled_from(["a", "b"]), EACH))


def item(member: str, value: str) -> bytes:
    return json.dumps({"name": value, member: value}).encode()


@st.composite
def catalogues(draw: st.DrawFn) -> Catalogue:
    def some(member: str, values: st.SearchStrategy[str]) -> tuple[bytes, ...]:
        return tuple(item(member, value) for value in draw(st.lists(values, max_size=4)))

    listings = [
        Listing(
            backend,
            1,
            "modern",
            some("name", NATIVE),
            some("name", NATIVE),
            some("uri", URI),
            some("uriTemplate", SHAPE),
        )
        for backend in ("a", "b")
    ]
    return merge([(listing, Terms(draw(st.sampled_from([listing.backend, ""])))) for listing in listings], Rules())


@given(catalogues(), POLICIES, st.data())
def test_s43_exactly_the_visible_entries_are_callable_by_any_name(
    catalogue: Catalogue, policy: Policy, data: st.DataObject
) -> None:
    view = policy.view(catalogue, ANONYMOUS)
    for kind in (Kind.TOOL, Kind.PROMPT):
        keys = [*catalogue.table(kind), *(entry.native for entry in catalogue.entries(kind)), data.draw(NATIVE)]
        for key in [*keys, *map(str.swapcase, keys)]:
            found = view.find(kind, key)
            if found is not None:
                assert found in view.entries(kind)
                assert policy.sees(ANONYMOUS, found)
                assert found == catalogue.find(kind, key)


@given(catalogues(), POLICIES)
def test_s43_a_view_holds_exactly_the_visible_entries(catalogue: Catalogue, policy: Policy) -> None:
    view = policy.view(catalogue, ANONYMOUS)
    for kind in Kind:
        assert view.entries(kind) == tuple(e for e in catalogue.entries(kind) if policy.sees(ANONYMOUS, e))


@given(catalogues(), POLICIES, URI)
@example(merge([], Rules()), Policy(), "x:1")
def test_s43_a_hidden_resource_is_unreadable_in_any_spelling(catalogue: Catalogue, policy: Policy, uri: str) -> None:
    view = policy.view(catalogue, ANONYMOUS)
    hidden = {(e.backend, e.native) for e in catalogue.entries(Kind.RESOURCE) if e.key not in view.resources}
    visible = {(e.backend, e.native) for e in view.entries(Kind.RESOURCE)}
    alike = {(backend, normalise_uri(native)) for backend, native in hidden}
    for spelling in (uri, uri.upper(), f"a+{uri}", f"b+{uri}", f"B+{uri}"):
        route = policy.route_resource(catalogue, view, ANONYMOUS, spelling)
        if route is not None:
            assert (route.backend, route.uri) not in hidden
            assert (route.backend, route.uri) in visible or (route.backend, normalise_uri(route.uri)) not in alike
            assert route == catalogue.find_resource(spelling)


@given(catalogues(), POLICIES)
def test_s43_every_visible_resource_can_be_read(catalogue: Catalogue, policy: Policy) -> None:
    view = policy.view(catalogue, ANONYMOUS)
    for key, entry in view.resources.items():
        route = policy.route_resource(catalogue, view, ANONYMOUS, key)
        assert route is not None
        assert (route.backend, route.uri) == (entry.backend, entry.native)


@given(catalogues(), URI)
def test_without_filters_every_routable_uri_is_readable(catalogue: Catalogue, uri: str) -> None:
    policy = Policy()
    assert policy.view(catalogue, ANONYMOUS) is catalogue
    assert policy.route_resource(catalogue, catalogue, ANONYMOUS, uri) == catalogue.find_resource(uri)


def tool(name: str) -> Entry:
    listing = Listing("s", 1, "modern", tools=(json.dumps({"name": name}).encode(),))
    return merge([(listing, Terms("s"))], Rules()).entries(Kind.TOOL)[0]


@given(st.text(st.sampled_from("ab*?[]!-^&~|\\("), max_size=8).filter(lambda text: text[:1] != "!"), NATIVE)
def test_globs_mean_what_shells_mean(pattern: str, name: str) -> None:
    allowed = Filter.compile(allow=[pattern]).allows(tool(name))
    assert allowed is (pattern == name or fnmatch.fnmatchcase(name, pattern))


@given(ALLOW, st.lists(PATTERN, max_size=3), NATIVE)
def test_blocking_more_never_allows_more(allow: list[str] | None, block: list[str], name: str) -> None:
    if Filter.compile(allow, [*block, "a*"]).allows(tool(name)):
        assert Filter.compile(allow, block).allows(tool(name))


def shell_matches(pattern: str, name: str) -> bool:
    """`*` and `?` as in a shell, following all matches at once."""
    ends = {0}
    for char in pattern:
        if char == "*":
            ends = set(range(min(ends, default=len(name) + 1), len(name) + 1))
        else:
            ends = {end + 1 for end in ends if end < len(name) and char in ("?", name[end])}
    return len(name) in ends


@example("(a+)+$")
@example("*a" * 15 + "*b")
@example("*?" * 15 + "b")
@given(st.text(st.sampled_from("a*?b"), max_size=30).filter(lambda text: text.count("*") <= 16))
@settings(max_examples=30)
def test_s42_a_pattern_made_to_backtrack_takes_bounded_time(pattern: str) -> None:
    name = "a" * 2000
    assert Filter.compile(allow=[pattern]).allows(tool(name)) is shell_matches(pattern, name)
