"""How long it takes from the start of the process: to the version, to listening, to the first full list."""

import subprocess
import time
from collections.abc import Sequence
from functools import partial
from typing import Final

from benchmarks import processes
from benchmarks.peers import Peer, filled, places
from benchmarks.plan import ROOT
from benchmarks.rows import Figures
from benchmarks.running import Bench, rotated
from benchmarks.upstream import Server, Upstream

NAME: Final = "start"
SERVERS: Final = 10
TOOLS: Final = 5
_PATIENCE: Final = 45.0
"""Seconds after which a list that waits for a server that says nothing is given up."""


def run(bench: Bench) -> None:
    """Measure it."""
    for round_ in range(bench.plan.rounds):
        for spec in rotated(bench.specs("stdio", direct=False), round_):
            if spec.version:
                command = filled(spec.version, places(spec, bench.plan))
                bench.measure(NAME, "the version", spec.name, round_, partial(_took, command))
    with Upstream(bench.plan) as upstream:
        whole = upstream.stdio(SERVERS, tools=TOOLS)
        hanging = upstream.stdio(SERVERS, tools=TOOLS, silent=(2,))
        for round_ in range(bench.plan.rounds):
            _lists(bench, "first list, 10 stdio servers", whole, SERVERS * TOOLS, round_)
        _lists(bench, "the same, one of them silent", hanging, (SERVERS - 1) * TOOLS, 0)


def _lists(bench: Bench, cell: str, servers: Sequence[Server], expected: int, round_: int) -> None:
    for spec in rotated(bench.specs("stdio", direct=False), round_):
        if spec.name.startswith("limit"):
            continue
        peer = Peer(spec, bench.plan, servers)
        try:
            bench.measure(NAME, cell, spec.name, round_, partial(_listed, peer, expected))
        finally:
            peer.stop()


def _listed(peer: Peer, expected: int) -> Figures:
    peer.start(expected=None)
    peer.wait(0, _PATIENCE)
    listening = time.perf_counter() - peer.started
    peer.wait(expected, _PATIENCE)
    seconds = time.perf_counter() - peer.started
    return {"seconds": seconds, "listening_s": listening, "cpu_s": processes.cpu(peer.pid)}


def _took(command: list[str]) -> Figures:
    begun = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, cwd=ROOT)
    return {"seconds": time.perf_counter() - begun}
