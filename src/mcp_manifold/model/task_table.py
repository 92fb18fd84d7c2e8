"""The task table: public task id to backend, native id, link and client. Bookkeeping only; sends nothing."""

import asyncio
import secrets
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, Generic, Protocol, TypeVar

from mcp_manifold.model.call import Session
from mcp_manifold.model.policy import ANONYMOUS
from mcp_manifold.wire import Payload

MAX_TASKS: Final = 10_000
"""Tasks in the table; the least recently used one is removed first."""


class TaskLink(Protocol):
    """The parts of a link that the table needs."""

    @property
    def backend(self) -> str:
        """The name of the backend."""

    @property
    def ended(self) -> "asyncio.Future[Any]":
        """The future that is done when the link is closed."""


LinkT = TypeVar("LinkT", bound=TaskLink)


@dataclass(frozen=True, slots=True, eq=False)
class Task(Generic[LinkT]):
    """One task: its public id, its backend and native id, and the session that created it."""

    public: str
    backend: str
    native: str
    link: LinkT | None
    session: Session
    number: int
    """The progress token that its backend uses while the task runs."""
    token: Payload | None
    """The progress token that the client chose, if any."""

    def is_of(self, session: Session) -> bool:
        """Whether the session may use the task: it has the same principal and era as the task's creator."""
        return self.session.principal.key == session.principal.key and self.session.era == session.era

    def is_listed_for(self, session: Session) -> bool:
        """Whether the session sees the task in lists. Without authentication, only its creator does."""
        return self.is_of(session) and (session.principal.key != ANONYMOUS.key or self.session is session)


class TaskTable(Generic[LinkT]):
    """The known tasks, least recently used first."""

    def __init__(self) -> None:
        self._tasks: OrderedDict[str, Task[LinkT]] = OrderedDict()
        self._alike: dict[tuple[str, str], list[Task[LinkT]]] = {}
        self._running: dict[tuple[LinkT | None, int], Task[LinkT]] = {}

    def __repr__(self) -> str:
        return f"<TaskTable {len(self._tasks)}>"

    def __iter__(self) -> Iterator[Task[LinkT]]:
        return iter(self._tasks.values())

    def __len__(self) -> int:
        return len(self._tasks)

    def add(
        self, backend: str, native: str, *, link: LinkT | None, session: Session, number: int, token: Payload | None
    ) -> Task[LinkT]:
        """Add a task under a new public id; replaces a task with the same native id on the same link."""
        for other in [each for each in self._alike.get((backend, native), ()) if each.link is link]:
            self._remove(other)
        public = f"{backend}.{secrets.token_urlsafe(24)}"
        task = self._tasks[public] = Task(public, backend, native, link, session, number, token)
        self._alike.setdefault((backend, native), []).append(task)
        self._running[link, number] = task
        while len(self._tasks) > MAX_TASKS:
            self._remove(next(iter(self._tasks.values())))
        return task

    def find(self, public: str, session: Session) -> Task[LinkT] | None:
        """The task with a public id, if the session may use it."""
        task = self._tasks.get(public)
        if task is None or not task.is_of(session):
            return None
        self._tasks.move_to_end(public)
        return task

    def find_native(self, link: LinkT, native: str | None) -> Task[LinkT] | None:
        """The task with a native id on this link, else the only one with that id whose own link is closed."""
        alike = [] if native is None else self._alike.get((link.backend, native), [])
        for task in alike:
            if task.link is link:
                return task
        return alike[0] if len(alike) == 1 and (alike[0].link is None or alike[0].link.ended.done()) else None

    def find_running(self, link: LinkT, number: int) -> Task[LinkT] | None:
        """The task whose progress a backend reports under our token `number`."""
        return self._running.get((link, number))

    def _remove(self, task: Task[LinkT]) -> None:
        self._tasks.pop(task.public, None)
        self._running.pop((task.link, task.number), None)
        alike = self._alike[task.backend, task.native]
        alike.remove(task)
        if not alike:
            del self._alike[task.backend, task.native]
