"""The plan of a run: rounds, durations, processors and peers."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).resolve().parent
ROOT: Final = HERE.parent


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A run."""

    peers: tuple[str, ...] = ()
    scenarios: tuple[str, ...] = ()
    rounds: int = 3  # repetitions of every measurement. They are interleaved, so a noisy minute affects every peer.
    seconds: float = 2.0  # duration of each measurement
    sessions: int = 2000
    work: Path
    environments: Path  # directory of environments for peers that are not this project's dependencies
    target_cpus: tuple[int, ...] = ()
    load_cpus: tuple[int, ...] = ()
    python: str = sys.executable
