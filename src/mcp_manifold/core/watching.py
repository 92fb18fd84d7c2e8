"""What clients want to be told: changes of resources and, in 2026-07-28, of lists and tasks. Carries each to who asked.

Theory. A handshake-era client subscribes to one resource after the other and is told on its standing stream; a
2026-07-28 client opens `subscriptions/listen`, which is its own stream. Either is a watcher in `Subscriptions`, which
says when a backend must be asked, or need not be any more; how a backend is asked is `backends/listening`'s. A client
watches over the link that serves its calls, since servers keep state by session, and moves with them to another.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Final

from mcp_manifold import wire
from mcp_manifold.backends.backend import Backend
from mcp_manifold.backends.link.isolation import primary_of
from mcp_manifold.backends.link.link import Link
from mcp_manifold.backends.link.server_requests import ServerNotification
from mcp_manifold.backends.lists.listening import Listening
from mcp_manifold.backends.lists.reports import (
    START_WAIT,
    TASK_TOLD,
    UPDATED,
    Outcome,
    Reports,
    Subscribing,
    offers_subscriptions,
)
from mcp_manifold.core.hub import Hub
from mcp_manifold.core.listen import ACKNOWLEDGED, MAX_WATCHED, Listen
from mcp_manifold.core.tasks import Tasks
from mcp_manifold.errors import (
    BackendUnavailable,
    InvalidParams,
    ManifoldError,
    RemoteError,
    TooManyRequests,
    UnknownMethod,
)
from mcp_manifold.model.call import Call, Handler, Session
from mcp_manifold.model.subscriptions import Subscriptions, WatchTarget
from mcp_manifold.wire import Payload
from mcp_manifold.wire.protocol import META_SERVER_INFO, META_SUBSCRIPTION

logger = logging.getLogger(__name__)

ACK_WAIT: Final = 5.0
"""Seconds a listen's acknowledgement waits for the backends; what they have not agreed to by then is not honoured."""
REOPEN_AFTER: Final = 1.0
"""Seconds after which a link that somebody watches over is opened again; without, one that dies at once would spin."""
Watcher = Session | Listen


class Watching:
    """See the module. `methods` and `notices` are what it answers and hears."""

    def __init__(self, hub: Hub, find: Callable[[str], Backend], tasks: Tasks, *, server_info: Payload) -> None:
        self._hub = hub
        self._find = find
        self._tasks = tasks
        self._server_info = server_info
        self._subscriptions: Subscriptions[Watcher] = Subscriptions()
        self._followed: Subscriptions[Listen] = Subscriptions()
        """The same for tasks, where a target's `uri` is the backend's id."""
        self._reports: dict[Link, Reports] = {}
        self._links: dict[tuple[str, str], Link] = {}
        self._beside: dict[tuple[str, str], list[Link]] = {}
        """The further links clients are lent, by where they are at home: what is watched there is told here as well."""
        self._listens: dict[Call, Listen] = {}

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
    def notices(self) -> Mapping[str, Callable[[ServerNotification], None]]:
        """The notifications of backends it hears."""
        return {UPDATED: self._updated, TASK_TOLD: self._moved_on, ACKNOWLEDGED: self._acknowledged}

    # --- what clients ask --------------------------------------------------------------------------------------------

    async def _subscribe(self, call: Call) -> Payload:
        uri = wire.text(call.params.get("uri"), "uri")
        if self._subscriptions.count(call.session) >= MAX_WATCHED and not self._subscriptions.has(call.session, uri):
            raise TooManyRequests(f"Too many resources are watched (limit {MAX_WATCHED})", retry_after=10.0)
        await self._watch(call.session, call.session, uri)
        return wire.EMPTY

    async def _unsubscribe(self, call: Call) -> Payload:
        uri = wire.text(call.params.get("uri"), "uri")
        self._release(self._subscriptions.remove(call.session, uri))
        return wire.EMPTY

    async def _listen(self, call: Call) -> Payload:
        listen = Listen(call, has_tasks=self._tasks.are_extended(call.session.scope))
        self._listens[call] = listen
        if call.is_ending:
            listen.end()
        unwatch = self._hub.watch(call.session.scope, listen.changed)
        try:
            watching = [partial(self._watch, listen, listen.session, uri) for uri in listen.uris]
            following = [partial(self._follow, listen, id_) for id_ in listen.tasks]
            agreed = await asyncio.gather(*map(_is_honoured, (*watching, *following)))
            uris = [uri for uri, honoured in zip(listen.uris, agreed, strict=False) if honoured]
            tasks = [id_ for id_, honoured in zip(listen.tasks, agreed[len(listen.uris) :], strict=True) if honoured]
            listen.acknowledge(uris, tasks)
            await listen.over
        finally:
            unwatch()
            del self._listens[call]
            self._release(*self._subscriptions.leave(listen))
            self._unfollow(*self._followed.leave(listen))
        meta = {META_SUBSCRIPTION: listen.id, META_SERVER_INFO: self._server_info}
        return Payload(wire.encode({"resultType": "complete", "_meta": meta}))

    async def _watch(self, watcher: Watcher, session: Session, uri: str) -> None:
        """Let a watcher watch a public URI; returns when the backend agreed."""
        route = await self._hub.find_resource(session.scope, uri)
        link = await self._find(route.backend).link_for(session)
        if not offers_subscriptions(link):
            raise UnknownMethod(f"Method not found: server {route.backend} offers no subscriptions")
        reports = self._reports_of(link)
        self._release(self._subscriptions.add(watcher, uri, WatchTarget(route.backend, link.place, route.uri)))
        link.watch(True)
        for other in self._beside.get((route.backend, link.place), ()):
            self._reports[other].want(route.uri)
        try:
            await asyncio.shield(reports.want(route.uri))
        except BaseException as exc:
            self._release(self._subscriptions.remove(watcher, uri))
            if isinstance(exc, RemoteError):
                public = self._hub.view(session.scope).whole.public_uri
                raise exc.rewritten(wire.map_error_ref(exc.raw, partial(public, route.backend))) from exc
            raise

    async def _follow(self, listen: Listen, id_: str) -> None:
        """Let a listen hear of a task; returns when the backend agreed."""
        task = self._tasks.watched(id_, listen.session)
        if task is None:
            raise InvalidParams("Invalid params: unknown task")
        link = await self._find(task.backend).link_for(listen.session)
        reports = self._reports_of(link)
        if not isinstance(reports, Listening):
            raise UnknownMethod(f"Method not found: server {task.backend} reports on no tasks")
        self._unfollow(self._followed.add(listen, id_, WatchTarget(task.backend, link.place, task.native)))
        link.watch(True)
        try:
            await asyncio.shield(reports.want_task(task.native))
        except BaseException:
            self._unfollow(self._followed.remove(listen, id_))
            raise

    def _reports_of(self, link: Link) -> Reports:
        reports = self._reports.get(link)
        if reports is None:
            raise BackendUnavailable(link.backend, "the connection was lost")
        return reports

    def _release(self, *targets: WatchTarget | None) -> None:
        """Nobody watches these any more."""
        for target, link in self._left(targets):
            for each in (link, *self._beside.get((target.backend, target.place), ())):
                self._reports[each].drop(target.uri)

    def _unfollow(self, *targets: WatchTarget | None) -> None:
        """Nobody wants to hear of these tasks any more."""
        for target, link in self._left(targets):
            reports = self._reports[link]
            if isinstance(reports, Listening):
                reports.drop_task(target.uri)

    def _left(self, targets: Iterable[WatchTarget | None]) -> Iterator[tuple[WatchTarget, Link]]:
        for target in targets:
            link = None if target is None else self._links.get((target.backend, target.place))
            if target is not None and link is not None:
                yield target, link
                link.watch(self._is_watched(link))

    def _is_watched(self, link: Link) -> bool:
        place = (link.backend, link.place)
        return bool(self._subscriptions.watched(*place) or self._followed.watched(*place))

    # --- what happens ------------------------------------------------------------------------------------------------

    async def opened(self, link: Link) -> None:
        """A link opened: ask for what is watched over it; waits, within a bound, until the backend agreed."""
        backend = self._find(link.backend)
        outcomes: list[Outcome] = []
        if link.era == "modern":
            listening = Listening(link, lists=not link.place)
            reports: Reports = listening
        else:
            listening = None
            reports = Subscribing(link, timeout=backend.settings.timeout)
        self._reports[link] = reports
        link.ended.add_done_callback(lambda _: self._closed(link))
        place = (link.backend, primary_of(link.place))
        if link.place != place[1]:
            self._beside.setdefault(place, []).append(link)
            await _agreed([reports.want(uri) for uri in self._subscriptions.watched(*place)])
            return
        self._links[place] = link
        missed = self._subscriptions.watched(*place)
        self._move_in(backend, link)
        link.watch(self._is_watched(link))
        for uri in self._subscriptions.watched(*place):
            outcomes.append(reports.want(uri))
            if uri in missed:
                outcomes[-1].add_done_callback(partial(_make_up, link, uri))
        if listening is not None:
            outcomes += [self._follow_on(listening, id_) for id_ in self._followed.watched(*place)]
            outcomes.append(listening.start())
        await _agreed(outcomes)
        if not link.place:
            for other in {*self._subscriptions.places(link.backend), *self._followed.places(link.backend)}:
                self._reopen(link.backend, other)

    def _follow_on(self, listening: Listening, id_: str) -> Outcome:
        """A task is followed over another link than before: how it stands now is told, since that may be news."""
        outcome = listening.want_task(id_)
        outcome.add_done_callback(lambda done: None if _failed(done) else listening.view_of(id_))
        return outcome

    def _move_in(self, backend: Backend, link: Link) -> None:
        """Who is served by this link from now on watches over it, and no longer over the one before."""
        for watcher, name, target in self._subscriptions.elsewhere(link.backend, link.place):
            if backend.is_served(_session_of(watcher), link):
                self._release(self._subscriptions.add(watcher, name, replace(target, place=link.place)))

    def _closed(self, link: Link) -> None:
        self._reports.pop(link, None)
        key = (link.backend, primary_of(link.place))
        beside = [each for each in self._beside.pop(key, ()) if each is not link]
        if beside:
            self._beside[key] = beside
        if self._links.get(key) is link:
            del self._links[key]
            if link.place and self._is_watched(link):
                asyncio.get_running_loop().call_later(REOPEN_AFTER, self._reopen, *key)

    def _reopen(self, backend: str, place: str) -> None:
        """A link held for a client was lost that is told things over it: it will not ask for it by calling."""
        watcher = self._subscriptions.anyone(backend, place) or self._followed.anyone(backend, place)
        if watcher is not None and (backend, place) not in self._links:
            try:
                self._find(backend).reopen(_session_of(watcher))
            except BackendUnavailable as exc:
                logger.info("subscriptions are not renewed: %s", exc.message, extra={"backend": backend})

    def _acknowledged(self, notice: ServerNotification) -> None:
        reports = self._reports.get(notice.link)
        if isinstance(reports, Listening):
            reports.acknowledged(wire.object_members(notice.params))

    def _updated(self, notice: ServerNotification) -> None:
        link, found = notice.link, wire.object_members(notice.params)
        reports = self._reports.get(link)
        if reports is None or not reports.is_due(found):
            return
        try:
            uri = wire.text(found.get("uri"), "uri")
        except InvalidParams:
            return
        members = wire.off_hop(found)
        for watch in self._subscriptions.watching(WatchTarget(link.backend, primary_of(link.place), uri)):
            name = watch.name or self._public(watch.watcher, link.backend, uri)
            if name:
                _tell(watch.watcher, {**members, "uri": Payload(wire.encode(name))})

    def _moved_on(self, notice: ServerNotification) -> None:
        """A backend says how a task stands."""
        link, found = notice.link, wire.object_members(notice.params)
        reports, native = self._reports.get(link), wire.text_at(notice.params, "taskId")
        if reports is None or native is None or not reports.is_due(found):
            return
        for watch in self._followed.watching(WatchTarget(link.backend, link.place, native)):
            task = self._tasks.watched(watch.name, watch.watcher.session)
            if task is not None:
                told = self._tasks.told(task, watch.watcher.session.scope, notice.params)
                watch.watcher.tell(TASK_TOLD, wire.off_hop(wire.object_members(told)))

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
        for listen in list(self._listens.values()):
            listen.end()

    def end(self, call: Call) -> None:
        """End the listen of a call with its result."""
        listen = self._listens.get(call)
        if listen is not None:
            listen.end()


async def _is_honoured(ask: Callable[[], Awaitable[None]]) -> bool:
    """Whether a backend agrees to a part of a subscription; one that takes too long does not."""
    try:
        async with asyncio.timeout(ACK_WAIT):
            await ask()
    except (ManifoldError, TimeoutError) as exc:
        logger.debug("not honoured in a subscription: %s", str(exc) or "no answer in time")
        return False
    return True


async def _agreed(outcomes: Sequence[Outcome]) -> None:
    if outcomes:
        await asyncio.wait(outcomes, timeout=START_WAIT)


def _make_up(link: Link, uri: str, agreed: Outcome) -> None:
    """What may have changed between two links counts as changed: told, it is read again."""
    if not _failed(agreed):
        link.fed(wire.notification(UPDATED, wire.encode({"uri": uri})))


def _failed(outcome: Outcome) -> bool:
    return outcome.cancelled() or outcome.exception() is not None


def _session_of(watcher: Watcher) -> Session:
    return watcher if isinstance(watcher, Session) else watcher.session


def _tell(watcher: Watcher, members: Mapping[str, Payload]) -> None:
    if isinstance(watcher, Listen):
        watcher.tell(UPDATED, members)
    elif watcher.reach is not None:
        watcher.reach.tell(wire.notification(UPDATED, wire.encode(members)))
