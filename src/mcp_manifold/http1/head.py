"""HTTP/1.1 heads: the parsed head of a request, and status and header lines as safe bytes. Pure.

Every header line of both sides is written here. A value from a configuration file, a client or a backend must never
start a second header line, let alone a second message.
"""

import re
from collections.abc import Collection, Iterable
from http import HTTPStatus
from typing import Final

Line = tuple[bytes, bytes]
"""Name and value of one header line."""
MAX_HEAD: Final = 65536
"""Bytes of the largest head that is read."""
RESERVED_HEADERS: Final = frozenset(
    {
        b"accept-encoding",
        b"connection",
        b"content-length",
        b"expect",
        b"host",
        b"keep-alive",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
"""Request headers that only the connection sets: they frame a message, or route it."""

_STATUS: Final = {status.value: b"HTTP/1.1 %d %b\r\n" % (status, status.phrase.encode()) for status in HTTPStatus}
_TOKEN: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_LINE_BREAK: Final = re.compile(rb"[\r\n\0]")


class Head:
    """The parsed head of a request. Header names are in lower case; of a repeated header, the last line counts."""

    __slots__ = ("decision", "headers", "keeps_alive", "lines", "method", "target", "version")

    def __init__(self, method: bytes, target: bytes, lines: list[Line], version: str, *, keeps_alive: bool) -> None:
        self.method = method
        self.target = target
        self.lines = lines
        self.headers: dict[bytes, bytes] = dict(lines)
        self.version = version
        self.keeps_alive = keeps_alive
        self.decision: object = None
        """The front's decision on this head; a head that comes again, byte for byte, is the same object."""

    def __repr__(self) -> str:
        return f"<Head {self.method.decode('latin-1')} with {len(self.lines)} lines>"

    def remember(self, decision: object) -> None:
        """Store the front's decision on this head."""
        self.decision = decision

    @property
    def length(self) -> int | None:
        """The bytes of the body; None unless the head declares them as one plain number."""
        declared = self.headers.get(b"content-length")
        if declared is None or b"transfer-encoding" in self.headers or not declared.isdigit() or len(declared) > 18:
            return None
        return int(declared)

    def sized(self, length: int) -> "Head":
        """A copy of this head for a body of `length` bytes."""
        size = b"%d" % length
        lines = [(name, size if name == b"content-length" else value) for name, value in self.lines]
        return Head(self.method, self.target, lines, self.version, keeps_alive=self.keeps_alive)


def is_token(name: bytes) -> bool:
    """Whether `name` can be a method or a header name (RFC 9110, 5.6.2)."""
    return _TOKEN.fullmatch(name) is not None


def status_line(status: int) -> bytes:
    """The first line of a response."""
    return _STATUS.get(status) or b"HTTP/1.1 %d \r\n" % status


def header_lines(lines: Iterable[Line]) -> bytes:
    """Header lines as bytes, each with its line end.

    Raises:
        ValueError: a name is no token, or a value contains CR, LF or NUL. Values are not quoted.
    """
    return b"".join([_written(name, value, ()) for name, value in lines])


def header_line(name: str, value: str, *, reserved: Collection[bytes] = ()) -> bytes:
    """One header line from text; see `header_lines`.

    Raises:
        ValueError: as `header_lines`, or for a character outside Latin-1, or for one of the `reserved` names.
    """
    try:
        return _written(name.encode("latin-1"), value.encode("latin-1"), reserved)
    except UnicodeEncodeError:
        raise ValueError(f"header {name!r}: contains a character outside Latin-1") from None


def _written(name: bytes, value: bytes, reserved: Collection[bytes]) -> bytes:
    if not _TOKEN.fullmatch(name):
        raise ValueError(f"{name.decode('latin-1')!r} is not a header name")
    if _LINE_BREAK.search(value):
        raise ValueError(f"header {name.decode()!r}: value contains CR, LF or NUL")
    if name.lower() in reserved:
        raise ValueError(f"header {name.decode()!r}: set by the connection itself")
    return b"%b: %b\r\n" % (name, value)
