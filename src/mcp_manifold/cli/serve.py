"""`mcp-manifold serve` and `mcp-manifold stdio`: the endpoint over HTTP, or for one client over stdin and stdout."""

import asyncio
import json
import logging
import signal
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

import click

from mcp_manifold.cli.exits import EXIT_CODES, Misconfigured, did_you_mean
from mcp_manifold.cli.invocation import REMEMBER, STATE_DIR, Invocation, common, overrides_of
from mcp_manifold.cli.output import columns, counted, note, visible, visible_text
from mcp_manifold.cli.running import run, settle_memory

if TYPE_CHECKING:
    from mcp_manifold.app.manifold import Manifold
    from mcp_manifold.cli.statuses import PlainConsole, Reporter
    from mcp_manifold.config import Reloaded, Settings
    from mcp_manifold.config.state_directory import Announced

logger = logging.getLogger(__name__)

NO_FILE: Final = "<dict>"
_ANYWHERE: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}
_SHOWN: Final = 12
"""Servers, and groups, that the banner names."""


# --- serve ------------------------------------------------------------------------------------------------------------


@click.command(epilog=EXIT_CODES)
@common
@click.option("--host", help="Address to listen on, or several with commas. Default: 127.0.0.1.")
@click.option("--port", type=click.IntRange(0, 65535), help="Port to listen on. Default: 8808; 0 for any free port.")
@click.option("--base-path", metavar="PATH", help='Path prefix of all endpoints, such as "/tools".')
@click.option("--insecure", is_flag=True, help="Allow addresses other than loopback without tokens.")
@STATE_DIR
@REMEMBER
def serve(
    invocation: Invocation,
    *,
    host: str | None,
    port: int | None,
    base_path: str | None,
    insecure: bool,
    state_dir: Path | None,
    remember: bool | None,
) -> None:
    """Serve all configured servers as one endpoint over HTTP, until SIGINT or SIGTERM.

    Listens at once; servers that are still starting, or unavailable, join when they are ready. Prints the URLs and an
    entry for your client's configuration. The log goes to stderr.

    \b
    mcp-manifold serve -c mcp.json
    mcp-manifold serve -c mcp.json --port 9000 --base-path /tools
    MCP_MANIFOLD_TOKENS=... mcp-manifold serve -c mcp.json --host 0.0.0.0
    """
    from mcp_manifold.cli.statuses import PlainConsole  # noqa: PLC0415 - imports rich, which stdio must not wait for

    manifold = invocation.manifold(
        overrides_of(state_dir, remember, host=host, port=port, basePath=base_path, insecure=insecure or None)
    )
    invocation.log_as_configured(manifold.config)
    console = PlainConsole()

    def reloaded(outcome: "Reloaded") -> None:
        invocation.log_as_configured(manifold.config)
        with suppress(OSError):  # the reader of stdout has gone
            console.print(visible_text(str(outcome)))

    manifold.on_reload(reloaded)
    signals = ReloadSignal(invocation, manifold)
    run(_serve(manifold, console, signals), hangup=signals.received, stop=manifold.stop)


async def _serve(manifold: "Manifold", console: "PlainConsole", signals: "ReloadSignal") -> None:
    from mcp_manifold.cli.statuses import Reporter  # noqa: PLC0415 - as above

    manifold.listen()
    for warning in manifold.config.warnings:
        console.print(f"warning: {visible(warning)}")
    reporter = Reporter(manifold.status, console)
    manifold.on_status(reporter.moved)

    def ready(host: str, port: int) -> None:
        reporter.say(banner(manifold.config, root_url(host, port, manifold.config.manifold.base_path)))
        reporter.begin()

    async with manifold, asyncio.TaskGroup() as group:
        unwatch = manifold.watch("", lambda *_: reporter.review())
        started = group.create_task(_until_started(manifold, reporter), name="first attempts")
        try:
            with signals.announced():
                await manifold.serve_http(ready=ready)
        finally:
            started.cancel()
            unwatch()
            reporter.end()


async def _until_started(manifold: "Manifold", reporter: "Reporter | None" = None) -> None:
    await manifold.settle()
    settle_memory()
    if reporter is not None:
        reporter.settled(manifold.problems())


def root_url(host: str, port: int, base_path: str = "") -> str:
    """The prefix of all URLs. A wildcard host becomes the loopback address."""
    host = _ANYWHERE.get(host, host)
    return f"http://{f'[{host}]' if ':' in host else host}:{port}{base_path}"


def banner(settings: "Settings", root: str) -> list[str]:
    """The lines that `serve` prints once it listens: the URLs, and an entry for a client's configuration."""
    servers = [server.name for server in settings.servers if not server.disabled]
    rows = [
        ("everything", f"{root}/mcp"),
        ("  over SSE", f"{root}/sse"),
        *_urls("server", servers, root),
        *_urls("group", list(settings.manifold.groups), f"{root}/groups"),
        ("health", f"{root}/health"),
    ]
    return [
        f"{visible(settings.manifold.name)}: {counted(len(servers), 'server')} from {visible(settings.source)}, "
        f"listening on {root}",
        "",
        *columns(rows),
        "",
        "Entry for your client's configuration:",
        "",
        *json.dumps(snippet(settings, root), indent=2).splitlines(),
        "",
    ]


def _urls(word: str, names: Sequence[str], root: str) -> list[tuple[str, str]]:
    shown = [(f"{word} {visible(name)}", f"{root}/{quote(name, safe='')}/mcp") for name in names[:_SHOWN]]
    rest = len(names) - _SHOWN
    return [*shown, (f"{word} ...", f"and {rest} more")] if rest > 0 else shown


def snippet(settings: "Settings", root: str) -> dict[str, object]:
    """An entry for a client's `mcpServers`, with a placeholder for the token."""
    entry: dict[str, object] = {"type": "http", "url": f"{root}/mcp"}
    if settings.manifold.tokens:
        entry["headers"] = {"Authorization": "Bearer YOUR_TOKEN"}
    return {"mcpServers": {settings.manifold.name: entry}}


# --- stdio ------------------------------------------------------------------------------------------------------------


@click.command(epilog=EXIT_CODES)
@common
@click.option("--server", metavar="NAME", help="Only this server, under its own names.")
@click.option("--group", metavar="NAME", help="Only this group of servers.")
@STATE_DIR
@REMEMBER
def stdio(
    invocation: Invocation, *, server: str | None, group: str | None, state_dir: Path | None, remember: bool | None
) -> None:
    """Serve one client over stdin and stdout, for clients that start their servers as processes.

    stdout carries only the protocol. Warnings and errors go to stderr (more with --log-level). Ends when stdin closes.

    \b
    In a client's configuration:
      "manifold": {"command": "mcp-manifold", "args": ["stdio", "-c", "/path/to/mcp.json"]}
    Only some of the servers:
      mcp-manifold stdio -c mcp.json --group writing
    """
    if server and group:
        raise click.UsageError("--server and --group cannot be combined.")
    manifold = invocation.manifold(overrides_of(state_dir, remember))
    invocation.log_as_configured(manifold.config, default="warning")
    for problem in manifold.config.problems:
        note(f"{problem.severity}: {visible(str(problem))}")
    scope = scope_of(manifold.config, server=server, group=group)
    manifold.on_reload(lambda _: invocation.log_as_configured(manifold.config, default="warning"))
    signals = ReloadSignal(invocation, manifold)
    run(_serve_stdio(manifold, scope, signals), hangup=signals.received, stop=manifold.stop)


async def _serve_stdio(manifold: "Manifold", scope: str, signals: "ReloadSignal") -> None:
    async with manifold, asyncio.TaskGroup() as group:
        started = group.create_task(_until_started(manifold), name="first attempts")
        try:
            with signals.announced():
                await manifold.serve_stdio(scope=scope)
        finally:
            started.cancel()


def scope_of(settings: "Settings", *, server: str | None, group: str | None) -> str:
    """The scope that the options name.

    Raises:
        Misconfigured: no enabled server, or no group, has that name.
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
    if name not in names:
        raise Misconfigured(f'unknown {kind} "{name}"; configured: {", ".join(names)}.{did_you_mean(name, names)}')


# --- reloading on SIGHUP ----------------------------------------------------------------------------------------------


class ReloadSignal:
    """Reloads on SIGHUP, and writes the outcome where `mcp-manifold reload` finds it.

    Reloads are numbered, so that the command recognises the outcome of its own request.
    """

    def __init__(self, invocation: Invocation, manifold: "Manifold") -> None:
        self._invocation = invocation
        self._manifold = manifold
        self._note: Announced | None = None
        self._count = 0

    def __repr__(self) -> str:
        return f"<ReloadSignal {self._note!r} received={self._count}>"

    def received(self) -> None:
        """Handle one SIGHUP."""
        self._count += 1
        number = self._count
        self._manifold.reload_soon(lambda outcome: self._publish(number, outcome))

    @contextmanager
    def announced(self) -> Iterator[None]:
        """Announce this instance to `mcp-manifold reload`; best effort."""
        if self._manifold.config.source != NO_FILE and hasattr(signal, "SIGHUP"):
            note = self._invocation.opening.announced(Path(self._manifold.config.source))
            try:
                note.open()
                self._note = note
            except OSError as exc:
                logger.info("`mcp-manifold reload` will not find this instance, but SIGHUP works: %s", exc)
        try:
            yield
        finally:
            if self._note is not None:
                self._note.close()
                self._note = None

    def _publish(self, number: int, outcome: "Reloaded") -> None:
        if self._note is not None:
            try:
                self._note.tell(number, asdict(outcome))
            except OSError as exc:
                logger.warning("cannot report the outcome of the reload: %s", exc)
