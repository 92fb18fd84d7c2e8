"""The stdio front: one client on this process's stdin and stdout. Knows no HTTP.

Both eras on the one channel: `initialize` opens the client's session, a request that carries its own revision needs
none. The end of stdin is the end of the client.
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Final

from mcp_manifold.fronts.conversation import Conversation
from mcp_manifold.fronts.desk import Desk
from mcp_manifold.fronts.pipes import Lines, LineWriter, claimed_stdio, is_file, reading
from mcp_manifold.fronts.session import OpenSession
from mcp_manifold.policy import LOCAL
from mcp_manifold.wire import NULL_ID, encode, failure
from mcp_manifold.wire.protocol import INVALID_REQUEST

_logger = logging.getLogger("mcp_manifold.fronts.stdio")
_CHUNK: Final = 64 * 1024
_OUTBOX: Final = 1000
_LAST_SECONDS: Final = 1.0
"""Seconds the calls in flight are given when stdin ends: enough for a script that pipes requests in to get its
answers, short enough for a client that left."""
_FILE_SECONDS: Final = 30.0
"""The same when stdin is a file: there was never a client to leave."""
_FLUSH_SECONDS: Final = 2.0
"""Seconds the last answers may take to be written; without it a client that stopped reading would keep us alive."""

Claim = Callable[[], AbstractContextManager[tuple[int, int]]]


class StdioFront:
    """Serves one client until it leaves.

    Args:
        scope: the part of the manifold it sees.
        claim: gives the descriptors to read and to write, which are closed when serving ends.
    """

    __slots__ = ("_claim", "_conversation", "_desk", "_is_asked", "_scope", "_stop", "_writer")

    def __init__(self, desk: Desk, *, scope: str = "", claim: Claim = claimed_stdio) -> None:
        self._desk = desk
        self._scope = scope
        self._claim = claim
        self._stop: asyncio.Event | None = None
        self._writer: LineWriter | None = None
        self._conversation: Conversation | None = None
        self._is_asked = False

    def __repr__(self) -> str:
        return f"<StdioFront scope={self._scope!r} {self._writer!r}>"

    def close(self) -> None:
        """Make `serve` end, as if the client had left."""
        if self._stop is not None:
            self._stop.set()

    def stop(self) -> None:
        """Make `serve` end: no call begins any more, and those in flight get a moment, as when stdin ends. Again: none.

        Clients kill whom they told to end and who is still there two seconds later.
        """
        if self._conversation is None:
            return
        if self._is_asked:
            self._conversation.cut()
        self._is_asked = True
        self._conversation.opened.draining = True
        self.close()

    async def serve(self) -> None:
        """Serve until the client closes its end, stops reading, or `close` or `stop` is called."""
        self._stop = asyncio.Event()
        self._writer = writer = LineWriter(_OUTBOX)
        opened = OpenSession(self._desk, "", "stdio", LOCAL, self._scope)
        self._conversation = conversation = Conversation(self._desk, opened, writer, modern=True)
        opened.attach(writer.push, self.close)
        loop = asyncio.get_running_loop()
        with self._claim() as (source, target):
            writing = loop.create_task(writer.run(target, self.close), name="front.stdout")
            taking = loop.create_task(self._take(source, conversation, writer), name="front.stdin")
            taking.add_done_callback(lambda _: self.close())
            last = _FILE_SECONDS if is_file(source) else _LAST_SECONDS
            try:
                await self._stop.wait()
                last = min(self._desk.settings.drain, _LAST_SECONDS) if self._is_asked else last
                await conversation.settle(0 if writer.broken else last)
                opened.end()
                writer.end()
                await asyncio.wait({writing}, timeout=_FLUSH_SECONDS)
                if taking.done():
                    taking.result()
            finally:
                opened.end()
                for task in (taking, writing):
                    task.cancel()
                await asyncio.gather(taking, writing, return_exceptions=True)

    async def _take(self, source: int, conversation: Conversation, writer: LineWriter) -> None:
        lines = Lines(self._desk.settings.limits.max_body)
        async with reading(source) as reader:
            while data := await reader.read(_CHUNK):
                for line in lines.feed(data):
                    self._take_line(line, conversation, writer)
                    await writer.free()
                    await asyncio.sleep(0)  # a burst of quick requests is answered, not refused for its number
            for line in lines.finish():
                self._take_line(line, conversation, writer)

    def _take_line(self, line: bytes | None, conversation: Conversation, writer: LineWriter) -> None:
        if line is None:
            limit = self._desk.settings.limits.max_body
            _logger.warning("message refused: it is too long", extra={"limit": limit})
            error = {"code": INVALID_REQUEST, "message": f"Invalid request: longer than {limit} bytes"}
            writer.post(failure(NULL_ID, encode(error)))
        elif line and not line.isspace():
            conversation.receive(line)
