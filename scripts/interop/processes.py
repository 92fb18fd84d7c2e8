"""The child processes of a run: client programs run to their end, and what outlives them is found by a mark."""

import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import psutil

from tests.peers.processes import stop

MARK = "INTEROP_MARK"  # in the environment of every process of a run, so that what outlives its parent is found
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
        """The last line on stderr, for a message."""
        lines = [line for line in self.stderr.splitlines() if line.strip()]
        return lines[-1] if lines else "nothing on stderr"


def run(command: Sequence[str], environment: dict[str, str], seconds: float) -> Done:
    """Run a command to its end, or stop it and everything below it when the time is over."""
    pipe = subprocess.PIPE
    process = subprocess.Popen(
        command, env=environment, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, text=True, errors="replace"
    )
    try:
        stdout, stderr = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        return Done("", f"ended after {seconds:.0f} s", None)
    finally:
        stop(process)
    return Done(stdout, stderr, process.returncode)


def marked(mark: str) -> set[int]:
    """The living processes of this run."""
    found: set[int] = set()
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.add(process.pid)
    return found


def leftovers(mark: str, before: set[int]) -> list[str]:
    """Kill what a program left running, each process by its id; their command lines."""
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
