"""How wide the terminal is, and laying out lines in it. Knows no server and no command."""

import shutil
import sys
from collections.abc import Sequence
from typing import Final

import click

from mcp_manifold.cli.logs import visible_text

UNBOUNDED: Final = 0
"""The width of what is no terminal: nothing is cut."""


def is_terminal() -> bool:
    """Whether stdout goes to a person."""
    return sys.stdout.isatty()


def width() -> int:
    """Columns of the terminal; UNBOUNDED where stdout is none."""
    return shutil.get_terminal_size().columns if is_terminal() else UNBOUNDED


def say(lines: Sequence[str]) -> None:
    """Print lines on stdout."""
    if lines:
        click.echo("\n".join(lines))


def note(line: str) -> None:
    """Print a line on stderr."""
    click.echo(line, err=True)


def cut(text: str, columns: int) -> str:
    """`text` within `columns`, the end made visible where it was cut."""
    return text if columns == UNBOUNDED or len(text) <= columns else text[: max(columns - 1, 0)] + "…"


def columns(rows: Sequence[Sequence[str]], *, indent: str = "  ") -> list[str]:
    """Rows as lines with their cells below each other."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return [
        (indent + "  ".join(cell.ljust(wide) for cell, wide in zip(row, widths, strict=True))).rstrip() for row in rows
    ]


def counted(number: int, one: str, many: str = "") -> str:
    """`1 tool`, `3 tools`."""
    return f"{number} {one if number == 1 else many or one + 's'}"


def size(number: int) -> str:
    """A number of bytes, for people."""
    if number < 1000:
        return counted(number, "byte")
    return f"{number / 1000:.1f} kB" if number < 1_000_000 else f"{number / 1_000_000:.1f} MB"


def say_as_it_came(text: str) -> None:
    """Print what a server wrote: to a pipe as it is, to a terminal without anything that would drive it."""
    click.echo(visible_text(text) if is_terminal() else text)
