"""Requests from servers to clients (sampling, elicitation, roots): needed capabilities, and rewriting. Pure."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final
from urllib.parse import urlsplit

import msgspec

from mcp_manifold.wire.payload import EMPTY, Payload, encode, first_byte, object_members, text_at
from mcp_manifold.wire.protocol import INVALID_PARAMS, METHOD_NOT_FOUND
from mcp_manifold.wire.result_view import ResultView

NEEDED: Final[Mapping[str, str]] = MappingProxyType(
    {"roots/list": "roots", "sampling/createMessage": "sampling", "elicitation/create": "elicitation"}
)
"""Method of a server request to the client capability it needs."""

_THIS_MACHINE: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_INPUT_REQUIRED: Final = b'"input_required"'


def capability_names(capabilities: Payload) -> frozenset[str]:
    """The names of the top-level capabilities that a peer declared."""
    return frozenset(object_members(capabilities))


def relayable_capabilities(capabilities: Payload, *, same_era: bool = False) -> Payload:
    """The client capabilities that a backend is told: those of server requests, within one era also extensions.

    `tasks` is never relayed: a server request does not become a task of the client.
    """
    declared = object_members(capabilities)
    passed = (*NEEDED.values(), *(("extensions", "experimental") if same_era else ()))
    return Payload(encode({name: declared[name] for name in passed if name in declared}))


def capabilities_of(capabilities: Payload, names: frozenset[str]) -> Payload:
    """The capabilities restricted to the top-level `names`."""
    return Payload(encode({name: value for name, value in object_members(capabilities).items() if name in names}))


def with_extension(capabilities: Payload, name: str) -> Payload:
    """The capabilities with the extension `name` declared as well."""
    declared = object_members(capabilities)
    extensions = {name: EMPTY, **object_members(declared.get("extensions"))}
    return Payload(encode({**declared, "extensions": extensions}))


def refusal(method: str, params: Payload | None, capabilities: Payload) -> bytes | None:
    """The error object for a server request that the client does not support; None if the client supports it.

    An undeclared capability is -32601 (2025-11-25 client/roots, client/sampling). An undeclared mode or field of a
    declared capability is -32602 (client/elicitation, client/sampling).
    """
    needed = NEEDED.get(method)
    if needed is None:
        return None
    declared = object_members(capabilities)
    if needed not in declared:
        return _error(METHOD_NOT_FOUND, f"Method not found: the client declared no {needed} capability")
    inner = object_members(declared[needed])
    asked = {} if params is None else object_members(params)
    if params is not None and not asked and needed != "roots":  # unreadable params cannot be checked
        return _error(INVALID_PARAMS, "Invalid params: expected an object with members")
    if needed == "elicitation":
        return _refused_mode(asked, inner) or _refused_url(asked)
    if needed == "sampling" and {"tools", "toolChoice"} & asked.keys() and "tools" not in inner:
        return _error(INVALID_PARAMS, "Invalid params: the client declared no sampling.tools capability")
    return None


def _refused_mode(asked: Mapping[str, Payload], declared: Mapping[str, Payload]) -> bytes | None:
    mode = _mode_of(asked)
    if mode == "form" and ("form" in declared or "url" not in declared):  # older revisions had no modes
        return None
    if mode != "form" and mode in declared:
        return None
    return _error(INVALID_PARAMS, f"Invalid params: the client cannot be asked in {mode[:20]} mode")


def _refused_url(asked: Mapping[str, Payload]) -> bytes | None:
    if _mode_of(asked) != "url" or _has_safe_url(asked):
        return None
    return _error(INVALID_PARAMS, "Invalid params: the url must begin with https://, or http:// on this machine")


def opens_unsafe_url(method: str, params: Payload | None) -> bool:
    """Whether a server request makes the client open a URL that is neither https nor http on this machine.

    Source: 2025-11-25 client/elicitation, "Safe URL Handling".
    """
    asked = object_members(params) if method == "elicitation/create" else {}
    return bool(asked) and _refused_url(asked) is not None


def _has_safe_url(asked: Mapping[str, Payload]) -> bool:
    url = text_at(asked["url"]) if "url" in asked else None
    if url is None or not url.isprintable() or " " in url or "\\" in url:
        return False
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        return False
    return bool(host) and (parts.scheme == "https" or (parts.scheme == "http" and host in _THIS_MACHINE))


def _mode_of(asked: Mapping[str, Payload]) -> str:
    return text_at(asked["mode"]) or "unknown" if "mode" in asked else "form"


def _error(code: int, message: str) -> bytes:
    return encode({"code": code, "message": message})


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
    """The params of a server request. An elicitation gets the server's name in front of its message.

    Source: 2025-11-25 client/elicitation, "clients SHOULD make it clear which server is requesting information".
    """
    if method != "elicitation/create" or params is None:
        return params
    members = object_members(params)
    message = members.get("message")
    if message is None or first_byte(message) != b'"':
        return params
    prefix = encode(f"[{server}] ")[:-1]  # joined as JSON text: the message may be undecodable
    return Payload(encode({**members, "message": Payload(prefix + bytes(message)[1:])}))


def signed_requests(value: Payload, server: str) -> Payload:
    """An object with `inputRequests` (2026-07-28 basic/patterns/mrtr), each `signed` with the server's name."""
    members = object_members(value)
    requests = {key: _signed_request(each, server) for key, each in object_members(members["inputRequests"]).items()}
    return Payload(encode({**members, "inputRequests": requests})) if requests else value


def _signed_request(request: Payload, server: str) -> Payload:
    members = object_members(request)
    method = text_at(members.get("method"))
    params = None if method is None else signed(method, members.get("params"), server)
    return request if params is None else Payload(encode({**members, "params": params}))


class InputRequest(msgspec.Struct):
    """A request to the client that a 2026-07-28 server needs answered before it continues the call."""

    method: str
    params: Payload | msgspec.UnsetType = msgspec.UNSET


class InputRequired(msgspec.Struct):
    """An `input_required` result: the requests to answer, and the state to send back with the answers."""

    kind: str = msgspec.field(name="resultType", default="complete")
    requests: dict[str, InputRequest] = msgspec.field(name="inputRequests", default_factory=dict)
    state: Payload | msgspec.UnsetType = msgspec.field(name="requestState", default=msgspec.UNSET)


def may_ask(result: Payload, view: ResultView | None = None) -> bool:
    """Whether a result of a 2026-07-28 server may be `input_required`: a cheap test with false positives."""
    return bytes(result).find(_INPUT_REQUIRED) >= 0 if view is None else view.kind == _INPUT_REQUIRED


def input_required(result: Payload, view: ResultView | None = None) -> InputRequired | None:
    """The `input_required` result of a 2026-07-28 server; None for a complete or unreadable result."""
    if not may_ask(result, view):
        return None
    try:
        found = msgspec.json.decode(result, type=InputRequired)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return found if found.kind == "input_required" else None
