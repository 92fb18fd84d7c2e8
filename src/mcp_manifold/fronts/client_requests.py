"""Server requests sent to one client, until it responds. Owns their ids; knows no stream and no backend."""

import asyncio
import json
from collections.abc import Callable
from typing import Final

from mcp_manifold.errors import CallCancelled
from mcp_manifold.wire import UNSET, Envelope, Payload, encode, notification, request

Post = Callable[[bytes], bool]
"""Sends a message on the stream that carries the request; False when no stream took it."""

MOST: Final = 256
"""Open requests per client. The limit bounds the memory that a server can use."""


class PendingClientRequests:
    """The open server requests of one session. Their ids are the session's own integers, never a backend's ids."""

    __slots__ = ("_last", "_waiting")

    def __init__(self) -> None:
        self._last = 0
        self._waiting: dict[bytes, asyncio.Future[Envelope]] = {}

    def __repr__(self) -> str:
        return f"<PendingClientRequests open={len(self._waiting)}>"

    def __len__(self) -> int:
        return len(self._waiting)

    def ask(self, method: str, params: Payload | None, post: Post) -> "asyncio.Future[Envelope]":
        """Send a request; the future holds the response. Cancelling it sends `notifications/cancelled`."""
        asked: asyncio.Future[Envelope] = asyncio.get_running_loop().create_future()
        if len(self._waiting) >= MOST:
            asked.set_exception(CallCancelled("the client has too many questions to answer already"))
            return asked
        self._last = number = self._last + 1
        key = id_key(Payload(b"%d" % number))
        self._waiting[key] = asked
        asked.add_done_callback(lambda _: self._over(key, number, asked, post))
        if not post(request(number, method, None if params is None else bytes(params))):
            asked.set_exception(CallCancelled("the client has no stream on which it could be asked"))
        return asked

    def answered(self, envelope: Envelope) -> None:
        """Handle a client's response. Ignore one that answers no open request."""
        asked = None if envelope.id is UNSET else self._waiting.get(id_key(envelope.id))
        if asked is not None and not asked.done():
            asked.set_result(envelope)

    def close(self) -> None:
        """Fail all open requests, because the client left."""
        for asked in list(self._waiting.values()):
            if not asked.done():
                asked.set_exception(CallCancelled("the client left"))

    def _over(self, key: bytes, number: int, asked: "asyncio.Future[Envelope]", post: Post) -> None:
        self._waiting.pop(key, None)
        if asked.cancelled():
            params = encode({"requestId": number, "reason": "the server no longer needs the answer"})
            post(notification("notifications/cancelled", params))
        else:
            asked.exception()  # mark as retrieved: nobody may await it any more


def id_key(id_: Payload) -> bytes:
    """The canonical form of a request id: `1.0` becomes `1`, escapes in strings are resolved."""
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
