"""What a process holds: tasks, descriptors, children. Counts; judges nothing."""

import asyncio
import gc
import os
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

import psutil

_PATIENCE: Final = 10.0
_STEP: Final = 0.05
_WORKERS: Final = 4
"""Threads for work with files and names, which are kept a while for the next."""


@dataclass(frozen=True, slots=True)
class Holdings:
    """Tasks of the running loop, descriptors, children and threads of a process."""

    tasks: int
    descriptors: int
    children: int
    threads: int = 0

    def grew_beyond(self, other: "Holdings", *, by: int = 0) -> bool:
        """Whether anything is more than it was, by more than that."""
        return (
            self.tasks > other.tasks + by
            or self.descriptors > other.descriptors + by
            or self.threads > other.threads + _WORKERS
            or self.children > other.children
        )


def most(several: Iterable[Holdings]) -> Holdings:
    """The most of each that was held at any of several times."""
    all_ = tuple(several)
    return Holdings(
        max(each.tasks for each in all_),
        max(each.descriptors for each in all_),
        max(each.children for each in all_),
        max(each.threads for each in all_),
    )


def holdings() -> Holdings:
    """What this process holds now."""
    gc.collect()
    children = psutil.Process().children(recursive=True)
    return Holdings(len(asyncio.all_tasks()), len(os.listdir("/proc/self/fd")), len(children), threading.active_count())


async def steady() -> Holdings:
    """What this process holds once that is the same for a while.

    Raises:
        AssertionError: it never was.
    """
    seen: list[Holdings] = []
    for _ in range(int(_PATIENCE / _STEP / 4)):
        seen.append(holdings())
        if len(seen) > 3 and len(set(seen[-4:])) == 1:
            return seen[-1]
        await asyncio.sleep(4 * _STEP)
    raise AssertionError(f"it never was steady: {seen[-4:]}")


def is_running(pid: int) -> bool:
    """Whether there is such a process and it is no zombie."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def until(is_so: Callable[[], bool], what: str) -> None:
    """Look again and again until it is so: the end of somebody else's process or socket can only be asked for.

    Raises:
        AssertionError: it was not so in time.
    """
    for _ in range(int(_PATIENCE / _STEP)):
        if is_so():
            return
        await asyncio.sleep(_STEP)
    raise AssertionError(f"waited in vain for {what}; now there is {holdings()}")
