"""Text to plain values, with as little as it takes: plain JSON by the standard library, everything else by `syntax`.

`syntax` reads all of JSON5 and knows the place of everything, and stands on a library that takes a tenth of a second to
import. Most configurations are plain JSON, and nothing in them is wrong: then it is not needed. Both say the same.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Final

from mcp_manifold.config.spans import MAX_DEPTH, MAX_DIGITS, Loc, Parsed, Spot

_SURROGATE: Final = re.compile(r"\\u[dD][89a-fA-F]")


def parse(text: str) -> Parsed:
    """Read `text`.

    Raises:
        Malformed: it is not JSON5, or names a key twice.
    """
    try:
        return Parsed(_plain(text), _Spots(text))
    except (ValueError, RecursionError):
        return _thoroughly(text)


def _thoroughly(text: str) -> Parsed:
    from mcp_manifold.config import syntax  # noqa: PLC0415 - only a text that is no plain JSON, or wrong, needs it

    return syntax.parse(text)


def _plain(text: str) -> object:
    """The values of plain JSON; ValueError where there is any doubt."""
    if _SURROGATE.search(text):
        raise ValueError("surrogates, which may be halves of a pair")
    data = json.loads(
        text,
        object_pairs_hook=_unique,
        parse_constant=_no_constant,
        parse_float=_finite,
        parse_int=_integer,
    )
    if _is_deeper(data, MAX_DEPTH):
        raise ValueError("too deep")
    return data


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is given twice")
    return found


def _no_constant(name: str) -> object:
    raise ValueError(name)


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(text)
    return number


def _integer(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise ValueError("a number is too long")
    return int(text)


def _is_deeper(data: object, depth: int) -> bool:
    inside = data.values() if isinstance(data, dict) else data if isinstance(data, list) else ()
    return isinstance(data, dict | list) and (depth == 0 or any(_is_deeper(each, depth - 1) for each in inside))


class _Spots(Mapping[Loc, Spot]):
    """The places of all values of a text, found when the first of them is asked for."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._found: Mapping[Loc, Spot] | None = None

    def __repr__(self) -> str:
        return f"<_Spots {'not looked for' if self._found is None else len(self._found)}>"

    def __getitem__(self, loc: Loc) -> Spot:
        return self._all()[loc]

    def __iter__(self) -> Iterator[Loc]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())

    def _all(self) -> Mapping[Loc, Spot]:
        if self._found is None:
            self._found = _thoroughly(self._text).spots
        return self._found
