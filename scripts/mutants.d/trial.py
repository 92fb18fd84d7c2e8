"""A copy of the project with one place changed, and whether its tests notice."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).parents[2]
PACKAGE: Final = Path("src/mcp_manifold")
LIMIT: Final = 300
"""Seconds for the tests of one change; without it, a mutated loop would never end."""
WORKERS: Final = max(1, min(4, os.cpu_count() or 1))


class Change(NamedTuple):
    """One place to change: the whole mutated text of a file of the package, and the tests that must notice."""

    name: str
    file: str
    text: str
    tests: tuple[str, ...]


class Verdict(NamedTuple):
    """What came of a change."""

    change: Change
    is_killed: bool
    output: str


class Copy:
    """A copy of the project, in which one change at a time is tried."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        for name in ("src", "tests", "examples", "docs", "scripts", "benchmarks"):
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("node_modules", "__pycache__"))
        for path in ROOT.iterdir():
            if path.is_file() and not path.name.startswith("."):
                shutil.copy(path, folder)

    def __repr__(self) -> str:
        return f"<Copy {self._folder}>"

    def passes(self, tests: Sequence[str]) -> tuple[bool, str]:
        """Whether the tests pass, and what they print; a timeout is a failure."""
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-m", "not slow", *tests]
        environment = {**os.environ, "PYTHONPATH": str(self._folder / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
        try:
            done = subprocess.run(
                command, cwd=self._folder, env=environment, capture_output=True, text=True, timeout=LIMIT, check=False
            )
        except subprocess.TimeoutExpired:
            return False, f"no end within {LIMIT} s"
        return done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]

    def trial(self, change: Change) -> Verdict:
        """Change the file, run the tests, and restore the file."""
        path = self._folder / PACKAGE / change.file
        before = path.read_text("utf-8")
        path.write_text(change.text, "utf-8")
        try:
            passed, output = self.passes(change.tests)
        finally:
            path.write_text(before, "utf-8")
        return Verdict(change, not passed, output)


@contextmanager
def copies() -> Iterator[list[Copy]]:
    """One copy for each worker."""
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        made = []
        for number in range(WORKERS):
            place = Path(folder, str(number))
            place.mkdir()
            made.append(Copy(place))
        yield made


def try_all(changes: Sequence[Change], report: Callable[[Verdict], None]) -> list[Verdict]:
    """Try every change, several at a time; `report` is called for each, in order.

    Raises:
        SystemExit: the tests fail without any change, so they would tell nothing.
    """
    with copies() as made, ThreadPoolExecutor(len(made)) as pool:
        free: SimpleQueue[Copy] = SimpleQueue()
        for copy in made:
            free.put(copy)

        def green(test: str) -> tuple[bool, str]:
            copy = free.get()
            try:
                return copy.passes((test,))
            finally:
                free.put(copy)

        def tried(change: Change) -> Verdict:
            copy = free.get()
            try:
                return copy.trial(change)
            finally:
                free.put(copy)

        tests = _tests_of(changes)
        for test, (passed, output) in zip(tests, pool.map(green, tests), strict=True):
            if not passed:
                raise SystemExit(f"{test} fails without any change:\n{output}")
        verdicts = []
        for verdict in pool.map(tried, changes):
            report(verdict)
            verdicts.append(verdict)
        return verdicts


def _tests_of(changes: Sequence[Change]) -> list[str]:
    tests = list(dict.fromkeys(test for change in changes for test in change.tests))
    missing = [test for test in tests if not (ROOT / test.partition("::")[0]).exists()]
    if missing:
        raise SystemExit(f"there are no tests {', '.join(missing)}: they have moved")
    return tests
