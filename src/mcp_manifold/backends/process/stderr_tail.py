"""The last lines that a child wrote to stderr, logged at a bounded rate. Knows no pipe and no process."""

import logging
from collections import deque
from typing import Final

from mcp_manifold.wire.lines import LineCutter

logger = logging.getLogger(__name__)

TAIL_LINES: Final = 20
LINE_LIMIT: Final = 4096
LOG_RATE: Final = 50
"""Lines of stderr logged in a second; the rest is counted only."""
_READ: Final = 16384
"""Bytes of one piece that are decoded: the end of a longer one."""
_READ_IN_FLOOD: Final = 4096
"""The same once the rate is exceeded."""


class StderrTail:
    """The last lines of a server's stderr, over all its processes."""

    def __init__(self, backend: str) -> None:
        self._backend = backend
        self._lines = LineCutter(LINE_LIMIT)
        self._tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._second = 0
        self._logged = 0
        self._suppressed = 0
        self._exit = ""

    def __repr__(self) -> str:
        return f"<StderrTail {self._backend} lines={len(self._tail)}>"

    @property
    def exit(self) -> str:
        """How the server last ended on its own, in words; empty if it never did."""
        return self._exit

    def exited(self, how: str) -> None:
        """The server ended on its own."""
        self._exit = how

    def fed(self, data: bytes, now: float) -> None:
        """Take what the server wrote. In a flood only the end of each piece is decoded."""
        is_flood = self._second == int(now) and self._logged >= LOG_RATE
        most = _READ_IN_FLOOD if is_flood else _READ
        if len(data) > most:
            self._suppressed += data.count(b"\n", 0, len(data) - most)
            data = data[-most:]
        for line in self._lines.feed(data):
            text = printable(line.decode("utf-8", "replace"))
            if text:
                self._tail.append(text)
                self._log(text, int(now))
        self._lines.take_oversized()

    def last(self) -> str:
        """The last line, for an error message; empty when there is none."""
        return self._tail[-1] if self._tail else ""

    def lines(self) -> tuple[str, ...]:
        """The last lines, oldest first."""
        return tuple(self._tail)

    def _log(self, text: str, second: int) -> None:
        if second != self._second:
            if self._suppressed:
                logger.info("stderr lines not shown", extra={"backend": self._backend, "lines": self._suppressed})
            self._second, self._logged, self._suppressed = second, 0, 0
        if self._logged < LOG_RATE:
            self._logged += 1
            logger.info("stderr: %s", text, extra={"backend": self._backend})
        else:
            self._suppressed += 1


def printable(text: str) -> str:
    """`text` without control characters: a server's output must not drive the terminal that shows our log (S44)."""
    return "".join(char if char.isprintable() else " " for char in text).strip()
