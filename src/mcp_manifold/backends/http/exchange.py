"""One HTTP request and its response, as the caller sees them. Opens no connection."""

import re
import sys
from collections.abc import Iterator
from math import inf
from typing import Final, Literal, Protocol

FailureKind = Literal["connect", "tls", "timeout", "reset", "protocol", "limit"]

_KEEP_ALIVE: Final = re.compile(rb"\btimeout=(\d{1,6})\b", re.IGNORECASE)
_MAX_DIGITS: Final = 16
RequestParts = tuple[bytes, bytes, bytes]
"""Head, further header lines and body."""
FORGOTTEN: Final = (b"", b"", b"")
"""In place of a request that is not sent again."""
NO_LIMIT: Final = sys.maxsize
"""Remaining bytes of an exchange whose body has no limit."""


class HttpFailure(Exception):
    """An exchange did not complete. `sent` is False only if no byte of the request can have reached the peer."""

    def __init__(self, kind: FailureKind, reason: str, *, sent: bool) -> None:
        super().__init__(reason)
        self.kind: FailureKind = kind
        self.sent = sent


class ResponseHeaders:
    """The header fields of a response, as received. Responses with the same head share one object."""

    __slots__ = ("_index", "_pairs", "is_event_stream", "keep_alive", "length")

    def __init__(self, pairs: list[tuple[bytes, bytes]]) -> None:
        self._pairs = pairs
        self._index: dict[bytes, bytes] = {}
        for key, value in pairs:
            key = key.lower()
            self._index[key] = value if key not in self._index else self._index[key] + b", " + value
        self.is_event_stream = self.content_type == "text/event-stream"
        length = self._index.get(b"content-length", b"")
        self.length = int(length) if length.isdigit() and len(length) < _MAX_DIGITS else 0
        """Declared bytes of the body, 0 if undeclared. Where responses share a head: those of the first response."""
        limit = _KEEP_ALIVE.search(self._index.get(b"keep-alive", b""))
        self.keep_alive = inf if limit is None else int(limit.group(1))
        """Seconds after which the server closes the connection if it is idle; inf if it does not say."""

    def __repr__(self) -> str:
        return f"<ResponseHeaders {', '.join(name.decode('latin-1') for name, _ in self._pairs)}>"

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return ((name.decode("latin-1"), value.decode("latin-1")) for name, value in self._pairs)

    @property
    def content_type(self) -> str:
        """The media type without parameters, in lower case; empty for none."""
        return self._index.get(b"content-type", b"").partition(b";")[0].strip().lower().decode("latin-1")

    def get(self, name: bytes | str) -> str | None:
        """The value of a field, by its lower-case name; repeated fields are joined with commas."""
        found = self._index.get(name if isinstance(name, bytes) else name.encode("latin-1"))
        return None if found is None else found.decode("latin-1")


class Receiver(Protocol):
    """Receives a response. Calls are synchronous and in order; exactly one of `ended` and `failed` comes last."""

    def responded(self, status: int, headers: ResponseHeaders) -> None:
        """Receive the status and headers of the final response."""

    def received(self, data: bytes) -> None:
        """Receive a decoded piece of the body."""

    def ended(self) -> None:
        """Handle the end of a complete response."""

    def failed(self, exc: HttpFailure) -> None:
        """Handle a response that will not be completed."""


class Owner(Protocol):
    """The current owner of an exchange: the pool while it waits, then its connection."""

    def give_up(self, exchange: "Exchange") -> None:
        """Stop the exchange, because its caller aborted it."""


class Exchange:
    """One request and its response. `sent` is whether the request was written to a connection."""

    __slots__ = ("done", "hops", "is_repeatable", "left", "moved", "owner", "receiver", "request", "sent")

    def __init__(
        self,
        receiver: Receiver,
        owner: Owner,
        left: int,
        request: RequestParts = FORGOTTEN,
        *,
        is_repeatable: bool = False,
    ) -> None:
        self.receiver = receiver
        self.owner = owner
        self.left = left
        """Bytes of the body that may still come."""
        self.sent = False
        self.done = False
        self.request = request
        """What was sent, as long as it may have to be sent again."""
        self.moved = ""
        """The path to which redirects led; empty without one."""
        self.is_repeatable = is_repeatable
        """Whether it may be sent once more, because it only reads."""
        self.hops = 0
        """Redirects that were followed."""

    def __repr__(self) -> str:
        return f"<Exchange {'done' if self.done else 'sent' if self.sent else 'waiting'}>"

    def start(self, owner: Owner) -> None:
        """Mark the request as written to a connection, which becomes the owner of the exchange."""
        self.owner = owner
        self.sent = True

    def answered(self) -> None:
        """Note that the response has begun, so that the request is not sent again."""
        self.request = FORGOTTEN

    def follow(self, redirect: Receiver) -> None:
        """Pass the rest of this response to `redirect`."""
        self.receiver = redirect
        self.hops += 1

    def moves(self, receiver: Receiver, path: str, request: RequestParts) -> None:
        """Replace the request by the one that the server redirected to. The server processed nothing of the first."""
        self.receiver, self.moved, self.request = receiver, path, request

    def again(self, owner: Owner) -> None:
        """Mark the request as not sent; `owner` sends it once more."""
        self.owner = owner
        self.is_repeatable = self.sent = self.done = False

    def take(self, data: bytes) -> bool:
        """Pass a piece of the body to the receiver. False if it exceeds the limit; then nothing was passed."""
        self.left -= len(data)
        if self.left < 0:
            return False
        self.receiver.received(data)
        return True

    def end(self) -> None:
        """Mark the exchange done and tell the receiver that the response is complete."""
        self.done = True
        self.receiver.ended()

    def abort(self) -> None:
        """Drop the exchange and its connection; the receiver is not called again. Does nothing when done."""
        if not self.done:
            self.done = True
            self.owner.give_up(self)

    def fail(self, kind: FailureKind, reason: str) -> None:
        """End the exchange without a response. Does nothing when done."""
        if not self.done:
            self.done = True
            self.receiver.failed(HttpFailure(kind, reason, sent=self.sent and kind != "tls"))
