"""What calls made by an embedding program need besides: values in and out, and callbacks. Knows no parts."""

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from mcp_manifold.core.dispatcher import InFlightCall
from mcp_manifold.errors import CallCancelled
from mcp_manifold.model.call import Call
from mcp_manifold.wire import Payload, Pieces


def heard_by(on_progress: Callable[[dict[str, Any]], None]) -> Callable[..., None]:
    """Notifications for a callback: called by the loop, so that one that fails does not end the link."""
    loop = asyncio.get_running_loop()

    def emit(message: bytes, /, *, needed: bool = False) -> None:
        loop.call_soon(progressed, message, on_progress)

    return emit


def progressed(message: bytes, on_progress: Callable[[dict[str, Any]], None]) -> None:
    told = decoded(message)
    if told.get("method") == "notifications/progress":
        on_progress(told["params"])


def decoded(message: bytes | Payload) -> dict[str, Any]:
    """A server's object as Python values, even where it is only nearly JSON."""
    try:
        found: dict[str, Any] = msgspec.json.decode(message)
    except (msgspec.DecodeError, UnicodeDecodeError):
        found = json.loads(bytes(message), strict=False)
    return found


def overridden(source: Mapping[str, Any], overrides: Mapping[str, object]) -> Mapping[str, Any]:
    flags = {key: value for key, value in overrides.items() if value not in (None, ())}
    written = source.get("manifold", {})
    return {**source, "manifold": {**written, **flags}} if flags and isinstance(written, Mapping) else source


class FutureReply:
    """The answer to a call of an embedding program, in a future. `emit` gets notifications, if they are wanted."""

    __slots__ = ("_emit", "_outcome")

    def __init__(self, emit: Callable[..., None] | None = None) -> None:
        self._emit = emit
        self._outcome: asyncio.Future[Payload | Pieces] = asyncio.get_running_loop().create_future()

    def __repr__(self) -> str:
        return f"<FutureReply {'done' if self._outcome.done() else 'waiting'}>"

    async def answer(self, dispatch: Callable[[Call], InFlightCall], call: Call) -> Payload:
        """Make a call and wait for its result; cancelling this cancels the call. Raises the call's failure."""
        in_flight = dispatch(call)
        try:
            result = await self._outcome
        except asyncio.CancelledError:
            in_flight.cancel()
            raise
        return Payload(b"".join(result)) if isinstance(result, tuple) else result

    def emit(self, message: bytes, /, *, needed: bool = False) -> None:
        """See `call.Reply`."""
        if self._emit is not None:
            self._emit(message, needed=needed)

    def stream(self) -> None:
        """See `call.Reply`: there is no stream to begin."""

    def disconnected(self) -> None:
        """See `call.Reply`: a program that goes away cancels what it awaits."""

    def respond(self, result: Payload | Pieces | None, failure: BaseException | None) -> None:
        """See `call.Reply`."""
        if self._outcome.done():
            return
        if result is not None:
            self._outcome.set_result(result)
        else:
            self._outcome.set_exception(failure or CallCancelled())
