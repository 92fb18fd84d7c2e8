"""Scripted HTTP servers, one act per request, and a link over Streamable HTTP to one."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from mcp_manifold.backends.http.pool import HttpPool
from mcp_manifold.backends.http.transport import HttpTransport
from mcp_manifold.backends.link.link import Link
from mcp_manifold.clock import Clock, LoopClock
from tests.fakes.hostile_http import HostileServer, Peer
from tests.fakes.news import News
from tests.unit.backends.linking import Heard, new_link, within


@dataclass(frozen=True, slots=True)
class Asked:
    """One HTTP request as the server received it."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def message(self) -> Any:
        """The JSON-RPC message in it."""
        return json.loads(self.body)


Act = Callable[[Peer, Asked], Awaitable[None]]


def whole(status: int, body: bytes = b"", *lines: str, kind: str = "application/json") -> bytes:
    """A whole response."""
    head = [f"HTTP/1.1 {status} As Scripted", f"content-type: {kind}", f"content-length: {len(body)}", *lines]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


def stream(*events: bytes) -> bytes:
    """The head of an event stream without an end, and its first events."""
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    return head + b"".join(chunk(event) for event in events)


def chunk(data: bytes) -> bytes:
    """A piece of a chunked body; of nothing: its end."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def event(message: bytes, *, id: str = "", name: str = "") -> bytes:
    """One event."""
    return (
        (f"id: {id}\n" if id else "").encode()
        + (f"event: {name}\n" if name else "").encode()
        + (b"data: %b\n\n" % message)
    )


def answer(asked: Asked, result: bytes = b"{}") -> bytes:
    """The JSON-RPC answer to a request."""
    return b'{"jsonrpc":"2.0","id":%d,"result":%b}' % (asked.message["id"], result)


def replying(*made: bytes) -> Act:
    """Send this."""

    async def act(peer: Peer, asked: Asked) -> None:
        for piece in made:
            await peer.send(piece)

    return act


def holding(*before: bytes) -> tuple[Act, asyncio.Event]:
    """Send this and no answer; the event is set once the client closed the connection."""
    closed = asyncio.Event()

    async def act(peer: Peer, asked: Asked) -> None:
        await replying(*before)(peer, asked)
        await peer.until_closed()
        closed.set()

    return act, closed


def opening(session: str = "s-1") -> Act:
    """Answer, and give the client a session id."""

    async def act(peer: Peer, asked: Asked) -> None:
        await peer.send(whole(200, answer(asked), f"Mcp-Session-Id: {session}"))

    return act


async def plain(peer: Peer, asked: Asked) -> None:
    """Answer a request in JSON, and accept anything else."""
    is_request = asked.body and "id" in asked.message
    await peer.send(whole(200, answer(asked)) if is_request else whole(202))


class Server:
    """Plays the n-th act on the n-th request, whatever its connection; then `rest`. Remembers every request."""

    def __init__(self, *acts: Act, rest: Act = plain) -> None:
        self.asked: list[Asked] = []
        self._acts = acts
        self._rest = rest
        self._news = News()
        self._hostile = HostileServer(self._serve)

    def __repr__(self) -> str:
        return f"<Server asked={len(self.asked)}>"

    @property
    def url(self) -> str:
        """The endpoint."""
        return self._hostile.url

    @property
    def accepted(self) -> int:
        """Connections so far."""
        return self._hostile.accepted

    async def __aenter__(self) -> "Server":
        await self._hostile.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._hostile.__aexit__(None, None, None)

    async def _serve(self, peer: Peer) -> None:
        while True:
            asked = _asked(await peer.request())
            number = len(self.asked)
            self.asked.append(asked)
            self._news.tell()
            await (self._acts[number] if number < len(self._acts) else self._rest)(peer, asked)

    async def heard(self, count: int, method: str = "") -> Asked:
        """The `count`-th request (of that HTTP method), once it came."""
        return await self._news.nth(count, lambda: [each for each in self.asked if method in ("", each.method)])


def _asked(data: bytes) -> Asked:
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    method, target, _ = first.split(" ")
    headers = {name.lower(): value.strip() for name, value in (line.split(":", 1) for line in lines)}
    assert not any(re.search(r"[\r\n]", value) for value in headers.values())
    return Asked(method, target, headers, body)


@asynccontextmanager
async def over_http(
    url: str,
    *,
    heard: Heard | None = None,
    headers: Mapping[str, str] | None = None,
    max_message: int = 1 << 20,
    idle_limit: float = 30.0,
    clock: Clock | None = None,
    max_tools: int = 1000,
) -> AsyncIterator[tuple[Link, HttpTransport]]:
    """A link over Streamable HTTP, closed at the end with its pool."""
    link = new_link(heard)
    pool = HttpPool(url, max_body=max_message, clock=clock or LoopClock())
    transport = HttpTransport(
        link, pool, headers=headers or {}, max_message=max_message, idle_limit=idle_limit, max_tools=max_tools
    )
    link.attach(transport)
    try:
        yield link, transport
    finally:
        await within(transport.aclose())
        await within(pool.aclose())
