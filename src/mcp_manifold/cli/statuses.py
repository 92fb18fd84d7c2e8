"""The status of servers as text: a sentence, a table, a remedy, and the live progress that `serve` shows."""

import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import IO, TYPE_CHECKING, Final

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from mcp_manifold.cli.output import counted, visible

if TYPE_CHECKING:
    from mcp_manifold.app.manifold import Manifold
    from mcp_manifold.core.status import ServerStatus

TRANSPORTS: Final = {"stdio": "stdio", "http": "Streamable HTTP", "sse": "SSE"}
COLOURS: Final = {
    "ready": "green",
    "degraded": "yellow",
    "connecting": "yellow",
    "backing off": "red",
    "crash loop": "red",
    "broken": "red",
}
_NUMBERS: Final = frozenset({"tools", "resources", "prompts"})
_FINE: Final = frozenset({"ready", "disabled"})
_SHUT: Final = frozenset({"open", "half-open"})
STDERR_SHOWN: Final = 5
_AWAITED: Final = 5
"""Names of servers on the line of progress."""
NOTHING: Final = "nothing offered"
_UNKNOWN: Final = "reason unknown"

_REMEDIES: Final = (
    (("invalid output on stdout",), 'check "command" and "args": it must speak MCP on stdout, and log to stderr'),
    (("of stderr: ",), "run its command by hand to see why it exits"),
    (("too many open files",), "raise the limit of open files (ulimit -n), or configure fewer servers"),
    (("could not be started",), 'check that this user may run its "command"'),
    (("working directory",), 'correct "cwd", or create the directory'),
    (("401", "403", "unauthorized", "forbidden"), 'set the credential it requires under "headers"'),
    (("404", "405"), 'check the path of its "url"'),
    (("certificate", "tls", "ssl"), 'check the certificate and the "url"; name a CA of your own in SSL_CERT_FILE'),
    (("refused", "resolve", "getaddrinfo", "not known", "unreachable"), 'check that it is running, and its "url"'),
    (("exited", "stdout", "signal"), "run its command by hand to see why it exits"),
    (("did not answer", "no answer", "timed out", "within"), 'increase its "timeout", or --wait'),
)


def is_fine(status: "ServerStatus") -> bool:
    """Whether the server needs no attention."""
    return status.is_resting or (status.state in _FINE and status.breaker not in _SHUT)


def is_pending(status: "ServerStatus") -> bool:
    """Whether the first attempt to connect to the server is still running."""
    return status.state == "connecting" or (status.state == "idle" and not status.is_resting and not status.last_error)


def offer(status: "ServerStatus") -> str:
    """`3 tools, 2 resources, 1 prompt`, without zeros."""
    counts = (
        (status.tools, "tool"),
        (status.resources, "resource"),
        (status.templates, "resource template"),
        (status.prompts, "prompt"),
    )
    found = [counted(number, noun) for number, noun in counts if number]
    hidden = [f"{status.hidden} hidden"] if status.hidden else []
    return ", ".join([*found, *hidden]) or NOTHING


def way(status: "ServerStatus") -> str:
    """`stdio (handshake 2025-11-25)`."""
    spoken = " ".join(part for part in (status.era, status.version) if part)
    transport = TRANSPORTS.get(status.transport, status.transport) or "no transport"
    return visible(f"{transport} ({spoken})" if spoken else transport)


def line(status: "ServerStatus") -> str:
    """The status as one sentence."""
    name, error = visible(status.name), visible(status.last_error)
    match status.state:
        case "ready" if status.breaker in _SHUT:
            return (
                f"{name}: ready over {way(status)}, circuit breaker {status.breaker} ({error}){_next_attempt(status)}"
            )
        case "ready":
            return f"{name}: ready over {way(status)}, {offer(status)}"
        case "idle" if status.is_resting:
            return f"{name}: idle until the next call, {offer(status)}"
        case "idle" if error:
            return f"{name}: idle, its last start failed ({error}); the next call starts it again"
        case "connecting" if error or status.stderr:
            return f"{name}: not connected yet ({error or f'stderr: {visible(status.stderr[-1])}'})"
        case "degraded":
            return f"{name}: degraded ({error or _UNKNOWN}), still called over {way(status)}"
        case "backing off":
            return f"{name}: not reachable ({error or _UNKNOWN}){_next_attempt(status)}"
        case "crash loop":
            return f"{name}: in a crash loop ({error or _UNKNOWN}){_next_attempt(status)}"
        case "broken":
            return f"{name}: broken: {error}"
        case _:
            return f"{name}: {visible(status.state)}"


def outcome(status: "ServerStatus") -> str:
    """The status as one sentence without the next attempt, for a program that is about to end."""
    return line(replace(status, next_try=None))


def _next_attempt(status: "ServerStatus") -> str:
    return "" if status.next_try is None else f"; next attempt in {status.next_try:.1f} s"


def remedy(status: "ServerStatus") -> str:
    """Advice for an unavailable server; empty when there is none."""
    error = status.last_error.lower()
    if status.state == "connecting" and "stdout" not in error:
        return "it is still starting; increase --wait"
    if status.state not in ("connecting", "backing off", "crash loop"):
        return ""
    return next((advice for signs, advice in _REMEDIES if any(sign in error for sign in signs)), "")


def report(status: "ServerStatus", took: float | None) -> list[str]:
    """The status for `check --live`: the sentence, then the remedy and what else is at the end of stderr."""
    after = "" if took is None or status.state == "disabled" else f" (after {took:.1f} s)"
    mark = "-" if status.state == "disabled" else "ok" if is_fine(status) else "!!"
    lines = [f"{mark:<3}{outcome(status)}{after}"]
    if is_fine(status):
        return lines
    if advice := remedy(status):
        lines.append(f"     {advice}")
    told = [said for said in status.stderr if said not in status.last_error]
    return lines + [f"     stderr: {visible(said)}" for said in told[-STDERR_SHOWN:]]


def table(statuses: Sequence["ServerStatus"]) -> Table:
    """All servers as a table for a terminal. Error messages do not fit; they follow as lines."""
    shown = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("server", "state", "transport", "tools", "resources", "prompts"):
        shown.add_column(heading, justify="right" if heading in _NUMBERS else "left", no_wrap=heading != "transport")
    for status in statuses:
        shown.add_row(*_cells(status))
    return shown


def _cells(status: "ServerStatus") -> list[Text]:
    is_open = status.state in ("ready", "degraded") or status.is_resting
    counts = (status.tools, status.resources + status.templates, status.prompts)
    return [
        Text(visible(status.name), style="bold"),
        Text(visible(status.state), style=COLOURS.get(status.state, "dim")),
        Text(way(status) if status.transport else ""),
        *(Text(str(count) if is_open else "") for count in counts),
    ]


class PlainConsole(Console):
    """A console that prints text without markup. A closed pipe raises BrokenPipeError instead of ending the program."""

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
        """Raise BrokenPipeError, so that the caller decides what to do."""
        raise BrokenPipeError


async def waited_for(manifold: "Manifold", start: Awaitable[None], console: Console | None = None) -> None:
    """Wait until the servers have started. On a terminal, stderr shows meanwhile which servers are still starting."""
    console = console or PlainConsole(sys.stderr)
    if not console.is_terminal:
        await start
        return
    is_over = False
    with console.status(awaited(manifold.status())) as shown:

        def moved(_: str) -> None:
            if not is_over:
                shown.update(awaited(manifold.status()))

        manifold.on_status(moved)
        try:
            await start
        finally:
            is_over = True  # from here on they are being stopped


def awaited(found: "Sequence[ServerStatus]") -> str:
    """`Starting servers, 3 of 5 ready; waiting for git, slow_jobs`."""
    waiting = [visible(status.name) for status in found if is_pending(status)]
    enabled = [status for status in found if status.state != "disabled"]
    ready = sum(1 for status in enabled if status.state == "ready")
    names = ", ".join(waiting[:_AWAITED]) + (f" and {len(waiting) - _AWAITED} more" if waiting[_AWAITED:] else "")
    return f"Starting servers, {ready} of {len(enabled)} ready" + (f"; waiting for {names}" if names else "")


class Reporter:
    """Shows the servers while `serve` runs: on a terminal a table until all were tried, else one line per change.

    Prints only between `begin` and `end`, and never raises. A server that fails again and again for the same reason is
    printed once.
    """

    def __init__(self, status: "Callable[[], list[ServerStatus]]", console: Console) -> None:
        self._status = status
        self._console = console
        self._live: Live | None = None
        self._shown: dict[str, str] = {}
        self._is_open = False
        self._is_settled = False

    def __repr__(self) -> str:
        phase = "closed" if not self._is_open else "live" if self._live else "lines"
        return f"<Reporter {phase} shown={len(self._shown)}>"

    def say(self, lines: list[str]) -> None:
        """Print lines. When the reader has closed the pipe, reporting ends and serving continues."""
        try:
            self._console.print("\n".join(lines))
        except OSError:
            self.end()

    def begin(self) -> None:
        """Start reporting."""
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
        """Report a server whose status has changed."""
        self.review()

    def settled(self, problems: tuple[str, ...]) -> None:
        """Freeze the table, because every server was tried; print lines from now on."""
        self._is_settled = True
        if not self._is_open:
            return
        self.review()
        self._stop_live()
        self.review()
        if problems:
            self.say([f"note: {visible(problem)}" for problem in problems])

    def review(self) -> None:
        """Print each server whose status has changed since it was last printed."""
        if not self._is_open:
            return
        found = self._status()
        fresh = [status for status in found if self._is_news(status)]
        if self._live is None:
            self._print(fresh)
            return
        try:
            self._live.update(table(found), refresh=True)  # without error messages, which follow as lines
        except OSError:
            self.end()
        self._shown.update((status.name, _gist(status)) for status in fresh if is_fine(status))

    def end(self) -> None:
        """Stop reporting."""
        self._is_open = False
        self._stop_live()

    def _print(self, fresh: "list[ServerStatus]") -> None:
        self._shown.update((status.name, _gist(status)) for status in fresh)
        if fresh:
            self.say([line(status) for status in fresh])

    def _is_news(self, status: "ServerStatus") -> bool:
        if is_pending(status):
            return False
        has_listed = offer(status) != NOTHING
        if status.state == "ready" and not has_listed and not self._is_settled:
            return False  # its lists are still being fetched
        return self._shown.get(status.name) != _gist(status)

    def _stop_live(self) -> None:
        live, self._live = self._live, None
        if live is not None:
            try:
                live.stop()
            except OSError:
                self._is_open = False


def _gist(status: "ServerStatus") -> str:
    """The part of a status that makes it news: everything but times."""
    is_known = status.state in ("ready", "idle")
    return f"{status.state}\0{outcome(status) if is_known else status.last_error}"
