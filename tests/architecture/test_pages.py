"""ARCHITECTURE.md and CONTRIBUTING.md say what is true: paths, packages, levels, nouns, names of steps, and gates."""

import ast
import importlib
import re
import tomllib
from collections.abc import Iterator
from typing import Final

import pytest

from tests.architecture.import_rules import LEVELS
from tests.architecture.source import ROOT, SOURCE, Function, dotted
from tests.architecture.test_rules import RULES, source

PAGE: Final = (ROOT / "ARCHITECTURE.md").read_text("utf-8")
CONTRIBUTING: Final = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
PAGE_LINES: Final = 120
NO_CLASS: Final = {"Lifecycle", "Naming", "Front", "Scope"}  # nouns that are a module, a package or a text


def defined() -> dict[str, set[str]]:
    """The classes of the package, and the names of what each defines: methods and attributes."""
    return {
        node.name: {part.name for part in ast.walk(node) if isinstance(part, Function)}
        | {dotted(item.target) for item in node.body if isinstance(item, ast.AnnAssign)}
        for module in source()
        for node in module.classes()
    }


def test_the_page_is_one_page() -> None:
    assert len(PAGE.splitlines()) <= PAGE_LINES


def test_every_path_on_the_pages_exists() -> None:
    packages = {f"{path.name}/" for path in SOURCE.rglob("*") if path.is_dir()}
    named = set(re.findall(r"`([\w./]+(?:\.py|\.md|\.toml|/))`", PAGE + CONTRIBUTING)) - packages
    gone = sorted(name for name in named if not (SOURCE / name).exists() and not (ROOT / name).exists())
    assert not gone, gone


def test_every_package_is_named() -> None:
    packages = {module.path.rpartition("/")[0] for module in source()} - {""}
    missing = [package for package in packages if package.count("/") < 2 and not _names(package)]
    assert not missing, f"ARCHITECTURE.md does not name {', '.join(sorted(missing))}"


def _names(package: str) -> bool:
    top, _, inner = package.partition("/")
    return f"`{top}/`" in PAGE and (f"`{inner}/`" in PAGE or f"{package}/" in PAGE or not inner)


def test_the_level_table_is_the_one_that_is_checked() -> None:
    rows = re.findall(r"^\| (\d) \| ([^|]+) \|", PAGE, re.M)
    page = {name.removesuffix(".py"): int(level) for level, cell in rows for name in re.findall(r"`([\w.]+)/?`", cell)}
    assert page == LEVELS


def test_every_noun_is_defined_where_the_page_says() -> None:
    rows = dict(re.findall(r"^\| \*\*(\w+)\*\* \| `([\w/.]+)` \|", PAGE, re.M))
    assert len(rows) >= 18
    homes = {node.name: module.path for module in source() for node in module.classes()}
    wrong = [noun for noun, path in rows.items() if noun not in NO_CLASS and homes.get(noun) != path]
    assert not wrong, f"not defined where the page says: {wrong}"
    assert all((SOURCE / rows[noun]).exists() for noun in NO_CLASS)


def test_every_owner_of_state_exists() -> None:
    section = PAGE.partition("## State")[2].partition("\n## ")[0]
    owners = set(re.findall(r"`([A-Z]\w+)`", section))
    assert owners
    assert owners <= defined().keys(), owners - defined().keys()


def test_the_sequence_of_a_call_has_true_names() -> None:
    classes = defined()
    diagram = PAGE.partition("```mermaid")[2].partition("```")[0]
    names = dict(re.findall(r"participant (\w) as (\w+)", diagram))
    assert set(names.values()) <= classes.keys()
    steps = re.findall(r"(\w)-{1,2}>>(\w): (.+)", diagram)
    assert len(steps) >= 15
    functions = {function.name for module in source() for function in module.functions()} | classes.keys()
    for _, receiver, text in steps:
        method = re.match(r"(\w+)\(", text)
        if method and method[1] not in classes[names[receiver]]:
            assert method[1] in ("plan", "on_result"), f"{names[receiver]} has no {method[1]}()"
        for owner, name in re.findall(r"\b([A-Z]\w+)\.(\w+)\(", text):
            assert name in classes[owner], f"{owner} has no {name}()"
        for name in re.findall(r"(?<![.\w])(\w+)\(", text):
            assert name in functions | {"on_result"}, f"there is no {name}()"


def gates() -> Iterator[tuple[str, str]]:
    """The rules of CONTRIBUTING.md and what checks each: the rows of its rule table."""
    yield from re.findall(r"^\| \d+ \| (.+?) \| (.+?) \|$", CONTRIBUTING, re.M)


def test_every_rule_for_contributors_names_a_gate_that_exists() -> None:
    lint = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["ruff"]["lint"]["select"]
    known = {*RULES, "mypy", "scripts/mutants", "scripts/test --coverage"}
    known |= {
        name
        for file in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"^(?:async )?def (test_\w+)", file.read_text("utf-8"), re.M)
    }
    rows = list(gates())
    assert len(rows) >= 20
    for rule, cell in rows:
        named = re.findall(r"`([^`]+)`", cell)
        assert named, f"no gate for: {rule}"
        unknown = [
            name
            for name in named
            if name not in known and not (name.startswith("ruff ") and name[5:].startswith(tuple(lint)))
        ]
        assert not unknown, f"{rule}: there is no gate {unknown}"


def test_every_guard_is_in_the_source_and_has_its_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "scripts" / "mutants.d")
    for guard in importlib.import_module("guards").GUARDS:
        assert guard.change().tests == guard.tests
        assert not [test for test in guard.tests if not (ROOT / test).exists()], guard.name


def test_every_gate_belongs_to_a_rule_for_contributors() -> None:
    named = {name for _, cell in gates() for name in re.findall(r"`(\w+)`", cell)}
    unnamed = RULES.keys() - named
    assert not unnamed, f"CONTRIBUTING.md does not have the rules of {sorted(unnamed)}"
