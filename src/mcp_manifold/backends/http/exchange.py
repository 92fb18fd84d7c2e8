"""One request and its response, seen from the caller: Exchange, Receiver, Headers, HttpFailure. Opens nothing."""

import sys
from collections.abc import Iterator
from typing import Literal, Protocol

FailureKind = Literal["connect", "tls", "timeout", "reset", "protocol", "limit"]

_MOST_DIGITS = 16
ENDLESS = sys.maxsize
"""What is left of the body limit of an exchange that has none."""


class HttpFailure(Exception):
    """An exchange did not complete. `sent` is False only if no byte of the request can have reached the peer."""

    def __init__(self, kind: FailureKind, reason: str, *, sent: bool) -> None:
        super().__init__(reason)
        self.kind: FailureKind = kind
        self.sent = sent


class Headers:
    """The header fields of a response, as received. Made once for all responses whose heads are the same."""

    __slots__ = ("_index", "_pairs", "is_event_stream", "length")

    def __init__(self, pairs: list[tuple[bytes, bytes]]) -> None:
        self._pairs = pairs
        self._index: dict[bytes, bytes] = {}
        for key, value in pairs:
            key = key.lower()
            self._index[key] = value if key not in self._index else self._index[key] + b", " + value
        self.is_event_stream = self._index.get(b"content-type", b"").startswith(b"text/event-stream")
        length = self._index.get(b"content-length", b"")
        self.length = int(length) if length.isdigit() and len(length) < _MOST_DIGITS else 0
        """Bytes of the body, as announced; 0 where nothing is. Of a response that is recognised, those of the first."""

    def __repr__(self) -> str:
        return f"<Headers {', '.join(name.decode('latin-1') for name, _ in self._pairs)}>"

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return ((name.decode("latin-1"), value.decode("latin-1")) for name, value in self._pairs)

    def get(self, name: bytes | str) -> str | None:
        """The value of a field, by its lower-case name; several fields of one name are joined with commas."""
        found = self._index.get(name if isinstance(name, bytes) else name.encode("latin-1"))
        return None if found is None else found.decode("latin-1")


class Receiver(Protocol):
    """Where a response goes. Called synchronously and in order; exactly one of `ended` and `failed` comes last."""

    def responded(self, status: int, headers: Headers) -> None:
        """The head of the final response."""

    def received(self, data: bytes) -> None:
        """A piece of the body, decoded."""

    def ended(self) -> None:
        """The response is complete."""

    def failed(self, exc: HttpFailure) -> None:
        """The response will not be completed."""


class Owner(Protocol):
    """Who has the exchange in hand: the pool while it waits, then its connection."""

    def give_up(self, exchange: "Exchange") -> None:
        """Its caller no longer wants this exchange."""


class Exchange:
    """One request and its response. `sent` tells whether the request was written to a connection."""

    __slots__ = ("done", "left", "owner", "receiver", "sent")

    def __init__(self, receiver: Receiver, owner: Owner, left: int) -> None:
        self.receiver = receiver
        self.owner = owner
        self.left = left  # how much more body is accepted
        self.sent = False
        self.done = False

    def __repr__(self) -> str:
        return f"<Exchange {'done' if self.done else 'sent' if self.sent else 'waiting'}>"

    def lift_limit(self) -> None:
        """The body turned out to be an event stream: its whole length is not limited."""
        self.left = ENDLESS

    def abort(self) -> None:
        """Give the exchange up, and its connection with it; the receiver hears nothing more. Harmless when done."""
        if not self.done:
            self.done = True
            self.owner.give_up(self)

    def fail(self, kind: FailureKind, reason: str) -> None:
        """End without a response, unless it is done already."""
        if not self.done:
            self.done = True
            self.receiver.failed(HttpFailure(kind, reason, sent=self.sent))
