"""One keep-alive HTTP/1.1 connection of the load, with one request at a time."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import httptools


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply; status 0 means that the connection was lost first."""

    status: int
    is_stream: bool = False
    session: str = ""
    body: bytes = b""


class Connection(asyncio.Protocol):
    """One connection, as the module describes it."""

    def __init__(self) -> None:
        self.is_open = False
        self._transport: asyncio.WriteTransport | None = None
        self._done: Callable[[Reply], None] | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._parts: list[bytes] = []
        self._is_stream = False
        self._session = ""
        self._closes = False

    def send(self, data: bytes, done: Callable[[Reply], None]) -> None:
        """Send a request; `done` receives its reply."""
        self._done = done
        assert self._transport is not None, "it is connected"
        self._transport.write(data)

    def close(self) -> None:
        """Close the connection."""
        if self._transport is not None:
            self._transport.close()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport) or hasattr(transport, "write")
        self._transport = transport  # type: ignore[assignment]  # uvloop transports have no common base class
        self.is_open = True

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_open = False
        self._tell(Reply(0, body=b"connection lost"))

    # httptools

    def on_header(self, name: bytes, value: bytes) -> None:
        match name.lower():
            case b"content-type":
                self._is_stream = value.startswith(b"text/event-stream")
            case b"mcp-session-id":
                self._session = value.decode()
            case b"connection":
                self._closes = value.lower() == b"close"

    def on_body(self, data: bytes) -> None:
        if self._done is not None:
            self._parts.append(data)

    def on_message_complete(self) -> None:
        if self._closes:
            self.is_open = False
        reply = Reply(self._parser.get_status_code(), self._is_stream, self._session, b"".join(self._parts))
        self._parts, self._is_stream, self._session = [], False, ""
        self._tell(reply)

    def _tell(self, reply: Reply) -> None:
        done, self._done = self._done, None
        if done is not None:
            done(reply)


async def connect(host: str, port: int) -> Connection:
    """Open a connection."""
    _, made = await asyncio.get_running_loop().create_connection(Connection, host, port)
    return made
