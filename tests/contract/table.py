"""Generates docs/protocol-support.md from the contract tests: which behaviour is tested on which front and backends.

`python -m tests.contract.table` writes the page. It does not run the tests. It calls each one with recording servers
and clients, and stops it at its first use of a client.
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
"""By behaviour and column: the backend kinds and the client revisions."""


def every_test() -> Iterator[tuple[ModuleType, str, Any]]:
    """Every contract test: its module, name and function."""
    for file in sorted(HERE.glob("test_*.py")):
        if file.stem not in NOT_OF_FRONTS:
            module = importlib.import_module(f"tests.contract.{file.stem}")
            yield from ((module, name, test) for name, test in vars(module).items() if name.startswith("test_"))


def column_of(way: Way) -> str:
    """The column of a way."""
    front = {"stdio": "stdio", "http": "HTTP", "sse": "SSE"}[way.transport]
    return f"{front} 2026" if way.version == MODERN_VERSION else front


# --- recording the tests --------------------------------------------------------------------------------------------


class Enough(BaseException):
    """Stops a test once its servers and clients are recorded."""


class UsageRecorder:
    """Records the backend kinds and the ways that a test uses."""

    def __init__(self) -> None:
        self.kinds: set[str] = set()
        self.ways: set[Way] = set()

    def __repr__(self) -> str:
        return f"<UsageRecorder {sorted(self.kinds)} {sorted(map(str, self.ways))}>"

    @asynccontextmanager
    async def standing(self, scripts: Mapping[str, Any], **_: Any) -> AsyncIterator["RecordingStand"]:
        """Replaces `stand.standing`."""
        self.kinds |= {server.partition("_")[0] for server in scripts} & LETTERS.keys()
        yield RecordingStand(self, scripts)


class RecordingStand:
    """Replaces a Stand."""

    def __init__(self, recorder: UsageRecorder, scripts: Mapping[str, Any]) -> None:
        self._recorder = recorder
        self.backends = {server: Quiet(recorder) for server in scripts}
        self.config: dict[str, Any] = {"manifold": {}, "mcpServers": {}}

    def __getitem__(self, server: str) -> "Quiet":
        return self.backends[server]

    def __repr__(self) -> str:
        return f"<RecordingStand {self._recorder}>"

    @asynccontextmanager
    async def client(self, way: Way, **_: Any) -> AsyncIterator["Silent"]:
        """Replaces `Stand.client`."""
        self._recorder.ways.add(way)
        yield Silent()

    async def origin(self) -> str:
        """Replaces `Stand.origin`."""
        raise Enough


class Quiet:
    """Replaces a backend: accepts every command, and stops the test once a client is connected."""

    def __init__(self, recorder: UsageRecorder) -> None:
        self._recorder = recorder

    def __repr__(self) -> str:
        return "<Quiet>"

    def __getattr__(self, name: str) -> Callable[..., Awaitable[None]]:
        async def nothing(*_: Any, **__: Any) -> None:
            if self._recorder.ways:
                raise Enough

        return nothing


class Silent:
    """Replaces a client: stops the test at its first use."""

    def __getattr__(self, name: str) -> Any:
        raise Enough


def cases(test: Any) -> Iterator[dict[str, Any]]:
    """The arguments of each parametrised case of a test."""
    marks = [mark for mark in getattr(test, "pytestmark", ()) if mark.name == "parametrize"]
    given = dict.fromkeys(inspect.signature(test).parameters)
    for values in itertools.product(*(mark.args[1] for mark in marks)):
        case = dict(given)
        for mark, value in zip(marks, values, strict=True):
            names = mark.args[0].split(",") if isinstance(mark.args[0], str) else mark.args[0]
            case |= zip(names, value if len(names) > 1 else (value,), strict=True)
        yield case


async def recorded(module: ModuleType, test: Any, case: Mapping[str, Any]) -> UsageRecorder:
    """The recording of one case of a test."""
    recorder = UsageRecorder()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "standing", recorder.standing, raising=False)
        try:
            await test(**case)
        except* Enough:
            pass
    return recorder


async def seen() -> Seen:
    """The recordings of all tests."""
    found: Seen = defaultdict(lambda: defaultdict(lambda: (set(), set())))
    for module, _, test in every_test():
        for case in cases(test):
            recorder = await recorded(module, test, case)
            for behaviour, way in itertools.product(getattr(test, "behaviours", ()), recorder.ways):
                kinds, versions = found[behaviour][column_of(way)]
                kinds |= recorder.kinds
                versions.add(way.version)
    return found


# --- the page -------------------------------------------------------------------------------------------------------

_HEAD: Final = """\
# Protocol support

<!-- Written by `uv run python -m tests.contract.table` from the tests; do not edit. -->

Each row is a tested behaviour. Each column is a client transport, with the handshake revisions (2024-11-05, 2025-03-26,
2025-06-18, 2025-11-25) or with 2026-07-28. The letters in a cell are the kinds of server that the tests use there:

| letter | kind of server |
|---|---|
| `p` | stdio, handshake revisions |
| `h` | Streamable HTTP, handshake revisions |
| `s` | HTTP+SSE, 2024-11-05 |
| `P` | stdio, 2026-07-28 |
| `H` | Streamable HTTP, 2026-07-28 |

`×4` means every handshake revision, `×3` three of them, `×2` the oldest and the latest; without it, the test uses one.
`none` means that the behaviour needs no server. An empty cell is untested. A number in brackets refers to the reason in
[Not applicable](#not-applicable).

HTTP+SSE with 2026-07-28 has no column: that revision defines stdio and Streamable HTTP only.

"""
_ENDPOINTS: Final = """
## HTTP endpoints

Tested with plain HTTP requests, independent of the protocol revision:

"""
_RULE: Final = "|---|" + ":-:|" * len(COLUMNS)


async def page() -> str:
    """The text of the page."""
    found = await seen()
    parts = [_HEAD]
    for feature, rows in itertools.groupby(BEHAVIOURS, lambda behaviour: behaviour.feature):
        lines = [_row(behaviour, found[behaviour.id]) for behaviour in rows if found[behaviour.id]]
        if lines:
            parts += [f"## {feature}\n\n| | {' | '.join(COLUMNS)} |\n{_RULE}\n", *lines, "\n"]
    parts += ["## Not applicable\n\n", *(f"{number}. {absent.why}\n" for number, absent in enumerate(ABSENT, start=1))]
    parts += [_ENDPOINTS, *(f"- {behaviour.says}\n" for behaviour in BEHAVIOURS if not found[behaviour.id])]
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
