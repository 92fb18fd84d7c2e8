"""Runs scenarios: starts servers and peers, interleaves rounds, and records failures."""

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TypeVar

from benchmarks.load import Load
from benchmarks.peers import Peer, Spec
from benchmarks.plan import Plan
from benchmarks.rows import Figures, Results, Row
from benchmarks.scenarios import Cell, Scenario
from benchmarks.upstream import Server, Upstream

T = TypeVar("T")
_FAILURES = (OSError, RuntimeError, ValueError, KeyError)


class Bench:
    """A run: its plan, peers and results."""

    def __init__(self, plan: Plan, specs: Mapping[str, Spec], results: Results) -> None:
        self.plan = plan
        self.results = results
        self._specs = specs

    def specs(self, kind: str, transport: str = "http", *, direct: bool = True) -> list[Spec]:
        """The peers of the run that support such servers."""
        chosen = [self._specs[name] for name in self.plan.peers]
        return [
            spec
            for spec in chosen
            if (spec.direct and direct) or (not spec.direct and kind in spec.servers and spec.transport == transport)
        ]

    def measure(self, scenario: str, cell: str, peer: str, round_: int, work: Callable[[], Figures]) -> bool:
        """Record the figures of `work`, or its failure; returns whether it succeeded."""
        try:
            row = Row(scenario, cell, peer, round_, work())
        except _FAILURES as exc:
            row = Row(scenario, cell, peer, round_, failed=f"{type(exc).__name__}: {exc}"[:400])
        self.results.add(row)
        said = row.failed or " ".join(f"{key}={value:.4g}" for key, value in row.figures.items() if key in _TOLD)
        print(f"{time.strftime('%H:%M:%S')} {scenario:14} {cell:28} {peer:16} {said}", file=sys.stderr, flush=True)
        return not row.failed

    def throughput(self, scenario: Scenario) -> None:
        """Measure all cells of a scenario for all peers, in rounds."""
        with Upstream(self.plan) as upstream:
            servers = upstream.some(scenario.kind, scenario.count, tools=scenario.tools)
            with self._up(scenario, servers) as peers:
                for cell in scenario.cells:
                    self._rounds(scenario, cell, peers)

    def _rounds(self, scenario: Scenario, cell: Cell, peers: list[Peer]) -> None:
        failed: set[str] = set()
        for round_ in range(self.plan.rounds):
            for peer in rotated(peers, round_):
                name = peer.spec.name
                work = partial(self._figures, peer, {**scenario.job, **cell.job})
                if name not in failed and not self.measure(scenario.name, cell.name, name, round_, work):
                    failed.add(name)

    def _figures(self, peer: Peer, job: Mapping[str, object]) -> Figures:
        with Load(peer, self.plan, job) as load:
            return load.measured()

    @contextmanager
    def _up(self, scenario: Scenario, servers: Sequence[Server]) -> Iterator[list[Peer]]:
        """The peers that started."""
        kinds = {scenario.kind, "list"} if scenario.job.get("operation") == "list" else {scenario.kind}
        with ExitStack() as stack:
            peers = []
            specs = {spec.name: spec for kind in sorted(kinds) for spec in self.specs(kind, scenario.transport)}
            for spec in specs.values():
                if scenario.only and spec.name not in scenario.only:
                    continue
                peer = Peer(spec, self.plan, servers, tools=scenario.count * scenario.tools)
                stack.callback(peer.stop)
                start = partial(self._started, peer, int(scenario.job.get("expect_tools", 1)))
                if spec.transport == "stdio" or self.measure(scenario.name, "", spec.name, 0, start):
                    peers.append(peer)
            yield peers

    def _started(self, peer: Peer, expected: int) -> Figures:
        peer.start(expected=expected)
        return {}


_TOLD = (
    "cpu_us", "p50_ms", "p99_ms", "calls_per_s", "rss_mb", "seconds", "kb_per_session", "busy", "load_busy", "lag_ms",
)  # fmt: skip


def rotated(items: Sequence[T], by: int) -> list[T]:
    """The items, starting with another one each round."""
    start = by % len(items) if items else 0
    return [*items[start:], *items[:start]]
