"""Processes without a parent: those of a manifold that was killed, and those that became ours by being PID 1.

Reads /proc, so it does nothing elsewhere. Kills nothing that does not carry the mark of a manifold that is gone.
"""

import asyncio
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

logger = logging.getLogger(__name__)

MARK: Final = "MCP_MANIFOLD_PARENT"
"""By which a process is known as a manifold's: `<pid>:<start time>` of that. `config.environment` has the name as well,
since every command imports this file, and importing that package takes long; a test holds the two together.
"""
PROC: Final = pathlib.Path("/proc")
REAP_EVERY: Final = 1.0
REAP_NEXT: Final = 0.05
PR_GET_CHILD_SUBREAPER: Final = 37


@dataclass(frozen=True, slots=True)
class Stat:
    """Of /proc/<pid>/stat, what is asked for here."""

    state: str
    session: int
    started: str

    @classmethod
    def of(cls, pid: int | str) -> "Stat | None":
        """None when there is no such process, or it is a zombie."""
        try:
            fields = (PROC / str(pid) / "stat").read_bytes().rpartition(b")")[2].split()
        except OSError:
            return None
        found = cls(fields[0].decode(), int(fields[3]), fields[19].decode())
        return None if found.state in "ZX" else found


def mark() -> dict[str, str]:
    """What to put into the environment of a child, so that the next manifold knows it."""
    own = Stat.of(os.getpid()) if sys.platform == "linux" else None
    return {} if own is None else {MARK: f"{os.getpid()}:{own.started}"}


def sweep() -> list[int]:
    """Kill what a killed manifold left behind; the pids, which are logged as well.

    A process that made a session of its own is let be: who detaches it means it to stay.
    """
    if sys.platform != "linux":
        return []
    swept = [pid for pid in _processes() if _is_orphan(pid)]
    for pid in swept:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
            logger.warning("process of a killed manifold ended", extra={"pid": pid})
    return swept


def _processes() -> Iterator[int]:
    """Processes of our user that we may look into, but for ourselves."""
    own, user = os.getpid(), os.geteuid()
    for entry in os.scandir(PROC):
        with contextlib.suppress(OSError):
            if entry.name.isdecimal() and int(entry.name) != own and entry.stat().st_uid == user:
                yield int(entry.name)


def _is_orphan(pid: int) -> bool:
    try:
        manifold = _mark_of(pid)
        if not manifold or os.readlink(PROC / str(pid) / "ns/pid") != os.readlink(PROC / "self/ns/pid"):
            return False  # of another container, whose numbers mean something else
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
    """Takes leave of the zombies that are nobody's: as PID 1 of a container, every orphan becomes our child.

    Not driven by SIGCHLD, which uvloop keeps for itself. It takes a zombie only when it saw it twice: those the event
    loop waits for are gone after one turn of it.
    """

    def __init__(self) -> None:
        self._seen = 0
        self._timer: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<Reaper {'at work' if self._timer is not None else 'idle'}>"

    def begin(self) -> None:
        """Look after zombies from now on, if that falls to us."""
        if adopts():
            self._timer = asyncio.get_running_loop().call_later(REAP_EVERY, self._look)

    def end(self) -> None:
        """Leave them to whoever comes next."""
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
        self._timer = asyncio.get_running_loop().call_later(delay, self._look)


def adopts() -> bool:
    """Whether orphans become our children: we are PID 1, or were made a subreaper before we were executed."""
    if sys.platform != "linux":
        return False
    if os.getpid() == 1:
        return True
    flag = ctypes.c_int()
    ctypes.PyDLL(None).prctl(PR_GET_CHILD_SUBREAPER, ctypes.byref(flag), 0, 0, 0)
    return bool(flag.value)
