"""The catalogue: merge, look-up, restriction, diff, lists."""

import json
from collections.abc import Mapping

import pytest

from mcp_manifold.model.catalogue import (
    Catalogue,
    Change,
    Entry,
    Kind,
    Listing,
    Override,
    ResourceRoute,
    Rules,
    Terms,
    Uris,
    diff,
    encode_list,
    merge,
)

Item = Mapping[str, object] | bytes


def raw(item: Item) -> bytes:
    return item if isinstance(item, bytes) else json.dumps(item).encode()


def tool(name: str, **more: object) -> Item:
    return {"name": name, **more}


def resource(uri: str, name: str = "thing") -> Item:
    return {"name": name, "uri": uri}


def template(uri: str, name: str = "things") -> Item:
    return {"name": name, "uriTemplate": uri}


def offering(
    backend: str,
    *,
    tools: tuple[Item, ...] = (),
    prompts: tuple[Item, ...] = (),
    resources: tuple[Item, ...] = (),
    templates: tuple[Item, ...] = (),
    prefix: str | None = None,
    uris: Uris = "auto",
    overrides: Mapping[tuple[Kind, str], Override] | None = None,
) -> tuple[Listing, Terms]:
    listing = Listing(
        backend=backend,
        revision=1,
        era="handshake",
        tools=tuple(map(raw, tools)),
        prompts=tuple(map(raw, prompts)),
        resources=tuple(map(raw, resources)),
        templates=tuple(map(raw, templates)),
    )
    return listing, Terms(backend if prefix is None else prefix, uris, overrides or {})


def merged(*offers: tuple[Listing, Terms], rules: Rules | None = None) -> Catalogue:
    return merge(offers, rules or Rules())


# --- names ------------------------------------------------------------------------------------------------------


def test_entries_keep_the_order_of_backends_and_their_lists() -> None:
    catalogue = merged(offering("b", tools=(tool("z"), tool("a"))), offering("a", tools=(tool("m"),)))
    assert list(catalogue.tools) == ["b__z", "b__a", "a__m"]
    assert catalogue.backends == ("b", "a")


def test_a_payload_keeps_every_byte_but_its_name() -> None:
    sent = b'{"x":1e999,"name":"t","n":null,"d":{ "b" : [1.0 ,2], "a":"\\u00e9"},"inputSchema":{"$ref":"#"}}'
    entry = merged(offering("s", tools=(sent,))).tools["s__t"]
    assert entry.raw == sent.replace(b'"t"', b'"s__t"')
    assert entry.native_json == b'"t"'


def test_separators_inside_names_do_not_merge_two_tools() -> None:
    catalogue = merged(offering("a", tools=(tool("b__c"),)), offering("a__b", tools=(tool("c"),)))
    first, second = catalogue.entries(Kind.TOOL)
    assert (first.key, first.backend) == ("a__b__c", "a")
    assert (second.backend, second.native) == ("a__b", "c")
    assert second.key.startswith("a__b__c_")
    assert "a__b__c is already a tool of a" in catalogue.problems[0]


def test_names_chosen_to_collide_do_not_block_others() -> None:
    probe = merged(offering("x", tools=(tool("t"),), prefix=""), offering("y", tools=(tool("t"),), prefix=""))
    wanted = probe.entries(Kind.TOOL)[1].key
    squatters = (tool("t"), tool(wanted))
    catalogue = merged(offering("x", tools=squatters, prefix=""), offering("y", tools=(tool("t"),), prefix=""))
    assert [entry.backend for entry in catalogue.entries(Kind.TOOL)] == ["x", "x", "y"]


def test_an_unprefixed_name_cannot_enter_another_backends_namespace() -> None:
    catalogue = merged(offering("rogue", tools=(tool("git__push"),), prefix=""), offering("git", tools=(tool("push"),)))
    found = catalogue.find(Kind.TOOL, "git__push")
    assert found is not None
    assert found.backend == "git"
    assert "git__push is in the namespace of git" in catalogue.problems[0]


def test_a_name_that_had_to_change_is_reported() -> None:
    catalogue = merged(offering("s", tools=(tool("x.y"),)))
    assert catalogue.problems == (
        f"tool 'x.y' of s: renamed to {next(iter(catalogue.tools))} ('s__x.y' is not a valid name)",
    )


def test_tools_and_prompts_may_share_a_name() -> None:
    catalogue = merged(offering("s", tools=(tool("x"),), prompts=({"name": "x"},)))
    assert list(catalogue.tools) == list(catalogue.prompts) == ["s__x"]
    assert catalogue.problems == ()


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        (b"[1]", "not a readable JSON object"),
        (b"{", "not a readable JSON object"),
        (b'{"name":"\xff"}', "not a readable JSON object"),
        (b'{"name":"t","deep":' + b"[" * 9999 + b"]" * 9999 + b"}", "not a readable JSON object"),
        (b'{"title":"t"}', "no name"),
        (b'{"name":7}', "no name"),
        (b'{"name":""}', "no name"),
        (b'{"name":"ok","Name":"git__push"}', "'Name' is a look-alike"),
        (b'{"name":"' + b"x" * 8193 + b'"}', "longer than 8192"),
    ],
)
def test_an_invalid_item_is_left_out_and_reported(item: bytes, reason: str) -> None:
    catalogue = merged(offering("s", tools=(item, tool("good"))))
    assert list(catalogue.tools) == ["s__good"]
    assert len(catalogue.problems) == 1
    assert catalogue.problems[0].startswith("tool #1 of s: left out")
    assert reason in catalogue.problems[0]


def test_of_an_item_listed_twice_the_first_is_offered() -> None:
    catalogue = merged(offering("s", tools=(tool("t", n=1), tool("t", n=2))))
    assert json.loads(catalogue.tools["s__t"].raw)["n"] == 1
    assert catalogue.problems == ("tool 't' of s: listed more than once; the first is used",)


def test_overrides_change_the_public_payload_only() -> None:
    overrides = {(Kind.TOOL, "rm"): Override(name="delete", title="Delete", description="Carefully")}
    catalogue = merged(offering("s", tools=(tool("rm", description="old", z=1),), overrides=overrides))
    entry = catalogue.tools["s__delete"]
    assert (entry.native, entry.title) == ("rm", "Delete")
    assert entry.raw == b'{"name":"s__delete","description":"Carefully","z":1,"title":"Delete"}'
    assert catalogue.find(Kind.TOOL, "rm") == entry


def test_only_boolean_hints_count() -> None:
    stated = {"readOnlyHint": True, "destructiveHint": "no", "openWorldHint": False, "title": "T"}
    entry = merged(offering("s", tools=(tool("t", annotations=stated),))).tools["s__t"]
    assert entry.annotations == {("readOnlyHint", True), ("openWorldHint", False)}


def test_header_annotations_in_an_input_schema_are_detected() -> None:
    schema = {"type": "object", "properties": {"region": {"type": "string", "x-mcp-header": "Region"}}}
    catalogue = merged(offering("s", tools=(tool("t", inputSchema=schema), tool("u", description="x-mcp-header"))))
    assert [entry.input_schema_has_headers for entry in catalogue.entries(Kind.TOOL)] == [True, False]


# --- aliases ----------------------------------------------------------------------------------------------------


def test_an_unambiguous_native_name_is_an_alias() -> None:
    catalogue = merged(offering("a", tools=(tool("x"),)), offering("b", tools=(tool("y"),)))
    found = catalogue.find(Kind.TOOL, "y")
    assert found is not None
    assert (found.backend, found.key) == ("b", "b__y")
    assert catalogue.find(Kind.PROMPT, "y") is None


def test_an_ambiguous_native_name_is_not_an_alias() -> None:
    catalogue = merged(offering("a", tools=(tool("x"),)), offering("b", tools=(tool("x"),)))
    assert catalogue.find(Kind.TOOL, "x") is None


def test_a_public_name_takes_precedence_over_an_alias() -> None:
    catalogue = merged(offering("a", tools=(tool("b_x"),), prefix=""), offering("c", tools=(tool("b_x"),)))
    found = catalogue.find(Kind.TOOL, "b_x")
    assert found is not None
    assert found.backend == "a"


def test_a_native_name_in_another_namespace_is_not_an_alias() -> None:
    catalogue = merged(offering("a"), offering("b", tools=(tool("a__push"),)))
    assert catalogue.find(Kind.TOOL, "a__push") is None
    assert catalogue.find(Kind.TOOL, "b__a__push") is not None


def test_hiding_an_entry_does_not_route_its_name_to_another_backend() -> None:
    catalogue = merged(offering("a", tools=(tool("x"),)), offering("b", tools=(tool("x"),)))
    assert catalogue.restrict(lambda entry: entry.backend == "b").find(Kind.TOOL, "x") is None


# --- URIs -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["Read me.md", "", "\u00fc/\u2028", "x" * 300])
def test_the_name_of_a_resource_is_only_prefixed(name: str) -> None:
    catalogue = merged(offering("docs", resources=(resource("file:///x", name),)))
    (entry,) = catalogue.entries(Kind.RESOURCE)
    assert entry.name == f"docs__{name}"
    assert catalogue.problems == ()


def test_uris_are_kept_and_only_a_collision_is_prefixed() -> None:
    both = (resource("file:///x"),)
    catalogue = merged(offering("a", resources=both), offering("b", resources=both))
    assert list(catalogue.resources) == ["file:///x", "b+file:///x"]
    assert json.loads(catalogue.resources["b+file:///x"].raw) == {"name": "b__thing", "uri": "b+file:///x"}
    assert catalogue.find_resource("file:///x") == ResourceRoute("a", "file:///x")
    assert catalogue.find_resource("b+file:///x") == ResourceRoute("b", "file:///x")
    assert "'file:///x' is already listed by a" in catalogue.problems[0]


def test_two_spellings_of_one_uri_collide() -> None:
    catalogue = merged(
        offering("a", resources=(resource("KITCHEN://Soup"),)), offering("b", resources=(resource("kitchen://Soup"),))
    )
    assert list(catalogue.resources) == ["KITCHEN://Soup", "b+kitchen://Soup"]
    assert catalogue.find_resource("kitchen://Soup") == ResourceRoute("a", "KITCHEN://Soup")


def test_two_spellings_of_one_backend_are_both_kept() -> None:
    catalogue = merged(offering("a", resources=(resource("x://H/p"), resource("x://h/p"))))
    assert catalogue.find_resource("x://h/p") == ResourceRoute("a", "x://h/p")
    assert catalogue.find_resource("X://h/p") == ResourceRoute("a", "x://H/p")
    assert catalogue.problems == ()


def test_prefix_presents_every_uri_of_a_backend_prefixed() -> None:
    catalogue = merged(
        offering("a", resources=(resource("x:1"),), templates=(template("x:{id}"),), uris="prefix"),
    )
    assert list(catalogue.resources) == ["a+x:1"]
    assert list(catalogue.templates) == ["a+x:{id}"]
    assert catalogue.find_resource("a+x:7") == ResourceRoute("a", "x:7")
    assert catalogue.public_uri("a", "x:unlisted") == "a+x:unlisted"


def test_verbatim_leaves_a_collision_out_and_reports_it() -> None:
    both = (resource("file:///x"),)
    catalogue = merged(offering("a", resources=both), offering("b", resources=both, uris="verbatim"))
    assert list(catalogue.resources) == ["file:///x"]
    assert catalogue.problems == ("resource 'file:///x' of b: left out ('file:///x' is already listed by a)",)
    assert catalogue.public_uri("b", "y:1") == "y:1"


def test_a_uri_with_another_backends_prefix_does_not_shadow_it() -> None:
    catalogue = merged(offering("rogue", resources=(resource("bank+file:///x"),)), offering("bank"))
    assert catalogue.find_resource("bank+file:///x") == ResourceRoute("bank", "file:///x")
    assert catalogue.find_resource("rogue+bank+file:///x") == ResourceRoute("rogue", "bank+file:///x")
    assert "it has the prefix of bank" in catalogue.problems[0]


def test_a_prefixed_uri_is_sent_in_the_backends_spelling() -> None:
    catalogue = merged(offering("a", resources=(resource("KITCHEN://Soup"),)))
    assert catalogue.find_resource("a+kitchen://Soup") == ResourceRoute("a", "KITCHEN://Soup")


def test_an_unlisted_uri_routes_to_the_first_matching_template() -> None:
    catalogue = merged(
        offering("a", templates=(template("DB://{table}"),)),
        offering("b", templates=(template("db://{table}/{row}"), template("db://{+any}"))),
    )
    assert catalogue.find_resource("db://users") == ResourceRoute("a", "DB://users")
    assert catalogue.find_resource("db://users/1") == ResourceRoute("b", "db://users/1")


def test_an_unlisted_uri_routes_to_the_only_backend_with_its_scheme() -> None:
    catalogue = merged(
        offering("a", resources=(resource("note:1"), resource("file:///a"))),
        offering("b", resources=(resource("file:///b"),)),
    )
    assert catalogue.find_resource("note:2") == ResourceRoute("a", "note:2")
    assert catalogue.find_resource("file:///c") is None
    assert catalogue.find_resource("other:1") is None


def test_a_prefixed_uri_of_a_hidden_backend_does_not_route_by_scheme() -> None:
    catalogue = merged(offering("a", tools=(tool("t"),)), offering("b", templates=(template("{+any}"),)))
    only_b = catalogue.restrict(lambda entry: entry.backend == "b")
    assert only_b.find_resource("a+x:1") is None
    assert only_b.find_resource("x:1") == ResourceRoute("b", "x:1")


def test_a_template_collision_is_prefixed() -> None:
    both = (template("db://{t}"),)
    catalogue = merged(offering("a", templates=both), offering("b", templates=both))
    assert list(catalogue.templates) == ["db://{t}", "b+db://{t}"]
    assert catalogue.find_resource("b+db://x") == ResourceRoute("b", "db://x")
    assert catalogue.restrict(lambda entry: entry.backend == "b").find_resource("db://x") is None


def test_a_ref_is_prefixed_only_if_it_would_route_elsewhere() -> None:
    catalogue = merged(
        offering("a", resources=(resource("file:///x"), resource("ui://a"))),
        offering("b", resources=(resource("n:1"),)),
    )
    assert catalogue.public_uri("a", "file:///x") == "file:///x"
    assert catalogue.public_uri("b", "file:///x") == "b+file:///x"
    assert catalogue.public_uri("b", "ui://b") == "b+ui://b"
    assert catalogue.public_uri("b", "new:1") == "new:1"


def test_a_tools_user_interface_has_its_public_uri() -> None:
    ui = (resource("ui://main"),)
    meta = {"keep": [1], "ui": {"resourceUri": "ui://main", "csp": {}}, "ui/resourceUri": "ui://main"}
    catalogue = merged(
        offering("a", resources=ui, tools=(tool("t", _meta=meta),)),
        offering("b", resources=ui, tools=(tool("t", _meta=meta),)),
    )
    assert json.loads(catalogue.tools["a__t"].raw)["_meta"] == meta
    assert json.loads(catalogue.tools["b__t"].raw)["_meta"] == {
        "keep": [1],
        "ui": {"resourceUri": "b+ui://main", "csp": {}},
        "ui/resourceUri": "b+ui://main",
    }


# --- views, changes, lists --------------------------------------------------------------------------------------


def test_a_restricted_catalogue_routes_to_its_own_entries_only() -> None:
    catalogue = merged(
        offering("a", tools=(tool("t"),), resources=(resource("x:1"),), templates=(template("y:{v}"),)),
        offering("b", tools=(tool("u"),)),
    )
    view = catalogue.restrict(lambda entry: entry.backend == "b")
    assert view.backends == ("b",)
    for uri in ("x:1", "X:1", "a+x:1", "a+z:1", "y:1", "x:9"):
        assert catalogue.find_resource(uri) is not None, uri
        assert view.find_resource(uri) is None, uri
    assert view.find(Kind.TOOL, "a__t") is None
    assert view.find(Kind.TOOL, "t") is None
    assert view.find(Kind.TOOL, "u") is not None


def test_members_without_entries_still_get_unlisted_uris() -> None:
    catalogue = merged(offering("a", resources=(resource("x:1"),)))
    view = catalogue.restrict(lambda _: False, members=("a",))
    assert view.entries(Kind.RESOURCE) == ()
    assert view.find_resource("a+x:2") == ResourceRoute("a", "x:2")


def test_a_restriction_without_effect_is_the_same_catalogue() -> None:
    catalogue = merged(offering("a", tools=(tool("t"),)))
    assert catalogue.restrict(lambda _: True) is catalogue


def test_a_change_is_a_visible_difference() -> None:
    old = merged(offering("a", tools=(tool("t"), tool("u")), templates=(template("x:{v}"),)))
    reordered = merged(offering("a", tools=(tool("u"), tool("t")), templates=(template("x:{v}"),)))
    emptied = merged(offering("a", prompts=({"name": "p"},)))
    assert diff(old, old) == frozenset()
    assert diff(old, reordered) == {Change.TOOLS}
    assert diff(old, emptied) == {Change.TOOLS, Change.PROMPTS, Change.RESOURCES}


def entries_of(*items: Item) -> tuple[Entry, ...]:
    return merged(offering("s", tools=items)).entries(Kind.TOOL)


def test_a_list_for_2026_07_28_keeps_any_schema_and_drops_execution() -> None:
    entries = entries_of(tool("t", outputSchema={"type": "array"}, execution={"taskSupport": "optional"}))
    assert encode_list(entries, Kind.TOOL, version="2026-07-28") == (
        b'[{"name":"s__t","outputSchema":{"type": "array"}}]'
    )


@pytest.mark.parametrize("schema", [{"type": "array"}, {"$ref": "#/x"}, True, {"type": ["object", "null"]}, None])
def test_a_list_for_the_handshake_era_drops_other_than_object_schemas(schema: object) -> None:
    entries = entries_of(tool("t", outputSchema=schema), tool("u", outputSchema={"type": "object"}))
    listed = json.loads(encode_list(entries, Kind.TOOL, version="2025-11-25"))
    assert listed == [{"name": "s__t"}, {"name": "s__u", "outputSchema": {"type": "object"}}]


def test_execution_is_listed_for_2025_11_25_only() -> None:
    entries = entries_of(tool("t", execution={"taskSupport": "required"}))
    with_it = {v for v in ("2024-11-05", "2025-06-18", "2025-11-25", "2026-07-28")
               if b"execution" in encode_list(entries, Kind.TOOL, version=v)}  # fmt: skip
    assert with_it == {"2025-11-25"}


def test_member_names_inside_a_payload_change_nothing() -> None:
    entries = entries_of(tool("t", inputSchema={"properties": {"execution": {}, "outputSchema": {}}}))
    assert encode_list(entries, Kind.TOOL, version="2024-11-05") == b"[%b]" % entries[0].raw


def test_other_kinds_and_empty_lists_are_unchanged() -> None:
    catalogue = merged(offering("s", prompts=(b'{"name":"p","execution":1}',)))
    listed = encode_list(catalogue.entries(Kind.PROMPT), Kind.PROMPT, version="2024-11-05")
    assert listed == b'[{"name":"s__p","execution":1}]'
    assert encode_list((), Kind.TOOL, version="2024-11-05") == b"[]"


def test_the_repr_of_a_catalogue_counts_its_entries() -> None:
    assert repr(merged(offering("a", tools=(tool("t"),)))) == (
        "<Catalogue of a: 1 tools, 0 prompts, 0 resources, 0 templates; 0 problems>"
    )
