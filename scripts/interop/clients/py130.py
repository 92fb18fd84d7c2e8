"""The Python SDK's `ClientSession` of mcp 1.x as an interop client; owns nothing but the translation."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import job as program
from mcp import ClientSession, StdioServerParameters, types
from mcp.client.sse import sse_client
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client
from pydantic import AnyUrl

Outcome = dict[str, Any]


def plain(model: Any) -> Outcome:
    """A model as the JSON it stands for."""
    outcome: Outcome = model.model_dump(mode="json", by_alias=True, exclude_none=True)
    return outcome


class Peer:
    """One initialized `ClientSession`; holds it, its greeting and who listens for updates."""

    def __init__(self) -> None:
        self.session: Any = None
        self.greeting: Any = None
        self._seen: Callable[[str], None] | None = None
        self._last: int | None = None

    def __repr__(self) -> str:
        return f"Peer({'open' if self.greeting else 'new'})"

    def about(self) -> Outcome:
        return {
            "protocol": self.greeting.protocolVersion,
            "server": plain(self.greeting.serverInfo),
            "capabilities": plain(self.greeting.capabilities),
            "instructions": self.greeting.instructions,
        }

    async def listed(self, kind: str) -> list[Outcome]:
        method, field = {"templates": ("resource_templates", "resourceTemplates")}.get(kind, (kind, kind))
        if getattr(self.greeting.capabilities, kind.replace("templates", "resources")) is None:
            return []
        found: list[Outcome] = []
        cursor: str | None = None
        while True:
            page = await getattr(self.session, "list_" + method)(params=types.PaginatedRequestParams(cursor=cursor))
            found += [plain(item) for item in getattr(page, field)]
            cursor = page.nextCursor
            if cursor is None:
                return found

    async def call(self, tool: str, arguments: Outcome, progress: program.Progress | None) -> Outcome:
        async def tick(done: float, total: float | None, _message: str | None) -> None:
            if progress is not None:
                await progress(done, total)

        self._last = self.session._request_id  # the only way to learn the id of the call that is cancelled later
        return plain(await self.session.call_tool(tool, arguments, progress_callback=tick if progress else None))

    async def abandoned(self) -> None:
        """Tell the server: this SDK does not when the awaiting task is cancelled."""
        params = types.CancelledNotificationParams(requestId=self._last, reason="no longer wanted")
        await self.session.send_notification(types.ClientNotification(types.CancelledNotification(params=params)))

    async def read(self, uri: str) -> Outcome:
        return plain(await self.session.read_resource(AnyUrl(uri)))

    async def prompt(self, name: str, arguments: dict[str, str]) -> Outcome:
        return plain(await self.session.get_prompt(name, arguments))

    async def complete(self, ref: Outcome, argument: Outcome, context: dict[str, str] | None) -> Outcome:
        kind = types.PromptReference if ref["type"] == "ref/prompt" else types.ResourceTemplateReference
        return plain(await self.session.complete(kind.model_validate(ref), argument, context))

    @asynccontextmanager
    async def watching(self, uri: str, seen: Callable[[str], None]) -> AsyncIterator[None]:
        self._seen = seen
        await self.session.subscribe_resource(AnyUrl(uri))
        yield
        await self.session.unsubscribe_resource(AnyUrl(uri))

    async def noticed(self, message: Any) -> None:
        notice = getattr(message, "root", message)
        if isinstance(notice, types.ResourceUpdatedNotification) and self._seen:
            self._seen(str(notice.params.uri))


async def sampled(_context: Any, _params: Any) -> types.CreateMessageResult:
    text = types.TextContent(type="text", text=program.SAMPLED)
    return types.CreateMessageResult(role="assistant", content=text, model="fixed", stopReason="endTurn")


async def elicited(_context: Any, _params: Any) -> types.ElicitResult:
    return types.ElicitResult(action="accept", content=dict(program.ANSWERS))


@asynccontextmanager
async def streams(target: Outcome) -> AsyncIterator[tuple[Any, Any]]:
    """The transport's two streams for that target."""
    match target["kind"]:
        case "stdio":
            command, *args = target["command"]
            transport: Any = stdio_client(StdioServerParameters(command=command, args=args, env=target["env"]))
        case "sse":
            transport = sse_client(target["url"])
        case _:
            transport = streamable_http_client(target["url"])
    async with transport as (reading, writing, *_):
        yield reading, writing


@asynccontextmanager
async def session(job: Outcome) -> AsyncIterator[Peer]:
    """Open the session the job asks for."""
    peer = Peer()

    async def rooted(_context: Any) -> types.ListRootsResult:
        return types.ListRootsResult(roots=[types.Root.model_validate(root) for root in job["roots"]])

    async with (
        streams(job["target"]) as (reading, writing),
        ClientSession(
            reading,
            writing,
            read_timeout_seconds=timedelta(seconds=job["deadline"]),
            sampling_callback=sampled,
            elicitation_callback=elicited,
            list_roots_callback=rooted,
            message_handler=peer.noticed,
        ) as peer.session,
    ):
        peer.greeting = await peer.session.initialize()
        yield peer


if __name__ == "__main__":
    program.main(session)
