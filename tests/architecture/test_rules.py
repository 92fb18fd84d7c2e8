"""Every rule holds for the source, catches its examples, and has no licence that nothing needs."""

import re
import subprocess
from functools import cache
from typing import Final

import pytest

from tests.architecture import import_rules, size_rules, state_rules, suite_rules, word_rules
from tests.architecture.source import ROOT, SOURCE, Complaint, Module, Rule, modules_of

CODE: Final = (*import_rules.RULES, *state_rules.RULES, *size_rules.RULES, *word_rules.RULES)  # rules for the package
SUITE: Final = suite_rules.RULES  # rules for tests and examples
RULES: Final = {rule.name: rule for rule in (*CODE, *SUITE)}
AROUND: Final = {
    "core/hub.py": "import mcp_manifold.wire.x",
    "model/call.py": "class Call: pass",
    "stages/x.py": "",
    "wire/__init__.py": "",
    "wire/x.py": "import mcp_manifold.core.hub",
    "__init__.py": "",
}
"""A small package around an example."""
EXAMPLES: Final = [(rule, *example) for rule in RULES.values() for example in rule.examples]


@cache
def source() -> list[Module]:
    """The modules of the package."""
    return modules_of(SOURCE)


@cache
def suite() -> list[Module]:
    """The modules of tests and examples."""
    return [*modules_of(ROOT / "tests"), *modules_of(ROOT / "examples")]


@cache
def complaints(name: str) -> list[Complaint]:
    """The complaints of a rule, licensed ones included."""
    return list(RULES[name].check(source() if RULES[name] in CODE else suite()))


@pytest.mark.parametrize("name", RULES)
def test_the_source_and_the_tests_keep_the_rule(name: str) -> None:
    breaches = RULES[name].breaches(complaints(name))
    assert not breaches, "\n" + "\n".join(breaches)


@pytest.mark.parametrize(("rule", "path", "text", "complaint"), EXAMPLES)
def test_a_rule_catches_what_it_is_for(rule: Rule, path: str, text: str, complaint: str) -> None:
    small = [Module(name, body) for name, body in sorted({**AROUND, path: text}.items())]
    assert complaint in "\n".join(rule.breaches(rule.check(small)))


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("PLC0415", "def f() -> None:\n    import json"),
        ("PLR0913", "def f(self, a, b, c, d, e, f, /, g, *, h): pass"),
        ("TID251", "from unittest.mock import patch"),
        ("TID251", "from types import SimpleNamespace"),
    ],
)
def test_ruff_catches_what_a_rule_leaves_to_it(code: str, text: str) -> None:
    command = ["ruff", "check", "--output-format", "concise", "--stdin-filename", str(SOURCE / "core" / "x.py"), "-"]
    done = subprocess.run(command, cwd=ROOT, input=text, capture_output=True, text=True, check=False)
    assert f": {code} " in done.stdout, done.stdout + done.stderr


def test_a_crowded_folder_is_caught() -> None:
    (found,) = size_rules.uncrowded([Module(f"core/m{number}.py", "") for number in range(13)])
    assert (found.place, found.text) == ("core/", "has 13 files: 12 at most")


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        ("narrow", "def f():\n try: g()\n except BaseException:\n  h()\n  raise"),
        ("own_attributes", "def f():\n call = Call()\n call.slot = 1\n self.x = 2"),
    ],
    ids=["cleaning up and raising again", "filling in an object that the function created"],
)
def test_what_a_rule_is_not_for_is_allowed(rule: str, text: str) -> None:
    assert not list(RULES[rule].check([Module("core/x.py", text)]))


def test_a_licence_to_write_a_record_names_its_class() -> None:
    assert not state_rules.misnamed_records(source(), state_rules.FOREIGN)
    classes = Module("model/x.py", "class Life:\n at: int\nclass Link:\n used: int")
    writes = Module("core/x.py", "def f(life, link, app): life.at = link.at = app.flag = 1")
    licences = {"core.x:life": "Live: its time", "core.x:link": "Link: its time", "core.x:app": "a library: its API"}
    assert state_rules.misnamed_records([classes, writes], licences) == [
        "core.x:life: Live has no at",
        "core.x:link: Link has no at",
    ]


def test_no_licence_outlives_its_need_or_the_classes_it_names() -> None:
    idle = [key for name, rule in RULES.items() for key in rule.idle(complaints(name))]
    idle += import_rules.idle_tables(source())
    classes = {node.name for module in source() for node in module.classes()}
    for key, reason in [each for rule in RULES.values() for each in rule.licences.items()]:
        idle += [
            f"{key}: there is no {word}" for word in re.findall(r"\b[A-Z]\w*[a-z]\w*", reason) if word not in classes
        ]
    assert not idle, "nothing needs these licences any more:\n" + "\n".join(sorted(idle))
