"""The stdio front: serves one client on this process's stdin and stdout. Knows no HTTP.

It serves both eras: `initialize` opens the client's session, and 2026-07-28 requests need none. The end of stdin ends
the client.
"""

import asyncio
import logging
import re
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import Final

from mcp_manifold.fronts.conversation import Conversation
from mcp_manifold.fronts.gateway import Gateway
from mcp_manifold.fronts.line_writer import LineWriter
from mcp_manifold.fronts.pipes import Inlet, claimed_stdio, is_file, reading, unblocked
from mcp_manifold.fronts.sessions import OpenSession
from mcp_manifold.model.policy import LOCAL
from mcp_manifold.wire import NULL_ID, Payload, encode, failure
from mcp_manifold.wire.lines import KEPT, LineCutter
from mcp_manifold.wire.payload import walk_members
from mcp_manifold.wire.protocol import INVALID_REQUEST

logger = logging.getLogger(__name__)
_OUTBOX: Final = 1000
_AT_ONCE: Final = 16
"""Lines handled per turn of the event loop, so that a burst does not delay earlier responses."""
_LAST_SECONDS: Final = 1.0
"""Seconds that calls in flight get when stdin ends: enough for scripts that pipe in requests."""
_FILE_SECONDS: Final = 30.0
"""The same when stdin is a file, whose end does not mean that a client left."""
_ID: Final = re.compile(rb'"(?:[^"\\]|\\.)*"|-?[0-9]+')
_LAST_ID: Final = re.compile(
    rb'[{,]\s*"id"\s*:\s*(%b)\s*(?:,\s*"[a-z]+"\s*:\s*"[^"\\]*"\s*)*}\s*\Z' % _ID.pattern, re.DOTALL
)
"""The id of a request whose last members it is among, which several clients write it as."""
_OUTCOME: Final = re.compile(rb'[\s,]*"(?:result|error)"')
_FLUSH_SECONDS: Final = 2.0
"""Seconds to write the last responses. Without this limit a stalled client would keep the process alive."""

Claim = Callable[[], AbstractContextManager[tuple[int, int]]]


class StdioFront:
    """Serves one client until it disconnects.

    Args:
        scope: the scope that the client sees.
        claim: provides the descriptors to read and to write, which are closed when `serve` ends.
    """

    def __init__(self, gateway: Gateway, *, scope: str = "", claim: Claim = claimed_stdio) -> None:
        self._gateway = gateway
        self._scope = scope
        self._claim = claim
        self._stop: asyncio.Event | None = None
        self._writer: LineWriter | None = None
        self._conversation: Conversation | None = None
        self._is_asked = False

    def __repr__(self) -> str:
        return f"<StdioFront scope={self._scope!r} {self._writer!r}>"

    def close(self) -> None:
        """End `serve`, as if the client had disconnected."""
        if self._stop is not None:
            self._stop.set()

    def stop(self) -> None:
        """End `serve`: refuse new calls, and give those in flight a second. A second call cancels them at once.

        Clients kill a server that is still running two seconds after its termination signal.
        """
        if self._conversation is None:
            return
        if self._is_asked:
            self._conversation.cut()
        self._is_asked = True
        self._conversation.opened.refuse_calls()
        self.close()

    async def serve(self) -> None:
        """Serve until the client closes stdin or stops reading, or until `close` or `stop` is called."""
        self._stop = asyncio.Event()
        self._writer = writer = LineWriter(_OUTBOX)
        opened = OpenSession(self._gateway, "", "stdio", LOCAL, self._scope)
        self._conversation = conversation = Conversation(self._gateway, opened, writer, modern=True)
        opened.attach(writer.push, self.close)
        loop = asyncio.get_running_loop()
        intake = _Intake(self._gateway, conversation, writer)
        intake.over.add_done_callback(lambda _: self.close())
        with self._claim() as (source, target), unblocked(source, target):
            writing = loop.create_task(writer.run(target, self.close), name="front.stdout")
            last = _FILE_SECONDS if is_file(source) else _LAST_SECONDS
            try:
                async with reading(source, intake.fed):
                    await self._stop.wait()
                    if not writer.broken:
                        intake.finish()
                    last = min(self._gateway.settings.drain, _LAST_SECONDS) if self._is_asked else last
                    await conversation.settle(0 if writer.broken else last)
                    opened.end()
                    writer.end()
                    await asyncio.wait({writing}, timeout=_FLUSH_SECONDS)
                    if intake.over.done():
                        intake.over.result()
            finally:
                opened.end()
                intake.stop()
                writing.cancel()
                await asyncio.gather(writing, return_exceptions=True)


class _Intake:
    """Reads the client's lines: a limited number per turn, and none while the send buffer is full.

    `over` is done when stdin has ended and every line was handled.
    """

    def __init__(self, gateway: Gateway, conversation: Conversation, writer: LineWriter) -> None:
        self._gateway = gateway
        self._conversation = conversation
        self._writer = writer
        self._lines = LineCutter(gateway.settings.limits.max_body, with_end=True)
        self._waiting: deque[bytes | Payload] = deque()
        """Lines, and the ids of those that were too long."""
        self._is_paused = False
        self._has_ended = False
        self._loop = asyncio.get_running_loop()
        self.over: asyncio.Future[None] = self._loop.create_future()

    def __repr__(self) -> str:
        return f"<_Intake {len(self._waiting)} waiting{' paused' if self._is_paused else ''}>"

    def fed(self, data: bytes, inlet: Inlet) -> None:
        """Handle input. Empty data means the end of stdin."""
        if self.over.done():
            return
        self._waiting.extend(self._lines.feed(data) if data else self._lines.finish())
        if self._lines.oversized:
            self._waiting.extend(id_in(line) for line in self._lines.take_oversized())
        self._has_ended = not data
        if not self._is_paused:
            self._take(inlet)

    def finish(self) -> None:
        """Handle the lines that were read but still wait."""
        while self._waiting:
            self._take_line(self._waiting.popleft())

    def stop(self) -> None:
        """Stop handling lines."""
        self._waiting.clear()
        self.over.cancel()

    def _take(self, inlet: Inlet) -> None:
        """Handle waiting lines, up to the limit of this turn."""
        if self.over.done():
            return
        try:
            self._take_some()
        except Exception as exc:  # a defect ends `serve`, which raises it as well
            self.over.set_exception(exc)
            raise
        if self._waiting:
            if not self._is_paused:
                self._is_paused = True
                inlet.pause()
            if self._writer.is_full:
                self._writer.when_free(partial(self._take, inlet))
            else:
                self._loop.call_soon(self._take, inlet)
        elif self._has_ended:
            self.over.set_result(None)
        elif self._is_paused:
            self._is_paused = False
            inlet.resume()

    def _take_some(self) -> None:
        waiting, active = self._waiting, self._conversation.opened.active
        for _ in range(_AT_ONCE):
            if not waiting or self._writer.is_full:
                return
            self._take_line(waiting.popleft())
            if waiting and len(active) > self._gateway.settings.limits.max_calls_per_session // 2:
                return  # so that a burst of quick requests is not refused

    def _take_line(self, line: bytes | Payload) -> None:
        if isinstance(line, Payload):
            limit = self._gateway.settings.limits.max_body
            logger.warning("message refused: it is too long", extra={"limit": limit})
            error = {"code": INVALID_REQUEST, "message": f"Invalid request: longer than {limit} bytes"}
            self._writer.post(failure(line, encode(error)))
        elif line and not line.isspace():
            self._conversation.receive(line)


def id_in(line: bytes) -> Payload:
    """The request id in a message of which only the first and last bytes are known; a null id if it is not in them."""
    id_, at = b"", line.find(b"{") + 1
    try:
        for key, start, at in walk_members(line[:KEPT]):
            id_ = line[start:at] if key == "id" else id_
    except (ValueError, RecursionError):
        pass  # the line is cut
    if _OUTCOME.match(line, at):
        return NULL_ID
    found = _LAST_ID.search(line)
    if found is not None and not id_:
        id_ = found[1]
    return Payload(id_) if _ID.fullmatch(id_) else NULL_ID
