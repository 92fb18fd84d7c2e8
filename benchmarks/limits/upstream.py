"""Warm connections to one HTTP server on bare protocols: replies with a length only, no timeouts, no error handling."""

import asyncio
from collections.abc import Callable
from typing import Any

Done = Callable[[bytes, bytes], None]


class _Connection(asyncio.Protocol):
    __slots__ = ("_body", "_head", "_missing", "_pool", "_start", "done", "transport")

    def __init__(self, pool: "Pool") -> None:
        self._pool = pool
        self._start = b""
        self._head = b""
        self._body: list[bytes] = []
        self._missing = 0
        self.done: Done | None = None
        self.transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None

    def data_received(self, data: bytes) -> None:
        if self._body:
            self._body.append(data)
            self._missing -= len(data)
        else:
            start = self._start + data if self._start else data
            end = start.find(b"\r\n\r\n")
            if end < 0:
                self._start = start
                return
            self._start, self._head, body = b"", start[: end + 2], start[end + 4 :]
            at = self._head.lower().find(b"content-length:") + 15
            self._body = [body]
            self._missing = int(self._head[at : self._head.find(b"\r\n", at)]) - len(body)
        if self._missing <= 0:
            parts, self._body = self._body, []
            done, self.done = self.done, None
            self._pool.idle.append(self)
            if done is not None:
                done(self._head, parts[0] if len(parts) == 1 else b"".join(parts))


class Pool:
    """The connections to one server."""

    def __init__(self, url: str) -> None:
        where, _, path = url.split("://", 1)[1].partition("/")
        self._host, _, port = where.partition(":")
        self._port = int(port)
        self._post = (
            f"POST /{path} HTTP/1.1\r\nhost: {where}\r\ncontent-type: application/json\r\n"
            "accept: application/json, text/event-stream\r\nmcp-protocol-version: 2025-06-18\r\n"
        ).encode()
        self.idle: list[_Connection] = []

    async def post(self, body: bytes) -> tuple[bytes, bytes]:
        """Send a message; returns the head and the body of the reply."""
        answer: asyncio.Future[tuple[bytes, bytes]] = asyncio.get_running_loop().create_future()
        while self.idle:
            connection = self.idle.pop()
            if connection.transport is not None:
                break
        else:
            make = asyncio.get_running_loop().create_connection
            _, connection = await make(lambda: _Connection(self), self._host, self._port)
        connection.done = lambda head, reply: answer.set_result((head, reply))
        connection.transport.write(b"%bcontent-length: %d\r\n\r\n%b" % (self._post, len(body), body))
        return await answer
