"""`mcp-manifold reload`: has running instances take over the configuration file as it is now; tells what came of it."""

import json
import os
import signal
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from mcp_manifold.cli.exits import EXIT_CODES, FAILED, OK, USAGE, Failed, Misconfigured
from mcp_manifold.cli.layout import say
from mcp_manifold.cli.logs import visible, visible_text
from mcp_manifold.cli.opening import Invocation
from mcp_manifold.cli.options import JSON, common

if TYPE_CHECKING:
    from mcp_manifold.config.state_directory import Instance

_STEP: Final = 0.05
_WAIT: Final = 30.0
_GROUPS: Final = ("added", "removed", "changed", "unchanged")


@click.command(epilog=EXIT_CODES)
@common
@click.option(
    "--wait",
    type=click.FloatRange(min=0, min_open=True),
    default=_WAIT,
    show_default=True,
    metavar="SECONDS",
    help="How long each may take to answer.",
)
@JSON
def reload(invocation: Invocation, wait: float, as_json: bool) -> None:
    """Have what runs take over the configuration file as it is now.

    Asks every `serve` and `stdio` of this user on this machine that was started with the file, and prints what changed
    there, or why nothing did. Servers whose entry is the same are not touched.

    \b
    mcp-manifold reload
    mcp-manifold reload -c mcp.json
    """
    if not hasattr(signal, "SIGHUP"):
        raise Failed("this system has no signal to ask with; changes of the file are noticed without being asked")
    path = invocation.source or invocation.opening.find()
    if path is None:
        raise Misconfigured("There is no configuration file; name one with --config.")
    found = invocation.opening.running(path)
    if not found:
        raise Failed(f"Nothing that was started with {path} runs here, as this user.")
    outcomes = [(instance.pid, _asked(instance, wait)) for instance in found]
    if as_json:
        click.echo(json.dumps([{"pid": pid, **outcome} for pid, outcome in outcomes], indent=2))
    else:
        for pid, outcome in outcomes:
            say(list(_lines(pid, path, outcome)))
    click.get_current_context().exit(max(_code(outcome) for _, outcome in outcomes))


def _asked(instance: "Instance", wait: float) -> Mapping[str, Any]:
    """What the instance says came of it."""
    before, _ = instance.told()
    try:
        os.kill(instance.pid, signal.SIGHUP)
    except OSError as exc:
        return {"unanswered": f"cannot be asked: {exc.strerror}"}
    until = time.monotonic() + wait
    while time.monotonic() < until:
        number, outcome = instance.told()
        if number > before:
            return outcome
        if not instance.is_alive:
            return {"unanswered": "ended before it answered"}
        time.sleep(_STEP)
    return {"unanswered": f"did not answer within {wait:g} s; its log may say more"}


def _lines(pid: int, path: Path, outcome: Mapping[str, Any]) -> Iterator[str]:
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
