"""One run of a command: the options that commands share, and how it opens settings and a Manifold.

Nothing heavy is imported before a command asks for it, so that `--help` answers at once.
"""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from mcp_manifold.cli.output import FORMATS, LEVELS, configure
from mcp_manifold.errors import ConfigError

if TYPE_CHECKING:
    from mcp_manifold.app.manifold import Manifold
    from mcp_manifold.config import Settings
    from mcp_manifold.config.state_directory import Announced, Instance

Command = Callable[..., None]
PATIENCE: Final = 30.0
"""Seconds for servers to start before they are listed: the first run of `uvx` or `npx` downloads them."""


class Opening:
    """Opens what commands work on, importing it when asked. Tests pass a subclass through click's context."""

    def __repr__(self) -> str:
        return "<Opening>"

    def manifold(self, source: Path | None, overrides: Mapping[str, object]) -> "Manifold":
        """A Manifold of the configuration, not yet entered."""
        from mcp_manifold.app.manifold import Manifold  # noqa: PLC0415 - takes a second, which --help must not wait for

        return Manifold.from_config(source, overrides=overrides)

    def settings(self, source: Path | None, overrides: Mapping[str, object]) -> "Settings":
        from mcp_manifold import config  # noqa: PLC0415 - takes 0.25 s, which --help must not wait for

        return config.load(source, overrides=overrides)

    def find(self) -> Path | None:
        """The path of the configuration file that commands use by default; None if there is none."""
        from mcp_manifold import config  # noqa: PLC0415 - as above

        return config.find()

    def schema(self) -> dict[str, Any]:
        """The JSON Schema of the configuration file."""
        from mcp_manifold import config  # noqa: PLC0415 - as above

        return config.json_schema()

    def listening_problem(self, settings: "Settings") -> str:
        """Why `serve` could not listen; empty if it can, or if an instance of the same file does."""
        from mcp_manifold.app.listening import bound, require_safe  # noqa: PLC0415 - as above

        try:
            require_safe(settings.manifold)
            if not self.running(Path(settings.source)):
                for listening in bound(settings.manifold):
                    listening.close()
        except ConfigError as exc:
            return str(exc)
        return ""

    def announced(self, source: Path) -> "Announced":
        """The note by which `reload` finds this instance."""
        from mcp_manifold.config import state_directory  # noqa: PLC0415 - as above

        return state_directory.Announced(source, state_directory.notes_directory())

    def running(self, source: Path) -> "tuple[Instance, ...]":
        """The running instances of this user that were started with a file."""
        from mcp_manifold.config import state_directory  # noqa: PLC0415 - as above

        return state_directory.running(source, state_directory.notes_directory())


@dataclass(frozen=True, slots=True)
class Invocation:
    """The common options of one run, and access to the configuration they name."""

    opening: Opening = field(default_factory=Opening)
    source: Path | None = None
    log_level: str = ""
    log_format: str = ""

    def manifold(self, overrides: Mapping[str, object] | None = None) -> "Manifold":
        """A Manifold of the configuration, not yet entered.

        Raises:
            ConfigError: the configuration is invalid.
        """
        self._log("warning", "text")
        return self.opening.manifold(self.source, overrides or {})

    def settings(self) -> "Settings":
        """The configuration; starts nothing.

        Raises:
            ConfigError: it is invalid.
        """
        self._log("warning", "text")
        return self.opening.settings(self.source, {})

    def log_as_configured(self, settings: "Settings", *, default: str = "") -> None:
        """Set up the log by the options, else by `settings`. `default` is the level if neither names one."""
        is_set = not default or "log_level" in settings.manifold.model_fields_set
        self._log(settings.manifold.log_level if is_set else default, settings.manifold.log_format)

    def log_at(self, level: str) -> None:
        """Write log messages from `level` on, unless an option names another level."""
        self._log(level, "text")

    def _log(self, level: str, format: str) -> None:
        configure(self.log_level or level, self.log_format or format)


# --- options ----------------------------------------------------------------------------------------------------------

CONFIG: Final = click.option(
    "--config",
    "-c",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Configuration file. Default: $MCP_MANIFOLD_CONFIG, ./mcp-manifold.json, then the user's configuration.",
)
LOG_LEVEL: Final = click.option(
    "--log-level", type=click.Choice(LEVELS, case_sensitive=False), help="Least severe messages to log (to stderr)."
)
LOG_FORMAT: Final = click.option(
    "--log-format", type=click.Choice(FORMATS, case_sensitive=False), help="Format of the log lines."
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
    help="Directory for the cached lists of the servers.",
)
REMEMBER: Final = click.option(
    "--remember/--no-remember", default=None, help="Cache the lists of the servers on disk, for a faster next start."
)
JSON: Final = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def common(command: Command) -> Command:
    """Add the options of every command; the command gets them as an Invocation, its first argument."""

    @CONFIG
    @LOG_LEVEL
    @LOG_FORMAT
    @click.pass_context
    @functools.wraps(command)
    def invoked(context: click.Context, /, **own: Any) -> None:
        command(invocation(context, own), **own)

    return invoked


def invocation(context: click.Context, own: dict[str, Any]) -> Invocation:
    """Move the common options from `own` to an Invocation. Options before the command name are the defaults."""
    before = context.find_root().params
    chosen = {name: own.pop(name, None) or before.get(name) for name in ("config", "log_level", "log_format")}
    opening = context.find_object(Opening) or Opening()
    return Invocation(opening, chosen["config"], chosen["log_level"] or "", chosen["log_format"] or "")


def patience(wait: float | None, default: float | None = None) -> dict[str, object]:
    """The option `--wait` as an override of the settings."""
    seconds = wait if wait is not None else default
    return {} if seconds is None else {"startupTimeout": f"{seconds * 1000:.0f}ms"}


def overrides_of(state_dir: Path | None, remember: bool | None, **others: object) -> dict[str, object]:
    """The options of `serve` and `stdio` as overrides of the settings; options that were not given are left out."""
    given = {"stateDir": None if state_dir is None else str(state_dir), "remember": remember, **others}
    return {key: value for key, value in given.items() if value is not None}
