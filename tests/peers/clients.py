"""Raw clients: the names that tests import from the modules beside this one, and the quickest question."""

import asyncio

from tests.peers.client import Answer, Client, Params, PendingRequest, Reply
from tests.peers.client_http import GetStream, HttpClient, HttpReply, ModernClient
from tests.peers.client_sse import SseClient
from tests.peers.client_stdio import PairClient, StdioClient
from tests.peers.http_wire import Headers, WireEvent
from tests.peers.message import HANDSHAKE_VERSIONS, LATEST_HANDSHAKE, MODERN_VERSION, Message

__all__ = [
    "HANDSHAKE_VERSIONS",
    "LATEST_HANDSHAKE",
    "MODERN_VERSION",
    "Answer",
    "Client",
    "GetStream",
    "Headers",
    "HttpClient",
    "HttpReply",
    "Message",
    "ModernClient",
    "PairClient",
    "Params",
    "PendingRequest",
    "Reply",
    "SseClient",
    "StdioClient",
    "WireEvent",
    "tool_names",
]


def tool_names(url: str) -> list[str]:
    """The tools that a 2026-07-28 server lists at this URL. Not for use inside an event loop."""

    async def names() -> list[str]:
        async with ModernClient(url) as client:
            return [tool["name"] for tool in (await client.request("tools/list")).value["tools"]]

    return asyncio.run(names())
