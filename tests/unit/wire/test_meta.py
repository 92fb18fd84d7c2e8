"""Per-hop `_meta`, result stamps and differences between the eras."""

import json
from typing import Any

import pytest

from mcp_manifold import wire
from mcp_manifold.wire import Era, Payload
from mcp_manifold.wire.protocol import HINTED, HOP_KEYS, META_SERVER_INFO, META_VERSION

OURS = Payload(b'{"name":"manifold","version":"1"}')
STAMP = wire.modern_stamp(Payload(b'{"name":"c"}'), Payload(b'{"roots":{}}'))
ERAS: tuple[Era, Era] = ("handshake", "modern")


def payloads(**members: bytes) -> dict[str, Payload]:
    return {key: Payload(value) for key, value in members.items()}


def sent(stamp: dict[str, Payload] | None = None, token: int = 7, **members: bytes) -> bytes | None:
    return wire.hop_params(payloads(**members), token=token, stamp=stamp)


def adapted(result: bytes, backend: Era, client: Era, method: str = "tools/call") -> bytes:
    return bytes(wire.adapt_result(Payload(result), method=method, backend=backend, client=client, server_info=OURS))


def told(result: bytes, method: str = "tools/call", backend: Era = "handshake") -> Any:
    """The result that a modern client receives."""
    return json.loads(adapted(result, backend, "modern", method))


def stamped(**members: object) -> dict[str, object]:
    return {**members, "resultType": "complete", "_meta": {META_SERVER_INFO: {"name": "manifold", "version": "1"}}}


# --- params -----------------------------------------------------------------------------------------------------


def test_absent_params_stay_absent() -> None:
    assert sent() is None


def test_params_without_meta_keep_their_bytes() -> None:
    assert sent(name=b'"a"', arguments=b'{ "x": 1e999, "x":2 }') == b'{"name":"a","arguments":{ "x": 1e999, "x":2 }}'


def test_a_progress_token_is_replaced_by_ours() -> None:
    for token in (b'"mine"', b"3", b"null"):
        assert sent(_meta=b'{"progressToken":%b,"x": 1.0}' % token) == b'{"_meta":{"progressToken":7,"x":1.0}}'


def test_a_progress_token_is_not_invented() -> None:
    assert sent(_meta=b'{"x":1}') == b'{"_meta":{"x":1}}'
    stamp_only = sent(STAMP)
    assert stamp_only is not None
    assert b"progressToken" not in stamp_only


@pytest.mark.parametrize("key", sorted(HOP_KEYS))
def test_meta_members_of_the_previous_hop_are_removed(key: str) -> None:
    meta = json.dumps({key: "theirs", "io.modelcontextprotocol/related-task": {"a": 1}, "com.x/y": 2}).encode()
    found = json.loads(sent(_meta=meta) or b"")
    assert found == {"_meta": {"io.modelcontextprotocol/related-task": {"a": 1}, "com.x/y": 2}}


def test_the_stamp_is_added_and_overrides_the_clients_values() -> None:
    found = json.loads(sent(STAMP, name=b'"a"', _meta=b'{"%b":"1999","x":1}' % META_VERSION.encode()) or b"")
    assert found["name"] == "a"
    assert found["_meta"] == {
        "x": 1,
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": {"name": "c"},
        "io.modelcontextprotocol/clientCapabilities": {"roots": {}},
    }


def test_a_stamp_alone_makes_params() -> None:
    assert json.loads(sent(STAMP) or b"")["_meta"][META_VERSION] == "2026-07-28"


@pytest.mark.parametrize("meta", [b"5", b"null", b"[]", b'"x"'])
def test_a_meta_that_is_not_an_object_is_replaced(meta: bytes) -> None:
    assert sent(_meta=meta) == b'{"_meta":{}}'


def test_the_arguments_are_not_modified() -> None:
    params = payloads(_meta=b'{"progressToken":1}')
    wire.hop_params(params, token=9, stamp=STAMP)
    assert bytes(params["_meta"]) == b'{"progressToken":1}'
    assert len(STAMP) == 3


@pytest.mark.parametrize("meta", [None, b"5", b"[1]", b"", b"x", b'{"a":\xff}'])
def test_an_unreadable_object_has_no_members(meta: bytes | None) -> None:
    assert wire.object_members(None if meta is None else Payload(meta)) == {}


# --- results for modern clients ---------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ERAS)
@pytest.mark.parametrize("empty", [b"{}", b"{ }", b"{\n\t}"])
def test_an_empty_result_is_stamped(empty: bytes, backend: Era) -> None:
    assert told(empty, backend=backend) == stamped()


def test_stamping_keeps_the_bytes_of_the_result() -> None:
    body = rb'{ "content": [] , "x":1e999, "s":"\u00e9", "content":[1] }'
    assert adapted(body, "handshake", "modern").startswith(body[:-1] + b",")


def test_a_result_with_the_stamp_names_in_its_content_is_stamped_once() -> None:
    for body in (
        b'{"content":["\\"_meta\\""]}',
        b'{"content":[{"_meta":{"a":1}}]}',
        b'{"structuredContent":"resultType"}',
    ):
        assert told(body) == stamped(**json.loads(body))
        assert adapted(body, "handshake", "modern").count(b'"resultType":"complete"') == 1


def test_the_backends_server_info_is_replaced_and_its_other_meta_kept() -> None:
    body = b'{"_meta":{"%b":{"name":"theirs"},"com.x/y":1e999},"resultType":"complete"}' % META_SERVER_INFO.encode()
    found = adapted(body, "modern", "modern")
    assert b"theirs" not in found
    assert b'"com.x/y":1e999' in found
    assert b'"name":"manifold"' in found


@pytest.mark.parametrize("kind", ["complete", "input_required", "task", "something-new"])
def test_a_result_type_is_kept(kind: str) -> None:
    body = json.dumps({"resultType": kind, "inputRequests": {"a": {}}, "requestState": "s"}).encode()
    found = told(body, backend="modern")
    assert (found["resultType"], found["inputRequests"], found["requestState"]) == (kind, {"a": {}}, "s")


@pytest.mark.parametrize("method", sorted(HINTED))
def test_cache_hints_are_added_where_the_protocol_requires_them(method: str) -> None:
    found = told(b"{}", method)
    assert (found["ttlMs"], found["cacheScope"]) == (0, "private")
    kept = told(b'{"ttlMs":500,"cacheScope":"public"}', method, "modern")
    assert (kept["ttlMs"], kept["cacheScope"]) == (500, "public")


@pytest.mark.parametrize("method", ["tools/call", "prompts/get", "completion/complete"])
def test_cache_hints_are_not_added_elsewhere(method: str) -> None:
    assert told(b"{}", method) == stamped()


@pytest.mark.parametrize("value", [b"NaN", rb'"\ud83d"', b'"\x01"'])
@pytest.mark.parametrize("method", ["tools/call", "resources/read"])
def test_a_result_with_invalid_json_values_is_stamped_too(method: str, value: bytes) -> None:
    found = adapted(b'{"_meta":{"a":1},"contents":[%b]}' % value, "handshake", "modern", method)
    assert b'"contents":[%b]' % value in found
    assert b'"resultType":"complete"' in found
    assert b'"name":"manifold"' in found


def test_an_unreadable_result_is_relayed_unchanged() -> None:
    strange = rb'{"\ud83d":NaN,"_meta":{}}'
    assert adapted(strange, "handshake", "modern") == strange
    deep = b'{"_meta":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    assert adapted(deep, "modern", "handshake") == deep


# --- results for handshake clients ------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [b"{}", b'{ "structuredContent":[1] , "resultType":"complete" }'])
def test_between_handshake_peers_a_result_is_the_same_object(body: bytes) -> None:
    result = Payload(body)
    same = wire.adapt_result(result, method="tools/call", backend="handshake", client="handshake", server_info=OURS)
    assert same is result


def test_a_modern_result_without_stamps_is_the_same_object() -> None:
    result = Payload(b'{ "content":[1e999] }')
    same = wire.adapt_result(result, method="tools/call", backend="modern", client="handshake", server_info=OURS)
    assert same is result


def test_stamps_are_removed_and_everything_else_kept() -> None:
    body = b'{"content":[ 1 ],"resultType":"complete","ttlMs":1,"cacheScope":"public","_meta":{"%b":{},"x":1.0}}'
    found = adapted(body % META_SERVER_INFO.encode(), "modern", "handshake")
    assert found == b'{"content":[ 1 ],"_meta":{"x":1.0}}'


def test_a_meta_with_stamps_only_is_removed() -> None:
    assert adapted(b'{"a":1,"_meta":{"%b":{}}}' % META_SERVER_INFO.encode(), "modern", "handshake") == b'{"a":1}'


@pytest.mark.parametrize("content", [b"[1]", b"5", b'"x"', b"null", b"true"])
@pytest.mark.parametrize("kind", [b"", b',"resultType":"complete"'])
def test_structured_content_that_is_not_an_object_is_removed(kind: bytes, content: bytes) -> None:
    body = b'{"content":[{"type":"text","text":"[1]"}],"structuredContent":%b%b}' % (content, kind)
    assert adapted(body, "modern", "handshake") == b'{"content":[{"type":"text","text":"[1]"}]}'
    assert "structuredContent" in told(body, backend="modern")


@pytest.mark.parametrize("kind", [b"", b',"resultType":"complete"'])
def test_structured_content_that_is_an_object_is_kept(kind: bytes) -> None:
    found = adapted(b'{"structuredContent":{ "a":1 }%b}' % kind, "modern", "handshake")
    assert found == b'{"structuredContent":{ "a":1 }}'


def test_stamp_names_below_the_top_level_are_kept() -> None:
    body = b'{"structuredContent":{"resultType":"mine","ttlMs":3},"content":[{"structuredContent":[1]}]}'
    assert adapted(body, "modern", "handshake") == body
