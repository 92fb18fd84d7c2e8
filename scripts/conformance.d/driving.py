"""The suite's client scenarios, in which the manifold is the client: which run, and how.

What a scenario asks for is in driver.py, what its checks mean in comparison.py.
"""

import shlex
import sys
from collections.abc import Iterable, Sequence

from comparison import ScenarioRow
from processes import HERE
from suite import Chosen, Leg, Suite, progress

WAYS = ("inside", "handshake", "modern")
INTERACTIVE = ("elicitation-sep1034-client-defaults", "sep-2322-client-request-state")  # nobody to ask inside
NOT_COVERED = {"auth/": "OAuth towards backends", "sep-2640-": "what a host does with the skills it reads"}


def covered(names: Iterable[str]) -> list[str]:
    """The scenarios that the driver can take part in."""
    return [name for name in names if not name.startswith(tuple(NOT_COVERED))]


def gather(suite: Suite, chosen: Chosen, ways: Sequence[str], seconds: float) -> dict[Leg, list[ScenarioRow]]:
    """Run the scenarios on every way that is able to."""
    results: dict[Leg, list[ScenarioRow]] = {}
    for leg, names in chosen.items():
        scored, rows = suite.scored(leg, "client"), results.setdefault(leg, [])
        for name in names:
            progress(f"{leg}, client: {name}")
            able = [way for way in ways if way != "inside" or name not in INTERACTIVE]
            checks = {way: suite.drive(leg, _command(way), name, seconds) for way in able}
            rows.append(ScenarioRow(name, name in scored, checks))
        for prefix, what in NOT_COVERED.items():
            if hidden := [name for name in suite.scenarios(leg, "client") if name.startswith(prefix)]:
                progress(f"{leg}, not covered: {len(hidden)} scenarios {prefix}* ({what})")
    return results


def _command(way: str) -> str:
    return shlex.join((sys.executable, str(HERE / "driver.py"), way))
