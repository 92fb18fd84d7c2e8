"""The Python SDK's `Client` of mcp 2.x as an interop client, in either era; owns nothing but the translation."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import job as program
import mcp_types as types
from mcp import Client
from sdk import Outcome, SdkPeer, plain, transport_to

MODES = {"auto": "auto", "handshake": "legacy", "modern": "2026-07-28"}
MODERN = "2026"


class ClientPeer(SdkPeer):
    """One open `Client`."""

    def about(self) -> Outcome:
        client = self.client
        return {
            "protocol": client.protocol_version,
            "server": plain(client.server_info) if client.server_info else None,
            "capabilities": plain(client.server_capabilities),
            "instructions": client.instructions,
        }

    def capabilities(self) -> Any:
        return self.client.server_capabilities

    async def page(self, method: str, cursor: str | None) -> tuple[Any, str | None]:
        page = await getattr(self.client, method)(cursor=cursor)
        return page, page.next_cursor

    @asynccontextmanager
    async def watching(self, uri: str, seen: Callable[[str], None]) -> AsyncIterator[None]:
        is_modern = self.client.protocol_version.startswith(MODERN)
        async with self._listening(uri, seen) if is_modern else super().watching(uri, seen):
            yield

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


@asynccontextmanager
async def session(job: Outcome) -> AsyncIterator[ClientPeer]:
    """Open the session the job asks for."""
    peer = ClientPeer(types)
    options = {"mode": MODES[job["era"]], "read_timeout_seconds": job["deadline"], **peer.answering(job)}
    target = job["target"]
    server = target["url"] if target["kind"] == "http" else transport_to(target)  # given a URL, it chooses more itself
    async with Client(server, **options) as peer.client:
        yield peer


if __name__ == "__main__":
    program.main(session)
