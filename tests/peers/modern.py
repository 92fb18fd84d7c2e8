"""What a 2026-07-28 server checks before it looks at a request: `_meta`, and over HTTP the mirrored headers. Pure."""

import base64
import binascii
import re
from collections.abc import Iterator
from typing import Any, Final

from tests.peers import jsontext
from tests.peers.message import META, MODERN_VERSION, NAMED, Message, Refusal

_SENTINEL: Final = re.compile(r"=\?base64\?(.*)\?=")
_SAFE: Final = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?|")

Headers = tuple[tuple[str, str], ...]


def encode_header(value: str) -> str:
    """A header value that survives, in the base64 sentinel where it has to be."""
    if _SAFE.fullmatch(value) and not _SENTINEL.fullmatch(value):
        return value
    return f"=?base64?{base64.b64encode(value.encode()).decode()}?="


def decode_header(value: str) -> str | None:
    """The value a header carries; None where its sentinel is broken."""
    found = _SENTINEL.fullmatch(value)
    if found is None:
        return value
    try:
        return base64.b64decode(found[1], validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return None


def check_meta(incoming: Message, headers: Headers | None = None) -> None:
    """Refuse a request whose `_meta` does not make it a request of this revision, or whose headers say otherwise.

    Raises:
        Refusal: -32602, a key is missing; -32020, a header differs; -32022, another revision.
    """
    meta = jsontext.member(incoming.params, "_meta")
    missing = [key for key in ("protocolVersion", "clientCapabilities") if jsontext.member(meta, META + key) is None]
    if missing:
        raise Refusal(-32602, "Invalid params: missing " + ", ".join(META + key for key in missing))
    if headers is not None:
        check_headers(incoming, headers)
    requested = incoming.meta_version
    if requested != MODERN_VERSION:
        raise unsupported(requested)


def unsupported(requested: str | None) -> Refusal:
    """The refusal of a revision, naming the one that is spoken."""
    return Refusal(-32022, "Unsupported protocol version", {"supported": [MODERN_VERSION], "requested": requested})


def check_headers(incoming: Message, headers: Headers) -> None:
    """Refuse a request whose headers do not say what its body says.

    Raises:
        Refusal: -32020.
    """
    _equal(headers, "MCP-Protocol-Version", incoming.meta_version)
    _equal(headers, "Mcp-Method", incoming.method)
    named = dict(NAMED).get(incoming.method or "")
    if named is not None:
        _equal(headers, "Mcp-Name", jsontext.value(jsontext.member(incoming.params, named)))


def check_arguments(incoming: Message, headers: Headers, definition: bytes) -> None:
    """Refuse a tool call whose `Mcp-Param-*` headers do not say what its arguments say.

    Raises:
        Refusal: -32020.
    """
    for name, shown in mirrored(definition, incoming.params):
        _equal(headers, name, shown)


def mirrored(definition: bytes, params: bytes | None) -> list[tuple[str, str | None]]:
    """The `Mcp-Param-*` headers a tool call has to carry (undecorated); None: it must not be there."""
    schema = jsontext.value(jsontext.member(definition, "inputSchema"))
    arguments = jsontext.value(jsontext.member(params, "arguments"))
    found = []
    for path, name in _annotated(schema, ()):
        value = arguments
        for key in path:
            value = value.get(key) if isinstance(value, dict) else None
        found.append(("Mcp-Param-" + name, _shown(value)))
    return found


def _annotated(schema: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str]]:
    properties = schema.get("properties") if isinstance(schema, dict) else None
    for key, each in (properties or {}).items():
        if isinstance(each, dict) and isinstance(each.get("x-mcp-header"), str):
            yield (*path, key), each["x-mcp-header"]
        yield from _annotated(each, (*path, key))


def _shown(value: object) -> str | None:
    if value is None:
        return None
    return jsontext.text(value).decode() if isinstance(value, bool) else str(value)


def _equal(headers: Headers, name: str, expected: object) -> None:
    given = [value for key, value in headers if key.lower() == name.lower()]
    shown = [decode_header(value) for value in given]
    if shown != ([] if expected is None else [expected]):
        what = f"Header mismatch: {name} is {given or 'absent'}, the body says {expected!r}"
        raise Refusal(-32020, what)
