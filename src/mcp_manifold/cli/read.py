"""`mcp-manifold read`: one resource, to stdout or into a file."""

from pathlib import Path
from typing import Any

import click

from mcp_manifold.cli import content
from mcp_manifold.cli.exits import EXIT_CODES, Failed
from mcp_manifold.cli.layout import is_terminal, note, say_as_it_came, size
from mcp_manifold.cli.one_shot import Lister, ask, or_suggest
from mcp_manifold.cli.opening import Endpoint, Invocation
from mcp_manifold.cli.options import JSON, WAIT, common, patience


@click.command(epilog=EXIT_CODES)
@common
@click.argument("uri")
@click.option(
    "--output", "-o", type=click.Path(path_type=Path, dir_okay=False), help="Write the contents to this file."
)
@WAIT
@JSON
def read(invocation: Invocation, uri: str, output: Path | None, wait: float | None, as_json: bool) -> None:
    """Read the resource URI, and print its text.

    Binary contents are decoded: into --output, or to stdout where that is no terminal.

    \b
    mcp-manifold read units://all
    mcp-manifold read screenshot://latest --output latest.png
    """

    async def asked(manifold: Endpoint) -> dict[str, Any]:
        listers: list[tuple[Lister, str]] = [
            (_resources, "uri"),
            (_templates, "uriTemplate"),
        ]
        return await or_suggest(manifold, manifold.read_resource(uri), listers=listers)

    result = ask(invocation.manifold(patience(wait)), asked)
    if as_json:
        say_as_it_came(content.as_json(result))
    else:
        _deliver(list(result.get("contents") or []), output)


def _deliver(contents: list[object], output: Path | None) -> None:
    if output is not None:
        data = _decoded(contents)
        try:
            output.write_bytes(data)
        except OSError as exc:
            raise Failed(f"cannot write {output}: {exc.strerror}") from exc
        note(f"{output}: {size(len(data))}")
    elif content.is_binary(contents) and not is_terminal():
        click.echo(_decoded(contents), nl=False)
    else:
        say_as_it_came("\n".join(content.contents_text(item) for item in contents))


def _decoded(contents: list[object]) -> bytes:
    try:
        return content.contents_bytes(contents)
    except ValueError as exc:
        raise Failed(f"cannot decode the contents: {exc}") from exc


async def _resources(manifold: Endpoint) -> list[dict[str, Any]]:
    return await manifold.list_resources()


async def _templates(manifold: Endpoint) -> list[dict[str, Any]]:
    return await manifold.list_resource_templates()
