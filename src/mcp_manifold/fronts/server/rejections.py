"""Why a request is not served, whatever it asks: its form, its size, its pace. Writes and closes nothing."""

import logging
from typing import Final

import httptools

from mcp_manifold.fronts.http.asgi import Line, Refused
from mcp_manifold.fronts.server.service import Limits

_logger = logging.getLogger(__name__)
_SERVED: Final = ("1.1", "1.0")


def unfit(version: str, target: bytes, fields: list[Line], received: int, limits: Limits) -> Refused | None:
    """What is wrong with a head that is complete. `received`: an upper bound of its size."""
    if version not in _SERVED:
        return Refused(505, "HTTP version not supported: only 1.1 and 1.0 are")
    if len(fields) > limits.head_lines:
        return _too_large(f"at most {limits.head_lines} lines")
    if received > limits.head_bytes and _size(target, fields) > limits.head_bytes:
        return too_large(limits)
    return None


def too_large(limits: Limits) -> Refused:
    """More than a head may have."""
    return _too_large(f"at most {limits.head_bytes} bytes")


def late() -> Refused:
    """It did not come in time."""
    return Refused(408, "Request timeout: the request did not arrive in time")


def misread(exc: httptools.HttpParserError) -> Refused:
    """What the parser could not read, or what of ours failed while it did."""
    if isinstance(exc, httptools.HttpParserCallbackError):
        _logger.error("request failed unexpectedly", exc_info=exc)
        return Refused(500, "Internal error")
    _logger.debug("request not understood", extra={"reason": str(exc)[:100]})
    return Refused(400, "Bad request: this is not HTTP/1.1")


def _size(target: bytes, fields: list[Line]) -> int:
    return len(target) + sum(len(name) + len(value) + 4 for name, value in fields)


def _too_large(bound: str) -> Refused:
    return Refused(431, f"Request header fields too large: {bound} are accepted")
