"""Requests that servers send to clients: which capability each needs, and who may be asked. Pure."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import msgspec

from mcp_manifold.wire.envelope import Payload, encode
from mcp_manifold.wire.protocol import INVALID_PARAMS, METHOD_NOT_FOUND

NEEDED: Final[Mapping[str, str]] = MappingProxyType(
    {"roots/list": "roots", "sampling/createMessage": "sampling", "elicitation/create": "elicitation"}
)
"""Server request to the client capability it needs."""

_decode_members = msgspec.json.Decoder(dict[str, Payload]).decode


class _Elicit(msgspec.Struct):
    mode: str = "form"


def capability_names(capabilities: Payload) -> frozenset[str]:
    """The top-level capabilities a peer declared."""
    return frozenset(_members(capabilities))


def relayable_capabilities(capabilities: Payload) -> Payload:
    """The capabilities that are relayed between eras; extensions and tasks differ between them and are not."""
    declared = _members(capabilities)
    return Payload(encode({name: declared[name] for name in NEEDED.values() if name in declared}))


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
    if needed == "elicitation":
        return _refused_mode(params, inner)
    if needed == "sampling" and _uses_tools(params) and "tools" not in inner:
        return _error(INVALID_PARAMS, "Invalid params: the client declared no sampling.tools capability")
    return None


def _refused_mode(params: Payload | None, declared: Mapping[str, Payload]) -> bytes | None:
    mode = _mode_of(params)
    if mode == "form" and (not declared or "form" in declared):  # an empty object means forms only
        return None
    if mode != "form" and mode in declared:
        return None
    return _error(INVALID_PARAMS, f"Invalid params: the client cannot be asked in {mode[:20]} mode")


def _uses_tools(params: Payload | None) -> bool:
    return params is not None and bool({"tools", "toolChoice"} & _members(params).keys())


def _mode_of(params: Payload | None) -> str:
    try:
        return "form" if params is None else msgspec.json.decode(params, type=_Elicit).mode
    except (msgspec.DecodeError, UnicodeDecodeError):
        return "form"


def _error(code: int, message: str) -> bytes:
    return encode({"code": code, "message": message})


def _members(value: Payload) -> Mapping[str, Payload]:
    try:
        return _decode_members(value)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return {}


def signed(method: str, params: Payload | None, server: str) -> Payload | None:
    """An elicitation with the asking server named in its message, where the person who answers reads it.

    Sources: 2025-11-25 client/elicitation, "clients SHOULD make it clear which server is requesting information".
    """
    if method != "elicitation/create" or params is None:
        return params
    members = dict(_members(params))
    try:
        message = msgspec.json.decode(members["message"], type=str)
    except (KeyError, msgspec.DecodeError, UnicodeDecodeError):
        return params
    members["message"] = Payload(encode(f"[{server}] {message}"))
    return Payload(encode(members))
