"""A process and all it starts, as a job object: what stands for a process group on Windows. Untried: no Windows here.

The job ends with its last handle, which is ours alone, so no server outlives the manifold however that dies. What the
child starts before it is put into the job, in its first moments, is not in it.
"""

import ctypes
import sys
from typing import Any, Final

KILL_ON_JOB_CLOSE: Final = 0x2000
EXTENDED_LIMITS: Final = 9
SET_QUOTA_AND_TERMINATE: Final = 0x0100 | 0x0001
ENDED: Final = 1
"""The exit status of what is terminated."""


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
    """kernel32, its handles as wide as pointers."""
    if sys.platform == "win32":
        kernel = ctypes.WinDLL("kernel32", use_last_error=True)
        kernel.CreateJobObjectW.restype = ctypes.c_void_p
        kernel.OpenProcess.restype = ctypes.c_void_p
        return kernel
    raise OSError("there are no job objects here")


class Job:
    """The job of one process.

    Raises:
        OSError: it cannot be made, or the process cannot be put into it.
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
        """End all of it: there is no asking first."""
        return self._handle is not None and bool(self._kernel.TerminateJobObject(self._handle, ENDED))

    def close(self) -> None:
        """Give the handle up, and what is left of the job with it."""
        if self._handle is not None:
            self._kernel.CloseHandle(self._handle)
            self._handle = None


def _require(went_well: int) -> None:
    if sys.platform == "win32" and not went_well:
        raise ctypes.WinError(ctypes.get_last_error())
