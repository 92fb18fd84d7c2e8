r"""Odd but legal (and a few not quite legal) payloads that an intermediary must hand on byte for byte. Constants only.

Everything is raw JSON text on one line, so that it fits every transport. `\u2028` and other characters appear both as
themselves and escaped, on purpose.
"""
# ruff: noqa: E501  (a payload is one line, so that the eye can compare it with the wire)

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from tests.peers.script import Act, Offer, Script

_HUGE: Final = "[" * 60 + "]" * 60

RESULTS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "plain": '{"content":[{"type":"text","text":"plain"}]}',
        "spaced": '{ "content" : [ { "type" : "text" ,\t"text" : "white  space" } ] , "isError" : false }',
        "reversed": '{"zeta":1,"isError":false,"content":[{"text":"t","type":"text"}],"alpha":2}',
        "unknown_members": '{"content":[{"type":"text","text":"t","x-new":{"a":[1,null]}}],"x-vendor":{"deep":{"er":[]}}}',
        "nulls": '{"content":[],"structuredContent":null,"isError":null,"_meta":{"vendor/x":null},"x":null}',
        "big_integers": '{"content":[],"structuredContent":{"n":12345678901234567890123,"m":-99999999999999999999999}}',
        "floats": '{"content":[],"structuredContent":{"a":1.50,"b":1.0,"c":-0.0,"d":1E+2,"e":0.1000000000000000055511151}}',
        "overflow": '{"content":[],"structuredContent":{"inf":1e999,"small":1e-999}}',
        "unknown_type": '{"content":[{"type":"hologram","frames":[{"z":0.10}],"mimeType":"model/x"},{"type":"text","text":"t"}]}',
        "no_content": '{"structuredContent":{"only":true}}',
        "empty": "{}",
        "empty_objects": '{"content":[{}],"structuredContent":{},"_meta":{}}',
        "array_structure": '{"content":[],"structuredContent":{"list":[[],{},"",0,false,null]}}',
        "unicode": '{"content":[{"type":"text","text":"grüße 漢字 🜁 \u2028\u2029\u0085 \ufeff end"}]}',
        "escapes": '{"content":[{"type":"text","text":"\\u2028 \\/slash\\/ \\u0041 \\ud83d\\ude00 \\u0000 \\b\\f\\n\\r\\t\\"\\\\"}]}',
        "lone_surrogate": '{"content":[{"type":"text","text":"half \\ud800 pair"}]}',
        "looks_doubled": '{"content":[{"type":"text","text":"same"},{"type":"text","text":"same"}],"Content":1,"result":{"id":1}}',
        "looks_like_rpc": '{"content":[{"type":"text","text":"{\\"jsonrpc\\":\\"2.0\\",\\"id\\":1,\\"result\\":{}}"}],"id":7,"method":"x"}',
        "is_error": '{"content":[{"type":"text","text":"it broke"}],"isError":true,"x-why":{"code":1.50}}',
        "nested": '{"content":[],"structuredContent":{"deep":' + _HUGE + "}}",
        "image": '{"content":[{"type":"image","data":"AAE=","mimeType":"image/x-odd","annotations":{"priority":0.50,"x":null}}]}',
        "link": '{"content":[{"type":"resource_link","uri":"file:///notes%20a.txt","name":"n","size":null,"x":{}}]}',
        "embedded": '{"content":[{"type":"resource","resource":{"uri":"file:///notes%20a.txt","text":"t","x":[]}}]}',
    }
)
"""Results of tools/call."""

ERRORS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "plain_error": '{"code":-32603,"message":"broken"}',
        "data_error": '{"code":-32001,"message":"own code","data":{"n":12345678901234567890123,"f":1.50,"nil":null}}',
        "null_data_error": '{"code":-32602,"message":"null data","data":null}',
        "extra_error": '{"code":-32000,"message":"extra members","data":"text","x-hint":{"retry":1e999}}',
        "spaced_error": '{ "message" : "order and space" , "code" : -32603 }',
        "positive_error": '{"code":1234,"message":"grüße \u2028 \\u2028"}',
    }
)
"""Error objects of tools/call."""

TOOLS: Final = (
    '{"name":"odd_members","inputSchema":{"type":"object"},"x-unknown":{"a":null},"x-null":null}',
    '{"inputSchema":{"type":"object","properties":{"n":{"type":"integer","maximum":12345678901234567890123}}},"name":"odd_order"}',
    '{"name":"odd_schema","inputSchema":{"$schema":"https://json-schema.org/draft/2020-12/schema","type":"object",'
    '"$defs":{"a":{"$anchor":"here","type":"number","multipleOf":1.50}},"properties":{"p":{"$ref":"#/$defs/a"}},'
    '"additionalProperties":false}}',
    '{ "name" : "odd_space" , "inputSchema" : { "type" : "object" } , "annotations" : { "readOnlyHint" : true , "x" : 1.0 } }',
    '{"name":"odd_text","title":"Grüße \u2028 \\u2028 \\/","description":"漢字 \\ud83d\\ude00","inputSchema":{"type":"object"}}',
    '{"name":"odd_output","inputSchema":{"type":"object"},"outputSchema":{"type":"object","required":[],"x":null},'
    '"_meta":{"vendor.example/a":{"b":[1e999]},"other":null},"icons":[{"src":"data:image/png;base64,AAAA","x":1}]}',
)
"""Tool definitions."""

RESOURCES: Final = (
    '{"uri":"file:///notes%20a.txt","name":"notes","x-null":null,"x-unknown":[{}],"annotations":{"priority":0.50}}',
    '{"name":"page","uri":"https://example.test/a%2Fb?q=%C3%BC&r=1#part","mimeType":"text/html;profile=x","_meta":{"v/x":null}}',
    '{ "uri" : "urn:isbn:0451450523" , "name" : "urn" , "size" : 12345678901234567890123 }',
    '{"uri":"ui://app/main.html","name":"app","mimeType":"text/html;profile=mcp-app","_meta":{"ui":{"csp":{},"x":1.50}}}',
)
"""Resource definitions."""

TEMPLATES: Final = (
    '{"uriTemplate":"db://{table}/{row}","name":"row","x-unknown":null}',
    '{ "name" : "query" , "uriTemplate" : "search://docs{?q,lang}" , "annotations" : { "x" : 1.0 } }',
    '{"uriTemplate":"tree://root{/path*}","name":"tree","description":"\\u2028 \u2028"}',
)
"""Resource template definitions."""

PROMPTS: Final = (
    '{"name":"odd_prompt","arguments":[{"name":"a","title":"A","x-null":null,"x":1.50}],"x-unknown":{}}',
    '{ "arguments" : [ ] , "name" : "odd_prompt_space" , "_meta" : { "n" : 12345678901234567890123 } }',
)
"""Prompt definitions."""

READS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "file:///notes%20a.txt": '{"contents":[{"uri":"file:///notes%20a.txt","text":"\u2028 \\u2028","x":null,"n":1.50}]}',
        "https://example.test/a%2Fb?q=%C3%BC&r=1#part": '{ "contents" : [ ] , "x" : 12345678901234567890123 }',
        "urn:isbn:0451450523": '{"contents":[{"uri":"urn:isbn:other","blob":"AAE="},{"uri":"urn:isbn:0451450523","text":""}]}',
        "ui://app/main.html": '{"contents":[{"uri":"ui://app/main.html","mimeType":"text/html;profile=mcp-app","text":"<p>","_meta":{"ui":{}}}]}',
    }
)
"""Results of resources/read by URI."""

PROMPT_RESULTS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "odd_prompt": '{"description":null,"messages":[{"role":"user","content":{"type":"hologram","z":1.50},"x":{}}],"x-y":[]}',
        "odd_prompt_space": '{ "messages" : [ { "content" : { "text" : "t" , "type" : "text" } , "role" : "assistant" } ] }',
    }
)
"""Results of prompts/get by name."""

ARGUMENTS: Final = (
    "{}",
    '{ "text" : "white space" ,\t"n" : 1.50 }',
    '{"text":"grüße \u2028 \\u2028 \\/","big":12345678901234567890123,"nil":null,"list":[[],{}]}',
    '{"zeta":1,"alpha":{"arguments":{"name":"x"},"_meta":{"progressToken":1}},"name":"not the tool"}',
    '{"float":1E+2,"zero":-0.0,"e":1e999}',
)
"""Arguments of tools/call (standard JSON, so that strict parsers take them)."""


def script(**changes: object) -> Script:
    """A backend that offers all of it: a tool per result and error (by those names), and a `mirror` tool."""
    tools = [Offer(definition) for definition in TOOLS]
    tools += [_tool(name, Act("raw", result)) for name, result in RESULTS.items()]
    tools += [_tool(name, Act("error", error)) for name, error in ERRORS.items()]
    return Script(
        name="faithful",
        tools=(*tools, _tool("mirror", Act("mirror"))),
        resources=tuple(Offer(each, Act("raw", READS[Offer(each).key()])) for each in RESOURCES),
        templates=tuple(Offer(each) for each in TEMPLATES),
        prompts=tuple(Offer(each, Act("raw", PROMPT_RESULTS[Offer(each).key()])) for each in PROMPTS),
        **changes,  # type: ignore[arg-type]  # passed on as they are
    )


def _tool(name: str, act: Act) -> Offer:
    return Offer('{"name":"' + name + '","inputSchema":{"type":"object"}}', act)
