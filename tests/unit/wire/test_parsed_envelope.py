"""Large messages parsed in one pass: the same result as two passes, without a copy."""

import msgspec
import pytest

from mcp_manifold import wire
from mcp_manifold.errors import InvalidParams, MalformedMessage
from mcp_manifold.wire import LARGE, Envelope, ParsedEnvelope, Payload, ResultView
from mcp_manifold.wire.payload import loose_members

FILL = b"x" * LARGE
RESULT = b'{"content":[{"type":"text","text":"%b"}],"\xc3\xa9":"\\u00e9","isError":false}' % FILL
PARAMS = b'{"name":"t","arguments":{"text":"%b","n":1e999},"_meta":{}}' % FILL
IDS = {"number": b"7", "text": b'"\\"result\\":{\\"a"'}
ORDERS = {
    "id first": b'{"jsonrpc":"2.0","id":%(id)b,"result":%(body)b}',
    "result first": b'{"result":%(body)b,"jsonrpc":"2.0","id":%(id)b}',
}


def written(message: bytes, body: bytes, id_: bytes = b"7") -> bytes:
    return message % {b"id": id_, b"body": body}


def same(data: bytes) -> Envelope:
    """The parsed message of a backend; asserts that its members equal those of a plain parse."""
    found, plain = wire.parse_backend(data), msgspec.json.decode(data, type=Envelope)
    for member in ("jsonrpc", "id", "method", "params", "result", "error"):
        assert getattr(found, member) == getattr(plain, member)
    return found


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
@pytest.mark.parametrize("id_", IDS.values(), ids=IDS)
def test_a_large_compact_response_is_parsed_once_and_keeps_its_bytes(order: bytes, id_: bytes) -> None:
    data = written(order, RESULT, id_)
    found = same(data)
    assert isinstance(found, ParsedEnvelope)
    assert found.text is data
    assert isinstance(found.result, Payload)
    assert bytes(found.result) == RESULT
    assert found.members == loose_members(Payload(RESULT))


TWO = written(ORDERS["id first"], RESULT)
NOT_OPENED = {
    "small": b'{"jsonrpc":"2.0","id":7,"result":{"content":[]}}',
    "spaced": TWO.replace(b'"isError":false', b'"isError": false'),
    "spaced outside": TWO.replace(b'"id":7', b'"id": 7'),
    "a member twice": TWO.replace(b'"isError":false', b'"isError":false,"isError":false'),
    "an escaped name": TWO.replace(b'"isError"', b'"isErro\\u0072"'),
    "an escaped revision": TWO.replace(b'"2.0"', b'"\\u0032.0"'),
    "two results": TWO.replace(b'"id":7,', b'"id":7,"result":{"a":1},'),
    "a result within": TWO.replace(b'"id":7,', b'"id":7,"x":{"result":{"a":1}},'),
    "an error as well": TWO.replace(b'"id":7,', b'"id":7,"error":{},'),
    "no object": written(ORDERS["id first"], b'["%b"]' % FILL),
    "no id": TWO.replace(b'"id":7,', b""),
    "an error": b'{"jsonrpc":"2.0","id":7,"error":{"code":1,"message":"%b"}}' % FILL,
}


@pytest.mark.parametrize("data", NOT_OPENED.values(), ids=NOT_OPENED)
def test_any_other_response_is_parsed_as_a_small_one(data: bytes) -> None:
    assert not isinstance(same(data), ParsedEnvelope)
    result = RESULT.replace(b"false", b"NaN")
    loose = wire.parse_backend(written(ORDERS["id first"], result)).result
    assert isinstance(loose, Payload)
    assert bytes(loose) == result


REQUEST = b'{"jsonrpc":"2.0","id":7,"method":"tools/call","params":%(body)b}'
CALL = written(REQUEST, PARAMS)


@pytest.mark.parametrize(
    "data",
    [
        CALL.replace(b'"id":7', b'"id":7,"id":8'), CALL.replace(b'"id":7', b'"id":7,"ID":8'),
        CALL.replace(b'"id":7', b'"id":null'), CALL.replace(b'"id":7', b'"id":{}'), CALL.replace(b'"2.0"', b'"2.1"'),
        CALL.replace(b'"params":', b'"params":{"name":"other"},"params":'), CALL[:-1],
    ],
)  # fmt: skip
def test_a_large_invalid_request_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedMessage):
        wire.parse(data)


def test_s9_a_look_alike_in_large_params_is_refused() -> None:
    found = wire.parse(CALL.replace(b'"_meta"', b'"_META"'))
    assert isinstance(found, ParsedEnvelope)
    with pytest.raises(InvalidParams):
        wire.members_of(found)


def test_a_view_finds_members_kind_and_text() -> None:
    result = Payload(b'{"resultType":"task","a":[1]}')
    view = ResultView(result)
    assert (view.is_known, view.kind, view.text) == (False, b'"task"', bytes(result))
    assert view.members == loose_members(result)
    assert ResultView(Payload(b"[]")).kind == b""


def test_a_view_is_reused_for_the_same_result() -> None:
    result = Payload(RESULT)
    first = wire.view_of(result)
    assert first is not None
    assert wire.view_of(result, first) is first
    assert wire.view_of(Payload(RESULT), first) is not first
    assert wire.view_of(Payload(b"{}"), first) is None


URI = b',"uri":1'


@pytest.mark.parametrize("at", [0, 700, 1020, 1021, 1022, 1023, 1024, 1025, 1026, 5000, LARGE - 1])
def test_a_uri_member_is_found_at_any_position(at: int) -> None:
    for before in range(6):
        text = b'{"a":"%b"%b,"b":"%b"}' % (b"x" * (at + before), URI, b"y" * (LARGE - at))
        assert not ResultView(Payload(text)).is_plain
        backwards = b'{"a":"%b"%b,"b":"%b"}' % (b"x" * (LARGE - at), URI, b"y" * (at + before))
        assert not ResultView(Payload(backwards)).is_plain
        assert ResultView(Payload(text.replace(URI, b',"url":1'))).is_plain


ERAS: tuple[wire.Era, ...] = ("handshake", "modern")
META = {
    "none": RESULT,
    "kind": RESULT[:-1] + b',"resultType":"complete"}',
    "meta": RESULT[:-1] + b',"_meta":{"x": 1.0},"resultType":"complete"}',
    "meta alone": b'{"_meta":{"x":1},' + RESULT[1:],
    "no meta": RESULT[:-1] + b',"_meta":7}',
    "hints": RESULT[:-1] + b',"ttlMs":5,"cacheScope":"public"}',
    "twice": RESULT[:-1] + b',"resultType":"x","resultType":"complete"}',
    "nearly": RESULT.replace(b"false", b"NaN"),
    "hopeless": RESULT[:-1],
}


@pytest.mark.parametrize("result", META.values(), ids=META)
@pytest.mark.parametrize("backend", ERAS)
@pytest.mark.parametrize("client", ERAS)
@pytest.mark.parametrize("method", ["tools/call", "resources/read"])
def test_a_view_does_not_change_a_result(result: bytes, backend: wire.Era, client: wire.Era, method: str) -> None:
    def adapted(look: ResultView | None) -> bytes:
        ours = Payload(b'{"name":"ours"}')
        return bytes(
            wire.adapt_result(payload, method=method, backend=backend, client=client, server_info=ours, view=look)
        )

    payload = Payload(result)
    opened = wire.parse_backend(written(ORDERS["id first"], result)) if result[-1:] == b"}" else None
    known = opened.members if isinstance(opened, ParsedEnvelope) else None
    assert adapted(None) == adapted(ResultView(payload)) == adapted(ResultView(payload, known, TWO))
