"""Counts and times of one backend's life, and the error of a call while it is unavailable. Decides nothing."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from mcp_manifold.errors import BackendUnavailable
from mcp_manifold.model.lifecycle import LifecycleEvent, State, Status

_WHAT: Final[Mapping[State, str]] = {
    State.CONNECTING: "is still connecting",
    State.BACKING_OFF: "is not reachable",
    State.STOPPED: "is stopped",
}
_ADVICE: Final[Mapping[State, str]] = {
    State.CONNECTING: "Try again in a few seconds.",
    State.BACKING_OFF: "Try again then, or go on without this server; `mcp-manifold status` says more.",
    State.CRASH_LOOP: "Go on without this server: its program or its configuration has to be fixed first.",
    State.STOPPED: "Go on without this server.",
}


@dataclass(slots=True)
class BackendStats:
    """Counts and times of one backend. Its life and its links report to it, and read it."""

    moved: datetime
    """When it entered its state. Wall clock, for display only."""
    away: datetime | None = None
    """Since when it is unavailable; None while it is available, or not needed. Wall clock."""
    listed: float | None = None
    """Time of the last listing, by the clock of its context."""
    lives: int = 0
    """Times the shared link was opened."""
    links: int = 0
    """Links opened in all, clients' own links included."""

    def happened(self, event: LifecycleEvent, today: datetime) -> None:
        """Count a lifecycle event; `today` is the time on the wall clock."""
        self.moved = today
        self.lives += event is LifecycleEvent.OPENED
        if event in (LifecycleEvent.OPENED, LifecycleEvent.RESTED):
            self.away = None
        elif event in (LifecycleEvent.STARTED, LifecycleEvent.FAILED, LifecycleEvent.LOST, LifecycleEvent.CRASHED):
            self.away = self.away or self.moved

    def note_link(self) -> None:
        """Count a link that was opened."""
        self.links += 1

    def note_listing(self, now: float) -> None:
        """Note when it listed, by the clock of its context."""
        self.listed = now


def unavailable_error(
    backend: str, status: Status, *, now: float, away: datetime | None, today: datetime
) -> BackendUnavailable:
    """The error for a call to a backend without a link: the reason, since when, the next attempt, advice.

    Args:
        now: the time on the clock of `status`.
        away: since when the backend is unavailable, on the wall clock.
        today: the time on the wall clock.
    """
    what = _WHAT.get(status.state, "is not ready")
    if status.state is State.CRASH_LOOP:
        what = f"is in a crash loop: exited {status.crashes} times in a row"
    reason = f"{what} ({status.last_error})" if status.last_error else what
    left = None if status.next_try is None else max(0.0, status.next_try - now)
    seconds = now - status.since if away is None else (today - away).total_seconds()
    soon = f"; next attempt in {left:.1f} s" if left is not None else ""
    since = "" if away is None else away.isoformat(timespec="seconds").replace("+00:00", "Z")
    message = f"{reason}, for {_rounded(seconds)}{soon}"
    return BackendUnavailable(backend, message, next_try=left, since=since, advice=_ADVICE.get(status.state, ""))


def _rounded(seconds: float) -> str:
    if seconds < 120:
        return f"{max(0.0, seconds):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"
