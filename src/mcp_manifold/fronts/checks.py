"""Checks of a message: its era, its `_meta`, and the agreement of its headers and its body. Pure functions.

A 2026-07-28 request has its revision in `params._meta`. It mirrors the revision, the method and the name into headers,
on which intermediaries route. A request whose headers and body differ is refused, because an intermediary and this
server would act on different requests.
"""

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol

from mcp_manifold.errors import InvalidParams, RequestError
from mcp_manifold.http1.head import Line
from mcp_manifold.wire import EMPTY, HANDSHAKE_VERSIONS, MODERN_VERSION, Payload, first_byte, object_members, text
from mcp_manifold.wire.param_headers import decode_header
from mcp_manifold.wire.protocol import (
    HEADER_MISMATCH,
    LOG_LEVELS,
    META_CAPABILITIES,
    META_CLIENT_INFO,
    META_LOG_LEVEL,
    META_VERSION,
    NAME_PARAMS,
    TASK_METHODS,
    UNSUPPORTED_VERSION,
)

Headers = dict[bytes, bytes]
"""Header lines by lower-case name; of a repeated name the last line."""
VERSION_HEADER: Final = b"mcp-protocol-version"
METHOD_HEADER: Final = b"mcp-method"
NAME_HEADER: Final = b"mcp-name"
_PARAM_PREFIX: Final = b"mcp-param-"
_ROUTING: Final = frozenset({VERSION_HEADER, METHOD_HEADER, NAME_HEADER})
_SINGLE: Final = frozenset(
    {b"host", b"origin", b"authorization", b"content-type", b"content-length", b"content-encoding", b"mcp-session-id"}
)
_MODERN: Final = b'"%b"' % MODERN_VERSION.encode()
MODERN_HEADER: Final = MODERN_VERSION.encode()
_HANDSHAKE_HEADERS: Final = frozenset(version.encode() for version in HANDSHAKE_VERSIONS)
_HEADERS: Final = _HANDSHAKE_HEADERS | {MODERN_HEADER}


class ParamRejection(Protocol):
    """The reason why the headers do not mirror a tool's arguments."""

    @property
    def message(self) -> str:
        """The reason as a message for the client."""


ParamCheck = Callable[[object, Mapping[str, object], Mapping[str, str]], ParamRejection | None]
"""Compares a tool's arguments with their mirror headers: `check(schema, arguments, headers)`; None if they agree."""


def speaks_modern(method: str, params: dict[str, Payload], version_header: bytes | None) -> bool:
    """Whether a request is of the 2026-07-28 era, judged by its method, its `_meta` or its version header.

    `initialize` negotiates the revision, whatever its header says.
    """
    meta = params.get("_meta")
    if meta is not None and META_VERSION in object_members(meta):
        return True
    if method == "initialize":
        return False
    if version_header == MODERN_HEADER or method == "server/discover":
        return True
    return version_header is not None and version_header not in _HANDSHAKE_HEADERS


def serves_handshake(version_header: bytes | None) -> bool:
    """Whether the version header names a supported handshake revision, or is absent."""
    return version_header is None or version_header in _HANDSHAKE_HEADERS


def require_modern(method: str, params: dict[str, Payload], headers: Headers | None) -> tuple[Payload, Payload]:
    """Check a 2026-07-28 request's envelope; returns the client's info and capabilities.

    Args:
        headers: None on stdio, which has no headers.

    Raises:
        RequestError: -32602 for missing members, -32020 where headers and body differ, -32022 for another revision.
    """
    meta = object_members(params.get("_meta"))
    version, capabilities = meta.get(META_VERSION), meta.get(META_CAPABILITIES)
    if version is None or capabilities is None:
        missing = ", ".join(key for key in (META_VERSION, META_CAPABILITIES) if key not in meta)
        raise InvalidParams(f"Invalid params: _meta lacks {missing}")
    requested = MODERN_VERSION if bytes(version) == _MODERN else text(version, META_VERSION)
    if headers is not None:
        _require_equal(VERSION_HEADER, headers, requested)
        _require_equal(METHOD_HEADER, headers, method)
        _require_named(method, params, headers)
    if requested != MODERN_VERSION:
        raise unsupported(requested)
    info = meta.get(META_CLIENT_INFO, EMPTY)
    if first_byte(capabilities) != b"{" or first_byte(info) != b"{":
        raise InvalidParams(f"Invalid params: {META_CAPABILITIES} and {META_CLIENT_INFO} must be objects")
    return info, capabilities


def log_level(params: dict[str, Payload]) -> str:
    """The log level that a 2026-07-28 request asks for; empty for none.

    Raises:
        InvalidParams: the protocol has no such level.
    """
    meta = params.get("_meta")
    if meta is None or META_LOG_LEVEL.encode() not in bytes(meta):
        return ""
    wanted = object_members(meta).get(META_LOG_LEVEL)
    if wanted is None:
        return ""
    level = text(wanted, META_LOG_LEVEL)
    if level not in LOG_LEVELS:
        raise InvalidParams(f'Invalid params: "{META_LOG_LEVEL}" must be one of {", ".join(LOG_LEVELS)}')
    return level


def unsupported(requested: str, supported: Sequence[str] = (MODERN_VERSION,)) -> RequestError:
    """The error for an unsupported revision; it names the supported ones."""
    data: dict[str, object] = {"supported": list(supported), "requested": requested}
    message = f"Unsupported protocol version: supported are {', '.join(supported)}"
    return RequestError(message, code=UNSUPPORTED_VERSION, data=data)


def require_known(params: dict[str, Payload], headers: Headers) -> None:
    """Refuse a request that names an unsupported revision in its header and none in its body.

    Raises:
        RequestError: -32022.
    """
    header = headers.get(VERSION_HEADER)
    if header is not None and header not in _HEADERS and META_VERSION not in object_members(params.get("_meta")):
        raise unsupported(header.decode("latin-1"), (MODERN_VERSION, *HANDSHAKE_VERSIONS))


def require_single_routing(headers: Headers, lines: Sequence[Line]) -> None:
    """Refuse repeated routing headers: an intermediary may have routed on another one than this server.

    Raises:
        RequestError: -32020.
    """
    if len(lines) != len(headers):
        twice = repeated(lines, _ROUTING.__contains__)
        if twice is not None:
            raise _mismatch(f"{twice} header appears more than once")


def check_mirrors(method: str, params: dict[str, Payload], headers: Headers, lines: Sequence[Line]) -> None:
    """Compare a handshake request with its routing headers, which are optional.

    Raises:
        RequestError: -32020.
    """
    require_single_routing(headers, lines)
    if METHOD_HEADER in headers:
        _require_equal(METHOD_HEADER, headers, method)
    if NAME_HEADER in headers:
        _require_named(method, params, headers)


def check_params(
    check: ParamCheck, schema: bytes, params: dict[str, Payload], headers: Headers, lines: Sequence[Line]
) -> None:
    """Compare a tool call's arguments with the headers that mirror them.

    Raises:
        RequestError: -32020.
    """
    twice = repeated(lines, lambda name: name.startswith(_PARAM_PREFIX))
    if twice is not None:
        raise _mismatch(f"{twice} header appears more than once")
    mirrored = {
        name.decode("latin-1"): value.strip(b" \t").decode("latin-1")
        for name, value in headers.items()
        if name.startswith(_PARAM_PREFIX)
    }
    try:
        arguments = json.loads(bytes(params.get("arguments", EMPTY)))
    except (ValueError, RecursionError) as exc:  # strict JSON that Python cannot hold, such as overlong integers
        raise InvalidParams('Invalid params: "arguments" cannot be compared with the headers') from exc
    found = check(json.loads(schema), arguments if isinstance(arguments, dict) else {}, mirrored)
    if found is not None:
        raise _mismatch(found.message)


def repeated(lines: Sequence[Line], concerns: Callable[[bytes], bool]) -> str | None:
    """The name of the first repeated header for which `concerns` is true; None if there is none."""
    for name, count in Counter(name for name, _ in lines).items():
        if count > 1 and concerns(name):
            return name.decode("latin-1")
    return None


def is_single(name: bytes) -> bool:
    """Whether a header decides on access or framing, so that it must not be repeated."""
    return name in _SINGLE


def _require_equal(header: bytes, headers: Headers, expected: str) -> None:
    value = _value(headers, header)
    if value is None or value != expected:
        raise _mismatch(f"{header.decode()} header does not match the request body")


def _require_named(method: str, params: dict[str, Payload], headers: Headers) -> None:
    key = NAME_PARAMS.get(method)
    if key is None:
        if method not in TASK_METHODS or NAME_HEADER not in headers:
            return
        key = "taskId"
    body = params.get(key)
    if body is None:
        return
    value = _value(headers, NAME_HEADER)
    if value is None or decode_header(value) != text(body, key):
        raise _mismatch(f'mcp-name header does not match the request body\'s "{key}"')


def _value(headers: Headers, name: bytes) -> str | None:
    """A header's value without surrounding white space (RFC 9110, 5.5); None if absent."""
    value = headers.get(name)
    return None if value is None else value.strip(b" \t").decode("latin-1")


def _mismatch(reason: str) -> RequestError:
    return RequestError(f"Header mismatch: {reason}", code=HEADER_MISMATCH)
