"""Subscriptions: passes resource updates and, in 2026-07-28, changes of lists and tasks to their clients.

Theory. A handshake-era client subscribes to one resource at a time and is notified on its standing stream. A 2026-07-28
client opens `subscriptions/listen`, a request with its own stream. Both are watchers in `Subscriptions`, which tells
when to subscribe at a backend; `backends/lists` does that. A client watches over the link that serves its calls,
because servers keep state per session, and moves with them to another link.
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
from mcp_manifold.clock import Clock, wait_all
from mcp_manifold.core.hub import Hub
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
from mcp_manifold.model.capabilities import require_tasks
from mcp_manifold.model.subscriptions import Subscriptions, WatchTarget
from mcp_manifold.wire import Payload
from mcp_manifold.wire.protocol import META_SERVER_INFO, META_SUBSCRIPTION

logger = logging.getLogger(__name__)

MAX_WATCHED: Final = 1000
"""Resources, or tasks, that one session or listen may watch at the same time."""
ACK_WAIT: Final = 5.0
"""Seconds that a listen waits for backends to agree; what they have not agreed to by then is left out."""
REOPEN_AFTER: Final = 1.0
"""Seconds before a lost link with watchers is opened again; without a pause, one that fails at once would spin."""
_ACKNOWLEDGED: Final = "notifications/subscriptions/acknowledged"
_LISTS: Final = {
    "toolsListChanged": "notifications/tools/list_changed",
    "promptsListChanged": "notifications/prompts/list_changed",
    "resourcesListChanged": "notifications/resources/list_changed",
}
_RESOURCES: Final = "resourceSubscriptions"
_TASKS: Final = "taskIds"
"""A member that the tasks extension adds (SEP-2663)."""


class Listen:
    """One client's `subscriptions/listen`: its filter and its stream. Sends nothing before `acknowledge`.

    Args:
        has_tasks: whether the scope has tasks of the extension.

    Raises:
        RequestError: the filter is invalid.
    """

    def __init__(self, call: Call, *, has_tasks: bool) -> None:
        wanted = wire.object_members(call.params.get("notifications"))
        if call.id is None or not bytes(call.params.get("notifications", b"")).startswith(b"{"):
            raise InvalidParams('Invalid params: "notifications" must be an object')
        self.session = call.session
        self.lists = tuple(member for member in _LISTS if bytes(wanted.get(member, b"")) == b"true")
        self.uris = _texts(wanted, _RESOURCES)
        self.tasks = _texts(wanted, _TASKS) if has_tasks else ()
        if _TASKS in wanted and has_tasks:
            require_tasks(self.session.capabilities)
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.id = call.id
        self._emit = call.reply.emit
        self._held: list[bytes] | None = []
        """Messages that wait for the acknowledgement; None once it was sent."""

    def __repr__(self) -> str:
        return f"<Listen {bytes(self.id)!r} lists={len(self.lists)} uris={len(self.uris)} tasks={len(self.tasks)}>"

    def notify(self, method: str, members: Mapping[str, Payload]) -> None:
        """Send a notification on the stream, with the subscription's id."""
        meta = {**wire.object_members(members.get("_meta")), META_SUBSCRIPTION: self.id}
        message = wire.notification(method, wire.encode({**members, "_meta": meta}))
        if self._held is None:
            self._emit(message)
        else:
            self._held.append(message)

    def lists_changed(self, methods: Sequence[str]) -> None:
        """Send those `list_changed` notifications that the filter includes."""
        for member in self.lists:
            if _LISTS[member] in methods:
                self.notify(_LISTS[member], {})

    def acknowledge(self, uris: Sequence[str], tasks: Sequence[str]) -> None:
        """Send the honoured part of the filter, then all notifications that were held back."""
        honoured: dict[str, object] = dict.fromkeys(self.lists, True)
        honoured |= {member: names for member, names in ((_RESOURCES, uris), (_TASKS, tasks)) if names}
        params = wire.encode({"notifications": honoured, "_meta": {META_SUBSCRIPTION: self.id}})
        held, self._held = self._held or [], None
        self._emit(wire.notification(_ACKNOWLEDGED, params), needed=True)
        for message in held:
            self._emit(message)

    def end(self) -> None:
        """End the subscription with a result."""
        if not self.ended.done():
            self.ended.set_result(None)


Watcher = Session | Listen


class Watching:
    """The subscriptions of all clients. Answers `methods`, and handles the backends' `notifications`.

    Args:
        find: returns the backend of a name; raises BackendUnavailable if it is no longer configured.
    """

    def __init__(
        self, hub: Hub, find: Callable[[str], Backend], tasks: Tasks, *, server_info: Payload, clock: Clock
    ) -> None:
        self._hub = hub
        self._find = find
        self._tasks = tasks
        self._server_info = server_info
        self._clock = clock
        self._subscriptions: Subscriptions[Watcher] = Subscriptions()
        self._followed: Subscriptions[Listen] = Subscriptions()
        """The same for tasks; the `uri` of a target is the backend's task id."""
        self._reports: dict[Link, Reports] = {}
        self._links: dict[tuple[str, str], Link] = {}
        """The links that are watched over, by backend and key."""
        self._secondary: dict[tuple[str, str], list[Link]] = {}
        """Further leased links, by the primary's backend and key; subscriptions of the primary apply to them too."""
        self._listens: dict[Call, Listen] = {}

    def __repr__(self) -> str:
        return f"<Watching {self._subscriptions!r} links={len(self._links)} listens={len(self._listens)}>"

    @property
    def methods(self) -> Mapping[str, Handler]:
        """The methods that this object answers."""
        return {
            "resources/subscribe": self._subscribe,
            "resources/unsubscribe": self._unsubscribe,
            "subscriptions/listen": self._listen,
        }

    @property
    def notifications(self) -> Mapping[str, Callable[[ServerNotification], None]]:
        """The notifications of backends that this object handles."""
        return {UPDATED: self._updated, TASK_TOLD: self._task_changed, _ACKNOWLEDGED: self._acknowledged}

    # --- requests of clients --------------------------------------------------------------------------------------

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
        unwatch = self._hub.watch(call.session.scope, listen.lists_changed)
        try:
            watching = [partial(self._watch, listen, listen.session, uri) for uri in listen.uris]
            following = [partial(self._follow, listen, id_) for id_ in listen.tasks]
            agreed = await asyncio.gather(*map(self._is_honoured, (*watching, *following)))
            uris = [uri for uri, honoured in zip(listen.uris, agreed, strict=False) if honoured]
            tasks = [id_ for id_, honoured in zip(listen.tasks, agreed[len(listen.uris) :], strict=True) if honoured]
            listen.acknowledge(uris, tasks)
            await listen.ended
        finally:
            unwatch()
            del self._listens[call]
            self._release(*self._subscriptions.leave(listen))
            self._unfollow(*self._followed.leave(listen))
        meta = {META_SUBSCRIPTION: listen.id, META_SERVER_INFO: self._server_info}
        return Payload(wire.encode({"resultType": "complete", "_meta": meta}))

    async def _is_honoured(self, subscribe: Callable[[], Awaitable[None]]) -> bool:
        """Whether the backend agrees to a part of a listen within `ACK_WAIT`."""
        try:
            async with self._clock.timeout(ACK_WAIT):
                await subscribe()
        except (ManifoldError, TimeoutError) as exc:
            logger.debug("left out of a subscription: %s", str(exc) or "no answer in time")
            return False
        return True

    async def _watch(self, watcher: Watcher, session: Session, uri: str) -> None:
        """Subscribe a watcher to a public URI; returns when the backend agreed."""
        route = await self._hub.find_resource(session.scope, uri)
        link = await self._find(route.backend).session_link(session)
        if not offers_subscriptions(link):
            raise UnknownMethod(f"Method not found: server {route.backend} offers no subscriptions")
        reports = self._reports_of(link)
        self._release(self._subscriptions.add(watcher, uri, WatchTarget(route.backend, link.key, route.uri)))
        link.watch(True)
        for other in self._secondary.get((route.backend, link.key), ()):
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
        """Subscribe a listen to a task; returns when the backend agreed."""
        task = self._tasks.watched(id_, listen.session)
        if task is None:
            raise InvalidParams("Invalid params: unknown task")
        link = await self._find(task.backend).session_link(listen.session)
        reports = self._reports_of(link)
        if not isinstance(reports, Listening):
            raise UnknownMethod(f"Method not found: server {task.backend} sends no notifications about tasks")
        self._unfollow(self._followed.add(listen, id_, WatchTarget(task.backend, link.key, task.native)))
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
        """Unsubscribe from targets that have no watcher any more."""
        for target, link in self._open_targets(targets):
            for each in (link, *self._secondary.get((target.backend, target.location), ())):
                self._reports[each].drop(target.uri)

    def _unfollow(self, *targets: WatchTarget | None) -> None:
        """Unsubscribe from tasks that have no listen any more."""
        for target, link in self._open_targets(targets):
            reports = self._reports[link]
            if isinstance(reports, Listening):
                reports.drop_task(target.uri)

    def _open_targets(self, targets: Iterable[WatchTarget | None]) -> Iterator[tuple[WatchTarget, Link]]:
        """The targets whose links are open, with these; updates whether the links are watched."""
        for target in targets:
            link = None if target is None else self._links.get((target.backend, target.location))
            if target is not None and link is not None:
                yield target, link
                link.watch(self._is_watched(link))

    def _is_watched(self, link: Link) -> bool:
        key = (link.backend, link.key)
        return bool(self._subscriptions.watched(*key) or self._followed.watched(*key))

    # --- links ----------------------------------------------------------------------------------------------------

    async def opened(self, link: Link) -> None:
        """Restore the subscriptions on a newly opened link; waits up to `START_WAIT` for the backend's agreement."""
        backend = self._find(link.backend)
        outcomes: list[Outcome] = []
        if link.era == "modern":
            listening = Listening(link, lists=not link.key)
            reports: Reports = listening
        else:
            listening = None
            reports = Subscribing(link, timeout=backend.settings.timeout)
        self._reports[link] = reports
        link.ended.add_done_callback(lambda _: self._closed(link))
        key = (link.backend, primary_of(link.key))
        if link.key != key[1]:
            self._secondary.setdefault(key, []).append(link)
            await self._agreed([reports.want(uri) for uri in self._subscriptions.watched(*key)])
            return
        self._links[key] = link
        restored = self._subscriptions.watched(*key)
        self._move_to(backend, link)
        link.watch(self._is_watched(link))
        for uri in self._subscriptions.watched(*key):
            outcomes.append(reports.want(uri))
            if uri in restored:
                outcomes[-1].add_done_callback(partial(_report_gap, link, uri))
        if listening is not None:
            outcomes += [self._resume_task(listening, id_) for id_ in self._followed.watched(*key)]
            outcomes.append(listening.start())
        await self._agreed(outcomes)
        if not link.key:
            for other in {*self._subscriptions.locations(link.backend), *self._followed.locations(link.backend)}:
                self._reopen(link.backend, other)

    async def _agreed(self, outcomes: Sequence[Outcome]) -> None:
        await wait_all(self._clock, outcomes, seconds=START_WAIT)

    def _resume_task(self, listening: Listening, id_: str) -> Outcome:
        """Follow a task over a new link, and report its state, which may have changed meanwhile."""
        outcome = listening.want_task(id_)
        outcome.add_done_callback(lambda done: None if _failed(done) else listening.view_of(id_))
        return outcome

    def _move_to(self, backend: Backend, link: Link) -> None:
        """Move the watchers that this link now serves to it, from the link they used before."""
        for watcher, name, target in self._subscriptions.elsewhere(link.backend, link.key):
            if backend.is_served(_session_of(watcher), link):
                self._release(self._subscriptions.add(watcher, name, replace(target, location=link.key)))

    def _closed(self, link: Link) -> None:
        self._reports.pop(link, None)
        key = (link.backend, primary_of(link.key))
        secondary = [each for each in self._secondary.pop(key, ()) if each is not link]
        if secondary:
            self._secondary[key] = secondary
        if self._links.get(key) is link:
            del self._links[key]
            if link.key and self._is_watched(link):
                self._clock.call_later(REOPEN_AFTER, self._reopen, *key)

    def _reopen(self, backend: str, location: str) -> None:
        """Open a client's lost link again: it is watched, and no call may come to open it."""
        watcher = self._subscriptions.anyone(backend, location) or self._followed.anyone(backend, location)
        if watcher is not None and (backend, location) not in self._links:
            try:
                self._find(backend).reopen(_session_of(watcher))
            except BackendUnavailable as exc:
                logger.info("subscriptions not restored: %s", exc.message, extra={"backend": backend})

    # --- notifications of backends --------------------------------------------------------------------------------

    def _acknowledged(self, notification: ServerNotification) -> None:
        reports = self._reports.get(notification.link)
        if isinstance(reports, Listening):
            reports.acknowledged(wire.object_members(notification.params))

    def _updated(self, notification: ServerNotification) -> None:
        link, found = notification.link, wire.object_members(notification.params)
        reports = self._reports.get(link)
        if reports is None or not reports.is_due(found):
            return
        try:
            uri = wire.text(found.get("uri"), "uri")
        except InvalidParams:
            return
        members = wire.off_hop(found)
        for watch in self._subscriptions.watching(WatchTarget(link.backend, primary_of(link.key), uri)):
            name = watch.name or self._public(watch.watcher, link.backend, uri)
            if name:
                _notify(watch.watcher, {**members, "uri": Payload(wire.encode(name))})

    def _task_changed(self, notification: ServerNotification) -> None:
        link, found = notification.link, wire.object_members(notification.params)
        reports, native = self._reports.get(link), wire.text_at(notification.params, "taskId")
        if reports is None or native is None or not reports.is_due(found):
            return
        for watch in self._followed.watching(WatchTarget(link.backend, link.key, native)):
            task = self._tasks.watched(watch.name, watch.watcher.session)
            if task is not None:
                public = self._tasks.shown("tasks/get", task, watch.watcher.session.scope, notification.params)
                watch.watcher.notify(TASK_TOLD, wire.off_hop(wire.object_members(public)))

    def _public(self, watcher: Watcher, backend: str, uri: str) -> str:
        """The public URI of a sub-resource of a watched one; empty if the client may not see it."""
        scope = _session_of(watcher).scope
        public = self._hub.public_uri(scope, backend, uri)
        return "" if self._hub.route_resource(scope, public) is None else public

    # --- ends -----------------------------------------------------------------------------------------------------

    def needs(self, backend: str) -> bool:
        """Whether a client watches a resource of that backend."""
        return bool(self._subscriptions.locations(backend))

    def ended(self, session: Session) -> None:
        """Remove the subscriptions of a session that has ended."""
        self._release(*self._subscriptions.leave(session))

    def close(self) -> None:
        """End every `subscriptions/listen` with its result."""
        for listen in list(self._listens.values()):
            listen.end()

    def end(self, call: Call) -> None:
        """End the `subscriptions/listen` of a call with its result."""
        listen = self._listens.get(call)
        if listen is not None:
            listen.end()


def _texts(wanted: Mapping[str, Payload], member: str) -> tuple[str, ...]:
    found = tuple(dict.fromkeys(wire.texts(wanted.get(member, Payload(b"[]")), member)))
    if len(found) > MAX_WATCHED:
        raise InvalidParams(f"Invalid params: more than {MAX_WATCHED} in one subscription's {member}")
    return found


def _report_gap(link: Link, uri: str, agreed: Outcome) -> None:
    """Report a resource as updated after a gap between two links, in which a change may have been missed."""
    if not _failed(agreed):
        link.fed(wire.notification(UPDATED, wire.encode({"uri": uri})))


def _failed(outcome: Outcome) -> bool:
    return outcome.cancelled() or outcome.exception() is not None


def _session_of(watcher: Watcher) -> Session:
    return watcher if isinstance(watcher, Session) else watcher.session


def _notify(watcher: Watcher, members: Mapping[str, Payload]) -> None:
    if isinstance(watcher, Listen):
        watcher.notify(UPDATED, members)
    elif watcher.reach is not None:
        watcher.reach.tell(wire.notification(UPDATED, wire.encode(members)))
