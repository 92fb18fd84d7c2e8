"""`mcp-manifold list`, `call`, `read` and `prompt`: one request to the servers, and its result as text."""

import base64
import binascii
import json
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from mcp_manifold.cli import statuses
from mcp_manifold.cli.exits import EXIT_CODES, FAILED, Failed, did_you_mean
from mcp_manifold.cli.invocation import JSON, PATIENCE, WAIT, Invocation, common, patience
from mcp_manifold.cli.output import columns, cut, is_terminal, note, say, say_as_it_came, size, visible, width
from mcp_manifold.cli.running import run
from mcp_manifold.errors import UnknownItem

if TYPE_CHECKING:
    from mcp_manifold.app.manifold import Manifold
    from mcp_manifold.core.status import ServerStatus

T = TypeVar("T")

_TITLES: Final = {
    "tools": "Tools",
    "prompts": "Prompts",
    "resources": "Resources",
    "templates": "Resource templates",
}
_NARROWEST: Final = 20
"""Columns that a description gets at least."""


# --- one request ------------------------------------------------------------------------------------------------------


def ask(invocation: Invocation, overrides: Mapping[str, object], request: Callable[["Manifold"], Awaitable[T]]) -> T:
    """Start the servers, wait until each was tried once, make the request, and stop them.

    Logs only errors, unless an option says otherwise: the command says itself which servers are unavailable.
    """
    manifold = invocation.manifold(overrides)
    invocation.log_at("error")

    async def asked() -> T:
        async with manifold:
            await statuses.waited_for(manifold, manifold.settle())
            return await request(manifold)

    return run(asked())


def result_of(
    invocation: Invocation, wait: float | None, request: Callable[["Manifold"], Awaitable[dict[str, Any]]]
) -> dict[str, Any]:
    """The result of a request for one item.

    Raises:
        Failed: no visible item has that name; the message suggests similar names and names unavailable servers.
    """

    async def asked(manifold: "Manifold") -> dict[str, Any]:
        try:
            return await request(manifold)
        except UnknownItem as exc:
            sections = await _sections(manifold, {f"{exc.kind}s"})
            known = [str(item.get(section.key, "")) for section in sections for item, _ in section.items]
            hint = did_you_mean(exc.name, known) or f" See: mcp-manifold list --{exc.kind}s"
            raise Failed("\n".join([f"{exc}.{hint}", *unavailable(manifold)])) from exc

    return ask(invocation, patience(wait), asked)


def unavailable(manifold: "Manifold") -> list[str]:
    """A sentence for each server that cannot be used."""
    return [statuses.outcome(status) for status in manifold.status() if not statuses.is_fine(status)]


def tool_arguments(text: str | None, pairs: Sequence[str], stdin: Callable[[], str]) -> dict[str, Any]:
    """The arguments of a tool: a JSON object (`-`: from stdin), overridden by `key=value` pairs.

    Raises:
        click.UsageError: the text is not a JSON object, or a pair has no `=`.
    """
    whole = "" if text is None else stdin() if text == "-" else text
    try:
        found = json.loads(whole) if whole.strip() else {}
    except ValueError as exc:
        raise click.UsageError(f"The arguments are not valid JSON: {exc}") from None
    if not isinstance(found, dict):
        raise click.UsageError('The arguments must be a JSON object, such as \'{"text": "milk"}\'.')
    return found | {key: _value(value) for key, value in map(_pair, pairs)}


def prompt_arguments(pairs: Sequence[str]) -> dict[str, str]:
    """The arguments of a prompt, always strings.

    Raises:
        click.UsageError: a pair has no `=`.
    """
    return dict(map(_pair, pairs))


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise click.UsageError(f'Expected --arg KEY=VALUE, not "{text}".')
    return key, value


def _value(text: str) -> Any:
    """The JSON value of `text`; `text` itself when it is not JSON."""
    try:
        return json.loads(text, parse_constant=_refuse)
    except ValueError:
        return text


def _refuse(constant: str) -> None:
    """Python accepts `NaN` and `Infinity`, which are not JSON."""
    raise ValueError(constant)


# --- call, read, prompt -----------------------------------------------------------------------------------------------


@click.command(epilog=EXIT_CODES)
@common
@click.argument("tool")
@click.argument("arguments", required=False)
@click.option("--arg", "pairs", multiple=True, metavar="KEY=VALUE", help="One argument: a JSON value, or else text.")
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

    Prints text content, and describes other content. Progress goes to stderr. A result that is an error is printed as
    well, and the exit code is 1.

    \b
    mcp-manifold call notes__add_note '{"title": "shopping", "text": "milk"}'
    mcp-manifold call convert__convert_units --arg amount=3 --arg unit=mile --arg target=km
    """
    given = tool_arguments(arguments, pairs, sys.stdin.read)

    def request(manifold: "Manifold") -> Awaitable[dict[str, Any]]:
        return manifold.call_tool(tool, given, on_progress=lambda params: note(progress_line(params)))

    result = result_of(invocation, wait, request)
    say_as_it_came(as_text(result) if as_json else result_text(result))
    if result.get("isError"):
        context.exit(FAILED)


def progress_line(params: dict[str, Any]) -> str:
    """A progress notification as a line of text: `progress 3/10 reading`."""
    total = f"/{_number(params['total'])}" if params.get("total") is not None else ""
    message = f" {params['message']}" if params.get("message") else ""
    return visible(f"progress {_number(params.get('progress', '?'))}{total}{message}")


def _number(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


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

    Binary contents are decoded: to --output, or to stdout unless that is a terminal.

    \b
    mcp-manifold read units://all
    mcp-manifold read screenshot://latest --output latest.png
    """
    result = result_of(invocation, wait, lambda manifold: manifold.read_resource(uri))
    if as_json:
        say_as_it_came(as_text(result))
    else:
        _deliver(list(result.get("contents") or []), output)


def _deliver(contents: list[object], output: Path | None) -> None:
    is_binary = any(isinstance(item, Mapping) and "blob" in item for item in contents)
    if output is None and (is_terminal() or not is_binary):
        say_as_it_came("\n".join(contents_text(item) for item in contents))
        return
    try:
        data = contents_bytes(contents)
    except ValueError as exc:
        raise Failed(f"cannot decode the contents: {exc}") from exc
    if output is None:
        click.echo(data, nl=False)
        return
    try:
        output.write_bytes(data)
    except OSError as exc:
        raise Failed(f"cannot write {output}: {exc.strerror}") from exc
    note(f"{output}: {size(len(data))}")


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
    result = result_of(invocation, wait, lambda manifold: manifold.get_prompt(name, given))
    say_as_it_came(as_text(result) if as_json else messages_text(result))


# --- results as text --------------------------------------------------------------------------------------------------


def as_text(value: object) -> str:
    """JSON in ASCII, so that nothing in it can drive a terminal."""
    return json.dumps(value, indent=2)


def result_text(result: Mapping[str, Any]) -> str:
    """The content of a tool's result; its structured content as JSON when there is no other."""
    content = result.get("content")
    if isinstance(content, list) and content:
        return "\n".join(block_text(block) for block in content)
    if "structuredContent" in result:
        return as_text(result["structuredContent"])
    return "" if content == [] else as_text(result)


def block_text(block: object) -> str:
    """One content block: its text, or a description in brackets."""
    if not isinstance(block, Mapping):
        return as_text(block)
    match block.get("type"):
        case "text":
            return str(block.get("text", ""))
        case "image" | "audio" as kind:
            return f"[{kind}: {_described(block.get('mimeType'), block.get('data'))}]"
        case "resource_link":
            name = block.get("title") or block.get("name")
            return f"[link: {block.get('uri', '')}{f' ({name})' if name else ''}]"
        case "resource":
            return contents_text(block.get("resource"))
        case _:
            return as_text(block)


def contents_text(contents: object) -> str:
    """One of a resource's contents: its text, or a description in brackets."""
    if not isinstance(contents, Mapping):
        return as_text(contents)
    if isinstance(contents.get("text"), str):
        return str(contents["text"])
    return f"[{contents.get('uri', 'resource')}: {_described(contents.get('mimeType'), contents.get('blob'))}]"


def contents_bytes(contents: Sequence[object]) -> bytes:
    """A resource's contents, decoded and joined.

    Raises:
        ValueError: a blob is not base64, or an item has neither text nor blob.
    """
    return b"".join(_bytes(item) for item in contents)


def messages_text(result: Mapping[str, Any]) -> str:
    """A prompt's messages, each below its role."""
    messages = result.get("messages")
    if not isinstance(messages, list):
        return as_text(result)
    return "\n\n".join(_message(message) for message in messages)


def _message(message: object) -> str:
    if not isinstance(message, Mapping):
        return as_text(message)
    content = message.get("content")
    blocks = content if isinstance(content, list) else [content]
    return f"{message.get('role', '?')}:\n" + "\n".join(block_text(block) for block in blocks)


def _bytes(item: object) -> bytes:
    if isinstance(item, Mapping) and isinstance(item.get("text"), str):
        return str(item["text"]).encode(errors="surrogatepass")
    if isinstance(item, Mapping) and isinstance(item.get("blob"), str):
        return base64.b64decode(item["blob"], validate=True)
    raise ValueError("the server sent contents that are neither text nor a blob")


def _described(mime: object, data: object) -> str:
    kind = mime if isinstance(mime, str) and mime else "unknown type"
    try:
        return f"{kind}, {size(len(base64.b64decode(data if isinstance(data, str) else '', validate=True)))}"
    except (binascii.Error, ValueError):
        return f"{kind}, invalid base64"


# --- list -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Section:
    """The items of one kind, each with the name of its server. `key` is the member that identifies an item."""

    kind: str
    key: str
    items: tuple[tuple[Mapping[str, Any], str], ...]


@click.command("list", epilog=EXIT_CODES)
@common
@click.option("--tools", is_flag=True, help="Only tools.")
@click.option("--prompts", is_flag=True, help="Only prompts.")
@click.option("--resources", is_flag=True, help="Only resources and resource templates.")
@WAIT
@JSON
def list_(invocation: Invocation, *, wait: float | None, as_json: bool, **kinds: bool) -> None:
    """List the tools, prompts and resources of all servers under their public names.

    \b
    mcp-manifold list
    mcp-manifold list --tools --json
    """
    wanted = {kind for kind, is_wanted in kinds.items() if is_wanted} or set(kinds)

    async def asked(manifold: "Manifold") -> tuple[list[Section], list[str]]:
        return await _sections(manifold, wanted), unavailable(manifold)

    found, missing = ask(invocation, patience(wait, PATIENCE), asked)
    say([as_text(as_object(found))] if as_json else lines(found, width()))
    for line in missing:
        note(f"not listed: {line}")


async def _sections(manifold: "Manifold", wanted: set[str]) -> list[Section]:
    found: list[Section] = []
    if "tools" in wanted:
        found.append(attributed("tools", "name", await manifold.list_tools(), manifold.status()))
    if "prompts" in wanted:
        found.append(attributed("prompts", "name", await manifold.list_prompts(), manifold.status()))
    if "resources" in wanted:
        found.append(attributed("resources", "uri", await manifold.list_resources(), manifold.status()))
        templates = await manifold.list_resource_templates()
        found.append(attributed("templates", "uriTemplate", templates, manifold.status()))
    return found


def attributed(kind: str, key: str, items: Sequence[Mapping[str, Any]], servers: "Sequence[ServerStatus]") -> Section:
    """The items, each with the name of its server: a merged list is in the order of the servers.

    When the counts do not match, because a list changed in between, no item gets a server.
    """
    owners = [server.name for server in servers for _ in range(getattr(server, kind))]
    if len(owners) != len(items):
        owners = [""] * len(items)
    return Section(kind, key, tuple(zip(items, owners, strict=True)))


def lines(found: Sequence[Section], columns_wide: int) -> list[str]:
    """The sections as lines for people, with descriptions cut to `columns_wide`, unless that is 0."""
    out: list[str] = []
    for section in found:
        if not section.items:
            continue
        rows = [_row(item, owner, section.key) for item, owner in section.items]
        heads = columns([row[:3] for row in rows])
        out += [*([""] if out else []), f"{_TITLES[section.kind]} ({len(rows)})"]
        for head, (*_, description) in zip(heads, rows, strict=True):
            out.append(head)
            if description:
                out.append("      " + cut(description, max(columns_wide - 6, _NARROWEST) if columns_wide else 0))
    return out or ["No tools, prompts or resources."]


def _row(item: Mapping[str, Any], owner: str, key: str) -> tuple[str, str, str, str]:
    title = _text(item.get("title")) or (_text(item.get("name")) if key != "name" else "")
    return (_text(item.get(key)), f"[{visible(owner)}]" if owner else "", title, _text(item.get("description")))


def _text(value: object) -> str:
    """A string on one line, with control characters escaped; empty for other values."""
    return visible(" ".join(value.split())) if isinstance(value, str) else ""


def as_object(found: Sequence[Section]) -> dict[str, object]:
    """The sections as an object for programs: each item as clients get it, with the name of its server."""
    names = {"templates": "resourceTemplates"}
    return {
        names.get(section.kind, section.kind): [{"server": owner, "item": dict(item)} for item, owner in section.items]
        for section in found
    }
