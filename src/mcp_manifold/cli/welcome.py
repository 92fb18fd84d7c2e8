"""`mcp-manifold` alone: which configuration there is, and what to do next. Starts nothing."""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from mcp_manifold.cli.exits import USAGE
from mcp_manifold.cli.layout import counted, say
from mcp_manifold.cli.logs import visible
from mcp_manifold.cli.opening import Invocation
from mcp_manifold.errors import ConfigError

if TYPE_CHECKING:
    from mcp_manifold.config import Settings

_CLAUDE_DESKTOP: Final = {
    "darwin": '"$HOME/Library/Application Support/Claude/claude_desktop_config.json"',
    "win32": '"%APPDATA%\\Claude\\claude_desktop_config.json"',
}


def welcome(invocation: Invocation) -> None:
    """Say what is there and what can be done."""
    if invocation.source is None and invocation.opening.find() is None:
        try:
            invocation.settings()
        except ConfigError as exc:
            say(without_configuration(str(exc), sys.platform))
        click.get_current_context().exit(USAGE)
    say(with_configuration(invocation.settings(), invocation.source))


def without_configuration(reason: str, platform: str) -> list[str]:
    """The way from nothing to something."""
    desktop = _CLAUDE_DESKTOP.get(platform, "~/.config/Claude/claude_desktop_config.json")
    example = '{"mcpServers": {"time": {"command": "uvx", "args": ["mcp-server-time"]}}}'
    return [
        visible(reason),
        f"Claude Desktop's servers, as they are:  mcp-manifold serve -c {desktop}",
        f"A first configuration, to save as mcp-manifold.json:  {example}",
        "See whether it works:  mcp-manifold check --live    Then serve it:  mcp-manifold serve",
        "Everything else:  mcp-manifold --help",
    ]


def with_configuration(settings: "Settings", source: Path | None) -> list[str]:
    """The next commands for a configuration that is there."""
    option = f" -c {shlex.quote(str(source))}" if source else ""
    enabled = sum(1 for server in settings.servers if not server.disabled)
    broken = f", {len(settings.broken)} broken" if settings.broken else ""
    return [
        visible(f"{settings.source}: {counted(enabled, 'server')}, {len(settings.servers) - enabled} disabled{broken}"),
        *(
            visible(line)
            for line in (
                f"  mcp-manifold serve{option}          serve them over HTTP",
                f"  mcp-manifold stdio{option}          be one stdio server for a desktop client",
                f"  mcp-manifold check{option} --live   see whether every server works",
                f"  mcp-manifold list{option}           see what they offer",
            )
        ),
    ]
