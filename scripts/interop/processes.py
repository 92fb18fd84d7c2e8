"""Child processes and their end: each in a group of its own, nothing left behind; knows no protocol."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

MARK = "INTEROP_MARK"  # in the environment of every process of a run, so that what outlives its parent is found
GRACE = 5.0  # seconds between asking a group to end and ending it
LINGER = 4.0  # seconds a child may take to notice that its parent is gone
POLL = 0.1


@dataclass(frozen=True, slots=True)
class Done:
    """A command that has ended, or was ended for taking too long."""

    stdout: str
    stderr: str
    code: int | None

    @property
    def said(self) -> str:
        """The last thing on stderr, for a message."""
        lines = [line for line in self.stderr.splitlines() if line.strip()]
        return lines[-1] if lines else "nothing on stderr"


def free_port() -> int:
    """A port of this machine that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def answers(port: int, within: float, process: subprocess.Popen[bytes]) -> bool:
    """Wait until something accepts connections at the port, for as long as the process lives."""
    deadline = time.monotonic() + within
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
        time.sleep(POLL)
    return False


def run(command: Sequence[str], environment: dict[str, str], seconds: float) -> Done:
    """Run a command to its end, or end it and its group when the time is over."""
    process = subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        stdout, stderr = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        _end(process)
        return Done("", f"ended after {seconds:.0f} s", None)
    except BaseException:
        _end(process)
        raise
    return Done(stdout, stderr, process.returncode)


@contextmanager
def running(command: Sequence[str], environment: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Keep a server running; its output goes to a file."""
    with log.open("wb") as sink:
        process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            _end(process)


def marked(mark: str) -> set[int]:
    """The living processes of this run."""
    found: set[int] = set()
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.add(process.pid)
    return found


def leftovers(mark: str, before: set[int]) -> list[str]:
    """End what a program left running, and say what that was: each is a process of this run, by its id."""
    deadline = time.monotonic() + LINGER
    while (left := marked(mark) - before) and time.monotonic() < deadline:
        time.sleep(POLL)
    names: list[str] = []
    for pid in left:
        with suppress(psutil.Error):
            process = psutil.Process(pid)
            names.append(" ".join(process.cmdline())[-100:])
            process.kill()
    return names


def _end(process: subprocess.Popen[bytes] | subprocess.Popen[str]) -> None:
    if process.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(GRACE)
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
