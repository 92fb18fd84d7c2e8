"""`mcp-manifold list`: everything that is offered, under its public name."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import click

from mcp_manifold.cli import content, statuses
from mcp_manifold.cli.exits import EXIT_CODES
from mcp_manifold.cli.layout import columns, cut, note, say, width
from mcp_manifold.cli.logs import visible
from mcp_manifold.cli.one_shot import ask
from mcp_manifold.cli.opening import Endpoint, Invocation
from mcp_manifold.cli.options import JSON, WAIT, common, patience

if TYPE_CHECKING:
    from mcp_manifold.core.status import ServerStatus

_LEAST: Final = 20
"""Columns of a description that are worth showing."""


@dataclass(frozen=True, slots=True)
class Listed:
    """One kind of item: what it is called, what identifies it, and all there are, each with its server's name."""

    kind: str
    key: str
    items: tuple[tuple[Mapping[str, Any], str], ...]


@click.command("list", epilog=EXIT_CODES)
@common
@click.option("--tools", is_flag=True, help="Tools.")
@click.option("--prompts", is_flag=True, help="Prompts.")
@click.option("--resources", is_flag=True, help="Resources and resource templates.")
@WAIT
@JSON
def list_(invocation: Invocation, *, wait: float | None, as_json: bool, **kinds: bool) -> None:
    """List the tools, prompts and resources of all servers under their public names.

    \b
    mcp-manifold list
    mcp-manifold list --tools --json
    """
    wanted = {kind for kind, is_wanted in kinds.items() if is_wanted} or set(kinds)

    async def asked(manifold: Endpoint) -> tuple[list[Listed], list[str]]:
        found = await _found(manifold, wanted)
        missing = [statuses.outcome(status) for status in manifold.status() if not statuses.is_fine(status)]
        return found, missing

    found, missing = ask(invocation.manifold(patience(wait)), asked)
    say([content.as_json(as_object(found))] if as_json else lines(found, width()))
    for line in missing:
        note(f"not listed: {line}")


async def _found(manifold: Endpoint, wanted: set[str]) -> list[Listed]:
    found: list[Listed] = []
    if "tools" in wanted:
        found.append(attributed("tools", "name", await manifold.list_tools(), manifold.status()))
    if "prompts" in wanted:
        found.append(attributed("prompts", "name", await manifold.list_prompts(), manifold.status()))
    if "resources" in wanted:
        found.append(attributed("resources", "uri", await manifold.list_resources(), manifold.status()))
        templates = await manifold.list_resource_templates()
        found.append(attributed("templates", "uriTemplate", templates, manifold.status()))
    return found


def attributed(kind: str, key: str, items: Sequence[Mapping[str, Any]], servers: "Sequence[ServerStatus]") -> Listed:
    """The items with their servers: a merged list has those of the first server first, then those of the next.

    Where the counts do not add up, because something changed in between, no item is given a server.
    """
    owners = [server.name for server in servers for _ in range(getattr(server, kind))]
    if len(owners) != len(items):
        owners = [""] * len(items)
    return Listed(kind, key, tuple(zip(items, owners, strict=True)))


def lines(found: Sequence[Listed], columns_wide: int) -> list[str]:
    """The lists for people; descriptions cut to the width."""
    out: list[str] = []
    for listed in found:
        if not listed.items:
            continue
        rows = [_row(item, owner, listed.key) for item, owner in listed.items]
        heads = columns([row[:3] for row in rows])
        out += ["", f"{_TITLES[listed.kind]} ({len(rows)})"] if out else [f"{_TITLES[listed.kind]} ({len(rows)})"]
        for head, (*_, description) in zip(heads, rows, strict=True):
            out.append(head)
            if description:
                out.append("      " + cut(description, max(columns_wide - 6, _LEAST) if columns_wide else 0))
    return out or ["Nothing is offered."]


_TITLES: Final = {
    "tools": "Tools",
    "prompts": "Prompts",
    "resources": "Resources",
    "templates": "Resource templates",
}


def _row(item: Mapping[str, Any], owner: str, key: str) -> tuple[str, str, str, str]:
    title = _text(item.get("title")) or (_text(item.get("name")) if key != "name" else "")
    return (_text(item.get(key)), f"[{visible(owner)}]" if owner else "", title, _text(item.get("description")))


def _text(value: object) -> str:
    """A member of a server's item on one line."""
    return visible(" ".join(value.split())) if isinstance(value, str) else ""


def as_object(found: Sequence[Listed]) -> dict[str, object]:
    """The lists for programs: the items as clients get them, next to the names of their servers."""
    names = {"templates": "resourceTemplates"}
    return {
        names.get(listed.kind, listed.kind): [{"server": owner, "item": dict(item)} for item, owner in listed.items]
        for listed in found
    }
