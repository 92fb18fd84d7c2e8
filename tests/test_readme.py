"""README.md: its figures are the benchmark's, its configurations load, its example and its links work."""

import re
from pathlib import Path
from typing import Final

import pytest

from benchmarks import page
from benchmarks.plot import picture
from benchmarks.rows import Results
from mcp_manifold.config import load

ROOT: Final = Path(__file__).parents[1]
README: Final = (ROOT / "README.md").read_text("utf-8")
RESULTS: Final = Results.read(page.RESULTS)
PAGES: Final = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "examples" / "README.md"])
RENEW: Final = "run `scripts/bench --show benchmarks/results.json --docs`"


@pytest.mark.parametrize("file", page.MARKS, ids=lambda file: file.name)
def test_the_published_figures_are_generated_from_the_last_results(file: Path) -> None:
    text = file.read_text("utf-8")
    assert text == page.renewed(text, page.MARKS[file], page.generated(RESULTS)[file]), RENEW


def test_the_plot_and_the_results_are_in_their_generated_form() -> None:
    assert page.PLOT.read_text("utf-8") == picture(RESULTS), RENEW
    assert page.RESULTS.read_text("utf-8") == page.dumped(RESULTS), RENEW


def test_no_speed_figure_stands_outside_of_the_generated_block() -> None:
    begin, end = page.MARKS[page.README]
    typed = README.partition(begin)[0] + README.partition(end)[2]
    assert not re.findall(r"\d\s?(?:µs|us|ms|KB|MB)\b|\d+(?:\.\d+)?x\b", typed)


@pytest.mark.parametrize("text", re.findall(r"```json\n(.*?)```", README, re.DOTALL))
def test_every_configuration_in_it_loads_without_a_warning(text: str, tmp_path: Path) -> None:
    file = tmp_path / "mcp.json"
    file.write_text(text, "utf-8")
    settings = load(file, environ={}, overrides=None)
    assert settings.servers
    assert (settings.broken, settings.warnings) == ((), ())


@pytest.mark.parametrize("text", re.findall(r"`(\{ .*? \})`", README))
def test_every_client_entry_in_it_is_a_valid_configuration(text: str, tmp_path: Path) -> None:
    file = tmp_path / "mcp.json"
    file.write_text(text, "utf-8")
    settings = load(file, environ={}, overrides=None)
    assert [(server.name, server.url) for server in settings.servers] == [("manifold", "http://127.0.0.1:8808/mcp")]


@pytest.mark.parametrize("file", PAGES, ids=lambda file: str(file.relative_to(ROOT)))
def test_every_link_to_a_file_leads_somewhere(file: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", file.read_text("utf-8"))
    missing = [target for target in targets if "://" not in target and not (file.parent / target).exists()]
    assert not missing
