"""The behaviours mcp-manifold promises at its fronts, read from behaviours.toml, and the mark of their tests."""

import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Behaviour:
    """One promise. `source` is a section of the specification (with the revision) or a decision of the design."""

    feature: str
    id: str
    source: str
    says: str


@dataclass(frozen=True, slots=True)
class Absent:
    """Promises that the fronts and revisions in `columns` cannot have, and why."""

    ids: str
    columns: tuple[str, ...]
    why: str


COLUMNS: Final = ("stdio", "HTTP", "SSE", "stdio 2026", "HTTP 2026")
_TABLE: Final = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
ABSENT: Final = tuple(Absent(row["ids"], tuple(row["columns"]), row["why"]) for row in _TABLE.pop("absent"))
BEHAVIOURS: Final = tuple(
    Behaviour(feature, id_, *row) for feature, rows in _TABLE.items() for id_, row in rows.items()
)


def shows(*ids: str) -> Callable[[F], F]:
    """Mark a test as one that shows these behaviours."""

    def mark(test: F) -> F:
        test.behaviours = ids  # type: ignore[attr-defined]  # read by `table.every_test`
        return test

    return mark
