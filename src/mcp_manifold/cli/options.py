"""Options that several commands share. Knows what they are called and what they become, not what they are for."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import click

from mcp_manifold.cli.logs import FORMATS, LEVELS
from mcp_manifold.cli.opening import Invocation, Opening

Command = Callable[..., None]

CONFIG: Final = click.option(
    "--config",
    "-c",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The configuration file; without it, the one found by itself.",
)
LOG_LEVEL: Final = click.option("--log-level", type=click.Choice(LEVELS, case_sensitive=False), help="How much to log.")
LOG_FORMAT: Final = click.option(
    "--log-format", type=click.Choice(FORMATS, case_sensitive=False), help="How a line of the log looks."
)
WAIT: Final = click.option(
    "--wait",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="How long servers may take to start.",
)
STATE_DIR: Final = click.option(
    "--state-dir",
    type=click.Path(path_type=Path, file_okay=False, resolve_path=True),
    help="Where to keep what servers offer (the user's own directory).",
)
REMEMBER: Final = click.option(
    "--remember/--no-remember", default=None, help="Keep what servers offer on disk, to list it at once next time."
)
JSON: Final = click.option("--json", "as_json", is_flag=True, help="Print JSON, as a program would want it.")


def common(command: Command) -> Command:
    """Give a command the options all have; it gets them as an Invocation, in front of its own."""

    @CONFIG
    @LOG_LEVEL
    @LOG_FORMAT
    @click.pass_context
    @functools.wraps(command)
    def invoked(context: click.Context, /, **own: Any) -> None:
        command(invocation(context, own), **own)

    return invoked


def invocation(context: click.Context, own: dict[str, Any]) -> Invocation:
    """Take the common options out of a command's own; those in front of the command count where it has none."""
    before = context.find_root().params
    chosen = {name: own.pop(name, None) or before.get(name) for name in ("config", "log_level", "log_format")}
    opening = context.find_object(Opening) or Opening()
    return Invocation(opening, chosen["config"], chosen["log_level"] or "", chosen["log_format"] or "")


def patience(wait: float | None, default: float | None = None) -> dict[str, object]:
    """`--wait` as an override of the settings."""
    seconds = wait if wait is not None else default
    return {} if seconds is None else {"startupTimeout": f"{seconds * 1000:.0f}ms"}
