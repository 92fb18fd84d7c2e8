"""How many bytes of large messages the whole process holds at the same time. Pure counting; knows no message.

Theory. Sizes of single messages have limits, and so have their numbers; the product of both is more memory than there
is. So whatever is large is counted while it is held: what comes in from servers is let in only while there is room
(`keep`), what is inside already is counted until it is out (`hold`), which makes less room for the next. Small ones
are never counted: they cost nothing but their number, which is limited elsewhere.
"""

import sys
from typing import Final

SHARE: Final = 8
"""What part of the memory there is they may take: each is held about three times on its way, and the rest is ours."""
MOST: Final = 1 << 30
"""Bytes that are enough, however much memory there is."""
LARGE: Final = 128 * 1024
"""Bytes from which on something counts."""


class Budget:
    """See the module. At most `most` bytes are let in."""

    __slots__ = ("held", "most", "refused")

    def __init__(self, most: int = sys.maxsize) -> None:
        self.most = most
        self.held = 0
        self.refused = 0
        """How often there was no room."""

    def __repr__(self) -> str:
        return f"<Budget {self.held}/{self.most}>"

    def take(self, size: int) -> bool:
        """Let so many bytes in; False when there is no room for them."""
        if self.held + size > self.most:
            self.refused += 1
            return False
        self.held += size
        return True

    def add(self, size: int) -> None:
        """So many bytes are held, room or not; negative ones are held no longer."""
        self.held += size


def most_of(memory: int) -> int:
    """Bytes for large messages where nobody said how many, of so much memory."""
    return min(MOST, memory // SHARE)


class Load:
    """What one buffer takes of a budget."""

    __slots__ = ("_budget", "size")

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self.size = 0

    def __repr__(self) -> str:
        return f"<Load {self.size} of {self._budget!r}>"

    def keep(self, size: int) -> bool:
        """The buffer is to hold so many bytes now; False when there is no room for more, and nothing has changed."""
        more = (size if size > LARGE else 0) - self.size
        if more > 0 and not self._budget.take(more):
            return False
        if more < 0:
            self._budget.add(more)
        self.size += more
        return True

    def hold(self, size: int) -> None:
        """The buffer does hold so many bytes."""
        counted = size if size > LARGE else 0
        self._budget.add(counted - self.size)
        self.size = counted

    def drop(self) -> None:
        """The buffer is gone."""
        self.hold(0)
