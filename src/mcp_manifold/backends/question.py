"""What a backend sends of its own accord: Questions, which want an answer, and Notices, which do not.

Knows how to answer, not whom to ask.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mcp_manifold.wire import Payload

if TYPE_CHECKING:
    from mcp_manifold.backends.link import Link, Pending
    from mcp_manifold.call import Call, Session


@dataclass(frozen=True, slots=True)
class Notice:
    """A backend's notification. `call` and `session` are set where it is certain whose call it belongs to.

    `concurrent`: calls of several clients were in flight, so that it may be about any of them.
    """

    link: "Link"
    method: str
    params: Payload
    call: "Call | None" = None
    session: "Session | None" = None
    concurrent: bool = False


class Question:
    """One server request. It is answered once; later answers, and answers after it was withdrawn, go nowhere.

    `pending` is the request of ours that provoked it, where that is certain; `session` the client behind it.
    """

    __slots__ = (
        "id",
        "is_open",
        "link",
        "method",
        "on_withdrawn",
        "params",
        "pending",
        "session",
        "stalls",
        "translate",
    )

    def __init__(self, link: "Link", id_: Payload, method: str, params: Payload | None) -> None:
        self.link = link
        self.id = id_
        self.method = method
        self.params = params
        self.pending: Pending | None = None
        self.session: Session | None = None
        self.is_open = True
        self.stalls: list[Pending] = []
        """The requests of ours whose time stands still while it is open."""
        self.translate: Callable[[Payload], Payload] | None = None
        """What the client's result passes through on its way: names it knows differently from the backend."""
        self.on_withdrawn: Callable[[], None] | None = None
        """Told when nobody wants the answer any more: the backend took it back, the call ended, the link died."""

    def __repr__(self) -> str:
        return f"<Question {self.method} of {self.link.backend} {'open' if self.is_open else 'closed'}>"

    def answer(self, result: Payload) -> None:
        """Give the backend the client's result."""
        if self._close():
            self.link.respond(self, result=result if self.translate is None else self.translate(result))

    def fail(self, error: bytes | Payload) -> None:
        """Give the backend an error object."""
        if self._close():
            self.link.respond(self, error=error)

    def withdraw(self) -> None:
        """Nobody wants the answer any more; no answer is sent."""
        if self._close() and self.on_withdrawn is not None:
            self.on_withdrawn()

    def _close(self) -> bool:
        was_open, self.is_open = self.is_open, False
        if was_open:
            self.link.forget(self)
        return was_open
