"""The metrics as Prometheus asks for them. Counts nothing itself: reads what others count, when it is asked.

Every label comes from a bounded set: configured servers, known methods, states, kinds. No name of a client, no public
name, no text of an error.
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
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
from mcp_manifold.core.status import DISABLED, STATES, ServerStatus
from mcp_manifold.fronts.http.stream import Tally
from mcp_manifold.fronts.lag import LoopLag
from mcp_manifold.model.budget import MemoryBudget
from mcp_manifold.stages.metrics import BOUNDS, UNTIMED, Counts

_PLAIN: Final = "text/plain"
_LIMITS: Final = (*(f"{bound:g}" for bound in BOUNDS), "+Inf")


@dataclass(frozen=True, slots=True)
class Sources:
    """Where the numbers are."""

    counts: Counts
    lag: LoopLag
    servers: Callable[[], Sequence[ServerStatus]]
    tally: Callable[[], Tally | None]
    """None while there is no front."""
    parked: Callable[[], int]
    """Calls that wait for their client to come back with input."""
    tasks: Callable[[], int] = lambda: len(asyncio.all_tasks())
    """Tasks of the event loop."""
    budget: MemoryBudget = field(default_factory=MemoryBudget)


class Calls(Collector):
    """What the stage counted."""

    def __init__(self, counts: Counts) -> None:
        self._counts = counts

    def __repr__(self) -> str:
        return f"<Calls of {self._counts!r}>"

    def collect(self) -> Iterator[Metric]:
        """The metrics of this moment."""
        requests = CounterMetricFamily(
            "mcp_proxy_requests", "Calls that ended.", labels=("method", "server", "outcome")
        )
        latency = HistogramMetricFamily(
            "mcp_proxy_latency_seconds", "How long calls took.", labels=("method", "server")
        )
        for (method, server), series in self._counts.series.items():
            for outcome, number in series.outcomes.items():
                if number:
                    requests.add_metric((method, server, outcome), number)
            if method not in UNTIMED:
                buckets = list(zip(_LIMITS, accumulate(series.buckets), strict=True))
                latency.add_metric((method, server), buckets, series.seconds)
        in_flight = GaugeMetricFamily("mcp_proxy_in_flight", "Calls being answered.", labels=("method",))
        for method, number in sorted(self._counts.in_flight.items()):
            in_flight.add_metric((method,), number)
        yield from (requests, latency, in_flight)


class Backends(Collector):
    """How the servers are."""

    def __init__(self, servers: Callable[[], Sequence[ServerStatus]]) -> None:
        self._servers = servers

    def __repr__(self) -> str:
        return "<Backends>"

    def collect(self) -> Iterator[Metric]:
        """The metrics of this moment."""
        servers = self._servers()
        yield _states(servers)
        yield _entries(servers)
        yield _breakers(servers)
        live = [server for server in servers if server.moved]
        yield _counter("mcp_backend_restarts", "Times it was connected to again.", live, _restarts)
        yield _counter(
            "mcp_backend_breaker_openings", "Times its breaker opened.", live, lambda server: server.openings
        )
        yield _counter("mcp_backend_links_opened", "Links opened to it.", live, lambda server: server.links)
        yield _gauge("mcp_backend_held_links", "Links held for single clients.", live, lambda server: server.held)
        yield _gauge("mcp_backend_pending_requests", "Answers it owes.", live, lambda server: server.due)
        yield _gauge("mcp_backend_waiting_calls", "Calls waiting for their turn.", live, lambda server: server.waiting)
        yield _counter("mcp_backend_overloaded", "Calls refused by its limits.", live, lambda server: server.overloaded)
        yield _counter("mcp_backend_retries", "Calls sent to it once more.", live, lambda server: server.retries)
        yield _counter("mcp_backend_dropped_notifications", "Too many to pass on.", live, lambda server: server.dropped)
        yield _gauge("mcp_backend_listing_age_seconds", "Since it last listed.", live, lambda server: server.listed)
        yield _gauge("mcp_backend_latency_seconds", "What it took to answer last.", live, lambda server: server.latency)


class Fronts(Collector):
    """How the fronts, the bridge and the event loop are."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources

    def __repr__(self) -> str:
        return "<Fronts>"

    def collect(self) -> Iterator[Metric]:
        """The metrics of this moment; the worst lag begins anew."""
        tally, lag = self._sources.tally() or Tally(), self._sources.lag
        yield GaugeMetricFamily("mcp_proxy_sessions", "Client sessions open.", tally.sessions)
        yield GaugeMetricFamily("mcp_proxy_streams", "Standing event streams open.", tally.streams)
        yield CounterMetricFamily("mcp_proxy_dropped_events", "Events slow readers lost.", tally.dropped_events)
        yield CounterMetricFamily("mcp_proxy_dropped_notifications", "Too many of a client's.", tally.dropped_notes)
        yield CounterMetricFamily("mcp_proxy_refused_requests", "Requests turned away unread.", tally.refused)
        yield CounterMetricFamily("mcp_proxy_received_bytes", "Bytes of messages from clients.", tally.bytes_in)
        yield CounterMetricFamily("mcp_proxy_sent_bytes", "Bytes of answers and events to clients.", tally.bytes_out)
        budget = self._sources.budget
        yield GaugeMetricFamily("mcp_proxy_buffered_bytes", "Bytes of large messages held.", budget.held)
        yield CounterMetricFamily("mcp_proxy_buffer_refusals", "Times there was no room for one.", budget.refused)
        yield GaugeMetricFamily("mcp_proxy_parked_calls", "Calls waiting for input.", self._sources.parked())
        yield GaugeMetricFamily("mcp_proxy_tasks", "Tasks of the event loop.", self._sources.tasks())
        yield GaugeMetricFamily("mcp_proxy_loop_lag_seconds", "How late the event loop was last.", lag.last)
        yield GaugeMetricFamily("mcp_proxy_loop_lag_max_seconds", "The same, worst since asked last.", lag.worst())


class Exposition:
    """The registry of one manifold, and the route that shows it."""

    def __init__(self, sources: Sources) -> None:
        self._registry = CollectorRegistry()
        for collector in (Calls(sources.counts), Backends(sources.servers), Fronts(sources)):
            self._registry.register(collector)
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)

    def __repr__(self) -> str:
        return "<Exposition>"

    def route(self, base_path: str) -> Route:
        """`/metrics` below a base path."""
        return Route(f"{base_path.rstrip('/')}/metrics", self._show)

    async def _show(self, request: Request) -> Response:
        body, content_type = self.render(request.headers.get("accept", ""))
        return Response(body, headers={"content-type": content_type, "cache-control": "no-store"})

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """The metrics in the format an Accept header asks for, and its media type."""
        try:
            encode, content_type = choose_encoder(accept)
            return encode(self._registry), content_type
        except (ValueError, TypeError):  # the header asks for a version or an escaping that is none
            encode, content_type = choose_encoder(_PLAIN)
            return encode(self._registry), content_type


def _states(servers: Sequence[ServerStatus]) -> Metric:
    family = GaugeMetricFamily("mcp_backend_state", "1 for the state it is in.", labels=("server", "state"))
    for server in servers:
        for state in STATES:
            family.add_metric((server.name, state), float(server.state == state))
    return family


def _breakers(servers: Sequence[ServerStatus]) -> Metric:
    family = GaugeMetricFamily("mcp_backend_breaker", "1 for where its breaker stands.", labels=("server", "position"))
    for server in servers:
        for position in Position if server.breaker else ():
            family.add_metric((server.name, position.value), float(server.breaker == position))
    return family


def _entries(servers: Sequence[ServerStatus]) -> Metric:
    family = GaugeMetricFamily("mcp_backend_entries", "What it offers to clients.", labels=("server", "kind"))
    for server in servers:
        if server.state != DISABLED:
            family.add_metric((server.name, "tool"), server.tools)
            family.add_metric((server.name, "prompt"), server.prompts)
            family.add_metric((server.name, "resource"), server.resources)
            family.add_metric((server.name, "template"), server.templates)
    return family


def _restarts(server: ServerStatus) -> float:
    return max(0, server.lives - 1)


_Number = Callable[[ServerStatus], float | None]


def _gauge(name: str, meaning: str, servers: Sequence[ServerStatus], number: _Number) -> Metric:
    return _filled(GaugeMetricFamily(name, meaning, labels=("server",)), servers, number)


def _counter(name: str, meaning: str, servers: Sequence[ServerStatus], number: _Number) -> Metric:
    return _filled(CounterMetricFamily(name, meaning, labels=("server",)), servers, number)


def _filled(
    family: GaugeMetricFamily | CounterMetricFamily, servers: Sequence[ServerStatus], number: _Number
) -> Metric:
    for server in servers:
        value = number(server)
        if value is not None:
            family.add_metric((server.name,), value)
    return family
