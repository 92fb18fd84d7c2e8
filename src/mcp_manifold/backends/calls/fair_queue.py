"""Whose turn it is among those who wait: one after the other over principals, and within one over its sessions. Pure.

Theory. First come, first served would let the client that asks most have everything. So each principal has a line of
its own, each session of it one within, and turns go round: who has a thousand calls waiting is served as often as who
has one. The same when there is no room: a newcomer takes the place of the latest arrival in the longest line, if that
is longer than the newcomer's own would be.
"""

from collections import OrderedDict, deque
from typing import Generic, TypeVar

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
    """See the module."""

    __slots__ = ("_lines",)

    def __init__(self) -> None:
        self._lines: OrderedDict[str, _Line[T]] = OrderedDict()

    def __repr__(self) -> str:
        return f"<FairQueue {len(self)} of {len(self._lines)} principals>"

    def __len__(self) -> int:
        return sum(line.size for line in self._lines.values())

    def join(self, principal: str, session: str, who: T) -> None:
        """Wait behind the others of the same session."""
        line = self._lines.setdefault(principal, _Line())
        line.sessions.setdefault(session, deque()).append(who)
        line.size += 1

    def leave(self, principal: str, session: str, who: T) -> bool:
        """Wait no longer; False for one that did not."""
        line = self._lines.get(principal)
        waiting = None if line is None else line.sessions.get(session)
        if line is None or waiting is None or who not in waiting:
            return False
        waiting.remove(who)
        self._took(principal, line, session)
        return True

    def next(self) -> T:
        """Whose turn it is, who then waits no longer; IndexError when nobody does."""
        if not self._lines:
            raise IndexError("nobody is waiting")
        principal, line = next(iter(self._lines.items()))
        session, waiting = next(iter(line.sessions.items()))
        who = waiting.popleft()
        self._lines.move_to_end(principal)
        line.sessions.move_to_end(session)
        self._took(principal, line, session)
        return who

    def displaced(self, principal: str, session: str) -> T | None:
        """Who has to give way to a newcomer of that session, and waits no longer; None where nobody has to."""
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
        who = line.sessions[longest].pop()
        self._took(greatest, line, longest)
        return who

    def _took(self, principal: str, line: _Line[T], session: str) -> None:
        line.size -= 1
        if not line.sessions[session]:
            del line.sessions[session]
        if not line.size:
            del self._lines[principal]
