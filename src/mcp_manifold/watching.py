"""What clients want to be told: changes of resources and, in 2026-07-28, of lists. Carries each to those who asked.

Theory. A handshake-era client subscribes to one resource after the other and is told on its standing stream; a
2026-07-28 client opens `subscriptions/listen`, which is its own stream. Either is a watcher in `Subscriptions`, which
says when a backend must be asked, or need not be any more; how a backend is asked is `backends/listening`'s. A client
watches over the link that serves its calls, since servers keep state by session, and moves with them to another.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from mcp_manifold import wire
from mcp_manifold.backends.backend import Backend
from mcp_manifold.backends.link import Link
from mcp_manifold.backends.listening import (
    START_WAIT,
    UPDATED,
    Listening,
    Reports,
    Subscribing,
    offers_subscriptions,
)
from mcp_manifold.backends.question import Notice
from mcp_manifold.call import Call, Handler, Session
from mcp_manifold.errors import (
    BackendUnavailable,
    CallCancelled,
    InvalidParams,
    ManifoldError,
    TooManyRequests,
    UnknownMethod,
)
from mcp_manifold.hub import Hub
from mcp_manifold.subscriptions import Subscriptions, Target
from mcp_manifold.wire import Payload
from mcp_manifold.wire.protocol import HOP_KEYS, META_SERVER_INFO, META_SUBSCRIPTION

logger = logging.getLogger(__name__)

MAX_WATCHED: Final = 1000
"""Resources one client may watch at the same time, per session or listen."""
ACK_WAIT: Final = 5.0
"""Seconds a listen's acknowledgement waits for the backends; what they have not agreed to by then is not honoured."""
REOPEN_AFTER: Final = 1.0
"""Seconds after which a link that somebody watches over is opened again; without, one that dies at once would spin."""
_ACKNOWLEDGED: Final = "notifications/subscriptions/acknowledged"
_LISTS: Final = {
    "toolsListChanged": "notifications/tools/list_changed",
    "promptsListChanged": "notifications/prompts/list_changed",
    "resourcesListChanged": "notifications/resources/list_changed",
}


class Listen:
    """One client's open `subscriptions/listen`: what it asked for, and its stream. Nothing goes out before the ack."""

    def __init__(self, call: Call) -> None:
        asked = wire.client_meta(call.params.get("notifications"))
        if call.id is None or not bytes(call.params.get("notifications", b"")).startswith(b"{"):
            raise InvalidParams('Invalid params: "notifications" must be an object')
        self.session = call.session
        self.lists = tuple(member for member in _LISTS if bytes(asked.get(member, b"")) == b"true")
        uris = wire.texts(asked.get("resourceSubscriptions", Payload(b"[]")), "resourceSubscriptions")
        self.uris = tuple(dict.fromkeys(uris))
        if len(self.uris) > MAX_WATCHED:
            raise InvalidParams(f"Invalid params: more than {MAX_WATCHED} resources in one subscription")
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.id = call.id
        self._emit = call.emit
        self._held: list[bytes] | None = []

    def __repr__(self) -> str:
        return f"<Listen {bytes(self.id)!r} lists={len(self.lists)} uris={len(self.uris)}>"

    def tell(self, method: str, members: Mapping[str, Payload]) -> None:
        """Send a notification on the listen's stream, tagged as its own."""
        meta = {**wire.client_meta(members.get("_meta")), META_SUBSCRIPTION: self.id}
        message = wire.notification(method, wire.encode({**members, "_meta": meta}))
        if self._held is None:
            self._emit(message)
        else:
            self._held.append(message)

    def changed(self, methods: Sequence[str]) -> None:
        """Lists of the scope's catalogue differ now."""
        for member in self.lists:
            if _LISTS[member] in methods:
                self.tell(_LISTS[member], {})

    def acknowledge(self, uris: Sequence[str]) -> None:
        """Say what is honoured, and then whatever happened meanwhile."""
        honoured: dict[str, object] = dict.fromkeys(self.lists, True)
        if uris:
            honoured["resourceSubscriptions"] = uris
        params = wire.encode({"notifications": honoured, "_meta": {META_SUBSCRIPTION: self.id}})
        held, self._held = self._held or [], None
        self._emit(wire.notification(_ACKNOWLEDGED, params), needed=True)
        for message in held:
            self._emit(message)

    def end(self) -> None:
        """End it, well."""
        if not self.over.done():
            self.over.set_result(None)

    def cancel(self) -> None:
        """The client took it back."""
        if not self.over.done():
            self.over.set_exception(CallCancelled("the client ended its subscription"))
            self.over.exception()  # read here, since it may not have come to wait for it


Watcher = Session | Listen


class Watching:
    """See the module. `methods` and `notices` are what it answers and hears."""

    def __init__(self, hub: Hub, find: Callable[[str], Backend], *, server_info: Payload) -> None:
        self._hub = hub
        self._find = find
        self._server_info = server_info
        self._subscriptions: Subscriptions[Watcher] = Subscriptions()
        self._reports: dict[Link, Reports] = {}
        self._links: dict[tuple[str, str], Link] = {}
        self._listens: set[Listen] = set()

    def __repr__(self) -> str:
        return f"<Watching {self._subscriptions!r} links={len(self._links)} listens={len(self._listens)}>"

    @property
    def methods(self) -> Mapping[str, Handler]:
        """The methods it answers."""
        return {
            "resources/subscribe": self._subscribe,
            "resources/unsubscribe": self._unsubscribe,
            "subscriptions/listen": self._listen,
        }

    @property
    def notices(self) -> Mapping[str, Callable[[Notice], None]]:
        """The notifications of backends it hears."""
        return {UPDATED: self._updated, _ACKNOWLEDGED: self._acknowledged}

    # --- what clients ask --------------------------------------------------------------------------------------------

    async def _subscribe(self, call: Call) -> Payload:
        uri = wire.text(call.params.get("uri"), "uri")
        if self._subscriptions.count(call.session) >= MAX_WATCHED and not self._subscriptions.has(call.session, uri):
            raise TooManyRequests(f"Too many resources are watched (limit {MAX_WATCHED})", retry_after=10.0)
        await self._watch(call.session, call.session, uri, call)
        return wire.EMPTY

    async def _unsubscribe(self, call: Call) -> Payload:
        uri = wire.text(call.params.get("uri"), "uri")
        self._release(self._subscriptions.remove(call.session, uri))
        return wire.EMPTY

    async def _listen(self, call: Call) -> Payload:
        listen = Listen(call)
        call.on_cancel(listen.cancel)
        call.on_finish(listen.end)
        self._listens.add(listen)
        unwatch = self._hub.watch(call.session.scope, listen.changed)
        try:
            answers = await asyncio.gather(*(self._is_honoured(listen, uri) for uri in listen.uris))
            listen.acknowledge([uri for uri, honoured in zip(listen.uris, answers, strict=True) if honoured])
            await listen.over
        finally:
            call.on_cancel(None)
            unwatch()
            self._listens.discard(listen)
            self._release(*self._subscriptions.leave(listen))
        meta = {META_SUBSCRIPTION: listen.id, META_SERVER_INFO: self._server_info}
        return Payload(wire.encode({"resultType": "complete", "_meta": meta}))

    async def _is_honoured(self, listen: Listen, uri: str) -> bool:
        try:
            async with asyncio.timeout(ACK_WAIT):
                await self._watch(listen, listen.session, uri)
        except (ManifoldError, TimeoutError) as exc:
            logger.debug("not honoured in a subscription: %s", str(exc) or "no answer in time")
            return False
        return True

    async def _watch(self, watcher: Watcher, session: Session, uri: str, call: Call | None = None) -> None:
        """Let a watcher watch a public URI; returns when the backend agreed."""
        route = await self._hub.find_resource(session.scope, uri)
        if call is not None:
            call.backend = route.backend
        link = await self._find(route.backend).link_for(session)
        reports = self._reports.get(link)
        if not offers_subscriptions(link):
            raise UnknownMethod(f"Method not found: server {route.backend} offers no subscriptions")
        if reports is None:
            raise BackendUnavailable(route.backend, "the connection was lost")
        target = Target(route.backend, link.place, route.uri)
        self._release(self._subscriptions.add(watcher, uri, target))
        link.is_watched = True
        try:
            await asyncio.shield(reports.want(route.uri))
        except BaseException:
            self._release(self._subscriptions.remove(watcher, uri))
            raise

    def _release(self, *targets: Target | None) -> None:
        """Nobody watches these any more."""
        for target in targets:
            link = None if target is None else self._links.get((target.backend, target.place))
            if target is not None and link is not None:
                self._reports[link].drop(target.uri)
                link.is_watched = bool(self._subscriptions.watched(target.backend, target.place))

    # --- what happens ------------------------------------------------------------------------------------------------

    async def opened(self, link: Link) -> None:
        """A link opened: ask for what is watched over it; waits, within a bound, until the backend agreed."""
        backend = self._find(link.backend)
        outcomes: list[asyncio.Future[None]] = []
        if link.era == "modern":
            listening = Listening(link, lists=not link.place)
            reports: Reports = listening
        else:
            listening = None
            reports = Subscribing(link, timeout=backend.settings.timeout)
        self._reports[link] = reports
        self._links[(link.backend, link.place)] = link
        link.ended.add_done_callback(lambda _: self._closed(link))
        self._move_in(backend, link)
        watched = self._subscriptions.watched(link.backend, link.place)
        link.is_watched = bool(watched)
        outcomes += [reports.want(uri) for uri in watched]
        if listening is not None:
            outcomes.append(listening.start())
        if outcomes:
            await asyncio.wait(outcomes, timeout=START_WAIT)
        if not link.place:
            for place in self._subscriptions.places(link.backend):
                self._reopen(link.backend, place)

    def _move_in(self, backend: Backend, link: Link) -> None:
        """Who is served by this link from now on watches over it, and no longer over the one before."""
        for watcher, name, target in self._subscriptions.elsewhere(link.backend, link.place):
            if backend.is_served(_session_of(watcher), link):
                self._release(self._subscriptions.add(watcher, name, replace(target, place=link.place)))

    def _closed(self, link: Link) -> None:
        self._reports.pop(link, None)
        key = (link.backend, link.place)
        if self._links.get(key) is link:
            del self._links[key]
            if link.place and self._subscriptions.watched(*key):
                asyncio.get_running_loop().call_later(REOPEN_AFTER, self._reopen, *key)

    def _reopen(self, backend: str, place: str) -> None:
        """A link held for a client was lost that is told things over it: it will not ask for it by calling."""
        watcher = self._subscriptions.anyone(backend, place)
        if watcher is not None and (backend, place) not in self._links:
            try:
                self._find(backend).reopen(_session_of(watcher))
            except BackendUnavailable as exc:
                logger.info("subscriptions are not renewed: %s", exc.message, extra={"backend": backend})

    def _acknowledged(self, notice: Notice) -> None:
        reports = self._reports.get(notice.link)
        if isinstance(reports, Listening):
            reports.acknowledged(wire.client_meta(notice.params))

    def _updated(self, notice: Notice) -> None:
        link, found = notice.link, wire.client_meta(notice.params)
        reports = self._reports.get(link)
        if reports is None or not reports.is_due(found):
            return
        try:
            uri = wire.text(found.get("uri"), "uri")
        except InvalidParams:
            return
        members = {**found, **_own_meta(found)}
        for watch in self._subscriptions.watching(Target(link.backend, link.place, uri)):
            name = watch.name or self._public(watch.watcher, link.backend, uri)
            if name:
                _tell(watch.watcher, {**members, "uri": Payload(wire.encode(name))})

    def _public(self, watcher: Watcher, backend: str, uri: str) -> str:
        """What a client calls a sub-resource of what it watches; empty if it may not know of it."""
        scope = _session_of(watcher).scope
        public = self._hub.public_uri(scope, backend, uri)
        return "" if self._hub.route_resource(scope, public) is None else public

    def needs(self, backend: str) -> bool:
        """Whether somebody watches something of that backend."""
        return bool(self._subscriptions.places(backend))

    def ended(self, session: Session) -> None:
        """A client's session is over."""
        self._release(*self._subscriptions.leave(session))

    def close(self) -> None:
        """End every listen with its result."""
        for listen in list(self._listens):
            listen.end()


def _session_of(watcher: Watcher) -> Session:
    return watcher if isinstance(watcher, Session) else watcher.session


def _tell(watcher: Watcher, members: Mapping[str, Payload]) -> None:
    if isinstance(watcher, Listen):
        watcher.tell(UPDATED, members)
    elif watcher.reach is not None:
        watcher.reach.tell(wire.notification(UPDATED, wire.encode(members)))


def _own_meta(found: Mapping[str, Payload]) -> dict[str, Payload]:
    """The `_meta` of a notification without what spoke of the hop to the backend."""
    meta = found.get("_meta")
    if meta is None:
        return {}
    kept = {key: value for key, value in wire.client_meta(meta).items() if key not in HOP_KEYS}
    return {"_meta": Payload(wire.encode(kept))}
