"""Invalid items in lists: repaired or left out, reported, and never at the cost of the others."""

import json
import logging
from typing import Any, Final

import pytest
from mcp_types.methods import validate_server_result

from mcp_manifold.model.catalogue.entry import Kind
from mcp_manifold.model.catalogue.repair import repair
from tests.contract.stand import EVERY_WAY, KINDS, WAYS, standing
from tests.peers import jsontext
from tests.peers.backend import Act, Script, prompt, resource, template, tool
from tests.peers.clients import MODERN_VERSION
from tests.peers.ways import Way

pytestmark = pytest.mark.anyio

LONE: Final = "\\ud83d"
GOOD: Final = (
    '{ "name":"good","inputSchema":{"type":"object"}, "x-big":123456789012345678901.50,"title":"\\ud83d\\ude00"}'
)
REPAIRED: Final[dict[str, tuple[str, str]]] = {  # what is added to a tool, and the member that the report names
    "no schema": ("", "inputSchema"),
    "null schema": ('"inputSchema":null', "inputSchema"),
    "list schema": ('"inputSchema":[]', "inputSchema"),
    "empty schema": ('"inputSchema":{}', "inputSchema"),
    "schema with null": ('"inputSchema":{"type":["object","null"]}', "inputSchema.type"),
    "properties list": ('"inputSchema":{"type":"object","properties":[]}', "inputSchema.properties"),
    "properties null": ('"inputSchema":{"type":"object","properties":null}', "inputSchema.properties"),
    "property true": ('"inputSchema":{"type":"object","properties":{"a":true}}', "inputSchema.properties.a"),
    "required null": ('"inputSchema":{"type":"object","required":null}', "inputSchema.required"),
    "dialect null": ('"inputSchema":{"type":"object","$schema":null}', "inputSchema.$schema"),
    **{
        f"{member} null": (f'"inputSchema":{{"type":"object"}},"{member}":null', member)
        for member in ("description", "title", "annotations", "icons", "_meta", "outputSchema", "execution")
    },
    "hint text": ('"inputSchema":{"type":"object"},"annotations":{"readOnlyHint":"x"}', "annotations.readOnlyHint"),
    "icon without src": ('"inputSchema":{"type":"object"},"icons":[{"mimeType":"a/b"}]', "icons[0]"),
    "icon sizes": ('"inputSchema":{"type":"object"},"icons":[{"src":"a:b","sizes":"4x4"}]', "icons[0].sizes"),
    "description number": ('"inputSchema":{"type":"object"},"description":5', "description"),
    "task support": ('"inputSchema":{"type":"object"},"execution":{"taskSupport":"x"}', "execution.taskSupport"),
    "output properties": (
        '"inputSchema":{"type":"object"},"outputSchema":{"type":"object","properties":[]}',
        "outputSchema.properties",
    ),
    **{
        f"output {what}": (f'"inputSchema":{{"type":"object"}},"outputSchema":{schema}', "outputSchema")
        for what, schema in {  # the client of the TypeScript SDK compiles each
            "reference": '{"type":"object","properties":{"a":{"$ref":"#/$defs/none"}}}',
            "far reference": '{"type":"object","properties":{"a":{"$ref":"https://example.test/a"}}}',
            "type": '{"type":"object","properties":{"a":{"type":"file"}}}',
            "inner properties": '{"type":"object","properties":{"a":{"properties":[]}}}',
            "inner null": '{"type":"object","properties":{"a":{"anyOf":[null]}}}',
            "no choice": '{"type":"object","properties":{"a":{"enum":[]}}}',
            "old keyword": '{"type":"object","properties":{"a":{"minimum":1,"exclusiveMinimum":true}}}',
            "pattern": '{"type":"object","properties":{"a":{"pattern":"(?P<a>x)\\\\Z"}}}',
            "nullable": '{"type":"object","properties":{"a":{"nullable":true}}}',
        }.items()
    },
    "surrogate": (f'"inputSchema":{{"type":"object"}},"description":"a{LONE}b"', "description"),
    "meta surrogate": (f'"inputSchema":{{"type":"object"}},"_meta":{{"{LONE}":1}}', "_meta"),
}
LEFT_OUT: Final[dict[str, str]] = {
    "no name": '{"inputSchema":{"type":"object"}}',
    "null": "null",
    "number": "5",
    "surrogate name": f'{{"name":"{LONE}","inputSchema":{{"type":"object"}}}}',
    "surrogate argument": f'{{"name":"a","inputSchema":{{"type":"object","properties":{{"{LONE}":{{}}}}}}}}',
    "text schema": '{"name":"b","inputSchema":"x"}',
    "string schema": '{"name":"c","inputSchema":{"type":"string"}}',
    "property text": '{"name":"d","inputSchema":{"type":"object","properties":{"a":"text"}}}',
    "required text": '{"name":"e","inputSchema":{"type":"object","required":"a"}}',
    "deep": '{"name":"g","inputSchema":{"type":"object","x":' + "[" * 160 + "]" * 160 + "}}",
    "long number": '{"name":"h","inputSchema":{"type":"object"},"x":' + "1" * 4301 + "}",
    "not a number": '{"name":"f","inputSchema":{"type":"object"},"x":NaN}',
}
RESOURCES: Final = {
    "size": '{"uri":"a:1","name":"n","size":"12 kB"}',
    "mimeType": '{"uri":"a:2","name":"n","mimeType":null}',
    "annotations.priority": '{"uri":"a:3","name":"n","annotations":{"priority":"high"}}',
    "annotations.audience": '{"uri":"a:4","name":"n","annotations":{"audience":["nobody"]}}',
    "annotations.lastModified": '{"uri":"a:5","name":"n","annotations":{"lastModified":"yesterday"}}',
    "name": '{"uri":"a:6","name":"' + LONE + '"}',
}
PROMPTS: Final = {
    "arguments": '{"name":"p1","arguments":null}',
    "arguments[0].required": '{"name":"p2","arguments":[{"name":"a","required":null}]}',
    "arguments[0]": '{"name":"p3","arguments":[{"description":"no name"}]}',
}
INVALID: Final = "mcp-manifold/invalid"


def listing(*items: str, member: str = "tools") -> Act:
    return Act("raw", f'{{"{member}":[{",".join(items)}]}}')


def script(*tools: str) -> Script:
    """Everything above that is not `tools` is listed too."""
    return Script(
        tools=(tool("good"),),
        resources=(resource("a:0"),),
        templates=(template("b:{c}"),),
        prompts=(prompt("p"),),
        on={
            "tools/list": listing(GOOD, *tools),
            "resources/list": listing(*RESOURCES.values(), member="resources"),
            "resources/templates/list": listing(
                '{"uriTemplate":"b:{c}","name":"n","mimeType":null}', member="resourceTemplates"
            ),
            "prompts/list": listing(*PROMPTS.values(), member="prompts"),
        },
    )


def of_kind(kind: str, made: Script) -> Script:
    era = "modern" if kind.endswith("26") else "handshake"
    return Script(**{**{name: getattr(made, name) for name in made.__slots__}, "name": kind, "era": era})


ALL_BAD: Final = (
    *(f'{{"name":"t{n}",{m}}}'.replace(",}", "}") for n, (m, _) in enumerate(REPAIRED.values())),
    *LEFT_OUT.values(),
)


@pytest.mark.parametrize("way", EVERY_WAY, ids=str)
async def test_every_list_is_valid_for_the_official_client_whatever_the_servers_list(way: Way) -> None:
    scripts = {kind: of_kind(kind, script(*ALL_BAD)) for kind in KINDS}
    async with standing(scripts) as stand, stand.client(way) as client:
        listed: dict[str, Any] = {}
        for method in ("tools/list", "resources/list", "resources/templates/list", "prompts/list"):
            reply = await client.request(method)
            assert reply.result is not None, reply
            listed[method] = json.loads(reply.result)
            validate_server_result(method, way.version, listed[method])
        names = {each["name"] for each in listed["tools/list"]["tools"]}
        usable = {f"{kind}__{name}" for kind in KINDS for name in ("good", *(f"t{n}" for n in range(len(REPAIRED))))}
        assert names == usable
        prompts = {each["name"] for each in listed["prompts/list"]["prompts"]}
        assert prompts == {f"{kind}__{name}" for kind in KINDS for name in ("p1", "p2")}
        assert {each["uri"] for each in listed["resources/list"]["resources"]} >= {f"a:{n}" for n in range(1, 6)}
        assert (await client.call("web__good", {"text": "still here"})).text == "still here"


@pytest.mark.parametrize("way", WAYS, ids=str)
async def test_a_valid_item_stays_as_it_came_beside_an_invalid_one(way: Way) -> None:
    async with standing({"web": of_kind("web", script(*ALL_BAD))}) as stand, stand.client(way) as client:
        (raw,) = [raw for raw in (await client.request("tools/list")).entries("tools") if b"__good" in raw]
        sent, got = dict(jsontext.walk(GOOD.encode())), dict(jsontext.walk(raw))
        assert {**got, "name": b""} == {**sent, "name": b""}


async def test_each_report_names_server_item_and_member(caplog: pytest.LogCaptureFixture) -> None:
    async with standing({"web": of_kind("web", script(*ALL_BAD))}) as stand:
        with caplog.at_level(logging.WARNING):
            async with stand.client(Way("http", MODERN_VERSION)) as client:
                reports = (await client.request("tools/list")).value["_meta"][INVALID]
                again = (await client.request("tools/list")).value["_meta"][INVALID]
                resources = (await client.request("resources/list")).value["_meta"][INVALID]
                prompts = (await client.request("prompts/list")).value["_meta"][INVALID]
        assert reports == again
        assert {each["server"] for each in reports} == {"web"}
        said = {each["item"]: each for each in reports}
        for place, (_, member) in enumerate(REPAIRED.values()):
            assert said[f"t{place}"]["outcome"] == "repaired"
            assert said[f"t{place}"]["reason"].startswith(f"{member}:"), said[f"t{place}"]
        assert [each["outcome"] for each in reports].count("left out") == len(LEFT_OUT)
        assert [each["reason"].partition(":")[0].split(" ")[0] for each in resources] == list(RESOURCES)
        assert [each["reason"].partition(":")[0].split(" ")[0] for each in prompts] == list(PROMPTS)
        assert "greeting repaired" not in caplog.text
        lines = [each.getMessage() for each in caplog.records if "invalid items" in each.getMessage()]
        assert len(lines) == 1
        assert "tool 't0' of web: repaired (inputSchema" in lines[0]
        assert "prompt 'p3' of web: left out (arguments[0] has no name)" in stand.status("web").invalid
        assert "prompt 'p3' of web: left out (arguments[0] has no name)" in stand.manifold.problems()


async def test_a_uri_without_a_scheme_and_an_endless_size_are_for_no_client() -> None:
    items = ('{"uri":"a:1","name":"n","size":1e30}', '{"uri":"a:2","name":"n","size":1e3}', '{"uri":"/a","name":"n"}')
    made = of_kind(
        "web", Script(on={"resources/list": listing(*items, member="resources")}, resources=(resource("a:1"),))
    )
    async with standing({"web": made}) as stand, stand.client(Way("http", MODERN_VERSION)) as client:
        listed = (await client.request("resources/list")).value["resources"]
        assert [(each["uri"], each.get("size")) for each in listed] == [("a:1", None), ("a:2", 1000)]


OUTPUT: Final = '{"name":"t","inputSchema":{"type":"object"},"outputSchema":{"type":"object","properties":{"a":%s},%s}}'


@pytest.mark.parametrize(
    "tool",
    [
        OUTPUT % ('{"$ref":"#/$defs/b%20c"}', '"$defs":{"b c":{"type":["string","null"],"pattern":"^\\\\\\\\Z?$"}}'),
        OUTPUT % ('{"items":[{"$ref":"#/$defs/b"},true],"x-y":[]}', '"$defs":{"b":{"nullable":true,"type":"string"}}'),
        OUTPUT % ('{"properties":{"$ref":{"type":"string"},"enum":{}},"default":{"$ref":"x"}}', '"description":"d"'),
        OUTPUT % ('{"$ref":"#b"}', '"$defs":{"b":{"$anchor":"b"}}'),
        OUTPUT % ('{"$ref":"https://example.test/b"}', '"$defs":{"b":{"$id":"https://example.test/b"}}'),
        OUTPUT % ("{}", '"description":"{}","x":{}'.format("[" * 200 + "1" * 5000, "[" * 140 + "]" * 140)),
    ],
)
def test_a_valid_output_schema_stays_as_it_came(tool: str) -> None:
    assert repair(Kind.TOOL, "web", tool.encode(), 1) == (tool.encode(), None)


async def test_a_filter_keeps_the_reports_of_its_server_from_clients() -> None:
    entry = {"tools": {"block": ["t*"]}}
    scripts = {"web": of_kind("web", script(*ALL_BAD))}
    async with standing(scripts, web=entry) as stand, stand.client(Way("http", MODERN_VERSION)) as client:
        assert INVALID not in (await client.request("tools/list")).value["_meta"]
        assert INVALID in (await client.request("prompts/list")).value["_meta"]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_greeting_with_lone_surrogates_is_readable(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    era = "modern" if kind.endswith("26") else "handshake"
    made = Script(
        name=kind,
        era=era,  # type: ignore[arg-type]  # one of the literals
        tools=(tool("good"),),
        server_info=f'{{"name":"n{LONE}","version":"1"}}',
        initialize_members=f'"instructions":"be {LONE} kind","x":"{LONE}"',
    )
    async with standing({kind: made}) as stand, stand.client(Way("http", "2025-11-25"), connect=False) as client:
        greeting = await client.connect("2025-11-25")
        assert "be \ufffd kind" in greeting.value["instructions"]
        assert (await client.call(f"{kind}__good", {"text": "hi"})).text == "hi"
        assert "greeting repaired" in caplog.text
