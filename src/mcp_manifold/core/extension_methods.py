"""Methods and notifications the protocol does not define: to the one server they can be meant for. Holds no state.

A name below one of the protocol's own is never a stranger, whatever comes after it: what is not served must not get
around names and filters by being unknown here.
"""

from typing import Final

from mcp_manifold import wire
from mcp_manifold.backends.fleet import Fleet
from mcp_manifold.backends.link.server_requests import ServerNotification
from mcp_manifold.core.hub import Hub
from mcp_manifold.model.call import Session
from mcp_manifold.model.capabilities import owners
from mcp_manifold.wire import Payload

_OURS: Final = frozenset(
    {
        "completion",
        "elicitation",
        "initialize",
        "logging",
        "ping",
        "prompts",
        "resources",
        "roots",
        "sampling",
        "server",
        "subscriptions",
        "tasks",
        "tools",
    }
)
"""First segments of the protocol's methods."""
_NOTES: Final = "notifications/"
_OUR_NOTES: Final = _OURS | {"cancelled", "initialized", "message", "progress"}


class ExtensionMethods:
    """See the module."""

    def __init__(self, hub: Hub, fleet: Fleet) -> None:
        self._hub = hub
        self._fleet = fleet

    def __repr__(self) -> str:
        return f"<ExtensionMethods {self._hub!r}>"

    def knows(self, method: str) -> bool:
        """Whether a method may be an extension's: the protocol itself does not define it."""
        return is_extension(method)

    def owner(self, scope: str, method: str) -> str:
        """The backend that a method is for; empty if there is none, or more than one.

        It is the scope's only backend, or the only one that declares the beginning of the method's name.
        """
        members = self._hub.members(scope)
        if len(members) == 1:
            return members[0]
        listings = self._hub.view(scope).listings
        parts = method.split("/")
        keys = ["/".join(parts[:count]) for count in range(1, min(len(parts), 4) + 1)]
        found = {backend for key in keys for backend in owners(listings, key)}
        return found.pop() if len(found) == 1 else ""

    def told(self, session: Session, method: str, params: dict[str, Payload]) -> None:
        """Take a client's notification to the server it is for, if that has an open link for this client."""
        name = self.owner(session.scope, method.removeprefix(_NOTES)) if is_extension(method) else ""
        link = self._fleet.find(name).link_of(session) if name else None
        if link is not None and link.era == "handshake":  # later revisions have no notifications from clients
            kept = wire.hop_params(params, token=0, stamp=None)
            link.notify(method, None if kept is None else Payload(kept))

    def noticed(self, notice: ServerNotification) -> None:
        """Take a server's notification to the client whose call it belongs to, else to whom its link is held for."""
        if not is_extension(notice.method):
            return
        message = wire.notification(notice.method, notice.params)
        session = notice.session or notice.link.holder
        if notice.call is not None:
            notice.call.reply.emit(message)
        elif session is not None and session.reach is not None:
            session.reach.tell(message)


def is_extension(method: str) -> bool:
    """Whether the protocol does not define this method, nor could it in another revision."""
    if method.startswith(_NOTES):
        return method.removeprefix(_NOTES).partition("/")[0] not in _OUR_NOTES
    first = method.partition("/")[0].strip().lower()
    return bool(first) and first not in _OURS
