"""The circuit breaker of one backend: refuses calls while the backend answers none. Pure: no clock, no task.

Theory. Back-off handles a backend that cannot be connected to. The breaker handles one that is connected but answers no
calls: each call would wait for its whole timeout. After `failures` calls in a row without an answer it opens, and calls
are refused at once. After `wait` seconds it admits one trial call (half-open): an answer closes it, no answer doubles
the wait. If a trial has no outcome, the next one is admitted after another `wait`. An error response is an answer.

    closed ── failures in a row ──> open ── wait is over ──> half-open ── answered ──> closed
                                     ^                          │ failed: twice the wait
                                     └──────────────────────────┘
"""

from enum import StrEnum
from typing import Final

MAX_BACKOFF_FACTOR: Final = 16
"""The longest wait, as a multiple of the first."""


class Position(StrEnum):
    """The state of a breaker."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


class Breaker:
    """The circuit breaker of one backend. Every `now` is a time of the caller's monotonic clock, in seconds."""

    def __init__(self, *, failures: int, wait: float) -> None:
        self.is_shut = False
        """Whether calls need `admits`. While it is closed, a call checks only this."""
        self.failed_in_row = 0
        self.position = Position.CLOSED
        self.openings = 0
        """Times it opened, without failed trials."""
        self.reason = ""
        """The message of the last failure."""
        self._until = 0.0
        self.adapt(failures=failures, wait=wait)

    def __repr__(self) -> str:
        return f"<Breaker {self.position} failed={self.failed_in_row}/{self._failures}>"

    def adapt(self, *, failures: int, wait: float) -> None:
        """Use other settings from now on; with `failures` 0 it never opens."""
        self._failures = failures
        self._first = self._wait = wait
        if not failures:
            self.close()

    def left(self, now: float) -> float | None:
        """Seconds until the next trial; None while it is closed."""
        return None if self.position is Position.CLOSED else max(0.0, self._until - now)

    def would_admit(self, now: float) -> bool:
        """Whether `admits` would return true. Changes nothing, unlike `admits`."""
        return self.position is Position.CLOSED or now >= self._until

    def admits(self, now: float) -> bool:
        """Decide whether a call may be sent. While the breaker is open, the admitted call becomes the trial."""
        if self.position is Position.CLOSED:
            return True
        if not self.would_admit(now):
            return False
        self.position = Position.HALF_OPEN
        self._until = now + self._wait
        return True

    def close(self) -> None:
        """Close and reset, after an answer or on a new connection."""
        self.position = Position.CLOSED
        self.is_shut = False
        self.failed_in_row = 0
        self._wait = self._first

    def failed(self, now: float, reason: str) -> None:
        """Count a call without an answer. A call sent before the breaker opened changes nothing."""
        self.failed_in_row += 1
        self.reason = reason
        if self.position is Position.HALF_OPEN:
            self._wait = min(self._wait * 2, self._first * MAX_BACKOFF_FACTOR)
            self._open(now)
        elif self.position is Position.CLOSED and 0 < self._failures <= self.failed_in_row:
            self.openings += 1
            self._open(now)

    def _open(self, now: float) -> None:
        self.position = Position.OPEN
        self.is_shut = True
        self._until = now + self._wait
