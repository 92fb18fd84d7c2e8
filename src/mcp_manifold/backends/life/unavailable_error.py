"""Why a backend cannot be called, as whoever called is told: what, why, since when, when next, what to do. Pure."""

from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Final

from mcp_manifold.errors import BackendUnavailable
from mcp_manifold.model.lifecycle import State, Status

_WHAT: Final[Mapping[State, str]] = MappingProxyType(
    {
        State.CONNECTING: "is still connecting",
        State.BACKING_OFF: "is not reachable",
        State.STOPPED: "is stopped",
    }
)
_ADVICE: Final[Mapping[State, str]] = MappingProxyType(
    {
        State.CONNECTING: "Try again in a few seconds.",
        State.BACKING_OFF: "Try again then, or go on without this server; `mcp-manifold status` says more.",
        State.CRASH_LOOP: "Go on without this server: its program or its configuration has to be mended first.",
        State.STOPPED: "Go on without this server.",
    }
)


def unavailable_error(
    backend: str, status: Status, *, now: float, away: datetime | None, today: datetime
) -> BackendUnavailable:
    """The error of a call to a backend that has no link. `now` is of the status' clock; `away`: since when, by that
    on the wall, which says `today`.
    """
    what = _WHAT.get(status.state, "is not ready")
    if status.state is State.CRASH_LOOP:
        what = f"ends again and again, {status.crashes} times in a row now"
    reason = f"{what} ({status.last_error})" if status.last_error else what
    left = None if status.next_try is None else max(0.0, status.next_try - now)
    seconds = now - status.since if away is None else (today - away).total_seconds()
    soon = f"; next attempt in {left:.1f} s" if left is not None else ""
    since = "" if away is None else away.isoformat(timespec="seconds").replace("+00:00", "Z")
    told = f"{reason}, for {_rounded(seconds)}{soon}"
    return BackendUnavailable(backend, told, next_try=left, since=since, advice=_ADVICE.get(status.state, ""))


def _rounded(seconds: float) -> str:
    """A length of time as people say it."""
    if seconds < 120:
        return f"{max(0.0, seconds):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"
