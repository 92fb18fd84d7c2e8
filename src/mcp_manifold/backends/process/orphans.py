"""Orphaned processes: those of a killed manifold, and zombies that we adopt as PID 1. Linux only: reads /proc.

Kills only processes that carry the mark of a manifold that no longer runs.
"""

import contextlib
import ctypes
import logging
import os
import pathlib
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from mcp_manifold.clock import Clock, Timer

logger = logging.getLogger(__name__)

MARK: Final = "MCP_MANIFOLD_PARENT"
"""Variable that marks a manifold's processes: `<pid>:<start time>` of the manifold.

`config.environment` repeats the name: every command imports this file, and importing `config` is slow. A test compares
the two.
"""
PROC: Final = pathlib.Path("/proc")
REAP_EVERY: Final = 1.0
"""Seconds between two looks for zombies."""
REAP_NEXT: Final = 0.05
"""Seconds until the second look at a zombie."""
PR_GET_CHILD_SUBREAPER: Final = 37


@dataclass(frozen=True, slots=True)
class Stat:
    """Fields of /proc/<pid>/stat: state, session id, start time in clock ticks."""

    state: str
    session: int
    started: str

    @classmethod
    def of(cls, pid: int | str) -> "Stat | None":
        """The Stat of a process; None if there is no such process, or if it is a zombie."""
        try:
            fields = (PROC / str(pid) / "stat").read_bytes().rpartition(b")")[2].split()
        except OSError:
            return None
        found = cls(fields[0].decode(), int(fields[3]), fields[19].decode())
        return None if found.state in "ZX" else found


def mark() -> dict[str, str]:
    """Environment variables that mark a child for the next manifold."""
    own = Stat.of(os.getpid()) if sys.platform == "linux" else None
    return {} if own is None else {MARK: f"{os.getpid()}:{own.started}"}


def sweep() -> list[int]:
    """Kill the processes that a killed manifold left behind; returns their pids.

    A process that leads its own session stays: it was detached on purpose.
    """
    if sys.platform != "linux":
        return []
    swept = [pid for pid in _processes() if _is_orphan(pid)]
    for pid in swept:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
            logger.warning("killed a process of an earlier manifold", extra={"pid": pid})
    return swept


def _processes() -> Iterator[int]:
    """Pids of our user's other processes."""
    own, user = os.getpid(), os.geteuid()
    try:
        entries = list(os.scandir(PROC))
    except OSError as exc:  # no free descriptor
        logger.warning("cannot look for processes of an earlier manifold: %s", exc.strerror)
        return
    for entry in entries:
        with contextlib.suppress(OSError):
            if entry.name.isdecimal() and int(entry.name) != own and entry.stat().st_uid == user:
                yield int(entry.name)


def _is_orphan(pid: int) -> bool:
    try:
        manifold = _mark_of(pid)
        if not manifold or os.readlink(PROC / str(pid) / "ns/pid") != os.readlink(PROC / "self/ns/pid"):
            return False  # of another container, with pids of its own
    except OSError:
        return False
    parent, _, started = manifold.partition(":")
    alive, own = Stat.of(parent), Stat.of(pid)
    if own is None or (alive is not None and alive.started == started):
        return False
    return own.session != pid and Stat.of(own.session) is None


def _mark_of(pid: int) -> str:
    prefix = MARK.encode() + b"="
    for line in (PROC / str(pid) / "environ").read_bytes().split(b"\0"):
        if line.startswith(prefix):
            return line[len(prefix) :].decode("ascii", "replace")
    return ""


class Reaper:
    """Reaps adopted zombies: as PID 1 of a container, this process becomes the parent of every orphan.

    It polls, because uvloop keeps SIGCHLD for itself. It reaps a zombie only when it sees it twice: the event loop
    reaps its own children within one turn.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._seen = 0
        self._timer: Timer | None = None

    def __repr__(self) -> str:
        return f"<Reaper {'running' if self._timer is not None else 'idle'}>"

    def begin(self) -> None:
        """Start polling, if orphans become our children."""
        if adopts():
            self._timer = self._clock.call_later(REAP_EVERY, self._look)

    def end(self) -> None:
        """Stop polling."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        delay = REAP_EVERY
        with contextlib.suppress(ChildProcessError):
            found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            pid = 0 if found is None else found.si_pid
            if pid and pid == self._seen:
                os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG)
                logger.debug("orphan reaped", extra={"pid": pid})
            self._seen, delay = pid, REAP_NEXT if pid else REAP_EVERY
        self._timer = self._clock.call_later(delay, self._look)


def adopts() -> bool:
    """Whether orphans become our children: this process is PID 1, or a subreaper."""
    if sys.platform != "linux":
        return False
    if os.getpid() == 1:
        return True
    flag = ctypes.c_int()
    ctypes.PyDLL(None).prctl(PR_GET_CHILD_SUBREAPER, ctypes.byref(flag), 0, 0, 0)
    return bool(flag.value)
