"""Which servers cannot be reached, why and since when, and whether their entries are still listed. Pure: no clock.

Theory. A server that fails keeps its entries listed for a grace: most come back soon, and clients pay for every change
of a list. After that they are taken off the list, though not out of the catalogue: names stay taken, and a call to one
still goes the way of all calls, so that it makes an attempt or is told what is wrong.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace

_EARLY = 0.01
"""Seconds a timer may come before its time."""


@dataclass(frozen=True, slots=True)
class UnavailableServer:
    """One server that is missing. `since` is for people (RFC 3339), and empty where it is not known."""

    server: str
    reason: str
    since: str = ""
    is_failure: bool = True
    """It failed, or cannot be used at all; else it has only not listed yet."""
    is_listed: bool = False
    """Its last known entries are listed all the same."""

    def to_dict(self) -> dict[str, str]:
        """It as clients are told."""
        found = {"server": self.server, "reason": self.reason}
        if self.since:
            found["since"] = self.since
        return found | {"entries": "kept" if self.is_listed else "none"}


class Unavailability:
    """The servers that failed, and for how long. `now` and `at` are readings of whatever clock the owner has."""

    __slots__ = ("_at", "_found", "grace")

    def __init__(self, grace: float) -> None:
        self.grace = grace
        self._found: dict[str, UnavailableServer] = {}
        self._at: dict[str, float] = {}

    def __repr__(self) -> str:
        return f"<Unavailability {' '.join(self._found) or 'none'}>"

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def mark_unavailable(self, server: str, reason: str, *, now: float, since: str) -> bool:
        """A server failed, or failed again; returns whether that is news."""
        before = self._found.get(server)
        after = UnavailableServer(server, reason, since) if before is None else replace(before, reason=reason)
        self._found[server] = after
        self._at.setdefault(server, now)
        return before != after

    def mark_available(self, server: str) -> bool:
        """A server is there; returns whether that is news."""
        self._at.pop(server, None)
        return self._found.pop(server, None) is not None

    def retain(self, servers: Collection[str]) -> None:
        """Forget all others."""
        for server in [server for server in self._found if server not in servers]:
            self.mark_available(server)

    def find(self, server: str) -> UnavailableServer | None:
        """The absence of a server; None while it is there."""
        return self._found.get(server)

    def grace_left(self, server: str, now: float) -> float:
        """Seconds its entries stay listed; 0 when that is over."""
        at = self._at.get(server)
        left = self.grace if at is None else at + self.grace - now
        return left if left > _EARLY else 0.0

    def is_grace_over(self, server: str, now: float) -> bool:
        """Whether a server has been away for so long that its entries are not listed any more."""
        return server in self._found and self.grace_left(server, now) == 0.0
