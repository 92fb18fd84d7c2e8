"""The plot: CPU per call as bars on a logarithmic scale, written as SVG."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from xml.sax.saxutils import escape

from benchmarks.report import LIMITS, number
from benchmarks.rows import Results

_PANELS: Final = (("http", "8 clients", "To HTTP servers"), ("stdio", "8 clients", "To stdio servers"))
_WIDTH: Final = 860
_LEFT: Final = 330
_RIGHT: Final = 90
_ROW: Final = 30
_COLOURS: Final = {"limit": "#8a94a6", "ours": "#2f7d4f", "other": "#b7742d"}
_STYLE: Final = (
    "text{font:13px system-ui,sans-serif;fill:#59636e}.h{font-weight:600;font-size:14px}.v{font-weight:600}"
    "@media(prefers-color-scheme:dark){text{fill:#b1bac4}}"
)


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar."""

    label: str
    value: float
    kind: str


def bars(results: Results, scenario: str, cell: str) -> list[Bar]:
    """The bars of one panel, the cheapest first."""
    found = []
    for peer in results.of(scenario, cell):
        value = results.median(scenario, cell, peer, "cpu_us")
        if value and peer != "direct":
            kind = "limit" if peer in LIMITS else "ours" if peer.startswith("manifold") else "other"
            found.append(Bar(results.facts.labels.get(peer, peer), value, kind))
    return sorted(found, key=lambda bar: bar.value)


def picture(results: Results) -> str:
    """The whole plot; empty without figures."""
    panels = [(title, bars(results, scenario, cell)) for scenario, cell, title in _PANELS]
    panels = [(title, found) for title, found in panels if found]
    values = [bar.value for _, found in panels for bar in found]
    if not values:
        return ""
    low, high = math.floor(math.log10(min(values))), math.log10(max(values))
    parts, top = [], 12
    for title, found in panels:
        parts += _panel(title, found, top, low, high)
        top += _ROW * (len(found) + 1) + 18
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {top}" role="img">'
    name = "<title>CPU of the hop per tools/call of 64 bytes, 8 clients, in microseconds, logarithmic</title>"
    return "\n".join([head, name, f"<style>{_STYLE}</style>", *parts, "</svg>", ""])


def _panel(title: str, found: Sequence[Bar], top: int, low: float, high: float) -> list[str]:
    said = f"{title}: CPU µs per call of 64 bytes, 8 clients (logarithmic)"
    parts = [f'<text class="h" x="8" y="{top + 14}">{escape(said)}</text>']
    for at, bar in enumerate(found, 1):
        y = top + at * _ROW
        length = max(3.0, (_WIDTH - _LEFT - _RIGHT) * (math.log10(bar.value) - low) / max(high - low, 0.1))
        parts += [
            f'<text x="{_LEFT - 10}" y="{y + 14}" text-anchor="end">{escape(bar.label)}</text>',
            f'<rect x="{_LEFT}" y="{y}" width="{length:.1f}" height="20" rx="3" fill="{_COLOURS[bar.kind]}"/>',
            f'<text class="v" x="{_LEFT + length + 8:.1f}" y="{y + 14}">{number(bar.value)}</text>',
        ]
    return parts
