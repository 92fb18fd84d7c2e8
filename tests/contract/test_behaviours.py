"""The table of behaviours and the tests, held to each other. Knows no behaviour itself."""

import importlib
from collections import Counter
from pathlib import Path

from tests.contract.behaviours import BEHAVIOURS

HERE = Path(__file__).parent


def shown() -> dict[str, tuple[str, ...]]:
    """Every test of the contract, and the behaviours it shows."""
    found: dict[str, tuple[str, ...]] = {}
    for file in HERE.glob("test_*.py"):
        if file.stem in ("test_behaviours", "test_sdk_words"):
            continue
        module = importlib.import_module(f"tests.contract.{file.stem}")
        tests = {name: test for name, test in vars(module).items() if name.startswith("test_")}
        found |= {f"{file.stem}.{name}": getattr(test, "behaviours", ()) for name, test in tests.items()}
    return found


def test_every_behaviour_is_shown_by_a_test() -> None:
    tested = {behaviour for ids in shown().values() for behaviour in ids}
    assert {behaviour.id for behaviour in BEHAVIOURS} == tested


def test_every_test_shows_a_behaviour() -> None:
    assert not [name for name, ids in shown().items() if not ids]


def test_no_behaviour_is_in_the_table_twice() -> None:
    assert not [id_ for id_, times in Counter(behaviour.id for behaviour in BEHAVIOURS).items() if times > 1]
