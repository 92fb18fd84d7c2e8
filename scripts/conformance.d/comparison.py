"""The comparison of checks: what counts as lost through the manifold, and the tables that show it."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

DIRECT = "direct"

# How bad a status is. INFO is a remark on something optional, so it is as good as SUCCESS. SKIPPED is not:
# what the backend shows directly and the suite must skip through the manifold (a capability nobody declares
# there, say) is lost.
BADNESS = {"SUCCESS": 0, "INFO": 0, "SKIPPED": 1, "WARNING": 2, "FAILURE": 3}
SCENARIOS_PASS = "= scored scenarios that pass"
CHECKS_SUCCEED = "= checks that succeed"
COUNTED = ("SUCCESS", "WARNING", "FAILURE")

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
    """A check that is worse through the manifold than directly."""

    check: str
    name: str
    direct: str
    through: str
    error: str


@dataclass(frozen=True, slots=True)
class Row:
    """One scenario of one leg: its checks by way (`direct` and the manifolds)."""

    scenario: str
    scored: bool
    checks: Mapping[str, Sequence[Check]]

    def losses(self, way: str) -> list[Loss]:
        """What is worse in this way than directly."""
        return lost(self.checks[DIRECT], self.checks[way])

    def failures(self, ways: Iterable[str]) -> list[tuple[str, Check]]:
        """The checks that warn or fail, with their way."""
        return [(way, c) for way in ways for c in self.checks.get(way, ()) if c.status in ("WARNING", "FAILURE")]


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
    return scenario in expected or f"{scenario}:{loss.check}" in expected


def passes(checks: Sequence[Check]) -> bool:
    """As the suite scores it: something succeeded and nothing failed."""
    return any(c.status == "SUCCESS" for c in checks) and all(c.status != "FAILURE" for c in checks)


def fraction(checks: Sequence[Check]) -> str:
    counted = [c for c in checks if c.status in COUNTED]
    return f"{sum(c.status == 'SUCCESS' for c in counted)}/{len(counted)}"


def table(title: str, rows: Sequence[Row], ways: Sequence[str], below: Callable[[Row], list[str]]) -> list[str]:
    """The lines of one leg: checks passed by scenario and way, each scenario's remarks below it, scenarios passed."""
    width = max(len(words) for words in (title, SCENARIOS_PASS, *(row.scenario for row in rows))) + 4
    lines = [_line(title, ways, width)]
    for row in rows:
        cells = [fraction(row.checks[way]) if way in row.checks else "-" for way in ways]
        lines.append(_line(f"  {row.scenario}", cells, width) + ("" if row.scored else "   not scored"))
        lines += below(row)
    counted = [[row.checks[way] for row in rows if row.scored and way in row.checks] for way in ways]
    passed = [f"{sum(map(passes, checks))}/{len(checks)}" for checks in counted]
    checks = [fraction([c for row in rows for c in row.checks.get(way, ())]) for way in ways]
    return [*lines, _line(f"  {SCENARIOS_PASS}", passed, width), _line(f"  {CHECKS_SUCCEED}", checks, width)]


def _line(head: str, cells: Sequence[str], width: int) -> str:
    return f"{head:<{width}}" + "".join(f"{cell:>11}" for cell in cells)


def render(title: str, rows: Sequence[Row], ways: Sequence[str], expected: Mapping[str, str]) -> str:
    """One leg as a table, with what was lost below its scenario."""

    def below(row: Row) -> list[str]:
        through = [way for way in ways if way != DIRECT]
        lost_ = [_loss_line(row.scenario, way, loss, expected) for way in through for loss in row.losses(way)]
        return [*_bad_directly(row), *lost_]

    return "\n".join(table(title, rows, ways, below))


def _bad_directly(row: Row) -> list[str]:
    return [f"      direct: {c.id} {c.name}: {c.status}: {short(c.error)}" for _, c in row.failures([DIRECT])]


def _loss_line(scenario: str, way: str, loss: Loss, expected: Mapping[str, str]) -> str:
    word = "lost, as expected" if is_expected(expected, scenario, loss) else "LOST"
    change = f"{loss.direct} -> {loss.through}"
    return f"      {way}: {word}: {loss.check} {loss.name}: {change}: {short(loss.error)}"


def short(words: str, limit: int = 200) -> str:
    """The words on one line of bounded length."""
    line = " ".join(words.split())
    return line if len(line) <= limit else line[: limit - 1] + "…"
