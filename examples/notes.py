"""An MCP server that keeps notes in a directory of Markdown files.

It uses the SDK's low-level `Server`, because its resources change. It lists and reads them, and notifies subscribers of
both eras: handshake clients (resources/subscribe) and 2026-07-28 clients (subscriptions/listen). One process serves one
client over stdio.

    python examples/notes.py --dir ~/notes
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import os
import platform
import re
import signal
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
import mcp_types as types
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel.server import NotificationOptions, Server
from mcp.server.stdio import stdio_server
from mcp.server.subscriptions import InMemorySubscriptionBus, ListenHandler, ResourcesListChanged, ResourceUpdated
from mcp.shared.exceptions import MCPError
from pydantic import BaseModel, ConfigDict, Field, ValidationError

logger = logging.getLogger("notes")

SLUG = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")
MAX_SLUG = 64
MAX_TEXT = 200_000  # characters in one addition
MAX_WATCHED = 1_000  # subscriptions of one client
MAX_EMBEDDED = 20  # notes in one prompt
MAX_COMPLETIONS = 100  # limit of the protocol
SCHEME = "note://"
TEMPLATE = "note://{slug}"
STYLES = ("bullets", "detailed", "short")

Context = ServerRequestContext[dict[str, Any]]


# --- The files -------------------------------------------------------------------------------------------


class NoteError(Exception):
    """A failed request, with a message that the caller can act on."""


@dataclass(frozen=True, slots=True)
class Note:
    """One note, read from its file."""

    slug: str
    title: str
    text: str
    size: int
    modified: datetime

    @property
    def uri(self) -> str:
        """The resource URI of this note."""
        return SCHEME + self.slug


def slug_of(title: str) -> str:
    """A file name for a title, safe on every system. A title without ASCII letters becomes a hash."""
    plain = unicodedata.normalize("NFKD", title).encode("ascii", "ignore").decode().lower()
    slug = re.sub(r"[^a-z0-9]+", "-", plain)[:MAX_SLUG].strip("-")
    return slug or "note-" + hashlib.sha256(title.encode()).hexdigest()[:12]


class NoteDirectory:
    """The notes on disk. Every slug is validated before it becomes a path; symbolic links are never followed."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __repr__(self) -> str:
        return f"<NoteDirectory {self._path}>"

    def slugs(self) -> list[str]:
        """The slugs of all notes, sorted; other files are skipped."""
        if not self._path.is_dir():
            return []
        files = (file for file in self._path.glob("*.md") if file.is_file() and not file.is_symlink())
        return sorted(file.stem for file in files if SLUG.fullmatch(file.stem))

    def read(self, slug: str) -> Note:
        """Read one note.

        Raises:
            NoteError: there is no such note.
        """
        file = self._existing(slug)
        text = file.read_text(encoding="utf-8", errors="replace")
        title = text.partition("\n")[0].removeprefix("#").strip() or slug
        status = file.stat()
        return Note(slug, title, text, status.st_size, datetime.fromtimestamp(status.st_mtime, UTC))

    def create(self, slug: str, text: str) -> None:
        """Write a new note; create the directory if needed."""
        self._path.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            with self._file(slug).open("x", encoding="utf-8", newline="\n") as file:
                file.write(text)
        except FileExistsError as error:
            raise NoteError(f"There is a note '{slug}' already; set append to add to it.") from error

    def append(self, slug: str, text: str) -> None:
        """Append text to a note."""
        with self._existing(slug).open("a", encoding="utf-8", newline="\n") as file:
            file.write(text)

    def delete(self, slug: str) -> None:
        """Remove a note."""
        self._existing(slug).unlink()

    def search(self, query: str) -> list[Note]:
        """The notes that contain every word of the query, ignoring case; all notes for an empty query."""
        words = query.casefold().split()
        notes = (self.read(slug) for slug in self.slugs())
        return [note for note in notes if all(word in note.text.casefold() for word in words)]

    def _file(self, slug: str) -> Path:
        if len(slug) > MAX_SLUG or not SLUG.fullmatch(slug):
            raise NoteError("A slug is made of lower-case letters, digits and single hyphens.")
        return self._path / f"{slug}.md"

    def _existing(self, slug: str) -> Path:
        file = self._file(slug)
        if file.is_symlink() or not file.is_file():
            raise NoteError(f"There is no note '{slug}'.")
        return file


# --- Arguments and results of the tools -------------------------------------------------------------------


class AddNote(BaseModel):
    """Arguments of add_note."""

    model_config = ConfigDict(extra="forbid")
    title: str = Field(min_length=1, max_length=200, pattern=r"^[^\r\n]+$", description="One line.")
    text: str = Field(max_length=MAX_TEXT, description="Markdown.")
    append: bool = Field(default=False, description="Add to the note of that title when there is one.")


class SearchNotes(BaseModel):
    """Arguments of search_notes."""

    model_config = ConfigDict(extra="forbid")
    query: str = Field(default="", max_length=200, description="Words that all have to occur; empty for all notes.")
    limit: int = Field(default=10, ge=1, le=100)


class DeleteNote(BaseModel):
    """Arguments of delete_note."""

    model_config = ConfigDict(extra="forbid")
    slug: str = Field(description="As search_notes gives it.")


class Added(BaseModel):
    """Result of add_note."""

    slug: str
    uri: str
    created: bool


class Match(BaseModel):
    """One note found."""

    slug: str
    title: str
    uri: str
    excerpt: str


class Found(BaseModel):
    """Result of search_notes."""

    total: int = Field(description="How many notes matched, which may be more than are given.")
    matches: list[Match]


class Deleted(BaseModel):
    """Result of delete_note."""

    slug: str
    title: str


READS = types.ToolAnnotations(read_only_hint=True, idempotent_hint=True, open_world_hint=False)
ADDS = types.ToolAnnotations(read_only_hint=False, destructive_hint=False, open_world_hint=False)
DELETES = types.ToolAnnotations(read_only_hint=False, destructive_hint=True, open_world_hint=False)
TOOLS = (
    types.Tool(
        name="add_note",
        title="Add a note",
        description="Write a new note, or add text to an existing one.",
        input_schema=AddNote.model_json_schema(),
        output_schema=Added.model_json_schema(),
        annotations=ADDS,
    ),
    types.Tool(
        name="search_notes",
        title="Search the notes",
        description="Find notes by the words in them.",
        input_schema=SearchNotes.model_json_schema(),
        output_schema=Found.model_json_schema(),
        annotations=READS,
    ),
    types.Tool(
        name="delete_note",
        title="Delete a note",
        description="Delete a note for good.",
        input_schema=DeleteNote.model_json_schema(),
        output_schema=Deleted.model_json_schema(),
        annotations=DELETES,
    ),
)

PROMPT = types.Prompt(
    name="summarise_notes",
    title="Summarise notes",
    description="Ask for a summary of the notes about a topic.",
    arguments=[
        types.PromptArgument(name="topic", description="Words that all have to occur; all notes without it."),
        types.PromptArgument(name="style", description=f"One of {', '.join(STYLES)}; 'short' without it."),
    ],
)


# --- The protocol -----------------------------------------------------------------------------------------


class NoteHandlers:
    """The request handlers, and the URIs that the client has subscribed to."""

    def __init__(self, directory: NoteDirectory, bus: InMemorySubscriptionBus) -> None:
        self._directory = directory
        self._bus = bus
        self._watched: set[str] = set()

    def __repr__(self) -> str:
        return f"<NoteHandlers of {self._directory!r}, {len(self._watched)} watched>"

    async def list_tools(self, _ctx: Context, _params: object) -> types.ListToolsResult:
        """Answer tools/list."""
        return types.ListToolsResult(tools=list(TOOLS))

    async def call_tool(self, ctx: Context, params: types.CallToolRequestParams) -> types.CallToolResult:
        """Answer tools/call. An error that the model can correct is a result with isError, not a protocol error."""
        arguments = params.arguments or {}
        try:
            match params.name:
                case "add_note":
                    return await self._add(ctx, AddNote.model_validate(arguments))
                case "search_notes":
                    return self._search(SearchNotes.model_validate(arguments))
                case "delete_note":
                    return await self._delete(ctx, DeleteNote.model_validate(arguments))
                case _:
                    raise MCPError(types.INVALID_PARAMS, f"Unknown tool: {params.name}")
        except ValidationError as error:
            return failed("; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()))
        except NoteError as error:
            return failed(str(error))
        except OSError as error:
            logger.warning("the notes cannot be read or written: %s", error)
            return failed(f"The notes cannot be read or written: {error.strerror}.")

    async def _add(self, ctx: Context, wanted: AddNote) -> types.CallToolResult:
        slug = slug_of(wanted.title)
        exists = slug in self._directory.slugs()
        if exists and wanted.append:
            self._directory.append(slug, f"\n{wanted.text}\n")
        else:
            self._directory.create(slug, f"# {wanted.title.strip()}\n\n{wanted.text}\n")
            await self._announce_list(ctx)
        note = self._directory.read(slug)
        await self._announce_update(ctx, note.uri)
        words = f"{'Added to' if exists else 'Wrote'} '{note.title}'."
        return succeeded(words, Added(slug=slug, uri=note.uri, created=not exists), [note])

    def _search(self, wanted: SearchNotes) -> types.CallToolResult:
        notes = self._directory.search(wanted.query)
        given = notes[: wanted.limit]
        matches = [Match(slug=n.slug, title=n.title, uri=n.uri, excerpt=excerpt(n, wanted.query)) for n in given]
        return succeeded(f"Notes that match: {len(notes)}.", Found(total=len(notes), matches=matches), given)

    async def _delete(self, ctx: Context, wanted: DeleteNote) -> types.CallToolResult:
        note = self._directory.read(wanted.slug)
        self._directory.delete(note.slug)
        await self._announce_list(ctx)
        await self._announce_update(ctx, note.uri)
        return succeeded(f"Deleted '{note.title}'.", Deleted(slug=note.slug, title=note.title), [])

    async def list_resources(self, _ctx: Context, _params: object) -> types.ListResourcesResult:
        """Answer resources/list: one resource per note."""
        notes = self._directory.search("")
        return types.ListResourcesResult(resources=[types.Resource(**described(note)) for note in notes])

    async def list_templates(self, _ctx: Context, _params: object) -> types.ListResourceTemplatesResult:
        """Answer resources/templates/list."""
        template = types.ResourceTemplate(
            name="note", title="A note", uri_template=TEMPLATE, description="One note.", mime_type="text/markdown"
        )
        return types.ListResourceTemplatesResult(resource_templates=[template])

    async def read_resource(self, _ctx: Context, params: types.ReadResourceRequestParams) -> types.ReadResourceResult:
        """Answer resources/read."""
        return types.ReadResourceResult(contents=[contents_of(self._note_at(params.uri))])

    async def subscribe(self, _ctx: Context, params: types.SubscribeRequestParams) -> types.EmptyResult:
        """Answer resources/subscribe of handshake clients."""
        if len(self._watched) >= MAX_WATCHED:
            raise MCPError(types.INVALID_PARAMS, f"At most {MAX_WATCHED} subscriptions")
        self._watched.add(self._note_at(params.uri).uri)
        return types.EmptyResult()

    async def unsubscribe(self, _ctx: Context, params: types.UnsubscribeRequestParams) -> types.EmptyResult:
        """Answer resources/unsubscribe."""
        self._watched.discard(params.uri)
        return types.EmptyResult()

    async def list_prompts(self, _ctx: Context, _params: object) -> types.ListPromptsResult:
        """Answer prompts/list."""
        return types.ListPromptsResult(prompts=[PROMPT])

    async def get_prompt(self, _ctx: Context, params: types.GetPromptRequestParams) -> types.GetPromptResult:
        """Answer prompts/get: the request as text, then the notes."""
        arguments = params.arguments or {}
        topic, style = arguments.get("topic", ""), arguments.get("style", "short")
        if params.name != PROMPT.name or style not in STYLES:
            raise MCPError(types.INVALID_PARAMS, f"No prompt '{params.name}' in style '{style}'")
        notes = self._directory.search(topic)[:MAX_EMBEDDED]
        about = f" about {topic}" if topic else ""
        ask = f"Summarise the notes below{about} ({style})." if notes else f"There are no notes{about}."
        blocks: list[types.ContentBlock] = [types.TextContent(text=ask)]
        blocks += [types.EmbeddedResource(resource=contents_of(note)) for note in notes]
        return types.GetPromptResult(messages=[types.PromptMessage(role="user", content=block) for block in blocks])

    async def complete(self, _ctx: Context, params: types.CompleteRequestParams) -> types.CompleteResult:
        """Answer completion/complete for the template's slug and the prompt's arguments."""
        typed = params.argument.value.lower()
        match params.ref, params.argument.name:
            case types.ResourceTemplateReference(uri="note://{slug}"), "slug":
                known = self._directory.slugs()
            case types.PromptReference(name="summarise_notes"), "topic":
                known = sorted({word for slug in self._directory.slugs() for word in slug.split("-")})
            case types.PromptReference(name="summarise_notes"), "style":
                known = list(STYLES)
            case _:
                known = []
        fit = [value for value in known if value.startswith(typed)]
        some = fit[:MAX_COMPLETIONS]
        return types.CompleteResult(
            completion=types.Completion(values=some, total=len(fit), has_more=len(some) < len(fit))
        )

    def _note_at(self, uri: str) -> Note:
        try:
            return self._directory.read(uri.removeprefix(SCHEME) if uri.startswith(SCHEME) else "")
        except NoteError as error:
            raise MCPError(types.INVALID_PARAMS, f"Unknown resource: {uri}", {"uri": uri}) from error

    # Each change is sent twice, once per era. The session drops it for 2026-07-28 clients, and the bus has no
    # subscriber for handshake clients.

    async def _announce_list(self, ctx: Context) -> None:
        await ctx.session.send_resource_list_changed()
        await self._bus.publish(ResourcesListChanged())

    async def _announce_update(self, ctx: Context, uri: str) -> None:
        if uri in self._watched:
            await ctx.session.send_resource_updated(uri)
        await self._bus.publish(ResourceUpdated(uri=uri))


def described(note: Note) -> dict[str, Any]:
    """The members that a resource and a link to it have in common."""
    return {
        "uri": note.uri,
        "name": note.slug,
        "title": note.title,
        "mime_type": "text/markdown",
        "size": note.size,
        "annotations": types.Annotations(last_modified=note.modified.isoformat(timespec="seconds")),
    }


def contents_of(note: Note) -> types.TextResourceContents:
    """The note as resource contents."""
    return types.TextResourceContents(uri=note.uri, mime_type="text/markdown", text=note.text)


def excerpt(note: Note, query: str) -> str:
    """The first line with a word of the query, or else the first line of the body."""
    words = query.casefold().split()
    lines = [line.strip() for line in note.text.splitlines()[1:] if line.strip()]
    hits = (line for line in lines if any(word in line.casefold() for word in words))
    return next(hits, lines[0] if lines else "")[:200]


def succeeded(words: str, result: BaseModel, links: Sequence[Note]) -> types.CallToolResult:
    """A result with text, structured content, and a link to each note."""
    content: list[types.ContentBlock] = [types.TextContent(text=words)]
    content += [types.ResourceLink(**described(note)) for note in links]
    return types.CallToolResult(content=content, structured_content=result.model_dump(mode="json"))


def failed(words: str) -> types.CallToolResult:
    """An error result that the model can correct."""
    return types.CallToolResult(content=[types.TextContent(text=words)], is_error=True)


def notes_server(directory: NoteDirectory) -> Server[dict[str, Any]]:
    """The server for one directory."""
    bus = InMemorySubscriptionBus()
    notes = NoteHandlers(directory, bus)
    return Server(
        "notes",
        version="1.0.0",
        title="Notes",
        instructions="Keeps short Markdown notes. Search before adding: a title can be used once.",
        on_list_tools=notes.list_tools,
        on_call_tool=notes.call_tool,
        on_list_resources=notes.list_resources,
        on_list_resource_templates=notes.list_templates,
        on_read_resource=notes.read_resource,
        on_subscribe_resource=notes.subscribe,
        on_unsubscribe_resource=notes.unsubscribe,
        on_subscriptions_listen=ListenHandler(bus),
        on_list_prompts=notes.list_prompts,
        on_get_prompt=notes.get_prompt,
        on_completion=notes.complete,
    )


async def serve(directory: NoteDirectory) -> None:
    """Serve one client over stdin and stdout until stdin ends."""
    server = notes_server(directory)
    options = server.create_initialization_options(NotificationOptions(resources_changed=True))
    async with stdio_server() as (incoming, outgoing):
        await server.run(incoming, outgoing, options)


def default_directory() -> Path:
    """The default directory of the user's notes."""
    home = Path.home()
    match platform.system():
        case "Windows":
            data = Path(os.environ.get("LOCALAPPDATA", home / "AppData" / "Local"))
        case "Darwin":
            data = home / "Library" / "Application Support"
        case _:
            data = Path(os.environ.get("XDG_DATA_HOME", home / ".local" / "share"))
    return data / "mcp-notes"


def main() -> None:
    """Parse the arguments and serve."""
    parser = argparse.ArgumentParser(description="An MCP server that keeps notes as Markdown files (stdio).")
    parser.add_argument(
        "--dir",
        type=Path,
        default=default_directory(),
        help="directory of the notes, created on the first write (%(default)s)",
    )
    arguments = parser.parse_args()
    logging.basicConfig(
        level=logging.INFO, format="%(name)s: %(message)s"
    )  # to stderr, because stdout carries the protocol
    logger.info("serving the notes in %s", arguments.dir)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # otherwise Ctrl-C waits for one more line of input
    anyio.run(serve, NoteDirectory(arguments.dir.expanduser()))


if __name__ == "__main__":
    main()
