"""Pagination cursors: opaque, authenticated positions in a list. Owns the key that authenticates them.

A cursor holds the last entry served and its position. The next page starts after that entry, at its position now, so
that changes earlier in the list do no harm. A cursor whose entry is gone, or which was not issued for this list, is
refused, and the client starts again (2025-11-25 server/utilities/pagination).
"""

import base64
import binascii
import hashlib
import hmac
import secrets
from collections.abc import Sequence
from typing import Final

from mcp_manifold.errors import InvalidParams

_POSITION: Final = 4
_DIGEST: Final = 12
_MAC: Final = 16
"""Bytes of the three parts of a cursor."""


class Cursors:
    """Issues and reads pagination cursors. A cursor is valid only as long as this object exists."""

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)

    def __repr__(self) -> str:
        return "<Cursors>"

    def after(self, what: str, keys: Sequence[str], end: int) -> str:
        """The cursor of the page after the first `end` entries of `keys`. `what` names the list and its scope."""
        body = end.to_bytes(_POSITION, "big") + _digest(keys[end - 1])
        return base64.urlsafe_b64encode(body + self._mac(what, body)).decode()

    def index(self, what: str, keys: Sequence[str], cursor: str) -> int:
        """The index in `keys` at which the page of a cursor begins.

        Raises:
            InvalidParams: the cursor was not issued for this list, or its entry is gone.
        """
        try:
            raw = base64.b64decode(cursor.encode("ascii"), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError) as exc:
            raise _invalid() from exc
        body, mac = raw[: _POSITION + _DIGEST], raw[_POSITION + _DIGEST :]
        if not hmac.compare_digest(mac, self._mac(what, body)):
            raise _invalid()
        end, digest = int.from_bytes(body[:_POSITION], "big"), body[_POSITION:]
        if end <= len(keys) and _digest(keys[end - 1]) == digest:
            return end
        for position, key in enumerate(keys, start=1):
            if _digest(key) == digest:
                return position
        raise InvalidParams("Invalid cursor: the list has changed; list again from the start")

    def _mac(self, what: str, body: bytes) -> bytes:
        return hmac.digest(self._key, what.encode() + b"\0" + body, "sha256")[:_MAC]


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode(errors="surrogatepass")).digest()[:_DIGEST]


def _invalid() -> InvalidParams:
    return InvalidParams("Invalid cursor: not issued for this list")
