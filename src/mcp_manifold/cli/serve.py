"""`mcp-manifold serve`: the endpoint over HTTP, and how its servers get on meanwhile."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import IO, TYPE_CHECKING

import click
from rich.console import Console
from rich.live import Live

from mcp_manifold.cli import statuses
from mcp_manifold.cli.addresses import Addresses, banner
from mcp_manifold.cli.allocator import settle_memory
from mcp_manifold.cli.exits import EXIT_CODES
from mcp_manifold.cli.logs import visible, visible_text
from mcp_manifold.cli.opening import Endpoint, Invocation
from mcp_manifold.cli.options import REMEMBER, STATE_DIR, common
from mcp_manifold.cli.reload_signal import Following
from mcp_manifold.cli.running import run

if TYPE_CHECKING:
    from pathlib import Path

    from mcp_manifold.config import Reloaded
    from mcp_manifold.core.status import ServerStatus


@click.command(epilog=EXIT_CODES)
@common
@click.option("--host", help="The address to listen on (127.0.0.1).")
@click.option("--port", type=click.IntRange(0, 65535), help="The port to listen on (8808); 0 for any free one.")
@click.option("--base-path", metavar="PATH", help='A path all endpoints are below, such as "/tools".')
@click.option("--insecure", is_flag=True, help="Listen on other addresses than this machine's own without tokens.")
@STATE_DIR
@REMEMBER
def serve(
    invocation: Invocation,
    *,
    host: str | None,
    port: int | None,
    base_path: str | None,
    insecure: bool,
    state_dir: "Path | None",
    remember: bool | None,
) -> None:
    """Serve all configured servers as one, over HTTP, until a signal.

    Listens at once; servers that are still starting, or down, join as soon as they are ready. Prints where to
    point a client, and what to paste into its configuration. The log goes to stderr.

    \b
    mcp-manifold serve -c mcp.json
    mcp-manifold serve -c mcp.json --port 9000 --base-path /tools
    MCP_MANIFOLD_TOKENS=... mcp-manifold serve -c mcp.json --host 0.0.0.0
    """
    given: dict[str, object] = {"host": host, "port": port, "basePath": base_path, "insecure": insecure or None}
    given |= {"stateDir": None if state_dir is None else str(state_dir), "remember": remember}
    manifold = invocation.manifold({key: value for key, value in given.items() if value is not None})
    invocation.log_as_configured(manifold.config)
    console = Paper()

    def reloaded(what: "Reloaded") -> None:
        invocation.log_as_configured(manifold.config)
        with suppress(OSError):  # a reader who left
            console.print(visible_text(str(what)))

    manifold.on_reload(reloaded)
    following = Following(invocation, manifold)
    run(_serve(manifold, console, following), hangup=following.again, stop=manifold.stop)


async def _serve(manifold: Endpoint, console: Console, following: Following) -> None:
    for warning in manifold.config.warnings:
        console.print(f"warning: {visible(warning)}")
    reporter = Reporter(manifold.status, console)
    manifold.on_status(reporter.moved)

    def ready(host: str, port: int) -> None:
        reporter.say(banner(manifold.config, Addresses(host, port, manifold.config.manifold.base_path)))
        reporter.begin()

    async with manifold, asyncio.TaskGroup() as group:
        unwatch = manifold.watch("", lambda *_: reporter.review())
        started = group.create_task(_until_started(manifold, reporter), name="first attempts")
        try:
            with following.announced():
                await manifold.serve_http(ready=ready)
        finally:
            started.cancel()
            unwatch()
            reporter.end()


async def _until_started(manifold: Endpoint, reporter: "Reporter") -> None:
    await manifold.settle()
    settle_memory()
    reporter.settled(manifold.problems())


class Paper(Console):
    """A console that takes text for text. Its reader may leave: an error to its caller, not the end of the program."""

    def __init__(self, file: IO[str] | None = None, *, force_terminal: bool | None = None, width: int | None = None):
        super().__init__(
            file=file,
            force_terminal=force_terminal,
            width=width,
            markup=False,
            highlight=False,
            emoji=False,
            soft_wrap=True,
        )

    def on_broken_pipe(self) -> None:
        """Let the caller know."""
        raise BrokenPipeError


class Reporter:
    """Tells how the servers get on: as a table that changes while they start, else and later a line per change.

    Called from within the backends' tasks: it never raises, and says nothing before `begin` and after `end`. A server
    is told of again only when there is something new, so one that stays away does not fill the screen.
    """

    def __init__(self, status: "Callable[[], list[ServerStatus]]", console: Console) -> None:
        self._status = status
        self._console = console
        self._live: Live | None = None
        self._told: dict[str, str] = {}
        self._is_open = False
        self._is_settled = False

    def __repr__(self) -> str:
        phase = "closed" if not self._is_open else "live" if self._live else "lines"
        return f"<Reporter {phase}, {len(self._told)} servers told of>"

    def say(self, lines: list[str]) -> None:
        """Print lines; a reader who left is no reason to stop serving."""
        try:
            self._console.print("\n".join(lines))
        except OSError:
            self.end()

    def begin(self) -> None:
        """From now on there is something to tell."""
        self._is_open = True
        if self._console.is_terminal and not self._is_settled:
            self._live = Live(
                console=self._console,
                auto_refresh=False,
                redirect_stdout=False,
                redirect_stderr=Console(stderr=True).is_terminal,
            )
            self._live.start()
        self.review()

    def moved(self, name: str) -> None:
        """A server's state moved."""
        self.review()

    def settled(self, problems: tuple[str, ...]) -> None:
        """Every server was tried: the table stays as it is, and lines follow."""
        self._is_settled = True
        if not self._is_open:
            return
        self.review()
        self._stop_live()
        self.review()
        if problems:
            self.say([f"note: {visible(problem)}" for problem in problems])

    def review(self) -> None:
        """Tell what is new."""
        if not self._is_open:
            return
        found = self._status()
        fresh = [status for status in found if self._is_news(status)]
        if self._live is None:
            self._tell(fresh)
            return
        try:
            self._live.update(statuses.table(found), refresh=True)  # has no room for reasons: those follow as lines
        except OSError:
            self.end()
        self._told.update((status.name, _gist(status)) for status in fresh if statuses.is_fine(status))

    def end(self) -> None:
        """Say nothing more."""
        self._is_open = False
        self._stop_live()

    def _tell(self, fresh: "list[ServerStatus]") -> None:
        self._told.update((status.name, _gist(status)) for status in fresh)
        if fresh:
            self.say([statuses.line(status) for status in fresh])

    def _is_news(self, status: "ServerStatus") -> bool:
        if statuses.is_pending(status):
            return False
        has_listed = statuses.offer(status) != statuses.NOTHING
        if status.state == "ready" and not has_listed and not self._is_settled:
            return False  # it is ready before its lists are here
        return self._told.get(status.name) != _gist(status)

    def _stop_live(self) -> None:
        live, self._live = self._live, None
        if live is not None:
            try:
                live.stop()
            except OSError:
                self._is_open = False


def _gist(status: "ServerStatus") -> str:
    """What makes a status worth telling: all of it but the passing of time."""
    is_known = status.state in ("ready", "idle")
    return f"{status.state}\0{statuses.outcome(status) if is_known else status.last_error}"
