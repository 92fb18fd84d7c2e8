"""The `/metrics` page in Prometheus format, and the lag of the event loop. Reads the counters of others on request.

Label values come from bounded sets: configured servers, known methods, states, kinds. Never client names, public names
or error texts.
"""

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from operator import attrgetter
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from mcp_manifold.backends.calls.breaker import Position
from mcp_manifold.clock import Clock, Timer
from mcp_manifold.core.status import DISABLED, STATES, ServerStatus
from mcp_manifold.fronts.tally import Tally
from mcp_manifold.model.budget import MemoryBudget
from mcp_manifold.stages import BOUNDS, UNTIMED, Counts

_PLAIN: Final = "text/plain"
_SAMPLE_EVERY: Final = 1.0
"""Seconds between two samples of the loop's lag."""
_LIMITS: Final = (*(f"{bound:g}" for bound in BOUNDS), "+Inf")


class LoopLag:
    """Measures once a second, from `begin` to `end`, how many seconds late the event loop calls a timer.

    Args:
        now: the time in seconds. Not the loop's: that stands still during a callback and has milliseconds at best.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self.last = 0.0
        self._worst = 0.0
        self._due = 0.0
        self._timer: Timer | None = None

    def __repr__(self) -> str:
        return f"<LoopLag {'sampling' if self._timer else 'idle'} last={self.last:.4f}s>"

    def begin(self, clock: Clock) -> None:
        """Start sampling, unless it has started."""
        if self._timer is None:
            self._arm(clock)

    def end(self) -> None:
        """Stop sampling."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def worst(self) -> float:
        """The longest lag since the last call of this method. A measurement that is still open counts too."""
        overdue = 0.0 if self._timer is None else self._now() - self._due
        worst, self._worst = max(self._worst, overdue, 0.0), 0.0
        return worst

    def _arm(self, clock: Clock) -> None:
        self._due = self._now() + _SAMPLE_EVERY
        self._timer = clock.call_later(_SAMPLE_EVERY, self._sample, clock)

    def _sample(self, clock: Clock) -> None:
        self.last = max(0.0, self._now() - self._due)
        self._worst = max(self._worst, self.last)
        self._arm(clock)


@dataclass(frozen=True, slots=True)
class Sources:
    """The objects that the metrics are read from."""

    counts: Counts
    lag: LoopLag
    servers: Callable[[], Sequence[ServerStatus]]
    tally: Callable[[], Tally | None]
    """The HTTP front's counters; None while there is no front."""
    parked: Callable[[], int]
    """Calls that wait for their client's input."""
    tasks: Callable[[], int] = lambda: len(asyncio.all_tasks())
    """Tasks of the event loop."""
    budget: MemoryBudget = field(default_factory=MemoryBudget)


class Calls(Collector):
    """Metrics of calls, as the metrics stage counts them."""

    def __init__(self, counts: Counts) -> None:
        self._counts = counts

    def __repr__(self) -> str:
        return f"<Calls of {self._counts!r}>"

    def collect(self) -> Iterator[Metric]:
        """The current metrics of calls."""
        requests = CounterMetricFamily("mcp_proxy_requests", "Completed calls.", labels=("method", "server", "outcome"))
        latency = HistogramMetricFamily("mcp_proxy_latency_seconds", "Duration of calls.", labels=("method", "server"))
        for (method, server), series in self._counts.series.items():
            for outcome, number in series.outcomes.items():
                if number:
                    requests.add_metric((method, server, outcome), number)
            if method not in UNTIMED:
                buckets = list(zip(_LIMITS, accumulate(series.buckets), strict=True))
                latency.add_metric((method, server), buckets, series.seconds)
        flying = GaugeMetricFamily("mcp_proxy_in_flight", "Calls in flight.", labels=("method",))
        for method, number in sorted(self._counts.in_flight.items()):
            flying.add_metric((method,), number)
        yield from (requests, latency, flying)


class Backends(Collector):
    """Metrics of each server."""

    def __init__(self, servers: Callable[[], Sequence[ServerStatus]]) -> None:
        self._servers = servers

    def __repr__(self) -> str:
        return "<Backends>"

    def collect(self) -> Iterator[Metric]:
        """The current metrics of servers."""
        servers = self._servers()
        yield _states(servers)
        yield _entries(servers)
        yield _breakers(servers)
        live = [server for server in servers if server.moved]
        for name, meaning, number in _COUNTERS:
            yield _filled(CounterMetricFamily(name, meaning, labels=("server",)), live, number)
        for name, meaning, number in _GAUGES:
            yield _filled(GaugeMetricFamily(name, meaning, labels=("server",)), live, number)


_Number = Callable[[ServerStatus], float | None]

_COUNTERS: Final[tuple[tuple[str, str, _Number], ...]] = (
    ("mcp_backend_restarts", "Connections after the first one.", lambda server: max(0, server.lives - 1)),
    ("mcp_backend_breaker_openings", "Times the circuit breaker opened.", attrgetter("openings")),
    ("mcp_backend_links_opened", "Links opened.", attrgetter("links")),
    ("mcp_backend_overloaded", "Calls refused by the concurrency limit.", attrgetter("overloaded")),
    ("mcp_backend_retries", "Calls that were retried.", attrgetter("retries")),
    ("mcp_backend_dropped_notifications", "Notifications over the rate limit.", attrgetter("dropped")),
)
_GAUGES: Final[tuple[tuple[str, str, _Number], ...]] = (
    ("mcp_backend_held_links", "Links held for single clients.", attrgetter("held")),
    ("mcp_backend_pending_requests", "Requests in flight.", attrgetter("due")),
    ("mcp_backend_waiting_calls", "Calls queued by the concurrency limit.", attrgetter("waiting")),
    ("mcp_backend_listing_age_seconds", "Time since the lists were fetched.", attrgetter("listed")),
    ("mcp_backend_latency_seconds", "Duration of the last answered request.", attrgetter("latency")),
)


class Fronts(Collector):
    """Metrics of the fronts, the bridge and the event loop."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources

    def __repr__(self) -> str:
        return "<Fronts>"

    def collect(self) -> Iterator[Metric]:
        """The current metrics of the fronts. Resets the worst lag."""
        sources = self._sources
        tally, budget, lag = sources.tally() or Tally(), sources.budget, sources.lag
        yield GaugeMetricFamily("mcp_proxy_sessions", "Open client sessions.", tally.sessions)
        yield GaugeMetricFamily("mcp_proxy_streams", "Open standing event streams.", tally.streams)
        yield CounterMetricFamily("mcp_proxy_dropped_events", "Events dropped for slow clients.", tally.dropped_events)
        yield CounterMetricFamily(
            "mcp_proxy_dropped_notifications", "Client notifications over the rate limit.", tally.dropped_notes
        )
        yield CounterMetricFamily("mcp_proxy_refused_requests", "HTTP requests refused unread.", tally.refused)
        yield CounterMetricFamily("mcp_proxy_received_bytes", "Bytes of messages from clients.", tally.bytes_in)
        yield CounterMetricFamily("mcp_proxy_sent_bytes", "Bytes of responses and events to clients.", tally.bytes_out)
        yield GaugeMetricFamily("mcp_proxy_buffered_bytes", "Bytes of large messages in memory.", budget.held)
        yield CounterMetricFamily("mcp_proxy_buffer_refusals", "Large messages refused by maxBuffered.", budget.refused)
        yield GaugeMetricFamily("mcp_proxy_parked_calls", "Calls waiting for client input.", sources.parked())
        yield GaugeMetricFamily("mcp_proxy_tasks", "Tasks of the event loop.", sources.tasks())
        yield GaugeMetricFamily("mcp_proxy_loop_lag_seconds", "Last event loop lag.", lag.last)
        yield GaugeMetricFamily("mcp_proxy_loop_lag_max_seconds", "Worst lag since the last scrape.", lag.worst())


class Exposition:
    """The metrics registry of one Manifold, and the route of its page."""

    def __init__(self, sources: Sources) -> None:
        self._registry = CollectorRegistry()
        for collector in (Calls(sources.counts), Backends(sources.servers), Fronts(sources)):
            self._registry.register(collector)
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)

    def __repr__(self) -> str:
        return "<Exposition>"

    def route(self, base_path: str) -> Route:
        """The route of `/metrics` below a base path."""
        return Route(f"{base_path.rstrip('/')}/metrics", self._show)

    async def _show(self, request: Request) -> Response:
        body, content_type = self.render(request.headers.get("accept", ""))
        return Response(body, headers={"content-type": content_type, "cache-control": "no-store"})

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """The metrics in the format an Accept header asks for, and its media type."""
        try:
            encode, content_type = choose_encoder(accept)
            return encode(self._registry), content_type
        except (ValueError, TypeError):  # the header names an unknown version or escaping
            encode, content_type = choose_encoder(_PLAIN)
            return encode(self._registry), content_type


def _states(servers: Sequence[ServerStatus]) -> Metric:
    family = GaugeMetricFamily("mcp_backend_state", "1 for the current state.", labels=("server", "state"))
    for server in servers:
        for state in STATES:
            family.add_metric((server.name, state), float(server.state == state))
    return family


def _breakers(servers: Sequence[ServerStatus]) -> Metric:
    family = GaugeMetricFamily(
        "mcp_backend_breaker", "1 for the current position of the circuit breaker.", labels=("server", "position")
    )
    for server in servers:
        for position in Position if server.breaker else ():
            family.add_metric((server.name, position.value), float(server.breaker == position))
    return family


def _entries(servers: Sequence[ServerStatus]) -> Metric:
    family = GaugeMetricFamily("mcp_backend_entries", "Entries visible to clients.", labels=("server", "kind"))
    for server in servers:
        if server.state != DISABLED:
            family.add_metric((server.name, "tool"), server.tools)
            family.add_metric((server.name, "prompt"), server.prompts)
            family.add_metric((server.name, "resource"), server.resources)
            family.add_metric((server.name, "template"), server.templates)
    return family


def _filled(
    family: GaugeMetricFamily | CounterMetricFamily, servers: Sequence[ServerStatus], number: _Number
) -> Metric:
    for server in servers:
        value = number(server)
        if value is not None:
            family.add_metric((server.name,), value)
    return family
