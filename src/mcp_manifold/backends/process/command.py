"""The command of a stdio server: what is executed, and on which PATH its program is found."""

import logging
import pathlib
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from subprocess import DEVNULL
from typing import Final

import anyio

from mcp_manifold.backends.process.groups import NO_CEILINGS, Ceilings
from mcp_manifold.clock import Clock
from mcp_manifold.errors import BackendUnavailable

logger = logging.getLogger(__name__)

_SCRIPT: Final = "printf '\\n%s' \"$PATH\""
"""The line break separates PATH from any output of the user's profile."""
SHELL_WAIT: Final = 3.0
"""Seconds the login shell may take; a profile may do anything."""


@dataclass(frozen=True, slots=True)
class StdioCommand:
    """Program, arguments and environment of a server. They are executed as they are, never through a shell."""

    program: str
    args: tuple[str, ...]
    env: Mapping[str, str]
    cwd: str | None = None
    ceilings: Ceilings = NO_CEILINGS

    def __repr__(self) -> str:
        return f"<StdioCommand {self.program} args={len(self.args)}>"

    def located(self, backend: str) -> str:
        """The full path of the program. Checks the working directory too: `exec` reports both with the same error.

        Raises:
            BackendUnavailable: one of the two does not exist; the message says what to do.
        """
        program = shutil.which(self.program, path=self.env.get("PATH"))
        if program is None:
            raise BackendUnavailable(backend, _why_missing(self.program))
        if self.cwd is not None and not pathlib.Path(self.cwd).is_dir():
            raise BackendUnavailable(backend, f"working directory {self.cwd!r} does not exist")
        return program


def _why_missing(program: str) -> str:
    path = pathlib.Path(program)
    if path.name == program:
        return f"the command {program!r} was not found on PATH: install it, or give its full path"
    if path.is_dir():
        return f"the command {program!r} is a directory"
    if path.exists():
        return f"the command {program!r} is not executable"
    return f"the command {program!r} was not found: install it, or correct its path"


async def login_path(shell: str, environment: Mapping[str, str], *, clock: Clock) -> str:
    """Get the PATH of the user's login shell: desktop apps do not inherit it. Empty on failure, which is logged."""
    reason = f"{shell}: no PATH within {SHELL_WAIT:g} s"
    with anyio.CancelScope() as scope:
        timer = clock.call_later(SHELL_WAIT, scope.cancel)
        try:
            done = await anyio.run_process(
                [shell, "-lc", _SCRIPT],
                stdin=DEVNULL,
                stderr=DEVNULL,
                check=False,
                env=environment,
                start_new_session=True,
            )
        except OSError as exc:
            reason = f"{shell}: {exc.strerror}"
        else:
            path = done.stdout.rpartition(b"\n")[2].decode("utf-8", "surrogateescape")
            if done.returncode == 0 and path:
                return path
            reason = f"{shell}: exit status {done.returncode}"
        finally:
            timer.cancel()
    logger.warning("login shell gave no PATH; using the inherited one: %s", reason)
    return ""
