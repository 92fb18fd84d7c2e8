"""What the outside may know of a server's state, as values. Makes them from a backend; knows no format."""

from collections.abc import Sequence
from dataclasses import dataclass

from mcp_manifold.backends.backend import Backend
from mcp_manifold.backends.lifecycle import State
from mcp_manifold.catalogue import Entry, Kind
from mcp_manifold.config import BrokenServer, ServerSettings
from mcp_manifold.hub import View


@dataclass(frozen=True, slots=True)
class ServerStatus:
    """One configured server. Counts are of visible entries; `next_try` and `since` are seconds from and before now."""

    name: str
    state: str
    transport: str = ""
    era: str = ""
    version: str = ""
    tools: int = 0
    prompts: int = 0
    resources: int = 0
    templates: int = 0
    hidden: int = 0
    last_error: str = ""
    next_try: float | None = None
    since: float = 0.0
    stderr: tuple[str, ...] = ()


def of_backend(backend: Backend, view: View, *, now: float) -> ServerStatus:
    """The status of a running backend, with its part of the merged view counted."""
    status, greeting = backend.status, backend.greeting
    counts = {kind: _count(view.catalogue.entries(kind), backend.name) for kind in Kind}
    whole = sum(_count(view.whole.entries(kind), backend.name) for kind in Kind)
    return ServerStatus(
        name=backend.name,
        state=status.state.value,
        transport=backend.kind or "",
        era=greeting.era if greeting else "",
        version=greeting.version if greeting else "",
        tools=counts[Kind.TOOL],
        prompts=counts[Kind.PROMPT],
        resources=counts[Kind.RESOURCE],
        templates=counts[Kind.TEMPLATE],
        hidden=whole - sum(counts.values()),
        last_error=status.last_error,
        next_try=None if status.next_try is None else max(0.0, status.next_try - now),
        since=max(0.0, now - status.since),
        stderr=backend.stderr,
    )


def of_disabled(server: ServerSettings) -> ServerStatus:
    """The status of a server that is switched off."""
    return ServerStatus(name=server.name, state="disabled")


def of_broken(server: BrokenServer) -> ServerStatus:
    """The status of a server whose configuration cannot be used."""
    return ServerStatus(name=server.name, state="broken", last_error=server.reason)


def _count(entries: Sequence[Entry], backend: str) -> int:
    return sum(1 for entry in entries if entry.backend == backend)


def overall(servers: Sequence[ServerStatus]) -> dict[str, object]:
    """All servers in one word: healthy when every enabled one is ready, unhealthy when none is."""
    enabled = [server for server in servers if server.state != "disabled"]
    ready = sum(1 for server in enabled if server.state == State.READY)
    word = "healthy" if ready == len(enabled) else "degraded" if ready else "unhealthy"
    return {"status": word, "servers": {"configured": len(enabled), "connected": ready, "healthy": ready}}


def described(server: ServerStatus) -> dict[str, object]:
    """One server as JSON. Its stderr stays here: it may say anything."""
    return {
        "name": server.name,
        "state": server.state,
        "since": round(server.since, 3),
        "era": server.era,
        "transport": server.transport,
        "tools": server.tools,
        "prompts": server.prompts,
        "resources": server.resources,
        "lastError": server.last_error,
        "nextAttempt": None if server.next_try is None else round(server.next_try, 3),
    }
