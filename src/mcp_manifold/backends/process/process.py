"""Programs in process groups of their own: how one is begun, signalled and never left behind. Knows no pipe and no MCP.

Three nets, since each has a hole. The kernel ends a child whose parent died, but no grandchild, and on Linux only. The
warden ends the groups of a manifold that died, unless it died as well. What those two leave is swept when the next
manifold begins (`orphans`).
"""

import asyncio
import contextlib
import ctypes
import errno
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from mcp_manifold.backends.process.warden import Warden

if sys.platform == "win32":
    from mcp_manifold.backends.process.job import Job
else:
    import resource

PR_SET_PDEATHSIG: Final = 1
NOT_BEGUN: Final = 127
"""The exit status of a child that ended before it became the program."""


@dataclass(frozen=True, slots=True)
class Ceilings:
    """What one process of a server may use at most; 0 for what it may anyway."""

    memory: int = 0
    """Bytes of data."""
    files: int = 0
    """Descriptors."""
    cpu: int = 0
    """Seconds of processor time."""

    def pairs(self) -> tuple[tuple[int, int], ...]:
        """The limits as the kernel knows them."""
        if sys.platform == "win32":
            return ()
        # not RLIMIT_AS: runtimes such as Node's reserve address space by the gigabyte without using it
        kinds = (resource.RLIMIT_DATA, resource.RLIMIT_NOFILE, resource.RLIMIT_CPU)
        return tuple(
            (kind, value) for kind, value in zip(kinds, (self.memory, self.files, self.cpu), strict=True) if value
        )


UNBOUNDED: Final = Ceilings()


class Groups:
    """The process groups of one manifold. Each is begun here, and forgotten when it was stopped."""

    def __init__(self, *, guarded: bool = True) -> None:
        self._warden = Warden() if guarded and sys.platform != "win32" else None
        self._pids: set[int] = set()
        self._is_killed = False
        if sys.platform == "win32":
            self._jobs: dict[int, Job] = {}

    def __repr__(self) -> str:
        return f"<Groups {len(self._pids)}{' killed' if self._is_killed else ''} {self._warden!r}>"

    def begin(
        self, argv: Sequence[str], *, env: Mapping[str, str], cwd: str | None = None, ceilings: Ceilings = UNBOUNDED
    ) -> "subprocess.Popen[bytes]":
        """Start a program as the first of a group of its own, with no descriptor of ours but its three (S38).

        Not by the loop's own means: uvloop's lets children inherit others, their far pipe ends among them, so that it
        goes unnoticed when one closes its stdout.

        Raises:
            OSError: it cannot be started.
        """
        if self._is_killed:
            raise OSError(errno.ECANCELED, "the manifold is ending")
        if self._warden is not None:
            self._warden.begin(self._pids)
        process = subprocess.Popen(
            argv,
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=dict(env),
            cwd=cwd,
            start_new_session=True,
            preexec_fn=_before(ceilings),
        )
        self._pids.add(process.pid)
        if self._warden is not None:
            self._warden.watch(process.pid)
        if sys.platform == "win32":
            self._jobs[process.pid] = Job(process.pid)
        return process

    def terminate(self, pid: int) -> bool:
        """Ask a whole group to end; False when nobody of it is left."""
        return self._signal(pid, signal.SIGTERM)

    def end(self, pid: int) -> None:
        """Kill a whole group."""
        self._signal(pid, signal.SIGTERM if sys.platform == "win32" else signal.SIGKILL)

    def lives(self, pid: int) -> bool:
        """Whether anybody of a group is left; a zombie counts."""
        return self._signal(pid, 0)

    def forget(self, pid: int) -> None:
        """The group was stopped."""
        self._pids.discard(pid)
        if self._warden is not None:
            self._warden.forget(pid)
        if sys.platform == "win32" and pid in self._jobs:
            self._jobs.pop(pid).close()

    def kill(self) -> None:
        """Kill all groups at once, and begin no more."""
        self._is_killed = True
        for pid in self._pids:
            self.end(pid)

    def close(self) -> None:
        """Let the warden go. Groups that are left by then are ended by it."""
        if self._warden is not None:
            self._warden.close()

    def _signal(self, pid: int, number: int) -> bool:
        if sys.platform == "win32":
            return pid in self._jobs and (not number or self._jobs[pid].terminate())
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, number)
            return True
        return False


def _before(ceilings: Ceilings) -> Callable[[], None] | None:
    """What the child does between fork and exec. It runs in a copy of a process with threads, whose locks nobody will
    release: everything is looked up here, so that there only system calls are left.
    """
    pairs = ceilings.pairs()
    prctl = ctypes.PyDLL(None).prctl if sys.platform == "linux" else None
    if sys.platform == "win32" or (prctl is None and not pairs):
        return None
    parent, end, number = os.getpid(), os._exit, int(signal.SIGTERM)
    parent_of, limit, hard = os.getppid, resource.setrlimit, {kind: resource.getrlimit(kind)[1] for kind, _ in pairs}
    bounded = [(kind, _within(value, hard[kind])) for kind, value in pairs]

    def before() -> None:
        if prctl is not None:
            prctl(PR_SET_PDEATHSIG, number, 0, 0, 0)
            if parent_of() != parent:  # which died before it could be watched
                end(NOT_BEGUN)
        for kind, value in bounded:
            limit(kind, (value, value))

    return before


def _within(value: int, hard: int) -> int:
    """A limit can be lowered only."""
    return value if hard < 0 else min(value, hard)


def on_end(process: "subprocess.Popen[bytes]", ended: Callable[[], None]) -> None:
    """Call `ended` in the loop once the process has exited."""
    loop = asyncio.get_running_loop()
    if not hasattr(os, "pidfd_open"):
        threading.Thread(target=_wait, args=(process, loop, ended), name=f"pid {process.pid}", daemon=True).start()
        return
    handle = os.pidfd_open(process.pid)

    def seen() -> None:
        loop.remove_reader(handle)
        os.close(handle)
        process.wait()
        ended()

    loop.add_reader(handle, seen)


def _wait(process: "subprocess.Popen[bytes]", loop: asyncio.AbstractEventLoop, ended: Callable[[], None]) -> None:
    process.wait()
    with contextlib.suppress(RuntimeError):  # the loop is gone: nobody wants to know
        loop.call_soon_threadsafe(ended)
