"""The status of every configured server as values, and the bodies of the health pages."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Final

from mcp_manifold.backends.backend import Backend
from mcp_manifold.backends.calls.breaker import Position
from mcp_manifold.config import BrokenServer, ServerSettings, Settings
from mcp_manifold.core.hub import View
from mcp_manifold.model.catalogue import Catalogue, Kind
from mcp_manifold.model.lifecycle import State

DISABLED: Final = State.DISABLED.value
BROKEN: Final = "broken"
STATES: Final = (*(state.value for state in State), BROKEN)
"""Every state a configured server can be in."""
_WORDS: Final = MappingProxyType({State.READY.value: "healthy", State.DEGRADED.value: "degraded", DISABLED: DISABLED})
"""The health word of a state; `unhealthy` for all others."""
_OPEN: Final = frozenset({State.READY.value, State.DEGRADED.value})
_HEALTHY: Final = "healthy"
_SHUT: Final = frozenset({Position.OPEN.value, Position.HALF_OPEN.value})


@dataclass(frozen=True, slots=True)
class ServerStatus:
    """The status of one configured server. Counts are of visible entries."""

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
    """Entries that filters hide."""
    last_error: str = ""
    next_try: float | None = None
    """Seconds until the next attempt to connect; None when none is scheduled."""
    since: float = 0.0
    """Seconds since it entered its state."""
    stderr: tuple[str, ...] = ()
    moved: str = ""
    """When it entered its state (RFC 3339); empty for disabled and broken servers."""
    latency: float | None = None
    """Duration in seconds of the last answered request."""
    listed: float | None = None
    """Seconds since its lists were last fetched."""
    lives: int = 0
    """How often it was connected."""
    links: int = 0
    """Links opened so far."""
    held: int = 0
    """Links held for single clients."""
    due: int = 0
    """Requests in flight."""
    waiting: int = 0
    """Calls queued by the concurrency limit."""
    overloaded: int = 0
    """Calls refused by the concurrency limit."""
    retries: int = 0
    """Calls that were retried."""
    dropped: int = 0
    """Notifications dropped by the rate limit."""
    last_exit: str = ""
    """How its process last ended unexpectedly, as a sentence."""
    is_resting: bool = False
    """Idle: not connected because nothing needs it; the next call connects."""
    breaker: str = ""
    """Position of the circuit breaker: `closed`, `open`, `half-open`; empty for disabled and broken servers."""
    openings: int = 0
    """How often the circuit breaker opened."""
    failed_lists: str = ""
    """Which of its lists failed, and why."""
    invalid: tuple[str, ...] = ()
    """Items of its lists that were repaired or left out, one sentence each."""

    @property
    def word(self) -> str:
        """The health of the server: `healthy`, `degraded`, `unhealthy` or `disabled`."""
        if self.is_resting:
            return _HEALTHY
        word = _WORDS.get(self.state, "unhealthy")
        return "degraded" if word == _HEALTHY and (self.breaker in _SHUT or self.failed_lists) else word

    @property
    def can_be_called(self) -> bool:
        """Whether the server is connected, or idle and expected to connect on a call."""
        return self.state in _OPEN or self.is_resting


Counted = Mapping[tuple[Kind, str], int]
"""Entries by kind and backend."""


def survey(config: Settings, backends: Mapping[str, Backend], view: View, *, now: float) -> list[ServerStatus]:
    """The status of every server in configuration order, disabled and broken ones included.

    Args:
        now: the time of the backends' clock, in seconds.
    """
    visible, whole = _count(view.catalogue), _count(view.whole)
    found = [
        of_disabled(server) if server.disabled else of_backend(backends[server.name], visible, whole, now=now)
        for server in config.servers
    ]
    found += [of_broken(server) for server in config.broken]
    places = {name: place for place, name in enumerate(config.order)}
    return sorted(found, key=lambda status: places.get(status.name, len(places)))


def of_backend(backend: Backend, visible: Counted, whole: Counted, *, now: float) -> ServerStatus:
    """The ServerStatus of an enabled server."""
    status, negotiation, stats, links = backend.status, backend.negotiation, backend.stats, backend.links()
    counts = {kind: visible.get((kind, backend.name), 0) for kind in Kind}
    executor = backend.executor
    breaker, is_shut = executor.breaker, executor.breaker.is_shut
    failed = {} if backend.listing is None or not status.is_open else backend.listing.failed
    failed_lists = "; ".join(f"{method} failed: {reason}" for method, reason in failed.items())
    scheduled = None if status.next_try is None else max(0.0, status.next_try - now)
    answered = [(link.heard, link.latency) for link in links if link.latency is not None]
    return ServerStatus(
        name=backend.name,
        state=status.state.value,
        transport=backend.kind or "",
        era=negotiation.era if negotiation else "",
        version=negotiation.version if negotiation else "",
        tools=counts[Kind.TOOL],
        prompts=counts[Kind.PROMPT],
        resources=counts[Kind.RESOURCE],
        templates=counts[Kind.TEMPLATE],
        hidden=sum(whole.get((kind, backend.name), 0) for kind in Kind) - sum(counts.values()),
        last_error=breaker.reason if is_shut and status.is_open else backend.life.last_error or failed_lists,
        next_try=breaker.left(now) if is_shut and status.is_open else scheduled,
        since=max(0.0, now - status.since),
        stderr=backend.stderr,
        moved=rfc3339(stats.moved),
        latency=max(answered)[1] if answered else None,
        listed=None if stats.listed is None else max(0.0, now - stats.listed),
        lives=stats.lives,
        links=stats.links,
        held=backend.held,
        due=sum(link.due for link in links),
        waiting=executor.waiting.size,
        overloaded=executor.waiting.overloaded,
        retries=executor.retries,
        dropped=backend.dropped,
        last_exit=backend.last_exit,
        is_resting=backend.is_resting,
        breaker=breaker.position.value,
        openings=breaker.openings,
        failed_lists=failed_lists,
        invalid=() if backend.listing is None else tuple(map(str, backend.listing.faults)),
    )


def of_disabled(server: ServerSettings) -> ServerStatus:
    """The ServerStatus of a disabled server."""
    return ServerStatus(name=server.name, state=DISABLED)


def of_broken(server: BrokenServer) -> ServerStatus:
    """The ServerStatus of a server whose configuration is invalid."""
    return ServerStatus(name=server.name, state=BROKEN, last_error=server.reason)


def _count(catalogue: Catalogue) -> Counter[tuple[Kind, str]]:
    return Counter((kind, entry.backend) for kind in Kind for entry in catalogue.entries(kind))


def rfc3339(moment: datetime) -> str:
    """A time in UTC as RFC 3339, with milliseconds."""
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def overall(servers: Sequence[ServerStatus]) -> dict[str, object]:
    """The body of `/health`: `healthy` if every enabled server is healthy, `unhealthy` if none can be called."""
    enabled = [server for server in servers if server.state != DISABLED]
    healthy = sum(1 for server in enabled if server.word == _HEALTHY)
    connected = sum(1 for server in enabled if server.state in _OPEN)
    can_be_called = any(server.can_be_called for server in enabled)
    word = _HEALTHY if healthy == len(enabled) else "degraded" if can_be_called else "unhealthy"
    return {"status": word, "servers": {"configured": len(enabled), "connected": connected, "healthy": healthy}}


def has_all_required(config: Settings, servers: Sequence[ServerStatus]) -> bool:
    """Whether every enabled server with `required` can be called."""
    required = {server.name for server in config.servers if server.required and not server.disabled}
    return required <= {server.name for server in servers if server.can_be_called}


def described(server: ServerStatus) -> dict[str, object]:
    """The status of one server as JSON, without its stderr, which may contain secrets."""
    return {
        "name": server.name,
        "status": server.word,
        "latency": None if server.latency is None else round(server.latency * 1000, 3),
        "state": server.state,
        "since": server.moved or None,
        "era": server.era,
        "transport": server.transport,
        "tools": server.tools,
        "prompts": server.prompts,
        "resources": server.resources,
        "lastError": server.last_error,
        "lastExit": server.last_exit,
        "breaker": server.breaker or None,
        "invalidItems": list(server.invalid),
        "nextAttempt": None if server.next_try is None else round(server.next_try, 3),
    }
