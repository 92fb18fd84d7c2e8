"""The `mcp-manifold` command: its sub-commands, its greeting without one, and how errors become exit codes."""

import gc
import os
import shlex
import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

import click

from mcp_manifold.cli import exits
from mcp_manifold.cli.invocation import CONFIG, LOG_FORMAT, LOG_LEVEL, Invocation, invocation
from mcp_manifold.cli.output import counted, say, visible
from mcp_manifold.errors import ConfigError, ManifoldError

if TYPE_CHECKING:
    from mcp_manifold.config import Settings

COMMANDS: Final[dict[str, tuple[str, str, str]]] = {
    "serve": ("mcp_manifold.cli.serve", "serve", "Serve all servers as one endpoint over HTTP."),
    "stdio": ("mcp_manifold.cli.serve", "stdio", "Serve one client over stdin and stdout."),
    "status": ("mcp_manifold.cli.instances", "status", "Show the servers of a running instance."),
    "reload": ("mcp_manifold.cli.instances", "reload", "Reload the configuration in running instances."),
    "check": ("mcp_manifold.cli.check", "check", "Check the configuration; with --live, every server."),
    "list": ("mcp_manifold.cli.requests", "list_", "List tools, prompts and resources."),
    "call": ("mcp_manifold.cli.requests", "call", "Call a tool."),
    "read": ("mcp_manifold.cli.requests", "read", "Read a resource."),
    "prompt": ("mcp_manifold.cli.requests", "prompt", "Get a prompt."),
    "schema": ("mcp_manifold.cli.check", "schema", "Print the JSON Schema of the configuration file."),
}
"""The module, name and summary of each command. A run imports only the command it executes."""

_CLAUDE_DESKTOP: Final = {
    "darwin": '"$HOME/Library/Application Support/Claude/claude_desktop_config.json"',
    "win32": '"%APPDATA%\\Claude\\claude_desktop_config.json"',
}


class Root(click.Group):
    """The group of all commands. Imports a command when it is used, and turns errors into exit codes."""

    def __repr__(self) -> str:
        return f"<Root of {len(COMMANDS)} commands>"

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All commands, in the order `--help` shows them."""
        return [*COMMANDS]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands in `--help`, without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, _, summary) in COMMANDS.items()])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command."""
        if cmd_name not in COMMANDS:
            return None
        module, name, _ = COMMANDS[cmd_name]
        found: click.Command = getattr(import_module(module), name)
        return found

    def invoke(self, ctx: click.Context) -> object:
        """Run the command; signals and our errors become exit codes."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            ctx.exit(exits.INTERRUPTED)
        except exits.Signalled as exc:
            ctx.exit(exits.SIGNALLED + exc.number)
        except ManifoldError as exc:
            raise exits.as_exit(exc) from exc
        except (OSError, RuntimeError, BaseExceptionGroup) as exc:
            if exits.is_out_of_files(exc):
                raise exits.Failed(exits.NO_FILES) from exc
            if not isinstance(exc, BaseExceptionGroup):
                raise
            group, only = exc, exits.only_error(exc)
            raise (exits.as_exit(only) if isinstance(only, ManifoldError) else only) from group

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; suggest the closest one for an unknown name."""
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
    Run as a stdio server in a desktop client:     mcp-manifold stdio -c mcp.json
    Test every server:                             mcp-manifold check --live
    Call a tool:                                   mcp-manifold call notes__add_note --arg text=milk

    Without a command, it shows the configuration in use and the next steps.
    """
    if context.invoked_subcommand is None:
        _greet(invocation(context, dict(options)))


def _greet(invocation: Invocation) -> None:
    """Show the configuration in use and the next steps; exit code 2 without a configuration."""
    if invocation.source is None and invocation.opening.find() is None:
        try:
            invocation.settings()
        except ConfigError as exc:
            say(without_configuration(str(exc), sys.platform))
        click.get_current_context().exit(exits.USAGE)
    say(with_configuration(invocation.settings(), invocation.source))


def without_configuration(reason: str, platform: str) -> list[str]:
    """The first steps without a configuration."""
    desktop = _CLAUDE_DESKTOP.get(platform, "~/.config/Claude/claude_desktop_config.json")
    example = '{"mcpServers": {"time": {"command": "uvx", "args": ["mcp-server-time"]}}}'
    return [
        visible(reason),
        f"To serve the servers of Claude Desktop:  mcp-manifold serve -c {desktop}",
        f"To start with an example, save this as mcp-manifold.json:  {example}",
        "Then test it:  mcp-manifold check --live    and serve it:  mcp-manifold serve",
        "For all commands:  mcp-manifold --help",
    ]


def with_configuration(settings: "Settings", source: Path | None) -> list[str]:
    """A summary of the configuration, and the next steps."""
    option = f" -c {shlex.quote(str(source))}" if source else ""
    enabled = sum(1 for server in settings.servers if not server.disabled)
    broken = f", {len(settings.broken)} broken" if settings.broken else ""
    shown = [
        f"{settings.source}: {counted(enabled, 'server')}, {len(settings.servers) - enabled} disabled{broken}",
        f"  mcp-manifold serve{option}          serve them over HTTP",
        f"  mcp-manifold stdio{option}          serve them over stdio, for a desktop client",
        f"  mcp-manifold check{option} --live   test every server",
        f"  mcp-manifold list{option}           list their tools, resources and prompts",
    ]
    return [visible(line) for line in shown]


def main() -> NoReturn:
    """Run the `mcp-manifold` command, as the console script does."""
    gc.disable()  # while modules are imported, almost all of which stay; `run` enables it again
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # the terminal's encoding may lack a character
    try:
        cli.main(prog_name="mcp-manifold", standalone_mode=True)
    finally:
        gc.enable()
        _flush()
    sys.exit(exits.OK)


def _flush() -> None:
    """Flush stdout; a reader that closed the pipe (`| head`) causes no error at exit."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
