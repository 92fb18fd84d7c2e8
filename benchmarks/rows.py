"""Results: one row per peer, cell and round, and the facts of the run. They are stored as JSON after every row."""

import json
import os
import platform
import statistics
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Self

Figures = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Row:
    """One measurement, or the reason of its absence."""

    scenario: str
    cell: str
    peer: str
    round: int
    figures: Figures = field(default_factory=dict)
    failed: str = ""


@dataclass(frozen=True, slots=True)
class Facts:
    """The facts a reader needs to repeat a run."""

    date: str
    machine: str
    processors: int
    python: str
    commit: str
    rounds: int
    seconds: float
    versions: Mapping[str, str]
    labels: Mapping[str, str]

    @classmethod
    def now(cls, **given: Any) -> Self:
        """The facts of a run that starts now: those given, and those of this machine."""
        date, machine = time.strftime("%Y-%m-%d", time.gmtime()), f"{platform.system()} {platform.machine()}"
        python, processors = platform.python_version(), os.cpu_count() or 0
        return cls(date=date, machine=machine, processors=processors, python=python, **given)

    def joined(self, other: "Facts") -> "Facts":
        """These facts, with the peers of another run added."""
        versions, labels = {**other.versions, **self.versions}, {**other.labels, **self.labels}
        return replace(self, versions=versions, labels=labels)


class Results:
    """The rows of a run, stored in a file if one is given."""

    def __init__(self, facts: Facts, rows: Iterable[Row] = (), path: Path | None = None) -> None:
        self.facts = facts
        self.rows = list(rows)
        self._path = path

    @classmethod
    def read(cls, path: Path) -> Self:
        """The results in a file."""
        found: dict[str, Any] = json.loads(path.read_text())
        return cls(Facts(**found["facts"]), (Row(**row) for row in found["rows"]))

    def add(self, row: Row) -> None:
        """Add a row and store it, so that an interrupted run keeps its rows."""
        self.rows.append(row)
        if self._path is not None:
            self._path.write_text(json.dumps({"facts": asdict(self.facts), "rows": [asdict(row) for row in self.rows]}))

    def cells(self, scenario: str) -> list[str]:
        """The cells of a scenario, in the order of measurement."""
        return list(dict.fromkeys(row.cell for row in self.rows if row.scenario == scenario))

    def of(self, scenario: str, cell: str) -> dict[str, list[Row]]:
        """A cell's rows, by peer."""
        found: dict[str, list[Row]] = {}
        for row in self.rows:
            if (row.scenario, row.cell) == (scenario, cell):
                found.setdefault(row.peer, []).append(row)
        return found

    def median(self, scenario: str, cell: str, peer: str, figure: str) -> float | None:
        """The median of a figure over the rounds; None if no round has it."""
        return median(self.of(scenario, cell).get(peer, []), figure)


def median(rows: Iterable[Row], figure: str) -> float | None:
    """The median of a figure; None if no row has it."""
    values = [row.figures[figure] for row in rows if row.figures.get(figure) is not None]
    return statistics.median(values) if values else None
