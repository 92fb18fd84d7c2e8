"""Compares the cost of a call with benchmarks/baseline.json: multiples of the lower bound, and instruction counts.

    scripts/bench-check             compare; exit code 1 if a figure exceeds its baseline by more than the margin
    scripts/bench-check --accept    measure and write a new baseline

The time a call takes depends on the machine and on what else it does; its ratio to the limit, measured in turns in the
same minute, hardly does. What seems worse is measured again before it is called so.
"""

import argparse
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from benchmarks.__main__ import processors
from benchmarks.load import Load
from benchmarks.peers import Peer, Spec, read
from benchmarks.plan import HERE, ROOT, Plan
from benchmarks.scenarios import HTTP, LISTS, PAYLOADS, STDIO, Cell, Scenario
from benchmarks.upstream import Upstream

BASELINE: Final = HERE / "baseline.json"
MARGIN: Final = 1.25
"""Allowed growth of a multiple: more than two runs of the same source differ by on a busy machine."""
INSTRUCTIONS_MARGIN: Final = 1.05
"""Allowed growth of an instruction count: more than versions of Python and the libraries differ by."""
_TIMES: Final = 200
_WATCHED: Final = (
    (HTTP, "8 clients", "limit"),
    (HTTP, "8 clients, 2026-07-28", "limit"),
    (STDIO, "8 clients", "limit-stdio"),
    (PAYLOADS, "result of 100 KB", "limit"),
    (PAYLOADS, "result of 1 MB", "limit"),
    (LISTS, "8 clients", "limit-list"),
)


@dataclass(frozen=True, slots=True)
class Comparison:
    """One figure and its baseline; `was` is None for a new figure."""

    name: str
    now: float
    was: float | None
    margin: float

    @property
    def is_worse(self) -> bool:
        """Whether the figure exceeds its baseline by more than the margin."""
        return self.was is not None and self.now > self.was * self.margin

    def __str__(self) -> str:
        before = "nothing to compare with" if self.was is None else f"was {self.was:,.2f}"
        word = "WORSE" if self.is_worse else "ok"
        return f"{word:5}  {self.name:44} {self.now:12,.2f}  {before}"


def verdicts(now: Mapping[str, float], was: Mapping[str, float], margin: float) -> list[Comparison]:
    """Each figure with its baseline."""
    return [Comparison(name, value, was.get(name), margin) for name, value in now.items()]


def ratio(plan: Plan, specs: Mapping[str, Spec], scenario: Scenario, cell: Cell, limit: str) -> float:
    """CPU of a call as a multiple of the lower bound: the median of rounds that measure both in turn."""
    with Upstream(plan) as upstream:
        servers = upstream.some(scenario.kind, scenario.count, tools=scenario.tools)
        tools = scenario.count * scenario.tools
        both = [Peer(specs[name], plan, servers, tools=tools) for name in (limit, "manifold")]
        try:
            for peer in both:
                peer.start(expected=int(scenario.job.get("expect_tools", 1)))
            found = [_costs(plan, both, {**scenario.job, **cell.job}) for _ in range(plan.rounds)]
        finally:
            for peer in both:
                peer.stop()
    return statistics.median(ours / least for least, ours in found)


def _costs(plan: Plan, peers: Sequence[Peer], job: Mapping[str, object]) -> list[float]:
    found = []
    for peer in peers:
        with Load(peer, plan, job) as load:
            found.append(load.measured()["cpu_us"])
    return found


def ratios(plan: Plan, was: Mapping[str, float]) -> dict[str, float]:
    """Every watched multiple; one that seems worse is measured again, and the better of the two counts."""
    specs, found = read(), {}
    for scenario, name, limit in _WATCHED:
        cell = next(cell for cell in scenario.cells if cell.name == name)
        key = f"{scenario.name}, {name}: x {limit}"
        value = ratio(plan, specs, scenario, cell, limit)
        if Comparison(key, value, was.get(key), MARGIN).is_worse:
            value = min(value, ratio(plan, specs, scenario, cell, limit))
        found[key] = value
        sys.stderr.write(f"{Comparison(key, value, was.get(key), MARGIN)}\n")
    return found


def instructions() -> dict[str, float]:
    """Thousands of instructions per call for message handling; empty if valgrind is not installed."""
    if shutil.which("valgrind") is None:
        return {}
    return {f"wire, {work}: thousand instructions": _counted(work) / 1000 for work in ("small", "large")}


def _counted(work: str) -> float:
    few, many = (_instructions(work, times) for times in (10, 10 + _TIMES))
    return (many - few) / _TIMES


def _instructions(work: str, times: int) -> int:
    counting = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"]
    said = subprocess.run(
        [*counting, sys.executable, "-m", "benchmarks.wirework", work, str(times)],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": "0"},
        capture_output=True,
        text=True,
        check=True,
    )
    found = re.search(r"Collected : (\d+)", said.stderr)
    if found is None:
        raise RuntimeError(f"valgrind counted nothing: {said.stderr[-300:]}")
    return int(found[1])


def _given() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--accept", action="store_true", help="write down what is measured")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--cpus", help="as that of scripts/bench")
    return parser.parse_args()


def main() -> None:
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # either way, what was started is ended
    given = _given()
    was: dict[str, dict[str, float]] = json.loads(BASELINE.read_text()) if BASELINE.exists() else {}
    target, load = processors(given.cpus)
    with tempfile.TemporaryDirectory(prefix="bench-check-") as work:
        plan = Plan(rounds=given.rounds, seconds=given.seconds, work=Path(work), environments=Path(work))
        plan = replace(plan, target_cpus=target, load_cpus=load)
        now = {"ratios": ratios(plan, was.get("ratios", {})), "instructions": instructions()}
    found = verdicts(now["ratios"], was.get("ratios", {}), MARGIN)
    found += verdicts(now["instructions"], was.get("instructions", {}), INSTRUCTIONS_MARGIN)
    sys.stdout.write("\n".join(map(str, found)) + "\n")
    if given.accept:
        rounded = {part: {name: round(value, 2) for name, value in figures.items()} for part, figures in now.items()}
        BASELINE.write_text(json.dumps({**was, **{k: v for k, v in rounded.items() if v}}, indent=2) + "\n")
    elif worse := [verdict.name for verdict in found if verdict.is_worse]:
        sys.exit(f"bench-check: above {BASELINE.name} by more than the margin: {'; '.join(worse)}")


if __name__ == "__main__":
    main()
