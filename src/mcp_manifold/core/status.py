"""What the outside may know of a server's state, as values. Makes them from a backend; knows no format."""

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
"""A state in the words of health; unhealthy otherwise."""
_OPEN: Final = frozenset({State.READY.value, State.DEGRADED.value})
_HEALTHY: Final = "healthy"
_SHUT: Final = frozenset({Position.OPEN.value, Position.HALF_OPEN.value})


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
    moved: str = ""
    """When it came into its state (RFC 3339); empty where it is in none."""
    latency: float | None = None
    """Seconds the last request it answered took."""
    listed: float | None = None
    """Seconds since it last listed."""
    lives: int = 0
    """Times it was connected to."""
    links: int = 0
    """Links opened in all."""
    held: int = 0
    """Links held for single clients now."""
    due: int = 0
    """Answers it owes now."""
    waiting: int = 0
    """Calls that wait for their turn now."""
    overloaded: int = 0
    """Calls refused since there were too many."""
    retries: int = 0
    """Calls that were sent to it once more."""
    dropped: int = 0
    """Notifications that were too many to be passed on."""
    last_exit: str = ""
    """How its process last ended that was not told to, in words."""
    is_resting: bool = False
    """Nobody needs it, so it is not connected to; it can be."""
    breaker: str = ""
    """Whether it is spared calls because it answers none: `closed`, `open`, `half-open`; empty where it has no life."""
    openings: int = 0
    """Times that began."""

    @property
    def word(self) -> str:
        """`healthy`, `degraded`, `unhealthy` or `disabled`."""
        if self.is_resting:
            return _HEALTHY
        word = _WORDS.get(self.state, "unhealthy")
        return "degraded" if word == _HEALTHY and self.breaker in _SHUT else word

    @property
    def can_be_called(self) -> bool:
        """Whether there is a connection, or nothing known against one."""
        return self.state in _OPEN or self.is_resting


Counted = Mapping[tuple[Kind, str], int]
"""Entries by kind and backend."""


def survey(config: Settings, backends: Mapping[str, Backend], view: View, *, now: float) -> list[ServerStatus]:
    """Every configured server, in configuration order, disabled ones included; then the broken ones."""
    visible, whole = _count(view.catalogue), _count(view.whole)
    found = [
        of_disabled(server) if server.disabled else of_backend(backends[server.name], visible, whole, now=now)
        for server in config.servers
    ]
    return found + [of_broken(server) for server in config.broken]


def of_backend(backend: Backend, visible: Counted, whole: Counted, *, now: float) -> ServerStatus:
    """The status of a running backend."""
    status, greeting, stats, links = backend.status, backend.greeting, backend.stats, backend.links()
    counts = {kind: visible.get((kind, backend.name), 0) for kind in Kind}
    executor = backend.executor
    breaker, is_shut = executor.breaker, executor.breaker.is_shut
    next_try = breaker.left(now) if is_shut and status.is_open else _left(status.next_try, now)
    answered = [(link.heard, link.latency) for link in links if link.latency is not None]
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
        hidden=sum(whole.get((kind, backend.name), 0) for kind in Kind) - sum(counts.values()),
        last_error=breaker.reason if is_shut and status.is_open else status.last_error,
        next_try=next_try,
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
    )


def _left(moment: float | None, now: float) -> float | None:
    return None if moment is None else max(0.0, moment - now)


def of_disabled(server: ServerSettings) -> ServerStatus:
    """The status of a server that is switched off."""
    return ServerStatus(name=server.name, state=DISABLED)


def of_broken(server: BrokenServer) -> ServerStatus:
    """The status of a server whose configuration cannot be used."""
    return ServerStatus(name=server.name, state=BROKEN, last_error=server.reason)


def _count(catalogue: Catalogue) -> Counter[tuple[Kind, str]]:
    return Counter((kind, entry.backend) for kind in Kind for entry in catalogue.entries(kind))


def rfc3339(moment: datetime) -> str:
    """A moment in UTC as the world writes it."""
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def overall(servers: Sequence[ServerStatus]) -> dict[str, object]:
    """All servers in one word: healthy when every enabled one is, unhealthy when none can be called."""
    enabled = [server for server in servers if server.state != DISABLED]
    healthy = sum(1 for server in enabled if server.word == _HEALTHY)
    connected = sum(1 for server in enabled if server.state in _OPEN)
    can_be_called = any(server.can_be_called for server in enabled)
    word = _HEALTHY if healthy == len(enabled) else "degraded" if can_be_called else "unhealthy"
    return {"status": word, "servers": {"configured": len(enabled), "connected": connected, "healthy": healthy}}


def has_all_required(config: Settings, servers: Sequence[ServerStatus]) -> bool:
    """Whether every server the whole is nothing without can be called."""
    required = {server.name for server in config.servers if server.required and not server.disabled}
    return required <= {server.name for server in servers if server.can_be_called}


def described(server: ServerStatus) -> dict[str, object]:
    """One server as JSON. Its stderr stays here: it may say anything."""
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
        "nextAttempt": None if server.next_try is None else round(server.next_try, 3),
    }
