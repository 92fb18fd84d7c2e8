"""Invariants of arbitrary messages: payload bytes are kept, and ambiguous messages are refused."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from mcp.shared.inbound import decode_header_value, encode_header_value

from mcp_manifold import wire
from mcp_manifold.errors import MalformedMessage, RequestError
from mcp_manifold.wire import UNSET, Envelope, Era, ParsedEnvelope, Payload
from mcp_manifold.wire.param_headers import decode_header, encode_header
from mcp_manifold.wire.protocol import HOP_KEYS, META_SERVER_INFO

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
SPACE = st.text(" \t\r\n", max_size=2).map(str.encode)
KNOWN = ("jsonrpc", "id", "method", "params", "result", "error")
MEMBER = st.sampled_from([*KNOWN, "name", "uri", "_meta", "progressToken", "resultType", META_SERVER_INFO]) | TEXT


def joined(draw: st.DrawFn, opening: bytes, items: list[bytes], closing: bytes) -> bytes:
    body = b",".join(draw(SPACE) + item + draw(SPACE) for item in items) or draw(SPACE)
    return opening + body + closing


@st.composite
def strings(draw: st.DrawFn, values: st.SearchStrategy[str] = TEXT) -> bytes:
    """A JSON string with unnecessary escapes."""
    text = draw(values)
    return json.dumps(text, ensure_ascii=draw(st.booleans())).encode()


@st.composite
def arrays(draw: st.DrawFn, inner: st.SearchStrategy[bytes]) -> bytes:
    return joined(draw, b"[", draw(st.lists(inner, max_size=3)), b"]")


@st.composite
def objects(draw: st.DrawFn, inner: st.SearchStrategy[bytes]) -> bytes:
    """An object that may have duplicate members."""
    items = draw(st.lists(st.tuples(strings(MEMBER), SPACE, SPACE, inner), max_size=4))
    return joined(draw, b"{", [key + a + b":" + b + value for key, a, b, value in items], b"}")


NUMBER = st.sampled_from([b"0", b"-0", b"1", b"1.0", b"1e999", b"-1E-9", b"12345678901234567890123", b"9" * 5000])
LEAF = strings() | NUMBER | st.sampled_from([b"true", b"false", b"null"])
JSON = st.recursive(LEAF, lambda inner: arrays(inner) | objects(inner), max_leaves=8)
OBJECT = objects(JSON)
ID = strings() | NUMBER
METHOD = st.sampled_from(["tools/call", "ping", "m", "é", 'a"b']) | TEXT


@st.composite
def messages(draw: st.DrawFn) -> tuple[list[tuple[str, bytes]], bytes]:
    """The members of a valid message in some order, and its text."""
    members = [("jsonrpc", b'"2.0"')]
    shape = draw(st.sampled_from(["request", "notification", "result", "error"]))
    if shape != "notification":
        members.append(("id", draw(ID)))
    if shape in ("request", "notification"):
        members.append(("method", draw(strings(METHOD))))
        members += [("params", draw(OBJECT))] if draw(st.booleans()) else []
    else:
        members.append((shape, draw(JSON)))
    members = draw(st.permutations(members))
    if draw(st.booleans()):
        return members, b"{" + b",".join(b'"%b":%b' % (key.encode(), value) for key, value in members) + b"}"
    parts = [b'"%b"%b:%b%b' % (key.encode(), draw(SPACE), draw(SPACE), value) for key, value in members]
    return members, draw(SPACE) + joined(draw, b"{", parts, b"}") + draw(SPACE)


@st.composite
def escaped(draw: st.DrawFn, key: str) -> str:
    """The key with some characters escaped."""
    return "".join(f"\\u{ord(char):04x}" if draw(st.booleans()) else char for char in key)


@st.composite
def recased(draw: st.DrawFn, key: str) -> str:
    alike = {"s": "S\u017f", "i": "I\uff49", "d": "D\uff44", "e": "E\uff25"}
    return "".join(draw(st.sampled_from(char + char.upper() + alike.get(char, ""))) for char in key)


def bytes_of(member: Payload | msgspec.UnsetType) -> bytes | None:
    return None if isinstance(member, msgspec.UnsetType) else bytes(member)


@given(messages())
def test_every_valid_message_keeps_its_payload_bytes(message: tuple[list[tuple[str, bytes]], bytes]) -> None:
    members, data = message
    written = dict(members)
    for envelope in (wire.parse(data), wire.parse_backend(data)):
        assert envelope.method == (json.loads(written["method"]) if "method" in written else UNSET)
        for key in ("id", "params", "result", "error"):
            if not (key == "error" and written.get(key) == b"null"):
                assert bytes_of(getattr(envelope, key)) == written.get(key)


@given(messages(), st.data())
def test_s9_an_ambiguous_message_never_passes(
    message: tuple[list[tuple[str, bytes]], bytes], data: st.DataObject
) -> None:
    members, _ = message
    key = data.draw(st.sampled_from(KNOWN).flatmap(lambda known: escaped(known) | recased(known)))
    taken = {name for name, _ in members}
    assume(json.loads(f'"{key}"') not in set(KNOWN) - taken)  # an absent member is no duplicate
    value = data.draw(st.sampled_from([b"{}", b"1", b'"m"', b'"2.0"', b'""', b"12", b'"x"']))
    written = [(name.encode(), text) for name, text in members]
    written.insert(data.draw(st.integers(0, len(written))), (key.encode(), value))
    space = data.draw(st.sampled_from([b"", b" "]))
    text = b"{" + b",".join(b'%b"%b":%b' % (space, name, each) for name, each in written) + b"}"
    with pytest.raises(MalformedMessage) as caught:
        wire.parse(text)
    assert caught.value.code == -32600


@given(st.binary(max_size=60) | messages().map(lambda message: message[1]), st.data())
@example(b'{"jsonrpc":"2.0","id":1,"method":"m",', None)
def test_any_bytes_are_a_message_or_refused(data: bytes, drawn: st.DataObject | None) -> None:
    if drawn is not None and data:
        at = drawn.draw(st.integers(0, len(data) - 1))
        data = data[:at] + drawn.draw(st.binary(max_size=2)) + data[at + drawn.draw(st.integers(0, 2)) :]
    for read in (wire.parse, wire.parse_backend):
        try:
            envelope = read(data)
            assert isinstance(envelope.method, str | msgspec.UnsetType)
            if read is wire.parse:
                wire.members(envelope.params)
        except RequestError:
            continue


@given(messages(), st.booleans(), st.data())
def test_a_large_message_is_parsed_like_a_small_one(
    message: tuple[list[tuple[str, bytes]], bytes], is_client: bool, data: st.DataObject
) -> None:
    fill = b'"%b"' % (b"x" * wire.LARGE)
    body = data.draw(st.sampled_from([b'{"b":%b}', b'{"b":%b,"params":{"b":1}}', b'{"b":%b,"b":12}'])) % fill
    members = [(key.encode(), body if key in ("params", "result") else value) for key, value in message[0]]
    members += data.draw(st.lists(st.tuples(st.sampled_from(KNOWN).map(str.encode), JSON), max_size=1))
    text = b"{" + b",".join(b'"%b":%b' % item for item in data.draw(st.permutations(members))) + b"}"
    try:
        found = wire.parse(text) if is_client else wire.parse_backend(text)
    except MalformedMessage:
        return
    if isinstance(found, ParsedEnvelope):
        plain = msgspec.json.decode(text, type=Envelope)
        assert all(getattr(found, member) == getattr(plain, member) for member in KNOWN)
        whole = plain.params if is_client else plain.result
        assert isinstance(whole, Payload)
        assert found.members == msgspec.json.decode(whole, type=dict[str, Payload])
        keys = [key for key, _ in json.loads(text, object_pairs_hook=lambda items: items, parse_int=str)]
        assert len(keys) == len(set(keys))


LOOSE = st.recursive(
    LEAF | st.sampled_from([b"NaN", b"-Infinity", rb'"\ud83d"', b'"\x01"', b'"\n"']),
    lambda inner: arrays(inner) | objects(inner),
    max_leaves=8,
)


@given(objects(LOOSE), ID, SPACE)
def test_a_backends_result_keeps_its_bytes(result: bytes, id_: bytes, space: bytes) -> None:
    data = b'%b{"jsonrpc":"2.0",%b"id":%b%b,"result":%b%b}' % (space, space, id_, space, space, result)
    envelope = wire.parse_backend(data)
    assert (bytes_of(envelope.id), bytes_of(envelope.result)) == (id_, result)


def last_wins(text: bytes) -> Any:
    return json.loads(text, parse_int=str, parse_float=str, strict=False)


@given(objects(LOOSE), st.sampled_from(["tools/call", "resources/read"]), st.sampled_from(["handshake", "modern"]))
def test_a_modern_result_is_the_backends_plus_our_stamp(result: bytes, method: str, backend: Era) -> None:
    ours = Payload(b'{"name":"ours"}')
    found = last_wins(
        bytes(wire.adapt_result(Payload(result), method=method, backend=backend, client="modern", server_info=ours))
    )
    before = last_wins(result)
    meta = before.get("_meta") if isinstance(before.get("_meta"), dict) else {}
    hints = {"ttlMs": "0", "cacheScope": "private"} if method == "resources/read" else {}
    assert found == {"resultType": "complete", **hints, **before, "_meta": {**meta, META_SERVER_INFO: {"name": "ours"}}}


@given(objects(LOOSE))
def test_a_handshake_result_loses_the_stamps_only(result: bytes) -> None:
    ours = Payload(b"{}")
    found = last_wins(
        bytes(
            wire.adapt_result(
                Payload(result), method="tools/call", backend="modern", client="handshake", server_info=ours
            )
        )
    )
    before = last_wins(result)
    before.pop("resultType", None)
    meta = before.pop("_meta", None)
    sent_meta = found.pop("_meta", None)
    assert found == before
    if isinstance(meta, dict):
        assert (sent_meta or {}) == {key: value for key, value in meta.items() if key not in HOP_KEYS}


@given(objects(JSON), st.integers(0, 2**53))
def test_params_keep_everything_but_hop_members(params: bytes, token: int) -> None:
    try:
        found = wire.members(Payload(params))
    except RequestError:
        return
    sent = wire.hop_params(found, token=token, stamp=None)
    assert (sent is None) == (not found)
    again = wire.members(Payload(sent or b"{}"))
    assert list(again) == list(found)
    assert all(bytes(again[key]) == bytes(found[key]) for key in found if key != "_meta")
    if "_meta" in found:
        meta, before = wire.object_members(again["_meta"]), wire.object_members(found["_meta"])
        assert meta.keys() == before.keys() - HOP_KEYS
        for key, value in meta.items():
            assert bytes(value) == (b"%d" % token if key == "progressToken" else bytes(before[key]))


@given(
    st.text(max_size=12).filter(lambda text: text.isprintable() or text.isascii())
    | st.builds("=?base64?{}?=".format, st.text(max_size=8))
    | st.text(" \t\r\n\x00\x7fa=?", max_size=6)
)
@example("=?base64?eA==?=")
@example("=?base64?eB==?=")
def test_header_values_equal_the_sdks(text: str) -> None:
    assume(text.isascii() or not any("\ud800" <= char <= "\udfff" for char in text))
    assert encode_header(text) == encode_header_value(text)
    if text.isascii():
        assert decode_header(text) == decode_header_value(text)
    assert decode_header(encode_header(text)) == text
    assert encode_header(text).isascii()
    assert not {"\r", "\n", "\0"} & set(encode_header(text))
