"""The table of which behaviour is shown over which way with which backends, read from the tests.

`python -m tests.contract.table` writes it to docs/protocol-support.md. No test is run for it: each is entered
with recording stand-ins for servers and clients, and left at the first use of a client.
"""

import asyncio
import importlib
import inspect
import itertools
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import pytest

from tests.contract import stand as stands
from tests.contract.behaviours import ABSENT, BEHAVIOURS, COLUMNS, Behaviour
from tests.peers.clients import MODERN_VERSION
from tests.peers.ways import Way

HERE: Final = Path(__file__).parent
PAGE: Final = HERE.parents[1] / "docs" / "protocol-support.md"
NOT_OF_FRONTS: Final = ("test_behaviours", "test_sdk_words")
LETTERS: Final = dict(zip(stands.KINDS, "phsPH", strict=True))
Seen = dict[str, dict[str, tuple[set[str], set[str]]]]
"""By behaviour and column: the kinds of backends, and the revisions of the clients."""


def every_test() -> Iterator[tuple[ModuleType, str, Any]]:
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
    """Everything about a test is recorded: leave it."""


class UsageNotes:
    """Records the backends and the ways of a test."""

    def __init__(self) -> None:
        self.kinds: set[str] = set()
        self.ways: set[Way] = set()

    def __repr__(self) -> str:
        return f"<UsageNotes {sorted(self.kinds)} {sorted(map(str, self.ways))}>"

    @asynccontextmanager
    async def standing(self, scripts: Mapping[str, Any], **_: Any) -> AsyncIterator["Noting"]:
        """In the place of `stand.standing`."""
        self.kinds |= {server.partition("_")[0] for server in scripts} & LETTERS.keys()
        yield Noting(self, scripts)


class Noting:
    """In the place of a Stand."""

    def __init__(self, notes: UsageNotes, scripts: Mapping[str, Any]) -> None:
        self._notes = notes
        self.backends = {server: Quiet(notes) for server in scripts}
        self.config: dict[str, Any] = {"manifold": {}, "mcpServers": {}}

    def __getitem__(self, server: str) -> "Quiet":
        return self.backends[server]

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
    """In the place of a backend: ignores orders until there is a client to see their effect."""

    def __init__(self, notes: UsageNotes) -> None:
        self._notes = notes

    def __repr__(self) -> str:
        return "<Quiet>"

    def __getattr__(self, name: str) -> Callable[..., Awaitable[None]]:
        async def nothing(*_: Any, **__: Any) -> None:
            if self._notes.ways:
                raise Enough

        return nothing


class Silent:
    """In the place of a client: its first use ends the test."""

    def __getattr__(self, name: str) -> Any:
        raise Enough


def cases(test: Any) -> Iterator[dict[str, Any]]:
    """The arguments of each case of a test."""
    marks = [mark for mark in getattr(test, "pytestmark", ()) if mark.name == "parametrize"]
    given = dict.fromkeys(inspect.signature(test).parameters)
    for values in itertools.product(*(mark.args[1] for mark in marks)):
        case = dict(given)
        for mark, value in zip(marks, values, strict=True):
            names = mark.args[0].split(",") if isinstance(mark.args[0], str) else mark.args[0]
            case |= zip(names, value if len(names) > 1 else (value,), strict=True)
        yield case


async def noted(module: ModuleType, test: Any, case: Mapping[str, Any]) -> UsageNotes:
    """The backends and ways of one case of a test."""
    notes = UsageNotes()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "standing", notes.standing, raising=False)
        try:
            await test(**case)
        except* Enough:
            pass
    return notes


async def seen() -> Seen:
    """The backends and revisions of all tests, by behaviour and column."""
    found: Seen = defaultdict(lambda: defaultdict(lambda: (set(), set())))
    for module, _, test in every_test():
        for case in cases(test):
            notes = await noted(module, test, case)
            for behaviour, way in itertools.product(getattr(test, "behaviours", ()), notes.ways):
                kinds, versions = found[behaviour][column_of(way)]
                kinds |= notes.kinds
                versions.add(way.version)
    return found


# --- the page -------------------------------------------------------------------------------------------------------

_HEAD: Final = """\
# What is supported, and shown

<!-- Written by `uv run python -m tests.contract.table` from the tests; do not edit. -->

One row is one promise, one column one way a client comes in: a transport with the handshake revisions (2024-11-05,
2025-03-26, 2025-06-18, 2025-11-25), or with 2026-07-28. The letters in a cell are the kinds of server behind the
manifold that the promise is tested with, over that way:

| letter | kind of server |
|---|---|
| `p` | stdio, handshake revisions |
| `h` | Streamable HTTP, handshake revisions |
| `s` | HTTP+SSE, 2024-11-05 |
| `P` | stdio, 2026-07-28 |
| `H` | Streamable HTTP, 2026-07-28 |

`×4` says that the test runs in every handshake revision, `×2` in the oldest and the latest; without it, in one. A
number in brackets says why there can be nothing in a cell; an empty cell is one that no test of that promise comes
through, and `none` one that needs no server at all. There is no column for HTTP+SSE with 2026-07-28: that revision
defines stdio and Streamable HTTP only, and HTTP+SSE is the transport of 2024-11-05.

"""
_BESIDE: Final = """
## Beside the conversation

Shown with plain HTTP requests, which belong to no revision:

"""
_RULE: Final = "|---|" + ":-:|" * len(COLUMNS)


async def page() -> str:
    """The whole page."""
    found = await seen()
    parts = [_HEAD]
    for feature, rows in itertools.groupby(BEHAVIOURS, lambda behaviour: behaviour.feature):
        lines = [_row(behaviour, found[behaviour.id]) for behaviour in rows if found[behaviour.id]]
        if lines:
            parts += [f"## {feature}\n\n| | {' | '.join(COLUMNS)} |\n{_RULE}\n", *lines, "\n"]
    parts += ["## Why not\n\n", *(f"{number}. {absent.why}\n" for number, absent in enumerate(ABSENT, start=1))]
    parts += [_BESIDE, *(f"- {behaviour.says}\n" for behaviour in BEHAVIOURS if not found[behaviour.id])]
    return "".join(parts)


def _row(behaviour: Behaviour, cells: Mapping[str, tuple[set[str], set[str]]]) -> str:
    shown = [_why_not(behaviour.id, column) or _cell(*cells.get(column, ((), ()))) for column in COLUMNS]
    return f"| {behaviour.says} | {' | '.join(shown)} |\n"


def _why_not(id_: str, column: str) -> str:
    for number, absent in enumerate(ABSENT, start=1):
        if id_ in absent.ids.split() and column in absent.columns:
            return f"[{number}]"
    return ""


def _cell(kinds: Collection[str], versions: Collection[str]) -> str:
    if not versions:
        return ""
    letters = "".join(letter for kind, letter in LETTERS.items() if kind in kinds) or "none"
    return f"`{letters}`" + (f" ×{len(versions)}" if len(versions) > 1 else "")


if __name__ == "__main__":
    PAGE.write_text(asyncio.run(page()), encoding="utf-8")
