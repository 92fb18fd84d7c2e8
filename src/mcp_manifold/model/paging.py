"""Cursors: where in a list a page begins, as clients are told. Owns the key they are made with; knows no list.

A cursor names the last entry that was served and the place it had. It goes on after that entry wherever it stands
now, so that a change of the list before it costs nothing; when the entry is gone, or the cursor is not one of ours for
this list, it is refused, and the client begins anew.
"""

import base64
import binascii
import hashlib
import hmac
import secrets
from collections.abc import Sequence
from typing import Final

from mcp_manifold.errors import InvalidParams

_PLACE: Final = 4
_MARK: Final = 12
_MAC: Final = 16


class Cursors:
    """Makes and reads cursors. They are good for as long as this object lives."""

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)

    def __repr__(self) -> str:
        return "<Cursors>"

    def after(self, what: str, keys: Sequence[str], end: int) -> str:
        """The cursor of the page that follows the first `end` of `keys`. `what`: the list, and whose."""
        body = end.to_bytes(_PLACE, "big") + _mark(keys[end - 1])
        return base64.urlsafe_b64encode(body + self._sealed(what, body)).decode()

    def place(self, what: str, keys: Sequence[str], cursor: str) -> int:
        """Where in `keys` the page of this cursor begins.

        Raises:
            InvalidParams: it is no cursor of this list, or the list has changed too much to go on.
        """
        try:
            raw = base64.b64decode(cursor.encode("ascii"), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError) as exc:
            raise _invalid() from exc
        body, seal = raw[: _PLACE + _MARK], raw[_PLACE + _MARK :]
        if not hmac.compare_digest(seal, self._sealed(what, body)):
            raise _invalid()
        end, mark = int.from_bytes(body[:_PLACE], "big"), body[_PLACE:]
        if end <= len(keys) and _mark(keys[end - 1]) == mark:
            return end
        for place, key in enumerate(keys, start=1):
            if _mark(key) == mark:
                return place
        raise InvalidParams("Invalid cursor: the list has changed, begin it anew")

    def _sealed(self, what: str, body: bytes) -> bytes:
        return hmac.digest(self._key, what.encode() + b"\0" + body, "sha256")[:_MAC]


def _mark(key: str) -> bytes:
    return hashlib.sha256(key.encode(errors="surrogatepass")).digest()[:_MARK]


def _invalid() -> InvalidParams:
    return InvalidParams("Invalid cursor: it is not one of this list's")
