"""The calls of one backend that wait for a slot: bounded in number and time, served in turn over clients.

Theory. First come, first served would let the client that asks most have everything. So each principal has a line of
its own, each session of it one within, and turns go round: a client with a thousand calls waiting is served as often as
one with a single call. The same holds when the queue is full: a newcomer displaces the latest arrival of the longest
line, if that is longer than the newcomer's own would be.
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
    """Those of one principal who wait, by session."""

    __slots__ = ("sessions", "size")

    def __init__(self) -> None:
        self.sessions: OrderedDict[str, deque[T]] = OrderedDict()
        self.size = 0

    def __repr__(self) -> str:
        return f"<_Line {self.size} of {len(self.sessions)} sessions>"

    def longest(self) -> str:
        return max(self.sessions, key=lambda session: len(self.sessions[session]))


class FairQueue(Generic[T]):
    """A queue that takes turns over principals, and within one over its sessions. See the module."""

    __slots__ = ("_lines",)

    def __init__(self) -> None:
        self._lines: OrderedDict[str, _Line[T]] = OrderedDict()

    def __repr__(self) -> str:
        return f"<FairQueue {len(self)} of {len(self._lines)} principals>"

    def __len__(self) -> int:
        return sum(line.size for line in self._lines.values())

    def join(self, principal: str, session: str, item: T) -> None:
        """Add an item behind the others of its session."""
        line = self._lines.setdefault(principal, _Line())
        line.sessions.setdefault(session, deque()).append(item)
        line.size += 1

    def leave(self, principal: str, session: str, item: T) -> bool:
        """Remove an item; False if it is not there."""
        line = self._lines.get(principal)
        waiting = None if line is None else line.sessions.get(session)
        if line is None or waiting is None or item not in waiting:
            return False
        waiting.remove(item)
        self._removed(principal, line, session)
        return True

    def next(self) -> T:
        """Remove the item whose turn it is.

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
        """Remove the item that gives way to a newcomer of that session; None where none has to."""
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
    """One call that waits."""

    principal: str
    session: str
    admitted: "asyncio.Future[None]" = field(default_factory=_future)


class WaitingCalls:
    """See the module. `size` is how many wait; `overloaded` counts those refused or displaced."""

    __slots__ = ("_backend", "_clock", "_limit", "_on_unused", "_queue", "overloaded", "size")

    def __init__(self, backend: str, limit: int, clock: Clock, *, on_unused: Callable[[], None]) -> None:
        self._backend = backend
        self._limit = limit
        self._clock = clock
        self._on_unused = on_unused
        """Takes back the slot of a call that was cancelled as it was admitted."""
        self._queue: FairQueue[_Waiting] = FairQueue()
        self.size = 0
        self.overloaded = 0

    def __repr__(self) -> str:
        return f"<WaitingCalls {self._backend} {self.size}/{self._limit}>"

    def adapt(self, limit: int) -> None:
        """Let at most so many wait from now on; those that wait already go on waiting."""
        self._limit = limit

    async def wait(self, call: Call, seconds: float, running: int) -> float:
        """Wait until `admit_next` reaches this call; returns the seconds that took.

        Raises:
            BackendOverloaded: the queue is full, or it was not the call's turn within `seconds`.
        """
        began = self._clock.now()
        waiting = self._joined(call, running)
        timer = self._clock.call_later(seconds, self._expire, waiting, seconds, running)
        try:
            await waiting.admitted
        except asyncio.CancelledError:
            if waiting.admitted.cancelled():
                self._drop(waiting)
            elif waiting.admitted.exception() is None:  # it was admitted in the turn in which it was cancelled
                self._on_unused()
            raise
        finally:
            timer.cancel()
        return self._clock.now() - began

    def admit_next(self) -> bool:
        """Let the next call go on; False if there is none that still waits."""
        while self.size:
            waiting = self._queue.next()
            self.size -= 1
            if not waiting.admitted.done():  # else its task was cancelled in this very turn of the loop
                waiting.admitted.set_result(None)
                return True
        return False

    def _joined(self, call: Call, running: int) -> _Waiting:
        principal, session = call.session.principal.key, call.session.key
        if self.size >= self._limit:
            self.overloaded += 1
            displaced = self._queue.displaced(principal, session)
            if displaced is None:
                raise self._full("too many calls are waiting for it already", running)
            self.size -= 1
            if not displaced.admitted.done():
                displaced.admitted.set_exception(
                    self._full("the call had to give way to other clients' calls", running)
                )
        waiting = _Waiting(principal, session)
        self._queue.join(principal, session, waiting)
        self.size += 1
        return waiting

    def _expire(self, waiting: _Waiting, seconds: float, running: int) -> None:
        if not waiting.admitted.done():
            self.overloaded += 1
            self._drop(waiting)
            waiting.admitted.set_exception(self._full(f"it was not the call's turn within {seconds:g} s", running))

    def _drop(self, waiting: _Waiting) -> None:
        if self._queue.leave(waiting.principal, waiting.session, waiting):
            self.size -= 1

    def _full(self, why: str, running: int) -> BackendOverloaded:
        return BackendOverloaded(self._backend, why, running=running, waiting=self.size)
