"""Owns the command line and the order of a run; knows neither what a row does nor what must hold."""

import argparse
import asyncio
import os
import platform
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from judging import SoakRow
from rows import ROWS

DESCRIPTION = """\
Run a manifold for minutes under load and faults, as a process of its own, in front of real servers, and say
what it held and took: errors, times, memory, descriptors, tasks, processor time at rest.
"""
EPILOG = """\
rows (the numbers are those of docs/reliability.md):
  R1    20 calls in flight, kill -9 of their stdio server: errors, next call
  R16   a spike of 0 -> 500 -> 0 clients, ten times
  R17   30,000 sessions opened and closed: memory
  R27   reloads at 200 calls a second: added, changed, removed, bad and half-written files
  R36   a soak at about 30 % of the possible load, random faults at three of five servers

After each: I1 who is not concerned noticed nothing, I2 nothing stays, I3 no error or traceback in the log,
I4 it is idle at rest, I5 everybody heard the answer to what they said. For I1, 99 of 100 calls must take at most
twice as long as when nothing is wrong (or 20 ms more): on a machine that has other things to do, look at the
figures before you believe that one.

examples:
  scripts/soak                                  all rows, ten minutes for R27 and R36 together
  scripts/soak --duration 8h --rows R36         over night
  scripts/soak --scale 0.05 --duration 30s      a quick look at whether everything runs
  scripts/soak --report soak.md                 the report into a file as well

exit code: 0 everything held, 1 something did not, 2 the command line is wrong.
"""
UNITS = {"s": 1, "m": 60, "h": 3600}


def duration(text: str) -> float:
    """Seconds, from a number with a unit."""
    if text[-1:] not in UNITS:
        raise argparse.ArgumentTypeError(f"a number with a unit, such as 90s, 10m or 8h, not {text!r}")
    return float(text[:-1]) * UNITS[text[-1]]


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="soak", description=DESCRIPTION, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    option = parser.add_argument
    option("--rows", nargs="+", choices=tuple(ROWS), default=tuple(ROWS), help="only these (default: all)")
    option("--duration", type=duration, default="10m", metavar="TIME", help="of R27 (a quarter) and R36 (default: 10m)")
    option("--scale", type=float, default=1.0, metavar="X", help="of the clients, sessions and kills (default: 1)")
    option("--report", type=Path, metavar="FILE", help="write the report into FILE as well")
    return parser.parse_args(argv)


async def run(options: argparse.Namespace) -> list[tuple[SoakRow, float]]:
    """The rows in order, each with the seconds it took."""
    done = []
    parts = sum(ROWS[id_][2] for id_ in options.rows) or 1
    for id_ in options.rows:
        what, does, part = ROWS[id_]
        row, began = SoakRow(id_, what), time.monotonic()
        print(f"soak: {id_}, {what}", file=sys.stderr, flush=True)
        await does(row, options.duration * part / parts, options.scale)
        done.append((row, time.monotonic() - began))
        print(f"soak: {id_} {verdict(row)}", file=sys.stderr, flush=True)
    return done


def verdict(row: SoakRow) -> str:
    return "held" if not row.broken else f"did not hold: {'; '.join(row.broken)}"


def report(done: Sequence[tuple[SoakRow, float]]) -> str:
    """What came of it, in Markdown."""
    where = f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors, Python {platform.python_version()}"
    lines = [f"{where}; the clients, the servers and the manifold shared them.", ""]
    for row, seconds in done:
        lines += [f"#### {row.id}: {row.what}: {'held' if not row.broken else 'did not hold'} ({seconds:.0f} s)", ""]
        lines += [f"- {'' if figure not in row.broken else '**not held** '}{figure}" for figure in row.figures]
        lines += [""]
    return "\n".join(lines)


def main(argv: Sequence[str]) -> int:
    options = parse(argv)
    done = asyncio.run(run(options))
    text = report(done)
    print(text)
    if options.report is not None:
        options.report.write_text(text)
    return 1 if any(row.broken for row, _ in done) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
