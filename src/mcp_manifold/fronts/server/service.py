"""The state that connections of one server share: application, limits, response heads, and refusals."""

import asyncio
import logging
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import httptools

from mcp_manifold.clock import Clock
from mcp_manifold.fronts.http.asgi import AsgiReceive, AsgiSend, PendingReply, Scope
from mcp_manifold.fronts.http_errors import HttpError, Refused
from mcp_manifold.http1.head import Head, Line, header_lines, status_line
from mcp_manifold.model.budget import MemoryBudget
from mcp_manifold.paced_reader import Pacer

logger = logging.getLogger(__name__)

SMALL: Final = 256 * 1024
"""Bytes of a body up to which a request is buffered whole. Larger bodies are streamed to the application."""
_MUCH: Final = 65536
"""Bytes of a long read of input that is dropped."""
_LINGER_REST: Final = 0.01
"""Seconds between two long reads of input that is dropped."""
MAX_HEADS: Final = 8
"""Heads that one connection remembers."""
_SERVED: Final = ("1.1", "1.0")


class Application(Protocol):
    """Serves the requests."""

    def take(self, head: Head, body: bytes, writer: Any, /) -> PendingReply | bool:
        """Handle a small POST without a task; `writer` is an HttpWriter.

        Returns the pending reply, or True if the request was answered. Returns False, without side effects, if the
        request must be served as an ASGI call.
        """

    def __call__(self, scope: Scope, receive: AsgiReceive, send: AsgiSend) -> Awaitable[None]:
        """Serve any request, as an ASGI application."""


class ServerState(Protocol):
    """The server's record of its connections and tasks."""

    connections: set[Any]
    tasks: "set[asyncio.Task[None]]"
    default_headers: list[Line]
    """Header lines of every response; replaced as a whole, never changed."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of a connection, in bytes and seconds."""

    head_bytes: int = 65536
    head_lines: int = 128
    head_seconds: float = 10.0
    body_seconds: float = 30.0
    keep_alive: float = 65.0
    """Seconds that an idle connection is kept: longer than load balancers do, which should close first."""
    linger: float = 5.0
    """Seconds that a client may keep sending after its last response."""


@dataclass(slots=True, eq=False)
class Service:
    """The state that all connections of one server share."""

    application: Application
    limits: Limits
    state: ServerState
    clock: Clock
    max_connections: Callable[[], int] = lambda: sys.maxsize
    """The maximum number of open connections."""
    budget: MemoryBudget = field(default_factory=MemoryBudget)
    """The memory of unsent responses."""
    max_body: Callable[[], int] = lambda: sys.maxsize
    """The application's limit of body bytes. Larger bodies are not buffered; the application refuses them."""
    pacer: Pacer = field(init=False)
    """Shares the turns of the event loop among the connections."""
    known_lines: list[Line] | None = field(default=None, repr=False)
    """The `default_headers` from which `own_lines` and `usual` were built."""
    own_lines: bytes = field(default=b"", repr=False)
    """The `default_headers` as bytes."""
    usual: bytes = field(default=b"", repr=False)
    """The head of a JSON response with status 200, up to the value of content-length."""

    def __post_init__(self) -> None:
        self.pacer = Pacer(self.clock, asyncio.get_running_loop().call_soon)

    def refresh(self) -> None:
        """Rebuild the cached header lines if they changed."""
        lines = self.state.default_headers
        if lines is not self.known_lines:
            self.known_lines, self.own_lines = lines, header_lines(lines)
            self.usual = self._json(200)

    def head(self, status: int, length: int, lines: Sequence[Line], *, keeps_alive: bool) -> bytes:
        """The head of a complete JSON response. Without a body, it names no media type."""
        self.refresh()
        if status == 200 and length and keeps_alive and not lines:
            return b"%b%d\r\n\r\n" % (self.usual, length)
        if status == 204:
            start = status_line(status) + self.own_lines
        elif length:
            start = b"%b%d\r\n" % (self._json(status), length)
        else:
            start = status_line(status) + self.own_lines + b"content-length: 0\r\n"
        end = b"\r\n" if keeps_alive else b"connection: close\r\n\r\n"
        return b"%b%b%b" % (start, header_lines(lines), end)

    def _json(self, status: int) -> bytes:
        return b"%b%bcontent-type: application/json\r\ncontent-length: " % (status_line(status), self.own_lines)


def refused_head(version: str, target: bytes, fields: list[Line], received: int, limits: Limits) -> Refused | None:
    """The refusal of a complete head; None if the head is accepted. It has at most `received` bytes."""
    if version not in _SERVED:
        return Refused(HttpError.HTTP_VERSION)
    if len(fields) > limits.head_lines:
        return Refused(HttpError.LARGE_HEAD, limit=f"{limits.head_lines} lines")
    if received > limits.head_bytes and _size(target, fields) > limits.head_bytes:
        return too_large(limits)
    return None


def too_large(limits: Limits) -> Refused:
    """The refusal of a head with too many bytes."""
    return Refused(HttpError.LARGE_HEAD, limit=f"{limits.head_bytes} bytes")


def misread(exc: httptools.HttpParserError) -> Refused:
    """The refusal of invalid HTTP. An exception in our own callbacks is logged as a defect."""
    if isinstance(exc, httptools.HttpParserCallbackError):
        logger.error("request failed unexpectedly", exc_info=exc)
        return Refused(HttpError.DEFECT)
    logger.debug("request not understood", extra={"reason": str(exc)[:100]})
    return Refused(HttpError.NOT_HTTP)


def _size(target: bytes, fields: list[Line]) -> int:
    return len(target) + sum(len(name) + len(value) + 4 for name, value in fields)


class LingeringClose(asyncio.Protocol):
    """Closes a connection whose client is still sending; drops further input for a limited time.

    If the socket were closed at once, further input would cause a TCP reset, which can destroy our response before
    the client reads it. `before` is the protocol that wrote the response; it still gets the transport's events.
    """

    __slots__ = ("_before", "_clock", "_timer", "_transport")

    def __init__(self, transport: asyncio.Transport, before: asyncio.Protocol, clock: Clock, seconds: float) -> None:
        self._transport = transport
        self._before = before
        self._clock = clock
        self._timer = clock.call_later(seconds, transport.abort)

    def __repr__(self) -> str:
        return f"<LingeringClose of {self._before!r}>"

    def begin(self) -> None:
        """Send the end of our side, and go on reading."""
        self._transport.set_protocol(self)
        try:
            self._transport.write_eof()
        except OSError:  # the client has reset the connection
            self._transport.abort()
            return
        self._resume()

    def data_received(self, data: bytes) -> None:
        """Drop the input; slow down if there is much."""
        if len(data) >= _MUCH:
            self._transport.pause_reading()
            self._clock.call_later(_LINGER_REST, self._resume)

    def _resume(self) -> None:
        if not self._transport.is_closing():
            self._transport.resume_reading()

    def pause_writing(self) -> None:
        self._before.pause_writing()

    def resume_writing(self) -> None:
        self._before.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._timer.cancel()
        self._before.connection_lost(exc)
