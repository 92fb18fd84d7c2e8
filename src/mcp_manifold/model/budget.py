"""The memory budget of the process: how many bytes of large messages may be buffered at once.

Message sizes and message counts are limited separately; their product can exceed the machine's memory. Every large
buffer therefore counts against one budget. Incoming data is refused when the budget is spent (`try_resize`). Data that
is already buffered counts until it is written (`resize`), even beyond the limit. Small buffers are not counted.
"""

import sys
from typing import Final

SHARE: Final = 8
"""The default budget is this fraction (1/8) of memory: a message is held about three times on its way through."""
MAX_DEFAULT: Final = 1 << 30
"""Upper bound of the default budget, in bytes."""
MIN_COUNTED: Final = 128 * 1024
"""A buffer counts against the budget once it is larger than this many bytes."""


class MemoryBudget:
    """Bytes held by all counted buffers, and the limit up to which new ones are admitted."""

    def __init__(self, limit: int = sys.maxsize) -> None:
        self.limit = limit
        self.held = 0
        """Bytes counted now."""
        self.refused = 0
        """Times a reservation was refused since the start."""

    def __repr__(self) -> str:
        return f"<MemoryBudget {self.held}/{self.limit}>"

    def change_limit(self, limit: int) -> None:
        """Set another limit, in bytes; what is counted already stays."""
        self.limit = limit

    def try_add(self, size: int) -> bool:
        """Count `size` more bytes; False if they exceed the limit, and then nothing is counted."""
        if self.held + size > self.limit:
            self.refused += 1
            return False
        self.held += size
        return True

    def add(self, size: int) -> None:
        """Count `size` more bytes (fewer if negative), even beyond the limit."""
        self.held += size


def default_limit(memory: int) -> int:
    """The limit in bytes if none is configured, for a machine or container with `memory` bytes."""
    return min(MAX_DEFAULT, memory // SHARE)


class Reservation:
    """The part of a budget that one buffer uses."""

    __slots__ = ("_budget", "size")

    def __init__(self, budget: MemoryBudget) -> None:
        self._budget = budget
        self.size = 0
        """Bytes counted for the buffer; 0 while it is small."""

    def __repr__(self) -> str:
        return f"<Reservation {self.size} of {self._budget!r}>"

    def try_resize(self, size: int) -> bool:
        """Reserve `size` bytes for a buffer; False if the budget has no room, and then nothing changes."""
        more = (size if size > MIN_COUNTED else 0) - self.size
        if more > 0 and not self._budget.try_add(more):
            return False
        if more < 0:
            self._budget.add(more)
        self.size += more
        return True

    def resize(self, size: int) -> None:
        """Count a buffer that already holds `size` bytes, even beyond the limit."""
        counted = size if size > MIN_COUNTED else 0
        self._budget.add(counted - self.size)
        self.size = counted

    def release(self) -> None:
        """Count nothing any more, because the buffer is gone."""
        self.resize(0)
