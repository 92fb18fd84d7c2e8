"""The table of which behaviour is shown over which way with which backends, read off the tests. Judges none of them.

`python -m tests.contract.table` writes it to docs/protocol-support.md. No test is really run for it: each is entered
with servers and clients that only note which they are, and left at the first thing it asks a client for.
"""

import importlib
import inspect
import itertools
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import pytest

from tests.contract import stand as stands
from tests.peers.clients import MODERN_VERSION
from tests.peers.ways import Way

HERE: Final = Path(__file__).parent
PAGE: Final = HERE.parents[1] / "docs" / "protocol-support.md"
NOT_OF_FRONTS: Final = ("test_behaviours", "test_sdk_words")
COLUMNS: Final = ("stdio", "HTTP", "SSE", "stdio 2026", "HTTP 2026")
LETTERS: Final = dict(zip(stands.KINDS, "phsPH", strict=True))
_HEAD: Final = (HERE / "table_head.md").read_text(encoding="utf-8") if (HERE / "table_head.md").exists() else ""

Seen = dict[str, dict[str, tuple[set[str], set[str]]]]
"""By behaviour and column: the kinds of backends, and the revisions of the clients."""


def tests_of_the_contract() -> Iterator[tuple[ModuleType, str, Any]]:
    """Every test of a behaviour: its module, name and function."""
    for file in sorted(HERE.glob("test_*.py")):
        if file.stem not in NOT_OF_FRONTS:
            module = importlib.import_module(f"tests.contract.{file.stem}")
            yield from ((module, name, test) for name, test in vars(module).items() if name.startswith("test_"))


def column_of(way: Way) -> str:
    """Where a way is shown."""
    front = {"stdio": "stdio", "http": "HTTP", "sse": "SSE"}[way.transport]
    return f"{front} 2026" if way.version == MODERN_VERSION else front


# --- tests that are entered and left --------------------------------------------------------------------------------


class Enough(BaseException):
    """All that a test says about itself was noted."""


class Notes:
    """Stands in for whatever a test is given, and notes the backends and the ways."""

    def __init__(self) -> None:
        self.kinds: set[str] = set()
        self.ways: set[Way] = set()

    def __repr__(self) -> str:
        return f"<Notes {sorted(self.kinds)} {sorted(map(str, self.ways))}>"

    @asynccontextmanager
    async def standing(self, scripts: Mapping[str, Any], **_: Any) -> AsyncIterator["Noting"]:
        """In the place of `stand.standing`."""
        self.kinds |= {server.partition("_")[0] for server in scripts} & LETTERS.keys()
        yield Noting(self)


class Noting:
    """In the place of a Stand."""

    def __init__(self, notes: Notes) -> None:
        self._notes = notes
        self.config: dict[str, Any] = {"manifold": {}, "mcpServers": {}}

    def __getitem__(self, server: str) -> "Quiet":
        return Quiet()

    def __repr__(self) -> str:
        return f"<Noting {self._notes}>"

    @asynccontextmanager
    async def client(self, way: Way, **_: Any) -> AsyncIterator["Silent"]:
        """In the place of `Stand.client`."""
        self._notes.ways.add(way)
        yield Silent()

    async def origin(self) -> str:
        """In the place of `Stand.origin`."""
        raise Enough


class Quiet:
    """In the place of a backend: whatever it is told, it does nothing."""

    def __getattr__(self, name: str) -> Any:
        async def nothing(*_: Any, **__: Any) -> None:
            return None

        return nothing


class Silent:
    """In the place of a client: the first thing that is wanted of it is the end."""

    def __getattr__(self, name: str) -> Any:
        raise Enough


def cases(test: Any) -> Iterator[dict[str, Any]]:
    """The arguments a test is run with, one case after the other."""
    marks = [mark for mark in getattr(test, "pytestmark", ()) if mark.name == "parametrize"]
    given = dict.fromkeys(inspect.signature(test).parameters)
    for values in itertools.product(*(mark.args[1] for mark in marks)):
        case = dict(given)
        for mark, value in zip(marks, values, strict=True):
            names = [name.strip() for name in mark.args[0].split(",")] if isinstance(mark.args[0], str) else mark.args[0]
            case |= zip(names, value if len(names) > 1 else (value,), strict=True)
        yield case


async def noted(module: ModuleType, test: Any, case: Mapping[str, Any]) -> Notes:
    """What one case of a test says about itself."""
    notes = Notes()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "standing", notes.standing, raising=False)
        try:
            await test(**case)
        except Enough:
            pass
    return notes


async def seen() -> Seen:
    """What all tests say about themselves."""
    found: Seen = defaultdict(lambda: defaultdict(lambda: (set(), set())))
    for module, _, test in tests_of_the_contract():
        for case in cases(test):
            notes = await noted(module, test, case)
            for behaviour, way in itertools.product(getattr(test, "behaviours", ()), notes.ways):
                kinds, versions = found[behaviour][column_of(way)]
                kinds |= notes.kinds
                versions.add(way.version)
    return found
