"""Tables, plot, pages and the comparison of bench-check, from made-up rows."""

import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from benchmarks.check import Comparison, verdicts
from benchmarks.page import dumped, renewed, speed
from benchmarks.plot import bars, picture
from benchmarks.report import number, tables
from benchmarks.rows import Facts, Results, Row

FACTS = Facts(
    date="2026-01-31",
    machine="a machine",
    processors=2,
    python="3.13.1",
    commit="abc1234",
    rounds=3,
    seconds=2.0,
    versions={"mcp-manifold": "1.0"},
    labels={"manifold": "mcp-manifold", "limit": "the limit", "other": "<another>"},
)


def row(peer: str, cpu: float, round_: int = 0, cell: str = "8 clients") -> Row:
    figures = {"cpu_us": cpu, "p50_ms": cpu / 1000, "p99_ms": cpu / 500, "calls_per_s": 1e6 / cpu}
    return Row("http", cell, peer, round_, figures)


@pytest.fixture
def results() -> Results:
    ours = [row("manifold", cpu, at) for at, cpu in enumerate((80.0, 60.0, 400.0))]
    return Results(FACTS, [row("other", 3000.0), *ours, row("limit", 40.0)])


def test_a_table_has_medians_and_their_ratio_to_the_limit(results: Results) -> None:
    assert "| 8 clients | 40.0 | 80.0 (2.0x) | 3,000 (75x) |" in tables(results)


def test_a_table_names_failed_measurements(results: Results) -> None:
    results.add(Row("http", "8 clients", "other", 1, failed="LoadError: 3 wrong answers"))
    assert "- <another>, 8 clients: LoadError: 3 wrong answers" in tables(results)


def test_memory_and_start_have_a_table_for_each_cell() -> None:
    rows = [
        Row("memory", "idle, 10 servers", "manifold", 0, {"rss_mb": 71.0}),
        Row("start", "x", "other", 0, failed="no"),
    ]
    text = tables(Results(FACTS, rows))
    assert "| idle, 10 servers | RSS MB |" in text
    assert "| mcp-manifold | 71.0 |" in text
    assert "- <another>, x: no" in text


def test_results_are_kept_after_every_row(results: Results, tmp_path: Path) -> None:
    kept = Results(FACTS, path=tmp_path / "results.json")
    for each in results.rows:
        kept.add(each)
        assert Results.read(tmp_path / "results.json").rows == kept.rows
    assert Results.read(tmp_path / "results.json").facts == FACTS


def test_the_plot_is_drawn_cheapest_first(results: Results) -> None:
    assert [bar.label for bar in bars(results, "http", "8 clients")] == ["the limit", "mcp-manifold", "<another>"]
    drawn = ET.fromstring(picture(results))
    widths = [float(each.attrib["width"]) for each in drawn.iter("{http://www.w3.org/2000/svg}rect")]
    assert widths == sorted(widths)
    assert len(widths) == 3


def test_there_is_no_plot_of_nothing() -> None:
    assert picture(Results(FACTS)) == ""


def test_a_page_keeps_its_words_around_the_generated_text() -> None:
    marks = ("<!-- a -->", "<!-- b -->")
    page = renewed("before\n<!-- a -->\nyesterday\n<!-- b -->\nafter\n", marks, "today\n")
    assert page == "before\n<!-- a -->\n\ntoday\n\n<!-- b -->\nafter\n"
    with pytest.raises(ValueError, match="<!-- a -->"):
        renewed("no marks", marks, "today\n")


def test_the_stored_results_are_the_medians_of_the_rounds(results: Results, tmp_path: Path) -> None:
    results.add(Row("http", "8 clients", "broken", 0, failed="LoadError: refused"))
    (tmp_path / "results.json").write_text(dumped(results), "utf-8")
    stored = Results.read(tmp_path / "results.json")
    assert stored.facts == FACTS
    assert [(row.peer, row.round, row.figures.get("cpu_us"), row.failed) for row in stored.rows] == [
        ("other", 0, 3000.0, ""),
        ("manifold", 0, 80.0, ""),
        ("limit", 0, 40.0, ""),
        ("broken", 0, None, "LoadError: refused"),
    ]
    assert dumped(stored) == dumped(results)


def test_the_table_for_readme_compares_with_the_lower_bound(results: Results) -> None:
    with pytest.raises(ValueError, match="rss_mb of memory"):
        speed(results)
    results.add(Row("memory", "idle, 10 servers", "manifold", 0, {"rss_mb": 71.0}))
    results.add(Row("memory", "2000 sessions, nothing else", "manifold", 0, {"kb_per_session": 9.0}))
    results.add(Row("start", "the same over HTTP, started again", "manifold", 0, {"answers_s": 0.5}))
    assert "| 8 | 40.0 µs | 80.0 µs (2.0x) |" in speed(results)
    assert "With 10 servers the process holds 71.0 MB" in speed(results)


@pytest.mark.parametrize(
    ("value", "spelled"), [(None, "–"), (12345.6, "12,346"), (99.94, "99.9"), (2.5, "2.50"), (0.0421, "0.042")]
)
def test_figures_have_three_digits_or_so(value: float | None, spelled: str) -> None:
    assert number(value) == spelled


@pytest.mark.parametrize(("now", "is_worse"), [(1.0, False), (2.4, False), (2.6, True)])
def test_only_a_figure_beyond_the_margin_is_worse(now: float, is_worse: bool) -> None:
    assert [verdict.is_worse for verdict in verdicts({"a": now}, {"a": 2.0}, 1.25)] == [is_worse]
    assert ("WORSE" in str(Comparison("a", now, 2.0, 1.25))) == is_worse
    assert not Comparison("new", now, None, 1.25).is_worse


def test_runs_are_joined_with_the_peers_of_both() -> None:
    other = Facts.now(commit="def5678", rounds=1, seconds=1.0, versions={"another": "2"}, labels={"another": "it"})
    both = FACTS.joined(other)
    assert (both.commit, both.versions) == ("abc1234", {"another": "2", "mcp-manifold": "1.0"})
    assert both.labels.keys() == {"manifold", "limit", "other", "another"}
