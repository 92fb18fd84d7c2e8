"""A list on the short way: the answer, and how it goes out. Judges nobody; `shortcut.py` does."""

import asyncio
from collections.abc import Callable
from typing import Final

from mcp_manifold.fronts.gateway import Gateway
from mcp_manifold.fronts.http.stream import Tally
from mcp_manifold.fronts.in_flight import Flight, concluded
from mcp_manifold.fronts.server import Reply
from mcp_manifold.fronts.sessions import OpenSession
from mcp_manifold.wire import Payload, Pieces, response_pieces

LIST: Final = b'/list"'
"""What the methods of all lists end in."""
OK: Final = 200


class Listed:
    """The answer to a request for a list, sent in the next turn; a Passage. Until then nothing can come in between, and
    the connection has time to know that it is being answered.
    """

    __slots__ = ("_landed", "_pieces", "_reply", "_status", "_tally")

    def __init__(self, pieces: Pieces, status: int, reply: Reply, tally: Tally, landed: Callable[[], None]) -> None:
        self._pieces = pieces
        self._status = status
        self._reply = reply
        self._tally = tally
        self._landed = landed

    def __repr__(self) -> str:
        return f"<Listed {self._status} in {len(self._pieces)} pieces>"

    def begin(self) -> "Listed":
        """Have it sent."""
        asyncio.get_running_loop().call_soon(self._send)
        return self

    def left(self) -> None:
        """The client is gone before it was sent: so be it."""

    def _send(self) -> None:
        self._tally.bytes_out += sum(map(len, self._pieces))
        try:
            if self._status == OK:
                self._reply.share(self._pieces)
            else:
                self._reply.respond(self._status, b"".join(self._pieces))
        finally:
            self._landed()


def listed(gateway: Gateway, flight: Flight, id_: Payload) -> tuple[Pieces, int] | None:
    """The response to a request for a list, and its HTTP status; None if it has to go the long way."""
    try:
        result = gateway.listed(flight.call)
    except Exception as exc:  # noqa: BLE001  # the front's boundary: a defect must cost its caller an error, nobody more
        message, status = concluded(flight, id_, None, exc)
        return (message,), status
    return None if result is None else (response_pieces(id_, result), OK)


def listed_in(opened: OpenSession, gateway: Gateway, flight: Flight, id_: Payload) -> tuple[Pieces, int] | None:
    """The same in a session, in which it is in flight meanwhile.

    Raises:
        RequestError: as `OpenSession.depart`.
    """
    key = opened.depart(id_, flight, gateway.settings.limits.max_calls_per_session)
    try:
        return listed(gateway, flight, id_)
    finally:
        opened.land(key)


def unheard(message: bytes, /, *, needed: bool = False) -> None:
    """Where it goes what is sent for a call that is not on its way, or is answered at once."""
