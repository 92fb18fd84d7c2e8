"""What a backend sends that is no message: said at a bounded rate, and counted, so that a flood is known for one.

Noise is usual (a greeting on stdout, a stray print) and costs nobody anything. A flood costs everybody processor time
and the log its room; what is done about it is the link's business.
"""

import logging
from typing import Final

logger = logging.getLogger(__name__)

SAID: Final = 10
"""Times a second it is logged; the rest is counted."""
FLOOD: Final = 10_000
"""Times a second after which it is no noise any more: no server prints that much by mistake and works."""


class InvalidMessageMonitor:
    """See the module. One for each link."""

    __slots__ = ("_backend", "_count", "_second")

    def __init__(self, backend: str) -> None:
        self._backend = backend
        self._second = 0
        self._count = 0

    def __repr__(self) -> str:
        return f"<InvalidMessageMonitor of {self._backend} {self._count} this second>"

    def is_flood(self, reason: str, now: float) -> bool:
        """Take note of something that is no message; True once there are too many of them."""
        second = int(now)
        if second != self._second:
            if self._count > SAID:
                extra = {"backend": self._backend, "times": self._count - SAID}
                logger.warning("backend sent more of what is no message", extra=extra)
            self._second, self._count = second, 0
        self._count += 1
        if self._count <= SAID:
            logger.warning("backend sent what is no message", extra={"backend": self._backend, "reason": reason})
        return self._count >= FLOOD
