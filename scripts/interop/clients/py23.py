"""The Python SDK's `Client` of mcp 2.x as an interop client, in either era; owns nothing but the translation."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import job as program
import mcp_types as types
from mcp import Client, StdioServerParameters
from mcp.client.sse import sse_client

MODES = {"auto": "auto", "handshake": "legacy", "modern": "2026-07-28"}
MODERN = "2026"

Outcome = dict[str, Any]


def plain(model: Any) -> Outcome:
    """A model as the JSON it stands for."""
    outcome: Outcome = model.model_dump(mode="json", by_alias=True, exclude_none=True)
    return outcome


class Peer:
    """One open `Client`; holds it and who listens for updates."""

    def __init__(self) -> None:
        self.client: Any = None
        self._seen: Callable[[str], None] | None = None

    def __repr__(self) -> str:
        return f"Peer({'open' if self.client else 'new'})"

    def about(self) -> Outcome:
        client = self.client
        return {
            "protocol": client.protocol_version,
            "server": plain(client.server_info) if client.server_info else None,
            "capabilities": plain(client.server_capabilities),
            "instructions": client.instructions,
        }

    async def listed(self, kind: str) -> list[Outcome]:
        wanted = {"templates": "resource_templates"}.get(kind, kind)
        if getattr(self.client.server_capabilities, kind.replace("templates", "resources")) is None:
            return []
        found: list[Outcome] = []
        cursor: str | None = None
        while True:
            page = await getattr(self.client, "list_" + wanted)(cursor=cursor)
            found += [plain(item) for item in getattr(page, wanted)]
            cursor = page.next_cursor
            if cursor is None:
                return found

    async def call(self, tool: str, arguments: Outcome, progress: program.Progress | None) -> Outcome:
        async def tick(done: float, total: float | None, _message: str | None) -> None:
            if progress is not None:
                await progress(done, total)

        return plain(await self.client.call_tool(tool, arguments, progress_callback=tick if progress else None))

    async def abandoned(self) -> None:
        """Cancelling the awaiting task was enough: this SDK tells the server."""

    async def read(self, uri: str) -> Outcome:
        return plain(await self.client.read_resource(uri))

    async def prompt(self, name: str, arguments: dict[str, str]) -> Outcome:
        return plain(await self.client.get_prompt(name, arguments))

    async def complete(self, ref: Outcome, argument: Outcome, context: dict[str, str] | None) -> Outcome:
        kind = types.PromptReference if ref["type"] == "ref/prompt" else types.ResourceTemplateReference
        return plain(await self.client.complete(kind.model_validate(ref), argument, context))

    @asynccontextmanager
    async def watching(self, uri: str, seen: Callable[[str], None]) -> AsyncIterator[None]:
        if self.client.protocol_version.startswith(MODERN):
            async with self._listening(uri, seen):
                yield
            return
        self._seen = seen
        await self.client.subscribe_resource(uri)
        yield
        await self.client.unsubscribe_resource(uri)

    @asynccontextmanager
    async def _listening(self, uri: str, seen: Callable[[str], None]) -> AsyncIterator[None]:
        async with self.client.listen(resource_subscriptions=[uri]) as events, anyio.create_task_group() as tasks:

            async def follow() -> None:
                async for event in events:
                    if hasattr(event, "uri"):
                        seen(str(event.uri))

            tasks.start_soon(follow)
            yield
            tasks.cancel_scope.cancel()

    async def noticed(self, message: Any) -> None:
        if isinstance(message, types.ResourceUpdatedNotification) and self._seen:
            self._seen(str(message.params.uri))


async def sampled(_context: Any, _params: Any) -> types.CreateMessageResult:
    text = types.TextContent(text=program.SAMPLED)
    return types.CreateMessageResult(role="assistant", content=text, model="fixed", stop_reason="endTurn")


async def elicited(_context: Any, _params: Any) -> types.ElicitResult:
    return types.ElicitResult(action="accept", content=dict(program.ANSWERS))


def server_of(target: Outcome) -> Any:
    """What `Client` takes for that target."""
    match target["kind"]:
        case "stdio":
            command, *args = target["command"]
            return StdioServerParameters(command=command, args=args, env=target["env"])
        case "sse":
            return sse_client(target["url"])
        case _:
            return target["url"]


@asynccontextmanager
async def session(job: Outcome) -> AsyncIterator[Peer]:
    """Open the session the job asks for."""
    peer = Peer()

    async def rooted(_context: Any) -> types.ListRootsResult:
        return types.ListRootsResult(roots=[types.Root.model_validate(root) for root in job["roots"]])

    async with Client(
        server_of(job["target"]),
        mode=MODES[job["era"]],
        read_timeout_seconds=job["deadline"],
        sampling_callback=sampled,
        elicitation_callback=elicited,
        list_roots_callback=rooted,
        message_handler=peer.noticed,
    ) as peer.client:
        yield peer


if __name__ == "__main__":
    program.main(session)
