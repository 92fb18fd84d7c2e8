"""JSON-RPC 2.0 envelopes: messages of clients parsed strictly, of backends leniently, and our own messages written.

A client's ambiguous message is refused: policy decides on what we read, the backend acts on what we send, and the two
must be the same. A backend's message is accepted as far as it can be understood, because refusing it costs the caller
the answer.
"""

import unicodedata
from codecs import BOM_UTF8
from typing import Final

import msgspec

from mcp_manifold.errors import InvalidParams, MalformedMessage
from mcp_manifold.wire.payload import (
    CROWD,
    MAX_MEMBERS,
    Payload,
    encode,
    first_byte,
    first_keys,
    is_crowded,
    may_be_crowded,
    walk_members,
)
from mcp_manifold.wire.protocol import INVALID_REQUEST, PARSE_ERROR

UNSET: Final = msgspec.UNSET
NULL_ID: Final = Payload(b"null")

_BOM: Final = b"\xef\xbb\xbf"
_ENVELOPE_KEYS: Final = frozenset({"jsonrpc", "id", "method", "params", "result", "error"})
_EXACT_KEYS: Final = frozenset(
    {"name", "uri", "arguments", "cursor", "ref", "argument", "context", "_meta", "level", "taskId", "task",
     "requestState", "inputResponses", "notifications", "protocolVersion", "capabilities", "clientInfo"}
)  # fmt: skip
_PARSED_KEYS: Final = frozenset({"_meta", "ref", "notifications", "inputResponses"})
"""Members of params whose own members are parsed."""
_ROUTING_KEYS: Final = frozenset(key.casefold() for key in _EXACT_KEYS)
_REQUEST_OVERHEAD: Final = len('{"jsonrpc":"2.0","id":,"method":"","params":}')
_RESPONSE_OVERHEAD: Final = len('{"jsonrpc":"2.0","id":,"result":}')
_PARAMS: Final = b'"params":{"'
_RESULT: Final = b'"result":{"'
_ID_STARTS: Final = b'"-0123456789'
_OBJECT_START: Final = ord("{")
_NULL_START: Final = ord("n")
_BATCHING: Final = "2025-03-26"
_MAX_BATCH: Final = 100
"""Messages of a batch, which are handled in one turn of the event loop."""
LARGE: Final = 8192
"""Bytes from which a message is parsed once only: parsing it again would take longer than forwarding it."""
_PREFIX: Final = 512
"""Bytes at the start of a large message in which its `params` or `result` must begin for the one-pass parse."""
_MAX_MEMBERS: Final = 64
"""Members of an envelope that are checked one by one; the bound keeps a hostile message from blocking the loop."""


class Envelope(msgspec.Struct):
    """One JSON-RPC message: request (`id` and `method`), notification (`method`) or response (`id`).

    Absent members are `UNSET`; `"id": null` is the payload `null`, not an absent id.
    """

    jsonrpc: str = ""
    id: Payload | msgspec.UnsetType = UNSET
    method: str | msgspec.UnsetType = UNSET
    params: Payload | msgspec.UnsetType = UNSET
    result: Payload | msgspec.UnsetType = UNSET
    error: Payload | msgspec.UnsetType = UNSET


class ParsedEnvelope(Envelope):
    """A large request or response whose `params` or `result` was parsed one level deep in the same pass.

    `members` are those of `params` or `result`; `text` is the whole message.
    """

    members: dict[str, Payload] = {}
    text: bytes = b""


class _Deep(msgspec.Struct):
    """A request with params, or a response with a result, decoded one level deeper."""

    jsonrpc: str = ""
    id: Payload | msgspec.UnsetType = UNSET
    method: str | msgspec.UnsetType = UNSET
    params: dict[str, Payload] | msgspec.UnsetType = UNSET
    result: dict[str, Payload] | msgspec.UnsetType = UNSET


_decode_envelope = msgspec.json.Decoder(Envelope).decode
_decode_batch = msgspec.json.Decoder(list[Payload]).decode
_decode_deep = msgspec.json.Decoder(_Deep).decode
_decode_members = msgspec.json.Decoder(dict[str, Payload]).decode
_decode_text = msgspec.json.Decoder(str).decode


# --- messages from clients ------------------------------------------------------------------------------------


def parse(data: bytes) -> Envelope:
    """Decode a client's message strictly, but for a byte order mark. Large requests come back as a `ParsedEnvelope`.

    Raises:
        MalformedMessage: -32700 for text that is not UTF-8 JSON (or is nested too deeply); -32600 for JSON that is
            not one unambiguous JSON-RPC 2.0 message (a batch, a duplicate or look-alike member, a null id).
    """
    try:
        if not data.isascii():
            data.decode()
        envelope = (_parse_once(data, _PARAMS) if len(data) >= LARGE else None) or _decode_envelope(data)
    except msgspec.ValidationError as exc:
        raise _invalid(_shape_problem(data)) from exc
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        if data.startswith(BOM_UTF8) and not data.startswith(BOM_UTF8 * 2):
            return parse(data[len(BOM_UTF8) :])
        raise MalformedMessage("Parse error: the message is not valid JSON", code=PARSE_ERROR) from exc
    if not _is_plain_request(data, envelope):
        _require_rpc(envelope)
        if not _is_compact(data, envelope):
            _require_unambiguous(data)
    return envelope


def batch_of(data: bytes, version: str) -> list[bytes]:
    """The messages of a JSON-RPC batch; empty for anything else, and in all revisions but 2025-03-26."""
    if version != _BATCHING or data.lstrip()[:1] != b"[":
        return []
    try:
        messages = _decode_batch(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return []
    return [bytes(message) for message in messages] if len(messages) <= _MAX_BATCH else []


def _parse_once(data: bytes, word: bytes) -> ParsedEnvelope | None:
    """A compact request or response with its params or result parsed in the same pass; None for any other message.

    The decoder does not report offsets. They follow from lengths: in a message without white space and with the
    required members only, the shortest encodings of all members add up to its length. If they do, no member occurs
    twice. The text of `params` or `result` then starts within the first `word` and is as long as its members.

    Args:
        word: the key of `params` or `result`, with the opening brace and the quote of the first member.
    """
    start = data.find(word, 0, _PREFIX) + len(word) - 2
    if start < len(word) - 2 or may_be_crowded(data):
        return None
    try:
        deep = _decode_deep(data)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None
    members, rest = (deep.params, deep.method) if word is _PARAMS else (deep.result, "")
    if deep.jsonrpc != "2.0" or deep.id is UNSET or members is UNSET or rest is UNSET:
        return None
    size = 1 + sum(len(key.encode()) + 4 + len(value) for key, value in members.items())
    overhead = _REQUEST_OVERHEAD if word is _PARAMS else _RESPONSE_OVERHEAD
    if overhead + len(deep.id) + len(rest.encode()) + size != len(data):
        return None
    parsed = ParsedEnvelope("2.0", deep.id, members=members, text=data)
    payload = Payload(memoryview(data)[start : start + size])
    if word is _RESULT:
        parsed.result = payload
    else:
        parsed.method, parsed.params = rest, payload
    return parsed


def _is_plain_request(data: bytes, envelope: Envelope) -> bool:
    """Whether the message is a compact request, which needs no further check (the common case)."""
    id_, method, params = envelope.id, envelope.method, envelope.params
    return (
        id_ is not UNSET
        and method is not UNSET
        and params is not UNSET
        and len(id_) + len(method) + len(params) + _REQUEST_OVERHEAD == len(data)
        and envelope.jsonrpc == "2.0"
        and memoryview(id_)[0] in _ID_STARTS
        and memoryview(params)[0] == _OBJECT_START
    )


def _invalid(reason: str) -> MalformedMessage:
    return MalformedMessage(reason, code=INVALID_REQUEST)


def _shape_problem(data: bytes) -> str:
    if data.lstrip()[:1] == b"[":
        return "Invalid request: JSON-RPC batches are not supported, send one message at a time"
    return "Invalid request: not a JSON-RPC 2.0 message object"


def _require_rpc(envelope: Envelope) -> None:
    if envelope.jsonrpc != "2.0":
        raise _invalid('Invalid request: "jsonrpc" must be "2.0"')
    if envelope.id is not UNSET and first_byte(envelope.id) not in _ID_STARTS:
        raise _invalid('Invalid request: "id" must be a string or a number')
    if envelope.method is not UNSET:
        if envelope.params is not UNSET and first_byte(envelope.params) not in b"{n":  # some clients send null for none
            raise _invalid('Invalid request: "params" must be an object')
    elif envelope.id is UNSET or (envelope.result is UNSET) == (envelope.error is UNSET):
        raise _invalid("Invalid request: neither a request nor a response")


def _is_compact(data: bytes, envelope: Envelope) -> bool:
    """Whether the known members, once each and without white space, make up all of `data`."""
    size = 16 if envelope.jsonrpc else 1  # `{"jsonrpc":"2.0"` or `{`
    for overhead, payload in (
        (6, envelope.id),
        (10, envelope.params),
        (10, envelope.result),
        (9, envelope.error),
    ):
        if payload is not UNSET:
            size += overhead + len(payload)
    if envelope.method is not UNSET:
        size += 12 + len(envelope.method)
    return size + 1 == len(data)


def _require_unambiguous(data: bytes) -> None:
    """Refuse duplicate members, and members that differ from an envelope member by case or folding only."""
    try:
        keys = first_keys(data, _MAX_MEMBERS)
    except RecursionError as exc:  # this parse has a slightly lower depth limit than the first
        raise MalformedMessage("Parse error: the message is nested too deeply", code=PARSE_ERROR) from exc
    seen: set[str] = set()
    for key in keys:
        if key in seen:
            raise _invalid(f'Invalid request: duplicate member "{key[:40]}"')
        if key not in _ENVELOPE_KEYS and _folded(key) in _ENVELOPE_KEYS:
            raise _invalid(f'Invalid request: member "{key[:40]}" is not spelled as JSON-RPC does')
        seen.add(key)
    if len(seen) > _MAX_MEMBERS:
        raise _invalid(f"Invalid request: more than {_MAX_MEMBERS} members")


def _folded(key: str) -> str:
    return unicodedata.normalize("NFKC", key).casefold()


def members(params: Payload | msgspec.UnsetType) -> dict[str, Payload]:
    """The members of `params`, each as raw text. Of duplicates the last one counts, and is the one that is sent.

    Raises:
        InvalidParams: a member differs from one we route on by case or folding only, or is nested too deeply; or there
            are too many members, in `params` or in one of its objects that are parsed.
    """
    if params is UNSET or memoryview(params)[0] == _NULL_START:
        return {}
    is_large = len(params) > CROWD
    if is_large:
        _require_few(params, "the params have")
    try:
        found = _decode_members(params)
    except RecursionError as exc:  # this parse has a slightly lower depth limit than that of the message
        raise InvalidParams("Invalid params: nested too deeply") from exc
    if is_large:
        for key in _PARSED_KEYS & found.keys():
            _require_few(found[key], f'"{key}" has')
    return _without_lookalikes(found)


def _require_few(value: Payload, what: str) -> None:
    if is_crowded(value):
        raise InvalidParams(f"Invalid params: {what} more than {MAX_MEMBERS} members")


def _without_lookalikes(found: dict[str, Payload]) -> dict[str, Payload]:
    if not found.keys() <= _EXACT_KEYS:
        for key in found:
            if key not in _EXACT_KEYS and _folded(key) in _ROUTING_KEYS:
                raise InvalidParams(f'Invalid params: member "{key[:40]}" is not spelled as the protocol does')
    return found


def members_of(envelope: Envelope) -> dict[str, Payload]:
    """The members of a message's params, as `members` returns them. A ParsedEnvelope is not parsed again.

    Raises:
        InvalidParams: see `members`.
    """
    if isinstance(envelope, ParsedEnvelope):
        return _without_lookalikes(envelope.members)
    return members(envelope.params)


# --- messages from backends -----------------------------------------------------------------------------------


def parse_backend(data: bytes) -> Envelope:
    """Decode a backend's message leniently. Large responses come back as a `ParsedEnvelope`.

    Invalid JSON inside payloads (lone surrogates, NaN, control characters) is kept as received. What is not UTF-8
    becomes U+FFFD.

    Raises:
        MalformedMessage: the text is not recognisable as a JSON-RPC message.
    """
    if not data.isascii():
        data = _as_utf8(data)
    try:
        envelope = (_parse_once(data, _RESULT) if len(data) >= LARGE else None) or _decode_envelope(data)
    except msgspec.ValidationError as exc:
        raise _invalid("not a JSON-RPC message object") from exc
    except RecursionError as exc:
        raise MalformedMessage("nested too deeply", code=PARSE_ERROR) from exc
    except msgspec.DecodeError:
        if data.startswith(_BOM):
            return parse_backend(data[len(_BOM) :])
        envelope = _parse_loosely(data)
    if envelope.error is not UNSET and envelope.result is not UNSET and bytes(envelope.error) == b"null":
        envelope.error = UNSET  # some servers write every absent member as null
    if envelope.method is not UNSET and "\N{REPLACEMENT CHARACTER}" in envelope.method:
        raise MalformedMessage("not valid UTF-8", code=PARSE_ERROR)
    return envelope


def _as_utf8(data: bytes) -> bytes:
    """`data` itself, or with U+FFFD for what is not UTF-8."""
    try:
        data.decode()
    except UnicodeDecodeError:
        return data.decode("utf-8", "replace").encode()
    return data


def unbatched(data: bytes) -> bytes:
    """The message in a batch of one, which HTTP servers of 2025-03-26 send; anything else unchanged."""
    try:
        found = msgspec.json.decode(data, type=list[Payload])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return data
    return bytes(found[0]) if len(found) == 1 else data


def _parse_loosely(data: bytes) -> Envelope:
    """The envelope of text that is not valid JSON but has readable top-level members."""
    envelope = Envelope()
    try:
        for key, start, end in walk_members(data):
            if key in ("jsonrpc", "method"):
                setattr(envelope, key, _decode_text(data[start:end]))
            elif key in _ENVELOPE_KEYS:
                setattr(envelope, key, Payload(data[start:end]))
    except (ValueError, RecursionError) as exc:
        raise MalformedMessage("not valid JSON", code=PARSE_ERROR) from exc
    return envelope


# --- our own messages -----------------------------------------------------------------------------------------

Pieces = tuple[bytes | memoryview, ...]
"""JSON text in pieces that are not joined, because a copy of a large payload is expensive."""

_HEAD: Final = b'{"jsonrpc":"2.0","id":'
_LF: Final = 0x0A
_CR: Final = 0x0D
"""Integers: `int in bytes` takes a quarter of the time of `bytes in bytes`."""


def one_line(message: bytes) -> bytes:
    """The message with each line break replaced by a space, for transports that end messages with a line break.

    Line breaks in JSON are white space between tokens. Relayed as they are, they would let a caller smuggle a second
    message past every check.
    """
    if _LF in message or _CR in message:
        return message.replace(b"\n", b" ").replace(b"\r", b" ")
    return message


def request(number: int, method: str, params: bytes | None) -> bytes:
    """A request with an integer id of our own."""
    if params is None:
        return b'{"jsonrpc":"2.0","id":%d,"method":%b}' % (number, encode(method))
    return b"".join((b'{"jsonrpc":"2.0","id":%d,"method":%b,"params":' % (number, encode(method)), params, b"}"))


def notification(method: str, params: bytes | Payload | None = None) -> bytes:
    """A notification."""
    if params is None:
        return b'{"jsonrpc":"2.0","method":%b}' % encode(method)
    return b'{"jsonrpc":"2.0","method":%b,"params":%b}' % (encode(method), params)


def response(id_: Payload, result: bytes | Payload) -> bytes:
    """A successful response to the request `id_`."""
    return b"".join((_HEAD, id_, b',"result":', result, b"}"))  # twice as fast as formatting, at any size


def response_pieces(id_: Payload, result: Pieces) -> Pieces:
    """`response` for a result in pieces, without a copy."""
    return (b"".join((_HEAD, id_, b',"result":')), *result, b"}")


def failure(id_: Payload, error: bytes | Payload) -> bytes:
    """An error response to the request `id_`."""
    return b"".join((_HEAD, id_, b',"error":', error, b"}"))
