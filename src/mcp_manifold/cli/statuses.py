"""What a server's status reads like: a line, a table, a remedy. Pure: statuses in, text out."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from rich.table import Table
from rich.text import Text

from mcp_manifold.cli.layout import counted
from mcp_manifold.cli.logs import visible

if TYPE_CHECKING:
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
NOTHING: Final = "nothing offered"

_REMEDIES: Final = (
    (("could not be started",), 'is its "command" a program this user may run?'),
    (("working directory",), 'correct "cwd", or create the directory'),
    (("401", "403", "unauthorized", "forbidden"), 'give the credential it wants under "headers"'),
    (("404", "405"), 'check the path of its "url"'),
    (("certificate", "tls", "ssl"), 'check the certificate, or the "url"'),
    (("refused", "resolve", "getaddrinfo", "not known", "unreachable"), 'is it running? check its "url"'),
    (("exited", "stdout", "signal"), "run its command by hand to see why it ends"),
    (("did not answer", "no answer", "timed out", "within"), 'give it longer with "timeout", or --wait'),
)


def is_fine(status: "ServerStatus") -> bool:
    """Whether there is nothing to put right."""
    return status.is_resting or (status.state in _FINE and status.breaker not in _SHUT)


def is_pending(status: "ServerStatus") -> bool:
    """Whether nothing can be said of it yet."""
    return status.state == "connecting" or (status.state == "idle" and not status.is_resting and not status.last_error)


def offer(status: "ServerStatus") -> str:
    """`3 tools, 2 resources, 1 prompt`; what there is none of is left out."""
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
    """The status in one sentence."""
    name, error = visible(status.name), visible(status.last_error)
    match status.state:
        case "ready" if status.breaker in _SHUT:
            return f"{name}: ready over {way(status)}, but answers no calls ({error}){_next_attempt(status)}"
        case "ready":
            return f"{name}: ready over {way(status)}, {offer(status)}"
        case "idle" if status.is_resting:
            return f"{name}: idle until it is called, {offer(status)}"
        case "idle" if error:
            return f"{name}: idle, its last start failed ({error}); the next call starts it again"
        case "degraded":
            return f"{name}: degraded ({error or 'no reason known'}), calls still go there over {way(status)}"
        case "backing off":
            return f"{name}: not reachable ({error or 'no reason known'}){_next_attempt(status)}"
        case "crash loop":
            return f"{name}: in a crash loop ({error or 'no reason known'}){_next_attempt(status)}"
        case "broken":
            return f"{name}: broken: {error}"
        case _:
            return f"{name}: {visible(status.state)}"


def outcome(status: "ServerStatus") -> str:
    """The same for a program that is about to end, and makes no other attempt."""
    return line(replace(status, next_try=None))


def _next_attempt(status: "ServerStatus") -> str:
    return "" if status.next_try is None else f"; next attempt in {status.next_try:.1f} s"


def remedy(status: "ServerStatus") -> str:
    """What to try; empty where nothing is known to help."""
    if status.state == "connecting":
        return "it is still starting: give it longer with --wait"
    error = status.last_error.lower()
    if status.state not in ("backing off", "crash loop"):
        return ""
    return next((advice for signs, advice in _REMEDIES if any(sign in error for sign in signs)), "")


def report(status: "ServerStatus", took: float | None) -> list[str]:
    """The status for `check --live`: the sentence, and below it what helps to find the fault."""
    after = "" if took is None or status.state == "disabled" else f" (after {took:.1f} s)"
    mark = "-" if status.state == "disabled" else "ok" if is_fine(status) else "!!"
    lines = [f"{mark:<3}{outcome(status)}{after}"]
    if is_fine(status):
        return lines
    if advice := remedy(status):
        lines.append(f"     {advice}")
    lines += [f"     stderr: {visible(said)}" for said in status.stderr[-STDERR_SHOWN:]]
    return lines


def table(statuses: Sequence["ServerStatus"]) -> Table:
    """All servers at a glance, for a terminal. Why one is away takes a line of its own, elsewhere."""
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
