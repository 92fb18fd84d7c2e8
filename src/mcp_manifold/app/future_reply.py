"""Calls of an embedding program: values in, the answer in a future, progress to a callback."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import msgspec

from mcp_manifold.core.dispatcher import InFlightCall
from mcp_manifold.errors import CallCancelled
from mcp_manifold.model.call import Call
from mcp_manifold.wire import Payload, Pieces


class FutureReply:
    """The answer to one call, in a future. `emit` gets the call's notifications, if they are wanted."""

    __slots__ = ("_emit", "_outcome")

    def __init__(self, emit: Callable[..., None] | None = None) -> None:
        self._emit = emit
        self._outcome: asyncio.Future[Payload | Pieces] = asyncio.get_running_loop().create_future()

    def __repr__(self) -> str:
        return f"<FutureReply {'done' if self._outcome.done() else 'waiting'}>"

    async def answer(self, dispatch: Callable[[Call], InFlightCall], call: Call) -> Payload:
        """Make a call and wait for its result. If the caller is cancelled, cancel the call.

        Raises:
            ManifoldError: the call failed.
        """
        in_flight = dispatch(call)
        try:
            result = await self._outcome
        except asyncio.CancelledError:
            in_flight.cancel()
            raise
        return Payload(b"".join(result)) if isinstance(result, tuple) else result

    def emit(self, message: bytes, /, *, needed: bool = False) -> None:
        if self._emit is not None:
            self._emit(message, needed=needed)

    def stream(self) -> None:
        """Do nothing: a future has no event stream to begin."""

    def disconnected(self) -> None:
        """Do nothing: a program that leaves cancels what it awaits."""

    def respond(self, result: Payload | Pieces | None, failure: BaseException | None) -> None:
        if self._outcome.done():
            return
        if result is not None:
            self._outcome.set_result(result)
        else:
            self._outcome.set_exception(failure or CallCancelled())


def progress_to(on_progress: Callable[[dict[str, Any]], None]) -> Callable[..., None]:
    """A callback for a link that calls `on_progress` later, where an exception cannot end the link."""
    loop = asyncio.get_running_loop()

    def report(message: bytes) -> None:
        notification = decoded(message)
        if notification.get("method") == "notifications/progress":
            on_progress(notification["params"])

    def emit(message: bytes, /, *, needed: bool = False) -> None:
        loop.call_soon(report, message)

    return emit


def decoded(message: bytes | Payload) -> dict[str, Any]:
    """A server's JSON object as Python values. Control characters in strings are accepted, unlike in strict JSON."""
    try:
        found: dict[str, Any] = msgspec.json.decode(message)
    except (msgspec.DecodeError, UnicodeDecodeError):
        found = json.loads(bytes(message), strict=False)
    return found
