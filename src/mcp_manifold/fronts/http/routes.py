"""Paths to endpoints. Decides on the raw path alone, so that nobody after it can read the path differently.

`/mcp`, `/sse` and `/messages` are the merged set; `/<server>/...` one backend; `/groups/<group>/...` a subset.
"""

from dataclasses import dataclass
from typing import Final, Literal
from urllib.parse import unquote_to_bytes

from mcp_manifold.bounded_cache import BoundedCache

EndpointKind = Literal["mcp", "sse", "messages"]

_KINDS: Final[dict[bytes, EndpointKind]] = {b"mcp": "mcp", b"sse": "sse", b"messages": "messages"}
_METHODS: Final[dict[EndpointKind, frozenset[str]]] = {
    "mcp": frozenset({"POST", "GET", "DELETE", "OPTIONS"}),
    "sse": frozenset({"GET", "OPTIONS"}),
    "messages": frozenset({"POST", "OPTIONS"}),
}
_KEPT: Final = 256


@dataclass(frozen=True, slots=True)
class EndpointRoute:
    """An endpoint: what it is, which scope it serves, the path it shares with its siblings, its methods."""

    kind: EndpointKind
    scope: str
    prefix: str
    methods: frozenset[str]


class EndpointRoutes:
    """The endpoints below one base path."""

    __slots__ = ("_base", "_known")

    def __init__(self, base_path: str) -> None:
        self._base = base_path.rstrip("/").encode()
        self._known: BoundedCache[bytes, EndpointRoute] = BoundedCache(_KEPT)

    def __repr__(self) -> str:
        return f"<EndpointRoutes below {self._base.decode() or '/'}>"

    def find(self, path: bytes) -> EndpointRoute | None:
        """The endpoint at a raw path; None where there is none. Whether its scope exists is not known here."""
        route = self._known.get(path)
        if route is None:
            route = self._resolve(path)
            if route is not None:
                self._known.put(path, route)
        return route

    def _resolve(self, path: bytes) -> EndpointRoute | None:
        if not path.startswith(self._base + b"/"):
            return None
        below = path[len(self._base) + 1 :]
        if below.endswith(b"mcp/"):  # the one spelling with a final slash that clients are configured with
            below = below[:-1]
        *segments, last = below.split(b"/")
        kind = _KINDS.get(last)
        scope = _scope(segments)
        if kind is None or scope is None:
            return None
        prefix = b"/".join([self._base, *segments])
        return EndpointRoute(kind, scope, prefix.decode("ascii", "replace"), _METHODS[kind])


def _scope(segments: list[bytes]) -> str | None:
    match segments:
        case []:
            return ""
        case [server]:
            return _named("server:", server)
        case [b"groups", group]:
            return _named("group:", group)
        case _:
            return None


def _named(kind: str, segment: bytes) -> str | None:
    try:
        name = unquote_to_bytes(segment).decode()
    except UnicodeDecodeError:
        return None
    if not name or name in (".", "..") or "/" in name or "\0" in name:
        return None
    return kind + name
