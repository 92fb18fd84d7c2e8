"""The headers a 2026-07-28 request mirrors from its body: `Mcp-Method`, `Mcp-Name`, `Mcp-Param-*`. Pure.

Made anew for every hop from what this hop sends (the names differ in front of us), never copied from the client.
Source: 2026-07-28 basic/transports/streamable-http, "Standard headers" and "Custom headers".
"""

import base64
import binascii
import re
from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from mcp_manifold.wire.envelope import Payload
from mcp_manifold.wire.protocol import NAMED

ParameterHeaders = Callable[[str, Payload], Mapping[str, str]]
"""Native tool name and raw arguments to the `Mcp-Param-*` headers its schema asks for."""

_SAFE: Final = re.compile(r"[\x21-\x7E](?:[\x20-\x7E]*[\x21-\x7E])?")
_SENTINEL: Final = re.compile(r"=\?base64\?(.*)\?=")
_decode_text = msgspec.json.Decoder(str).decode


def encode_header(value: str) -> str:
    """A header value for any string: itself where it survives an HTTP field, else in the base64 sentinel form."""
    if (not value or _SAFE.fullmatch(value)) and not _SENTINEL.fullmatch(value):
        return value
    return f"=?base64?{base64.b64encode(value.encode()).decode()}?="


def decode_header(value: str) -> str | None:
    """The string a header value stands for; None for a malformed sentinel, which therefore matches nothing."""
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
    """The header lines that mirror this request, each ended by CRLF."""
    lines = f"mcp-method: {encode_header(method)}\r\n"
    key = NAMED.get(method)
    if key is not None and key in params:
        name = _decode_text(params[key])
        lines += f"mcp-name: {encode_header(name)}\r\n"
        if method == "tools/call" and parameters is not None and "arguments" in params:
            for header, value in parameters(name, params["arguments"]).items():
                lines += f"{header}: {value}\r\n"
    return lines.encode("ascii")
