"""What "lost on the way through" means, and how it is shown; knows nothing of processes and files."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

DIRECT = "direct"

# How bad a status is. INFO is a remark on something optional, so it is as good as SUCCESS. SKIPPED is not:
# what the backend shows directly and the suite must skip through the manifold (a capability nobody declares
# there, say) is lost.
BADNESS = {"SUCCESS": 0, "INFO": 0, "SKIPPED": 1, "WARNING": 2, "FAILURE": 3}
SCENARIOS_PASS = "= scored scenarios that pass"
CHECKS_SUCCEED = "= checks that succeed"
BAD = ("WARNING", "FAILURE")
COUNTED = ("SUCCESS", *BAD)

Key = tuple[str, str, int]


@dataclass(frozen=True, slots=True)
class Check:
    """One verdict of one scenario."""

    id: str
    name: str
    status: str
    error: str = ""

    @property
    def badness(self) -> int:
        return BADNESS.get(self.status, BADNESS["FAILURE"])


@dataclass(frozen=True, slots=True)
class Loss:
    """A check that is worse through the manifold than directly, or that fails where there is nothing direct."""

    check: str
    name: str
    direct: str
    through: str
    error: str


@dataclass(frozen=True, slots=True)
class ScenarioRow:
    """One scenario of one leg: its checks by way. With a `direct` way the other ways are compared with it."""

    scenario: str
    scored: bool
    checks: Mapping[str, Sequence[Check]]

    def losses(self, way: str) -> list[Loss]:
        """What is lost, or fails, on one way; nothing where the scenario did not run."""
        if way == DIRECT or way not in self.checks:
            return []
        if DIRECT in self.checks:
            return lost(self.checks[DIRECT], self.checks[way])
        return [Loss(c.id, c.name, "", c.status, c.error) for c in self.checks[way] if c.status in BAD]


def keyed(checks: Iterable[Check]) -> dict[Key, Check]:
    """Checks by id, name and occurrence: a scenario may emit the same id many times."""
    seen: Counter[tuple[str, str]] = Counter()
    result: dict[Key, Check] = {}
    for check in checks:
        result[check.id, check.name, seen[check.id, check.name]] = check
        seen[check.id, check.name] += 1
    return result


def lost(direct: Sequence[Check], through: Sequence[Check]) -> list[Loss]:
    """What passes directly and does not pass through, and what fails through only."""
    before, after = keyed(direct), keyed(through)
    found = []
    for key in [*before, *(k for k in after if k not in before)]:
        was, now = before.get(key), after.get(key)
        missing = BADNESS["FAILURE"] if was is not None and was.status == "SUCCESS" else 0
        badness = now.badness if now is not None else missing
        if badness > (was.badness if was is not None else BADNESS["SKIPPED"]):
            error = now.error if now is not None else "the check was not reached"
            statuses = [c.status if c is not None else "absent" for c in (was, now)]
            found.append(Loss(key[0], key[1], statuses[0], statuses[1], error))
    return found


def is_expected(expected: Mapping[str, str], scenario: str, loss: Loss) -> bool:
    return any(key in expected for key in expectations(scenario, loss))


def expectations(scenario: str, loss: Loss) -> tuple[str, ...]:
    """The keys of expectations.toml that a loss can be expected by."""
    return scenario, f"{scenario}:{loss.check}", f"{scenario}:{loss.name}"


def passes(checks: Sequence[Check]) -> bool:
    """As the suite scores it: something succeeded and nothing failed."""
    return any(c.status == "SUCCESS" for c in checks) and all(c.status != "FAILURE" for c in checks)


def fraction(checks: Sequence[Check]) -> str:
    counted = [c for c in checks if c.status in COUNTED]
    return f"{sum(c.status == 'SUCCESS' for c in counted)}/{len(counted)}"


def render(title: str, rows: Sequence[ScenarioRow], ways: Sequence[str], expected: Mapping[str, str]) -> str:
    """One leg as a table: checks passed per scenario and way, what was lost below its scenario."""
    width = max(len(words) for words in (title, SCENARIOS_PASS, *(r.scenario for r in rows))) + 4
    lines = [f"{title:<{width}}" + "".join(f"{way:>11}" for way in ways)]
    for row in rows:
        cells = "".join(f"{fraction(row.checks[way]) if way in row.checks else '-':>11}" for way in ways)
        lines.append(f"  {row.scenario:<{width - 2}}{cells}" + ("" if row.scored else "   not scored"))
        lines += _bad_directly(row)
        for way in ways:
            lines += [_loss_line(row.scenario, way, loss, expected) for loss in row.losses(way)]
    return "\n".join([*lines, *_totals(rows, ways, width)])


def _bad_directly(row: ScenarioRow) -> list[str]:
    bad = [c for c in row.checks.get(DIRECT, ()) if c.status in BAD]
    return [f"      direct: {c.id} {c.name}: {c.status}: {_short(c.error)}" for c in bad]


def _loss_line(scenario: str, way: str, loss: Loss, expected: Mapping[str, str]) -> str:
    word = ("lost" if loss.direct else "failed") + ", as expected"
    word = word if is_expected(expected, scenario, loss) else word.partition(",")[0].upper()
    change = f"{loss.direct} -> {loss.through}" if loss.direct else loss.through
    return f"      {way}: {word}: {loss.check} {loss.name}: {change}: {_short(loss.error)}"


def _totals(rows: Sequence[ScenarioRow], ways: Sequence[str], width: int) -> list[str]:
    scored = [r for r in rows if r.scored]
    ran = {w: [r.checks[w] for r in scored if w in r.checks] for w in ways}
    cells = [f"{sum(map(passes, ran[w]))}/{len(ran[w])}" for w in ways]
    checks = [fraction([c for r in rows for c in r.checks.get(w, ())]) for w in ways]
    return [
        f"  {SCENARIOS_PASS:<{width - 2}}" + "".join(f"{c:>11}" for c in cells),
        f"  {CHECKS_SUCCEED:<{width - 2}}" + "".join(f"{c:>11}" for c in checks),
    ]


def _short(words: str, limit: int = 200) -> str:
    line = " ".join(words.split())
    return line if len(line) <= limit else line[: limit - 1] + "…"
