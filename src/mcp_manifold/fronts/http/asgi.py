"""The ASGI messages that the fronts send, and their writer. Knows no session and no era."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, MutableMapping, Sequence
from typing import Any, Final, Protocol

from mcp_manifold.fronts.http_errors import Refused, refusal_body
from mcp_manifold.http1.head import Line
from mcp_manifold.model.budget import MIN_COUNTED, MemoryBudget, Reservation

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
AsgiReceive = Callable[[], Awaitable[Message]]
AsgiSend = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, AsgiReceive, AsgiSend], Awaitable[None]]

_JSON: Final = (b"content-type", b"application/json")
_EMPTY_BODY: Final = (b"content-length", b"0")
PIECE: Final = 256 * 1024
"""Bytes per write of a large body."""
STALL: Final = 60.0
"""Seconds that one write may wait for the reader. Without this limit a stalled reader would hold memory for ever."""
_QUICK: Final = 0.05
"""Seconds of an ASGI call after which a task watches for the client's disconnect."""


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


def with_lines(lines: Sequence[Line], send: AsgiSend) -> AsgiSend:
    """A `send` that adds these header lines to the response."""

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), *lines]}
        await send(message)

    return sending


class PendingReply(Protocol):
    """The part of a pending reply that its writer uses."""

    def cancel(self) -> None:
        """Cancel the calls of the reply."""

    def disconnected(self) -> None:
        """Handle the client's disconnect."""


class AsgiWriter:
    """Writes a response over ASGI. Keeps the response until `run` sends it in the request's task."""

    __slots__ = ("_answer", "_budget", "_is_dropped", "_is_over", "_receive", "_send", "_signal", "_work")

    def __init__(self, receive: AsgiReceive, send: AsgiSend, budget: MemoryBudget) -> None:
        self._budget = budget
        self._receive = receive
        self._send = send
        self._answer: tuple[int, bytes, Sequence[Line]] | None = None
        self._work: Coroutine[Any, Any, None] | None = None
        self._is_dropped = self._is_over = False
        self._signal: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def __repr__(self) -> str:
        return f"<AsgiWriter {'streaming' if self._work else 'answered' if self._answer else 'waiting'}>"

    def respond(self, status: int, body: bytes, lines: Sequence[Line] = ()) -> None:
        self._answer = (status, body, lines)
        self._wake()

    def respond_pieces(
        self, pieces: Sequence[bytes | memoryview], lines: Sequence[Line] = (), *, is_shared: bool = False
    ) -> None:
        self.respond(200, b"".join(pieces), lines)

    def upgrade_to_stream(self) -> AsgiSend:
        return self._send

    def own(self, work: Coroutine[Any, Any, None]) -> None:
        self._work = work
        if self._is_over:
            work.close()
        self._wake()

    def drop(self) -> None:
        self._is_dropped = True
        self._wake()

    def _wake(self) -> None:
        if not self._signal.done():
            self._signal.set_result(None)

    async def run(self, reply: PendingReply | None) -> None:
        """Wait for the response and send it. If the client disconnects before, tell `reply`.

        Raises:
            ConnectionAbortedError: the response was dropped.
        """
        watcher: asyncio.Task[None] | None = None
        try:
            if not self._signal.done():
                await asyncio.wait({self._signal}, timeout=_QUICK)
            if reply is not None and (self._work is not None or not self._signal.done()):
                watching = watch_disconnect(self._receive, reply.disconnected)
                watcher = asyncio.get_running_loop().create_task(watching, name="front.watch")
            await self._signal
            if self._work is not None:
                await self._work
            elif self._answer is not None:
                await self._send_answer(*self._answer)
            elif self._is_dropped:
                raise ConnectionAbortedError
        except asyncio.CancelledError:
            if reply is not None:
                reply.cancel()
                reply.disconnected()
            raise
        finally:
            self._is_over = True
            if self._work is not None:
                self._work.close()  # it may not have begun
            if watcher is not None:
                watcher.cancel()

    async def _send_answer(self, status: int, body: bytes, lines: Sequence[Line]) -> None:
        reservation = Reservation(self._budget)
        if len(body) > MIN_COUNTED:
            reservation.resize(len(body))
        try:
            if body:
                await send_json(self._send, status, body, lines)
            else:
                await send_empty(self._send, status, lines)
        finally:
            reservation.release()


async def watch_disconnect(receive: AsgiReceive, gone: Callable[[], None]) -> None:
    """Call `gone` when the client disconnects."""
    while (await receive())["type"] != "http.disconnect":
        pass
    gone()
