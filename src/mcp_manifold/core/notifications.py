"""Routes notifications, and the methods of extensions, which the protocol does not define.

Owns the progress tokens of server requests. List changes, log messages and resource updates have their own modules.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from mcp_manifold import wire
from mcp_manifold.backends.fleet import Fleet
from mcp_manifold.backends.link.link import Link
from mcp_manifold.backends.link.server_requests import ServerNotification, ServerRequest
from mcp_manifold.core.hub import Hub
from mcp_manifold.model.call import Session
from mcp_manifold.model.capabilities import owners
from mcp_manifold.wire import Payload

MAX_TOKENS: Final = 1_000
"""Server requests whose progress is passed on; the oldest is forgotten first."""
_PREFIX: Final = "notifications/"
_PROGRESS: Final = "notifications/progress"
_ROOTS: Final = "notifications/roots/list_changed"
_ELICITED: Final = "notifications/elicitation/complete"
_RESERVED: Final = frozenset(
    {
        "completion", "elicitation", "initialize", "logging", "ping", "prompts", "resources", "roots", "sampling",
        "server", "subscriptions", "tasks", "tools",
    }
)  # fmt: skip
"""First segments of the protocol's own methods."""
_RESERVED_NOTIFICATIONS: Final = _RESERVED | {"cancelled", "initialized", "message", "progress"}


class ExtensionMethods:
    """Finds the backend to which a method of an extension belongs. Holds no state.

    A name that begins with a segment of the protocol is never an extension's. Otherwise an unknown method could bypass
    naming and filters.
    """

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    def __repr__(self) -> str:
        return f"<ExtensionMethods {self._hub!r}>"

    def knows(self, method: str) -> bool:
        """Whether a method may belong to an extension: no revision of the protocol defines it, or could."""
        if method.startswith(_PREFIX):
            return method.removeprefix(_PREFIX).partition("/")[0] not in _RESERVED_NOTIFICATIONS
        first = method.partition("/")[0].strip().lower()
        return bool(first) and first not in _RESERVED

    def owner(self, scope: str, method: str) -> str:
        """The backend of a method: the scope's only one, or the only one that declares a prefix of the method's name.

        Returns:
            its name; empty if there is none, or more than one.
        """
        members = self._hub.members(scope)
        if len(members) == 1:
            return members[0]
        listings = self._hub.view(scope).listings
        parts = method.split("/")
        keys = ["/".join(parts[:count]) for count in range(1, min(len(parts), 4) + 1)]
        found = {backend for key in keys for backend in owners(listings, key)}
        return found.pop() if len(found) == 1 else ""


class Notifications:
    """Passes notifications from clients to backends, and back.

    Args:
        elicited: returns the client that was sent a URL elicitation, once.
    """

    def __init__(
        self, fleet: Fleet, extensions: ExtensionMethods, *, elicited: Callable[[Link, Payload], Session | None]
    ) -> None:
        self._fleet = fleet
        self._extensions = extensions
        self._elicited = elicited
        self._tokens: OrderedDict[bytes, tuple[ServerRequest, Payload]] = OrderedDict()
        self._last = 0

    def __repr__(self) -> str:
        return f"<Notifications tokens={len(self._tokens)}>"

    def from_client(self, session: Session, method: str, params: dict[str, Payload]) -> None:
        """Pass a client's notification to the backends it concerns."""
        if method == _ROOTS:
            self._roots_changed(session)
        elif method == _PROGRESS:
            self._progressed(session, params)
        elif self._extensions.knows(method):
            self._to_owner(session, method, params)

    def _roots_changed(self, session: Session) -> None:
        """Notify every link that serves only this client; on a shared link it would speak for other clients."""
        for backend in self._fleet.values():
            for link in backend.links():
                if link.era == "handshake" and session in (link.holder, link.only):
                    link.notify(_ROOTS)

    def _progressed(self, session: Session, params: dict[str, Payload]) -> None:
        """Report a client's progress on a server request, under the token that the server gave."""
        request, token = self._tokens.get(bytes(params.get("progressToken", wire.NULL_ID)), (None, wire.NULL_ID))
        if request is not None and request.is_open and request.session is session:
            request.link.notify(_PROGRESS, Payload(wire.encode({**params, "progressToken": token})))

    def _to_owner(self, session: Session, method: str, params: dict[str, Payload]) -> None:
        """Pass an extension's notification to its backend, if that has an open link for this client."""
        name = self._extensions.owner(session.scope, method.removeprefix(_PREFIX))
        link = self._fleet.find(name).open_session_link(session) if name else None
        if link is not None and link.era == "handshake":  # later revisions have no notifications from clients
            kept = wire.hop_params(params, token=0, stamp=None)
            link.notify(method, None if kept is None else Payload(kept))

    def replace_token(self, request: ServerRequest) -> None:
        """Replace the progress token of a server request, because two servers may use the same token."""
        params = wire.object_members(request.params)
        meta = wire.object_members(params.get("_meta"))
        if "progressToken" not in meta:
            return
        self._last += 1
        token = b"%d" % self._last
        self._tokens[token] = (request, meta["progressToken"])
        while len(self._tokens) > MAX_TOKENS:
            self._tokens.popitem(last=False)
        meta["progressToken"] = Payload(token)
        request.replace_params(Payload(wire.encode({**params, "_meta": Payload(wire.encode(meta))})))

    def from_backend(self, notification: ServerNotification) -> None:
        """Pass on a completed elicitation, or an extension's notification; drop all others.

        An extension's goes to the call that caused it, else to the client it belongs to, else to the link's holder.
        """
        message = wire.notification(notification.method, notification.params)
        session = notification.session
        if notification.method == _ELICITED:
            id_ = wire.object_members(notification.params).get("elicitationId", wire.NULL_ID)
            session = self._elicited(notification.link, id_) or session
        elif not self._extensions.knows(notification.method):
            return
        elif notification.call is not None:
            notification.call.reply.emit(message)
            return
        else:
            session = session or notification.link.holder
        if session is not None and session.reach is not None:
            session.reach.tell(message)
