"""One request's answer over HTTP: JSON if the result comes first, an event stream if anything else does.

Nothing is committed until it must be (the plain case costs no task and no stream). Later messages that belong to the
request, a server's question to the client among them, travel the same way: through `emit`, ahead of the answer.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from mcp_manifold.fronts.http.asgi import Line, Receive, Send, send_json
from mcp_manifold.fronts.http.resumption import Journal, Journals
from mcp_manifold.fronts.http.stream import KEEP_ALIVE, EventStream, Tally, watch_disconnect
from mcp_manifold.model.budget import MIN_COUNTED, Reservation
from mcp_manifold.wire.event_stream import encode_event

_QUICK: Final = 0.05
"""Seconds a request may take before anybody looks whether its client is still there."""

_SILENCE: Final = 0.5
"""Seconds a call may be silent before its client is given what it needs to come back after a lost connection."""


def silence(journals: Journals | None) -> float:
    """Seconds a call may be silent before its client is given a stream."""
    return _SILENCE if journals is not None and journals.are_primed else KEEP_ALIVE


class Responder:
    """Answers one request, once."""

    __slots__ = (
        "_done", "_gone", "_journals", "_pump", "_receive", "_send", "_stream", "_tally", "_timer", "_watcher",
        "headers", "journal",
    )  # fmt: skip

    def __init__(self, send: Send, tally: Tally, journals: Journals | None = None) -> None:
        self._send = send
        self._tally = tally
        self._journals = journals
        self.journal: Journal | None = None
        """What the client can come back to; None unless there is a stream, and its client may resume it."""
        self.headers: Sequence[Line] = ()
        """Header lines of the answer; without effect once it is committed."""
        self._receive: Receive | None = None
        self._gone: Callable[[], None] | None = None
        self._done = False
        self._stream: EventStream | None = None
        self._pump: asyncio.Task[None] | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<Responder {'done' if self._done else 'streaming' if self._stream else 'uncommitted'}>"

    def open(self, receive: Receive | None = None, gone: Callable[[], None] | None = None) -> None:
        """Commit to a stream should the call stay silent for long, and call `gone` when the client leaves that."""
        self._receive, self._gone = receive, gone
        self._timer = asyncio.get_running_loop().call_later(silence(self._journals), self.commit)

    def open_watched(self, receive: Receive, gone: Callable[[], None]) -> None:
        """As `open`, and call `gone` when the client leaves before there is a stream as well."""
        self._receive, self._gone = receive, gone
        self._timer = asyncio.get_running_loop().call_later(_QUICK, self._look)

    def emit(self, message: bytes, /, *, needed: bool = False) -> None:
        """Send a message ahead of the answer; see `call.Emit`."""
        if self._done:
            return
        self.commit()
        if self.journal is not None:
            (self.journal.post if needed else self.journal.push)(message)
        elif self._stream is not None:
            (self._stream.post if needed else self._stream.push)(encode_event(message))

    def commit(self) -> None:
        """Switch to an event stream."""
        if self._done or self._stream is not None:
            return
        self._drop_timer()
        self._look_after()
        self._stream = EventStream(self._send, self._tally, headers=self.headers)
        if self._journals is not None:
            self.journal = self._journals.begin(self._stream)
            self.journal.gone = self._gone
        self._pump = asyncio.get_running_loop().create_task(self._stream.run(), name="front.pump")
        self._pump.add_done_callback(self._pumped)

    async def finish(self, message: bytes, status: int = 200) -> None:
        """Send the answer, and end."""
        self._done = True
        self._drop_timer()
        if self._stream is None or self._pump is None:
            self._tally.bytes_out += len(message)
            if len(message) <= MIN_COUNTED:
                await send_json(self._send, status, message, self.headers)
            else:
                await self._send_large(status, message)
        elif self.journal is not None:
            self.journal.end(message)
            await self._pump
        else:
            self._stream.end(encode_event(message))
            await self._pump

    async def _send_large(self, status: int, message: bytes) -> None:
        reservation = Reservation(self._tally.budget)
        reservation.resize(len(message))
        try:
            await send_json(self._send, status, message, self.headers)
        finally:
            reservation.release()

    def close(self) -> None:
        """Let go of everything, whatever came of it."""
        self._done = True
        self._gone = None  # it leads to the call, and that back here
        self._drop_timer()
        if self.journal is not None and not self.journal.ended:
            self.journal.drop()
        if self._watcher is not None:
            self._watcher.cancel()
        if self._pump is not None:
            self._pump.cancel()

    def _pumped(self, _: "asyncio.Task[None]") -> None:
        """The stream is over; before the answer, only because its reader stalled or left."""
        if not self._done:
            self._left()

    def _left(self) -> None:
        """The client is gone; not so if it reads the rest elsewhere, which it may begin to do later as well."""
        journal, stream = self.journal, self._stream
        if journal is not None and stream is not None and not journal.left(stream):
            return
        if self._gone is not None and not self._done:
            self._gone()

    def _look(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(KEEP_ALIVE, self.commit)
        self._look_after()

    def _look_after(self) -> None:
        if self._receive is not None and self._gone is not None and self._watcher is None:
            watching = watch_disconnect(self._receive, self._left)
            self._watcher = asyncio.get_running_loop().create_task(watching, name="front.watch")

    def _drop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
