"""What a backend sends of its own accord: Questions, which want an answer, and Notices, which do not.

Finds out whose call provoked them, as far as that is certain, and how long requests stand still for them. Knows how to
answer, not whom to ask.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from mcp_manifold import wire
from mcp_manifold.backends.link.link import Link
from mcp_manifold.backends.link.pending import PendingRequest
from mcp_manifold.clock import RateLimiter
from mcp_manifold.model.call import Call, Session
from mcp_manifold.model.policy import ANONYMOUS
from mcp_manifold.wire import Payload
from mcp_manifold.wire.protocol import INTERNAL_ERROR

MAX_QUESTIONS: Final = 1000
"""Questions that are open on one link: each waits for a person, or a model, and costs memory till then."""


@dataclass(frozen=True, slots=True)
class ServerNotification:
    """A backend's notification. `call` and `session` are set where it is certain whose call it belongs to.

    `concurrent`: calls of several clients were in flight, so that it may be about any of them.
    """

    link: Link
    method: str
    params: Payload
    call: Call | None = None
    session: Session | None = None
    concurrent: bool = False


class ServerRequest:
    """One server request. It is answered once; later answers, and answers after it was withdrawn, go nowhere.

    `pending` is the request of ours that provoked it, where that is certain; `session` the client behind it.
    """

    __slots__ = (
        "id",
        "inbox",
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

    def __init__(self, inbox: "Inbox", id_: Payload, method: str, params: Payload | None) -> None:
        self.inbox = inbox
        self.link = inbox.link
        self.id = id_
        self.method = method
        self.params = params
        self.pending: PendingRequest | None = None
        self.session: Session | None = None
        self.is_open = True
        self.stalls: list[PendingRequest] = []
        """The requests of ours whose time stands still while it is open."""
        self.translate: Callable[[Payload], Payload] | None = None
        """What the client's result passes through on its way: names it knows differently from the backend."""
        self.on_withdrawn: Callable[[], None] | None = None
        """Told when nobody wants the answer any more: the backend took it back, the call ended, the link died."""

    def __repr__(self) -> str:
        return f"<ServerRequest {self.method} of {self.link.backend} {'open' if self.is_open else 'closed'}>"

    def answer(self, result: Payload) -> None:
        """Give the backend the client's result."""
        if self._close():
            self.inbox.respond(self, result=result if self.translate is None else self.translate(result))

    def fail(self, error: bytes | Payload) -> None:
        """Give the backend an error object."""
        if self._close():
            self.inbox.respond(self, error=error)

    def withdraw(self) -> None:
        """Nobody wants the answer any more; no answer is sent."""
        if self._close() and self.on_withdrawn is not None:
            self.on_withdrawn()

    def set_aside(self) -> None:
        """It turned out not to belong to the request it came with, which goes on without it."""
        self.pending = None
        self.inbox.let_go(self)

    def _close(self) -> bool:
        was_open, self.is_open = self.is_open, False
        if was_open:
            self.inbox.forget(self)
        return was_open


class Inbox:
    """The ears of one link: see `pending.Ears`. Owns the questions that are open on it."""

    def __init__(
        self,
        link: Link,
        *,
        on_notification: Callable[[ServerNotification], None],
        on_question: Callable[[ServerRequest], None],
        pace: RateLimiter | None = None,
    ) -> None:
        self.link = link
        self._pace = pace or RateLimiter(sys.maxsize)
        self._on_notification = on_notification
        self._on_question = on_question
        self._questions: dict[bytes, ServerRequest] = {}
        link.handled_by(self)

    def __repr__(self) -> str:
        return f"<Inbox {self.link!r} questions={len(self._questions)}>"

    # --- what the link hears --------------------------------------------------------------------------------------

    def has_room(self) -> bool:
        return self._pace.allows(self.link.clock.now())

    def asked(self, method: str, id_: Payload, params: Payload | None, origin: PendingRequest | None) -> None:
        if len(self._questions) >= MAX_QUESTIONS:
            refusal = wire.encode({"code": INTERNAL_ERROR, "message": "Too many requests are open"})
            self.link.transport.send_note(wire.failure(id_, refusal))
            return
        question = ServerRequest(self, id_, method, params)
        question.pending, question.session = self._provoked_by(origin)
        self._questions[bytes(id_)] = question
        if origin is not None or method != "roots/list":  # which is asked at any time, so that it outlives the call
            question.stalls = self._stalled_by(question)
        for pending in question.stalls:
            self.link.stall(pending)
        self._on_question(question)

    def told(self, method: str, params: Payload, origin: PendingRequest | None) -> None:
        if method == "notifications/cancelled":
            question = self._questions.get(bytes(wire.object_members(params).get("requestId", wire.NULL_ID)))
            if question is not None:
                question.withdraw()
        elif method == "notifications/message" and not self.has_room():
            pass
        elif method == "notifications/progress":  # a task's, which goes on after its call was answered
            self._on_notification(ServerNotification(self.link, method, params, None, self.link.holder))
        else:
            self._on_notification(self._noticed(method, params, origin))

    def finished(self, pending: PendingRequest) -> None:
        for question in [each for each in self._questions.values() if pending in each.stalls]:
            question.stalls.remove(pending)
            if not question.stalls:
                question.withdraw()

    def lost(self) -> None:
        questions, self._questions = self._questions, {}
        for question in questions.values():
            question.withdraw()

    # --- what questions need ----------------------------------------------------------------------------------------

    def respond(
        self, question: ServerRequest, *, result: Payload | None = None, error: bytes | Payload | None = None
    ) -> None:
        """Send the answer to a question, which is closed by now."""
        if self.link.ended.done():
            return
        answer = wire.response(question.id, result or b"{}") if error is None else wire.failure(question.id, error)
        self.link.transport.send_note(answer)

    def forget(self, question: ServerRequest) -> None:
        """A question is closed: the requests it held up go on under their own timeouts."""
        if self._questions.get(bytes(question.id)) is question:
            del self._questions[bytes(question.id)]
        self.let_go(question)

    def let_go(self, question: ServerRequest) -> None:
        """The requests it held up go on."""
        stalled, question.stalls = question.stalls, []
        for pending in stalled:
            self.link.release(pending)

    # --- whose it is --------------------------------------------------------------------------------------------------

    def _stalled_by(self, question: ServerRequest) -> list[PendingRequest]:
        """The requests whose time stands still meanwhile: the one that provoked it, or each that may have."""
        if question.pending is not None or question.session is None:
            return [] if question.pending is None else [question.pending]
        waiting = self.link.pending.values()
        return [each for each in waiting if each.call and each.call.session is question.session]

    def _provoked_by(self, origin: PendingRequest | None) -> tuple[PendingRequest | None, Session | None]:
        """The request and the client behind something the backend sent, as far as that is certain.

        Over HTTP the stream tells. On a pipe nothing does: it is certain only on a link held for one client, or while
        one client alone has calls in flight, and none was given up just now that the backend may still work on.
        """
        if origin is not None and (origin.call is not None or origin.is_parked):
            return origin, None if origin.call is None else origin.call.session
        working = [pending for pending in self.link.pending.values() if pending.call is not None or pending.is_parked]
        only = working[0] if len(working) == 1 else None
        if self.link.holder is not None:
            return only, self.link.holder
        clients = {id(pending.call.session): pending.call.session for pending in working if pending.call is not None}
        if not all(any(_is_same(each, one) for one in clients.values()) for each in self.link.abandoned.clients):
            return None, None
        if len(clients) != 1 or any(pending.is_parked for pending in working):
            return (only, None) if only is not None and only.is_parked else (None, None)
        return only, next(iter(clients.values()))

    def _noticed(self, method: str, params: Payload, origin: PendingRequest | None) -> ServerNotification:
        pending, session = self._provoked_by(origin)
        call = None if pending is None else pending.call
        waits = self.link.pending.values()
        concurrent = session is None and any(waiting.call is not None or waiting.is_parked for waiting in waits)
        return ServerNotification(self.link, method, params, call, session, concurrent)


def _is_same(one: Session | None, other: Session) -> bool:
    """Whether two sessions are the same client's, as far as that is certain: one of 2026-07-28 has one a request."""
    if one is None or one is other or one.key or other.key:
        return one is other
    return one.principal == other.principal != ANONYMOUS


def open_link(
    backend: str,
    *,
    on_notification: Callable[[ServerNotification], None],
    on_question: Callable[[ServerRequest], None],
    holder: Session | None = None,
    place: str = "",
    write_limit: int = 64 << 20,
    pace: RateLimiter | None = None,
) -> Link:
    """A new link, with ears; it still needs a transport."""
    link = Link(backend, holder=holder, place=place, write_limit=write_limit)
    Inbox(link, on_notification=on_notification, on_question=on_question, pace=pace)
    return link
