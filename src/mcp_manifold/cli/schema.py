"""`mcp-manifold schema`: the JSON Schema of the configuration file, for editors and checks."""

import json

import click

from mcp_manifold.cli.exits import EXIT_CODES
from mcp_manifold.cli.invocation import Invocation, common
from mcp_manifold.cli.output import say


@click.command(epilog=EXIT_CODES)
@common
def schema(invocation: Invocation) -> None:
    """Print the JSON Schema of the configuration file.

    \b
    mcp-manifold schema > mcp-manifold.schema.json
    """
    say([json.dumps(invocation.opening.schema(), indent=2)])
