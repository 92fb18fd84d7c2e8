"""Processes of tests and scripts: started, waited for, counted, and ended by their own ids."""

import asyncio
import gc
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psutil

from tests.peers import BOUND

ROOT: Final = Path(__file__).resolve().parents[2]
_STEP: Final = 0.05
_GRACE: Final = 10.0
_WORKERS: Final = 4
"""Worker threads of a process that stay for a while after their work."""
_SIGNS: Final = ("Traceback", "never retrieved", " ERROR ", "Task was destroyed")


# --- start and end ---------------------------------------------------------------------------------------------------


@contextmanager
def running(
    command: Sequence[str],
    log: Path,
    *,
    out: Path | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    before: Callable[[], None] | None = None,
    grace: float = _GRACE,
) -> Iterator["subprocess.Popen[bytes]"]:
    """A process in a session of its own, stopped at the end with everything below it.

    Args:
        log: file to which stderr is appended, and stdout unless `out` names another file.
        before: what the child does between fork and exec.
        grace: seconds between SIGTERM and SIGKILL.
    """
    with log.open("ab") as stderr, (out or log).open("ab") as stdout:
        process = subprocess.Popen(
            command,
            env=None if env is None else dict(env),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
            preexec_fn=before,
        )
    try:
        yield process
    finally:
        stop(process, grace=grace)


def stop(process: "subprocess.Popen[Any]", *, grace: float = _GRACE) -> None:
    """End a process and everything below it: SIGTERM, then after `grace` seconds SIGKILL; close its pipes."""
    below = family(process.pid) if process.poll() is None else []
    if grace:
        process.terminate()
    try:
        process.wait(grace)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for each in below:
        with suppress(psutil.Error):
            each.kill()
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            with suppress(OSError):
                pipe.close()


def kill(pid: int) -> None:
    """Send SIGKILL to a process if it still exists."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def family(pid: int) -> list[psutil.Process]:
    """Every process below this one; none if it is gone."""
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.Error:
        return []


def is_running(pid: int) -> bool:
    """Whether the process exists and is not a zombie."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def zombies(pid: int) -> list[int]:
    """Ids of the dead children that a process has not waited for."""
    return [each.pid for each in psutil.Process(pid).children() if each.status() == psutil.STATUS_ZOMBIE]


# --- ports and waits -------------------------------------------------------------------------------------------------


def free_port() -> int:
    """A loopback port on which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def listens(port: int) -> bool:
    """Whether a loopback port accepts connections."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def await_port(process: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    """Block until a process listens on a port.

    Raises:
        SystemExit: the process ended, or the bound passed; the message ends with its log.
    """
    deadline = time.monotonic() + BOUND
    while not listens(port):
        if process.poll() is not None or time.monotonic() > deadline:
            said = log.read_text(errors="replace")[-2000:]
            raise SystemExit(f"process {process.args!r} does not listen on port {port}:\n{said}")
        time.sleep(_STEP)


async def until(is_so: Callable[[], bool | Awaitable[bool]], what: str) -> None:
    """Poll until a condition holds, for what no event announces: the end of another process or socket.

    Raises:
        AssertionError: the condition did not hold within the bound.
    """
    deadline = time.monotonic() + BOUND
    while not (found if isinstance(found := is_so(), bool) else await found):
        if time.monotonic() > deadline:
            raise AssertionError(f"timeout while waiting for {what}; this process holds {holdings()}")
        await asyncio.sleep(_STEP)


# --- what a process holds --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Holdings:
    """Counts of one process: tasks of its event loop, descriptors, child processes, threads."""

    tasks: int
    descriptors: int
    children: int
    threads: int = 0

    def grew_beyond(self, other: "Holdings", *, by: int = 0) -> bool:
        """Whether tasks or descriptors grew by more than `by`, threads by more than the workers, or children at all."""
        return (
            self.tasks > other.tasks + by
            or self.descriptors > other.descriptors + by
            or self.threads > other.threads + _WORKERS
            or self.children > other.children
        )


def most(several: Iterable[Holdings]) -> Holdings:
    """The maximum of each count."""
    rows = [(each.tasks, each.descriptors, each.children, each.threads) for each in several]
    return Holdings(*map(max, zip(*rows, strict=True)))


def holdings() -> Holdings:
    """Counts of this process."""
    gc.collect()
    children = family(os.getpid())
    return Holdings(len(asyncio.all_tasks()), len(os.listdir("/proc/self/fd")), len(children), threading.active_count())


async def steady() -> Holdings:
    """Counts of this process once four looks in a row agree.

    Raises:
        AssertionError: they never agreed.
    """
    seen: list[Holdings] = []

    def agrees() -> bool:
        seen.append(holdings())
        return len(seen) > 3 and len(set(seen[-4:])) == 1

    await until(agrees, "steady counts")
    return seen[-1]


def stumbles(log: str) -> list[str]:
    """Lines of a log that report a fault of the program itself."""
    return [line for line in log.splitlines() if any(sign in line for sign in _SIGNS)]
