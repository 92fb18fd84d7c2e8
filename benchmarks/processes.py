"""Processes: what a tree of them used, where they may run, and their end. The servers behind are never counted in."""

import os
import signal
import subprocess
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import psutil

_SERVERS: Final = ("stdio_server.py", "servers.http_server")
"""By what in its command line a process is known for one of the servers behind."""
_PATIENCE: Final = 5.0


@dataclass(frozen=True, slots=True)
class ListingCache:
    """Megabytes of a tree of processes."""

    rss: float
    pss: float
    processes: int


def tree(root: int, *, servers: bool = False) -> list[psutil.Process]:
    """A process and all below it."""
    try:
        top = psutil.Process(root)
        found = [top, *top.children(recursive=True)]
    except psutil.Error:
        return []
    return [process for process in found if servers or process.pid == root or not _is_server(process)]


def _is_server(process: psutil.Process) -> bool:
    try:
        return any(each in part for part in process.cmdline() for each in _SERVERS)
    except psutil.Error:
        return False


def cpu(root: int) -> float:
    """Seconds of user and system time of a tree, those of children that have ended included."""
    used = 0.0
    for process in tree(root):
        with suppress(psutil.Error):
            times: Any = process.cpu_times()
            used += times.user + times.system + times.children_user + times.children_system
    return used


def memory(root: int) -> ListingCache:
    """What a tree holds now."""
    rss = pss = count = 0
    for process in tree(root):
        with suppress(psutil.Error):
            full: Any = process.memory_full_info()
            rss, pss, count = rss + full.rss, pss + full.pss, count + 1
    return ListingCache(rss / 2**20, pss / 2**20, count)


def pin(root: int, cpus: Iterable[int], servers: Iterable[int]) -> None:
    """Have a tree run on these processors, and the servers below it on those."""
    for process in tree(root, servers=True):
        wanted = set(servers) if process.pid != root and _is_server(process) else set(cpus)
        if wanted:
            with suppress(psutil.Error, OSError):
                for thread in process.threads():
                    os.sched_setaffinity(thread.id, wanted)


def end(started: "subprocess.Popen[Any]") -> None:
    """End a process we started, and everything below it: asked first, then killed."""
    left = tree(started.pid, servers=True)
    for number in (signal.SIGTERM, signal.SIGKILL):
        for process in left:
            with suppress(psutil.Error):
                process.send_signal(number)
        with suppress(subprocess.TimeoutExpired):
            started.wait(timeout=_PATIENCE)
        _, left = psutil.wait_procs(left, timeout=_PATIENCE)
        if not left:
            break
    for pipe in (started.stdin, started.stdout, started.stderr):
        if pipe is not None:
            with suppress(OSError):
                pipe.close()
