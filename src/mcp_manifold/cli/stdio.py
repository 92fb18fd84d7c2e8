"""`mcp-manifold stdio`: one client over stdin and stdout. Nothing else is ever written to stdout."""

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING

import click

from mcp_manifold.cli.allocator import settle_memory
from mcp_manifold.cli.exits import EXIT_CODES, Misconfigured, did_you_mean
from mcp_manifold.cli.layout import note
from mcp_manifold.cli.logs import visible
from mcp_manifold.cli.opening import Endpoint, Invocation
from mcp_manifold.cli.options import REMEMBER, STATE_DIR, common
from mcp_manifold.cli.reload_signal import Following
from mcp_manifold.cli.running import run

if TYPE_CHECKING:
    from pathlib import Path

    from mcp_manifold.config import Settings


@click.command(epilog=EXIT_CODES)
@common
@click.option("--server", metavar="NAME", help="Only this server, under its own names.")
@click.option("--group", metavar="NAME", help="Only this group of servers.")
@STATE_DIR
@REMEMBER
def stdio(
    invocation: Invocation, *, server: str | None, group: str | None, state_dir: "Path | None", remember: bool | None
) -> None:
    """Be one MCP server over stdin and stdout, for a client that starts its servers itself.

    stdout belongs to the protocol; warnings go to stderr (more with --log-level). Ends when stdin does.

    \b
    In a client's configuration:
      "manifold": {"command": "uvx", "args": ["mcp-manifold", "stdio", "-c", "/path/to/mcp.json"]}
    Or a part of it:
      mcp-manifold stdio -c mcp.json --group writing
    """
    if server and group:
        raise click.UsageError("--server and --group exclude each other.")
    given = {"stateDir": None if state_dir is None else str(state_dir), "remember": remember}
    manifold = invocation.manifold({key: value for key, value in given.items() if value is not None})
    invocation.log_as_configured(manifold.config, default="warning")
    for warning in manifold.config.warnings:
        note(f"warning: {visible(warning)}")
    scope = scope_of(manifold.config, server=server, group=group)
    manifold.on_reload(lambda _: invocation.log_as_configured(manifold.config, default="warning"))
    following = Following(invocation, manifold)
    run(_serve(manifold, scope, following), hangup=following.again, stop=manifold.stop)


async def _serve(manifold: Endpoint, scope: str, following: Following) -> None:
    async with manifold, asyncio.TaskGroup() as group:
        started = group.create_task(_until_started(manifold), name="first attempts")
        try:
            with following.announced():
                await manifold.serve_stdio(scope=scope)
        finally:
            started.cancel()


async def _until_started(manifold: Endpoint) -> None:
    await manifold.settle()
    settle_memory()


def scope_of(settings: "Settings", *, server: str | None, group: str | None) -> str:
    """The scope the options name.

    Raises:
        Misconfigured: there is none of that name.
    """
    if server:
        _require("server", server, [known.name for known in settings.servers if not known.disabled])
        return f"server:{server}"
    if group:
        _require("group", group, settings.manifold.groups)
        return f"group:{group}"
    return ""


def _require(kind: str, name: str, known: Iterable[str]) -> None:
    names = list(known)
    if name in names:
        return
    there = f"there are {', '.join(names)}" if names else "there is none"
    raise Misconfigured(f'No {kind} is called "{name}"; {there}.{did_you_mean(name, names)}')
