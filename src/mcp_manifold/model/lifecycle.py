"""The state machine of a backend: the state that follows each event, and the delays between attempts. Pure.

A backend is in exactly one state. Its owner task reports events; `advance` returns the next `Status` and does nothing
else. Time and jitter are arguments. An event that is not in the table is a programming error.

            started            opened          lost, crashed
    idle ───────────> connecting ──────> ready ─────────────> backing off ──┐
      ^                   ^  │ failed, crashed                   ^          │ started
      │ rested            │  └───────────────────────────────────┘          │
      └─ (*)              └─────────────────────────────────────────────────┘    (stopped: from anywhere, for good)

A link that is open but answers no probe is degraded: calls still use it, `answered` makes it ready again, and it can
be lost like a ready one. A process that repeatedly exits before it is usable is in a crash loop instead of backing off:
the delays are longer, and no call shortens them. (*) An unused backend rests, from an open link or from a delay. After
a delay it keeps its failure count, so that the next start continues the back-off. A disabled backend has no lifecycle.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final


class State(StrEnum):
    """The state of a backend."""

    IDLE = "idle"
    CONNECTING = "connecting"
    READY = "ready"
    DEGRADED = "degraded"
    BACKING_OFF = "backing off"
    CRASH_LOOP = "crash loop"
    STOPPED = "stopped"
    DISABLED = "disabled"


class LifecycleEvent(StrEnum):
    """An event reported by a backend's owner task."""

    STARTED = "started"
    OPENED = "opened"
    FAILED = "failed"
    CRASHED = "crashed"
    FELL_SILENT = "fell silent"
    ANSWERED = "answered"
    LOST = "lost"
    RESTED = "rested"
    STOPPED = "stopped"


_NEXT: Final[Mapping[tuple[State, LifecycleEvent], State]] = {
    (State.IDLE, LifecycleEvent.STARTED): State.CONNECTING,
    (State.IDLE, LifecycleEvent.RESTED): State.IDLE,
    (State.BACKING_OFF, LifecycleEvent.STARTED): State.CONNECTING,
    (State.BACKING_OFF, LifecycleEvent.RESTED): State.IDLE,
    (State.CRASH_LOOP, LifecycleEvent.STARTED): State.CONNECTING,
    (State.CRASH_LOOP, LifecycleEvent.RESTED): State.IDLE,
    (State.CONNECTING, LifecycleEvent.OPENED): State.READY,
    (State.CONNECTING, LifecycleEvent.FAILED): State.BACKING_OFF,
    # The CRASHES-th crash in a row leads to State.CRASH_LOOP instead.
    (State.CONNECTING, LifecycleEvent.CRASHED): State.BACKING_OFF,
    (State.READY, LifecycleEvent.LOST): State.BACKING_OFF,
    (State.READY, LifecycleEvent.CRASHED): State.BACKING_OFF,
    (State.READY, LifecycleEvent.RESTED): State.IDLE,
    (State.READY, LifecycleEvent.FELL_SILENT): State.DEGRADED,
    (State.DEGRADED, LifecycleEvent.ANSWERED): State.READY,
    (State.DEGRADED, LifecycleEvent.LOST): State.BACKING_OFF,
    (State.DEGRADED, LifecycleEvent.CRASHED): State.BACKING_OFF,
    (State.DEGRADED, LifecycleEvent.RESTED): State.IDLE,
    **{(state, LifecycleEvent.STOPPED): State.STOPPED for state in State if state is not State.DISABLED},
}

FIRST_DELAY: Final = 0.2
"""Seconds before the first attempt after a failure: long enough not to spin, too short to be noticed."""
MAX_DELAY: Final = 30.0
"""Longest back-off in seconds: a recovered backend is found within this time even if nobody calls it."""
STEADY: Final = 10.0
"""Seconds a link must have been open for its loss to reset the failure count."""
CRASHES: Final = 5
"""Crashes in a row, before the process was usable, that make a crash loop."""
LOOP_DELAY: Final = 30.0
"""Shortest delay in seconds between two starts in a crash loop; jitter makes it up to 1.5 times as long."""


@dataclass(frozen=True, slots=True)
class Status:
    """A backend's state as published. `since` and `next_try` are times of the owner's monotonic clock, in seconds."""

    state: State = State.IDLE
    since: float = 0.0
    failures: int = 0
    crashes: int = 0
    """How many of the latest failures in a row were crashes."""
    next_try: float | None = None
    last_error: str = ""

    @property
    def is_open(self) -> bool:
        """Whether there is a link for calls to use."""
        return self.state in (State.READY, State.DEGRADED)

    @property
    def is_resting(self) -> bool:
        """Whether the backend has no link because none is needed, and the last one did not fail."""
        return self.state is State.IDLE and not self.failures


def backoff(failures: int, *, jitter: float) -> float:
    """Seconds to wait after `failures` (>= 1) failures in a row; `jitter` in [0, 1) spreads them over 50-100 %."""
    ceiling = min(MAX_DELAY, FIRST_DELAY * 2.0 ** min(failures - 1, 16))
    return ceiling * (0.5 + jitter / 2)


def advance(status: Status, event: LifecycleEvent, *, now: float, jitter: float = 0.0, reason: str = "") -> Status:
    """The status after `event`.

    Raises:
        ValueError: the event cannot happen in this state.
    """
    state = _NEXT.get((status.state, event))
    if state is None:
        raise ValueError(f'event "{event}" is impossible in state "{status.state}"')
    is_steady = status.is_open and now - status.since >= STEADY
    if is_steady or state is State.STOPPED:
        status = replace(status, failures=0, crashes=0)
    if state is State.BACKING_OFF:
        return _failed(status, now, reason, jitter=jitter, has_crashed=event is LifecycleEvent.CRASHED)
    if state is State.IDLE and status.is_open:  # it worked and is no longer needed
        status = replace(status, failures=0, crashes=0, last_error="")
    keeps_reason = state in (State.CONNECTING, State.IDLE)
    return replace(
        status, state=state, since=now, next_try=None, last_error=status.last_error if keeps_reason else reason
    )


def _failed(status: Status, now: float, reason: str, *, jitter: float, has_crashed: bool) -> Status:
    failures, crashes = status.failures + 1, status.crashes + 1 if has_crashed else 0
    if crashes >= CRASHES:
        delay = LOOP_DELAY * (1 + jitter / 2)
        return Status(State.CRASH_LOOP, now, failures, crashes, now + delay, reason)
    return Status(State.BACKING_OFF, now, failures, crashes, now + backoff(failures, jitter=jitter), reason)
