"""The warden: a small process that outlives its manifold, and ends the process groups when that dies. POSIX.

A shell script that reads group numbers from a pipe. The kernel closes the pipe when the manifold is gone, however that
happened. The warden starts with the first group, and exits with the manifold.
"""

import contextlib
import logging
import shutil
import subprocess
from collections.abc import Iterable
from typing import Final

logger = logging.getLogger(__name__)

_SCRIPT: Final = """\
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
"""SIGTERM first: `docker run` stops its container on SIGTERM, but not when it is killed."""
NAME: Final = "mcp-manifold-warden"
EXIT_WAIT: Final = 1.0
"""Seconds the warden may take to exit."""


class Warden:
    """The handle of the warden process. Where there is no shell, there is no warden; other failures are retried."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._has_shell = True

    def __repr__(self) -> str:
        return f"<Warden {'watching' if self._is_alive() else 'not started'}>"

    def begin(self, groups: Iterable[int]) -> None:
        """Start the warden over the given process groups, unless it is running."""
        if self._is_alive() or not self._has_shell:
            return
        self._close_pipe()
        try:
            self._process = _started()
        except OSError as exc:
            self._has_shell = not isinstance(exc, FileNotFoundError)
            logger.warning("no warden: server processes may outlive a kill of this process: %s", exc)
            return
        for group in groups:
            self.watch(group)

    def watch(self, group: int) -> None:
        """End this group if the manifold dies."""
        self._tell(f"+ {group}\n")

    def forget(self, group: int) -> None:
        """Stop watching this group, because it has ended."""
        self._tell(f"- {group}\n")

    def close(self) -> None:
        """Let the warden exit; it ends the groups that are left."""
        self._close_pipe()
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(EXIT_WAIT)

    def _close_pipe(self) -> None:
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()

    def _is_alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def _tell(self, line: str) -> None:
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(OSError, ValueError):  # it died; the next group starts another
                self._process.stdin.write(line.encode())


def _started() -> "subprocess.Popen[bytes]":
    shell = shutil.which("sh")
    if shell is None:
        raise FileNotFoundError("no shell found")
    return subprocess.Popen(
        [shell, "-c", _SCRIPT, NAME],
        bufsize=0,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        env={"PATH": "/usr/bin:/bin"},
        start_new_session=True,
    )
