"""The counts of the HTTP traffic: sessions, streams, bytes, and what was refused or dropped."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from mcp_manifold.fronts.http_errors import HttpError, Refused
from mcp_manifold.model.budget import MemoryBudget


@dataclass(slots=True)
class Tally:
    """The counters of the HTTP front, for the metrics."""

    sessions: int = 0
    streams: int = 0
    dropped_events: int = 0
    dropped_notes: int = 0
    refused: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    budget: MemoryBudget = field(default_factory=MemoryBudget)
    """The memory budget that all large messages share."""

    def count_sessions(self, count: int) -> None:
        """Set the number of open sessions."""
        self.sessions = count

    def drop_note(self) -> None:
        """Count a client's notification that exceeded the rate limit."""
        self.dropped_notes += 1

    def drop_event(self) -> None:
        """Count an event that was dropped for a slow reader."""
        self.dropped_events += 1

    def count_out(self, size: int) -> None:
        """Count bytes sent on a stream."""
        self.bytes_out += size

    @contextmanager
    def stream_open(self, limit: int) -> Iterator[None]:
        """Count a standing stream while it is open.

        Raises:
            Refused: 503, `limit` streams are open.
        """
        if self.streams >= limit:
            raise Refused(HttpError.MANY_STREAMS)
        self.streams += 1
        try:
            yield
        finally:
            self.streams -= 1
