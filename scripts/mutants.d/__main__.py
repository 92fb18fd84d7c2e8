"""Tries guards and mutations, and prints those that no test notices. See scripts/mutants."""

import argparse
import sys
import time

import sample
from guards import GUARDS
from trial import Verdict, try_all


def report(verdict: Verdict) -> None:
    """Print one line."""
    print(f"{'killed  ' if verdict.is_killed else 'SURVIVED'}  {verdict.change.name}", flush=True)


def main() -> int:
    """Exit code: 1 if something survived that may not."""
    parser = argparse.ArgumentParser(prog="scripts/mutants")
    parser.add_argument("--guards", nargs="?", const="", help="only guards, with this text in their name")
    parser.add_argument("--sample", nargs="?", const=100, type=int, help="only a sample, of this size")
    options = parser.parse_args()
    both = options.guards is None and options.sample is None
    began, bad = time.monotonic(), 0
    if both or options.guards is not None:
        guards = [guard.change() for guard in GUARDS if (options.guards or "") in guard.name]
        survivors = [each for each in try_all(guards, report) if not each.is_killed]
        print(f"guards: {len(guards)} removed, {len(survivors)} survived, after {time.monotonic() - began:.0f} s")
        bad += len(survivors)
    if both or options.sample is not None:
        changes = sample.mutations(options.sample or 100)
        survivors = [each for each in try_all(changes, report) if not each.is_killed]
        strict = [each for each in survivors if not sample.may_survive(each.change)]
        print(f"sample: {len(changes)} mutations, {len(survivors)} survived, {len(strict)} of them where none may")
        print("\n".join(each.change.name for each in survivors))
        bad += len(strict)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
