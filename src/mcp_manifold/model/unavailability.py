"""Unavailable servers: which, why, since when, and whether their entries stay listed. Pure: time is an argument.

The entries of a failed server stay listed for a grace period, because most servers recover soon and every list change
costs clients a request. Afterwards they leave the lists but not the catalogue: their names stay taken, and a call to
one is still routed, so that it triggers an attempt or returns the reason.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace

_EARLY = 0.01
"""Seconds by which a timer may fire early."""


@dataclass(frozen=True, slots=True)
class UnavailableServer:
    """One unavailable server. `since` is an RFC 3339 time, empty if unknown."""

    server: str
    reason: str
    since: str = ""
    is_failure: bool = True
    """False while the server has not failed but only not listed its entries yet."""
    is_listed: bool = False
    """Whether its last known entries are still listed."""

    def to_dict(self) -> dict[str, str]:
        """The JSON object for clients: `server`, `reason`, `since` if known, and `entries` (`kept` or `none`)."""
        found = {"server": self.server, "reason": self.reason}
        if self.since:
            found["since"] = self.since
        return found | {"entries": "kept" if self.is_listed else "none"}


class Unavailability:
    """The servers that failed. `grace` is in seconds; every `now` is a time of the owner's clock, in seconds."""

    def __init__(self, grace: float) -> None:
        self._grace = grace
        self._found: dict[str, UnavailableServer] = {}
        self._at: dict[str, float] = {}

    def __repr__(self) -> str:
        return f"<Unavailability {' '.join(self._found) or 'none'}>"

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def change_grace(self, grace: float) -> None:
        """Set another grace period, in seconds, also for servers that failed already."""
        self._grace = grace

    def mark_unavailable(self, server: str, reason: str, *, now: float, since: str) -> bool:
        """Record a failure; returns whether the server or the reason is new."""
        before = self._found.get(server)
        after = UnavailableServer(server, reason, since) if before is None else replace(before, reason=reason)
        self._found[server] = after
        self._at.setdefault(server, now)
        return before != after

    def mark_available(self, server: str) -> bool:
        """Record a recovery; returns whether the server was unavailable."""
        self._at.pop(server, None)
        return self._found.pop(server, None) is not None

    def retain(self, servers: Collection[str]) -> None:
        """Forget every server that is not in `servers`."""
        for server in [server for server in self._found if server not in servers]:
            self.mark_available(server)

    def find(self, server: str) -> UnavailableServer | None:
        """The record of a server; None while it is available."""
        return self._found.get(server)

    def grace_left(self, server: str, now: float) -> float:
        """Seconds until a server's entries leave the lists; 0 when they have left."""
        at = self._at.get(server)
        left = self._grace if at is None else at + self._grace - now
        return left if left > _EARLY else 0.0

    def is_grace_over(self, server: str, now: float) -> bool:
        """Whether a server has been unavailable for longer than the grace period."""
        return server in self._found and self.grace_left(server, now) == 0.0
