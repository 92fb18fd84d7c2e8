"""`mcp-manifold status`: how the servers of a running instance are, as it says itself. Starts nothing."""

import json
import re
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

import click
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from mcp_manifold.cli.exits import EXIT_CODES, FAILED, OK, Failed
from mcp_manifold.cli.layout import columns, is_terminal, say
from mcp_manifold.cli.logs import visible
from mcp_manifold.cli.options import JSON
from mcp_manifold.cli.serve import Paper
from mcp_manifold.cli.statuses import COLOURS, TRANSPORTS

URL: Final = "http://127.0.0.1:8808"
_WAIT: Final = 5.0
"""Seconds an instance may take to answer; without it one that hangs would hang this, too."""
_PACE: Final = 2.0
"""Seconds between two questions of --watch."""
_LARGEST: Final = 16 << 20
"""Bytes of the longest answer that is read: whatever listens there may not be ours."""
_FINE: Final = frozenset({"healthy", "disabled"})
_HEADINGS: Final = ("server", "state", "since", "latency", "transport", "tools")


@dataclass(frozen=True, slots=True)
class Report:
    """What an instance said of its servers; or why it said nothing."""

    servers: tuple[Mapping[str, Any], ...] = ()
    problem: str = ""

    @property
    def is_fine(self) -> bool:
        """Whether every enabled server is healthy."""
        return not self.problem and all(server.get("status") in _FINE for server in self.servers)

    def rows(self) -> list[tuple[str, ...]]:
        """A row for each server, below `_HEADINGS`."""
        return [_row(server) for server in self.servers]

    def notes(self) -> list[str]:
        """What does not fit into a row: why a server is as it is."""
        found = [_note(server) for server in self.servers if server.get("lastError")]
        return [*found, visible(self.problem)] if self.problem else found


def _address(context: click.Context, parameter: click.Parameter, value: str) -> str:
    try:
        parts = urlsplit(value)
        is_sound = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.username is None
    except ValueError:
        is_sound = False
    if not is_sound:
        raise click.BadParameter("expected an address beginning with http:// or https://, without a user name")
    return value.rstrip("/")


def _secret(context: click.Context, parameter: click.Parameter, value: str | None) -> str:
    token = sys.stdin.readline().strip() if value == "-" else value or ""
    if not re.fullmatch(r"[!-~]*", token):
        raise click.BadParameter("expected visible ASCII characters, without spaces")
    return token


@click.command(epilog=EXIT_CODES)
@click.option("--url", default=URL, show_default=True, callback=_address, help="Where it runs, base path included.")
@click.option("--token", callback=_secret, help="A token it accepts; - reads it from stdin, where nobody sees it.")
@click.option("--watch", is_flag=True, help=f"Ask again every {_PACE:g} seconds, until interrupted.")
@JSON
@click.pass_context
def status(context: click.Context, url: str, token: str, watch: bool, as_json: bool) -> None:
    """Tell how the servers of a running instance are.

    \b
    mcp-manifold status
    mcp-manifold status --url https://mcp.example.com/tools --token - < token.txt
    mcp-manifold status --watch
    """
    page = f"{url}/health/servers"
    if watch:
        _watch(page, token, as_json=as_json)
    found = _asked(page, token)
    if as_json:
        say([json.dumps(_as_object(found), indent=2)])
    elif is_terminal():
        Paper().print(drawn(found))
    else:
        say(_lines(found))
    context.exit(OK if found.is_fine else FAILED)


def _watch(page: str, token: str, *, as_json: bool) -> None:
    """Ask for ever; an instance that is away may come back."""
    if is_terminal() and not as_json:
        with Live(console=Paper(), auto_refresh=False) as live:
            while True:
                live.update(drawn(_told(page, token)), refresh=True)
                time.sleep(_PACE)
    while True:
        found = _told(page, token)
        say([json.dumps(_as_object(found))] if as_json else [*_lines(found), ""])
        sys.stdout.flush()
        time.sleep(_PACE)


def _told(page: str, token: str) -> Report:
    try:
        return _asked(page, token)
    except Failed as exc:
        return Report(problem=exc.message)


def _asked(page: str, token: str) -> Report:
    """The instance's answer.

    Raises:
        Failed: there is none, or it is not one of ours.
    """
    code, body = _got(page, token)
    if code in (401, 403):
        what = "does not accept this token" if token else "asks for a token: give one with --token"
        raise Failed(f"{page} {what} (HTTP {code})")
    try:
        servers = json.loads(body)["servers"] if code == 200 else None
    except (ValueError, TypeError, KeyError, RecursionError):
        servers = None
    if not isinstance(servers, list) or not all(isinstance(server, dict) for server in servers):
        raise Failed(f"{page} answered (HTTP {code}), but not as an mcp-manifold does; is the address right?")
    return Report(tuple(servers))


def _got(page: str, token: str) -> tuple[int, bytes]:
    import httpx2  # noqa: PLC0415 - only this command needs it, and --help should not pay for it

    headers = {"authorization": f"Bearer {token}"} if token else {}
    try:
        # no proxy of the environment: the instance is near, and a token is for nobody in between; no redirect either
        with (
            httpx2.Client(timeout=_WAIT, trust_env=False) as client,
            client.stream("GET", page, headers=headers) as answer,
        ):
            body, until = bytearray(), time.monotonic() + _WAIT
            for part in answer.iter_bytes():
                body += part
                if len(body) > _LARGEST or time.monotonic() > until:
                    break
            return answer.status_code, bytes(body)
    except (httpx2.HTTPError, httpx2.InvalidURL) as exc:
        reason = str(exc) or type(exc).__name__
        raise Failed(f"cannot reach {page} ({reason}); is `mcp-manifold serve` running there?") from exc


def _as_object(found: Report) -> dict[str, object]:
    return {"error": found.problem} if found.problem else {"servers": list(found.servers)}


def _lines(found: Report) -> list[str]:
    """The report for a pipe."""
    rows = found.rows()
    return [*(columns([_HEADINGS, *rows], indent="") if rows else []), *found.notes()]


def drawn(found: Report) -> Group:
    """The report for a terminal."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in _HEADINGS:
        table.add_column(heading, justify="right" if heading in ("latency", "tools") else "left", no_wrap=True)
    for name, state, *rest in found.rows():
        cells = (Text(name, style="bold"), Text(state, style=COLOURS.get(state, "dim")), *map(Text, rest))
        table.add_row(*cells)
    return Group(*([table] if found.servers else []), *(Text(note) for note in found.notes()))


def _row(server: Mapping[str, Any]) -> tuple[str, ...]:
    latency, transport = server.get("latency"), _text(server, "transport")
    return (
        _text(server, "name"),
        _text(server, "state"),
        _text(server, "since"),
        f"{latency:.1f} ms" if isinstance(latency, int | float) else "",
        _joined(TRANSPORTS.get(transport, transport), _text(server, "era")),
        _text(server, "tools"),
    )


def _note(server: Mapping[str, Any]) -> str:
    left = server.get("nextAttempt")
    soon = f"; next attempt in {left:.1f} s" if isinstance(left, int | float) else ""
    return f"{_text(server, 'name')}: {_text(server, 'lastError')}{soon}"


def _joined(transport: str, era: str) -> str:
    return f"{transport} ({era})" if era else transport


def _text(server: Mapping[str, Any], member: str) -> str:
    """A member as it may be shown: whoever answered may not be ours."""
    value = server.get(member)
    return "" if value is None else visible(str(value))
