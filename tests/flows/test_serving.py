"""The listening socket, and the options of its connections."""

import asyncio
import socket

import pytest

from mcp_manifold.app.http_server import bound
from mcp_manifold.config import ManifoldSettings

pytestmark = pytest.mark.anyio


async def test_accepted_connections_have_tcp_nodelay() -> None:
    accepted: asyncio.Queue[asyncio.StreamWriter] = asyncio.Queue()
    listening = bound(ManifoldSettings(port=0))
    server = await asyncio.start_server(lambda _, writer: accepted.put_nowait(writer), sock=listening)
    _, client = await asyncio.open_connection(*listening.getsockname())
    async with asyncio.timeout(10):
        answering = await accepted.get()
    # without it the body of an answer waits 40 ms for the acknowledgement of its head
    assert answering.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    for writer in (client, answering):
        writer.close()
        await writer.wait_closed()
    server.close()
    await server.wait_closed()
