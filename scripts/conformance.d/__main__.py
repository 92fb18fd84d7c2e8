"""Owns the command line and the order of a run; knows neither what a verdict means nor how to get one."""

import argparse
import contextlib
import dataclasses
import json
import os
import sys
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import driving
import processes
from comparison import DIRECT, ScenarioRow, expectations, is_expected, render
from suite import LEGS, Chosen, Leg, Suite, choose, progress

DESCRIPTION = """\
Run the official MCP conformance suite against a backend directly and against the same backend behind
mcp-manifold, and compare the two check by check. What the backend passes directly has to pass through.

The stable suite speaks 2025-11-25. So does alpha, with wire checks, and 2026-07-28.
"""
EPILOG = """\
ways:
  direct   the backend itself
  one      a manifold with that backend alone, prefix ""
  three    a manifold with that backend (prefix "") and two more of its kind under prefixes

ways with --client (the suite's mock server judges what the manifold sends it):
  inside      the manifold is used as a library
  handshake   a client of 2025-11-25 uses the manifold's HTTP front
  modern      a client of 2026-07-28 uses it

examples:
  scripts/conformance                                 everything: both releases, direct and one
  scripts/conformance --ways direct                   is the backend itself all right?
  scripts/conformance --suite stable --ways direct one three
  scripts/conformance --suite alpha --scenario server-stateless 'tools-*'
  scripts/conformance --client --suite alpha --scenario 'http-*'

A table cell is checks succeeded/checks counted. LOST names a check that is worse through than directly. INFO
is as good as SUCCESS (a remark on something optional), an absent or skipped check is not. What may be lost,
and why, stands in conformance.d/expectations.toml.

exit code: 0 nothing unexpected was lost (--client: failed), 1 something was or could not be run, 2 the command
line is wrong.
The suite (npm) and its Node (PyPI) are kept in ${XDG_CACHE_HOME:-~/.cache}/mcp-manifold-conformance.
"""
WAYS = (DIRECT, "one", "three")
Results = Mapping[Leg, Sequence[ScenarioRow]]


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="conformance", description=DESCRIPTION, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    ways, option = (*WAYS, *driving.WAYS), parser.add_argument
    option("--suite", choices=tuple(LEGS), default="both", help="the release: see above (default: %(default)s)")
    option("--ways", nargs="+", choices=ways, help="direct always runs (default: direct one; with --client all three)")
    option("--scenario", nargs="+", default=[], metavar="NAME", help="only these; shell patterns are understood")
    option("--backend", default="everything", metavar="URL", help="a running server on loopback, not the project's own")
    option("--client", action="store_true", help="judge what the manifold sends to servers instead")
    option("--list", action="store_true", help="name the scenarios of the chosen suite and end")
    option("--json", type=Path, metavar="FILE", help="write every check of every way to FILE as well")
    option("--timeout", type=float, default=180.0, metavar="SECONDS", help="bound of one run (default: %(default).0f)")
    options = parser.parse_args(argv)
    if options.backend != "everything" and not options.backend.startswith(("http://", "https://")):
        parser.error(f"--backend is 'everything' or a URL, not {options.backend!r}")
    if options.client and options.backend != "everything":
        parser.error("--client has the suite's own servers and goes with no --backend")
    options.ways = options.ways or (driving.WAYS if options.client else WAYS[:2])
    if foreign := set(options.ways).difference(driving.WAYS if options.client else WAYS):
        parser.error(f"--ways {' '.join(sorted(foreign))} goes only {'without' if options.client else 'with'} --client")
    return options


def selection(suite: Suite, options: argparse.Namespace) -> dict[Leg, list[str]]:
    """The scenarios to run by leg; a leg without any is left out."""
    chosen = {}
    for leg in LEGS[options.suite]:
        suite.install(leg.version)
        known = driving.covered(suite.scenarios(leg, "client")) if options.client else suite.scenarios(leg)
        if names := choose(known, options.scenario):
            chosen[leg] = names
    if not chosen:
        raise SystemExit(f"conformance: no scenario matches {' '.join(options.scenario)}; see --list")
    return chosen


def show(suite: Suite, chosen: Chosen, side: str) -> None:
    for leg, names in chosen.items():
        scored = suite.scored(leg, side)
        print(f"{leg}: {len(names)} scenarios, {len(scored.intersection(names))} of them scored")
        for name in names:
            print(f"  {name}" + ("" if name in scored else "   not scored"))


def gather(suite: Suite, options: argparse.Namespace, chosen: Chosen, ways: Sequence[str]) -> Results:
    """Run every leg in every way. One backend serves all ways, so only the way differs."""
    checks: dict[tuple[Leg, str], dict[str, Any]] = {}
    with contextlib.ExitStack() as stack:
        url = options.backend if options.backend != "everything" else stack.enter_context(processes.backend())
        for way in ways:
            with contextlib.ExitStack() as opened:
                others = ("second", "third") if way == "three" else ()
                urls = {"everything": url} | {name: opened.enter_context(processes.backend()) for name in others}
                behind = processes.manifold(urls, probed=options.backend == "everything")
                target = url if way == DIRECT else opened.enter_context(behind)
                for leg, names in chosen.items():
                    progress(f"{leg}, {way}: {len(names)} scenarios")
                    checks[leg, way] = suite.run(leg, target, names, options.timeout)
    return {
        leg: [ScenarioRow(n, n in suite.scored(leg), {w: checks[leg, w][n] for w in ways}) for n in names]
        for leg, names in chosen.items()
    }


def report(results: Results, expected: Mapping[str, str], ways: Sequence[str]) -> int:
    """Print the tables; the number of losses that no expectation names."""
    losses = [(row.scenario, loss) for rows in results.values() for row in rows for w in ways for loss in row.losses(w)]
    for leg, rows in results.items():
        print(render(str(leg), rows, ways, expected), end="\n\n")
    unexpected = sum(not is_expected(expected, *each) for each in losses)
    if list(ways) == [DIRECT]:
        print("only the backend itself was run, so there was nothing to compare")
    else:
        print(f"{unexpected or 'no'} checks were lost unexpectedly")
    return unexpected


def show_met(results: Results, expected: Mapping[str, str], ways: Sequence[str]) -> None:
    """Name the expectations that nothing met, after a complete run."""
    rows = [row for rows in results.values() for row in rows]
    met = {key for row in rows for w in ways for loss in row.losses(w) for key in expectations(row.scenario, loss)}
    for name in sorted(set(expected) - met):
        print(f"no longer lost, remove it from expectations.toml: {name}")


def as_json(results: Results, expected: Mapping[str, str]) -> dict[str, Any]:
    found = {leg: [_scenario(row, expected) for row in rows] for leg, rows in results.items()}
    return {"legs": [{"suite": leg.version, "revision": leg.revision, "scenarios": found[leg]} for leg in found]}


def _scenario(row: ScenarioRow, expected: Mapping[str, str]) -> dict[str, Any]:
    losses = [
        {"way": way, "expected": is_expected(expected, row.scenario, loss), **dataclasses.asdict(loss)}
        for way in row.checks
        for loss in row.losses(way)
    ]
    checks = {way: [dataclasses.asdict(c) for c in found] for way, found in row.checks.items()}
    return {"scenario": row.scenario, "scored": row.scored, "checks": checks, "lost": losses}


def main(argv: Sequence[str]) -> int:
    options = parse(argv)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mcp-manifold-conformance"
    cache.mkdir(parents=True, exist_ok=True)
    suite = Suite(cache)
    chosen = selection(suite, options)
    if options.list:
        show(suite, chosen, "client" if options.client else "server")
        return 0
    expected = tomllib.loads((processes.HERE / "expectations.toml").read_text())
    expected_of_client: dict[str, str] = expected.pop("client", {})
    if options.client:
        expected, every, ways = expected_of_client, driving.WAYS, [w for w in driving.WAYS if w in options.ways]
        results = driving.gather(suite, chosen, ways, options.timeout)
    else:
        every, ways = WAYS[:2], [DIRECT, *(w for w in WAYS[1:] if w in options.ways)]
        results = gather(suite, options, chosen, ways)
    if options.json is not None:
        options.json.write_text(json.dumps(as_json(results, expected), indent=2) + "\n")
    unexpected = report(results, expected, ways)
    if options.suite == "both" and not options.scenario and set(every) <= set(ways):
        show_met(results, expected, ways)
    return 1 if unexpected else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
