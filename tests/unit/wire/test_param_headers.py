"""Headers that mirror a request: their values, and that no value leaves its line."""

from collections.abc import Mapping

import pytest

from mcp_manifold.wire import Payload, encode
from mcp_manifold.wire.param_headers import decode_header, mirrored_headers, without_annotations


def params(**members: object) -> dict[str, Payload]:
    return {key: Payload(encode(value)) for key, value in members.items()}


def lines(method: str, /, **members: object) -> list[bytes]:
    found = mirrored_headers(method, params(**members), None)
    assert found.endswith(b"\r\n")
    return found[:-2].split(b"\r\n")


@pytest.mark.parametrize(
    ("method", "members", "name"),
    [
        ("tools/call", {"name": "t"}, b"t"),
        ("prompts/get", {"name": "p"}, b"p"),
        ("resources/read", {"uri": "x:1"}, b"x:1"),
        *((method, {"taskId": "t 1", "name": "n"}, b"t 1") for method in ("tasks/get", "tasks/update", "tasks/cancel")),
        ("tools/list", {"name": "x", "uri": "y"}, None),
        ("tools/call", {}, None),
    ],
)
def test_the_method_and_the_name_are_mirrored(method: str, members: dict[str, str], name: bytes | None) -> None:
    expected = [b"mcp-method: " + method.encode(), *([] if name is None else [b"mcp-name: " + name])]
    assert lines(method, **members) == expected


@pytest.mark.parametrize(
    "text",
    ["a\r\nmcp-evil: 1", "a\nb", "a\rb", "a\0b", " a", "a ", "\t", "é", "日本語", "\u2028", "=?base64?eA==?=", "a\x7f"],
)
def test_s45_an_unsafe_name_or_method_is_encoded_and_decodes_to_itself(text: str) -> None:
    _, mirrored = lines("tools/call", name=text)
    (method,) = lines(text)
    for value in (mirrored.removeprefix(b"mcp-name: "), method.removeprefix(b"mcp-method: ")):
        assert value.startswith(b"=?base64?")
        assert decode_header(value.decode("ascii")) == text


def test_parameter_headers_get_the_native_name_and_raw_arguments() -> None:
    asked: list[tuple[str, bytes]] = []

    def parameters(name: str, arguments: Payload) -> Mapping[str, str]:
        asked.append((name, bytes(arguments)))
        return {"Mcp-Param-Region": "eu"}

    sent = {"name": Payload(b'"t"'), "arguments": Payload(b'{ "r":1.0 }')}
    assert mirrored_headers("tools/call", sent, parameters).endswith(b"mcp-name: t\r\nMcp-Param-Region: eu\r\n")
    assert asked == [("t", b'{ "r":1.0 }')]
    mirrored_headers("prompts/get", sent, parameters)
    mirrored_headers("tools/call", {"name": Payload(b'"t"')}, parameters)
    assert len(asked) == 1


def test_annotations_are_removed_from_schemas_only() -> None:
    schema = (
        b'{"x-mcp-header":1,"properties":{"x-mcp-header":{"x-mcp-header":"a","n":1.50},'
        b'"b":{"items":[{"x-mcp-header":{}}]}},'
        b'"default":{"x-mcp-header":2},"anyOf":[ {"x-mcp-header":"c","d":1e999} ],'
        b'"$defs":{"x-mcp-header":{"x-mcp-header":3}}}'
    )
    tool = b'{"name":"t","x-mcp-header":"mine","inputSchema":%b,"n":[ 1.50 ]}' % schema
    assert without_annotations(tool) == (
        b'{"name":"t","x-mcp-header":"mine","inputSchema":{"properties":{"x-mcp-header":{"n":1.50},"b":{"items":[{}]}},'
        b'"default":{"x-mcp-header":2},"anyOf":[{"d":1e999}],"$defs":{"x-mcp-header":{}}},"n":[ 1.50 ]}'
    )
