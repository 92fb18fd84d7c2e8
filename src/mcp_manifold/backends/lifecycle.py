"""The rules of a backend's life: which state follows which event, and how long to wait. Pure: no clock, no task.

Theory of operation. A backend is in exactly one state. Events come from its one owner task; `advance` answers with the
next `Status` and nothing else happens. Time and chance are arguments. What is not in the table is a programming error.

            started            opened             lost
    idle ───────────> connecting ──────> ready ─────────> backing off ──┐
                          ^  │ failed                        ^          │ started
                          │  └───────────────────────────────┘          │
                          └─────────────────────────────────────────────┘      (stopped: from anywhere, for good)

A link that is open but answers no probe is degraded: calls still go there, `answered` makes it ready again, and it can
be lost as a ready one can.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final


class State(StrEnum):
    """Where a backend is in its life."""

    IDLE = "idle"
    CONNECTING = "connecting"
    READY = "ready"
    DEGRADED = "degraded"
    BACKING_OFF = "backing off"
    STOPPED = "stopped"


class Event(StrEnum):
    """What happened to a backend."""

    STARTED = "started"
    OPENED = "opened"
    FAILED = "failed"
    FELL_SILENT = "fell silent"
    ANSWERED = "answered"
    LOST = "lost"
    STOPPED = "stopped"


_NEXT: Final[Mapping[tuple[State, Event], State]] = MappingProxyType(
    {
        (State.IDLE, Event.STARTED): State.CONNECTING,
        (State.BACKING_OFF, Event.STARTED): State.CONNECTING,
        (State.CONNECTING, Event.OPENED): State.READY,
        (State.CONNECTING, Event.FAILED): State.BACKING_OFF,
        (State.READY, Event.LOST): State.BACKING_OFF,
        (State.READY, Event.FELL_SILENT): State.DEGRADED,
        (State.DEGRADED, Event.ANSWERED): State.READY,
        (State.DEGRADED, Event.LOST): State.BACKING_OFF,
        **{(state, Event.STOPPED): State.STOPPED for state in State},
    }
)

FIRST_DELAY: Final = 0.2
"""Seconds before the first attempt after a failure: long enough not to spin, short enough not to be noticed."""
MAX_DELAY: Final = 30.0
"""Seconds no wait exceeds: a backend that came back is found within this time without anybody calling it."""
STEADY: Final = 10.0
"""Seconds a link must have lived for its loss to count as the first one again: faster is a crash loop."""


@dataclass(frozen=True, slots=True)
class Status:
    """A backend's state as others may see it. `since` and `next_try` are readings of the owner's monotonic clock."""

    state: State = State.IDLE
    since: float = 0.0
    failures: int = 0
    next_try: float | None = None
    last_error: str = ""

    @property
    def is_open(self) -> bool:
        """Whether there is a link that calls can use."""
        return self.state in (State.READY, State.DEGRADED)


def backoff(failures: int, *, jitter: float) -> float:
    """Seconds to wait after `failures` (>= 1) failures in a row; `jitter` in [0, 1) spreads it over 50-100 %."""
    ceiling = min(MAX_DELAY, FIRST_DELAY * 2.0 ** min(failures - 1, 16))
    return ceiling * (0.5 + jitter / 2)


def advance(status: Status, event: Event, *, now: float, jitter: float = 0.0, reason: str = "") -> Status:
    """The status after `event`.

    Raises:
        ValueError: the event cannot happen in this state.
    """
    state = _NEXT.get((status.state, event))
    if state is None:
        raise ValueError(f"{event} cannot happen to a backend that is {status.state}")
    is_steady = status.is_open and now - status.since >= STEADY
    failures = 0 if is_steady or state is State.STOPPED else status.failures
    if state is State.BACKING_OFF:
        failures += 1
        return Status(state, now, failures, now + backoff(failures, jitter=jitter), reason)
    return Status(state, now, failures, None, status.last_error if state is State.CONNECTING else reason)
