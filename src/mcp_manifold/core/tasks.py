"""Tasks: calls that continue after their answer, in the forms of both eras, each on the backend that runs it.

Owns the table of tasks. A client knows a task by an unguessable public id. The table maps that to the backend, the
native id and the link, for the task's principal only. A task is shown only to clients of its own era. Clients request
the tasks of 2025-11-25, which have a separate result. In the 2026-07-28 extension the server decides to create a task,
and its state contains the result.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Final

from mcp_manifold import wire
from mcp_manifold.backends.fleet import Fleet
from mcp_manifold.backends.link.link import Link
from mcp_manifold.backends.link.server_requests import ServerNotification, ServerRequest
from mcp_manifold.backends.lists.pages import list_tasks
from mcp_manifold.core.hub import Hub
from mcp_manifold.errors import (
    BackendError,
    BackendProtocolError,
    InvalidParams,
    RemoteError,
    UnknownMethod,
)
from mcp_manifold.model.call import Call, Handler, Session
from mcp_manifold.model.capabilities import (
    TASKS_VERSION,
    declared,
    extends_tasks,
    knows_tasks,
    require_tasks,
    runs_tasks,
)
from mcp_manifold.model.catalogue import Entry, Listing
from mcp_manifold.model.task_table import Task, TaskTable
from mcp_manifold.wire import RELATED_TASK, Payload, ResultView, renamed, text_at, with_text_at
from mcp_manifold.wire.protocol import TASK_METHODS

logger = logging.getLogger(__name__)

MAX_EARLY: Final = 64
"""Messages about unknown tasks of one backend that are kept until the answer that may create the task is handled."""
MAX_PAGES: Final = 100
"""Pages read of one backend's `tasks/list`."""
_HANDSHAKE_METHODS: Final = frozenset({"tasks/get", "tasks/result", "tasks/cancel", "tasks/list"})
_ABOUT_ONE: Final = (_HANDSHAKE_METHODS | TASK_METHODS) - {"tasks/list"}
_TASK: Final = b'"task"'
_CREATED: Final = ("task", "taskId")
_STATUS: Final = "notifications/tasks/status"
_PROGRESS: Final = "notifications/progress"


class Tasks:
    """The tasks of all clients. Answers `methods`; calls about one task go to its backend."""

    def __init__(self, hub: Hub, fleet: Fleet) -> None:
        self._hub = hub
        self._fleet = fleet
        self._loop = asyncio.get_running_loop()
        self._table: TaskTable[Link] = TaskTable()
        self._expected: Counter[str] = Counter()
        self._early: dict[str, list[Callable[[], None]]] = {}

    def __repr__(self) -> str:
        return f"<Tasks {len(self._table)}>"

    @property
    def methods(self) -> Mapping[str, Handler]:
        """The methods that this object answers."""
        return {"tasks/list": self._list}

    # --- creating a task ------------------------------------------------------------------------------------------

    def requested(self, call: Call, entry: Entry) -> tuple[bool, dict[str, Payload]]:
        """Whether a `tools/call` with `task` creates a task on its backend; and the params to send.

        Only 2025-11-25 has such requests. If the backend is of the other era or runs no tasks, the member is removed.
        The backend then answers as usual (2025-11-25 basic/utilities/tasks).
        """
        listing = self._listing(call.session.scope, entry.backend)
        if listing is None or listing.era == call.session.era == "modern":
            return False, call.params
        if call.session.version == TASKS_VERSION and runs_tasks(listing):
            return True, call.params
        return False, {key: value for key, value in call.params.items() if key != "task"}

    def expect(self, backend: str) -> None:
        """Keep messages about a backend's unknown tasks: they may precede the answer that creates the task."""
        self._expected[backend] += 1

    def expected(self, backend: str) -> None:
        """Undo `expect` once the answer was handled, and handle the messages that were kept."""
        self._expected[backend] -= 1
        for late in self._early.pop(backend, ()):
            self._loop.call_soon(late)

    def arrived(
        self,
        call: Call,
        link: Link,
        number: int,
        result: Payload,
        view: ResultView | None,
        *,
        creates_task: bool,
    ) -> Payload:
        """The result of a call, with the public id if the call created a task on `link`.

        Raises:
            BackendProtocolError: it is a task, which the client cannot handle.
        """
        if creates_task:
            return self._created(call, link, number, result, _CREATED)
        may_be_task = call.method == "tools/call" and call.backend_era == call.session.era == "modern"
        if may_be_task and (b'"taskId"' in bytes(result) if view is None else view.kind == _TASK):
            return self._extended(call, link, number, result)
        return result

    def _extended(self, call: Call, link: Link, number: int, result: Payload) -> Payload:
        if text_at(result, "resultType") != "task":
            return result
        if not knows_tasks(call.session.capabilities):
            raise BackendProtocolError(call.backend, "answered with a task, which the client cannot handle")
        return self._created(call, link, number, result, ("taskId",))

    def _created(self, call: Call, link: Link, number: int, result: Payload, path: tuple[str, ...]) -> Payload:
        native = text_at(result, *path)
        if native is None:
            return result
        token = wire.object_members(call.params.get("_meta")).get("progressToken")
        task = self._table.add(call.backend, native, link=link, session=call.session, number=number, token=token)
        return renamed(result, native, task.public, path, RELATED_TASK)

    def needs(self, backend: str) -> bool:
        """Whether a task was created on an open link of that backend, so that its result may still be requested."""
        return any(
            task.backend == backend and task.link is not None and not task.link.ended.done() for task in self._table
        )

    # --- requests about tasks -------------------------------------------------------------------------------------

    def routes(self, method: str) -> bool:
        """Whether a method asks about one task, so that the task's backend answers it."""
        return method in _ABOUT_ONE

    def find(self, call: Call) -> Task[Link]:
        """The task that a call asks about.

        Raises:
            UnknownMethod: the client's era, the scope or the task's backend does not have the method.
            RequestError: the client did not declare the extension.
            InvalidParams: the client has no such task.
        """
        self._require_offered(call)
        task = self._table.find(wire.text(call.params.get("taskId"), "taskId"), call.session)
        if task is None or task.backend not in self._hub.members(call.session.scope):
            raise InvalidParams("Invalid params: unknown task")
        if call.method == "tasks/cancel" and not self._offers(call.session.scope, task.backend, "cancel"):
            raise UnknownMethod(f"Method not found: {call.method}")
        return task

    def native_params(self, call: Call, task: Task[Link]) -> dict[str, Payload]:
        """The params of a call about a task, with the backend's own task id."""
        encoded = Payload(wire.encode(call.params))
        return wire.members(renamed(encoded, task.public, task.native, ("taskId",), RELATED_TASK))

    def shown(self, method: str, task: Task[Link], scope: str, said: Payload) -> Payload:
        """A backend's message about a task for the client: with the public id and URIs, and with the server's name in
        its input requests.
        """

        def public(uri: str) -> str:
            return self._hub.public_uri(scope, task.backend, uri)

        if method == "tasks/result":
            return wire.map_resource_refs("tools/call", renamed(said, task.native, task.public, RELATED_TASK), public)
        shown = renamed(said, task.native, task.public, ("taskId",), RELATED_TASK)
        members = wire.object_members(shown)
        if "result" in members:
            mapped = wire.map_resource_refs("tools/call", members["result"], public)
            shown = shown if mapped is members["result"] else Payload(wire.encode({**members, "result": mapped}))
        is_signed = "inputRequests" in members and len(self._hub.members(scope)) > 1
        return wire.signed_requests(shown, task.backend) if is_signed else shown

    def are_extended(self, scope: str) -> bool:
        """Whether a scope has tasks of the 2026-07-28 extension."""
        return any(map(extends_tasks, self._hub.view(scope).listings))

    def watched(self, id_: str, session: Session) -> Task[Link] | None:
        """The session's task with that id; None if there is none, or if the scope lacks its backend."""
        task = self._table.find(id_, session)
        return task if task is not None and task.backend in self._hub.members(session.scope) else None

    def _require_offered(self, call: Call) -> None:
        """Refuse a method that the client's era, its capabilities or the scope's backends do not support."""
        session = call.session
        listings = self._hub.view(session.scope).listings
        if session.era == "modern":
            known = call.method in TASK_METHODS and self.are_extended(session.scope)
        else:
            known = call.method in _HANDSHAKE_METHODS and session.version == TASKS_VERSION
            known = known and any(map(runs_tasks, listings))
        if not known:
            raise UnknownMethod(f"Method not found: {call.method}")
        if session.era == "modern":
            require_tasks(session.capabilities)

    async def _list(self, call: Call) -> Payload:
        """Fetch the client's own tasks from their backends. A backend that fails is left out."""
        await self._hub.wait_listable(call.session.scope)
        self._require_offered(call)
        cursor = call.params.get("cursor")
        if cursor is not None and wire.first_byte(cursor) != b"n":
            raise InvalidParams("Invalid cursor: task lists have one page")
        scope = call.session.scope
        members = [name for name in self._hub.members(scope) if self._offers(scope, name, "list")]
        own = [task for task in self._table if task.is_listed_for(call.session)]
        links: dict[Link, None] = {}
        for name in members:
            for task in own:
                link = self._link(task, call.session) if task.backend == name else None
                if link is not None:
                    links[link] = None
        listed = await asyncio.gather(*(self._listed(link, call.session) for link in links))
        return Payload(wire.encode({"tasks": [item for items in listed for item in items]}))

    async def _listed(self, link: Link, session: Session) -> list[Payload]:
        timeout = self._fleet.find(link.backend).settings.timeout
        try:
            items = await list_tasks(link, timeout=timeout, max_pages=MAX_PAGES)
        except (BackendError, RemoteError) as exc:
            logger.warning("listing tasks failed: %s", exc, extra={"backend": link.backend})
            return []
        found: list[Payload] = []
        for item in items:
            task = self._table.find_native(link, text_at(item, "taskId"))
            if task is not None and task.is_listed_for(session):
                found.append(with_text_at(item, task.public, "taskId"))
        return found

    def _link(self, task: Task[Link], session: Session) -> Link | None:
        if task.link is not None and not task.link.ended.done():
            return task.link
        return self._fleet.find(task.backend).open_session_link(session)

    def _offers(self, scope: str, backend: str, member: str) -> bool:
        listing = self._listing(scope, backend)
        return listing is not None and (
            extends_tasks(listing) or (runs_tasks(listing) and member in declared(listing, "tasks"))
        )

    def _listing(self, scope: str, backend: str) -> Listing | None:
        return next((each for each in self._hub.view(scope).listings if each.backend == backend), None)

    # --- messages about tasks -------------------------------------------------------------------------------------

    def on_notification(self, notification: ServerNotification, pass_on: Callable[[ServerNotification], None]) -> None:
        """Send a notification about a task to the task's client, with the public id. Pass on all others."""
        if notification.method == _PROGRESS:
            self._progressed(notification)
            return
        is_status, params = notification.method == _STATUS, notification.params
        path = ("taskId",) if is_status else RELATED_TASK
        native = text_at(params, *path) if path[-1].encode() in bytes(params) else None
        if native is None and not is_status:
            pass_on(notification)
            return
        task = self._table.find_native(notification.link, native)
        late = replace(notification, call=None)
        if task is None and self._keep(notification.link, lambda: self.on_notification(late, pass_on)):
            return
        if task is not None:
            params = renamed(params, task.native, task.public, ("taskId",), RELATED_TASK)
            is_own = notification.call is not None and notification.call.session is task.session
            call = notification.call if is_own else None
            notification = replace(notification, params=params, session=task.session, call=call, concurrent=False)
        if not is_status:
            pass_on(notification)
        elif task is not None:
            _notify(task, notification)

    def _progressed(self, notification: ServerNotification) -> None:
        """Pass on a task's progress after its call was answered (2025-11-25 basic/utilities/progress)."""
        members = wire.object_members(notification.params)
        token = bytes(members.get("progressToken", wire.NULL_ID))
        task = self._table.find_running(notification.link, int(token)) if token.isdigit() and len(token) < 19 else None
        if task is not None and task.token is not None:
            params = Payload(wire.encode({**members, "progressToken": task.token}))
            _notify(task, replace(notification, params=renamed(params, task.native, task.public, RELATED_TASK)))

    def on_request(self, request: ServerRequest, pass_on: Callable[[ServerRequest], None]) -> None:
        """Send a server request about a task to the task's client, with the public id. Pass on all others."""
        params = request.params
        native = text_at(params, *RELATED_TASK) if params is not None and b"related-task" in bytes(params) else None
        task = self._table.find_native(request.link, native)
        is_new = native is not None and task is None
        if is_new and self._keep(request.link, lambda: self._handle_late(request, pass_on)):
            request.detach()  # the answer that creates the task must not withdraw it
            return
        if params is not None and task is not None:
            native, public = task.native, task.public
            translate = partial(_with_native, native=native, public=public)
            request.replace_params(renamed(params, native, public, RELATED_TASK), translate)
            working = None if request.pending is None else request.pending.call
            if working is None or not task.is_of(working.session):
                request.detach(task.session)
        pass_on(request)

    def _handle_late(self, request: ServerRequest, pass_on: Callable[[ServerRequest], None]) -> None:
        if request.is_open:
            self.on_request(request, pass_on)

    def _keep(self, link: Link, again: Callable[[], None]) -> bool:
        """Call `again` once the answer that may create the task is handled; False if none is expected, or too many."""
        early = self._early.setdefault(link.backend, []) if self._expected[link.backend] > 0 else None
        if early is None or len(early) >= MAX_EARLY:
            return False
        early.append(again)
        return True


def _with_native(result: Payload, *, native: str, public: str) -> Payload:
    """A client's result with the backend's own task id."""
    return renamed(result, public, native, RELATED_TASK)


def _notify(task: Task[Link], notification: ServerNotification) -> None:
    message = wire.notification(notification.method, notification.params)
    if notification.call is not None:
        notification.call.reply.emit(message)
    elif task.session.reach is not None:
        task.session.reach.tell(message)
