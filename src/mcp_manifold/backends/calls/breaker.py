"""When to stop calling a backend that answers nothing, and when to try again. Pure: no clock, no task; knows no call.

Theory of operation. Back-off is for a backend that cannot be reached. This is for one that can, and whose calls fail
all the same: each of them would hold its caller for the whole timeout. After `failures` calls in a row without an
answer the breaker opens, and calls are refused at once. When `wait` is over it lets one call through (half-open): an
answer, whatever it says, closes the breaker; none doubles the wait. A trial that comes to no end either way is not
waited for: after another `wait` there may be the next. An error the backend itself answered with is an answer.

    closed ── failures in a row ──> open ── wait is over ──> half-open ── answered ──> closed
                                     ^                          │ failed: twice the wait
                                     └──────────────────────────┘
"""

from enum import StrEnum
from typing import Final

MOST: Final = 16
"""Times its first length that the wait can become."""


class Position(StrEnum):
    """Where a breaker stands."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


class Breaker:
    """See the module. `now` is a reading of whatever monotonic clock the caller has."""

    __slots__ = ("_failures", "_first", "_until", "_wait", "failed_in_row", "is_shut", "openings", "position", "reason")

    def __init__(self, *, failures: int, wait: float) -> None:
        self.is_shut = False
        """Whether calls have to be `admitted`; while it is closed, this is all that a call looks at."""
        self.failed_in_row = 0
        self.position = Position.CLOSED
        self.openings = 0
        """Times it opened, trials that failed not counted."""
        self.reason = ""
        """What the last failure was, in words."""
        self._until = 0.0
        self.adapt(failures=failures, wait=wait)

    def __repr__(self) -> str:
        return f"<Breaker {self.position} failed={self.failed_in_row}/{self._failures}>"

    def adapt(self, *, failures: int, wait: float) -> None:
        """Go by other numbers from now on; without any failures to count it never opens."""
        self._failures = failures
        self._first = self._wait = wait
        if not failures:
            self.close()

    def left(self, now: float) -> float | None:
        """Seconds until the next trial; None while it is closed."""
        return None if self.position is Position.CLOSED else max(0.0, self._until - now)

    def would_admit(self, now: float) -> bool:
        """Whether `admits` is true; changes nothing."""
        return self.position is Position.CLOSED or now >= self._until

    def admits(self, now: float) -> bool:
        """Whether a call may go through; one that may while it is open is the trial."""
        if self.position is Position.CLOSED:
            return True
        if not self.would_admit(now):
            return False
        self.position = Position.HALF_OPEN
        self._until = now + self._wait
        return True

    def close(self) -> None:
        """There was an answer, or it is another connection now: all is forgotten."""
        self.position = Position.CLOSED
        self.is_shut = False
        self.failed_in_row = 0
        self._wait = self._first

    def failed(self, now: float, reason: str) -> None:
        """A call had no answer. Those that were on their way when it opened change nothing any more."""
        self.failed_in_row += 1
        self.reason = reason
        if self.position is Position.HALF_OPEN:
            self._wait = min(self._wait * 2, self._first * MOST)
            self._open(now)
        elif self.position is Position.CLOSED and 0 < self._failures <= self.failed_in_row:
            self.openings += 1
            self._open(now)

    def _open(self, now: float) -> None:
        self.position = Position.OPEN
        self.is_shut = True
        self._until = now + self._wait
