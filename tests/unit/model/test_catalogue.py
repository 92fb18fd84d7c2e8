"""The catalogue: merge, look-up, restriction, diff, lists."""

import json
import re
from collections.abc import Mapping

import pytest

from mcp_manifold.model.catalogue import (
    Catalogue,
    Change,
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
from mcp_manifold.wire import Payload

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
        capabilities=Payload(b'{"tools":{}}'),
        tools=tuple(map(raw, tools)),
        prompts=tuple(map(raw, prompts)),
        resources=tuple(map(raw, resources)),
        templates=tuple(map(raw, templates)),
    )
    return listing, Terms(backend if prefix is None else prefix, uris, overrides or {})


def merged(*offers: tuple[Listing, Terms], rules: Rules | None = None) -> Catalogue:
    return merge(offers, rules or Rules())


def test_entries_keep_the_order_of_backends_and_their_lists() -> None:
    catalogue = merged(
        offering("b", tools=(tool("z"), tool("a")), prompts=({"name": "z"},)), offering("a", tools=(tool("m"),))
    )
    assert (list(catalogue.tools), list(catalogue.prompts)) == (["b__z", "b__a", "a__m"], ["b__z"])
    assert repr(catalogue) == "<Catalogue of b, a: 3 tools, 1 prompts, 0 resources, 0 templates; 0 problems>"
    assert (catalogue.backends, catalogue.problems) == (("b", "a"), ())
    assert catalogue.restrict(lambda _: True) is catalogue


def test_a_payload_keeps_every_byte_but_its_name() -> None:
    sent = b'{"x":1e999,"name":"t","n":null,"d":{ "b" : [1.0 ,2], "a":"\\u00e9"},"inputSchema":{"$ref":"#"}}'
    entry = merged(offering("s", tools=(sent,))).tools["s__t"]
    assert entry.raw == sent.replace(b'"t"', b'"s__t"')
    assert entry.native_json == b'"t"'


def test_a_name_belongs_to_the_server_with_the_longest_prefix_that_starts_it() -> None:
    catalogue = merged(offering("a", tools=(tool("b__c"), tool("b..d"))), offering("a__b", tools=(tool("c"),)))
    first, second, third = catalogue.entries(Kind.TOOL)
    assert (third.key, third.backend, third.native) == ("a__b__c", "a__b", "c")
    assert (first.backend, first.native) == ("a", "b__c")
    assert re.fullmatch(r"a__x[0-9a-f]{8}_b__c", first.key)
    assert re.fullmatch(r"a__x[0-9a-f]{8}_b__d_[0-9a-f]{8}", second.key)
    assert "a__b__c is in the namespace of a__b" in catalogue.problems[0]


@pytest.mark.parametrize("separator", ["__", "_", "-"])
def test_a_prefix_is_reserved_for_its_server_even_if_that_has_listed_nothing(separator: str) -> None:
    native = f"bank{separator}pay"
    offers = [offering("shop", tools=(tool(native),)), offering("bare", tools=(tool(native, n=1),), prefix="")]
    catalogue = merge(offers, Rules(separator), [("shop", "shop"), ("", "bare"), ("bank", "bank")])
    assert catalogue.find(Kind.TOOL, native) is None
    first, second = catalogue.entries(Kind.TOOL)
    assert first.key == f"shop{separator}{native}"
    assert re.fullmatch(rf"x[0-9a-f]{{8}}_{native}", second.key)


def test_the_old_name_of_a_renamed_server_is_no_alias() -> None:
    offers = [offering("shop", tools=(tool("bank__pay"), tool("shop__buy"))), offering("bank2", tools=(tool("pay"),))]
    catalogue = merged(*offers)
    assert catalogue.find(Kind.TOOL, "bank__pay") is None
    found = catalogue.find(Kind.TOOL, "shop__buy")
    assert found is not None
    assert found.key == "shop__shop__buy"


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


def test_a_repeated_item_and_a_changed_name_are_reported() -> None:
    catalogue = merged(offering("s", tools=(tool("t", n=1), tool("t", n=2), tool("x.y"))))
    first, renamed = catalogue.entries(Kind.TOOL)
    assert json.loads(first.raw)["n"] == 1
    assert catalogue.problems == (
        "tool 't' of s: listed more than once; the first is used",
        f"tool 'x.y' of s: renamed to {renamed.key} ('s__x.y' is not a valid name)",
    )


def test_overrides_change_the_public_payload_only() -> None:
    overrides = {(Kind.TOOL, "rm"): Override(name="delete", title="Delete", description="Carefully")}
    catalogue = merged(offering("s", tools=(tool("rm", description="old", z=1),), overrides=overrides))
    entry = catalogue.tools["s__delete"]
    assert (entry.native, entry.title) == ("rm", "Delete")
    assert entry.raw == b'{"name":"s__delete","description":"Carefully","z":1,"title":"Delete"}'
    assert catalogue.find(Kind.TOOL, "rm") == entry


def test_boolean_hints_and_header_annotations_of_a_tool_are_detected() -> None:
    stated = {"readOnlyHint": True, "destructiveHint": "no", "openWorldHint": False, "title": "T"}
    schema = {"type": "object", "properties": {"region": {"type": "string", "x-mcp-header": "Region"}}}
    tools = (tool("t", annotations=stated, inputSchema=schema), tool("u", description="x-mcp-header"))
    first, second = merged(offering("s", tools=tools)).entries(Kind.TOOL)
    assert first.annotations == {("readOnlyHint", True), ("openWorldHint", False)}
    assert (first.input_schema_has_headers, second.input_schema_has_headers) == (True, False)


@pytest.mark.parametrize(
    ("offers", "name", "key"),
    [
        ([offering("a", tools=(tool("x"),)), offering("b", tools=(tool("y"),))], "y", "b__y"),
        ([offering("a", tools=(tool("x"),)), offering("b", tools=(tool("x"),))], "x", None),
        ([offering("a", tools=(tool("b_x"),), prefix=""), offering("c", tools=(tool("b_x"),))], "b_x", "b_x"),
        ([offering("a"), offering("b", tools=(tool("a__push"),))], "a__push", None),
        ([offering("a"), offering("b", tools=(tool("a__push"),))], "b__a__push", "b__a__push"),
    ],
    ids=["unambiguous", "ambiguous", "public-name-first", "foreign-namespace", "public-name"],
)
def test_an_unambiguous_name_is_an_alias(offers: list[tuple[Listing, Terms]], name: str, key: str | None) -> None:
    catalogue = merged(*offers)
    found = catalogue.find(Kind.TOOL, name)
    assert (None if found is None else found.key) == key
    assert catalogue.find(Kind.PROMPT, name) is None
    only_b = catalogue.restrict(lambda entry: entry.backend == "b").find(Kind.TOOL, name)
    assert only_b is None or only_b == found, "hiding an entry does not route its name to another backend"


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


def test_prefix_presents_every_uri_of_a_backend_prefixed() -> None:
    catalogue = merged(offering("a", resources=(resource("x:1"),), templates=(template("x:{id}"),), uris="prefix"))
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


def test_an_unlisted_uri_routes_to_the_first_template_or_the_only_backend_with_its_scheme() -> None:
    catalogue = merged(
        offering("a", resources=(resource("note:1"), resource("file:///a")), templates=(template("DB://{table}"),)),
        offering("b", resources=(resource("file:///b"),), templates=(template("db://{t}/{r}"), template("db://{+x}"))),
    )
    assert catalogue.find_resource("db://users") == ResourceRoute("a", "DB://users")
    assert catalogue.find_resource("db://users/1") == ResourceRoute("b", "db://users/1")
    assert catalogue.find_resource("note:2") == ResourceRoute("a", "note:2")
    assert catalogue.find_resource("file:///c") is None
    assert catalogue.find_resource("other:1") is None


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
    assert [view.find(Kind.TOOL, name) is None for name in ("a__t", "t", "u")] == [True, True, False]
    empty = catalogue.restrict(lambda _: False, members=("a",))
    assert empty.entries(Kind.RESOURCE) == ()
    assert empty.find_resource("a+x:2") == ResourceRoute("a", "x:2"), "unlisted URIs still go to the members"


def test_a_change_is_a_visible_difference() -> None:
    old = merged(offering("a", tools=(tool("t"), tool("u")), templates=(template("x:{v}"),)))
    reordered = merged(offering("a", tools=(tool("u"), tool("t")), templates=(template("x:{v}"),)))
    emptied = merged(offering("a", prompts=({"name": "p"},)))
    assert diff(old, old) == frozenset()
    assert diff(old, reordered) == {Change.TOOLS}
    assert diff(old, emptied) == {Change.TOOLS, Change.PROMPTS, Change.RESOURCES}


def listed(version: str, *items: Item) -> bytes:
    return encode_list(merged(offering("s", tools=items)).entries(Kind.TOOL), Kind.TOOL, version=version)


def test_execution_is_listed_for_2025_11_25_only_and_any_schema_for_2026_07_28() -> None:
    offered = tool("t", outputSchema={"type": "array"}, execution={"taskSupport": "optional"})
    assert listed("2026-07-28", offered) == b'[{"name":"s__t","outputSchema":{"type": "array"}}]'
    versions = ("2024-11-05", "2025-06-18", "2025-11-25", "2026-07-28")
    assert [b"execution" in listed(version, offered) for version in versions] == [False, False, True, False]
    nested: dict[str, object] = {"properties": {"execution": {}, "outputSchema": {}}}
    assert json.loads(listed("2024-11-05", tool("t", inputSchema=nested))) == [{"name": "s__t", "inputSchema": nested}]
    prompt = merged(offering("s", prompts=(b'{"name":"p","execution":1}',))).entries(Kind.PROMPT)
    assert encode_list(prompt, Kind.PROMPT, version="2024-11-05") == b'[{"name":"s__p","execution":1}]'
    assert listed("2024-11-05") == b"[]"


@pytest.mark.parametrize("schema", [{"type": "array"}, {"$ref": "#/x"}, True, {"type": ["object", "null"]}, None])
def test_a_list_for_the_handshake_era_drops_other_than_object_schemas(schema: object) -> None:
    found = listed("2025-11-25", tool("t", outputSchema=schema), tool("u", outputSchema={"type": "object"}))
    assert json.loads(found) == [{"name": "s__t"}, {"name": "s__u", "outputSchema": {"type": "object"}}]
