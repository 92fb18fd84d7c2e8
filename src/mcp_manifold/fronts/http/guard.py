"""Checks of single request headers: Host, Origin, media types and bearer tokens. Pure decisions.

A web page can make the user's browser send requests to a loopback server. It uses its own host name (DNS rebinding),
which the Host header shows, or its own origin, which the Origin header shows.
"""

import hashlib
import hmac
import re
from collections.abc import Callable, Iterable
from typing import Final, Generic, NamedTuple, TypeVar

from mcp_manifold.bounded_cache import BoundedCache
from mcp_manifold.fronts.checks import Headers
from mcp_manifold.fronts.http_errors import HttpError, Refused
from mcp_manifold.http1.origin import addresses, is_loopback
from mcp_manifold.model.policy import ANONYMOUS, Principal

_HOST: Final = re.compile(r"(\[[0-9a-fA-F:.]{2,45}\]|[A-Za-z0-9._-]{1,253})(?::([0-9]{1,5}))?")
_ORIGIN: Final = re.compile(r"(https?)://(\[[0-9a-fA-F:.]{2,45}\]|[A-Za-z0-9._-]{1,253})(?::([0-9]{1,5}))?")
_JSON: Final = frozenset({"application/json", "application/*", "*/*"})
_EVENTS: Final = frozenset({"text/event-stream", "text/*", "*/*"})
_NEVER: Final = re.compile(r"q=0(\.0*)?")
_MAX_REMEMBERED: Final = 256
"""Values that a check caches. Further values are checked each time."""
_MAX_VALUE: Final = 512
"""Bytes of a value beyond which it is not cached."""
_COUNTED: Final = re.compile(r"token-[0-9]+")
"""The names of tokens without one."""
_MAX_TOKEN_HEADER: Final = 8192
"""Bytes of an Authorization header beyond which it cannot hold a configured token."""


T = TypeVar("T")


class HeaderCheck(Generic[T]):
    """A check of one header's value. It caches its decisions on a limited number of values."""

    def __init__(self, check: Callable[[str], T]) -> None:
        self._check = check
        self._remembered: BoundedCache[bytes, T] = BoundedCache(_MAX_REMEMBERED)

    def __repr__(self) -> str:
        return f"<HeaderCheck of {len(self._remembered)} values>"

    def __call__(self, value: bytes) -> T:
        decision = self._remembered.get(value)
        if decision is None:
            decision = self._check(value.decode("latin-1"))
            if len(value) <= _MAX_VALUE:
                self._remembered.put(value, decision)
        return decision


class Gate:
    """The allowed values of the Host and Origin headers.

    Args:
        host: the addresses that are listened on, separated by commas.
        has_tokens: whether requests must present a token.
        allowed_hosts: further `Host` names; `name`, `name:port` or `*`.
        allowed_origins: further origins; `scheme://name[:port]`, where the port may be `*`; or `*`.
    """

    def __init__(
        self, host: str, *, has_tokens: bool, allowed_hosts: Iterable[str], allowed_origins: Iterable[str]
    ) -> None:
        allowed, own = [_host_name(name) for name in allowed_hosts], addresses(host)
        # Off loopback the names are the administrator's, and a foreign page has no token.
        self._any_host = "*" in allowed or (has_tokens and not allowed and not all(map(is_loopback, own)))
        self._hosts = {*allowed, *map(_host_name, own)} - {"0.0.0.0", "::", "[::]", ""}
        self._origins = {origin.lower().rstrip("/") for origin in allowed_origins} - {"null"}
        self.admits_host = HeaderCheck(self._check_host)
        self.admits_origin = HeaderCheck(self._check_origin)

    def __repr__(self) -> str:
        return f"<Gate hosts={'any' if self._any_host else sorted(self._hosts)} origins={sorted(self._origins)}>"

    def check(self, headers: Headers, *, is_any_host: bool) -> None:
        """Check a request's Host and Origin.

        Args:
            is_any_host: for pages that tell nothing: health checks of load balancers name any host, or none.

        Raises:
            Refused: 403.
        """
        host = headers.get(b"host")
        if not is_any_host and (host is None or not self.admits_host(host)):
            raise Refused(HttpError.UNKNOWN_HOST)
        origin = headers.get(b"origin")
        if origin is not None and not self.admits_origin(origin):
            raise Refused(HttpError.FOREIGN_ORIGIN)

    def _check_host(self, value: str) -> bool:
        found = _HOST.fullmatch(value)
        if found is None:
            return False
        name = _host_name(found[1])
        return self._any_host or is_loopback(name) or name in self._hosts or f"{name}:{found[2]}" in self._hosts

    def _check_origin(self, value: str) -> bool:
        value = value.lower()
        if value == "null":
            return False
        if not self._origins.isdisjoint(("*", value, f"{value}:*", f"{value.rpartition(':')[0]}:*")):
            return True
        found = _ORIGIN.fullmatch(value)
        return found is not None and is_loopback(_host_name(found[2]))


def _host_name(host: str) -> str:
    return host.lower().removesuffix(":*").removesuffix(".")


def is_json(content_type: str) -> bool:
    """Whether a Content-Type is JSON. Browsers may send other types to another origin without asking first."""
    return content_type.partition(";")[0].strip().lower() == "application/json"


class AcceptedForms(NamedTuple):
    """The forms of response that a client accepts: JSON, an event stream, or both."""

    json: bool
    events: bool


def accepted_forms(accept: str) -> AcceptedForms:
    """The forms of response that an Accept header allows, by name or wildcard; both if it names nothing."""
    ranges = [part.lower().replace(" ", "").split(";") for part in accept.split(",") if part.strip()]
    kinds = {kind.strip() for kind, *params in ranges if not any(map(_NEVER.fullmatch, params))}
    return AcceptedForms(not kinds.isdisjoint(_JSON) or not ranges, not kinds.isdisjoint(_EVENTS) or not ranges)


class Tokens:
    """The configured bearer tokens with their names, kept only as digests. Without tokens, clients are anonymous."""

    def __init__(self, tokens: Iterable[tuple[str, str]]) -> None:
        self._known = [(digest := _digest(token.encode()), _principal(name, digest)) for name, token in tokens]

    def __repr__(self) -> str:
        return f"<Tokens of {[principal.name for _, principal in self._known]}>"

    def principal(self, authorization: bytes | None) -> Principal:
        """The principal of an `Authorization` header.

        Raises:
            Refused: 401; the same whether it is absent, of another scheme or wrong.
        """
        if not self._known:
            return ANONYMOUS
        if authorization is not None and len(authorization) <= _MAX_TOKEN_HEADER:
            scheme, _, token = authorization.partition(b" ")
            if scheme.lower() == b"bearer":
                found = self._find(_digest(token.strip()))
                if found is not None:
                    return found
        raise Refused(HttpError.NO_TOKEN)

    def knows(self, principal: Principal) -> bool:
        """Whether the token that the principal used is still configured, under the same name."""
        known = [each for _, each in self._known] or [ANONYMOUS]
        return any((each, each.credential) == (principal, principal.credential) for each in known)

    def _find(self, digest: bytes) -> Principal | None:
        """Find a token by its digest. Compares all of them, so that timing reveals nothing about a match."""
        found = None
        for known, principal in self._known:
            if hmac.compare_digest(known, digest):
                found = principal
        return found


def _digest(token: bytes) -> bytes:
    return hashlib.sha256(token).digest()


def _principal(name: str, digest: bytes) -> Principal:
    """The principal of a token. Tokens of one name share it, except for default names, which only count tokens."""
    key = digest if _COUNTED.fullmatch(name) else _digest(name.encode())
    return Principal(name, key.hex()[:16], digest.hex()[:16])
