"""The calls of one backend that wait for a slot: bounded in number and time, and fair between clients.

Theory. With one queue, a client that sends many calls would delay all others. So each principal has its own line, with
one line per session in it, and the lines are served in turn: a client with a thousand waiting calls is served as often
as one with a single call. When the queue is full, a new call displaces the latest call of the longest line. That line
must be longer than its own line would be.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from mcp_manifold.clock import Clock
from mcp_manifold.errors import BackendOverloaded
from mcp_manifold.model.call import Call

T = TypeVar("T")


class _Line(Generic[T]):
    """The waiting items of one principal, by session."""

    __slots__ = ("sessions", "size")

    def __init__(self) -> None:
        self.sessions: OrderedDict[str, deque[T]] = OrderedDict()
        self.size = 0

    def __repr__(self) -> str:
        return f"<_Line {self.size} of {len(self.sessions)} sessions>"

    def longest(self) -> str:
        return max(self.sessions, key=lambda session: len(self.sessions[session]))


class FairQueue(Generic[T]):
    """A queue that serves principals in turn, and the sessions of each principal in turn."""

    def __init__(self) -> None:
        self._lines: OrderedDict[str, _Line[T]] = OrderedDict()

    def __repr__(self) -> str:
        return f"<FairQueue {len(self)} of {len(self._lines)} principals>"

    def __len__(self) -> int:
        return sum(line.size for line in self._lines.values())

    def join(self, principal: str, session: str, item: T) -> None:
        """Add an item at the end of its session's line."""
        line = self._lines.setdefault(principal, _Line())
        line.sessions.setdefault(session, deque()).append(item)
        line.size += 1

    def leave(self, principal: str, session: str, item: T) -> bool:
        """Remove an item; False if it is not in the queue."""
        line = self._lines.get(principal)
        waiting = None if line is None else line.sessions.get(session)
        if line is None or waiting is None or item not in waiting:
            return False
        waiting.remove(item)
        self._removed(principal, line, session)
        return True

    def next(self) -> T:
        """Remove and return the next item.

        Raises:
            IndexError: the queue is empty.
        """
        if not self._lines:
            raise IndexError("the queue is empty")
        principal, line = next(iter(self._lines.items()))
        session, waiting = next(iter(line.sessions.items()))
        item = waiting.popleft()
        self._lines.move_to_end(principal)
        line.sessions.move_to_end(session)
        self._removed(principal, line, session)
        return item

    def displaced(self, principal: str, session: str) -> T | None:
        """Remove and return the item that a new one of that session displaces; None if there is none."""
        own = self._lines.get(principal)
        greatest = max(self._lines, key=lambda name: self._lines[name].size, default=principal)
        line = self._lines.get(greatest)
        if line is None:
            return None
        longest = line.longest()
        if greatest == principal or line.size <= (own.size if own else 0) + 1:
            if own is None:
                return None
            greatest, line, longest = principal, own, own.longest()
            if len(own.sessions[longest]) <= len(own.sessions.get(session, ())) + 1:
                return None
        item = line.sessions[longest].pop()
        self._removed(greatest, line, longest)
        return item

    def _removed(self, principal: str, line: _Line[T], session: str) -> None:
        line.size -= 1
        if not line.sessions[session]:
            del line.sessions[session]
        if not line.size:
            del self._lines[principal]


def _future() -> "asyncio.Future[None]":
    return asyncio.get_running_loop().create_future()


@dataclass(slots=True, eq=False)
class _Waiting:
    """One waiting call."""

    principal: str
    session: str
    admitted: "asyncio.Future[None]" = field(default_factory=_future)


class WaitingCalls:
    """The calls that wait for a slot. `size` counts them; `overloaded` counts those refused or displaced."""

    def __init__(self, backend: str, limit: int, clock: Clock, *, on_unused: Callable[[], None]) -> None:
        self._backend = backend
        self._limit = limit
        self._clock = clock
        self._on_unused = on_unused
        """Releases the slot of a call that was cancelled in the turn of its admission."""
        self._queue: FairQueue[_Waiting] = FairQueue()
        self.size = 0
        self.overloaded = 0

    def __repr__(self) -> str:
        return f"<WaitingCalls {self._backend} {self.size}/{self._limit}>"

    def adapt(self, limit: int) -> None:
        """Change the limit; calls that wait already continue to wait."""
        self._limit = limit

    async def wait(self, call: Call, seconds: float, running: int) -> float:
        """Wait until `admit_next` admits this call; returns the seconds it waited.

        Raises:
            BackendOverloaded: the queue is full, or the call was not admitted within `seconds`.
        """
        began = self._clock.now()
        waiting = self._joined(call, running)
        timer = self._clock.call_later(seconds, self._expire, waiting, seconds, running)
        try:
            await waiting.admitted
        except asyncio.CancelledError:
            if waiting.admitted.cancelled():
                self._drop(waiting)
            elif waiting.admitted.exception() is None:  # admitted in the turn of its cancellation
                self._on_unused()
            raise
        finally:
            timer.cancel()
        return self._clock.now() - began

    def admit_next(self) -> bool:
        """Admit the next call; False if none waits."""
        while self.size:
            waiting = self._queue.next()
            self.size -= 1
            if not waiting.admitted.done():  # otherwise its task was cancelled in this turn
                waiting.admitted.set_result(None)
                return True
        return False

    def _joined(self, call: Call, running: int) -> _Waiting:
        principal, session = call.session.principal.key, call.session.key
        if self.size >= self._limit:
            self.overloaded += 1
            displaced = self._queue.displaced(principal, session)
            if displaced is None:
                raise self._full("too many calls are waiting for it", running)
            self.size -= 1
            if not displaced.admitted.done():
                displaced.admitted.set_exception(
                    self._full("the call was displaced by calls of other clients", running)
                )
        waiting = _Waiting(principal, session)
        self._queue.join(principal, session, waiting)
        self.size += 1
        return waiting

    def _expire(self, waiting: _Waiting, seconds: float, running: int) -> None:
        if not waiting.admitted.done():
            self.overloaded += 1
            self._drop(waiting)
            waiting.admitted.set_exception(self._full(f"no slot was free within {seconds:g} s", running))

    def _drop(self, waiting: _Waiting) -> None:
        if self._queue.leave(waiting.principal, waiting.session, waiting):
            self.size -= 1

    def _full(self, why: str, running: int) -> BackendOverloaded:
        return BackendOverloaded(self._backend, why, running=running, waiting=self.size)
