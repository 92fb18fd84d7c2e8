"""Tries guards and mutations, and prints those that no test notices. See scripts/mutants."""

import argparse
import sys
import time
from collections.abc import Callable, Sequence

import sample
from guards import GUARDS
from trial import Change, Verdict, try_all


def report(verdict: Verdict) -> None:
    """Print one line."""
    print(f"{'killed  ' if verdict.is_killed else 'SURVIVED'}  {verdict.change.name}", flush=True)


def never(change: Change) -> bool:
    """Whether a guard may be removed unnoticed."""
    return False


def tried(what: str, changes: Sequence[Change], may_survive: Callable[[Change], bool]) -> int:
    """Try the changes, name the survivors, and return the number of those that may not survive."""
    began = time.monotonic()
    survivors = [each.change for each in try_all(changes, report) if not each.is_killed]
    forbidden = [each for each in survivors if not may_survive(each)]
    took = time.monotonic() - began
    print(f"{what}: {len(changes)} tried, {len(survivors)} survived, {len(forbidden)} of them must not, {took:.0f} s")
    for change in survivors:
        print(f"{'must not' if change in forbidden else 'may     '}  {change.name}")
    return len(forbidden)


def main() -> int:
    """Exit code: 1 if something survived that may not."""
    parser = argparse.ArgumentParser(
        prog="scripts/mutants",
        description="Change a copy of the source, one place at a time, and report the changes that no test notices.",
        epilog="Without an option: all guards, then a sample of 100. Exits with 1 if something survived that must not.",
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--guards",
        nargs="?",
        const="",
        metavar="TEXT",
        help="only guards removed by hand, with this text in their name",
    )
    which.add_argument("--sample", nargs="?", const=100, type=int, metavar="N", help="only N random mutations (100)")
    which.add_argument(
        "--all", nargs="?", const="", metavar="TEXT",
        help="every mutation of the modules in which none may survive, or of those with this text in their path; "
        "takes about an hour",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=sample.SEED, help="draws another sample")
    options = parser.parse_args()
    bad = 0
    if lines := sample.stale():
        raise SystemExit(f"EQUIVALENT of sample.py names lines that are gone: {lines}")
    if options.all is not None:
        return 1 if tried("all", sample.all_mutations(options.all), sample.may_survive) else 0
    if options.sample is None:
        guards = [guard.change() for guard in GUARDS if (options.guards or "") in guard.name]
        bad += tried("guards", guards, never)
    if options.guards is None:
        bad += tried("sample", sample.mutations(options.sample or 100, options.seed), sample.may_survive)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
