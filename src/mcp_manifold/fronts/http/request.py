"""An admitted HTTP request, and the reading of its body. Knows no era and no session."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from mcp_manifold.fronts.checks import Headers
from mcp_manifold.fronts.http.asgi import AsgiReceive, AsgiSend
from mcp_manifold.fronts.http.routes import EndpointRoute
from mcp_manifold.fronts.http_errors import HttpError, Refused
from mcp_manifold.http1.head import Line
from mcp_manifold.model.budget import Reservation
from mcp_manifold.model.policy import Principal

BODY_SECONDS: Final = 30.0
"""Seconds until a body must be complete. Without this limit a slow client could hold memory for ever."""


@dataclass(slots=True, eq=False)
class HttpRequest:
    """A request to an endpoint, with its principal."""

    headers: Headers
    lines: Sequence[Line]
    route: EndpointRoute
    principal: Principal
    accepts_events: bool
    receive: AsgiReceive
    send: AsgiSend
    query: bytes
    mount: str = ""
    """The path at which another application mounts this one."""

    def __repr__(self) -> str:
        return f"<HttpRequest {self.route.kind} scope={self.route.scope!r} by {self.principal.name}>"


async def read_body(receive: AsgiReceive, headers: Headers, limit: int, reservation: Reservation) -> bytes:
    """Read the whole body, at most `limit` bytes. `reservation` reserves the memory for it.

    Raises:
        Refused: 413 when it is too large, 408 when it takes too long, 400 for a length that is no number, 503 without
            room.
        ConnectionAbortedError: the client disconnected before the body was complete.
    """
    declared = headers.get(b"content-length")
    if declared is not None:
        if not declared.isdigit():
            raise Refused(HttpError.INVALID_LENGTH)
        if len(declared) > 18 or int(declared) > limit:
            raise Refused(HttpError.LARGE_BODY, limit=limit)
        _require_room(reservation, int(declared))
    try:
        async with asyncio.timeout(BODY_SECONDS):
            return await _collect(receive, limit, reservation)
    except TimeoutError:
        raise Refused(HttpError.LATE_BODY) from None


async def _collect(receive: AsgiReceive, limit: int, reservation: Reservation) -> bytes:
    message = await receive()
    if message["type"] == "http.request" and not message.get("more_body"):
        body: bytes = message.get("body", b"")
        if len(body) > limit:
            raise Refused(HttpError.LARGE_BODY, limit=limit)
        return body
    chunks: list[bytes] = []
    size = 0
    while message["type"] == "http.request":
        chunks.append(message.get("body", b""))
        size += len(chunks[-1])
        if size > limit:
            raise Refused(HttpError.LARGE_BODY, limit=limit)
        if size > reservation.size:
            _require_room(reservation, size)
        if not message.get("more_body"):
            return b"".join(chunks)
        message = await receive()
    raise ConnectionAbortedError


def _require_room(reservation: Reservation, size: int) -> None:
    if not reservation.try_resize(size):
        raise Refused(HttpError.NO_MEMORY)
