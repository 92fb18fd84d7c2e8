"""Which task is whose: the public id, the backend's own, the link, the client. Owns the table; knows no message."""

import secrets
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from mcp_manifold.backends.link.link import Link
from mcp_manifold.model.call import Session
from mcp_manifold.model.policy import ANONYMOUS
from mcp_manifold.wire import Payload

MAX_TASKS: Final = 10_000
"""Tasks that are remembered; the one that was longest not asked for is forgotten first."""


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """One task: what clients call it, what its backend does, and for whom it is."""

    public: str
    backend: str
    native: str
    link: Link | None
    session: Session
    number: int
    """The progress token under which its backend reports for as long as it runs; `token` is the client's."""
    token: Payload | None

    def is_of(self, session: Session) -> bool:
        """Whether the session may use it: one of the same principal, in the era it was made in."""
        return self.session.principal.key == session.principal.key and self.session.era == session.era

    def is_listed_for(self, session: Session) -> bool:
        """Whether the session is told of it; where nobody has to say who they are, only the one that made it is."""
        return self.is_of(session) and (session.principal.key != ANONYMOUS.key or self.session is session)


class TaskTable:
    """The tasks that are known, in the order they were last used in."""

    def __init__(self) -> None:
        self._tasks: OrderedDict[str, Task] = OrderedDict()
        self._alike: dict[tuple[str, str], list[Task]] = {}
        self._running: dict[tuple[Link | None, int], Task] = {}

    def __repr__(self) -> str:
        return f"<TaskTable {len(self._tasks)}>"

    def __iter__(self) -> Iterator[Task]:
        return iter(self._tasks.values())

    def __len__(self) -> int:
        return len(self._tasks)

    def enter(
        self, backend: str, native: str, *, link: Link | None, session: Session, number: int, token: Payload | None
    ) -> Task:
        """A new task; the one that had this id of the backend's on this link before is no more."""
        for other in [each for each in self._alike.get((backend, native), ()) if each.link is link]:
            self._remove(other)
        public = f"{backend}.{secrets.token_urlsafe(24)}"
        task = self._tasks[public] = Task(public, backend, native, link, session, number, token)
        self._alike.setdefault((backend, native), []).append(task)
        self._running[link, number] = task
        while len(self._tasks) > MAX_TASKS:
            self._remove(next(iter(self._tasks.values())))
        return task

    def find(self, public: str, session: Session) -> Task | None:
        """The session's task of that public id."""
        task = self._tasks.get(public)
        if task is None or not task.is_of(session):
            return None
        self._tasks.move_to_end(public)
        return task

    def meant(self, link: Link, native: str | None) -> Task | None:
        """The task a backend speaks of: one of this link, or the only one of that id if its link is gone."""
        alike = [] if native is None else self._alike.get((link.backend, native), [])
        for task in alike:
            if task.link is link:
                return task
        return alike[0] if len(alike) == 1 and (alike[0].link is None or alike[0].link.ended.done()) else None

    def running(self, link: Link, number: int) -> Task | None:
        """The task a backend reports progress of under this token of ours."""
        return self._running.get((link, number))

    def _remove(self, task: Task) -> None:
        self._tasks.pop(task.public, None)
        self._running.pop((task.link, task.number), None)
        alike = self._alike[task.backend, task.native]
        alike.remove(task)
        if not alike:
            del self._alike[task.backend, task.native]
