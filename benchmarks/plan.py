"""What a run is to do: how often, how long, where, with whom. Values."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).resolve().parent
ROOT: Final = HERE.parent


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A run."""

    peers: tuple[str, ...]
    scenarios: tuple[str, ...]
    rounds: int = 3
    """Of everything; they are interleaved, so that a noisy minute is nobody's alone."""
    seconds: float = 2.0
    """Of each measured stretch."""
    sessions: int = 2000
    work: Path
    environments: Path
    """Where peers are installed that are none of this project's dependencies."""
    target_cpus: tuple[int, ...] = ()
    load_cpus: tuple[int, ...] = ()
    python: str = sys.executable
