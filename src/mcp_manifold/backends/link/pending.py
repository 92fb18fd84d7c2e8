"""What a link is made from: a request that waits for its answer, the transport below, the ears above. Holds no link."""

import asyncio
import re
from collections.abc import Callable, Mapping
from math import inf
from typing import Any, Final, Protocol

from mcp_manifold.model.call import Call, ResultCallback
from mcp_manifold.wire import Payload

_ID: Final = re.compile(rb'"id"\s*:\s*"?(\d{1,18})')
HUMAN_WAIT: Final = 3600.0
"""Seconds a call may stand still while a person is asked something on its behalf; without, a forgotten dialog leaks."""


class Outcome(Protocol):
    """Where it goes what becomes of a request: a future, where somebody waits for it."""

    def done(self) -> bool:
        """Whether it is known."""

    def cancelled(self) -> bool:
        """Whether nobody wants to know any more."""

    def set_result(self, result: Payload, /) -> None:
        """It has this result."""

    def set_exception(self, exception: Exception, /) -> None:
        """It has none, and this is why."""


class CallbackOutcome:
    """The outcome of a request nobody waits for: told once, in the turn in which it came; then nothing is left of the
    call to take back.
    """

    __slots__ = ("_call", "_told")

    def __init__(self, call: Call, told: ResultCallback) -> None:
        self._call = call
        self._told: ResultCallback | None = told

    def __repr__(self) -> str:
        return f"<CallbackOutcome {'done' if self._told is None else 'open'}>"

    def done(self) -> bool:
        return self._told is None

    def cancelled(self) -> bool:
        return False

    def set_result(self, result: Payload, /) -> None:
        told, self._told = self._told, None
        if told is not None:
            self._call.on_cancel(None)
            told(result, None)

    def set_exception(self, exception: Exception, /) -> None:
        told, self._told = self._told, None
        if told is not None:
            self._call.on_cancel(None)
            told(None, exception)


class PendingRequest:
    """One request of ours that waits for its answer."""

    __slots__ = (
        "abort",
        "begun",
        "call",
        "ceiling",
        "deadline",
        "is_parked",
        "latest",
        "method",
        "number",
        "outcome",
        "params",
        "paused",
        "stalls",
        "timeout",
        "token",
    )

    def __init__(
        self, number: int, method: str, params: Mapping[str, Payload], timeout: float, outcome: Outcome
    ) -> None:
        self.number = number
        self.method = method
        self.params = params
        self.timeout = timeout
        self.begun = 0.0
        self.deadline = 0.0
        self.ceiling = inf
        """Seconds it may take in all, whatever progress is reported."""
        self.latest = 0.0
        """When those are over, by the loop's clock; 0 before it is known."""
        self.paused = 0.0
        """Since when its time stands still; 0 while it runs."""
        self.call: Call | None = None
        self.token: Payload | None = None
        self.outcome = outcome
        self.stalls = 0
        """Questions, its own or perhaps its own, during which its time stands still."""
        self.is_parked = False
        """Its caller was sent away for input; the backend still works on it."""
        self.abort: Callable[[], None] | None = None
        """Set by a transport on which giving up means closing this request's own stream."""

    def __repr__(self) -> str:
        return f"<PendingRequest {self.number} {self.method}>"

    @property
    def future(self) -> "asyncio.Future[Payload]":
        """Its outcome, for those who wait for it."""
        assert isinstance(self.outcome, asyncio.Future), "whoever is told does not wait"
        return self.outcome


class Transport(Protocol):
    """How a link's bytes travel. Calls `Link.fed`, `Link.fail` and `Link.lost`; each synchronously, in wire order."""

    def send_request(self, pending: PendingRequest, body: bytes) -> None:
        """Send a request. Raises BackendError when it certainly cannot be sent."""

    def send_note(self, body: bytes) -> asyncio.Future[None] | None:
        """Send a notification or response; the future, if any, is done when the peer accepted it."""

    def adopt(self, version: str) -> None:
        """The session is negotiated: speak this revision from now on."""

    async def aclose(self) -> None:
        """Release everything, within a bound."""


class MessageHandler(Protocol):
    """Who works off what a backend sends of its own accord; called in wire order."""

    def asked(self, method: str, id_: Payload, params: Payload | None, origin: PendingRequest | None) -> None:
        """A request of the backend's, other than `ping`. `origin`: the request on whose own stream it came."""

    def told(self, method: str, params: Payload, origin: PendingRequest | None) -> None:
        """A notification, other than the progress of a request that is pending."""

    def has_room(self) -> bool:
        """Whether one more notification may be passed on now; else it is dropped."""

    def over(self, pending: PendingRequest) -> None:
        """A request is over: nobody wants to know any more what was asked for its sake. Told before its outcome is."""

    def lost(self) -> None:
        """The link is dead."""


def note_outcome(future: "asyncio.Future[Payload]") -> None:
    """Take note of how a request ended for which nobody may come back."""
    if not future.cancelled():
        future.exception()


def either(first: "asyncio.Future[Any]", second: "asyncio.Future[Any]") -> set["asyncio.Future[Any]"]:
    """Two futures to wait for, whatever they hold."""
    return {first, second}


def number_of(id_: Payload | object) -> int:
    """Our own request number in an id as a backend wrote it: `7`, `"7"` and `7.0` are the same; -1 for all else."""
    text = bytes(id_) if isinstance(id_, Payload) else b""
    if len(text) > 32:  # none of ours, and perhaps more digits than Python converts
        return -1
    try:
        return int(text)
    except ValueError:
        stripped = text.strip(b'"')
        whole, _, fraction = stripped.partition(b".")
        return int(whole) if whole.isdigit() and not fraction.strip(b"0") else -1


def number_in(start: bytes) -> int:
    """The id in the beginning of what should have been a message; 0 for none."""
    found = _ID.search(start, 0, 4096)
    return int(found.group(1)) if found else 0
