"""Requests that servers send to clients: which capability each needs, and who may be asked. Pure."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import msgspec

from mcp_manifold.wire.envelope import Payload, encode, first_byte, loose_members
from mcp_manifold.wire.protocol import INVALID_PARAMS, METHOD_NOT_FOUND
from mcp_manifold.wire.result_view import ResultView

NEEDED: Final[Mapping[str, str]] = MappingProxyType(
    {"roots/list": "roots", "sampling/createMessage": "sampling", "elicitation/create": "elicitation"}
)
"""Server request to the client capability it needs."""

_INPUT_REQUIRED: Final = b'"input_required"'
_decode_text = msgspec.json.Decoder(str).decode


def capability_names(capabilities: Payload) -> frozenset[str]:
    """The top-level capabilities a peer declared."""
    return frozenset(_members(capabilities))


def relayable_capabilities(capabilities: Payload, *, same_era: bool = False) -> Payload:
    """The capabilities that are relayed: between eras only those of questions, within one what extends it as well.

    `tasks` is not: a server's question is never made a task of its client's.
    """
    declared = _members(capabilities)
    passed = (*NEEDED.values(), *(("extensions", "experimental") if same_era else ()))
    return Payload(encode({name: declared[name] for name in passed if name in declared}))


def capabilities_of(capabilities: Payload, names: frozenset[str]) -> Payload:
    """These top-level capabilities alone."""
    return Payload(encode({name: value for name, value in _members(capabilities).items() if name in names}))


def with_extension(capabilities: Payload, name: str) -> Payload:
    """The same with one extension more, unless it is there."""
    declared = _members(capabilities)
    extensions = {name: Payload(b"{}"), **_members(declared.get("extensions", Payload(b"{}")))}
    return Payload(encode({**declared, "extensions": extensions}))


def refusal(method: str, params: Payload | None, capabilities: Payload) -> bytes | None:
    """The error a server gets for asking a client what it did not declare; None when it may be asked.

    An undeclared capability is an unknown method (2025-11-25 client/roots, client/sampling); a mode or a field that was
    not declared within a declared capability is a wrong parameter (client/elicitation, client/sampling).
    """
    needed = NEEDED.get(method)
    if needed is None:
        return None
    declared = _members(capabilities)
    if needed not in declared:
        return _error(METHOD_NOT_FOUND, f"Method not found: the client declared no {needed} capability")
    inner = _members(declared[needed])
    asked = {} if params is None else _members(params)
    if params is not None and not asked and needed != "roots":  # what cannot be read cannot be judged, nor signed
        return _error(INVALID_PARAMS, "Invalid params: expected an object with members")
    if needed == "elicitation":
        return _refused_mode(asked, inner)
    if needed == "sampling" and {"tools", "toolChoice"} & asked.keys() and "tools" not in inner:
        return _error(INVALID_PARAMS, "Invalid params: the client declared no sampling.tools capability")
    return None


def _refused_mode(asked: Mapping[str, Payload], declared: Mapping[str, Payload]) -> bytes | None:
    mode = _mode_of(asked)
    if mode == "form" and (not declared or "form" in declared):  # an empty object means forms only
        return None
    if mode != "form" and mode in declared:
        return None
    return _error(INVALID_PARAMS, f"Invalid params: the client cannot be asked in {mode[:20]} mode")


def _mode_of(asked: Mapping[str, Payload]) -> str:
    try:
        return _decode_text(asked["mode"]) if "mode" in asked else "form"
    except (msgspec.DecodeError, UnicodeDecodeError):
        return "unknown"


def _error(code: int, message: str) -> bytes:
    return encode({"code": code, "message": message})


def _members(value: Payload) -> Mapping[str, Payload]:
    try:
        return loose_members(value)
    except (ValueError, RecursionError):
        return {}


class _Elicitations(msgspec.Struct):
    elicitations: list[Payload] = []


class _UrlRequired(msgspec.Struct):
    data: _Elicitations = msgspec.field(default_factory=_Elicitations)


def required_urls(error: bytes) -> list[Payload]:
    """The elicitations of a -32042 error (2025-11-25 client/elicitation, "URL Elicitation Required Error")."""
    try:
        return msgspec.json.decode(error, type=_UrlRequired).data.elicitations
    except (msgspec.DecodeError, UnicodeDecodeError):
        return []


def signed(method: str, params: Payload | None, server: str) -> Payload | None:
    """An elicitation with the asking server named in its message, where the person who answers reads it.

    Sources: 2025-11-25 client/elicitation, "clients SHOULD make it clear which server is requesting information".
    """
    if method != "elicitation/create" or params is None:
        return params
    members = _members(params)
    message = members.get("message")
    if message is None or first_byte(message) != b'"':
        return params
    prefix = encode(f"[{server}] ")[:-1]  # in front of the text as it came, which need not be one that can be decoded
    return Payload(encode({**members, "message": Payload(prefix + bytes(message)[1:])}))


def signed_requests(value: Payload, server: str) -> Payload:
    """An object with `inputRequests` (2026-07-28 basic/patterns/mrtr), each of them `signed`."""
    members = _members(value)
    requests = {key: _signed_request(each, server) for key, each in _members(members["inputRequests"]).items()}
    return Payload(encode({**members, "inputRequests": requests})) if requests else value


def _signed_request(request: Payload, server: str) -> Payload:
    members = _members(request)
    try:
        method = _decode_text(members["method"])
    except (KeyError, msgspec.DecodeError, UnicodeDecodeError):
        return request
    params = signed(method, members.get("params"), server)
    return request if params is None else Payload(encode({**members, "params": params}))


class InputRequest(msgspec.Struct):
    """One thing a 2026-07-28 server wants to know of the client before it goes on."""

    method: str
    params: Payload | msgspec.UnsetType = msgspec.UNSET


class InputRequired(msgspec.Struct):
    """A result that is none yet: what is wanted first, and the state to bring back with it."""

    kind: str = msgspec.field(name="resultType", default="complete")
    requests: dict[str, InputRequest] = msgspec.field(name="inputRequests", default_factory=dict)
    state: Payload | msgspec.UnsetType = msgspec.field(name="requestState", default=msgspec.UNSET)


def may_ask(result: Payload, look: ResultView | None = None) -> bool:
    """Whether a result of a 2026-07-28 server can ask for something; a cheap look."""
    return bytes(result).find(_INPUT_REQUIRED) >= 0 if look is None else look.kind == _INPUT_REQUIRED


def input_required(result: Payload, look: ResultView | None = None) -> InputRequired | None:
    """What a result of a 2026-07-28 server asks for; None for a result that is one."""
    if not may_ask(result, look):
        return None
    try:
        found = msgspec.json.decode(result, type=InputRequired)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return found if found.kind == "input_required" else None
