"""What two sides of a link learn of each other when it opens. Values only; `sdk` carries it out."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, Protocol

import msgspec

from mcp_manifold.backends.link.link import Link
from mcp_manifold.model.catalogue import Hint
from mcp_manifold.wire import EMPTY, MODERN_VERSION, Era, Payload
from mcp_manifold.wire.param_headers import ParameterHeaders
from mcp_manifold.wire.protocol import META_SERVER_INFO

EraChoice = Literal["auto", "handshake", "modern"]

PROBE_WAIT: Final = 5.0
"""Seconds a server may be silent on `server/discover` before it counts as one that does not know the method."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who we say we are towards a backend: raw `clientInfo` and `capabilities`."""

    client_info: Payload
    capabilities: Payload


@dataclass(frozen=True, slots=True)
class Negotiation:
    """What the backend said of itself, raw where it is passed on."""

    era: Era
    version: str
    capabilities: Payload
    server_info: Payload
    instructions: str
    hint: Hint | None = None
    """How long a `server/discover` may be kept; `initialize` does not say."""


class Greet(Protocol):
    """Negotiates a fresh link.

    Raises:
        BackendError: no common revision, no answer in time, or an answer that is not MCP.
        RemoteError: the backend refused.
    """

    async def __call__(self, link: Link, *, eras: tuple[Era, ...], identity: Identity, timeout: float) -> Negotiation:
        """Try the eras in this order; `timeout` in seconds bounds each request."""


class Parameters(Protocol):
    """Reads the `x-mcp-header` annotations of a backend's tools (2026-07-28 server/tools)."""

    def __call__(
        self, backend: str, tools: Sequence[bytes], *, mirrored: bool
    ) -> tuple[tuple[bytes, ...], ParameterHeaders | None]:
        """The tools as they may be offered over HTTP, and what computes the headers they ask for, if any does.

        Where this hop mirrors arguments into headers, a tool with an annotation that is not valid is left out, because
        it cannot be called; elsewhere it only loses its annotations, or clients over HTTP would leave it out.
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
    """The greeting in a raw `initialize` result. Raises msgspec.DecodeError for what is none."""
    found = msgspec.json.decode(result, type=_Initialized)
    return Negotiation("handshake", found.version, found.capabilities, found.server_info, found.instructions or "")


def discovered(result: Payload) -> Negotiation:
    """The greeting in a raw `server/discover` result. Raises msgspec.DecodeError for what is none."""
    found = msgspec.json.decode(result, type=_Discovered)
    info = found.meta.get(META_SERVER_INFO, EMPTY)
    hint = Hint(max(0, int(found.ttl_ms)), found.scope == "public", asyncio.get_running_loop().time())
    return Negotiation("modern", MODERN_VERSION, found.capabilities, info, found.instructions or "", hint)
