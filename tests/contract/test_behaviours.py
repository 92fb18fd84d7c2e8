"""The table of behaviours and the tests, held to each other. Knows no behaviour itself."""

from collections import Counter

import pytest

from tests.contract import table
from tests.contract.behaviours import ABSENT, BEHAVIOURS, COLUMNS
from tests.contract.table import every_test


def shown() -> dict[str, tuple[str, ...]]:
    """Every test of the contract, and the behaviours it shows."""
    return {f"{module.__name__}.{name}": getattr(test, "behaviours", ()) for module, name, test in every_test()}


def test_every_behaviour_is_shown_by_a_test() -> None:
    tested = {behaviour for ids in shown().values() for behaviour in ids}
    assert {behaviour.id for behaviour in BEHAVIOURS} == tested


def test_every_test_shows_a_behaviour() -> None:
    assert not [name for name, ids in shown().items() if not ids]


def test_no_behaviour_is_in_the_table_twice() -> None:
    assert not [id_ for id_, times in Counter(behaviour.id for behaviour in BEHAVIOURS).items() if times > 1]


def test_what_cannot_be_is_said_of_behaviours_in_the_table_and_of_ways_there_are() -> None:
    cells = [(id_, column) for absent in ABSENT for id_ in absent.ids.split() for column in absent.columns]
    assert {id_ for id_, _ in cells} <= {behaviour.id for behaviour in BEHAVIOURS}
    assert {column for _, column in cells} <= set(COLUMNS)


@pytest.mark.anyio
async def test_the_page_of_what_is_supported_is_current() -> None:
    said = "run `uv run python -m tests.contract.table`"
    assert table.PAGE.read_text(encoding="utf-8") == await table.page(), said
