"""The few ASGI messages the fronts send, and the refusals they answer with. Knows no session and no era."""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any, Final

from mcp_manifold.errors import RequestError
from mcp_manifold.http1.head import Line
from mcp_manifold.wire import NULL_ID, error_of, failure

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
AsgiReceive = Callable[[], Awaitable[Message]]
AsgiSend = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, AsgiReceive, AsgiSend], Awaitable[None]]
Headers = dict[bytes, bytes]
"""Header lines by lower-case name; of a repeated name the last line."""

_JSON: Final = (b"content-type", b"application/json")
_EMPTY_BODY: Final = (b"content-length", b"0")
PIECE: Final = 256 * 1024
"""Bytes per write of a large body."""
STALL: Final = 60.0
"""Seconds that one write may wait for the reader. Without this limit a stalled reader would hold memory for ever."""
CLOSE: Final = (b"connection", b"close")
"""Closes the connection after the response, because the request's body was not read to its end."""


class Refused(RequestError):
    """An HTTP refusal of a request: its status, message and header lines."""

    def __init__(self, status: int, message: str, *, code: int | None = None, headers: Sequence[Line] = ()) -> None:
        super().__init__(message, code=code)
        self.status = status
        self.headers = tuple(headers)

    def bare(self) -> "Refused":
        """This refusal without its last frames, which hold the request, and without the exceptions before it."""
        self.__context__ = self.__cause__ = None
        return self.with_traceback(None)


async def send_json(send: AsgiSend, status: int, body: bytes, headers: Sequence[Line] = ()) -> None:
    """Send a complete JSON response.

    Raises:
        TimeoutError: the reader of a large response stalled.
    """
    length = (b"content-length", b"%d" % len(body))
    await send({"type": "http.response.start", "status": status, "headers": [_JSON, length, *headers]})
    if len(body) <= PIECE:
        await send({"type": "http.response.body", "body": body})
    else:
        await send_pieces(send, body, more=False)


async def send_pieces(send: AsgiSend, body: bytes, *, more: bool) -> None:
    """Send a large part of a body in pieces, each with its own timeout.

    Raises:
        TimeoutError: the reader stalled.
    """
    view = memoryview(body)
    for start in range(0, len(body), PIECE):
        piece = bytes(view[start : start + PIECE])
        async with asyncio.timeout(STALL):
            is_last = start + PIECE >= len(body)
            await send({"type": "http.response.body", "body": piece, "more_body": more or not is_last})


async def send_empty(send: AsgiSend, status: int, headers: Sequence[Line] = ()) -> None:
    """Send a response without a body."""
    lines = list(headers) if status == 204 else [_EMPTY_BODY, *headers]
    await send({"type": "http.response.start", "status": status, "headers": lines})
    await send({"type": "http.response.body", "body": b""})


async def send_refusal(send: AsgiSend, refused: Refused) -> None:
    """Send a refusal as a JSON response."""
    await send_json(send, refused.status, refusal_body(refused), refused.headers)


def refusal_body(refused: Refused) -> bytes:
    """The refusal as a JSON-RPC error with a null id."""
    return failure(NULL_ID, error_of(refused, "handshake"))


def with_lines(lines: Sequence[Line], send: AsgiSend) -> AsgiSend:
    """A `send` that adds these header lines to the response."""

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), *lines]}
        await send(message)

    return sending
