"""Journals for stream resumption: numbered events, kept for a while and replayed after a Last-Event-ID.

Each handshake session has one `Journals`, with one `Journal` per stream. Knows no message content.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from mcp_manifold.clock import Clock, LoopClock
from mcp_manifold.fronts.http_errors import HttpError, Refused
from mcp_manifold.model.budget import MIN_COUNTED, MemoryBudget, Reservation
from mcp_manifold.wire.event_stream import encode_event, encode_opening

KEPT_EVENTS: Final = 1000
"""Events kept per session. The oldest are discarded first, across all streams."""
KEPT_BYTES: Final = 4 * 1024 * 1024
"""Bytes kept per session. The latest event is kept at any size, because it may be an answer."""
KEEP: Final = 60.0
"""Seconds that a journal is kept after its stream ended or, for a standing stream, broke."""
SETTLED: Final = 10.0
"""Seconds that a completely written stream is kept if the client sends another request.

A client that missed the answer would have resumed the stream by then.
"""
RETRY: Final = 1000
"""Milliseconds after which a client should reconnect, sent in revisions that support it."""
_NUMBERED: Final = "2025-03-26"
_PRIMED: Final = "2025-11-25"
_DIGITS: Final = 15


class _Reader(Protocol):
    """The client's event stream; see `http.stream.EventStream`."""

    gone: bool
    written: bool

    def push(self, event: bytes) -> bool: ...
    def post(self, event: bytes) -> None: ...
    def end(self, event: bytes = b"") -> None: ...
    def hang_up(self) -> None: ...


@dataclass(frozen=True, slots=True)
class _Kept:
    journal: "Journal"
    number: int
    event: bytes


class Journal:
    """The events sent on one stream, and its current reader, of which there is at most one."""

    __slots__ = ("_journals", "_last", "_reader", "_since", "ended", "gone", "is_standing", "name")

    def __init__(self, journals: "Journals", name: str, *, is_standing: bool) -> None:
        self._journals = journals
        self._last = 0
        self._reader: _Reader | None = None
        self._since = 0.0
        """When the stream ended or lost its reader, by the clock."""
        self.name = name
        self.is_standing = is_standing
        self.ended = False
        self.gone: Callable[[], None] | None = None
        """Called when the client disconnected and resumed the stream nowhere else."""

    def __repr__(self) -> str:
        state = "ended" if self.ended else "read" if self._is_read else "waiting"
        return f"<Journal {self.name} {state} last={self._last}>"

    @property
    def _is_read(self) -> bool:
        return self._reader is not None and not self._reader.gone

    def open(self, reader: _Reader, *, primed: bool) -> None:
        """Begin the stream; if `primed`, with an opening event that carries an id and the retry time."""
        self._reader = reader
        if primed:
            reader.post(encode_opening(f"{self.name}-0", RETRY))

    def resume(self, reader: _Reader, after: int) -> None:
        """Continue with a new reader, after event number `after`; the previous reader is disconnected."""
        before, self._reader = self._reader, reader
        if before is not None:
            before.hang_up()
        for event in self._journals.after(self, after):
            reader.post(event)
        if self.ended:
            self._since = self._journals.now()
            reader.end()

    def push(self, message: bytes) -> bool:
        """Send and keep a message; False if it was dropped for a slow reader. Without a reader it is only kept."""
        event = self._encoded(message)
        if self._is_read and self._reader is not None and not self._reader.push(event):
            return False
        self._keep(event)
        return True

    def post(self, message: bytes) -> None:
        """Send and keep a message that is never dropped."""
        event = self._encoded(message)
        self._keep(event)
        if self._reader is not None:
            self._reader.post(event)

    def end(self, message: bytes) -> None:
        """Send and keep the last message."""
        event = self._encoded(message)
        self._keep(event)
        self.ended = True
        self._since = self._journals.now()
        if not self._is_read:
            self._reader = None
        elif self._reader is not None:
            self._reader.end(event)

    def missed(self, message: bytes) -> bool:
        """Keep a message for a client that lost the stream; False if the stream can no longer be resumed."""
        if self._since + KEEP < self._journals.now():
            return False
        self._keep(self._encoded(message))
        return True

    def left(self, reader: _Reader) -> bool:
        """Remove a disconnected reader; False if it was replaced before, or has received everything."""
        if self._reader is not reader or reader.written:
            return False
        reader.hang_up()
        self._reader = None
        self._since = self._journals.now()
        return True

    def drop(self) -> None:
        """Discard the journal and disconnect its reader."""
        reader, self._reader = self._reader, None
        if reader is not None and not self.ended:
            reader.hang_up()
        self._journals.drop(self)

    def on_gone(self, callback: Callable[[], None] | None) -> None:
        """Set the callback to call when the client disconnects."""
        self.gone = callback

    def holds(self, number: int) -> bool:
        """Whether the journal has an event with that number."""
        return 0 <= number <= self._last

    def is_over(self, now: float, *, asked: bool) -> bool:
        """Whether the journal has expired at `now`. With `asked`, the client has just sent another request."""
        if self._is_read or not (self.ended or (self.is_standing and self._reader is None)):
            return False
        is_written = self._reader is not None and self._reader.written
        return self._since + (SETTLED if asked and is_written else KEEP) < now

    def _encoded(self, message: bytes) -> bytes:
        return encode_event(message, id=f"{self.name}-{self._last + 1}")

    def _keep(self, event: bytes) -> None:
        self._last += 1
        self._journals.keep(self, self._last, event)


class Journals:
    """The journals of one session, within its limits.

    Args:
        mark: the prefix of this session's event ids. Not secret.
        version: the client's protocol revision.
        budget: the memory for kept events; without memory they are discarded.
    """

    __slots__ = ("_by_name", "_bytes", "_count", "_kept", "_mark", "_reservation", "_standing", "_version", "now")

    def __init__(self, mark: str, version: str, budget: MemoryBudget | None = None, clock: Clock | None = None) -> None:
        self.now = (clock or LoopClock()).now
        self._mark = mark
        self._reservation = Reservation(budget or MemoryBudget())
        self._version = version
        self._count = 0
        self._by_name: dict[str, Journal] = {}
        self._kept: deque[_Kept] = deque()
        self._bytes = 0
        self._standing: Journal | None = None

    def __repr__(self) -> str:
        return f"<Journals streams={len(self._by_name)} events={len(self._kept)} bytes={self._bytes}>"

    @property
    def are_primed(self) -> bool:
        """Whether streams begin with an event id, so that a client can resume one before its first message."""
        return self._version >= _PRIMED

    @staticmethod
    def are_for(version: str) -> bool:
        """Whether that handshake-era revision has stream resumption."""
        return version >= _NUMBERED

    def begin(self, reader: _Reader, *, is_standing: bool = False) -> Journal:
        """Add a journal for a new stream. A new standing stream replaces the previous one."""
        self.tidy(asked=True)
        self._count += 1
        journal = Journal(self, f"{self._mark}.{'s' if is_standing else 'c'}{self._count}", is_standing=is_standing)
        if is_standing:
            if self._standing is not None:
                self._standing.drop()
            self._standing = journal
        self._by_name[journal.name] = journal
        journal.open(reader, primed=self.are_primed and not is_standing)
        return journal

    def find(self, id_: str) -> tuple[Journal, int] | None:
        """The journal that holds the event with that id, and the event's number; None for an unknown id.

        Raises:
            Refused: the journal of that call has expired.
        """
        name, _, digits = id_.rpartition("-")
        number = int(digits) if digits.isascii() and digits.isdigit() and len(digits) <= _DIGITS else -1
        journal = self._by_name.get(name)
        if journal is not None:
            return (journal, number) if journal.holds(number) else None
        if number >= 0 and name.startswith(f"{self._mark}.c"):
            raise Refused(HttpError.STREAM_FORGOTTEN)
        return None

    def missed(self, message: bytes) -> bool:
        """Keep a message for the broken standing stream; False if that cannot be resumed."""
        return self._standing is not None and self._standing.missed(message)

    def tidy(self, *, asked: bool = False) -> None:
        """Discard the expired journals. With `asked`, the client has just sent another request."""
        now = self.now()
        for journal in [journal for journal in self._by_name.values() if journal.is_over(now, asked=asked)]:
            journal.drop()

    def close(self) -> None:
        """Discard all journals, because the session ended. Streams in flight continue."""
        self._by_name.clear()
        self._kept.clear()
        self._bytes = 0
        self._reservation.release()
        self._standing = None

    def keep(self, journal: Journal, number: int, event: bytes) -> None:
        """Keep an event, unless its journal was discarded."""
        if journal.name not in self._by_name:
            return
        self._kept.append(_Kept(journal, number, event))
        self._bytes += len(event)
        while len(self._kept) > 1 and (len(self._kept) > KEPT_EVENTS or self._bytes > KEPT_BYTES):
            self._bytes -= len(self._kept.popleft().event)
        while self._bytes > MIN_COUNTED and not self._reservation.try_resize(self._bytes):
            oldest = self._kept.popleft()
            self._bytes -= len(oldest.event)
            if not self._kept:  # the answer itself: a resumed stream would never end
                self.drop(oldest.journal)
        self._reservation.resize(self._bytes)

    def after(self, journal: Journal, number: int) -> list[bytes]:
        """The kept events of a journal after event `number`."""
        return [kept.event for kept in self._kept if kept.journal is journal and kept.number > number]

    def drop(self, journal: Journal) -> None:
        """Discard one journal."""
        if self._by_name.pop(journal.name, None) is None:
            return
        self._kept = deque(kept for kept in self._kept if kept.journal is not journal)
        self._bytes = sum(len(kept.event) for kept in self._kept)
        self._reservation.resize(self._bytes)
        if self._standing is journal:
            self._standing = None
