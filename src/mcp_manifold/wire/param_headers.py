"""HTTP headers that mirror a 2026-07-28 request body: `Mcp-Method`, `Mcp-Name`, `Mcp-Param-*`. Pure.

They are built from the body that this hop sends, never copied from the client, because public and native names differ.
Source: 2026-07-28 basic/transports/streamable-http, "Standard headers" and "Custom headers".
"""

import base64
import binascii
import re
from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from mcp_manifold.wire.payload import Payload, encode, first_byte, loose_members
from mcp_manifold.wire.protocol import NAME_PARAMS, TASK_METHODS

ParameterHeaders = Callable[[str, Payload], Mapping[str, str]]
"""Maps a native tool name and its raw arguments to the `Mcp-Param-*` headers that the tool's schema requires."""

_SAFE: Final = re.compile(r"[\x21-\x7E](?:[\x20-\x7E]*[\x21-\x7E])?")
_SENTINEL: Final = re.compile(r"=\?base64\?(.*)\?=")
ANNOTATION: Final = "x-mcp-header"
_NAMED_SCHEMAS: Final = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"})
_VALUES: Final = frozenset({"default", "const", "enum", "examples"})
_decode_text = msgspec.json.Decoder(str).decode
_decode_list = msgspec.json.Decoder(list[Payload]).decode


def encode_header(value: str) -> str:
    """The header value for a string: the string itself if it is a safe HTTP field value, else its base64 form."""
    if (not value or _SAFE.fullmatch(value)) and not _SENTINEL.fullmatch(value):
        return value
    return f"=?base64?{base64.b64encode(value.encode()).decode()}?="


def decode_header(value: str) -> str | None:
    """The string that a header value encodes; None for malformed base64, which must match no name."""
    found = _SENTINEL.fullmatch(value)
    if found is None:
        return value
    try:
        raw = base64.b64decode(found.group(1), validate=True)
        if base64.b64encode(raw).decode() != found.group(1):
            return None
        return raw.decode()
    except (binascii.Error, UnicodeDecodeError, ValueError):
        return None


def mirrored_headers(method: str, params: Mapping[str, Payload], parameters: ParameterHeaders | None) -> bytes:
    """The header lines that mirror a request, each ended by CRLF."""
    lines = f"mcp-method: {method if method in NAME_PARAMS else encode_header(method)}\r\n"
    key = "taskId" if method in TASK_METHODS else NAME_PARAMS.get(method)
    if key is not None and key in params:
        name = _decode_text(params[key])
        lines += f"mcp-name: {encode_header(name)}\r\n"
        if method == "tools/call" and parameters is not None and "arguments" in params:
            for header, value in parameters(name, params["arguments"]).items():
                lines += f"{header}: {value}\r\n"
    return lines.encode("ascii")


def without_annotations(tool: bytes) -> bytes:
    """The tool without `x-mcp-header` annotations in its input schema; everything else unchanged."""
    members = loose_members(Payload(tool))
    members["inputSchema"] = _unannotated(members["inputSchema"], is_schema=True)
    return encode(members)


def _unannotated(value: Payload, *, is_schema: bool) -> Payload:
    """`is_schema`: the members of `value` are schema keywords, not names of properties or definitions."""
    if ANNOTATION.encode() not in bytes(value):
        return value
    if first_byte(value) == b"[":
        return Payload(encode([_unannotated(each, is_schema=True) for each in _decode_list(value)]))
    if first_byte(value) != b"{":
        return value
    members = {key: each for key, each in loose_members(value).items() if not is_schema or key != ANNOTATION}
    return Payload(
        encode(
            {
                key: each if is_schema and key in _VALUES else _unannotated(each, is_schema=_is_schema(key, is_schema))
                for key, each in members.items()
            }
        )
    )


def _is_schema(key: str, within_schema: bool) -> bool:
    return not within_schema or key not in _NAMED_SCHEMAS
