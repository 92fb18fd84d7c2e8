"""Routing of raw paths to endpoints. Only the raw path decides, so that no later layer can decode it differently.

`/mcp`, `/sse` and `/messages` are the merged set; `/<server>/...` one backend; `/groups/<group>/...` a subset.
"""

from dataclasses import dataclass
from typing import Final, Literal
from urllib.parse import quote, unquote_to_bytes

from mcp_manifold.bounded_cache import BoundedCache
from mcp_manifold.fronts.http.asgi import Scope

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
    """An endpoint: its kind, its scope, the path prefix of the scope, and the allowed methods."""

    kind: EndpointKind
    scope: str
    prefix: str
    methods: frozenset[str]


class EndpointRoutes:
    """The endpoints below one base path."""

    def __init__(self, base_path: str) -> None:
        self._base = base_path.rstrip("/").encode()
        self._known: BoundedCache[bytes, EndpointRoute] = BoundedCache(_KEPT)

    def __repr__(self) -> str:
        return f"<EndpointRoutes below {self._base.decode() or '/'}>"

    def find(self, path: bytes) -> EndpointRoute | None:
        """The endpoint at a raw path, or None. Does not check whether its scope exists."""
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


def split_mount(scope: Scope) -> tuple[str, bytes]:
    """Split the raw path into the mount path, as the client spelled it, and the path below it.

    `root_path` is decoded (ASGI 3.0), so it is compared with the decoded first segments of the raw path.
    """
    path: bytes = scope.get("raw_path") or quote(scope["path"]).encode()
    root = scope.get("root_path", "").rstrip("/")
    segments = path.split(b"/")
    size = root.count("/") + 1
    mount = b"/".join(segments[:size])
    if root and len(segments) > size and unquote_to_bytes(mount) == root.encode():
        return mount.decode("latin-1"), path[len(mount) :]
    return "", path
