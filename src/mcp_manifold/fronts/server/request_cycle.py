"""One request served as an ASGI call: its body, its response and their framing. Knows no limits."""

import asyncio
from collections.abc import Sequence
from typing import Final, Protocol
from urllib.parse import unquote

import httptools

from mcp_manifold.fronts.http.asgi import Message, Scope
from mcp_manifold.http1.head import Head, Line, header_lines, status_line

HIGH_WATER: Final = 65536
"""Buffered bytes of a body above which reading is paused."""
_BODILESS: Final = (204, 304)


class Wire(Protocol):
    """The part of the connection that a RequestCycle uses."""

    @property
    def is_gone(self) -> bool:
        """Whether the connection is lost."""

    def own_lines(self) -> bytes:
        """The header lines of every response."""

    def write(self, data: bytes) -> None:
        """Send bytes of the response."""

    async def drained(self) -> None:
        """Wait while the client's send buffer is full."""

    def pause(self) -> None:
        """Pause reading."""

    def go_on(self) -> None:
        """Resume reading."""

    def completed(self, *, keeps_alive: bool) -> None:
        """Finish the response."""


class RequestCycle:
    """A request and its response. `receive` and `send` are the ASGI callables."""

    __slots__ = ("_awaited", "_body", "_chunked", "_head_bytes", "_is_read", "_more", "_size", "_waiter", "_wire",
                 "head", "is_complete", "is_left", "keeps_alive")  # fmt: skip

    def __init__(self, wire: Wire, head: Head, body: bytes = b"", *, more: bool = False, is_read: bool = False) -> None:
        self._wire = wire
        self.head = head
        self.keeps_alive = head.keeps_alive
        self._body = [body] if body else []
        self._size = 0
        """Buffered bytes of the body."""
        self._more = more
        self._is_read = is_read
        """Whether the application received the end of the body."""
        self._waiter: asyncio.Future[None] | None = None
        self._head_bytes: bytes | None = None
        self._chunked = False
        self._awaited = more and head.headers.get(b"expect", b"").lower() == b"100-continue"
        self.is_complete = False
        self.is_left = False

    def __repr__(self) -> str:
        state = "complete" if self.is_complete else "left" if self.is_left else "open"
        return f"<RequestCycle {self.head!r} {state}>"

    def scope(self, transport: asyncio.Transport) -> Scope:
        """The ASGI scope of the request.

        Raises:
            httptools.HttpParserError: its target is no URL.
        """
        url = httptools.parse_url(self.head.target)
        path: bytes = url.path or b"/"
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": self.head.version,
            "method": self.head.method.decode("ascii"),
            "scheme": "https" if transport.get_extra_info("sslcontext") else "http",
            "path": unquote(path.decode("latin-1")),
            "raw_path": path,
            "query_string": url.query or b"",
            "root_path": "",
            "headers": self.head.lines,
            "server": _address(transport.get_extra_info("sockname")),
            "client": _address(transport.get_extra_info("peername")),
        }

    @property
    def has_begun(self) -> bool:
        """Whether the application began the response."""
        return self._head_bytes is not None

    def feed(self, data: bytes) -> None:
        """Buffer a piece of the body."""
        if self.is_complete:  # the response came first
            return
        self._body.append(data)
        self._size += len(data)
        if self._size > HIGH_WATER:
            self._wire.pause()
        self._wake()

    def end(self) -> None:
        """Mark the body as complete."""
        self._more = False
        self._wake()

    def left(self) -> None:
        """Note that the client has disconnected."""
        self.is_left = True
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    @property
    def _has_news(self) -> bool:
        """Whether `receive` has a piece of the body, or its end, to return."""
        return bool(self._body) or not (self._is_read or self._more)

    async def receive(self) -> Message:
        """Wait for the next piece of the body. After the response or a disconnect, return `http.disconnect`."""
        if self._awaited and not (self.has_begun or self.is_left):
            self._awaited = False
            self._wire.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        while not (self.is_left or self.is_complete or self._has_news):
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        if self.is_left or self.is_complete:
            return {"type": "http.disconnect"}
        body, self._body, self._size = b"".join(self._body), [], 0
        self._is_read = not self._more
        if self._more:
            self._wire.go_on()
        return {"type": "http.request", "body": body, "more_body": self._more}

    async def send(self, message: Message) -> None:
        """Send a piece of the response. Waits while the send buffer is full; does nothing after a disconnect.

        Raises:
            ValueError: a header line could end early.
            RuntimeError: the response is complete already, or begins twice.
        """
        await self._wire.drained()
        if self.is_left:
            return
        if self.is_complete or (message["type"] == "http.response.start") == self.has_begun:
            raise RuntimeError("the response is complete already, or begins twice")
        if message["type"] == "http.response.start":
            self._begin(message["status"], message.get("headers", ()))
        else:
            self._continue(message.get("body", b""), more=bool(message.get("more_body")))

    def _begin(self, status: int, lines: Sequence[Line]) -> None:
        own = status_line(status) + self._wire.own_lines() + header_lines(lines)
        names, is_stream = {name.lower() for name, _ in lines}, False
        if (b"connection", b"close") in lines:
            self.keeps_alive = False
        elif not self.keeps_alive:
            own += b"connection: close\r\n"
        if self.head.method == b"HEAD" or status in _BODILESS:
            self._chunked = False
        elif b"content-length" not in names:
            self._chunked = self.head.version != "1.0"
            self.keeps_alive = self.keeps_alive and self._chunked
            own += b"transfer-encoding: chunked\r\n" if self._chunked else b""
            is_stream = True
        self._head_bytes = own + b"\r\n"
        if is_stream:  # a stream's reader waits for it, and perhaps for long until there is more
            self._wire.write(self._head_bytes)
            self._head_bytes = b""

    def _continue(self, body: bytes, *, more: bool) -> None:
        head, self._head_bytes = self._head_bytes or b"", b""
        if self.head.method == b"HEAD":
            body = b""
        elif self._chunked and body:
            body = b"%x\r\n%b\r\n" % (len(body), body)
        if self._chunked and not more:
            body += b"0\r\n\r\n"
        if head or body:
            self._wire.write(head + body if len(body) <= HIGH_WATER or not head else head)
            if head and len(body) > HIGH_WATER:  # a large body is not copied behind its head
                self._wire.write(body)
        if not more:
            self.is_complete = True
            self._wake()
            self._wire.completed(keeps_alive=self.keeps_alive and not self._more)


def _address(found: object) -> tuple[str, int] | None:
    """A socket's address in the form of ASGI scopes."""
    return (str(found[0]), int(found[1])) if isinstance(found, tuple) and len(found) >= 2 else None
