"""Where things are in a text: ways to values, lines and columns. Values only."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

Loc = tuple[str | int, ...]
"""The way to a value: keys and indices from the root."""

MAX_DEPTH: Final = 64
"""Nesting beyond this is no configuration, and would exhaust the stack."""
MAX_DIGITS: Final = 400
"""Python refuses to read integers of some thousand digits; nobody configures one of some hundred."""


@dataclass(frozen=True, slots=True)
class SourceSpan:
    """Line and column, both from 1."""

    line: int
    column: int


@dataclass(frozen=True, slots=True)
class Spot:
    """Where a value is and where its key; the same for what has no key."""

    key: SourceSpan
    value: SourceSpan


@dataclass(frozen=True, slots=True)
class Parsed:
    """What the text says, and where."""

    data: object
    spots: Mapping[Loc, Spot]


class Malformed(Exception):
    """The text cannot be read; `args` are the reason and the place."""

    def __init__(self, reason: str, place: SourceSpan) -> None:
        super().__init__(reason, place)
        self.reason = reason
        self.place = place
