"""A request that waits for its answer, and the two seams of a Link: the transport below, the handler above."""

import asyncio
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import inf
from typing import Final, Protocol

from mcp_manifold.errors import CallCancelled
from mcp_manifold.model.call import Call
from mcp_manifold.wire import Payload, ResultView

_VERSION: Final = rb'(?:"jsonrpc"\s*:\s*"2\.0"\s*,\s*)?'
_ANSWER: Final = re.compile(
    rb"\s*\{\s*" + _VERSION + rb'"id"\s*:\s*"?(\d{1,18})"?\s*,\s*' + _VERSION + rb'"(?:result|error)"\s*:'
)
HUMAN_WAIT: Final = 3600.0
"""Seconds a call may pause for a person's input; without this bound a forgotten dialog leaks."""


@dataclass(slots=True, eq=False)
class PendingRequest:
    """One request of ours that waits for its answer: a record that its Link keeps and changes.

    `call` is the client's request behind it; None for a request of our own, and while it is parked.
    """

    number: int
    method: str
    params: Mapping[str, Payload]
    timeout: float
    """Seconds without progress it may take."""
    ceiling: float
    """Seconds it may take in total, whatever progress is reported."""
    call: Call | None
    on_result: "ResultCallback | None"
    """Receives the result or the failure; None once that happened."""
    begun: float = 0.0
    """When it was sent, by the link's clock."""
    deadline: float = inf
    latest: float = 0.0
    """When `ceiling` is reached, by the link's clock; 0 before its deadline is watched."""
    paused: float = 0.0
    """Since when its deadline is paused; 0 while it runs."""
    token: Payload | None = None
    """The progress token the client gave."""
    view: ResultView | None = None
    """The members of its large result, found while it was parsed."""
    stalls: int = 0
    """Open server requests, its own or possibly its own, that pause its deadline."""
    garbled: str = ""
    """What was wrong with a message that looked like its answer; empty if there was none."""
    is_parked: bool = False
    """Its client was sent away for input, and the backend still works on it."""
    kept: tuple[Payload | None, Exception | None] | None = None
    """The outcome that arrived while it was parked."""
    outcome: "asyncio.Future[Payload] | None" = None
    """Holds the outcome, for a request of our own."""
    abort: Callable[[], None] | None = None
    """Closes the response stream of this request; None if it has none of its own."""

    def __repr__(self) -> str:
        return f"<PendingRequest {self.number} {self.method}{' parked' if self.is_parked else ''}>"

    def note_stream(self, abort: Callable[[], None] | None) -> None:
        """Adopt what closes its own response stream, as told by its transport; None once the stream has ended."""
        self.abort = abort

    @property
    def future(self) -> "asyncio.Future[Payload]":
        """The future of the outcome. Only a request made by `Link.begin` has one."""
        assert self.outcome is not None, "the outcome of a call goes to its callback"
        return self.outcome

    @property
    def is_done(self) -> bool:
        """Whether the outcome is known."""
        return self.on_result is None or self.kept is not None

    @property
    def expired_timeout(self) -> str:
        """The timeout that expired, as text such as `60 s`."""
        if self.latest > self.deadline:
            return f"{self.timeout:g} s"
        return f"{self.ceiling:g} s" + (" in all" if self.ceiling > self.timeout else "")


ResultCallback = Callable[[PendingRequest, Payload | None, Exception | None], None]
"""Receives a request's result, or why there is none: one of the two is None."""


class Transport(Protocol):
    """Carries a link's bytes. Calls `Link.fed`, `Link.fail` and `Link.lost` synchronously, in wire order."""

    def send_request(self, pending: PendingRequest, body: bytes) -> None:
        """Send a request; complete nothing before this returns. Raises BackendError if it certainly was not sent."""

    def send_note(self, body: bytes) -> asyncio.Future[None] | None:
        """Send a notification or response. The future, if any, is done when the peer accepted the message."""

    def adopt(self, version: str) -> None:
        """Use this negotiated protocol revision from now on."""

    async def aclose(self) -> None:
        """Release everything, within a time limit."""


class MessageHandler(Protocol):
    """Handles the messages that a backend sends unasked; called in wire order."""

    def on_request(self, method: str, id_: Payload, params: Payload | None, origin: PendingRequest | None) -> None:
        """Handle a server request other than `ping`. `origin` is the request on whose stream it came."""

    def on_notification(self, method: str, params: Payload, origin: PendingRequest | None) -> None:
        """Handle a notification, other than the progress of a pending request."""

    def has_room(self) -> bool:
        """Whether the rate limit permits one more notification. If not, the notification is dropped."""

    def on_finished(self, pending: PendingRequest) -> None:
        """Withdraw the server requests that an ended request caused. Called before its outcome is reported."""

    def on_lost(self) -> None:
        """Withdraw every server request, because the link has ended."""


def answered_by(start: bytes) -> int:
    """The number of the request that an invalid message seems to answer, judged by its start; 0 for none.

    A line that mentions an id somewhere, such as a log line or an echo, answers nothing.
    """
    found = _ANSWER.match(start, 0, 4096)
    return int(found.group(1)) if found else 0


def settle_future(outcome: "asyncio.Future[Payload]") -> ResultCallback:
    """A callback that puts the outcome of a request into `future`."""

    def settled(pending: PendingRequest, result: Payload | None, failure: Exception | None) -> None:
        if outcome.done():
            return
        if result is not None:
            outcome.set_result(result)
        else:
            outcome.set_exception(failure or CallCancelled())

    return settled


def retrieve(outcome: "asyncio.Future[Payload]") -> None:
    """Mark the failure of a future as retrieved, because its caller may have gone."""
    if not outcome.cancelled():
        outcome.exception()


def ignore(pending: PendingRequest, result: Payload | None, failure: Exception | None) -> None:
    """Do nothing. Parked requests have this callback."""
