"""Envelopes: strict for clients, lenient for backends, payload bytes unchanged."""

import json

import pytest

from mcp_manifold import wire
from mcp_manifold.errors import InvalidParams, MalformedMessage
from mcp_manifold.wire import UNSET, Payload
from mcp_manifold.wire.payload import MAX_MEMBERS, loose_members

HEAD = b'{"jsonrpc":"2.0","id":1,"method":"m"'
DEEP = 100_000


def refused(data: bytes) -> int:
    with pytest.raises(MalformedMessage) as caught:
        wire.parse(data)
    assert len(caught.value.message) < 200
    return caught.value.code


def raw(member: object) -> bytes:
    assert isinstance(member, Payload)
    return bytes(member)


@pytest.mark.parametrize(
    "data",
    [
        b"", b"   ", b"hello", b'{"jsonrpc":"2.0"', b"\xef\xbb\xbf" * 2 + HEAD + b"}", HEAD + b"} x",
        HEAD + b"}" + HEAD + b"}", HEAD + b',"params":{"a":NaN}}', HEAD + b',"params":{"a":-Infinity}}',
        HEAD + b',"params":{"a":01}}', HEAD + b',"params":{"a":1,}}', HEAD + b',"params":{"a":"\x01"}}',
        HEAD + rb',"params":{"a":"\q"}}', HEAD + rb',"params":{"a":"\ud800"}}', HEAD + rb',"params":{"\ud800":1}}',
        HEAD + b',"params":{"a":"\xff"}}', HEAD + b',"params":{"a":"\xed\xa0\x80"}}',
        '{"jsonrpc":"2.0","id":1,"method":"m"}'.encode("utf-16"),
        HEAD + b',"params":{"a":' + b"[" * DEEP + b"]" * DEEP + b"}}",
        HEAD + b',"params":{"a":' + b'{"a":' * DEEP + b"1" + b"}" * DEEP + b"}}",
        HEAD + b', "params":{"a":' + b"[" * DEEP,
    ],
    ids=lambda data: repr(data[:60]),
)  # fmt: skip
def test_invalid_json_is_a_parse_error(data: bytes) -> None:
    assert refused(data) == -32700


@pytest.mark.parametrize(
    "data",
    [
        b"[]", b"  [" + HEAD + b"}]", b"[" * DEEP, b"null", b"5", b'"text"', b"{}", b'{"id":1,"method":"m"}',
        b'{"jsonrpc":"1.0","id":1,"method":"m"}', b'{"jsonrpc":2.0,"id":1,"method":"m"}',
        b'{"jsonrpc":null,"id":1,"method":"m"}', b'{"jsonrpc":"2.0","id":null,"method":"m"}',
        b'{"jsonrpc":"2.0","id":true,"method":"m"}', b'{"jsonrpc":"2.0","id":{},"method":"m"}',
        b'{"jsonrpc":"2.0","id":[1],"method":"m"}', b'{"jsonrpc":"2.0","id":1,"method":5}',
        b'{"jsonrpc":"2.0","id":1,"method":null}', HEAD + b',"params":[]}', HEAD + b',"params":"x"}',
        b'{"jsonrpc":"2.0"}', b'{"jsonrpc":"2.0","id":1}', b'{"jsonrpc":"2.0","result":{}}',
        b'{"jsonrpc":"2.0","id":null,"error":{}}', b'{"jsonrpc":"2.0","id":1,"result":{},"error":{}}',
    ],
    ids=lambda data: repr(data[:60]),
)  # fmt: skip
def test_json_that_is_not_json_rpc_is_an_invalid_request(data: bytes) -> None:
    assert refused(data) == -32600


@pytest.mark.parametrize("joint", [b",", b" , ", b",\n\t"])
@pytest.mark.parametrize("key", ["jsonrpc", "id", "method", "params", "result", "error"])
def test_s9_a_duplicate_member_is_refused(key: str, joint: bytes) -> None:
    values = {"jsonrpc": b'"2.0"', "id": b"1", "method": b'"m"', "params": b"{}", "result": b"{}", "error": b"{}"}
    members = ["jsonrpc", "id", *(["result"] if key == "result" else ["error"] if key == "error" else [])]
    members += [] if key in ("result", "error") else ["method", "params"]
    written = [b'"%b":%b' % (name.encode(), values[name]) for name in [*members, key]]
    assert refused(b"{" + joint.join(written) + b"}") == -32600


@pytest.mark.parametrize(
    "member",
    [
        '"Method":"x"', '"METHOD":"x"', '"ID":2', '"Params":{}', '"param\u017f":{}', '"re\u017fult":{}',
        '"\uff4dethod":"x"', '"JsonRpc":"2.0"', '"Error":{}', r'"\u004dethod":"x"', r'"\u006dethod":"x"',
        r'"m\u0065thod":"x"',
    ],
)  # fmt: skip
@pytest.mark.parametrize("head", [HEAD, HEAD.replace(b",", b", ")])
def test_s9_a_look_alike_envelope_member_is_refused(head: bytes, member: str) -> None:
    assert refused(head + b"," + member.encode() + b"}") == -32600


def test_as_many_members_as_one_turn_can_parse_are_accepted_in_params_and_fewer_beside_them() -> None:
    many = b",".join(b'"%030d":1' % number for number in range(MAX_MEMBERS))
    assert refused(HEAD + b"," + many + b"}") == -32600
    assert len(wire.members(wire.parse(HEAD + b', "params":{' + many + b"}}").params)) == MAX_MEMBERS


def test_requests_notifications_and_responses_differ_by_their_members() -> None:
    note = wire.parse(b'{"jsonrpc":"2.0","method":"m","trace":{"a":1}}')
    assert (note.id, note.method, note.params) == (UNSET, "m", UNSET)
    result = wire.parse(b'{"jsonrpc":"2.0","id":1,"result":null}')
    assert (result.method, raw(result.result)) == (UNSET, b"null")
    error = wire.parse(b'{"jsonrpc":"2.0","id":"x","error":{"code":1}}')
    assert (error.result, raw(error.error)) == (UNSET, b'{"code":1}')
    loose = wire.parse_backend(b'{"jsonrpc":"2.0","id":null,"method":"notifications/m","params":{"x":NaN}}')
    assert (loose.method, raw(loose.params), raw(loose.id)) == ("notifications/m", b'{"x":NaN}', b"null")
    with pytest.raises(MalformedMessage, match="batches are not supported"):
        wire.parse(b"[" + HEAD + b"}]")


@pytest.mark.parametrize("gap", [b"", b" "])
@pytest.mark.parametrize(
    "value",
    [
        b"1" * 10_000_000, b"1." + b"1" * 5000, b"1e999", b"12345678901234567890123", rb'"\u0000"',
        b'"%b"' % (b"a" * 4_000_000), b"[" * 500 + b"]" * 500,
    ],
    ids=lambda value: repr(value[:20]),
)  # fmt: skip
def test_values_too_large_to_decode_keep_their_bytes(value: bytes, gap: bytes) -> None:
    data = HEAD + b"," + gap + b'"params":{"x":' + value + b"}}"
    params = wire.parse(data).params
    assert raw(params) == b'{"x":' + value + b"}"
    assert not isinstance(params, type(UNSET))
    assert bytes(wire.members(params)["x"]) == value


def test_every_nesting_depth_passes_or_is_refused() -> None:
    """The interpreter's recursion limit is not known here and differs per parsing step."""
    codes: list[int] = []
    for depth in (10, 500, *range(900, 1010), 100_000):
        data = HEAD + b', "params":{"x":' + b"[" * depth + b"]" * depth + b"}}"
        try:
            wire.members(wire.parse(data).params)
            codes.append(0)
        except (MalformedMessage, InvalidParams) as exc:
            codes.append(exc.code)
    assert codes[:2] == [0, 0]
    assert codes[-1] == -32700
    assert set(codes) <= {0, -32700, -32602}


def test_absent_null_and_empty_params_have_no_members() -> None:
    for params in (UNSET, wire.EMPTY, wire.parse(HEAD + b',"params":null}').params):
        assert wire.members(params) == {}


def test_of_duplicate_routing_members_only_the_last_is_sent() -> None:
    found = wire.members(Payload(b'{"name":"a","x":1,"name":"b"}'))
    assert wire.encode(found) == b'{"name":"b","x":1}'


@pytest.mark.parametrize(
    "key",
    [
        "Name", "NAME", "Uri", "Arguments", "_Meta", "taskid", "TaskId", "requeststate", "\uff4eame", "argument\u017f",
        "u\u0052i", "cur\u017for", "in\uff50utResponses",
    ],
)  # fmt: skip
def test_s9_a_look_alike_routing_member_is_refused(key: str) -> None:
    with pytest.raises(InvalidParams, match="not spelled"):
        wire.members(Payload(json.dumps({"name": "a", key: "b"}, ensure_ascii=False).encode()))


@pytest.mark.parametrize(
    "key", ["title", "nam", "namen", "na\u017fe", "taskId", "requestState", "_meta", "custom/Name"]
)
def test_other_members_pass(key: str) -> None:
    assert list(wire.members(Payload(json.dumps({key: 1}).encode()))) == [key]


@pytest.mark.parametrize("value", [None, b"1", b"null", b"{}", b'["a"]', rb'"\ud800"', b'"\xff"'])
def test_a_string_is_decoded_or_the_error_names_its_member(value: bytes | None) -> None:
    assert wire.text(Payload(rb'"a\u00e9\n"'), "name") == "aé\n"
    with pytest.raises(InvalidParams, match='"name"') as caught:
        wire.text(None if value is None else Payload(value), "name")
    assert caught.value.code == -32602


# --- backends ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        b'{"a":NaN}', b'{"a":[Infinity,-Infinity]}', rb'{"a":"\ud83d"}', rb'{"\ud83d":"\ude00"}',
        b'{"a":"tab\there\x00"}', b'{"a":1e999}', b'{"a":12345678901234567890123}',
        b'{"a":' + b"9" * 5000 + b',"b":NaN}', b'{ "a" :\t1 ,\r\n "a":2 }',
        '{"é":"日本語 \U0001f600","b":NaN}'.encode(),
        rb'{"a":"\\\"","b":NaN}', b'{"type":"resource_link","uri":"x:1","a":"\x7f"}',
    ],
    ids=lambda value: repr(value[:40]),
)  # fmt: skip
@pytest.mark.parametrize(
    "text",
    [
        b'{"jsonrpc":"2.0","id":7,"result":%b}',
        b' { "result" :\n%b , "id": 7,"x":[] }\n',
        b'{"x":"' + b"NaN Infinity" * 10_000 + b'" , "id": 7,"result":%b ,"y":-Infinity}',
    ],
    ids=["compact", "spaced", "long"],
)
def test_a_backends_payload_keeps_its_bytes(text: bytes, value: bytes) -> None:
    envelope = wire.parse_backend(text % value)
    assert raw(envelope.result) == value
    assert raw(envelope.id) == b"7"
    assert envelope.method is UNSET


def test_a_null_error_beside_a_result_is_absent() -> None:
    envelope = wire.parse_backend(b'{"jsonrpc":"2.0","id":1,"result":{},"error":null}')
    assert (raw(envelope.result), envelope.error) == (b"{}", UNSET)
    assert raw(wire.parse_backend(b'{"jsonrpc":"2.0","id":1,"error":null}').error) == b"null"


@pytest.mark.parametrize(
    "data",
    [
        b"", b"hello", b"Server listening on port 3000", b"[]", b"null", b"{", b'{"a"}', b'{"a":}', b'{"a":1 "b":2}',
        b'{"a":1,,}', b"{a:1}", b'{"jsonrpc":"2.0","id":1,"result":{"a":tru}}',
        b'{"jsonrpc":"2.0","method":"\xff"}', b'{"jsonrpc":"2.0","method":NaN}',
        rb'{"jsonrpc":"2.0","method":"\ud800"}', b'{"jsonrpc":NaN,"id":1,"result":{}}',
        b'{"jsonrpc":"2.0","method":5}', b'{"id":1,"result":' + b"[" * DEEP + b"]" * DEEP + b"}",
        b'{"id":1,"result":[NaN,' + b"[" * DEEP + b"]" * DEEP + b"]}",
        b'{"id":1,"result":{"a":NaN' + b',"a":{' * DEEP,
    ],
    ids=lambda data: repr(data[:40]),
)  # fmt: skip
def test_an_unreadable_backend_message_is_malformed(data: bytes) -> None:
    with pytest.raises(MalformedMessage):
        wire.parse_backend(data)


def test_the_members_of_an_object_with_invalid_json_values_are_found() -> None:
    found = loose_members(Payload(b'{"a" : NaN, "b\x01":[1,NaN], "a":2}'))
    assert {key: bytes(value) for key, value in found.items()} == {"a": b"2", "b\x01": b"[1,NaN]"}
    with pytest.raises(ValueError, match="not an object"):
        loose_members(Payload(b"[NaN]"))


def test_written_messages_are_json_rpc() -> None:
    id_ = Payload(b'"x"')
    assert wire.request(7, "m", None) == b'{"jsonrpc":"2.0","id":7,"method":"m"}'
    assert wire.request(7, 'm"', b'{"a":1e999}') == rb'{"jsonrpc":"2.0","id":7,"method":"m\"","params":{"a":1e999}}'
    assert wire.notification("m") == b'{"jsonrpc":"2.0","method":"m"}'
    assert wire.notification("m", wire.EMPTY) == b'{"jsonrpc":"2.0","method":"m","params":{}}'
    assert wire.response(id_, b"{}") == b'{"jsonrpc":"2.0","id":"x","result":{}}'
    assert wire.failure(wire.NULL_ID, b"{}") == b'{"jsonrpc":"2.0","id":null,"error":{}}'
