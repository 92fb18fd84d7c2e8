"""One client's `subscriptions/listen`: what it asked for, and its stream. Knows nobody who could tell it anything."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final

from mcp_manifold import wire
from mcp_manifold.errors import InvalidParams
from mcp_manifold.model.call import Call
from mcp_manifold.model.capabilities import require_tasks
from mcp_manifold.wire import Payload
from mcp_manifold.wire.protocol import META_SUBSCRIPTION

MAX_WATCHED: Final = 1000
"""Resources, or tasks, one client may watch at the same time, per session or listen."""
ACKNOWLEDGED: Final = "notifications/subscriptions/acknowledged"
_LISTS: Final = {
    "toolsListChanged": "notifications/tools/list_changed",
    "promptsListChanged": "notifications/prompts/list_changed",
    "resourcesListChanged": "notifications/resources/list_changed",
}
RESOURCES: Final = "resourceSubscriptions"
TASKS: Final = "taskIds"
"""A member the tasks extension adds (SEP-2663)."""


class Listen:
    """See the module. Nothing goes out before it is acknowledged. `has_tasks`: whether tasks may be listened to."""

    def __init__(self, call: Call, *, has_tasks: bool) -> None:
        asked = wire.object_members(call.params.get("notifications"))
        if call.id is None or not bytes(call.params.get("notifications", b"")).startswith(b"{"):
            raise InvalidParams('Invalid params: "notifications" must be an object')
        self.session = call.session
        self.lists = tuple(member for member in _LISTS if bytes(asked.get(member, b"")) == b"true")
        self.uris = _several(asked, RESOURCES)
        self.tasks = _several(asked, TASKS) if has_tasks else ()
        if TASKS in asked and has_tasks:
            require_tasks(self.session.capabilities)
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.id = call.id
        self._emit = call.reply.emit
        self._held: list[bytes] | None = []

    def __repr__(self) -> str:
        return f"<Listen {bytes(self.id)!r} lists={len(self.lists)} uris={len(self.uris)} tasks={len(self.tasks)}>"

    def tell(self, method: str, members: Mapping[str, Payload]) -> None:
        """Send a notification on the listen's stream, tagged as its own."""
        meta = {**wire.object_members(members.get("_meta")), META_SUBSCRIPTION: self.id}
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

    def acknowledge(self, uris: Sequence[str], tasks: Sequence[str]) -> None:
        """Say what is honoured, and then whatever happened meanwhile."""
        honoured: dict[str, object] = dict.fromkeys(self.lists, True)
        honoured |= {member: names for member, names in ((RESOURCES, uris), (TASKS, tasks)) if names}
        params = wire.encode({"notifications": honoured, "_meta": {META_SUBSCRIPTION: self.id}})
        held, self._held = self._held or [], None
        self._emit(wire.notification(ACKNOWLEDGED, params), needed=True)
        for message in held:
            self._emit(message)

    def end(self) -> None:
        """End it, well."""
        if not self.over.done():
            self.over.set_result(None)


def _several(asked: Mapping[str, Payload], member: str) -> tuple[str, ...]:
    found = tuple(dict.fromkeys(wire.texts(asked.get(member, Payload(b"[]")), member)))
    if len(found) > MAX_WATCHED:
        raise InvalidParams(f"Invalid params: more than {MAX_WATCHED} in one subscription's {member}")
    return found
