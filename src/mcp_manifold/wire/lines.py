"""Cuts a byte stream into lines, in linear time and bounded memory. Pure: it reads no descriptor and no message."""

from typing import Final

_CR: Final = 0x0D
ENDLESS_LINE: Final = 16 << 20
"""Skipped bytes of one line after which the line counts as endless."""
KEPT: Final = 4096
"""Bytes of an oversized line that are kept for its report."""
_FEW: Final = 64
_SMALL: Final = 4096
_BUFFER: Final = 65536
"""After a few parts, small pieces are joined to buffers: a list entry for each would cost more than its bytes."""


class LineCutter:
    """Cuts lines of at most `limit` bytes, without their LF or CR LF. Oversized lines are skipped and reported.

    Args:
        with_end: report an oversized line when it ends, by its first and last bytes, not once it is too long.
    """

    __slots__ = ("_end", "_is_skipping", "_limit", "_parts", "_skipped", "_start", "_with_end", "held", "oversized")

    def __init__(self, limit: int, *, with_end: bool = False) -> None:
        self.held = 0
        """Bytes of the unfinished line."""
        self.oversized: list[bytes] = []
        """The first bytes of each line above the limit, oldest first, reported once; `take_oversized` clears it."""
        self._limit = limit
        self._parts: list[bytes | bytearray] = []
        self._is_skipping = False
        self._skipped = 0
        self._with_end = with_end
        self._start: bytes | None = None
        """The first bytes of the line being skipped, if it is reported at its end; `_end` are the latest."""
        self._end = b""

    def __repr__(self) -> str:
        return f"<LineCutter held={self.held}{' skipping' if self._is_skipping else ''}>"

    @property
    def is_idle(self) -> bool:
        """Whether no line is unfinished or being skipped, and none is left to report."""
        return not (self._parts or self._is_skipping or self.oversized)

    @property
    def is_endless(self) -> bool:
        """Whether the line being skipped has passed `ENDLESS_LINE` bytes."""
        return self._is_skipping and self._skipped > ENDLESS_LINE

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that `data` completes. Whole lines in one piece take one `split`."""
        if not self._parts and not self._is_skipping and data.endswith(b"\n") and len(data) <= self._limit:
            lines = data.split(b"\n")
            lines.pop()
            return lines if _CR not in data else [line.removesuffix(b"\r") for line in lines]
        first = data.find(b"\n")
        if first < 0:
            self._hold(data)
            return []
        line = self._complete(data[:first])
        lines = [] if line is None else [line]
        *whole, rest = data[first + 1 :].split(b"\n")
        if len(data) <= self._limit:  # and so is every line in it
            lines += [line.removesuffix(b"\r") for line in whole]
        else:
            lines += [line for end in whole if (line := self._complete(end)) is not None]
        self._hold(rest)
        return lines

    def finish(self) -> list[bytes]:
        """The last line, when the stream ends without a line end."""
        line = self._complete(b"") if self._parts or self._is_skipping else None
        return [] if line is None else [line]

    def take_oversized(self) -> list[bytes]:
        """The reports of oversized lines since the last call of this method."""
        taken, self.oversized = self.oversized, []
        return taken

    def skip(self) -> bytes:
        """Skip the unfinished line to its end, without a report; returns its first bytes."""
        start = b"".join(self._parts[:_FEW])[:KEPT]
        self._parts, self.held, self._is_skipping, self._skipped = [], 0, True, 0
        return start

    def _complete(self, end: bytes) -> bytes | None:
        """The line that ends with `end`; None for an oversized one."""
        self._hold(end)
        parts, self._parts, self.held = self._parts, [], 0
        if self._is_skipping:
            self._is_skipping = False
            if self._start is not None:
                self.oversized.append(self._start + self._end)
                self._start, self._end = None, b""
            return None
        return b"".join(parts).removesuffix(b"\r")

    def _hold(self, piece: bytes) -> None:
        if self._is_skipping:
            self._skipped += len(piece)
            if self._start is not None:
                self._end = (self._end + piece[-KEPT:])[-KEPT:]
            return
        self.held += len(piece)
        parts = self._parts
        if len(parts) < _FEW or len(piece) >= _SMALL:
            if piece:
                parts.append(piece)
        elif isinstance(last := parts[-1], bytearray) and len(last) < _BUFFER:
            last += piece
        else:
            parts.append(bytearray(piece))
        if self.held > self._limit:
            end = piece[-KEPT:]
            start = self.skip()
            if self._with_end:
                self._start, self._end = start, end
            else:
                self.oversized.append(start)
