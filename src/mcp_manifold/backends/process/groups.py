"""Process groups of servers: start, signal, and never leave one behind. Knows no pipe and no MCP.

Three nets, as each has a hole. The kernel ends a child whose parent died, but no grandchild, and on Linux only. The
warden ends the groups of a manifold that died, unless the warden died as well. The next manifold sweeps what those two
leave (`orphans`).
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
from typing import Any, Final

from mcp_manifold.backends.process.warden import Warden

if sys.platform != "win32":
    import resource

PR_SET_PDEATHSIG: Final = 1
NOT_BEGUN: Final = 127
"""Exit status of a child that ended before it executed the program."""


@dataclass(frozen=True, slots=True)
class Ceilings:
    """Resource limits of each process of a server; 0 for none."""

    memory: int = 0
    """Bytes of data."""
    files: int = 0
    """Descriptors."""
    cpu: int = 0
    """Seconds of processor time."""

    def pairs(self) -> tuple[tuple[int, int], ...]:
        """(RLIMIT constant, value) of each limit."""
        if sys.platform == "win32":
            return ()
        # not RLIMIT_AS: runtimes such as Node's reserve address space by the gigabyte without using it
        kinds = (resource.RLIMIT_DATA, resource.RLIMIT_NOFILE, resource.RLIMIT_CPU)
        return tuple(
            (kind, value) for kind, value in zip(kinds, (self.memory, self.files, self.cpu), strict=True) if value
        )


NO_CEILINGS: Final = Ceilings()


class Groups:
    """The process groups of one manifold. Each is tracked from its start until `forget`.

    Args:
        guarded: run a warden, which ends the groups if this process is killed.
    """

    def __init__(self, *, guarded: bool = True) -> None:
        self._warden = Warden() if guarded and sys.platform != "win32" else None
        self._pids: set[int] = set()
        self._is_killed = False
        if sys.platform == "win32":
            self._jobs: dict[int, Job] = {}

    def __repr__(self) -> str:
        return f"<Groups {len(self._pids)}{' killed' if self._is_killed else ''} {self._warden!r}>"

    def begin(
        self, argv: Sequence[str], *, env: Mapping[str, str], cwd: str | None = None, ceilings: Ceilings = NO_CEILINGS
    ) -> "subprocess.Popen[bytes]":
        """Start a program in a group of its own. It inherits no descriptor but its own three (S38).

        `subprocess` and not the event loop: with uvloop, children inherit other children's pipe ends, so that a closed
        stdout goes unnoticed.

        Raises:
            OSError: it cannot be started.
        """
        if self._is_killed:
            raise OSError(errno.ECANCELED, "the manifold is shutting down")
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
        """Send SIGTERM to a group; False when none of its processes is left."""
        return self._signal(pid, signal.SIGTERM)

    def kill(self, pid: int) -> None:
        """Kill a group."""
        self._signal(pid, signal.SIGTERM if sys.platform == "win32" else signal.SIGKILL)

    def lives(self, pid: int) -> bool:
        """Whether a process of the group is left; a zombie counts."""
        return self._signal(pid, 0)

    def forget(self, pid: int) -> None:
        """Stop tracking a group that has ended."""
        self._pids.discard(pid)
        if self._warden is not None:
            self._warden.forget(pid)
        if sys.platform == "win32" and pid in self._jobs:
            self._jobs.pop(pid).close()

    def kill_all(self) -> None:
        """Kill all groups, and refuse to start more."""
        self._is_killed = True
        for pid in self._pids:
            self.kill(pid)

    def close(self) -> None:
        """Close the warden, which ends the groups that are left."""
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
    """The function that the child runs between fork and exec.

    It runs in a copy of a process with threads, whose locks are never released: everything is looked up here, so that
    only system calls are left to it.
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
            if parent_of() != parent:  # the parent died before the kernel watched it
                end(NOT_BEGUN)
        for kind, value in bounded:
            limit(kind, (value, value))

    return before


def _within(value: int, hard: int) -> int:
    """`value`, but no more than the hard limit: only root can raise that."""
    return value if hard < 0 else min(value, hard)


def on_end(process: "subprocess.Popen[bytes]", ended: Callable[[], None]) -> None:
    """Call `ended` in the event loop once the process has exited."""
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
    with contextlib.suppress(RuntimeError):  # the loop is closed
        loop.call_soon_threadsafe(ended)


# --- Windows: a job object in place of a process group, not tested on Windows yet ---

KILL_ON_JOB_CLOSE: Final = 0x2000
EXTENDED_LIMITS: Final = 9
SET_QUOTA_AND_TERMINATE: Final = 0x0100 | 0x0001
ENDED: Final = 1
"""Exit status of terminated processes."""


class _BasicLimits(ctypes.Structure):
    _fields_ = (
        ("PerProcessUserTimeLimit", ctypes.c_int64),
        ("PerJobUserTimeLimit", ctypes.c_int64),
        ("LimitFlags", ctypes.c_uint32),
        ("MinimumWorkingSetSize", ctypes.c_size_t),
        ("MaximumWorkingSetSize", ctypes.c_size_t),
        ("ActiveProcessLimit", ctypes.c_uint32),
        ("Affinity", ctypes.c_size_t),
        ("PriorityClass", ctypes.c_uint32),
        ("SchedulingClass", ctypes.c_uint32),
    )


class _ExtendedLimits(ctypes.Structure):
    _fields_ = (
        ("BasicLimitInformation", _BasicLimits),
        ("IoInfo", ctypes.c_uint64 * 6),
        ("ProcessMemoryLimit", ctypes.c_size_t),
        ("JobMemoryLimit", ctypes.c_size_t),
        ("PeakProcessMemoryUsed", ctypes.c_size_t),
        ("PeakJobMemoryUsed", ctypes.c_size_t),
    )


def _kernel() -> Any:
    """kernel32, with handles as wide as pointers."""
    if sys.platform == "win32":
        kernel = ctypes.WinDLL("kernel32", use_last_error=True)
        kernel.CreateJobObjectW.restype = ctypes.c_void_p
        kernel.OpenProcess.restype = ctypes.c_void_p
        return kernel
    raise OSError("job objects exist on Windows only")


class Job:
    """A process and all it starts, as a job object. Closing its last handle, which is ours, ends the job.

    Processes that the child starts before it is assigned to the job stay outside.

    Raises:
        OSError: it cannot be created, or the process cannot be assigned to it.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._kernel = _kernel()
        self._handle: ctypes.c_void_p | None = ctypes.c_void_p(self._kernel.CreateJobObjectW(None, None))
        limits = _ExtendedLimits()
        limits.BasicLimitInformation.LimitFlags = KILL_ON_JOB_CLOSE
        size = ctypes.sizeof(limits)
        _require(self._kernel.SetInformationJobObject(self._handle, EXTENDED_LIMITS, ctypes.byref(limits), size))
        process = ctypes.c_void_p(self._kernel.OpenProcess(SET_QUOTA_AND_TERMINATE, 0, pid))
        try:
            _require(self._kernel.AssignProcessToJobObject(self._handle, process))
        finally:
            self._kernel.CloseHandle(process)

    def __repr__(self) -> str:
        return f"<Job of {self._pid}{' closed' if self._handle is None else ''}>"

    def terminate(self) -> bool:
        """End all processes of the job at once: Windows has no SIGTERM."""
        return self._handle is not None and bool(self._kernel.TerminateJobObject(self._handle, ENDED))

    def close(self) -> None:
        """Close the handle, which ends the job."""
        if self._handle is not None:
            self._kernel.CloseHandle(self._handle)
            self._handle = None


def _require(is_success: int) -> None:
    if sys.platform == "win32" and not is_success:
        raise ctypes.WinError(ctypes.get_last_error())
