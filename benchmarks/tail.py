"""Tail latency: at half of capacity, and during results of 10 MB."""

import re
import time
from functools import partial
from typing import Final

from benchmarks.load import Load
from benchmarks.peers import Peer
from benchmarks.rows import Figures
from benchmarks.running import Bench, rotated
from benchmarks.scenarios import MB
from benchmarks.upstream import Upstream

NAME: Final = "tail"
_CLIENTS: Final = 32
_LARGE: Final = 10 * MB
_LONGER: Final = 5  # factor of the duration, because the event loop's lag is sampled once a second
_GENTLE: Final = 200.0  # small calls per second during the large ones
_FEW: Final = 8  # the clients of these small calls
_LAG: Final = re.compile(r"^mcp_\w*lag\w*(?:\{[^}]*\})? ([\d.e+-]+)$", re.MULTILINE)


def run(bench: Bench) -> None:
    """Measure both."""
    with Upstream(bench.plan) as upstream, Upstream(bench.plan) as apart:
        servers = [*upstream.http(1), *(server for server in apart.http(1))]
        for round_ in range(bench.plan.rounds):
            for spec in rotated(bench.specs("http", direct=False), round_):
                peer = Peer(spec, bench.plan, servers)
                try:
                    peer.start()
                    bench.measure(NAME, "half of capacity", spec.name, round_, partial(_half, bench, peer))
                    bench.measure(NAME, "beside 10 MB results", spec.name, round_, partial(_beside, bench, peer))
                finally:
                    peer.stop()


def _half(bench: Bench, peer: Peer) -> Figures:
    with Load(peer, bench.plan, {"clients": _CLIENTS}) as load:
        most = load.measured()["calls_per_s"]
    with Load(peer, bench.plan, {"clients": _CLIENTS, "rate": most / 2}) as load:
        found = load.measured()
    return {**found, "p99_of_p50": found["p99_ms"] / found["p50_ms"]}


def _beside(bench: Bench, peer: Peer) -> Figures:
    large = {"shape": "blob", "size": _LARGE, "seconds": bench.plan.seconds * _LONGER, "warm_up": 2, "timeout": 120}
    gentle = {"clients": _FEW, "rate": _GENTLE}
    with Load(peer, bench.plan, gentle) as small, Load(peer, bench.plan, large) as heavy:
        _lag(peer)
        heavy.begin()
        time.sleep(bench.plan.seconds)
        small.begin()
        found, passed = small.result(), heavy.result()
    if found["errors"] or passed["errors"]:
        raise RuntimeError(f"wrong answers: {found['error_samples']} {passed['error_samples']}")
    figures = {key: found[key] for key in ("p50_ms", "p99_ms", "p999_ms", "max_ms")}
    return {**figures, "large_p50_ms": passed["p50_ms"], "large_calls": passed["calls"], **_lag(peer)}


def _lag(peer: Peer) -> Figures:
    """The maximum lag of the peer's event loop, if it reports one."""
    with peer.client() as client:
        found = [float(value) for value in _LAG.findall(client.get("/metrics"))]
    return {"lag_ms": max(found) * 1000} if found else {}
