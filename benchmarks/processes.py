"""Process trees: their CPU, memory and processors. The servers behind a proxy are not counted."""

import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import psutil

_SERVERS: Final = ("stdio_server.py", "servers.http_server")  # words in the command line that identify a server


@dataclass(frozen=True, slots=True)
class TreeMemory:
    """Memory of a process tree in megabytes."""

    rss: float
    pss: float
    processes: int


def tree(root: int, *, servers: bool = False) -> list[psutil.Process]:
    """A process and its descendants."""
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
    """Seconds of user and system time of a tree, ended children included."""
    used = 0.0
    for process in tree(root):
        with suppress(psutil.Error):
            times: Any = process.cpu_times()
            used += times.user + times.system + times.children_user + times.children_system
    return used


def memory(root: int) -> TreeMemory:
    """The current memory of a tree."""
    rss = pss = count = 0
    for process in tree(root):
        with suppress(psutil.Error):
            full: Any = process.memory_full_info()
            rss, pss, count = rss + full.rss, pss + full.pss, count + 1
    return TreeMemory(rss / 2**20, pss / 2**20, count)


def pin(root: int, cpus: Iterable[int], servers: Iterable[int]) -> None:
    """Move a tree to these processors, and its servers to those."""
    for process in tree(root, servers=True):
        wanted = set(servers) if process.pid != root and _is_server(process) else set(cpus)
        if wanted:
            with suppress(psutil.Error, OSError):
                for thread in process.threads():
                    os.sched_setaffinity(thread.id, wanted)
