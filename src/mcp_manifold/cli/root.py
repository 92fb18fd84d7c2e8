"""The `mcp-manifold` command itself: its sub-commands, its version, and the boundary where errors become exit codes."""

import gc
import os
import sys
from importlib import import_module
from typing import Any, Final, NoReturn

import click

from mcp_manifold.cli import exits
from mcp_manifold.cli.options import CONFIG, LOG_FORMAT, LOG_LEVEL, invocation
from mcp_manifold.cli.welcome import welcome
from mcp_manifold.errors import ManifoldError

COMMANDS: Final[dict[str, tuple[str, str]]] = {
    "serve": ("mcp_manifold.cli.serve", "serve"),
    "stdio": ("mcp_manifold.cli.stdio", "stdio"),
    "status": ("mcp_manifold.cli.status", "status"),
    "reload": ("mcp_manifold.cli.reload", "reload"),
    "check": ("mcp_manifold.cli.check", "check"),
    "list": ("mcp_manifold.cli.listing", "list_"),
    "call": ("mcp_manifold.cli.call", "call"),
    "read": ("mcp_manifold.cli.read", "read"),
    "prompt": ("mcp_manifold.cli.prompt", "prompt"),
    "schema": ("mcp_manifold.cli.schema", "schema"),
}
"""Where each command is. A run imports its own only: what draws tables for one is no business of another."""


class Root(click.Group):
    """The group of all commands. Translates errors, once, for every one of them."""

    def __repr__(self) -> str:
        return f"<Root of {len(COMMANDS)} commands>"

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All commands, in the order they are usually met."""
        return [*COMMANDS]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, imported now."""
        if cmd_name not in COMMANDS:
            return None
        module, name = COMMANDS[cmd_name]
        found: click.Command = getattr(import_module(module), name)
        return found

    def invoke(self, ctx: click.Context) -> object:
        """Run the command; whatever ends it on purpose becomes an exit code."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            ctx.exit(exits.INTERRUPTED)
        except exits.Signalled as exc:
            ctx.exit(exits.SIGNALLED + exc.number)
        except ManifoldError as exc:
            raise exits.as_exit(exc) from exc
        except BaseExceptionGroup as group:
            raise self._alone(group) from group

    def _alone(self, group: BaseExceptionGroup[BaseException]) -> BaseException:
        only = exits.only_error(group)
        return exits.as_exit(only) if isinstance(only, ManifoldError) else only

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; a mistyped one is told the right one."""
        name = args[0]
        if name in COMMANDS or name.startswith("-"):
            return super().resolve_command(ctx, args)
        raise click.UsageError(f'No such command "{name}".{exits.did_you_mean(name, COMMANDS)}', ctx)


def _print_version(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not context.resilient_parsing:
        from importlib.metadata import version  # noqa: PLC0415 - only this option needs it

        click.echo(f"mcp-manifold {version('mcp-manifold')}")
        context.exit()


@click.group(
    cls=Root,
    invoke_without_command=True,
    epilog=exits.EXIT_CODES,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@CONFIG
@LOG_LEVEL
@LOG_FORMAT
@click.option(
    "--version", is_flag=True, expose_value=False, is_eager=True, callback=_print_version, help="Print the version."
)
@click.pass_context
def cli(context: click.Context, /, **options: Any) -> None:
    """One MCP endpoint in front of many MCP servers.

    \b
    Serve the configured servers over HTTP:        mcp-manifold serve -c mcp.json
    Be one stdio server for a desktop client:      mcp-manifold stdio -c mcp.json
    See whether everything works:                  mcp-manifold check --live
    Try a tool:                                    mcp-manifold call notes__add_note --arg text=milk

    Without a command: tells which configuration would be used, and what to do next.
    """
    if context.invoked_subcommand is None:
        welcome(invocation(context, dict(options)))


def main() -> NoReturn:
    """The console script."""
    gc.disable()  # while it is put together, almost all of which stays: `run` goes on with it
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a name the terminal's encoding lacks is no reason to fail
    try:
        cli.main(prog_name="mcp-manifold", standalone_mode=True)
    finally:
        gc.enable()
        _flush()
    sys.exit(exits.OK)


def _flush() -> None:
    """A reader that left early (`| head`) is no error to report at exit."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
