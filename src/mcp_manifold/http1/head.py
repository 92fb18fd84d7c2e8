"""The head of a request as it was parsed, and the bytes of a response's head. Pure."""

from collections.abc import Iterable
from http import HTTPStatus
from typing import Final

Line = tuple[bytes, bytes]
"""One header line: its name in lower case, and its value."""

_STATUS: Final = {status.value: b"HTTP/1.1 %d %b\r\n" % (status, status.phrase.encode()) for status in HTTPStatus}
_SPOILERS: Final = b"\r\n\0"


class Head:
    """What a request says before its body. Names are in lower case; of a repeated one `headers` has the last line."""

    __slots__ = ("decision", "headers", "keeps_alive", "lines", "method", "target", "version")

    def __init__(self, method: bytes, target: bytes, lines: list[Line], version: str, *, keeps_alive: bool) -> None:
        self.method = method
        self.target = target
        self.lines = lines
        self.headers: dict[bytes, bytes] = dict(lines)
        self.version = version
        self.keeps_alive = keeps_alive
        self.decision: object = None
        """What was decided on it; a head that comes again, byte for byte, is the same object."""

    def __repr__(self) -> str:
        return f"<Head {self.method.decode('latin-1')} with {len(self.lines)} lines>"

    def remember(self, decision: object) -> None:
        """Keep what was decided on it."""
        self.decision = decision

    @property
    def length(self) -> int | None:
        """The length of the body, where the head tells it in one plain number."""
        declared = self.headers.get(b"content-length")
        if declared is None or b"transfer-encoding" in self.headers or not declared.isdigit() or len(declared) > 18:
            return None
        return int(declared)

    def sized(self, length: int) -> "Head":
        """The same head before a body of that length."""
        told = b"%d" % length
        lines = [(name, told if name == b"content-length" else value) for name, value in self.lines]
        return Head(self.method, self.target, lines, self.version, keeps_alive=self.keeps_alive)


def status_line(status: int) -> bytes:
    """The first line of a response."""
    return _STATUS.get(status) or b"HTTP/1.1 %d \r\n" % status


def header_lines(lines: Iterable[Line]) -> bytes:
    """The header lines of a response.

    Raises:
        ValueError: one could end its line early.
    """
    written = []
    for name, value in lines:
        if any(byte in name or byte in value for byte in _SPOILERS):
            raise ValueError("a header line of ours contains a line end or NUL")
        written.append(b"%b: %b\r\n" % (name, value))
    return b"".join(written)
