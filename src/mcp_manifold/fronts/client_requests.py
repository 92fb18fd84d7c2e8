"""Requests sent to one client, until it answers them. Owns their ids; knows no stream, no server."""

import asyncio
import json
from collections.abc import Callable
from typing import Final

from mcp_manifold.errors import CallCancelled
from mcp_manifold.wire import UNSET, Envelope, Payload, encode, notification, request

Post = Callable[[bytes], object]
"""Hands a message to the stream on which the client was, or is, asked."""

MOST: Final = 256
"""Questions one client may be left with; a server that asks for ever must not fill our memory."""


class PendingClientRequests:
    """The open questions of one session. Ids are integers of the session's own, never a server's."""

    __slots__ = ("_last", "_waiting")

    def __init__(self) -> None:
        self._last = 0
        self._waiting: dict[bytes, asyncio.Future[Envelope]] = {}

    def __repr__(self) -> str:
        return f"<PendingClientRequests open={len(self._waiting)}>"

    def __len__(self) -> int:
        return len(self._waiting)

    def ask(self, method: str, params: Payload | None, post: Post) -> "asyncio.Future[Envelope]":
        """Send a request; the future gives the response. Cancelling it tells the client that it is taken back."""
        asked: asyncio.Future[Envelope] = asyncio.get_running_loop().create_future()
        if len(self._waiting) >= MOST:
            asked.set_exception(CallCancelled("the client has too many questions to answer already"))
            return asked
        self._last = number = self._last + 1
        key = id_key(Payload(b"%d" % number))
        self._waiting[key] = asked
        asked.add_done_callback(lambda _: self._over(key, number, asked, post))
        post(request(number, method, None if params is None else bytes(params)))
        return asked

    def answered(self, envelope: Envelope) -> None:
        """Take a response of the client's; one to no open question goes nowhere."""
        asked = None if envelope.id is UNSET else self._waiting.get(id_key(envelope.id))
        if asked is not None and not asked.done():
            asked.set_result(envelope)

    def unreachable(self) -> None:
        """The last question did not get through: nobody will answer it."""
        asked = self._waiting.get(id_key(Payload(b"%d" % self._last)))
        if asked is not None and not asked.done():
            asked.set_exception(CallCancelled("the client has no stream on which it could be asked"))

    def close(self) -> None:
        """The client left: nothing will be answered any more."""
        for asked in list(self._waiting.values()):
            if not asked.done():
                asked.set_exception(CallCancelled("the client left"))

    def _over(self, key: bytes, number: int, asked: "asyncio.Future[Envelope]", post: Post) -> None:
        self._waiting.pop(key, None)
        if asked.cancelled():
            params = encode({"requestId": number, "reason": "the server no longer needs the answer"})
            post(notification("notifications/cancelled", params))
        else:
            asked.exception()  # read here, since whoever asked may be gone


def id_key(id_: Payload) -> bytes:
    """A request id in one spelling: `1.0` is `1`, an escaped string is plain."""
    raw = bytes(id_)
    if raw.isdigit() or (raw.startswith(b'"') and b"\\" not in raw):
        return raw
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError):
        return raw
    if isinstance(value, float):
        if not value.is_integer():  # a fraction, or more than a float can hold
            return raw
        value = int(value)
    try:
        return encode(value)
    except (ValueError, OverflowError):  # lone surrogates; integers beyond 64 bits
        return raw
