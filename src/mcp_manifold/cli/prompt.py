"""`mcp-manifold prompt`: one prompt, filled in."""

from typing import Any

import click

from mcp_manifold.cli import content
from mcp_manifold.cli.arguments import prompt_arguments
from mcp_manifold.cli.exits import EXIT_CODES
from mcp_manifold.cli.layout import say_as_it_came
from mcp_manifold.cli.one_shot import ask, or_suggest
from mcp_manifold.cli.opening import Endpoint, Invocation
from mcp_manifold.cli.options import JSON, WAIT, common, patience


@click.command(epilog=EXIT_CODES)
@common
@click.argument("name")
@click.option("--arg", "pairs", multiple=True, metavar="KEY=VALUE", help="One argument.")
@WAIT
@JSON
def prompt(invocation: Invocation, name: str, pairs: tuple[str, ...], wait: float | None, as_json: bool) -> None:
    """Get the prompt NAME, and print its messages.

    \b
    mcp-manifold prompt notes__summarise_notes --arg style=bullets
    """
    given = prompt_arguments(pairs)

    async def asked(manifold: Endpoint) -> dict[str, Any]:
        answer = manifold.get_prompt(name, given)
        return await or_suggest(manifold, answer, listers=[(lambda there: there.list_prompts(), "name")])

    result = ask(invocation.manifold(patience(wait)), asked)
    say_as_it_came(content.as_json(result) if as_json else content.messages_text(result))
