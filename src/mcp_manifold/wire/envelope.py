"""JSON-RPC envelopes: decode strictly what clients send, and leniently what backends send.

Clients are refused anything ambiguous, because policy decides on what we read and the backend acts on what we send.
Backends are read as far as they can be understood, because refusing costs their callers the answer.
"""

import json
import re
import unicodedata
from collections.abc import Iterator
from typing import Final

import msgspec

from mcp_manifold.errors import InvalidParams, MalformedMessage
from mcp_manifold.wire.protocol import INVALID_REQUEST, PARSE_ERROR

Payload = msgspec.Raw
"""Raw JSON text of one value: the one name under which foreign payloads travel through this package."""

UNSET: Final = msgspec.UNSET
NULL_ID: Final = Payload(b"null")
EMPTY: Final = Payload(b"{}")

_ENVELOPE_KEYS: Final = frozenset({"jsonrpc", "id", "method", "params", "result", "error"})
_ROUTING_KEYS: Final = frozenset(
    {"name", "uri", "arguments", "cursor", "ref", "argument", "context", "_meta", "level", "taskid", "task",
     "requeststate", "inputresponses", "notifications", "protocolversion", "capabilities", "clientinfo"}
)  # fmt: skip
_EXACT_KEYS: Final = frozenset(
    {"name", "uri", "arguments", "cursor", "ref", "argument", "context", "_meta", "level", "taskId", "task",
     "requestState", "inputResponses", "notifications", "protocolVersion", "capabilities", "clientInfo"}
)  # fmt: skip
_SPACE: Final = re.compile(rb"[ \t\r\n]*")
_KEY: Final = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"')
_REQUEST_OVERHEAD: Final = len('{"jsonrpc":"2.0","id":,"method":"","params":}')
_RESPONSE_OVERHEAD: Final = len('{"jsonrpc":"2.0","id":,"result":}')
_PARAMS: Final = b'"params":{"'
_RESULT: Final = b'"result":{"'
_ID_STARTS: Final = b'"-0123456789'
_OBJECT_START: Final = ord("{")
_NULL_START: Final = ord("n")
LARGE: Final = 8192
"""Bytes from which on a message is looked at once only, since that takes longer than to pass on what was seen."""
_BEGINNING: Final = 512
"""Bytes in which a large message shows how it is written."""
_MAX_MEMBERS: Final = 64
"""Members of an envelope that are looked at one by one; without it a message of nothing else would hold the loop."""


class Envelope(msgspec.Struct):
    """One JSON-RPC message: request (`id` and `method`), notification (`method`) or response (`id`).

    Absent members are `UNSET`; `"id": null` is the payload `null` and not an absent id.
    """

    jsonrpc: str = ""
    id: Payload | msgspec.UnsetType = UNSET
    method: str | msgspec.UnsetType = UNSET
    params: Payload | msgspec.UnsetType = UNSET
    result: Payload | msgspec.UnsetType = UNSET
    error: Payload | msgspec.UnsetType = UNSET


class ParsedEnvelope(Envelope):
    """A large request or response whose `params` or `result` was opened in the same pass; never decoded as such."""

    members: dict[str, Payload] = {}
    """Those of `params`, or of `result`."""
    text: bytes = b""
    """The whole message."""


class _Deep(msgspec.Struct):
    """A request with params, or a response with a result, decoded one level deeper."""

    jsonrpc: str = ""
    id: Payload | msgspec.UnsetType = UNSET
    method: str | msgspec.UnsetType = UNSET
    params: dict[str, Payload] | msgspec.UnsetType = UNSET
    result: dict[str, Payload] | msgspec.UnsetType = UNSET


_decode_envelope = msgspec.json.Decoder(Envelope).decode
_decode_deep = msgspec.json.Decoder(_Deep).decode
_decode_members = msgspec.json.Decoder(dict[str, Payload]).decode
_decode_text = msgspec.json.Decoder(str).decode
_decode_texts = msgspec.json.Decoder(list[str]).decode
encode = msgspec.json.Encoder().encode
"""JSON text of plain values; `Payload` members are written as they are."""


def parse(data: bytes) -> Envelope:
    """Decode a client's message strictly.

    Raises:
        MalformedMessage: -32700 for text that is not UTF-8 JSON (or is nested too deeply), -32600 for JSON that is
            not one unambiguous JSON-RPC 2.0 message (a batch, a duplicate or look-alike member, a null id).
    """
    try:
        if not data.isascii():
            data.decode()
        envelope = (_opened(data, _PARAMS) if len(data) >= LARGE else None) or _decode_envelope(data)
    except msgspec.ValidationError as exc:
        raise _refused(_shape_problem(data)) from exc
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise MalformedMessage("Parse error: the message is not valid JSON", code=PARSE_ERROR) from exc
    if not _is_plain_request(data, envelope):
        _require_rpc(envelope)
        if not _is_compact(data, envelope):
            _require_unambiguous(data)
    return envelope


def _opened(data: bytes, word: bytes) -> ParsedEnvelope | None:
    """A request, or a response, without white space and with nothing in it but what it must have; None for all else.

    Then the lengths of all members, written as short as they can be, add up to that of the message: so the text of its
    params or result, which is not told where its members are, begins after the first such word and is as long as they
    say. Nothing can be there twice.

    Args:
        word: what comes before the members, with the start of the first.
    """
    start = data.find(word, 0, _BEGINNING) + len(word) - 2
    if start < len(word) - 2:
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
    opened = ParsedEnvelope("2.0", deep.id, members=members, text=data)
    payload = Payload(memoryview(data)[start : start + size])
    if word is _RESULT:
        opened.result = payload
    else:
        opened.method, opened.params = rest, payload
    return opened


def _is_plain_request(data: bytes, envelope: Envelope) -> bool:
    """Whether this is what requests usually are, with nothing in it that has to be looked at more closely."""
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


def _refused(reason: str) -> MalformedMessage:
    return MalformedMessage(reason, code=INVALID_REQUEST)


def _shape_problem(data: bytes) -> str:
    if data.lstrip()[:1] == b"[":
        return "Invalid request: JSON-RPC batches are not supported, send one message at a time"
    return "Invalid request: not a JSON-RPC 2.0 message object"


def _require_rpc(envelope: Envelope) -> None:
    if envelope.jsonrpc != "2.0":
        raise _refused('Invalid request: "jsonrpc" must be "2.0"')
    if envelope.id is not UNSET and first_byte(envelope.id) not in _ID_STARTS:
        raise _refused('Invalid request: "id" must be a string or a number')
    if envelope.method is not UNSET:
        if envelope.params is not UNSET and first_byte(envelope.params) not in b"{n":  # null, which some write for none
            raise _refused('Invalid request: "params" must be an object')
    elif envelope.id is UNSET or (envelope.result is UNSET) == (envelope.error is UNSET):
        raise _refused("Invalid request: neither a request nor a response")


def first_byte(payload: Payload) -> bytes:
    """The first byte of a payload, which tells its JSON type."""
    return memoryview(payload)[:1].tobytes()


def is_object(payload: Payload) -> bool:
    """Whether it is a JSON object."""
    return memoryview(payload)[0] == _OBJECT_START


def _is_compact(data: bytes, envelope: Envelope) -> bool:
    """Whether the known members alone, once each and without white space, make up all of `data`."""
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
    """Refuse duplicate members, and members that differ from the envelope's by case or folding only (S9)."""
    seen: set[str] = set()
    try:
        for key, _, _ in _walk(data):
            if key in seen:
                raise _refused(f'Invalid request: duplicate member "{key[:40]}"')
            if key not in _ENVELOPE_KEYS and _folded(key) in _ENVELOPE_KEYS:
                raise _refused(f'Invalid request: member "{key[:40]}" is not spelled as JSON-RPC does')
            seen.add(key)
            if len(seen) > _MAX_MEMBERS:
                raise _refused(f"Invalid request: more than {_MAX_MEMBERS} members")
    except RecursionError as exc:  # its limit is a little nearer here than it was for the first look
        raise MalformedMessage("Parse error: the message is nested too deeply", code=PARSE_ERROR) from exc


def _folded(key: str) -> str:
    return unicodedata.normalize("NFKC", key).casefold()


def members(params: Payload | msgspec.UnsetType) -> dict[str, Payload]:
    """The members of `params`, each as raw text. Duplicates collapse to the last one, which is the one that is sent.

    Raises:
        InvalidParams: a member differs from one we route on by case or folding only, or they are nested too deeply.
    """
    if params is UNSET or memoryview(params)[0] == _NULL_START:
        return {}
    try:
        found = _decode_members(params)
    except RecursionError as exc:  # its limit is a little nearer here than it was for the whole message
        raise InvalidParams("Invalid params: nested too deeply") from exc
    return _spelled(found)


def _spelled(found: dict[str, Payload]) -> dict[str, Payload]:
    """The members of params, if none is a look-alike of one we route on."""
    if not found.keys() <= _EXACT_KEYS:
        for key in found:
            if key not in _EXACT_KEYS and _folded(key) in _ROUTING_KEYS:
                raise InvalidParams(f'Invalid params: member "{key[:40]}" is not spelled as the protocol does')
    return found


def members_of(envelope: Envelope) -> dict[str, Payload]:
    """The `members` of a message's params.

    Raises:
        InvalidParams: as `members`.
    """
    if isinstance(envelope, ParsedEnvelope):
        return _spelled(envelope.members)
    return members(envelope.params)


def text(payload: Payload | None, what: str) -> str:
    """The string a payload holds.

    Raises:
        InvalidParams: it is absent or not a string; `what` names it.
    """
    if payload is None:
        raise InvalidParams(f'Invalid params: "{what}" is missing')
    try:
        return _decode_text(payload)
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise InvalidParams(f'Invalid params: "{what}" must be a string') from exc


def texts(payload: Payload, what: str) -> list[str]:
    """The strings of the list a payload holds.

    Raises:
        InvalidParams: it is no list of strings; `what` names it.
    """
    try:
        return _decode_texts(payload)
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise InvalidParams(f'Invalid params: "{what}" must be a list of strings') from exc


# --- what backends send ---------------------------------------------------------------------------------------


def parse_backend(data: bytes) -> Envelope:
    """Decode a backend's message, as leniently as its members can still be told apart.

    What strict JSON forbids but servers send inside payloads (lone surrogates, NaN, control characters) is kept as
    it came. Text that is not UTF-8 is not JSON at all and cannot be relayed.

    Raises:
        MalformedMessage: nothing like a JSON-RPC message can be made out.
    """
    try:
        if not data.isascii():
            data.decode()
        envelope = (_opened(data, _RESULT) if len(data) >= LARGE else None) or _decode_envelope(data)
    except msgspec.ValidationError as exc:
        raise _refused("not a JSON-RPC message object") from exc
    except UnicodeDecodeError as exc:
        raise MalformedMessage("not valid UTF-8", code=PARSE_ERROR) from exc
    except RecursionError as exc:
        raise MalformedMessage("nested too deeply", code=PARSE_ERROR) from exc
    except msgspec.DecodeError:
        envelope = _sliced(data)
    if envelope.error is not UNSET and envelope.result is not UNSET and bytes(envelope.error) == b"null":
        envelope.error = UNSET  # some servers write every absent member as null
    return envelope


def loose_members(value: Payload) -> dict[str, Payload]:
    """The members of an object a backend sent, each as raw text, even where that is only nearly JSON.

    Raises:
        ValueError: it is no object, or one that cannot be written again.
        RecursionError: it is nested too deeply.
    """
    try:
        return _decode_members(value)
    except (msgspec.DecodeError, UnicodeDecodeError):
        data = bytes(value)
        found = {key: Payload(data[start:end]) for key, start, end in _walk(data)}
        "".join(found).encode()  # a key that is no text cannot be written again
        return found


def _sliced(data: bytes) -> Envelope:
    """An envelope cut out of text that is only nearly JSON."""
    envelope = Envelope()
    try:
        for key, start, end in _walk(data):
            if key in ("jsonrpc", "method"):
                setattr(envelope, key, _decode_text(data[start:end]))
            elif key in _ENVELOPE_KEYS:
                setattr(envelope, key, Payload(data[start:end]))
    except (ValueError, RecursionError) as exc:
        raise MalformedMessage("not valid JSON", code=PARSE_ERROR) from exc
    return envelope


_scan = json.JSONDecoder(strict=False, parse_int=str, parse_float=str).raw_decode  # numbers of any length pass


def _walk(data: bytes) -> Iterator[tuple[str, int, int]]:
    """The top-level members of an object in order, duplicates included: key, start and end of the value.

    Raises:
        ValueError: `data` is not an object.
    """
    source = data.decode("latin-1")  # one character per byte, so that offsets are those of the bytes
    at = _skip(data, 0)
    if data[at : at + 1] != b"{":
        raise ValueError("not an object")
    at = _skip(data, at + 1)
    while data[at : at + 1] != b"}":
        key = _KEY.match(data, at)
        if key is None:
            raise ValueError("not a member")
        colon = _skip(data, key.end())
        if data[colon : colon + 1] != b":":
            raise ValueError("no colon")
        start = _skip(data, colon + 1)
        _, end = _scan(source, start)
        yield json.loads(key.group(), strict=False), start, end
        at = _skip(data, end)
        if data[at : at + 1] == b",":
            at = _skip(data, at + 1)
        elif data[at : at + 1] != b"}":
            raise ValueError("no comma")


def _skip(data: bytes, at: int) -> int:
    found = _SPACE.match(data, at)
    return found.end() if found else at
