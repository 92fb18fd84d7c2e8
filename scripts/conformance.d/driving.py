"""Owns the suite's client scenarios, in which the manifold is the client: which are run, how, what failed.

Knows nothing of what a scenario asks for (driver.py) nor of the comparison with a backend alone.
"""

import argparse
import dataclasses
import json
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence

from comparison import Check, ScenarioRow, fraction, passes
from processes import HERE
from suite import Leg, Suite, progress

WAYS = ("inside", "handshake", "modern")
INTERACTIVE = ("elicitation-sep1034-client-defaults", "sep-2322-client-request-state")  # nobody to ask inside
NOT_COVERED = {
    "auth/": "OAuth towards backends",
    "sep-2640-": "what a host does with the skills it reads",
}

Failure = tuple[str, Check]


def covered(names: Iterable[str]) -> list[str]:
    return [name for name in names if not name.startswith(tuple(NOT_COVERED))]


def judge(
    suite: Suite, chosen: Mapping[Leg, Sequence[str]], options: argparse.Namespace, expected: Mapping[str, str]
) -> int:
    """Run the scenarios and print what came of it; returns the exit code."""
    ways = [way for way in WAYS if way in options.ways]
    results = {leg: _driven(suite, leg, names, ways, options.timeout) for leg, names in chosen.items()}
    for leg, rows in results.items():
        print("\n".join(_table(str(leg), rows, ways, expected)), end="\n\n")
        for prefix, what in NOT_COVERED.items():
            if hidden := [name for name in suite.scenarios(leg, "client") if name.startswith(prefix)]:
                print(f"  not covered: {len(hidden)} scenarios {prefix}* ({what})")
        print()
    if options.json is not None:
        options.json.write_text(json.dumps(_as_json(results), indent=2) + "\n")
    return _concluded([row for rows in results.values() for row in rows], expected, options)


def failures(row: ScenarioRow) -> list[Failure]:
    """What went wrong in a scenario, by way."""
    return [(way, c) for way, checks in row.checks.items() for c in checks if c.status in ("WARNING", "FAILURE")]


def is_expected(expected: Mapping[str, str], scenario: str, check: Check) -> bool:
    return any(key in expected for key in _keys(scenario, check))


def _keys(scenario: str, check: Check) -> tuple[str, ...]:
    return (scenario, f"{scenario}:{check.id}", f"{scenario}:{check.name}")


def _driven(suite: Suite, leg: Leg, names: Sequence[str], ways: Sequence[str], seconds: float) -> list[ScenarioRow]:
    scored = suite.scored(leg, "client")
    rows = []
    for name in names:
        progress(f"{leg}, client: {name}")
        able = [way for way in ways if way != "inside" or name not in INTERACTIVE]
        checks = {way: suite.drive(leg, _command(way), name, seconds) for way in able}
        rows.append(ScenarioRow(name, name in scored, checks))
    return rows


def _command(way: str) -> str:
    words = (sys.executable, str(HERE / "driver.py"), way)
    return shlex.join(words)


def _table(title: str, rows: Sequence[ScenarioRow], ways: Sequence[str], expected: Mapping[str, str]) -> list[str]:
    width = max(len(words) for words in (title, *(row.scenario for row in rows))) + 4
    lines = [f"{title:<{width}}" + "".join(f"{way:>11}" for way in ways)]
    for row in rows:
        cells = "".join(f"{fraction(row.checks[way]) if way in row.checks else '-':>11}" for way in ways)
        lines.append(f"  {row.scenario:<{width - 2}}{cells}" + ("" if row.scored else "   not scored"))
        lines += [_failure_line(row.scenario, way, check, expected) for way, check in failures(row)]
    passed = (sum(passes(row.checks[w]) for row in rows if w in row.checks) for w in ways)
    run = [sum(w in row.checks for row in rows) for w in ways]
    cells = "".join(f"{f'{good}/{all_}':>11}" for good, all_ in zip(passed, run, strict=True))
    return [*lines, f"  {'= scenarios that pass':<{width - 2}}{cells}"]


def _failure_line(scenario: str, way: str, check: Check, expected: Mapping[str, str]) -> str:
    words = "failed, as expected" if is_expected(expected, scenario, check) else check.status
    return f"      {way}: {words}: {check.id} {check.name}: {' '.join(check.error.split())}"


def _concluded(rows: Sequence[ScenarioRow], expected: Mapping[str, str], options: argparse.Namespace) -> int:
    failed = [(row.scenario, check) for row in rows for _, check in failures(row)]
    if options.suite == "both" and not options.scenario and set(options.ways) == set(WAYS):
        met = {key for scenario, check in failed for key in _keys(scenario, check)}
        for name in sorted(set(expected) - met):
            print(f"no longer failed, remove it from expectations.toml: client: {name}")
    unexpected = sum(not is_expected(expected, scenario, check) for scenario, check in failed)
    print(f"{unexpected or 'no'} checks failed unexpectedly")
    return 1 if unexpected else 0


def _as_json(results: Mapping[Leg, Sequence[ScenarioRow]]) -> dict[str, object]:
    legs = [
        {"suite": leg.version, "revision": leg.revision, "scenarios": [dataclasses.asdict(row) for row in rows]}
        for leg, rows in results.items()
    ]
    return {"legs": legs}
