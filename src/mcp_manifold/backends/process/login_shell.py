"""What the user's login shell takes for PATH: programs started from a desktop get a shorter one than a terminal has."""

import logging
from collections.abc import Mapping
from subprocess import DEVNULL
from typing import Final

import anyio

logger = logging.getLogger(__name__)

SCRIPT: Final = "printf '\\n%s' \"$PATH\""
"""The line break ends whatever the user's profile printed."""
WAIT: Final = 3.0
"""Seconds the shell may take; a profile may do anything."""


async def login_path(shell: str, environment: Mapping[str, str]) -> str:
    """The PATH of a login shell; empty when it cannot be had, which is logged."""
    reason = f"{shell} gave none within {WAIT:g} s"
    with anyio.move_on_after(WAIT):
        try:
            done = await anyio.run_process(
                [shell, "-lc", SCRIPT],
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
            reason = f"{shell} ended with status {done.returncode}"
    logger.warning("no PATH from the login shell: %s", reason)
    return ""
