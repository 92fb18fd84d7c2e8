"""Who is asking over HTTP: bearer tokens to principals. Keeps digests only; knows no session and no policy."""

import hashlib
import hmac
from collections.abc import Iterable
from typing import Final

from mcp_manifold.fronts.http.asgi import Refused
from mcp_manifold.model.policy import ANONYMOUS, Principal

_CHALLENGE: Final = ((b"www-authenticate", b"Bearer"),)
_MAX_HEADER: Final = 8192  # of a longer header no token of ours can come


class Tokens:
    """The tokens in force, given as (name, token). Without any, everybody is anonymous."""

    __slots__ = ("_known",)

    def __init__(self, tokens: Iterable[tuple[str, str]]) -> None:
        self._known = [(digest := _digest(token.encode()), _principal(name, digest)) for name, token in tokens]

    def __repr__(self) -> str:
        return f"<Tokens of {[principal.name for _, principal in self._known]}>"

    def principal(self, authorization: bytes | None) -> Principal:
        """The principal an `Authorization` header proves.

        Raises:
            Refused: 401; the same whether it is absent, of another scheme or wrong.
        """
        if not self._known:
            return ANONYMOUS
        if authorization is not None and len(authorization) <= _MAX_HEADER:
            scheme, _, token = authorization.partition(b" ")
            if scheme.lower() == b"bearer":
                found = self._find(_digest(token.strip()))
                if found is not None:
                    return found
        raise Refused(401, "Unauthorized: a bearer token is required", headers=_CHALLENGE)

    def knows(self, principal: Principal) -> bool:
        """Whether somebody can still prove to be that principal."""
        return principal in ([known for _, known in self._known] or [ANONYMOUS])

    def _find(self, digest: bytes) -> Principal | None:
        """Compares with every token, so that the time taken tells neither whether nor which one matched."""
        found = None
        for known, principal in self._known:
            if hmac.compare_digest(known, digest):
                found = principal
        return found


def _digest(token: bytes) -> bytes:
    return hashlib.sha256(token).digest()


def _principal(name: str, digest: bytes) -> Principal:
    return Principal(name, digest.hex()[:16])
