"""Which Host, Origin, Content-Type and Accept headers are let in. Pure verdicts; knows no token and no body.

A page the user visits can make their browser send requests to a loopback server, under a name of its own (DNS
rebinding) or from its own origin. The Host header gives away the first, the Origin header the second.
"""

import ipaddress
import re
from collections.abc import Callable, Iterable
from typing import Final

from mcp_manifold.fronts.http.asgi import Headers, Refused

_HOST: Final = re.compile(r"(\[[0-9a-fA-F:.]{2,45}\]|[A-Za-z0-9._-]{1,253})(?::([0-9]{1,5}))?")
_ORIGIN: Final = re.compile(r"(https?)://(\[[0-9a-fA-F:.]{2,45}\]|[A-Za-z0-9._-]{1,253})(?::([0-9]{1,5}))?")
_JSON: Final = frozenset({"application/json", "application/*", "*/*"})
_EVENTS: Final = frozenset({"text/event-stream", "text/*", "*/*"})
_KEPT: Final = 256  # verdicts remembered; a client that invents more only makes us judge again
_KEPT_LENGTH: Final = 512


class Verdicts:
    """Remembers what a judge said about a header value, for a bounded number of values."""

    __slots__ = ("_judge", "_known")

    def __init__(self, judge: Callable[[str], bool]) -> None:
        self._judge = judge
        self._known: dict[bytes, bool] = {}

    def __repr__(self) -> str:
        return f"<Verdicts on {len(self._known)} values>"

    def __call__(self, value: bytes) -> bool:
        verdict = self._known.get(value)
        if verdict is None:
            verdict = self._judge(value.decode("latin-1"))
            if len(value) <= _KEPT_LENGTH:
                if len(self._known) >= _KEPT:
                    self._known.clear()
                self._known[value] = verdict
        return verdict


class Gate:
    """The Host and Origin headers that are let in.

    Args:
        host: the address that is listened on.
        has_tokens: whether requests must prove who they are.
        allowed_hosts: further `Host` names; `name`, `name:port` or `*`.
        allowed_origins: further origins; `scheme://name[:port]`, the port may be `*`; or `*`.
    """

    __slots__ = ("_any_host", "_hosts", "_origins", "admits_host", "admits_origin")

    def __init__(
        self, host: str, *, has_tokens: bool, allowed_hosts: Iterable[str], allowed_origins: Iterable[str]
    ) -> None:
        allowed = [_host_name(name) for name in allowed_hosts]
        # off loopback the names are the administrator's, and a page of somebody else has no token
        self._any_host = "*" in allowed or (has_tokens and not allowed and not is_loopback(host))
        self._hosts = {*allowed, _host_name(host)} - {"0.0.0.0", "::", "[::]", ""}
        self._origins = {origin.lower().rstrip("/") for origin in allowed_origins} - {"null"}
        self.admits_host = Verdicts(self._judge_host)
        self.admits_origin = Verdicts(self._judge_origin)

    def __repr__(self) -> str:
        return f"<Gate hosts={'any' if self._any_host else sorted(self._hosts)} origins={sorted(self._origins)}>"

    def check(self, headers: Headers) -> None:
        """Let the request in.

        Raises:
            Refused: 403.
        """
        host = headers.get(b"host")
        if host is None or not self.admits_host(host):
            raise Refused(403, "Forbidden: the Host header names no host served here (see allowed_hosts)")
        origin = headers.get(b"origin")
        if origin is not None and not self.admits_origin(origin):
            raise Refused(403, "Forbidden: requests from this Origin are not allowed (see allowed_origins)")

    def _judge_host(self, value: str) -> bool:
        found = _HOST.fullmatch(value)
        if found is None:
            return False
        name = _host_name(found[1])
        return self._any_host or is_loopback(name) or name in self._hosts or f"{name}:{found[2]}" in self._hosts

    def _judge_origin(self, value: str) -> bool:
        value = value.lower()
        if value == "null":
            return False
        if not self._origins.isdisjoint(("*", value, f"{value}:*", f"{value.rpartition(':')[0]}:*")):
            return True
        found = _ORIGIN.fullmatch(value)
        return found is not None and is_loopback(_host_name(found[2]))


def _host_name(host: str) -> str:
    return host.lower().removesuffix(":*").removesuffix(".")


def is_loopback(host: str) -> bool:
    """Whether a host name or address can only be this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.removeprefix("[").removesuffix("]")).is_loopback
    except ValueError:
        return False


def is_json(content_type: str) -> bool:
    """Whether a Content-Type says JSON. A browser sends anything else cross-origin without asking first."""
    return content_type.partition(";")[0].strip().lower() == "application/json"


def accepts_both(accept: str) -> bool:
    """Whether an Accept header takes both a JSON answer and an event stream, by name or by wildcard."""
    kinds = _kinds(accept)
    return not kinds.isdisjoint(_JSON) and not kinds.isdisjoint(_EVENTS)


def accepts_events(accept: str) -> bool:
    """Whether an Accept header takes an event stream."""
    return not _kinds(accept).isdisjoint(_EVENTS)


def _kinds(accept: str) -> set[str]:
    return {part.partition(";")[0].strip().lower() for part in accept.split(",")}
