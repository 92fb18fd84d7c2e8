"""The event-stream format, both ways: bytes to Events and Events to bytes. Knows nothing of HTTP, JSON or who reads.

The rules are those of the WHATWG specification, on bytes: a line ends at CR, LF or CRLF and at nothing else, wherever
the pieces happen to be cut. Two deliberate differences serve MCP: a block without data that carries an `id` or a
`retry` is reported with empty data (a resumption id must not be lost), and `id` is what the block itself said, not
what an earlier block did.
"""

from dataclasses import dataclass

_BOM = b"\xef\xbb\xbf"
_RETRY_DIGITS = 15  # more would be no sensible delay, and digits without end cost time to convert


@dataclass(frozen=True, slots=True)
class Event:
    """One dispatched event; `id` and `retry` are None where its block had no such line."""

    data: bytes
    event: str = "message"
    id: str | None = None
    retry: int | None = None


class EventTooLarge(Exception):
    """An event, or a single line, is longer than the limit; the parser cannot go on."""


class EventParser:
    """Cuts a stream into Events. Holds at most one unfinished event of `max_event` bytes."""

    __slots__ = ("_data", "_event", "_id", "_line", "_max", "_opening", "_retry", "_size", "_skip_lf")

    def __init__(self, max_event: int) -> None:
        self._max = max_event
        self._line = bytearray()  # the unfinished line; grown in place, so a huge line costs linear time
        self._opening = True  # a byte order mark may still come
        self._skip_lf = False  # the last line ended with CR: an LF that follows belongs to it
        self._data: list[bytes] = []
        self._event = ""
        self._id: str | None = None
        self._retry: int | None = None
        self._size = 0  # of the unfinished event's complete lines

    def __repr__(self) -> str:
        return f"<EventParser holding={self.held} max={self._max}>"

    @property
    def held(self) -> int:
        """Bytes of the event that is not complete yet."""
        return self._size + len(self._line)

    def feed(self, data: bytes) -> list[Event]:
        """Take the next bytes of the stream; return the events they complete.

        Raises:
            EventTooLarge: the event under construction exceeds the limit.
        """
        if self._opening:
            data = self._without_bom(data)
        if self._skip_lf and data:
            self._skip_lf = False
            if data[0] == 10:
                data = data[1:]
        if not data:
            return []
        if b"\n" not in data and b"\r" not in data:  # inside a long line, and much quicker than splitting
            self._grow(data)
            return []
        lines = data.splitlines()  # of bytes: CR, LF and CRLF only, unlike that of str
        last = data[-1]
        rest = b"" if last == 10 or last == 13 else lines.pop()
        self._skip_lf = last == 13
        if self._line and lines:
            self._line += lines[0]
            lines[0] = bytes(self._line)
            self._line = bytearray()
        events = self._take(lines) if lines else []
        if rest:
            self._grow(rest)
        return events

    def _grow(self, part: bytes) -> None:
        self._line += part
        self._check(len(self._line))

    def _without_bom(self, data: bytes) -> bytes:
        """Drop one byte order mark at the very start; until that is decided the bytes wait in `_line`."""
        data = bytes(self._line) + data
        self._line = bytearray()
        if len(data) < len(_BOM) and _BOM.startswith(data):
            self._line += data
            return b""
        self._opening = False
        return data.removeprefix(_BOM)

    def _take(self, lines: list[bytes]) -> list[Event]:
        events = []
        for line in lines:
            if line:
                self._check(len(line))
                self._field(line)
            else:
                event = self._dispatch()
                if event is not None:
                    events.append(event)
        return events

    def _field(self, line: bytes) -> None:
        if line.startswith(b":"):
            return  # a comment
        self._size += len(line) + 1
        if line.startswith(b"data: "):  # most lines, and all long ones: copied once
            self._data.append(line[6:])
            return
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._data.append(value)
        elif name == b"event":
            self._event = value.decode(errors="replace")
        elif name == b"id":
            if b"\0" not in value:
                self._id = value.decode(errors="replace")
        elif name == b"retry" and value.isdigit() and len(value) <= _RETRY_DIGITS:
            self._retry = int(value)

    def _dispatch(self) -> Event | None:
        data, id_, retry = self._data, self._id, self._retry
        event = None
        if data or id_ is not None or retry is not None:
            joined = data[0] if len(data) == 1 else b"\n".join(data)
            event = Event(joined, self._event or "message", id_, retry)
        self._clear()
        return event

    def _clear(self) -> None:
        self._data = []
        self._event = ""
        self._id = None
        self._retry = None
        self._size = 0

    def _check(self, more: int) -> None:
        if self._size + more > self._max:
            raise EventTooLarge(f"an event is larger than {self._max} bytes")


def encode_event(data: bytes, *, event: str = "message", id: str | None = None) -> bytes:
    """One event as it goes on the wire. Line ends inside `data` become further data lines, joined by LF when read.

    Raises:
        ValueError: `event` or `id` cannot be written on one line.
    """
    if b"\n" in data or b"\r" in data:
        data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\n", b"\ndata: ")
    if id is None:
        return b"event: %b\ndata: %b\n\n" % (_one_line(event), data)
    return b"id: %b\nevent: %b\ndata: %b\n\n" % (_one_line(id), _one_line(event), data)


def encode_opening(id: str, retry: int) -> bytes:
    """The event a resumable stream begins with: an id to come back to, after so many milliseconds, and no data.

    Raises:
        ValueError: `id` cannot be written on one line.
    """
    return b"id: %b\nretry: %d\ndata: \n\n" % (_one_line(id), retry)


def _one_line(value: str) -> bytes:
    if "\n" in value or "\r" in value or "\0" in value:
        raise ValueError("an event's name and id cannot contain CR, LF or NUL")
    return value.encode()
