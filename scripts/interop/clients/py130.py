"""The Python SDK's `ClientSession` of mcp 1.x as an interop client: what it does in its own way."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta
from typing import Any

import job as program
from job import Outcome, plain
from mcp import ClientSession, StdioServerParameters, types
from mcp.client.sse import sse_client
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client
from pydantic import AnyUrl


class Peer(program.SdkPeer):
    """One initialized `ClientSession` and its greeting."""

    def __init__(self) -> None:
        super().__init__(types)
        self.greeting: Any = None
        self._last: int | None = None

    def about(self) -> Outcome:
        return {
            "protocol": self.greeting.protocolVersion,
            "server": plain(self.greeting.serverInfo),
            "capabilities": plain(self.greeting.capabilities),
            "instructions": self.greeting.instructions,
        }

    def capabilities(self) -> Any:
        return self.greeting.capabilities

    async def page(self, method: str, cursor: str | None) -> tuple[Any, str | None]:
        page = await getattr(self.client, "list_" + method)(params=types.PaginatedRequestParams(cursor=cursor))
        return getattr(page, method.replace("resource_templates", "resourceTemplates")), page.nextCursor

    def uri(self, text: str) -> Any:
        return AnyUrl(text)

    async def call(self, tool: str, arguments: Outcome, progress: program.Progress | None) -> Outcome:
        self._last = self.client._request_id  # the only way to learn the id of the call that is cancelled later
        return await super().call(tool, arguments, progress)

    async def abandoned(self) -> None:
        """Tell the server: this SDK does not when the awaiting task is cancelled."""
        params = types.CancelledNotificationParams(requestId=self._last, reason="no longer wanted")
        await self.client.send_notification(types.ClientNotification(types.CancelledNotification(params=params)))


def transport(target: Outcome) -> AbstractAsyncContextManager[Any]:
    """The transport to a target."""
    match target["kind"]:
        case "stdio":
            command, *args = target["command"]
            return stdio_client(StdioServerParameters(command=command, args=args, env=target["env"]))
        case "sse":
            return sse_client(target["url"])
        case _:
            return streamable_http_client(target["url"])


@asynccontextmanager
async def session(job: Outcome) -> AsyncIterator[Peer]:
    """Open the session the job asks for."""
    peer, limit = Peer(), timedelta(seconds=job["deadline"])
    async with (
        transport(job["target"]) as (reading, writing, *_),
        ClientSession(reading, writing, read_timeout_seconds=limit, **peer.callbacks(job)) as peer.client,
    ):
        peer.greeting = await peer.client.initialize()
        yield peer


if __name__ == "__main__":
    program.main(session)
