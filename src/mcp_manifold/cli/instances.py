"""`mcp-manifold status` and `mcp-manifold reload`: commands for instances that are already running."""

import json
import os
import re
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import click
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from mcp_manifold.cli.exits import EXIT_CODES, FAILED, OK, USAGE, Failed, Misconfigured
from mcp_manifold.cli.invocation import JSON, Invocation, common
from mcp_manifold.cli.output import columns, is_terminal, say, visible, visible_text
from mcp_manifold.cli.statuses import COLOURS, TRANSPORTS, PlainConsole

if TYPE_CHECKING:
    from mcp_manifold.config.state_directory import Instance

URL: Final = "http://127.0.0.1:8808"
_TIMEOUT: Final = 5.0
"""Seconds an instance may take to answer over HTTP."""
_WATCH_EVERY: Final = 2.0
"""Seconds between two requests of --watch."""
_LARGEST: Final = 16 << 20
"""Bytes read of a response; the server at that address may not be ours."""
_FINE: Final = frozenset({"healthy", "disabled"})
_HEADINGS: Final = ("server", "state", "since", "latency", "transport", "tools")
_POLL: Final = 0.05
"""Seconds between two looks at the outcome that an instance writes."""
_RELOAD_TIMEOUT: Final = 30.0
_GROUPS: Final = ("added", "removed", "changed", "unchanged")


# --- status -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Report:
    """The servers of a running instance, as `/health/servers` describes them; or the reason why there is no answer."""

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
        """The errors of the servers, one line each."""
        found = [_note(server) for server in self.servers if server.get("lastError")]
        return [*found, visible(self.problem)] if self.problem else found


def _address(context: click.Context, parameter: click.Parameter, value: str) -> str:
    try:
        parts = urlsplit(value)
        is_valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.username is None
    except ValueError:
        is_valid = False
    if not is_valid:
        raise click.BadParameter("expected a URL that begins with http:// or https://, without a user name")
    return value.rstrip("/")


def _secret(context: click.Context, parameter: click.Parameter, value: str | None) -> str:
    token = sys.stdin.readline().strip() if value == "-" else value or ""
    if not re.fullmatch(r"[!-~]*", token):
        raise click.BadParameter("expected visible ASCII characters, without spaces")
    return token


@click.command(epilog=EXIT_CODES)
@click.option("--url", default=URL, show_default=True, callback=_address, help="URL of the instance, with base path.")
@click.option("--token", callback=_secret, help="Bearer token; - reads it from stdin, hidden from process lists.")
@click.option("--watch", is_flag=True, help=f"Repeat every {_WATCH_EVERY:g} seconds, until interrupted.")
@JSON
@click.pass_context
def status(context: click.Context, url: str, token: str, watch: bool, as_json: bool) -> None:
    """Show the status of the servers of a running instance.

    \b
    mcp-manifold status
    mcp-manifold status --url https://mcp.example.com/tools --token - < token.txt
    mcp-manifold status --watch
    """
    page = f"{url}/health/servers"
    if watch:
        _watch(page, token, as_json=as_json)
    found = _fetched(page, token)
    if as_json:
        say([json.dumps(_as_object(found), indent=2)])
    elif is_terminal():
        PlainConsole().print(drawn(found))
    else:
        say(_lines(found))
    context.exit(OK if found.is_fine else FAILED)


def _watch(page: str, token: str, *, as_json: bool) -> None:
    """Repeat for ever; an instance that is unavailable may come back."""
    if is_terminal() and not as_json:
        with Live(console=PlainConsole(), auto_refresh=False) as live:
            while True:
                live.update(drawn(_fetched_or_problem(page, token)), refresh=True)
                time.sleep(_WATCH_EVERY)
    while True:
        found = _fetched_or_problem(page, token)
        say([json.dumps(_as_object(found))] if as_json else [*_lines(found), ""])
        sys.stdout.flush()
        time.sleep(_WATCH_EVERY)


def _fetched_or_problem(page: str, token: str) -> Report:
    try:
        return _fetched(page, token)
    except Failed as exc:
        return Report(problem=exc.message)


def _fetched(page: str, token: str) -> Report:
    """The status page of an instance.

    Raises:
        Failed: nothing answered, the token was refused, or the page is not one of ours.
    """
    code, body = _get(page, token)
    if code in (401, 403):
        what = "refused the token" if token else "requires a token; pass one with --token"
        raise Failed(f"{page} {what} (HTTP {code})")
    try:
        servers = json.loads(body)["servers"] if code == 200 else None
    except (ValueError, TypeError, KeyError, RecursionError):
        servers = None
    if not isinstance(servers, list) or not all(isinstance(server, dict) for server in servers):
        raise Failed(f"{page} is not a page of mcp-manifold (HTTP {code}); check --url")
    return Report(tuple(servers))


def _get(page: str, token: str) -> tuple[int, bytes]:
    import httpx2  # noqa: PLC0415 - only this command needs it, and --help must not wait for it

    headers = {"authorization": f"Bearer {token}"} if token else {}
    try:
        # neither the environment's proxy nor a redirect: the token is for this instance only
        with (
            httpx2.Client(timeout=_TIMEOUT, trust_env=False) as client,
            client.stream("GET", page, headers=headers) as answer,
        ):
            body, until = bytearray(), time.monotonic() + _TIMEOUT
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
    """The report as text for a terminal."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in _HEADINGS:
        table.add_column(heading, justify="right" if heading in ("latency", "tools") else "left", no_wrap=True)
    for name, state, *rest in found.rows():
        cells = (Text(name, style="bold"), Text(state, style=COLOURS.get(state, "dim")), *map(Text, rest))
        table.add_row(*cells)
    return Group(*([table] if found.servers else []), *(Text(note) for note in found.notes()))


def _row(server: Mapping[str, Any]) -> tuple[str, ...]:
    latency, transport, era = server.get("latency"), _text(server, "transport"), _text(server, "era")
    transport = TRANSPORTS.get(transport, transport)
    return (
        _text(server, "name"),
        _text(server, "state"),
        _text(server, "since"),
        f"{latency:.1f} ms" if isinstance(latency, int | float) else "",
        f"{transport} ({era})" if era else transport,
        _text(server, "tools"),
    )


def _note(server: Mapping[str, Any]) -> str:
    left = server.get("nextAttempt")
    soon = f"; next attempt in {left:.1f} s" if isinstance(left, int | float) else ""
    return f"{_text(server, 'name')}: {_text(server, 'lastError')}{soon}"


def _text(server: Mapping[str, Any], member: str) -> str:
    """A member as text, with control characters escaped: the server may not be ours."""
    value = server.get(member)
    return "" if value is None else visible(str(value))


# --- reload -----------------------------------------------------------------------------------------------------------


@click.command(epilog=EXIT_CODES)
@common
@click.option(
    "--wait",
    type=click.FloatRange(min=0, min_open=True),
    default=_RELOAD_TIMEOUT,
    show_default=True,
    metavar="SECONDS",
    help="How long each instance may take to answer.",
)
@JSON
def reload(invocation: Invocation, wait: float, as_json: bool) -> None:
    """Reload the configuration file in running instances.

    Signals every `serve` and `stdio` that this user started with the file on this machine. Prints what changed in
    each, or why nothing did. Servers whose entry is unchanged keep running.

    \b
    mcp-manifold reload
    mcp-manifold reload -c mcp.json
    """
    if not hasattr(signal, "SIGHUP"):
        raise Failed("reload needs SIGHUP, which this system lacks; instances notice changed files by themselves")
    path = invocation.source or invocation.opening.find()
    if path is None:
        raise Misconfigured("no configuration file found; pass one with --config")
    found = invocation.opening.running(path)
    if not found:
        raise Failed(f"no running instance of this user was started with {path}")
    outcomes = [(instance.pid, _requested(instance, wait)) for instance in found]
    if as_json:
        click.echo(json.dumps([{"pid": pid, **outcome} for pid, outcome in outcomes], indent=2))
    else:
        for pid, outcome in outcomes:
            say(list(_outcome_lines(pid, path, outcome)))
    click.get_current_context().exit(max(_code(outcome) for _, outcome in outcomes))


def _requested(instance: "Instance", wait: float) -> Mapping[str, Any]:
    """The outcome that the instance reports for a reload requested now."""
    before, _ = instance.told()
    try:
        os.kill(instance.pid, signal.SIGHUP)
    except OSError as exc:
        return {"unanswered": f"cannot be signalled: {exc.strerror}"}
    until = time.monotonic() + wait
    while time.monotonic() < until:
        number, outcome = instance.told()
        if number > before:
            return outcome
        if not instance.is_alive:
            return {"unanswered": "exited before it answered"}
        time.sleep(_POLL)
    return {"unanswered": f"did not answer within {wait:g} s; see its log"}


def _outcome_lines(pid: int, path: Path, outcome: Mapping[str, Any]) -> Iterator[str]:
    if "unanswered" in outcome:
        yield f"process {pid} {outcome['unanswered']}"
    elif outcome["error"]:
        yield f"process {pid}: not reloaded, the old configuration stays: {visible_text(outcome['error'])}"
    else:
        yield f"process {pid}: reloaded {path}"
        for group in _GROUPS:
            if outcome[group]:
                yield f"  {group}: {visible(', '.join(outcome[group]))}"
        if outcome["keys"]:
            yield f"  settings changed: {', '.join(outcome['keys'])}"
        for problem in outcome["problems"]:
            yield f"  note: {visible(problem)}"


def _code(outcome: Mapping[str, Any]) -> int:
    if "unanswered" in outcome:
        return FAILED
    return USAGE if outcome["error"] else OK
