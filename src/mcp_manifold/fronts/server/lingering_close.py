"""The end of a connection whose client is still sending: it is read on for a moment, and nothing becomes of it.

Closing at once would make the system answer what still comes in with a reset, and that can destroy our answer before
it was read.
"""

import asyncio
from typing import Final

LINGER: Final = 5.0
"""Seconds a client may go on sending after its answer; without, it could hold the connection for ever."""


class LingeringClose(asyncio.Protocol):
    """See the module. `before` is the protocol that wrote the answer; it still hears what concerns that."""

    __slots__ = ("_before", "_timer", "_transport")

    def __init__(self, transport: asyncio.Transport, before: asyncio.Protocol) -> None:
        self._transport = transport
        self._before = before
        self._timer = asyncio.get_running_loop().call_later(LINGER, transport.abort)

    def __repr__(self) -> str:
        return f"<LingeringClose from {self._before!r}>"

    def begin(self) -> None:
        """End our side."""
        self._transport.set_protocol(self)
        self._transport.write_eof()
        self._transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        """Too late."""

    def pause_writing(self) -> None:
        self._before.pause_writing()

    def resume_writing(self) -> None:
        self._before.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._timer.cancel()
        self._before.connection_lost(exc)
