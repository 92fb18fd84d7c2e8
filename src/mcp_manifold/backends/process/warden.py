"""A guard over process groups that outlives its manifold: ends them when that dies, however it dies. POSIX.

A shell that reads the groups' numbers from a pipe only we can write to; the kernel closes it when we are gone. It is
started with the first group, and leaves with us.
"""

import contextlib
import logging
import shutil
import subprocess
from collections.abc import Iterable
from typing import Final

logger = logging.getLogger(__name__)

SCRIPT: Final = """\
trap '' HUP INT TERM
groups=
while read -r what group; do
  kept=
  for each in $groups; do [ "$each" = "$group" ] || kept="$kept $each"; done
  groups=$kept
  [ "$what" = + ] && groups="$groups $group"
done
[ "$groups" ] || exit 0
for each in $groups; do kill -s TERM -- "-$each"; done
sleep 2
for each in $groups; do kill -s KILL -- "-$each"; done
"""
"""SIGTERM first, as in an orderly stop: `docker run` takes its container along then, but not when it is killed."""
NAME: Final = "mcp-manifold-warden"
LEAVE: Final = 1.0
"""Seconds it gets to leave when it has nothing more to watch."""


class Warden:
    """See the module. Where there is no shell there is no warden, which is said once."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._has_shell = True

    def __repr__(self) -> str:
        return f"<Warden {'watching' if self._is_alive() else 'not started'}>"

    def begin(self, groups: Iterable[int]) -> None:
        """Start it if it does not run, over these groups."""
        if self._is_alive() or not self._has_shell:
            return
        self._leave()
        try:
            self._process = _started()
        except OSError as exc:
            self._has_shell = False
            logger.warning("what servers start themselves would outlive us if we were killed: %s", exc)
            return
        for group in groups:
            self.watch(group)

    def watch(self, group: int) -> None:
        """End this group if we die."""
        self._tell(f"+ {group}\n")

    def forget(self, group: int) -> None:
        """It was stopped."""
        self._tell(f"- {group}\n")

    def close(self) -> None:
        """Let it leave; it ends the groups it was not told to forget."""
        self._leave()
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(LEAVE)

    def _leave(self) -> None:
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()

    def _is_alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def _tell(self, line: str) -> None:
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(OSError, ValueError):  # it is gone: the next group starts another
                self._process.stdin.write(line.encode())


def _started() -> "subprocess.Popen[bytes]":
    shell = shutil.which("sh")
    if shell is None:
        raise FileNotFoundError("there is no shell")
    return subprocess.Popen(
        [shell, "-c", SCRIPT, NAME],
        bufsize=0,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        env={"PATH": "/usr/bin:/bin"},
        start_new_session=True,
    )
