"""The Python SDK's `ClientSession` of mcp 1.x as an interop client; owns nothing but the translation."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import job as program
from mcp import ClientSession, types
from pydantic import AnyUrl
from sdk import Outcome, SdkPeer, plain, transport_to


class SessionPeer(SdkPeer):
    """One initialized `ClientSession`, and what the server said of itself."""

    def __init__(self) -> None:
        super().__init__(types, AnyUrl)
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
        page = await getattr(self.client, method)(params=types.PaginatedRequestParams(cursor=cursor))
        return page, page.nextCursor

    async def call(self, tool: str, arguments: Outcome, progress: program.Progress | None) -> Outcome:
        self._last = self.client._request_id  # the only way to learn the id of the call that is cancelled later
        return await super().call(tool, arguments, progress)

    async def abandoned(self) -> None:
        params = types.CancelledNotificationParams(requestId=self._last, reason="no longer wanted")
        await self.client.send_notification(types.ClientNotification(types.CancelledNotification(params=params)))


@asynccontextmanager
async def session(job: Outcome) -> AsyncIterator[SessionPeer]:
    """Open the session the job asks for."""
    peer, bound = SessionPeer(), timedelta(seconds=job["deadline"])
    async with (
        transport_to(job["target"]) as (reading, writing, *_),
        ClientSession(reading, writing, read_timeout_seconds=bound, **peer.answering(job)) as peer.client,
    ):
        peer.greeting = await peer.client.initialize()
        yield peer


if __name__ == "__main__":
    program.main(session)
