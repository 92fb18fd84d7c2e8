"""The command line of the benchmark: `scripts/bench`, which runs `uv run --group bench python -m benchmarks`."""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks import memory, page, starting, tail
from benchmarks.peers import install, read, version
from benchmarks.plan import ROOT, Plan
from benchmarks.plot import picture
from benchmarks.report import tables
from benchmarks.rows import Facts, Results
from benchmarks.running import Bench
from benchmarks.scenarios import NAMES, QUICK, THROUGHPUT

_SPECIAL = {"tail": tail.run, "start": starting.run, "memory": memory.run}


def arguments(given: list[str] | None = None) -> argparse.Namespace:
    """The parsed command line."""
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="only the main figures, in a few minutes")
    parser.add_argument("--peers", help="names from peers.toml, separated by commas (all)")
    parser.add_argument("--scenarios", help=f"of {', '.join(NAMES)}")
    parser.add_argument("--rounds", type=int, help="repetitions of every measurement, interleaved (3; quick: 2)")
    parser.add_argument("--seconds", type=float, help="duration of one measurement (2; quick: 1)")
    parser.add_argument("--sessions", type=int, default=2000, help="open sessions of the memory scenario")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "benchmarks", help="directory of the results")
    parser.add_argument("--cpus", help="processors of the measured process and of the load, such as 0:1 or 0-3:4-7")
    parser.add_argument("--after", type=Path, metavar="RESULTS", help="keep the other scenarios of earlier results")
    parser.add_argument("--docs", action="store_true", help="renew the figures in README.md, docs/ and results.json")
    parser.add_argument("--show", type=Path, metavar="RESULTS", help="measure nothing; show the results in this file")
    return parser.parse_args(given)


def planned(given: argparse.Namespace, names: list[str], work: Path) -> Plan:
    """The plan of a run: peers, scenarios, rounds and processors."""
    usual = QUICK if given.quick else NAMES
    target, load = processors(given.cpus)
    return Plan(
        peers=tuple(given.peers.split(",")) if given.peers else tuple(names),
        scenarios=tuple(given.scenarios.split(",")) if given.scenarios else tuple(usual),
        rounds=given.rounds or (2 if given.quick else 3),
        seconds=given.seconds or (1.0 if given.quick else 2.0),
        sessions=given.sessions,
        work=work,
        environments=ROOT / "build" / "benchmarks" / "environments",
        target_cpus=target,
        load_cpus=load,
    )


def processors(given: str | None) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Processors of the measured process and of the load: separate if the machine has two or more."""
    if given is None:
        there = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
        return (tuple(there[:1]), tuple(there[1:])) if len(there) > 1 else ((), ())
    target, _, load = given.partition(":")
    return _several(target), _several(load)


def _several(given: str) -> tuple[int, ...]:
    found: list[int] = []
    for part in given.split(","):
        first, _, last = part.partition("-")
        found += range(int(first), int(last or first) + 1)
    return tuple(found)


def commit() -> str:
    """The short hash of the checked-out commit, or `unknown`."""
    command = ["git", "rev-parse", "--short", "HEAD"]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return said.stdout.strip() or "unknown"


def measured(plan: Plan, out: Path | None, after: Results | None = None) -> Results:
    """Run the plan; take the other scenarios from the earlier results, if given."""
    specs = read()
    chosen = [specs[name] for name in plan.peers]
    for spec in chosen:
        install(spec, plan)
    facts = Facts.now(
        commit=commit(),
        rounds=plan.rounds,
        seconds=plan.seconds,
        versions={spec.label: version(spec, plan) for spec in chosen},
        labels={spec.name: spec.label for spec in chosen},
    )
    old = [] if after is None else [row for row in after.rows if row.scenario not in plan.scenarios]
    if after is not None:
        facts = facts.joined(after.facts)
    bench = Bench(plan, specs, Results(facts, old, path=out))
    for scenario in THROUGHPUT:
        if scenario.name in plan.scenarios:
            bench.throughput(scenario)
    for name, run in _SPECIAL.items():
        if name in plan.scenarios:
            run(bench)
    return bench.results


def main() -> None:
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # SIGTERM also stops the processes of the run
    given = arguments()
    if given.show:
        results = Results.read(given.show)
    else:
        given.out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="benchmarks-") as work:
            after = None if given.after is None else Results.read(given.after)
            results = measured(planned(given, list(read()), Path(work)), given.out / "results.json", after)
        (given.out / "tables.md").write_text(tables(results))
        (given.out / "plot.svg").write_text(picture(results))
    sys.stdout.write(f"{page.facts(results.facts)}\n\n{tables(results)}")
    if given.docs:
        page.write(results)


if __name__ == "__main__":
    main()
