"""Per-hop `_meta`, result stamps and differences between the eras."""

import json
from typing import Any

import pytest

from mcp_manifold import wire
from mcp_manifold.wire import Era, Payload
from mcp_manifold.wire.protocol import HINTED, HOP_KEYS, META_SERVER_INFO, META_SUBSCRIPTION, META_VERSION

OURS = Payload(b'{"name":"manifold","version":"1"}')
STAMP = wire.modern_stamp(Payload(b'{"name":"c"}'), Payload(b'{"roots":{}}'))
ERAS: tuple[Era, Era] = ("handshake", "modern")


def payloads(**members: bytes) -> dict[str, Payload]:
    return {key: Payload(value) for key, value in members.items()}


def sent(stamp: dict[str, Payload] | None = None, token: int = 7, **members: bytes) -> bytes | None:
    return wire.hop_params(payloads(**members), token=token, stamp=stamp)


def adapted(result: bytes, backend: Era, client: Era, method: str = "tools/call") -> bytes:
    return bytes(wire.adapt_result(Payload(result), method=method, backend=backend, client=client, server_info=OURS))


def modern_result(result: bytes, method: str = "tools/call", backend: Era = "handshake") -> Any:
    """The result that a modern client receives."""
    return json.loads(adapted(result, backend, "modern", method))


def stamped(**members: object) -> dict[str, object]:
    return {**members, "resultType": "complete", "_meta": {META_SERVER_INFO: {"name": "manifold", "version": "1"}}}


@pytest.mark.parametrize(
    ("params", "sent_params"),
    [
        ({}, None),
        ({"name": b'"a"', "arguments": b'{ "x": 1e999, "x":2 }'}, b'{"name":"a","arguments":{ "x": 1e999, "x":2 }}'),
        *(
            ({"_meta": b'{"progressToken":%b,"x": 1.0}' % token}, b'{"_meta":{"progressToken":7,"x":1.0}}')
            for token in (b'"mine"', b"3", b"null")
        ),
        ({"_meta": b'{"x":1}'}, b'{"_meta":{"x":1}}'),
        *(({"_meta": meta}, b'{"_meta":{}}') for meta in (b"5", b"null", b"[]", b'"x"')),
    ],
)
def test_params_keep_their_bytes_but_progress_tokens(params: dict[str, bytes], sent_params: bytes | None) -> None:
    assert wire.hop_params(payloads(**params), token=7, stamp=None) == sent_params


@pytest.mark.parametrize("key", sorted(HOP_KEYS))
def test_meta_members_of_the_previous_hop_are_removed(key: str) -> None:
    meta = json.dumps({key: "theirs", "io.modelcontextprotocol/related-task": {"a": 1}, "com.x/y": 2}).encode()
    found = json.loads(sent(_meta=meta) or b"")
    assert found == {"_meta": {"io.modelcontextprotocol/related-task": {"a": 1}, "com.x/y": 2}}


def test_the_stamp_is_added_and_overrides_the_clients_values() -> None:
    stamp = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": {"name": "c"},
        "io.modelcontextprotocol/clientCapabilities": {"roots": {}},
    }
    params = payloads(name=b'"a"', _meta=b'{"%b":"1999","x":1}' % META_VERSION.encode())
    before = dict(params)
    found = json.loads(wire.hop_params(params, token=9, stamp=STAMP) or b"")
    assert (found["name"], found["_meta"]) == ("a", {"x": 1, **stamp})
    assert json.loads(sent(STAMP) or b"") == {"_meta": stamp}
    assert (params, len(STAMP)) == (before, 3), "the arguments are not modified"


@pytest.mark.parametrize("meta", [None, b"5", b"[1]", b"", b"x", b'{"a":\xff}'])
def test_an_unreadable_object_has_no_members(meta: bytes | None) -> None:
    assert wire.object_members(None if meta is None else Payload(meta)) == {}


def test_stamping_keeps_the_bytes_of_the_result() -> None:
    body = rb'{ "content": [] , "x":1e999, "s":"\u00e9", "content":[1] }'
    assert adapted(body, "handshake", "modern").startswith(body[:-1] + b",")


def test_a_result_with_the_stamp_names_in_its_content_is_stamped_once() -> None:
    for body in (
        b'{"content":["\\"_meta\\""]}',
        b'{"content":[{"_meta":{"a":1}}]}',
        b'{"structuredContent":"resultType"}',
    ):
        assert modern_result(body) == stamped(**json.loads(body))
        assert adapted(body, "handshake", "modern").count(b'"resultType":"complete"') == 1


@pytest.mark.parametrize("key", ["mcp-manifold/missing", "mcp-manifold/x", META_SUBSCRIPTION, META_VERSION])
@pytest.mark.parametrize("client", ["handshake", "modern"])
def test_a_backend_cannot_use_our_own_meta_keys_or_those_of_the_hop(key: str, client: Era) -> None:
    body = json.dumps({"content": [], "_meta": {key: 1, "vendor/x": 2}}).encode()
    meta = json.loads(adapted(body, "modern", client))["_meta"]
    assert (key in meta, meta["vendor/x"]) == (False, 2)


def test_the_backends_server_info_is_replaced_and_its_other_meta_kept() -> None:
    body = b'{"_meta":{"%b":{"name":"theirs"},"com.x/y":1e999},"resultType":"complete"}' % META_SERVER_INFO.encode()
    found = adapted(body, "modern", "modern")
    assert b"theirs" not in found
    assert b'"com.x/y":1e999' in found
    assert b'"name":"manifold"' in found


@pytest.mark.parametrize("method", [*sorted(HINTED), "tools/call", "prompts/get", "completion/complete"])
def test_cache_hints_are_added_only_where_the_protocol_requires_them(method: str) -> None:
    hints = {"ttlMs": 0, "cacheScope": "private"} if method in HINTED else {}
    assert modern_result(b"{}", method) == stamped(**hints)
    kept = modern_result(b'{"ttlMs":500,"cacheScope":"public"}', method, "modern")
    assert (kept["ttlMs"], kept["cacheScope"]) == (500, "public")


def test_an_unreadable_result_is_relayed_unchanged() -> None:
    strange = rb'{"\ud83d":NaN,"_meta":{}}'
    assert adapted(strange, "handshake", "modern") == strange
    deep = b'{"_meta":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    assert adapted(deep, "modern", "handshake") == deep


@pytest.mark.parametrize(
    ("body", "backend"),
    [
        (b"{}", "handshake"),
        (b'{ "structuredContent":[1] , "resultType":"complete" }', "handshake"),
        (b'{ "content":[1e999] }', "modern"),
        (b'{"structuredContent":{"resultType":"mine","ttlMs":3},"content":[{"structuredContent":[1]}]}', "modern"),
    ],
)
def test_a_result_without_stamps_at_the_top_is_the_same_object(body: bytes, backend: Era) -> None:
    result = Payload(body)
    same = wire.adapt_result(result, method="tools/call", backend=backend, client="handshake", server_info=OURS)
    assert same is result


@pytest.mark.parametrize(
    ("body", "sent_body"),
    [
        (
            b'{"content":[ 1 ],"resultType":"complete","ttlMs":1,"cacheScope":"public","_meta":{"%b":{},"x":1.0}}',
            b'{"content":[ 1 ],"_meta":{"x":1.0}}',
        ),
        (b'{"a":1,"_meta":{"%b":{}}}', b'{"a":1}'),
    ],
)
def test_stamps_are_removed_and_everything_else_kept(body: bytes, sent_body: bytes) -> None:
    assert adapted(body.replace(b"%b", META_SERVER_INFO.encode()), "modern", "handshake") == sent_body


@pytest.mark.parametrize("content", [b"[1]", b"5", b'"x"', b"null", b"true", b'{ "a":1 }'])
@pytest.mark.parametrize("kind", [b"", b',"resultType":"complete"'])
def test_structured_content_is_kept_only_if_it_is_an_object(kind: bytes, content: bytes) -> None:
    body = b'{"content":[{"type":"text","text":"[1]"}]%b%b}'
    structured = b',"structuredContent":' + content
    kept = structured if content[:1] == b"{" else b""
    assert adapted(body % (structured, kind), "modern", "handshake") == body % (kept, b"")
    assert "structuredContent" in modern_result(body % (structured, kind), backend="modern")
