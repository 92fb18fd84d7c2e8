"""The scenarios and their cells, as values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from benchmarks.loadgen.job import MODERN

KB: Final = 1_000
MB: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Cell:
    """One measurement: its differences from the default Job."""

    name: str
    job: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """Cells that are measured in front of the same servers."""

    name: str
    title: str
    kind: str  # kind of the servers: `http`, `http-sse` or `stdio`
    cells: Sequence[Cell]
    count: int = 2  # number of servers. Calls rotate among them, so a shortcut for one server gains nothing.
    tools: int = 5
    transport: str = "http"  # transport of the clients
    only: frozenset[str] = frozenset()  # the peers that take part; empty for all that can
    job: Mapping[str, Any] = field(default_factory=dict)  # job members that all cells share


def _clients(*counts: int, **more: Any) -> list[Cell]:
    return [Cell(f"{count} client{'s' if count > 1 else ''}", {"clients": count, **more}) for count in counts]


def _modern(*counts: int) -> list[Cell]:
    return [Cell(f"{cell.name}, {MODERN}", {**cell.job, "version": MODERN}) for cell in _clients(*counts)]


def _payload(size: int, spelled: str) -> list[Cell]:
    few = {"size": size, "warm_up": 5}
    return [
        Cell(f"result of {spelled}", {"shape": "blob", **few}),
        Cell(f"arguments of {spelled}", {"shape": "sink", **few}),
        Cell(f"both of {spelled}", {"shape": "echo", **few}),
    ]


HTTP: Final = Scenario(
    name="http",
    title="To HTTP servers, 64 bytes",
    kind="http",
    cells=[*_clients(1, 8, 32, 64), *_modern(1, 8, 32)],
)
STDIO: Final = Scenario(name="stdio", title="To stdio servers, 64 bytes", kind="stdio", cells=_clients(1, 8, 32))
STREAMS: Final = Scenario(
    name="streams",
    title="To HTTP servers that answer with event streams",
    kind="http-sse",
    cells=[*_clients(1, 8, 32), *_payload(MB, "1 MB")[:1]],
)
PAYLOADS: Final = Scenario(
    name="payloads",
    title="Larger payloads, to HTTP servers",
    kind="http",
    cells=[
        *_payload(KB, "1 KB"),
        *_payload(100 * KB, "100 KB"),
        *_payload(MB, "1 MB"),
        Cell("result of 100 KB, 8 clients", {"shape": "blob", "size": 100 * KB, "clients": 8, "warm_up": 5}),
        Cell(f"result of 100 KB, {MODERN}", {"shape": "blob", "size": 100 * KB, "warm_up": 5, "version": MODERN}),
        Cell(f"result of 1 MB, {MODERN}", {"shape": "blob", "size": MB, "warm_up": 5, "version": MODERN}),
    ],
)
STDIO_PAYLOADS: Final = Scenario(
    name="stdio-payloads",
    title="Larger payloads, to stdio servers",
    kind="stdio",
    cells=[_payload(KB, "1 KB")[2], _payload(100 * KB, "100 KB")[0], _payload(MB, "1 MB")[0]],
)
_IN_FLIGHT: Final = [Cell(f"{count} in flight", {"in_flight": count}) for count in (1, 8)]
FRONT: Final = Scenario(
    name="front-stdio",
    title="From clients over stdio, to stdio servers",
    kind="stdio",
    cells=_IN_FLIGHT,
    transport="stdio",
)
FRONT_HTTP: Final = replace(FRONT, name="front-http", title="From clients over stdio, to HTTP servers", kind="http")
LISTS: Final = Scenario(
    name="lists",
    title="The merged list of 10 servers with 50 tools each",
    kind="http",
    count=10,
    tools=50,
    only=frozenset({"limit-list", "manifold", "fastmcp", "fastmcp-mounted"}),
    cells=[*_clients(1, 8), *_modern(8)],
    job={"operation": "list", "expect_tools": 500, "warm_up": 2},
)
LONG_LISTS: Final = Scenario(
    name="long-lists",
    title="The merged list of 100 servers with 100 tools each",
    kind="http",
    count=100,
    tools=100,
    only=frozenset({"limit-list", "manifold"}),
    cells=_clients(1),
    job={"operation": "list", "expect_tools": 10_000, "warm_up": 2},
)

THROUGHPUT: Final = (HTTP, STDIO, STREAMS, PAYLOADS, STDIO_PAYLOADS, FRONT, FRONT_HTTP, LISTS, LONG_LISTS)
SPECIAL: Final = ("tail", "start", "memory")  # scenarios with a module of their own
NAMES: Final = (*(scenario.name for scenario in THROUGHPUT), *SPECIAL)
QUICK: Final = ("http", "stdio", "payloads", "lists")
