"""`mcp-manifold call`: one tool, once."""

import sys
from typing import Any

import click

from mcp_manifold.cli import content
from mcp_manifold.cli.arguments import tool_arguments
from mcp_manifold.cli.exits import EXIT_CODES, FAILED
from mcp_manifold.cli.layout import note, say_as_it_came
from mcp_manifold.cli.logs import visible
from mcp_manifold.cli.one_shot import ask, or_suggest
from mcp_manifold.cli.opening import Endpoint, Invocation
from mcp_manifold.cli.options import JSON, WAIT, common, patience


@click.command(epilog=EXIT_CODES)
@common
@click.argument("tool")
@click.argument("arguments", required=False)
@click.option("--arg", "pairs", multiple=True, metavar="KEY=VALUE", help="One argument; JSON where it is, else text.")
@WAIT
@JSON
@click.pass_context
def call(
    context: click.Context,
    invocation: Invocation,
    tool: str,
    arguments: str | None,
    pairs: tuple[str, ...],
    wait: float | None,
    as_json: bool,
) -> None:
    """Call TOOL with ARGUMENTS, a JSON object; "-" reads them from stdin.

    Prints the text of the result, and describes what is no text. Progress goes to stderr. A result that is an error
    is printed too, and the exit code is 1.

    \b
    mcp-manifold call notes__add_note '{"title": "shopping", "text": "milk"}'
    mcp-manifold call convert__convert_units --arg amount=3 --arg unit=mile --arg target=km
    """
    given = tool_arguments(arguments, pairs, sys.stdin.read)

    async def asked(manifold: Endpoint) -> dict[str, Any]:
        answer = manifold.call_tool(tool, given, on_progress=lambda params: note(progress_line(params)))
        return await or_suggest(manifold, answer, listers=[(lambda there: there.list_tools(), "name")])

    result = ask(invocation.manifold(patience(wait)), asked)
    say_as_it_came(content.as_json(result) if as_json else content.result_text(result))
    if result.get("isError"):
        context.exit(FAILED)


def progress_line(params: dict[str, Any]) -> str:
    """One progress notification: `progress 3/10 reading`."""
    total = f"/{_number(params['total'])}" if params.get("total") is not None else ""
    message = f" {params['message']}" if params.get("message") else ""
    return visible(f"progress {_number(params.get('progress', '?'))}{total}{message}")


def _number(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
