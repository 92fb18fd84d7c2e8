"""Policy: filters, principals, views, and reading resources."""

import json
from collections.abc import Sequence

import pytest

from mcp_manifold.config import ServerSettings
from mcp_manifold.model.catalogue import Catalogue, Entry, Kind, Listing, ResourceRoute, Rules, Terms, merge
from mcp_manifold.model.names import MAX_URI
from mcp_manifold.model.policy import ANONYMOUS, Filter, Filters, Grant, Policy, Principal, unmatched_patterns

ALICE = Principal("alice", "k1")
BOB = Principal("bob", "k2")


def listing(
    backend: str,
    *,
    tools: Sequence[tuple[str, dict[str, object]]] = (),
    resources: Sequence[str] = (),
    templates: Sequence[str] = (),
) -> tuple[Listing, Terms]:
    return Listing(
        backend=backend,
        revision=1,
        era="handshake",
        tools=tuple(json.dumps({"name": name, "annotations": hints}).encode() for name, hints in tools),
        resources=tuple(json.dumps({"name": f"n{i}", "uri": uri}).encode() for i, uri in enumerate(resources)),
        templates=tuple(json.dumps({"name": f"t{i}", "uriTemplate": u}).encode() for i, u in enumerate(templates)),
    ), Terms(backend)


def tool(name: str, **hints: object) -> Entry:
    return merge([listing("s", tools=[(name, hints)])], Rules()).entries(Kind.TOOL)[0]


def reads(policy: Policy, catalogue: Catalogue, uri: str, principal: Principal = ANONYMOUS) -> ResourceRoute | None:
    return policy.route_resource(catalogue, policy.view(catalogue, principal), principal, uri)


def resources_of(backend: str, allow: list[str] | None = None, block: Sequence[str] = ()) -> Policy:
    return Policy({backend: Filters(resources=Filter.compile(allow, block))})


@pytest.mark.parametrize(
    ("allow", "block", "allowed"),
    [(None, (), ["get_user", "get_secret", "put_user"]), ((), (), []), (["get_*"], ["*_secret"], ["get_user"])],
)
def test_block_wins_over_allow(allow: Sequence[str] | None, block: Sequence[str], allowed: list[str]) -> None:
    judged = Filter.compile(allow, block)
    assert [name for name in ("get_user", "get_secret", "put_user") if judged.allows(tool(name))] == allowed
    assert repr(Filter.compile(block=["x"])) == "<Filter allowing everything, blocking ['x']>"


@pytest.mark.parametrize(
    ("pattern", "name", "matches"),
    [
        ("read", "read", True),
        ("read", "Read", False),
        ("read", "read_file", False),
        ("re?d", "read", True),
        ("re[a-e]d", "read", True),
        ("re[!a-e]d", "read", False),
        ("odd[name]", "odd[name]", True),
        ("*", "anything", True),
        ("a.c", "abc", False),
    ],
)
def test_patterns_are_case_sensitive_names_or_globs(pattern: str, name: str, matches: bool) -> None:
    assert Filter.compile(allow=[pattern]).allows(tool(name)) is matches


@pytest.mark.parametrize(
    ("test", "hints", "passes"),
    [
        ("@readOnly", {"readOnlyHint": True}, True),
        ("@readOnly", {}, False),
        ("!@readOnly", {}, True),
        ("@!readOnly", {"readOnlyHint": True}, False),
        ("@destructive", {}, True),
        ("@destructive", {"readOnlyHint": True}, False),
        ("@destructive", {"destructiveHint": False}, False),
        ("@idempotent", {}, False),
        ("@idempotent", {"idempotentHint": True}, True),
        ("@openWorld", {}, True),
        ("!@openWorld", {"openWorldHint": False}, True),
        ("@readOnly", {"readOnlyHint": "true"}, False),
    ],
)
def test_annotation_tests_use_the_protocols_defaults(test: str, hints: dict[str, object], passes: bool) -> None:
    assert Filter.compile(allow=[test]).allows(tool("x", **hints)) is passes


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        *((pattern, "@readOnly, @destructive, @idempotent, @openWorld") for pattern in ("@readonly", "@", "!@nothing")),
        *((pattern, "pattern") for pattern in ("!name", "!!@readOnly", "*a" * 17, "x" * 513)),
    ],
    ids=range(7),
)
def test_an_invalid_or_expensive_pattern_is_refused(pattern: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Filter.compile(block=[pattern])


def test_patterns_that_match_nothing_are_reported() -> None:
    judged = Filter.compile(allow=["get_*", "gte_*", "@readOnly"], block=["get_x", "nope"])
    assert judged.unmatched([tool("get_x"), tool("get_y")]) == ("gte_*", "@readOnly", "nope")


def test_patterns_are_compared_with_the_items_of_their_own_server_and_kind() -> None:
    whole = merge(
        [
            listing("a", tools=[("t", {})], resources=["x:1"], templates=["z:{v}"]),
            listing("b", tools=[("u", {})], resources=["x:1"]),
        ],
        Rules(),
    )
    filters = {
        "tools": {"allow": ["t", "u"]},
        "resources": {"allow": ["x:1", "z:{v}"]},
        "overrides": {"tools": {"t": {"title": "T"}}},
    }
    servers = [
        ServerSettings.model_validate({"name": name, "command": "x", "disabled": name == "off", **filters})
        for name in ("off", "a", "unlisted", "b")
    ]
    assert unmatched_patterns(servers, whole) == (
        'server "a": the tools pattern "u" matches no item',
        'server "b": the tools pattern "t" matches no item',
        'server "b": the tools override "t" matches no item',
        'server "b": the resources pattern "z:{v}" matches no item',
    )


@pytest.mark.parametrize(
    ("allow", "allowed"),
    [(["x:*", "z:{v}"], ["x:1", "z:{v}"]), (["n1", "t0"], ["y:1", "z:{v}"]), (["@readOnly"], []), (["!@readOnly"], [])],
)
def test_resources_match_by_uri_or_by_native_name_only(allow: list[str], allowed: list[str]) -> None:
    catalogue = merge([listing("s", resources=["x:1", "y:1"], templates=["z:{v}"])], Rules())
    entries = [*catalogue.entries(Kind.RESOURCE), *catalogue.entries(Kind.TEMPLATE)]
    judged = Filter.compile(allow=allow)
    assert [entry.key for entry in entries if judged.allows(entry)] == allowed
    assert judged.allows_uri("x:2") is ("x:*" in allow)
    longest = "x:" + "y" * (MAX_URI - 2)
    for uri, is_short in ((longest, True), (f"{longest}y", False)):
        assert (Filter.compile().allows_uri(uri), Filter.compile(allow=["*"]).allows_uri(uri)) == (True, is_short)


def test_filters_are_separate_per_backend_and_kind() -> None:
    items = (b'{"name":"x"}',)
    first = Listing("a", 1, "handshake", items, items, (b'{"name":"r","uri":"x:1"}',))
    catalogue = merge([(first, Terms("a")), listing("b", tools=[("x", {})])], Rules())
    view = Policy({"a": Filters(tools=Filter.compile(allow=()))}).view(catalogue, ANONYMOUS)
    assert (list(view.tools), list(view.prompts), list(view.resources)) == (["b__x"], ["a__x"], ["x:1"])
    assert not Policy({"a": Filters(prompts=Filter.compile(block=["x"]))}).view(catalogue, ANONYMOUS).prompts


def test_a_grant_limits_a_principal_to_some_backends_and_filters_further() -> None:
    catalogue = merge([listing("a", tools=[("x", {}), ("y", {})]), listing("b", tools=[("x", {})])], Rules())
    grant = Grant(frozenset({"a"}), {"a": Filters(tools=Filter.compile(allow=["x"]))})
    policy = Policy(grants={"alice": grant})
    assert list(policy.view(catalogue, ALICE).tools) == ["a__x"]
    assert policy.view(catalogue, ALICE).backends == ("a",)
    assert policy.view(catalogue, BOB) is catalogue
    assert not policy.permits_uri(ALICE, "b", "x:1")


def test_a_listed_resource_is_readable_in_any_spelling_if_visible_only() -> None:
    catalogue = merge([listing("a", resources=["file:///secret", "file:///open"])], Rules())
    policy = resources_of("a", block=["n0"])
    for uri in (
        "file:///secret",
        "FILE:///secret",
        "file:///%73ecret",
        "file:////secret",
        "file:///x/../secret",
        "a+file:///secret",
        "a+file:////secret",
    ):
        assert reads(Policy(), catalogue, uri) is not None, uri
        assert reads(policy, catalogue, uri) is None, uri
    assert reads(policy, catalogue, "file:///open") == ResourceRoute("a", "file:///open")


@pytest.mark.parametrize(
    ("allow", "uri", "is_readable"),
    [
        (["db://{table}"], "db://users", True),
        (["db://{table}"], "db://users/1", False),
        (["db://u*", "x:*"], "db://users", False),
        (["db://u*", "x:*"], "x:1", True),
        (["NOTE:*"], "note:2", True),
        (["memo:*"], "note:2", False),
    ],
)
def test_a_uri_is_readable_by_its_template_or_a_pattern(allow: list[str], uri: str, is_readable: bool) -> None:
    catalogue = merge([listing("a", resources=["note:1"], templates=["db://{table}", "x:{v}"])], Rules())
    route = ResourceRoute("a", uri) if is_readable else None
    assert reads(resources_of("a", allow=allow), catalogue, uri) == route


def test_a_blocked_template_or_uri_stays_blocked_under_a_wider_visible_template() -> None:
    catalogue = merge([listing("a", templates=["file:///secret/{x}", "file:///{+path}"])], Rules())
    by_template = resources_of("a", block=["file:///secret/{x}"])
    by_uri = resources_of("a", block=["file:///secret/*"])
    for policy in (by_template, by_uri):
        assert reads(policy, catalogue, "file:///open/1") is not None
        for uri in ("file:///secret/1", "FILE:///secret/1", "file:///%73ecret/1", "file:////secret/1"):
            assert reads(policy, catalogue, uri) is None, uri


@pytest.mark.parametrize(
    "uri", ["db:///secret/1", "DB:///secret/1", "db:///%73ecret/1", "db:////secret//1", "db:///secret%2f1"]
)
def test_s43_a_blocked_uri_is_blocked_in_every_spelling(uri: str) -> None:
    catalogue = merge([listing("a", templates=["db:///{+path}"])], Rules())
    assert reads(Policy(), catalogue, uri) is not None
    assert reads(resources_of("a", block=["db:///secret/*"]), catalogue, uri) is None
    assert reads(resources_of("a", block=["DB:///secret/*"]), catalogue, uri) is None


def test_dot_segments_are_refused_by_restricting_filters_only() -> None:
    catalogue = merge([listing("a", templates=["file:///pub/{+path}"])], Rules())
    for uri in ("file:///pub/../secret", "file:///pub/%2e%2e/secret", "file:///pub/..%2fsecret"):
        assert reads(Policy(), catalogue, uri) is not None, uri
        assert reads(resources_of("a", allow=["file:///pub/*"]), catalogue, uri) is None, uri
        assert reads(resources_of("a", allow=["file:///pub/{+path}"]), catalogue, uri) is None, uri


def test_a_hidden_uri_is_unreadable_like_an_unknown_one() -> None:
    catalogue = merge([listing("a", resources=["x:1"]), listing("b", templates=["x:{v}"])], Rules())
    assert reads(resources_of("a", allow=[]), catalogue, "x:1") is None
    assert reads(resources_of("a", allow=[]), catalogue, "x:2") == ResourceRoute("b", "x:2")
    policy = Policy(grants={"alice": Grant(frozenset())})
    for uri in ("x:1", "a+x:9", "other:1"):
        assert reads(policy, catalogue, uri, ALICE) is None
