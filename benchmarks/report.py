"""Results as Markdown tables. Compares each cost with the lower bound of its scenario; gives no verdict."""

from collections.abc import Callable, Sequence
from typing import Final

from benchmarks.rows import Results, Row, median
from benchmarks.scenarios import THROUGHPUT, Scenario

_NONE: Final = "\u2013"
LIMITS: Final = ("limit", "limit-stdio", "limit-list")
"""The peers that are lower bounds; a scenario has at most one of them."""
_SPECIAL: Final = {
    "tail": ("Tail latency", ("p50_ms", "p99_ms", "p999_ms", "max_ms", "p99_of_p50", "lag_ms", "large_p50_ms")),
    "start": ("Start-up", ("answers_s", "seconds", "cpu_s")),
    "memory": (
        "Memory",
        ("rss_mb", "pss_mb", "kb_per_session", "rss_after_mb", "grown_mb", "idle_cpu_percent", "processes"),
    ),
}
_SPELLED: Final = {
    "p50_ms": "p50 ms",
    "p99_ms": "p99 ms",
    "p999_ms": "p99.9 ms",
    "max_ms": "maximum ms",
    "p99_of_p50": "p99 / p50",
    "lag_ms": "event loop lag ms",
    "large_p50_ms": "p50 of the 10 MB ms",
    "seconds": "seconds",
    "answers_s": "first answer, s",
    "cpu_s": "CPU s",
    "rss_mb": "RSS MB",
    "pss_mb": "PSS MB",
    "kb_per_session": "KB per session",
    "rss_after_mb": "RSS MB after they disconnected",
    "grown_mb": "growth MB",
    "idle_cpu_percent": "CPU % when idle",
    "processes": "processes",
}


def tables(results: Results) -> str:
    """Every scenario's tables, in the order they are measured."""
    parts = [_throughput(results, scenario) for scenario in THROUGHPUT if results.cells(scenario.name)]
    parts += [_special(results, name) for name in _SPECIAL if results.cells(name)]
    return "\n\n".join(part for part in parts if part) + "\n"


def summary(results: Results) -> str:
    """One table: mcp-manifold's cost as a multiple of the lower bound, from the cheapest cell to the dearest."""
    lines = []
    for scenario in THROUGHPUT:
        found = []
        for cell in results.cells(scenario.name):
            ours = results.median(scenario.name, cell, "manifold", "cpu_us")
            if ours is not None and (limit := limit_of(results, scenario.name, cell)):
                found.append(ours / limit)
        if found:
            lines.append(f"| {scenario.title} | {_spread(times(min(found)), times(max(found)))} |")
    return "\n".join(["| mcp-manifold | times the lower bound |", "|---|--:|", *lines])


def limit_of(results: Results, scenario: str, cell: str) -> float | None:
    """The lower bound's CPU per call in a cell, in microseconds; None if it has none."""
    found = (results.median(scenario, cell, limit, "cpu_us") for limit in LIMITS)
    return next((value for value in found if value is not None), None)


def times(value: float) -> str:
    """A multiple of the lower bound, such as `1.3x` or `1,032x`."""
    return f"{value:.1f}x" if value < 10 else f"{value:,.0f}x"


def number(value: float | None) -> str:
    """A figure with three significant digits; a dash for None."""
    if value is None:
        return _NONE
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}" if value >= 0.1 else f"{value:.3f}"


def _throughput(results: Results, scenario: Scenario) -> str:
    cells = [cell for cell in results.cells(scenario.name) if cell]
    peers = _peers(results, scenario.name, cells)
    if not cells or not peers:
        return ""
    labels = results.facts.labels

    def cpu(cell: str, peer: str) -> str:
        value, limit = results.median(scenario.name, cell, peer, "cpu_us"), limit_of(results, scenario.name, cell)
        if value is None or limit is None or peer in LIMITS or peer == "direct":
            return number(value)
        return f"{number(value)} ({times(value / limit)})"

    def speed(cell: str, peer: str) -> str:
        figures = [results.median(scenario.name, cell, peer, name) for name in ("p50_ms", "p99_ms", "calls_per_s")]
        return " / ".join(map(number, figures)) if figures[0] is not None else _NONE

    heads = [labels.get(peer, peer) for peer in peers]
    lines = [
        f"### {scenario.title}",
        _table("CPU, µs per call", heads, cells, lambda cell, at: cpu(cell, peers[at])),
        _table("p50 ms / p99 ms / calls per s", heads, cells, lambda cell, at: speed(cell, peers[at])),
        *_failures(results, scenario.name),
    ]
    return "\n\n".join(lines)


def _spread(low: str, high: str) -> str:
    return low if low == high else f"{low} to {high}"


def _special(results: Results, name: str) -> str:
    title, figures = _SPECIAL[name]
    parts = [f"### {title}"]
    for cell in results.cells(name):
        rows = {peer: found for peer, found in results.of(name, cell).items() if not all(row.failed for row in found)}
        shown = [figure for figure in figures if any(median(found, figure) is not None for found in rows.values())]
        peers = list(rows)
        if shown:
            labels = [results.facts.labels.get(peer, peer) for peer in peers]
            parts.append(_by_peer(cell, labels, shown, [rows[peer] for peer in peers]))
    return "\n\n".join([*parts, *_failures(results, name)])


def _by_peer(cell: str, labels: Sequence[str], figures: Sequence[str], rows: Sequence[Sequence[Row]]) -> str:
    heads = [_SPELLED[figure] for figure in figures]
    return _table(cell, heads, labels, lambda label, at: number(median(rows[labels.index(label)], figures[at])))


def _table(corner: str, heads: Sequence[str], sides: Sequence[str], entry: Callable[[str, int], str]) -> str:
    lines = [f"| {corner} | {' | '.join(heads)} |", f"|---|{'--:|' * len(heads)}"]
    lines += [f"| {side} | {' | '.join(entry(side, at) for at in range(len(heads)))} |" for side in sides]
    return "\n".join(lines)


def _peers(results: Results, scenario: str, cells: Sequence[str]) -> list[str]:
    """The peers with a figure: the backend itself, the lower bound, then the others from cheap to dear."""
    costs: dict[str, float] = {}
    for cell in cells:
        for peer, rows in results.of(scenario, cell).items():
            value = median(rows, "cpu_us")
            if value is not None:
                costs[peer] = min(value, costs.get(peer, value))
    return sorted(costs, key=lambda peer: (peer != "direct", peer not in LIMITS, costs[peer]))


def _failures(results: Results, scenario: str) -> list[str]:
    found = dict.fromkeys(
        f"- {results.facts.labels.get(row.peer, row.peer)}, {row.cell or 'start'}: {row.failed[:200]}"
        for row in results.rows
        if row.scenario == scenario and row.failed
    )
    return ["Not measured:\n\n" + "\n".join(found)] if found else []
