"""The rules of a backend's life: which state follows which event, and how long to wait. Pure: no clock, no task.

Theory of operation. A backend is in exactly one state. Events come from its one owner task; `advance` answers with the
next `Status` and nothing else happens. Time and chance are arguments. What is not in the table is a programming error.

            started            opened          lost, crashed
    idle ───────────> connecting ──────> ready ─────────────> backing off ──┐
      ^                   ^  │ failed, crashed                   ^          │ started
      │ rested            │  └───────────────────────────────────┘          │
      └─ (*)              └─────────────────────────────────────────────────┘    (stopped: from anywhere, for good)

A link that is open but answers no probe is degraded: calls still go there, `answered` makes it ready again, and it can
be lost as a ready one can. A process that ends by itself again and again before it is of any use is in a crash loop
instead of backing off: the waits are longer, and no call cuts them short. (*) What nobody needs comes to rest, from an
open link as well as from a wait; after a wait it keeps its failures, so that the next start goes on where the last one
ended. Disabled is no part of a life: such a server is configured, and that is all.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
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
    CRASH_LOOP = "crash loop"
    STOPPED = "stopped"
    DISABLED = "disabled"


class LifecycleEvent(StrEnum):
    """What happened to a backend."""

    STARTED = "started"
    OPENED = "opened"
    FAILED = "failed"
    CRASHED = "crashed"
    FELL_SILENT = "fell silent"
    ANSWERED = "answered"
    LOST = "lost"
    RESTED = "rested"
    STOPPED = "stopped"


_NEXT: Final[Mapping[tuple[State, LifecycleEvent], State]] = MappingProxyType(
    {
        (State.IDLE, LifecycleEvent.STARTED): State.CONNECTING,
        (State.IDLE, LifecycleEvent.RESTED): State.IDLE,
        (State.BACKING_OFF, LifecycleEvent.STARTED): State.CONNECTING,
        (State.BACKING_OFF, LifecycleEvent.RESTED): State.IDLE,
        (State.CRASH_LOOP, LifecycleEvent.STARTED): State.CONNECTING,
        (State.CRASH_LOOP, LifecycleEvent.RESTED): State.IDLE,
        (State.CONNECTING, LifecycleEvent.OPENED): State.READY,
        (State.CONNECTING, LifecycleEvent.FAILED): State.BACKING_OFF,
        (
            State.CONNECTING,
            LifecycleEvent.CRASHED,
        ): State.BACKING_OFF,  # or, the CRASHES-th time in a row, State.CRASH_LOOP
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
)

FIRST_DELAY: Final = 0.2
"""Seconds before the first attempt after a failure: long enough not to spin, short enough not to be noticed."""
MAX_DELAY: Final = 30.0
"""Seconds no wait exceeds: a backend that came back is found within this time without anybody calling it."""
STEADY: Final = 10.0
"""Seconds a link must have lived for its loss to count as the first one again."""
CRASHES: Final = 5
"""Times in a row that a process ended by itself before it was of any use, which make a crash loop."""
LOOP_DELAY: Final = 30.0
"""Seconds between two starts in a crash loop, at least: what dies at once is not worth a process more often."""


@dataclass(frozen=True, slots=True)
class Status:
    """A backend's state as others may see it. `since` and `next_try` are readings of the owner's monotonic clock."""

    state: State = State.IDLE
    since: float = 0.0
    failures: int = 0
    crashes: int = 0
    """Those of the failures, the last ones in a row, that were a process which ended before it was of any use."""
    next_try: float | None = None
    last_error: str = ""

    @property
    def is_open(self) -> bool:
        """Whether there is a link that calls can use."""
        return self.state in (State.READY, State.DEGRADED)

    @property
    def is_waiting(self) -> bool:
        """Whether it failed, and is to be tried again."""
        return self.state in (State.BACKING_OFF, State.CRASH_LOOP)

    @property
    def is_resting(self) -> bool:
        """Whether there is no link because nobody needs one, and no reason to think that it could not be had."""
        return self.state is State.IDLE and not self.failures


def backoff(failures: int, *, jitter: float) -> float:
    """Seconds to wait after `failures` (>= 1) failures in a row; `jitter` in [0, 1) spreads it over 50-100 %."""
    ceiling = min(MAX_DELAY, FIRST_DELAY * 2.0 ** min(failures - 1, 16))
    return ceiling * (0.5 + jitter / 2)


def loop_delay(*, jitter: float) -> float:
    """Seconds to wait in a crash loop: never less than `LOOP_DELAY`, up to half as much again."""
    return LOOP_DELAY * (1 + jitter / 2)


def advance(status: Status, event: LifecycleEvent, *, now: float, jitter: float = 0.0, reason: str = "") -> Status:
    """The status after `event`.

    Raises:
        ValueError: the event cannot happen in this state.
    """
    state = _NEXT.get((status.state, event))
    if state is None:
        raise ValueError(f"{event} cannot happen to a backend that is {status.state}")
    is_steady = status.is_open and now - status.since >= STEADY
    if is_steady or state is State.STOPPED:
        status = replace(status, failures=0, crashes=0)
    if state is State.BACKING_OFF:
        return _failed(status, now, reason, jitter=jitter, has_crashed=event is LifecycleEvent.CRASHED)
    if state is State.IDLE and status.is_open:  # it was well, and nobody needed it
        status = replace(status, failures=0, crashes=0, last_error="")
    keeps_reason = state in (State.CONNECTING, State.IDLE)
    return replace(
        status, state=state, since=now, next_try=None, last_error=status.last_error if keeps_reason else reason
    )


def _failed(status: Status, now: float, reason: str, *, jitter: float, has_crashed: bool) -> Status:
    failures, crashes = status.failures + 1, status.crashes + 1 if has_crashed else 0
    if crashes >= CRASHES:
        return Status(State.CRASH_LOOP, now, failures, crashes, now + loop_delay(jitter=jitter), reason)
    return Status(State.BACKING_OFF, now, failures, crashes, now + backoff(failures, jitter=jitter), reason)
