"""What the connections of one server share: whom requests go to, limits, who is to be waited for. Opens nothing."""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from mcp_manifold.fronts.http.asgi import Line, Receive, Scope, Send
from mcp_manifold.http1.head import Head, header_lines, status_line
from mcp_manifold.model.budget import MemoryBudget

SMALL: Final = 256 * 1024
"""Bytes of a body up to which a request is offered to the short way; beyond, it is not held here but streamed."""
MOST_KNOWN: Final = 8
"""Heads one connection is remembered for."""
BULKY: Final = 65536
"""Bytes beyond which a body is written by itself: copying it behind its head would cost more than a write."""


class Passage(Protocol):
    """A request on the short way."""

    def left(self) -> None:
        """The client is gone, before it was answered."""
        ...


class Reply(Protocol):
    """Where the answer to a request on the short way goes."""

    def respond(self, status: int, body: bytes) -> None:
        """Send the whole answer, which is JSON, and be done."""
        ...

    def share(self, pieces: Sequence[bytes | memoryview], *, counts: bool = False) -> None:
        """Send the whole answer, which is JSON and well, in pieces that are not copied. `counts`: they take room while
        they wait for the client; not those that others hold as well.
        """
        ...

    def lengthen(self) -> tuple[Receive, Send]:
        """Go on as an ASGI call whose body was read; its end is told by `send`."""
        ...

    def own(self, work: Coroutine[Any, Any, None]) -> None:
        """Have an answer that was lengthened finished in a task, which the server waits for when it stops; an end that
        does not come with it, does not come.
        """
        ...

    def drop(self) -> None:
        """There is no answer: end the connection."""
        ...


class Application(Protocol):
    """Whom requests are given to."""

    def take(self, head: Head, body: bytes, reply: Reply) -> Passage | None:
        """Answer a request the short way; None, and nothing has happened, when it is not for that."""
        ...

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Answer any request, as an ASGI application."""
        ...


@dataclass(frozen=True, slots=True)
class Limits:
    """What a client may cost before anybody looked at what it wants."""

    head_bytes: int = 65536
    head_lines: int = 128
    head_seconds: float = 10.0
    body_seconds: float = 30.0
    keep_alive: float = 65.0
    """Seconds an idle connection is kept: longer than the minute of usual load balancers, who should close first."""


@dataclass(slots=True, eq=False)
class Service:
    """What the connections of one server share."""

    application: Application
    limits: Limits
    connections: set[Any]
    tasks: "set[asyncio.Task[None]]"
    own_lines: Callable[[], list[Line]]
    """Header lines every response has; a list that is never changed, only replaced."""
    most: Callable[[], int] = lambda: sys.maxsize
    """How many connections may be open; one more is refused."""
    budget: MemoryBudget = field(default_factory=MemoryBudget)
    """What waits for slow readers takes its room from this."""
    max_body: Callable[[], int] = lambda: sys.maxsize
    """Bytes of the largest body the application takes; a larger one is not collected for it, so that it can say so."""
    _seen: list[Line] | None = field(default=None, repr=False)
    _written: bytes = field(default=b"", repr=False)
    _usual: bytes = field(default=b"", repr=False)

    def lines(self) -> bytes:
        """`own_lines` as bytes."""
        lines = self.own_lines()
        if lines is not self._seen:
            self._seen, self._written = lines, header_lines(lines)
            self._usual = self._begun(200)
        return self._written

    def whole(self, status: int, length: int) -> bytes:
        """The head of a whole answer that is JSON, without the blank line at its end."""
        self.lines()
        return b"%b%d\r\n" % (self._usual if status == 200 else self._begun(status), length)

    def _begun(self, status: int) -> bytes:
        return b"%b%bcontent-type: application/json\r\ncontent-length: " % (status_line(status), self._written)

    def in_pieces(self, pieces: Sequence[bytes | memoryview], *, keeps_alive: bool) -> Sequence[bytes | memoryview]:
        """A whole answer that is JSON, as it is written: joined unless that would cost more than it saves."""
        size = sum(map(len, pieces))
        head = self.whole(200, size) + (b"\r\n" if keeps_alive else b"connection: close\r\n\r\n")
        return (head + bytes(pieces[0]), *pieces[1:]) if size > BULKY else (b"".join((head, *pieces)),)
