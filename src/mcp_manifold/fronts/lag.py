"""How late the event loop is: the one number that tells that something holds up everybody. Knows nothing else."""

import asyncio
import time
from typing import Final

EVERY: Final = 1.0
"""Seconds between two samples."""


class LoopLag:
    """Samples, while it is begun, by how many seconds a timer comes late."""

    __slots__ = ("_due", "_every", "_timer", "_worst", "last")

    def __init__(self, every: float = EVERY) -> None:
        self._every = every
        self.last = 0.0
        self._worst = 0.0
        self._due = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<LoopLag {'sampling' if self._timer else 'idle'} last={self.last:.4f}s>"

    def begin(self) -> None:
        """Sample from now on."""
        if self._timer is None:
            self._arm()

    def end(self) -> None:
        """Sample no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def worst(self) -> float:
        """The worst sample since this was last asked, the one that is overdue now included."""
        overdue = 0.0 if self._timer is None else time.monotonic() - self._due
        worst, self._worst = max(self._worst, overdue, 0.0), 0.0
        return worst

    def _arm(self) -> None:
        self._due = time.monotonic() + self._every
        self._timer = asyncio.get_running_loop().call_later(self._every, self._sample)

    def _sample(self) -> None:
        self.last = max(0.0, time.monotonic() - self._due)
        self._worst = max(self._worst, self.last)
        self._arm()
