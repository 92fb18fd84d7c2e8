"""What calls made by an embedding program need besides: values in and out, and callbacks. Knows no parts."""

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from mcp_manifold.model.call import Emit
from mcp_manifold.wire import Payload


def heard_by(on_progress: Callable[[dict[str, Any]], None]) -> Emit:
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


def unheard(message: bytes, /, *, needed: bool = False) -> None:
    """Where a caller's notifications go when it did not ask for any."""
