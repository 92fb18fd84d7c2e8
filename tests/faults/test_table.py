"""The table of faults in docs/reliability.md says what the tests here show, and nothing else."""

import re
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).resolve().parents[2]
PAGE: Final = (ROOT / "docs" / "reliability.md").read_text("utf-8")
ROWS: Final = re.findall(r"^\| (R\d+) \| (.+?) \| (pass|in part|does not apply) \| (.+) \|$", PAGE, re.M)
SHOWN: Final = {verdict: {row for row, _, found, _ in ROWS if found == verdict} for verdict in ("pass", "in part")}


def names() -> set[str]:
    """The names of all tests of faults."""
    files = (ROOT / "tests" / "faults").glob("test_*.py")
    return {name for file in files for name in re.findall(r"^(?:async )?def (test_\w+)", file.read_text("utf-8"), re.M)}


def test_every_fault_has_its_row() -> None:
    assert [row for row, *_ in ROWS] == [f"R{number}" for number in range(1, 38)]


@pytest.mark.parametrize(("row", "verdict", "shown"), [(row, verdict, shown) for row, _, verdict, shown in ROWS])
def test_what_a_row_names_is_there(row: str, verdict: str, shown: str) -> None:
    named = set(re.findall(r"`(test_\w+)`", shown))
    assert named <= names()
    assert all(name.startswith(f"test_{row.lower()}_") for name in named)
    assert named or verdict != "pass", "what passes has a test"
    assert all((ROOT / path).exists() for path in re.findall(r"`((?:scripts|tests)/[\w/.]+)`", shown))


def test_what_has_a_test_is_not_said_to_be_untried() -> None:
    tried = {f"R{number}" for name in names() for number in re.findall(r"^test_r(\d+)_", name)}
    assert tried <= SHOWN["pass"] | SHOWN["in part"]
