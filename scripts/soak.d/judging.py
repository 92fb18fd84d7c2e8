"""What a row came to: figures, and what of it did not hold. Measures nothing itself but rest."""

import asyncio
import statistics
from dataclasses import dataclass, field

from load import CallLoad
from manifold import Sample, Site

SLACK = 8  # descriptors, threads and tasks more than before that are connections kept for the next request
IDLE = 0.02  # part of a processor that is still idle (I4)
SETTLE_SECONDS = 30.0
"""Time to come to rest: idle connections are kept for some seconds, links that clients left are closed after that."""


@dataclass(slots=True)
class SoakRow:
    """One row of the table, as far as it was run."""

    id: str
    what: str
    figures: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)

    def note(self, text: str) -> None:
        """A figure for the report."""
        self.figures.append(text)

    def require(self, holds: bool, text: str) -> None:
        """Something that has to hold, with its figure."""
        self.figures.append(text)
        if not holds:
            self.broken.append(text)


async def rest(site: Site, seconds: float = 2.0) -> float:
    """The part of a processor it takes while nothing is asked of it."""
    before = await site.sample()
    await asyncio.sleep(seconds)
    after = await site.sample()
    return (after.processor - before.processor) / (after.at - before.at)


async def settled(site: Site, base: Sample) -> tuple[Sample, float]:
    """What it holds and takes once it came to rest, or after the time that may take."""
    for _ in range(int(SETTLE_SECONDS / 2)):
        idle = await rest(site)
        now = await site.sample()
        if idle <= IDLE and not grown(base, now):
            break
    return now, idle


def grown(base: Sample, now: Sample) -> list[str]:
    """What there is more of than before (I2)."""
    names = ("descriptors", "threads", "tasks")
    found = [name for name in names if getattr(now, name) > getattr(base, name) + SLACK]
    return found + (["children"] if now.children > base.children else [])


async def judge_rest(row: SoakRow, site: Site, base: Sample) -> None:
    """I2, I3 and I4: nothing stays, nobody stumbled, nothing spins."""
    now, idle = await settled(site, base)
    more = grown(base, now)
    row.require(not more, f"I2: {counts(base)} before, {counts(now)} after")
    stumbles = site.program.stumbled()
    row.require(not stumbles, f"I3: {len(stumbles)} tracebacks or errors in the log{first(stumbles)}")
    row.require(idle <= IDLE, f"I4: {idle * 100:.1f} % of a processor at rest")
    dead = site.zombies()
    row.require(not dead, f"I2: {len(dead)} zombies")


def counts(sample: Sample) -> str:
    """What it holds, in words."""
    return (
        f"{sample.descriptors} descriptors, {sample.threads} threads, {sample.tasks} tasks, {sample.children} children"
    )


def judge_untouched(row: SoakRow, load: CallLoad, servers: list[str], base: float, calm: dict[str, int]) -> None:
    """I1 and I5: who is not concerned noticed nothing, and everybody heard what they said."""
    for server in servers:
        outcome = load.outcomes[server]
        wrong = [*outcome.failed, *outcome.strange]
        row.require(not wrong, f"I1: {server}: {outcome.served} calls, {len(wrong)} errors{first(wrong)}")
        p99 = outcome.p99(calm.get(server, 0))
        row.require(
            p99 <= max(2 * base, base + 0.02),
            f"I1: {server}: 99 % within {p99 * 1000:.1f} ms, {base * 1000:.1f} ms when nothing was wrong",
        )
    strange = [f"{server}: {each}" for server, outcome in load.outcomes.items() for each in outcome.strange]
    row.require(
        not strange, f"I5: {len(strange)} answers that were not the caller's own, or named nobody{first(strange)}"
    )


def first(found: list[str]) -> str:
    """The first of what was found, to be put behind a figure."""
    return f", the first: {found[0]}" if found else ""


def slope(points: list[tuple[float, float]]) -> float:
    """The slope of the straight line through points."""
    across, up = zip(*points, strict=True)
    return statistics.linear_regression(across, up).slope if len(set(across)) > 1 else 0.0
