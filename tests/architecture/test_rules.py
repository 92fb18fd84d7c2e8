"""Every rule holds for the source, catches its examples, and has no licence that nothing needs."""

from typing import Final

import pytest

from tests.architecture import import_rules, size_rules, state_rules, suite_rules, word_rules
from tests.architecture.source import ROOT, SOURCE, Module, Rule, modules_of

CODE: Final = (*import_rules.RULES, *state_rules.RULES, *size_rules.RULES, *word_rules.RULES)
"""Rules for the package."""
SUITE: Final = suite_rules.RULES
"""Rules for tests and examples."""
AROUND: Final = {
    "core/hub.py": "import mcp_manifold.wire.x",
    "model/call.py": "class Call: pass",
    "stages/x.py": "",
    "wire/__init__.py": "",
    "wire/x.py": "import mcp_manifold.core.hub",
    "__init__.py": "",
}
"""A small package around an example."""
EXAMPLES: Final = [(rule, *example) for rule in (*CODE, *SUITE) for example in rule.examples]


@pytest.fixture(scope="module")
def source() -> list[Module]:
    return modules_of(SOURCE)


@pytest.fixture(scope="module")
def suite() -> list[Module]:
    return [*modules_of(ROOT / "tests"), *modules_of(ROOT / "examples")]


@pytest.mark.parametrize("rule", CODE, ids=lambda rule: rule.check.__name__)
def test_the_source_keeps_the_rule(rule: Rule, source: list[Module]) -> None:
    assert not rule.breaches(source), "\n" + "\n".join(rule.breaches(source))


@pytest.mark.parametrize("rule", SUITE, ids=lambda rule: rule.check.__name__)
def test_the_tests_keep_the_rule(rule: Rule, suite: list[Module]) -> None:
    assert not rule.breaches(suite), "\n" + "\n".join(rule.breaches(suite))


@pytest.mark.parametrize(("rule", "path", "text", "complaint"), EXAMPLES)
def test_a_rule_catches_what_it_is_for(rule: Rule, path: str, text: str, complaint: str) -> None:
    small = {**AROUND, path: text}
    assert complaint in "\n".join(rule.breaches([Module(name, body) for name, body in sorted(small.items())]))


def test_a_crowded_folder_is_caught() -> None:
    rule = next(rule for rule in CODE if rule.check is size_rules.uncrowded)
    assert rule.breaches([Module(f"core/m{number}.py", "") for number in range(13)]) == [
        "core/: has 13 files: 12 at most"
    ]


def test_cleaning_up_and_raising_again_is_not_broad() -> None:
    text = "def f():\n try: g()\n except BaseException:\n  h()\n  raise"
    assert not list(state_rules.narrow([Module("core/x.py", text)]))


def test_a_function_may_fill_in_the_object_it_created() -> None:
    text = "def f():\n call = Call()\n call.slot = 1\n self.x = 2"
    assert not list(state_rules.own_attributes([Module("core/x.py", text)]))


def test_no_licence_outlives_its_need(source: list[Module], suite: list[Module]) -> None:
    idle = [
        *(f"{rule.check.__name__}: {key}" for rule in CODE for key in rule.idle(source)),
        *(f"{rule.check.__name__}: {key}" for rule in SUITE for key in rule.idle(suite)),
        *import_rules.idle_tables(source),
    ]
    assert not idle, "nothing needs these licences any more:\n" + "\n".join(sorted(idle))
