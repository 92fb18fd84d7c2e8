"""Splits a byte stream into lines, in linear time and bounded memory. Pure: feed it pieces, take lines."""

from collections.abc import Iterable, Iterator
from typing import Final

_CR: Final = 0x0D
ENDLESS: Final = 16 << 20
"""Bytes that are dropped of a line before it counts as one without an end."""


class LineSplitter:
    """Lines of at most `limit` bytes, without their LF (and CR). A longer one is dropped to its end and reported."""

    __slots__ = ("_dropped", "_dropping", "_limit", "_parts", "_size", "oversized")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._parts: list[bytes] = []
        self._size = 0
        self._dropping = False
        self._dropped = 0
        self.oversized: list[bytes] = []
        """The first kilobytes of lines that were too long, oldest first; whoever reads them clears them."""

    def __repr__(self) -> str:
        return f"<LineSplitter held={self._size}{' dropping' if self._dropping else ''}>"

    @property
    def is_idle(self) -> bool:
        """Whether no line has begun, or is being dropped, and none was too long."""
        return not (self._parts or self._dropping or self.oversized)

    @property
    def is_endless(self) -> bool:
        """Whether a line that is being dropped is so long that it will hardly ever end."""
        return self._dropping and self._dropped > ENDLESS

    def feed(self, data: bytes) -> Iterable[bytes]:
        """The lines that `data` completes."""
        if not self._parts and not self._dropping and data.endswith(b"\n") and len(data) <= self._limit:
            lines = data.split(b"\n")
            lines.pop()
            return lines if _CR not in data else [line.removesuffix(b"\r") for line in lines]
        return self._pieced(data)

    def _pieced(self, data: bytes) -> Iterator[bytes]:
        """The same, where lines are not whole, or not all of them are to be had."""
        start = 0
        while True:
            end = data.find(b"\n", start)
            if end < 0:
                break
            line = self._complete(data[start:end])
            if line is not None:
                yield line
            start = end + 1
        if start < len(data):
            self._hold(data[start:] if start else data)

    def _complete(self, piece: bytes) -> bytes | None:
        self._hold(piece)
        parts, self._parts, self._size = self._parts, [], 0
        if self._dropping:
            self._dropping = False
            return None
        line = parts[0] if len(parts) == 1 else b"".join(parts)
        return line[:-1] if line.endswith(b"\r") else line

    def _hold(self, piece: bytes) -> None:
        if self._dropping:
            self._dropped += len(piece)
            return
        self._parts.append(piece)
        self._size += len(piece)
        if self._size > self._limit:
            self.oversized.append(self.skip())

    @property
    def held(self) -> int:
        """Bytes of the line that is not complete yet."""
        return self._size

    def skip(self) -> bytes:
        """Drop the line that is not complete yet, to its end; returns how it begins."""
        start = b"".join(self._parts[:64])[:4096]
        self._parts, self._size, self._dropping, self._dropped = [], 0, True, 0
        return start
