"""How long a connection may stay as it is: one timer, set anew when it fires. Knows no connection."""

import asyncio
from collections.abc import Callable


class IdleTimer:
    """See the module."""

    __slots__ = ("_due", "_loop", "_timer")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._due = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<IdleTimer {'over' if self.is_over else 'on'}>"

    @property
    def is_over(self) -> bool:
        """Whether the time is over."""
        return self._loop.time() >= self._due

    def allow(self, seconds: float) -> None:
        """So long from now on; touches no timer, so if that is sooner than before, it may be noticed late."""
        self._due = self._loop.time() + seconds

    def begin(self, look: Callable[[], None]) -> None:
        """Call `look` when the time as it is now is over; by then it may be longer."""
        self.stop()
        self._timer = self._loop.call_at(self._due, look)

    def stop(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
