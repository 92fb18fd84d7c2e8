"""A client of the Python SDK as an interop client, as far as its releases agree."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import job as program
from mcp import StdioServerParameters
from mcp.client.sse import sse_client
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client

Outcome = dict[str, Any]


def plain(model: Any) -> Outcome:
    """A model as the JSON it stands for."""
    outcome: Outcome = model.model_dump(mode="json", by_alias=True, exclude_none=True)
    return outcome


def transport_to(target: Outcome) -> Any:
    """The transport to a target, which every release names alike."""
    if target["kind"] == "stdio":
        command, *args = target["command"]
        return stdio_client(StdioServerParameters(command=command, args=args, env=target["env"]))
    return (sse_client if target["kind"] == "sse" else streamable_http_client)(target["url"])


class SdkPeer:
    """One open client and who listens for updates.

    Args:
        types: the release's module of protocol types.
        uri: makes a URI of a text, as the release wants it.
    """

    def __init__(self, types: Any, uri: Callable[[str], Any] = str) -> None:
        self.client: Any = None
        self.types = types
        self._uri = uri
        self._seen: Callable[[str], None] | None = None

    async def page(self, method: str, cursor: str | None) -> tuple[Any, str | None]:
        """One page of a list, and the cursor of the next."""
        raise NotImplementedError

    def capabilities(self) -> Any:
        """What the server declared."""
        raise NotImplementedError

    async def listed(self, kind: str) -> list[Outcome]:
        field = {"templates": "resource_templates"}.get(kind, kind)
        if getattr(self.capabilities(), kind.replace("templates", "resources")) is None:
            return []
        found: list[Outcome] = []
        cursor: str | None = None
        while True:
            page, cursor = await self.page("list_" + field, cursor)
            found += plain(page)[{"templates": "resourceTemplates"}.get(kind, kind)]
            if cursor is None:
                return found

    async def call(self, tool: str, arguments: Outcome, progress: program.Progress | None) -> Outcome:
        async def tick(done: float, total: float | None, _message: str | None) -> None:
            if progress is not None:
                await progress(done, total)

        return plain(await self.client.call_tool(tool, arguments, progress_callback=tick if progress else None))

    async def abandoned(self) -> None:
        """Tell the server, where cancelling the awaiting task does not."""

    async def read(self, uri: str) -> Outcome:
        return plain(await self.client.read_resource(self._uri(uri)))

    async def prompt(self, name: str, arguments: dict[str, str]) -> Outcome:
        return plain(await self.client.get_prompt(name, arguments))

    async def complete(self, ref: Outcome, argument: Outcome, context: dict[str, str] | None) -> Outcome:
        kinds = self.types.PromptReference, self.types.ResourceTemplateReference
        reference = kinds[ref["type"] != "ref/prompt"].model_validate(ref)
        return plain(await self.client.complete(reference, argument, context))

    @asynccontextmanager
    async def watching(self, uri: str, seen: Callable[[str], None]) -> AsyncIterator[None]:
        self._seen = seen
        await self.client.subscribe_resource(self._uri(uri))
        yield
        await self.client.unsubscribe_resource(self._uri(uri))

    async def noticed(self, message: Any) -> None:
        notice = getattr(message, "root", message)
        if isinstance(notice, self.types.ResourceUpdatedNotification) and self._seen:
            self._seen(str(notice.params.uri))

    def answering(self, job: Outcome) -> Outcome:
        """The callbacks of a client that answers what it is asked."""

        async def sampled(_context: Any, _params: Any) -> Any:
            answer = {"role": "assistant", "model": "fixed", "stopReason": "endTurn"}
            content = {"type": "text", "text": program.SAMPLED}
            return self.types.CreateMessageResult.model_validate({**answer, "content": content})

        async def elicited(_context: Any, _params: Any) -> Any:
            return self.types.ElicitResult(action="accept", content=dict(program.ANSWERS))

        async def rooted(_context: Any) -> Any:
            return self.types.ListRootsResult.model_validate({"roots": job["roots"]})

        return {
            "sampling_callback": sampled,
            "elicitation_callback": elicited,
            "list_roots_callback": rooted,
            "message_handler": self.noticed,
        }
