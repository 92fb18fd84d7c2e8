"""The published figures: benchmarks/results.json, and what is generated from it in docs/ and README.md.

`write` stores a run's medians and renews the text between the marks of both pages, and the plot. A test compares the
checked-in files with what the checked-in results generate.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Final

from benchmarks.plan import HERE, ROOT
from benchmarks.plot import picture
from benchmarks.report import LIMITS, number, summary, tables, times
from benchmarks.rows import Facts, Results, Row, median

RESULTS: Final = HERE / "results.json"
PAGE: Final = ROOT / "docs" / "performance.md"
README: Final = ROOT / "README.md"
PLOT: Final = ROOT / "docs" / "assets" / "performance.svg"
MARKS: Final = {
    PAGE: ("<!-- measured: begin -->", "<!-- measured: end -->"),
    README: ("<!-- speed:begin -->", "<!-- speed:end -->"),
}
"""By file: the marks around its generated text."""
_README_CELLS: Final = ("1 client", "8 clients", "32 clients", "64 clients")
_README_PEERS: Final = {"limit": "lower bound", "manifold": "mcp-manifold", "fastmcp-mounted": "FastMCP"}


def facts(found: Facts) -> str:
    """Date, source, machine and versions of a run, in one sentence each."""
    versions = ", ".join(f"{name} {version.split()[-1]}" for name, version in found.versions.items() if version)
    return (
        f"Run of {found.date} at `{found.commit}`, Python {found.python}, {found.machine}, {found.processors} "
        f"processors; medians of {found.rounds} interleaved rounds of {found.seconds:g} s. {versions}."
    )


def generated(results: Results) -> dict[Path, str]:
    """The text between the marks, by file."""
    page = f"{facts(results.facts)}\n\n{summary(results)}\n\n{tables(results)}"
    return {PAGE: page, README: speed(results)}


def speed(results: Results) -> str:
    """README's table: CPU per small call beside the lower bound and FastMCP; then memory and start-up.

    Raises:
        ValueError: the results lack a figure of mcp-manifold.
    """
    found = results.facts
    peers = [peer for peer in _README_PEERS if any(_cpu(results, cell, peer) for cell in _README_CELLS)]
    lines = [
        f"| clients | {' | '.join(_README_PEERS[peer] for peer in peers)} |",
        f"|--:|{'--:|' * len(peers)}",
        *(f"| {cell.split()[0]} | {' | '.join(_entry(results, cell, peer) for peer in peers)} |"
          for cell in _README_CELLS),
    ]  # fmt: skip
    fastmcp = found.versions.get(found.labels.get("fastmcp-mounted", ""), "")
    versions = f"Python {found.python}" + (f", FastMCP {fastmcp}" if fastmcp else "")
    machine = f"Measured on {found.date}: {found.machine}, {found.processors} processors, {versions}."
    memory = _ours(results, "memory", "idle, 10 servers", "rss_mb")
    session = _ours(results, "memory", "2000 sessions, nothing else", "kb_per_session")
    start = _ours(results, "start", "the same over HTTP, started again", "answers_s")
    rest = (
        f"With 10 servers the process holds {number(memory)} MB; an idle session adds {number(session)} KB.\n"
        f"A restarted `serve` answers clients after {number(start)} s, from the lists it kept on disk."
    )
    return "\n".join([*lines, "", machine, rest, ""])


def renewed(page: str, marks: tuple[str, str], content: str) -> str:
    """The page with other text between its marks. Raises ValueError: the marks are missing."""
    before, begin, rest = page.partition(marks[0])
    _, end, after = rest.partition(marks[1])
    if not begin or not end:
        raise ValueError(f"the page lacks {marks[0]} or {marks[1]}")
    return f"{before}{begin}\n\n{content}\n{end}{after}"


def dumped(results: Results) -> str:
    """The medians as JSON, one row a line, so that a new run is a readable diff."""
    rows: dict[tuple[str, str, str], list[Row]] = {}
    for row in results.rows:
        rows.setdefault((row.scenario, row.cell, row.peer), []).append(row)
    lines = [json.dumps(asdict(_median(found)), ensure_ascii=False) for found in rows.values()]
    return f'{{"facts": {json.dumps(asdict(results.facts), indent=2)},\n"rows": [\n' + ",\n".join(lines) + "\n]}\n"


def write(results: Results) -> None:
    """Store the medians, and renew both pages and the plot from them."""
    RESULTS.write_text(dumped(results), encoding="utf-8")
    stored = Results.read(RESULTS)
    for file, content in generated(stored).items():
        file.write_text(renewed(file.read_text("utf-8"), MARKS[file], content), encoding="utf-8")
    PLOT.write_text(picture(stored), encoding="utf-8")


def _median(rows: list[Row]) -> Row:
    first = rows[0]
    measured = [row for row in rows if not row.failed]
    names = dict.fromkeys(name for row in measured for name in row.figures)
    figures: Mapping[str, float] = {name: value for name in names if (value := median(measured, name)) is not None}
    failed = "" if measured else first.failed
    return Row(first.scenario, first.cell, first.peer, 0, {k: float(f"{v:.4g}") for k, v in figures.items()}, failed)


def _cpu(results: Results, cell: str, peer: str) -> float | None:
    return results.median("http", cell, peer, "cpu_us")


def _entry(results: Results, cell: str, peer: str) -> str:
    value, limit = _cpu(results, cell, peer), _cpu(results, cell, "limit")
    compared = "" if peer in LIMITS or value is None or not limit else f" ({times(value / limit)})"
    return f"{number(value)} µs{compared}"


def _ours(results: Results, scenario: str, cell: str, figure: str) -> float:
    value = results.median(scenario, cell, "manifold", figure)
    if value is None:
        raise ValueError(f"the results lack {figure} of {scenario}, {cell}")
    return value
