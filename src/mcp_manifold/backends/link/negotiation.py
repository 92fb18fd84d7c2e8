"""The negotiation of a link: what both sides declare when it opens. Values only; `sdk` carries it out.

Also defers the SDK's import, which takes longer than everything else at the start.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec, module_from_spec
from types import ModuleType
from typing import Any, Final, Literal, Protocol

import msgspec

from mcp_manifold.backends.link.link import Link
from mcp_manifold.clock import Clock
from mcp_manifold.errors import BackendError, BackendTimeout
from mcp_manifold.model.catalogue import Hint
from mcp_manifold.wire import EMPTY, MODERN_VERSION, Era, Payload
from mcp_manifold.wire.param_headers import ParameterHeaders
from mcp_manifold.wire.protocol import META_SERVER_INFO

TransportKind = Literal["stdio", "http", "sse"]
"""A transport to a backend."""

PROBE_WAIT: Final = 5.0
"""Seconds without a response to `server/discover` before a server counts as one that does not know the method."""

TOO_MANY: Final = 429
"""The HTTP status of a server that wants fewer requests, and not other ones."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What this program declares to a backend: its raw `clientInfo` and `capabilities`."""

    client_info: Payload
    capabilities: Payload


@dataclass(frozen=True, slots=True)
class Negotiation:
    """What a backend declared: era, revision, capabilities; raw where it is passed on."""

    era: Era
    version: str
    capabilities: Payload
    server_info: Payload
    instructions: str
    hint: Hint | None = None
    """Caching hint of a `server/discover`; None after `initialize`, which has none."""


def telling(failure: BackendError) -> int:
    """How much a failed attempt tells about the server: 3 about access, 1 about another kind of endpoint, else 2."""
    if failure.status in (401, 403):
        return 3
    return 1 if failure.status in (400, 404, 405, 406, 415, 501) or isinstance(failure, BackendTimeout) else 2


class Greet(Protocol):
    """Negotiates a new link.

    Raises:
        BackendError: no common revision, no response in time, or a response that is not MCP.
        RemoteError: the backend refused.
    """

    async def __call__(
        self, link: Link, *, eras: tuple[Era, ...], identity: Identity, timeout: float, clock: Clock
    ) -> Negotiation:
        """Try the eras in this order; `timeout` in seconds bounds each request."""


class Parameters(Protocol):
    """Reads the `x-mcp-header` annotations of a backend's tools (2026-07-28 server/tools)."""

    def __call__(
        self, backend: str, tools: Sequence[bytes], *, mirrored: bool
    ) -> tuple[tuple[bytes, ...], ParameterHeaders | None]:
        """The tools as offered to clients, and the function that computes their `Mcp-Param-*` headers.

        Args:
            mirrored: this hop mirrors arguments into headers. A tool with an invalid annotation is then left out,
                because it cannot be called. Otherwise it loses its annotations, so that HTTP clients can call it.
        """


class _Initialized(msgspec.Struct):
    version: str = msgspec.field(name="protocolVersion")
    capabilities: Payload = EMPTY
    server_info: Payload = msgspec.field(name="serverInfo", default=EMPTY)
    instructions: str | None = None


class _Discovered(msgspec.Struct):
    capabilities: Payload = EMPTY
    instructions: str | None = None
    meta: dict[str, Payload] = msgspec.field(name="_meta", default_factory=dict)
    ttl_ms: float = msgspec.field(name="ttlMs", default=0)
    scope: str = msgspec.field(name="cacheScope", default="private")


def initialized(result: Payload) -> Negotiation:
    """Read a raw `initialize` result.

    Raises:
        msgspec.DecodeError: it is invalid.
    """
    found = msgspec.json.decode(result, type=_Initialized)
    return Negotiation("handshake", found.version, found.capabilities, found.server_info, found.instructions or "")


def discovered(result: Payload, *, now: float) -> Negotiation:
    """Read a raw `server/discover` result, received at `now`.

    Raises:
        msgspec.DecodeError: it is invalid.
    """
    found = msgspec.json.decode(result, type=_Discovered)
    info = found.meta.get(META_SERVER_INFO, EMPTY)
    hint = Hint(max(0, int(found.ttl_ms)), found.scope == "public", now)
    return Negotiation("modern", MODERN_VERSION, found.capabilities, info, found.instructions or "", hint)


class _LazyPackage(ModuleType):
    """A package whose `__init__` runs when a name of it is first used. Its modules can be imported before."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        self.__class__ = ModuleType  # type: ignore[assignment]  # from here on an ordinary module
        if self.__spec__ is not None and self.__spec__.loader is not None:
            self.__spec__.loader.exec_module(self)
        return getattr(self, name)


def import_lazily(*packages: str) -> None:
    """Defer the `__init__` of these packages, given outer ones first. Already imported packages stay unchanged.

    `mcp.client.session` needs a third of the SDK, but `mcp/__init__.py` imports all of it, server and web framework
    included. Deferring it saves half of the import's time and memory.
    """
    for name in packages:
        if name in sys.modules:
            continue
        spec = find_spec(name)
        if spec is None:
            continue
        module = module_from_spec(spec)
        module.__class__ = _LazyPackage
        sys.modules[name] = module
        outer, _, inner = name.rpartition(".")
        if outer:
            setattr(sys.modules[outer], inner, module)
