"""Messages that a backend sends on its own: requests, which need an answer, and notifications, which do not.

Finds the call that caused a message, where that is certain, and pauses deadlines while a server request is open. It
answers requests, and leaves to its callbacks which client to send them to.
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

MAX_OPEN_REQUESTS: Final = 1000
"""Server requests open on one link. Each waits for a person or a model, and costs memory until then."""


@dataclass(frozen=True, slots=True)
class ServerNotification:
    """A backend's notification. `call` and `session` are set if the call that caused it is certain.

    `concurrent`: calls of several clients were in flight, and it may be about any of them.
    """

    link: Link
    method: str
    params: Payload
    call: Call | None = None
    session: Session | None = None
    concurrent: bool = False


class ServerRequest:
    """A request from a backend. Only the first answer is sent; none is sent after withdrawal.

    `pending` is our request that caused it, where that is certain; `session` is the client behind it.
    """

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
        """Our requests whose deadlines are paused while it is open."""
        self.translate: Callable[[Payload], Payload] | None = None
        """Replaces the client's names in its result with the backend's; None if they are the same."""
        self._on_withdrawn: Callable[[], None] | None = None

    def __repr__(self) -> str:
        return f"<ServerRequest {self.method} of {self.link.backend} {'open' if self.is_open else 'closed'}>"

    def answer(self, result: Payload) -> None:
        """Send the client's result to the backend."""
        if self._close():
            self.inbox.respond(self, result=result if self.translate is None else self.translate(result))

    def fail(self, error: bytes | Payload) -> None:
        """Send an error object to the backend."""
        if self._close():
            self.inbox.respond(self, error=error)

    def withdraw(self) -> None:
        """Close the request without an answer, because none is needed any more."""
        if self._close() and self._on_withdrawn is not None:
            self._on_withdrawn()

    def when_withdrawn(self, callback: Callable[[], None]) -> None:
        """Call `callback` when no answer is needed any more: the request was cancelled, or its call or link ended."""
        self._on_withdrawn = callback

    def replace_params(self, params: Payload, translate: Callable[[Payload], Payload] | None = None) -> None:
        """Set the params to send to the client, and a function that restores names in its result."""
        self.params = params
        self.translate = translate or self.translate

    def detach(self, session: Session | None = None) -> None:
        """Separate the request from the call that caused it. That call's deadline runs again; `session` is asked."""
        self.pending = None
        self.session = session or self.session
        self.inbox.release(self)

    def _close(self) -> bool:
        was_open, self.is_open = self.is_open, False
        if was_open:
            self.inbox.forget(self)
        return was_open


class Inbox:
    """The `MessageHandler` of one link. Owns the server requests that are open on it.

    Args:
        limiter: the rate limit of notifications that are passed on.
    """

    def __init__(
        self,
        link: Link,
        *,
        on_notification: Callable[[ServerNotification], None],
        on_request: Callable[[ServerRequest], None],
        limiter: RateLimiter | None = None,
    ) -> None:
        self.link = link
        self._limiter = limiter or RateLimiter(sys.maxsize)
        self._on_notification = on_notification
        self._on_request = on_request
        self._open: dict[bytes, ServerRequest] = {}
        link.handled_by(self)

    def __repr__(self) -> str:
        return f"<Inbox {self.link!r} requests={len(self._open)}>"

    def has_room(self) -> bool:
        return self._limiter.allows(self.link.clock.now())

    def on_request(self, method: str, id_: Payload, params: Payload | None, origin: PendingRequest | None) -> None:
        if len(self._open) >= MAX_OPEN_REQUESTS:
            refusal = wire.encode({"code": INTERNAL_ERROR, "message": "Too many requests are open"})
            self.link.transport.send_note(wire.failure(id_, refusal))
            return
        request = ServerRequest(self, id_, method, params)
        request.pending, request.session = self._cause_of(origin)
        self._open[bytes(id_)] = request
        if origin is not None or method != "roots/list":  # servers send this one at any time: it outlives the call
            request.stalls = self._stalled_by(request)
        for pending in request.stalls:
            self.link.stall(pending)
        self._on_request(request)

    def on_notification(self, method: str, params: Payload, origin: PendingRequest | None) -> None:
        if method == "notifications/cancelled":
            request = self._open.get(bytes(wire.object_members(params).get("requestId", wire.NULL_ID)))
            if request is not None:
                request.withdraw()
        elif method == "notifications/message" and not self.has_room():
            pass
        elif method == "notifications/progress":  # of a task, which continues after its call was answered
            self._on_notification(ServerNotification(self.link, method, params, None, self.link.holder))
        else:
            self._on_notification(self._notification(method, params, origin))

    def on_finished(self, pending: PendingRequest) -> None:
        for request in [each for each in self._open.values() if pending in each.stalls]:
            request.stalls.remove(pending)
            if not request.stalls:
                request.withdraw()

    def on_lost(self) -> None:
        requests, self._open = self._open, {}
        for request in requests.values():
            request.withdraw()

    def respond(
        self, request: ServerRequest, *, result: Payload | None = None, error: bytes | Payload | None = None
    ) -> None:
        """Send the answer to a server request that has just been closed."""
        if self.link.ended.done():
            return
        answer = wire.response(request.id, result or b"{}") if error is None else wire.failure(request.id, error)
        self.link.transport.send_note(answer)

    def forget(self, request: ServerRequest) -> None:
        """Remove a closed server request, and restart the deadlines that it paused."""
        if self._open.get(bytes(request.id)) is request:
            del self._open[bytes(request.id)]
        self.release(request)

    def release(self, request: ServerRequest) -> None:
        """Restart the deadlines that a server request paused."""
        stalled, request.stalls = request.stalls, []
        for pending in stalled:
            self.link.release(pending)

    def _stalled_by(self, request: ServerRequest) -> list[PendingRequest]:
        """Our requests that a server request pauses: the one that caused it, or all of its client if that is open."""
        if request.pending is not None or request.session is None:
            return [] if request.pending is None else [request.pending]
        waiting = self.link.pending.values()
        return [each for each in waiting if each.call and each.call.session is request.session]

    def _cause_of(self, origin: PendingRequest | None) -> tuple[PendingRequest | None, Session | None]:
        """The request and the client that caused a message, where that is certain.

        Over HTTP the response stream identifies the request; on a pipe nothing does. There the client is certain in two
        cases: the link serves one client, or only one client has calls in flight. In the second case, no abandoned call
        of another client may still cause messages.
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

    def _notification(self, method: str, params: Payload, origin: PendingRequest | None) -> ServerNotification:
        pending, session = self._cause_of(origin)
        call = None if pending is None else pending.call
        waits = self.link.pending.values()
        concurrent = session is None and any(waiting.call is not None or waiting.is_parked for waiting in waits)
        return ServerNotification(self.link, method, params, call, session, concurrent)


def _is_same(one: Session | None, other: Session) -> bool:
    """Whether two sessions certainly belong to the same client. In 2026-07-28 every request has its own session."""
    if one is None or one is other or one.key or other.key:
        return one is other
    return one.principal == other.principal != ANONYMOUS
