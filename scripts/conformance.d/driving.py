"""The suite's client scenarios, in which the manifold is the client: their selection, run and failures."""

import argparse
import dataclasses
import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from functools import partial

from comparison import Check, Row, short, table
from processes import HERE, ROOT
from suite import Leg, Suite, progress

WAYS = ("inside", "handshake", "modern")
INTERACTIVE = ("elicitation-sep1034-client-defaults", "sep-2322-client-request-state")  # nobody to ask inside
NOT_COVERED = {
    "auth/": "OAuth towards backends",
    "sep-2640-": "what a host does with the skills it reads",
}


def covered(names: Iterable[str]) -> list[str]:
    return [name for name in names if not name.startswith(tuple(NOT_COVERED))]


def judge(
    suite: Suite, chosen: Mapping[Leg, Sequence[str]], options: argparse.Namespace, expected: Mapping[str, str]
) -> int:
    """Run the scenarios and print what came of it; returns the exit code."""
    ways = [way for way in WAYS if way in options.ways]
    results = {leg: _driven(suite, leg, names, ways, options.timeout) for leg, names in chosen.items()}
    for leg, rows in results.items():
        print("\n".join(table(str(leg), rows, ways, partial(_failure_lines, expected=expected))), end="\n\n")
        for prefix, what in NOT_COVERED.items():
            if hidden := [name for name in suite.scenarios(leg, "client") if name.startswith(prefix)]:
                print(f"  not covered: {len(hidden)} scenarios {prefix}* ({what})")
        print()
    if options.json is not None:
        options.json.write_text(json.dumps(_as_json(results), indent=2) + "\n")
    return _concluded([row for rows in results.values() for row in rows], expected, options)


def is_expected(expected: Mapping[str, str], scenario: str, check: Check) -> bool:
    return any(key in expected for key in _keys(scenario, check))


def _keys(scenario: str, check: Check) -> tuple[str, ...]:
    return (scenario, f"{scenario}:{check.id}", f"{scenario}:{check.name}")


def _driven(suite: Suite, leg: Leg, names: Sequence[str], ways: Sequence[str], seconds: float) -> list[Row]:
    scored = suite.scored(leg, "client")
    rows = []
    for name in names:
        progress(f"{leg}, client: {name}")
        able = [way for way in ways if way != "inside" or name not in INTERACTIVE]
        checks = {way: suite.drive(leg, _command(way), name, seconds) for way in able}
        rows.append(Row(name, name in scored, checks))
    return rows


def _command(way: str) -> str:
    words = ("uv", "run", "--quiet", "--project", str(ROOT), "python", str(HERE / "driver.py"), way)
    return shlex.join(words)


def _failure_lines(row: Row, expected: Mapping[str, str]) -> list[str]:
    def line(way: str, check: Check) -> str:
        words = "failed, as expected" if is_expected(expected, row.scenario, check) else check.status
        return f"      {way}: {words}: {check.id} {check.name}: {short(check.error)}"

    return [line(way, check) for way, check in row.failures(WAYS)]


def _concluded(rows: Sequence[Row], expected: Mapping[str, str], options: argparse.Namespace) -> int:
    failed = [(row.scenario, check) for row in rows for _, check in row.failures(WAYS)]
    if options.suite == "both" and not options.scenario and set(options.ways) == set(WAYS):
        met = {key for scenario, check in failed for key in _keys(scenario, check)}
        for name in sorted(set(expected) - met):
            print(f"no longer failed, remove it from expectations.toml: client: {name}")
    unexpected = sum(not is_expected(expected, scenario, check) for scenario, check in failed)
    print(f"{unexpected or 'no'} checks failed unexpectedly")
    return 1 if unexpected else 0


def _as_json(results: Mapping[Leg, Sequence[Row]]) -> dict[str, object]:
    legs = [
        {"suite": leg.version, "revision": leg.revision, "scenarios": [dataclasses.asdict(row) for row in rows]}
        for leg, rows in results.items()
    ]
    return {"legs": legs}
