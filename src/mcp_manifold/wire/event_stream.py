"""The `text/event-stream` format, parsed and written. Bytes in and out; no HTTP and no JSON.

Follows the WHATWG HTML specification, section 9.2, on bytes: lines end at CR, LF or CRLF only, however the data is cut
into pieces. Two differences serve MCP resumption. A block without data but with an `id` or `retry` is reported, with
empty data. An event's `id` is the one in its own block, not one carried over from an earlier block.
"""

from dataclasses import dataclass

_BOM = b"\xef\xbb\xbf"
_RETRY_DIGITS = 15  # longer values make no sensible delay, and are slow to convert


@dataclass(frozen=True, slots=True)
class Event:
    """One event of a stream. `id` and `retry` (milliseconds) are None if the event has no such line."""

    data: bytes
    event: str = "message"
    id: str | None = None
    retry: int | None = None

    @property
    def is_message(self) -> bool:
        """Whether the event carries a message, unlike `ping`, other types, and the `[DONE]` of LLM interfaces."""
        return self.event == "message" and bool(self.data) and self.data != b"[DONE]"


class EventTooLarge(Exception):
    """An event or a line exceeds the limit. The parser cannot continue; close the stream."""


class EventParser:
    """Splits a stream into Events. Buffers at most one incomplete event of `max_event` bytes."""

    __slots__ = ("_data", "_event", "_id", "_line", "_max", "_opening", "_retry", "_size", "_skip_lf")

    def __init__(self, max_event: int) -> None:
        self._max = max_event
        self._line = bytearray()  # the incomplete line; grown in place, so that a huge line takes linear time
        self._opening = True  # a byte order mark may still follow
        self._skip_lf = False  # the last line ended with CR: a leading LF belongs to it
        self._data: list[bytes] = []
        self._event = ""
        self._id: str | None = None
        self._retry: int | None = None
        self._size = 0  # bytes in complete lines of the incomplete event

    def __repr__(self) -> str:
        return f"<EventParser holding={self.held} max={self._max}>"

    @property
    def held(self) -> int:
        """Bytes buffered of the incomplete event."""
        return self._size + len(self._line)

    def feed(self, data: bytes) -> list[Event]:
        """Parse the next bytes of the stream; returns the events they complete.

        Raises:
            EventTooLarge: the incomplete event exceeds the limit.
        """
        if self._opening:
            data = self._without_bom(data)
        if self._skip_lf and data:
            self._skip_lf = False
            if data[0] == 10:
                data = data[1:]
        if not data:
            return []
        if b"\n" not in data and b"\r" not in data:  # within a long line: much faster than splitting
            self._grow(data)
            return []
        lines = data.splitlines()  # for bytes this splits at CR, LF and CRLF only, unlike str
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
        """Remove a byte order mark at the start. Until it is complete or ruled out, the bytes wait in `_line`."""
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
        if line.startswith(b"data: "):  # most lines, and all long ones: a single copy
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
    """One event as bytes. Line breaks in `data` become further data lines; a parser joins them with LF.

    Raises:
        ValueError: `event` or `id` contains CR, LF or NUL.
    """
    if b"\n" in data or b"\r" in data:
        data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\n", b"\ndata: ")
    if id is None:
        return b"event: %b\ndata: %b\n\n" % (_one_line(event), data)
    return b"id: %b\nevent: %b\ndata: %b\n\n" % (_one_line(id), _one_line(event), data)


def encode_opening(id: str, retry: int) -> bytes:
    """The first event of a resumable stream: an id to resume from, `retry` milliseconds, and empty data.

    Raises:
        ValueError: `id` contains CR, LF or NUL.
    """
    return b"id: %b\nretry: %d\ndata: \n\n" % (_one_line(id), retry)


def _one_line(value: str) -> bytes:
    if "\n" in value or "\r" in value or "\0" in value:
        raise ValueError("an event's name and id cannot contain CR, LF or NUL")
    return value.encode()
