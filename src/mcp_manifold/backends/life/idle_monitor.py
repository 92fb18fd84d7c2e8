"""Notices that nobody uses a backend any more: watches over one open link, and says when it may be closed.

Closes nothing itself, and knows neither calls nor clients: it is told whether the backend is in use, and since when
not.
"""

import asyncio
from collections.abc import Callable
from typing import Final

from mcp_manifold.backends.link.link import Link

LOOK_EVERY: Final = 5.0
"""Seconds after which it looks again in any case: the settings may be others by then."""


class IdleMonitor:
    """See the module. `after` gives the seconds of idleness that are enough, 0 for never; `used`, the last use."""

    def __init__(
        self,
        link: Link,
        *,
        after: Callable[[], float],
        used: Callable[[], float],
        is_in_use: Callable[[], bool],
        on_idle: Callable[[], None],
    ) -> None:
        self._link = link
        self._after = after
        self._used = used
        self._is_in_use = is_in_use
        self._on_idle = on_idle
        self._since = asyncio.get_running_loop().time()

    def __repr__(self) -> str:
        return f"<IdleMonitor {self._link.backend} after={self._after():g}s>"

    async def run(self) -> None:
        """Watch until the link is lost, or nobody used the backend for long enough."""
        while not self._link.ended.done():
            left = self._left()
            if left <= 0:
                self._on_idle()  # in this turn, so that no call comes in between
                return
            await asyncio.wait({self._link.ended}, timeout=min(left, LOOK_EVERY))

    def _left(self) -> float:
        """Seconds until it may be closed if nothing happens any more."""
        after, now = self._after(), asyncio.get_running_loop().time()
        if self._is_in_use():
            self._since = now
        if not after:
            return LOOK_EVERY
        return max(self._since, self._used()) + after - now
