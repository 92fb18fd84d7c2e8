"""docs/performance.md: its tables and its plot, written between two marks; the words around them are a person's."""

from typing import Final

from benchmarks.plan import ROOT
from benchmarks.plot import picture
from benchmarks.report import tables
from benchmarks.rows import Facts, Results

PAGE: Final = ROOT / "docs" / "performance.md"
PLOT: Final = ROOT / "docs" / "assets" / "performance.svg"
BEGIN: Final = "<!-- measured: begin -->"
END: Final = "<!-- measured: end -->"


def facts(found: Facts) -> str:
    """What a run says of itself."""
    versions = ", ".join(f"{name} {version}" for name, version in found.versions.items() if version)
    return (
        f"Run of {found.date} at `{found.commit}`, Python {found.python}, {found.machine}, {found.processors} "
        f"processors; medians of {found.rounds} interleaved rounds of {found.seconds:g} s. {versions}."
    )


def renewed(page: str, results: Results) -> str:
    """The page with the figures of other results.

    Raises:
        ValueError: the marks are not there.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{PAGE} lacks {BEGIN} or {END}")
    return f"{before}{BEGIN}\n\n{facts(results.facts)}\n\n{tables(results)}\n{END}{after}"


def write(results: Results) -> None:
    """Put the results into the documentation."""
    PAGE.write_text(renewed(PAGE.read_text(), results))
    PLOT.write_text(picture(results))
