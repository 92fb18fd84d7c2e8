"""`mcp-manifold check` and `schema`: validates the configuration, tries its servers, and prints its JSON Schema."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import click

from mcp_manifold.cli import statuses
from mcp_manifold.cli.exits import EXIT_CODES, FAILED, OK, USAGE
from mcp_manifold.cli.invocation import JSON, PATIENCE, WAIT, Invocation, common, patience
from mcp_manifold.cli.output import counted, say, visible
from mcp_manifold.cli.running import run
from mcp_manifold.clock import LoopClock
from mcp_manifold.errors import ConfigError, ConfigProblem

if TYPE_CHECKING:
    from mcp_manifold.app.manifold import Manifold
    from mcp_manifold.config import Settings
    from mcp_manifold.core.status import ServerStatus


@dataclass(frozen=True, slots=True)
class Findings:
    """The result of connecting to every server; `took` is in seconds, by name."""

    servers: "tuple[ServerStatus, ...]"
    problems: tuple[str, ...]
    took: Mapping[str, float]

    @property
    def has_no_problems(self) -> bool:
        """Whether every enabled server is ready."""
        return all(statuses.is_fine(server) for server in self.servers)


@click.command(epilog=EXIT_CODES)
@common
@click.option("--live", is_flag=True, help="Start and connect to every server, and check_report on each.")
@WAIT
@JSON
@click.pass_context
def check(context: click.Context, invocation: Invocation, live: bool, wait: float | None, as_json: bool) -> None:
    """Check the configuration; with --live, every server in it.

    \b
    mcp-manifold check -c mcp.json          reports all problems of the file; starts no server
    mcp-manifold check -c mcp.json --live   connects to every server, and reports what it offers or why it fails
    """
    try:
        settings = invocation.settings()
        settings = settings.model_copy(update={"problems": (*settings.problems, *_use_problems(invocation, settings))})
        findings = run(_look(_quiet(invocation, patience(wait, PATIENCE)))) if live else None
    except ConfigError as exc:
        if not as_json:
            raise
        say([json.dumps({"ok": False, "error": str(exc), "diagnostics": _objects(exc.problems)}, indent=2)])
        context.exit(USAGE)
    if as_json:
        say([json.dumps(check_object(settings, findings), indent=2)])
    else:
        say(check_report(settings, findings))
    context.exit(OK if has_no_problems(settings, findings) else FAILED)


def _use_problems(invocation: Invocation, settings: "Settings") -> Iterator[ConfigProblem]:
    """Why a valid file may be of no use, as warnings. It may be for `stdio`, or for `serve` with other flags."""
    if not settings.broken and all(server.disabled for server in settings.servers):
        yield ConfigProblem("no server is enabled, so there is nothing to offer", "warning", file=settings.source)
    reason = invocation.opening.listening_problem(settings)
    if reason:
        yield ConfigProblem(f"`serve` with this file: {reason}", "warning")


def _quiet(invocation: Invocation, overrides: Mapping[str, object]) -> "Manifold":
    """The Manifold, which logs only errors unless an option says otherwise."""
    manifold = invocation.manifold(overrides)
    invocation.log_at("error")
    return manifold


async def _look(manifold: "Manifold") -> Findings:
    """Connect to every server, and collect the results."""
    elapsed, took = LoopClock().stopwatch, dict[str, float]()
    began = elapsed()

    def moved(name: str) -> None:
        if not is_over and any(s.name == name and not statuses.is_pending(s) for s in manifold.status()):
            took.setdefault(name, elapsed() - began)

    is_over = False
    manifold.on_status(moved)
    async with manifold:
        try:
            await statuses.waited_for(manifold, manifold.wake())
            return Findings(tuple(manifold.status()), manifold.problems(), took)
        finally:
            is_over = True  # from here on they are being stopped


def has_no_problems(settings: "Settings", findings: Findings | None) -> bool:
    """Whether the configuration and its servers need no repair."""
    return not settings.broken and (findings is None or findings.has_no_problems)


def check_report(settings: "Settings", findings: Findings | None) -> list[str]:
    """The outcome as lines of text."""
    disabled = sum(1 for server in settings.servers if server.disabled)
    enabled = len(settings.servers) - disabled
    verdict = "not ok" if not has_no_problems(settings, findings) else "ok" if enabled else "empty"
    lines = [f"{verdict}: {counted(enabled, 'server')}, {disabled} disabled, in {visible(settings.source)}"]
    lines += [f"warning: {visible(warning)}" for warning in settings.warnings]
    if findings is None:
        return lines + [f"broken: {visible(str(each))}" for each in settings.problems if each.severity == "broken"]
    for server in findings.servers:
        lines += statuses.report(server, findings.took.get(server.name))
    return lines + [f"note: {visible(problem)}" for problem in findings.problems]


def check_object(settings: "Settings", findings: Findings | None) -> dict[str, object]:
    """The outcome as a JSON object."""
    found: dict[str, object] = {
        "ok": has_no_problems(settings, findings),
        "source": settings.source,
        "warnings": list(settings.warnings),
        "broken": [asdict(broken) for broken in settings.broken],
        "diagnostics": _objects(settings.problems),
    }
    if findings is None:
        found["servers"] = [{"name": server.name, "disabled": server.disabled} for server in settings.servers]
        return found
    found["servers"] = [_server_object(server, findings.took.get(server.name)) for server in findings.servers]
    found["problems"] = list(findings.problems)
    return found


def _objects(problems: Iterable[ConfigProblem]) -> list[dict[str, object]]:
    """Each problem with its `severity`, `what`, `remedy`, `file`, `line`, `column`, `key` and `server`."""
    return [asdict(problem) for problem in problems]


def _server_object(status: "ServerStatus", took: float | None) -> dict[str, object]:
    return {
        "name": status.name,
        "state": status.state,
        "transport": status.transport,
        "era": status.era,
        "version": status.version,
        "tools": status.tools,
        "resources": status.resources,
        "resourceTemplates": status.templates,
        "prompts": status.prompts,
        "hidden": status.hidden,
        "seconds": None if took is None else round(took, 3),
        "error": "" if statuses.is_fine(status) else status.last_error,
        "remedy": statuses.remedy(status),
        "stderr": [] if statuses.is_fine(status) else list(status.stderr[-statuses.STDERR_SHOWN :]),
    }


@click.command(epilog=EXIT_CODES)
@common
def schema(invocation: Invocation) -> None:
    """Print the JSON Schema of the configuration file.

    \b
    mcp-manifold schema > mcp-manifold.schema.json
    """
    say([json.dumps(invocation.opening.schema(), indent=2)])
