"""What a link keeps track of beside its requests: calls that were abandoned, and messages that were invalid."""

import logging
from typing import Final

from mcp_manifold.backends.link.pending import PendingRequest
from mcp_manifold.backends.process.stderr_tail import printable
from mcp_manifold.clock import Clock
from mcp_manifold.model.call import Session
from mcp_manifold.wire import UNSET, Envelope, Payload, is_object, object_members

logger = logging.getLogger(__name__)

LOGGED: Final = 10
"""Invalid messages logged in one second; the rest is counted."""
FLOOD: Final = 10_000
"""Invalid messages in one second that end the link: a working server does not print that much by mistake."""
EXCERPT: Final = 200
"""Bytes of an invalid message that are shown."""


class AbandonedCalls:
    """Calls that were cancelled or timed out. The backend may still work on them and send requests for them.

    Each is remembered until the backend answers it, or for as long as it was allowed to take.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._until: dict[int, tuple[Session | None, float]] = {}

    def __repr__(self) -> str:
        return f"<AbandonedCalls {len(self._until)}>"

    def add(self, pending: PendingRequest) -> None:
        """Remember a request that was just abandoned, if a client's call caused the request."""
        now = self._clock.now()
        self._until = {number: each for number, each in self._until.items() if each[1] > now}
        if pending.call is not None or pending.is_parked:
            session = None if pending.call is None else pending.call.session
            self._until[pending.number] = (session, now + pending.timeout)

    def clear(self, number: int) -> None:
        """Forget a request, because the backend has answered it after all."""
        self._until.pop(number, None)

    @property
    def clients(self) -> list[Session | None]:
        """The sessions that made the abandoned calls; None for a parked call whose client did not return."""
        now = self._clock.now()
        return [session for session, until in self._until.values() if until > now]


class InvalidMessageMonitor:
    """Logs a link's invalid messages at a bounded rate, and notices a flood of them.

    A few are usual, such as a greeting on stdout or a stray print. A flood costs processor time and log space. `first`
    is the first of them with a word in it, cut and printable.
    """

    def __init__(self, backend: str) -> None:
        self._backend = backend
        self._second = 0
        self._count = 0
        self.first = ""

    def __repr__(self) -> str:
        return f"<InvalidMessageMonitor of {self._backend} {self._count} this second>"

    def is_flood(self, data: bytes, reason: str, now: float) -> bool:
        """Count an invalid message; returns whether there were too many in this second."""
        second = int(now)
        if second != self._second:
            if self._count > LOGGED:
                extra = {"backend": self._backend, "times": self._count - LOGGED}
                logger.warning("more invalid messages from backend", extra=extra)
            self._second, self._count = second, 0
        self._count += 1
        if self._count <= LOGGED:
            extra_reason = {"backend": self._backend, "reason": reason, "line": self.note(data)}
            logger.warning("invalid message from backend; send logs to stderr", extra=extra_reason)
        return self._count >= FLOOD

    def note(self, data: bytes) -> str:
        """Remember the first invalid message; returns this one, cut and printable."""
        text = printable(data[:EXCERPT].decode("utf-8", "replace"))
        self.first = self.first or (text if any(char.isalpha() for char in text) else "")
        return text


def is_bare(data: bytes) -> bool:
    """Whether a message has no member but an id. No logger writes such a line."""
    return object_members(Payload(data)).keys() == {"jsonrpc", "id"}


def is_echo(method: str, pending: PendingRequest | None) -> bool:
    """Whether a message is our own request, printed back by the server. Not for task requests: both sides send them."""
    return pending is not None and pending.method == method and not method.startswith("tasks/")


def is_noise(envelope: Envelope) -> bool:
    """Whether a message without a method answers no request: a log line may have an `id` or even an `error`."""
    outcome = envelope.error if envelope.result is UNSET else envelope.result
    if outcome is UNSET or (outcome is envelope.error and bytes(outcome) == b"null"):
        return True
    return not (envelope.jsonrpc or is_object(outcome))
