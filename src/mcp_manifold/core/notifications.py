"""What clients and backends tell of their own accord, to whom it concerns. Owns the progress tokens of questions.

A notification about a change, a log line or a subscription is not looked at here; neither is an answer or a question.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from mcp_manifold import wire
from mcp_manifold.backends.fleet import Fleet
from mcp_manifold.backends.link.link import Link
from mcp_manifold.backends.link.server_requests import ServerNotification, ServerRequest
from mcp_manifold.core.extension_methods import ExtensionMethods
from mcp_manifold.model.call import Session
from mcp_manifold.wire import Payload

MAX_TOKENS: Final = 1_000
"""Questions whose progress is passed on; the oldest is forgotten first."""
_PROGRESS: Final = "notifications/progress"
_ROOTS: Final = "notifications/roots/list_changed"
_ELICITED: Final = "notifications/elicitation/complete"


class Notifications:
    """See the module. `completed` gives the client that was sent a URL elicitation."""

    def __init__(
        self, fleet: Fleet, strangers: ExtensionMethods, *, completed: Callable[[Link, Payload], Session | None]
    ) -> None:
        self._fleet = fleet
        self._strangers = strangers
        self._completed = completed
        self._asked: OrderedDict[bytes, tuple[ServerRequest, Payload]] = OrderedDict()
        self._last = 0

    def __repr__(self) -> str:
        return f"<Notifications questions={len(self._asked)}>"

    # --- clients --------------------------------------------------------------------------------------------------

    def told(self, session: Session, method: str, params: dict[str, Payload]) -> None:
        """A client's notification."""
        if method == _ROOTS:
            self._roots_changed(session)
        elif method == _PROGRESS:
            self._progressed(session, params)
        else:
            self._strangers.told(session, method, params)

    def _roots_changed(self, session: Session) -> None:
        """To every link that serves this client alone: on others it would speak for somebody else."""
        for backend in self._fleet.values():
            for link in backend.links():
                if link.era == "handshake" and session in (link.holder, link.only):
                    link.notify(_ROOTS)

    def _progressed(self, session: Session, params: dict[str, Payload]) -> None:
        """The client works on what a server asked: the server hears of it under the token it gave."""
        question, token = self._asked.get(bytes(params.get("progressToken", wire.NULL_ID)), (None, wire.NULL_ID))
        if question is not None and question.is_open and question.session is session:
            told = {**params, "progressToken": token}
            question.link.notify(_PROGRESS, Payload(wire.encode(told)))

    # --- backends ---------------------------------------------------------------------------------------------------

    def asked(self, question: ServerRequest) -> None:
        """Replace the progress token of a question: two servers may have chosen the same."""
        params = wire.object_members(question.params)
        meta = wire.object_members(params.get("_meta"))
        if "progressToken" not in meta:
            return
        self._last += 1
        token = b"%d" % self._last
        self._asked[token] = (question, meta["progressToken"])
        while len(self._asked) > MAX_TOKENS:
            self._asked.popitem(last=False)
        meta["progressToken"] = Payload(token)
        question.params = Payload(wire.encode({**params, "_meta": Payload(wire.encode(meta))}))

    def noticed(self, notice: ServerNotification) -> None:
        """A backend's notification."""
        if notice.method != _ELICITED:
            self._strangers.noticed(notice)
            return
        id_ = wire.object_members(notice.params).get("elicitationId", wire.NULL_ID)
        session = self._completed(notice.link, id_) or notice.session
        if session is not None and session.reach is not None:
            session.reach.tell(wire.notification(notice.method, notice.params))
