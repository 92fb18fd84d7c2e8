"""Every front answers as `answers/*.json` says, and servers receive what is written there.

To record the answers anew, after a change that is wanted: `uv run python -m tests.flows.test_answers [AREA ...]`, and
read the difference. Scenarios are added to the files by hand, without `seen`.
"""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any, Final

import pytest

from tests.flows.answering import FRONTS, answers_of, scenarios_of

pytestmark = pytest.mark.anyio

AREAS: Final = Path(__file__).with_name("answers")
HTTP: Final = ("http", "asgi", "http26", "asgi26")
TWINS: Final = {"asgi": "http", "asgi26": "http26"}
"""The same front behind two servers, which must not make a difference."""


def read(path: Path) -> list[dict[str, Any]]:
    """The houses of an area."""
    houses: list[dict[str, Any]] = json.loads(path.read_text())
    return houses


def seen(house: dict[str, Any], front: str) -> dict[str, Any]:
    """What is written to be seen over a front, by scenario: of the client, and of each server that got something."""
    names = [*scenarios_of(house, front), *(["(counts)"] if "seen" in house and front in HTTP else [])]
    told = {name: house["scenarios"].get(name, house).get("seen", {}) for name in names}
    return {
        name: {part: lines for part, by in parts.items() for fronts, lines in by.items() if front in fronts.split()}
        for name, parts in told.items()
    }


def fronts_of(house: dict[str, Any]) -> list[str]:
    """The fronts that a house is asked over."""
    return [front for front in FRONTS if scenarios_of(house, front)]


CASES: Final = [
    pytest.param(house, front, id=f"{path.stem}-{house['house']}-{front}")
    for path in sorted(AREAS.glob("*.json"))
    for house in read(path)
    for front in fronts_of(house)
]


@pytest.mark.parametrize(("house", "front"), CASES)
async def test_what_is_answered_and_sent_is_as_written(house: dict[str, Any], front: str) -> None:
    found, expected = await answers_of(house, front), seen(house, front)
    assert list(found) == list(expected)
    for name, answer in found.items():
        assert answer == expected[name], name


@pytest.mark.parametrize("path", sorted(AREAS.glob("*.json")), ids=lambda path: path.stem)
def test_what_is_written_is_the_same_for_both_servers_of_the_application(path: Path) -> None:
    for house in read(path):
        for front in set(fronts_of(house)) & set(TWINS):
            twin = seen(house, TWINS[front])
            assert all(answer == twin[name] for name, answer in seen(house, front).items() if name in twin)


# --- recording --------------------------------------------------------------------------------------------------------


def record(path: Path) -> None:
    """Write down what is seen now in every house of an area."""
    houses = read(path)
    for house in houses:
        told = {front: asyncio.run(answers_of(house, front)) for front in fronts_of(house)}
        for name, each in {**house["scenarios"], "(counts)": house}.items():
            by_front = {front: by[name] for front, by in told.items() if name in by}
            parts = {part for by in by_front.values() for part in by}
            each.pop("seen", None)
            if parts:
                each["seen"] = {part: _shared(by_front, part) for part in sorted(parts)}
    path.write_text(_written(houses) + "\n")


def _shared(by_front: dict[str, Any], part: str) -> dict[str, Any]:
    """What was seen, by the fronts over which it was."""
    fronts: dict[str, list[str]] = {}
    for front, answer in by_front.items():
        if part in answer:
            fronts.setdefault(json.dumps(answer[part]), []).append(front)
    return {" ".join(names): json.loads(answer) for answer, names in fronts.items()}


def _written(value: Any, depth: int = 0) -> str:
    """JSON with a line for each thing that fits into one."""
    line = json.dumps(value, separators=(",", ":"))
    if not isinstance(value, dict | list) or len(line) < 120 - depth or depth > 6:
        return line
    if isinstance(value, list):
        start, end, parts = "[", "]", [_written(each, depth + 1) for each in value]
    else:
        start, end = "{", "}"
        parts = [f"{json.dumps(key)}: {_written(each, depth + 1)}" for key, each in value.items()]
    inner = "\n" + " " * (depth + 1)
    return f"{start}{inner}{f',{inner}'.join(parts)}\n{' ' * depth}{end}"


if __name__ == "__main__":
    for area in sys.argv[1:] or sorted(each.stem for each in AREAS.glob("*.json")):
        record(AREAS / f"{area}.json")
