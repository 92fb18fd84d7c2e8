"""Memory: idle with one and ten servers, per session, and after clients have disconnected."""

import time
from collections.abc import Callable
from functools import partial
from typing import Final

from benchmarks import processes
from benchmarks.load import Load
from benchmarks.peers import Peer
from benchmarks.rows import Figures
from benchmarks.running import Bench
from benchmarks.upstream import Upstream

NAME: Final = "memory"
_SETTLE: Final = 2.0  # seconds for a peer to release start-up memory
_CHURN: Final = 10  # rounds of clients that connect and disconnect; the first half absorbs one-time growth
_CHURNING: Final = 200


def run(bench: Bench) -> None:
    """Measure every cell with a new process, because freed memory of an earlier cell would hide its growth."""
    with Upstream(bench.plan) as upstream:
        ten = upstream.http(10)
        cells: dict[str, Callable[[Peer], Figures]] = {
            "idle, 10 servers": _idle,
            f"{bench.plan.sessions} sessions, each with its stream": partial(_sessions, bench, streams=True),
            f"{bench.plan.sessions} sessions, nothing else": partial(_sessions, bench, streams=False),
            f"{_CHURN} x {_CHURNING} clients, one after the other": partial(_churned, bench),
        }
        for spec in bench.specs("http", direct=False):
            peer = Peer(spec, bench.plan, ten[:1])
            bench.measure(NAME, "idle, 1 server", spec.name, 0, partial(_of, peer, _idle))
            for cell, measured in cells.items():
                peer = Peer(spec, bench.plan, ten)
                bench.measure(NAME, cell, spec.name, 0, partial(_of, peer, measured))


def _of(peer: Peer, measured: Callable[[Peer], Figures]) -> Figures:
    try:
        peer.start(expected=5)
        time.sleep(_SETTLE)
        return measured(peer)
    finally:
        peer.stop()


def _idle(peer: Peer) -> Figures:
    held = processes.memory(peer.pid)
    used, begun = processes.cpu(peer.pid), time.perf_counter()
    time.sleep(_SETTLE)
    share = (processes.cpu(peer.pid) - used) / (time.perf_counter() - begun)
    return {"rss_mb": held.rss, "pss_mb": held.pss, "processes": held.processes, "idle_cpu_percent": share * 100}


def _sessions(bench: Bench, peer: Peer, *, streams: bool) -> Figures:
    before = processes.memory(peer.pid)
    count = bench.plan.sessions
    with Load(peer, bench.plan, {"operation": "none", "clients": count, "holds_stream": streams}):
        time.sleep(1.0)
        held = processes.memory(peer.pid)
    time.sleep(1.0)
    after = processes.memory(peer.pid)
    return {"rss_mb": held.rss, "kb_per_session": (held.pss - before.pss) * 1024 / count, "rss_after_mb": after.rss}


def _churned(bench: Bench, peer: Peer) -> Figures:
    held = []
    for _ in range(_CHURN):
        with Load(
            peer, bench.plan, {"clients": _CHURNING, "seconds": 0.5, "warm_up": 1, "ends_sessions": True}
        ) as load:
            load.measured()
        time.sleep(1.0)
        held.append(processes.memory(peer.pid).rss)
    return {"rss_mb": held[-1], "grown_mb": held[-1] - held[_CHURN // 2]}
