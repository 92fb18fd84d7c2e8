"""What a backend's life leaves behind for those who watch it: counts and times. Decides nothing."""

from dataclasses import dataclass, field
from datetime import UTC, datetime

from mcp_manifold.model.lifecycle import LifecycleEvent


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(slots=True)
class BackendStats:
    """Written by the backend alone."""

    moved: datetime = field(default_factory=_now)
    """When it came into the state it is in: wall clock, for people; nothing is reckoned with it."""
    away: datetime | None = None
    """Since when it cannot be reached though it should be; None while it can be, or need not."""
    listed: float | None = None
    """When it last listed, by the loop's clock."""
    lives: int = 0
    """Times its shared link was opened."""
    links: int = 0
    """Links opened in all, those held for single clients included."""

    def happened(self, event: LifecycleEvent) -> None:
        """Take note of a move."""
        self.moved = _now()
        self.lives += event is LifecycleEvent.OPENED
        if event in (LifecycleEvent.OPENED, LifecycleEvent.RESTED):
            self.away = None
        elif event in (LifecycleEvent.STARTED, LifecycleEvent.FAILED, LifecycleEvent.LOST, LifecycleEvent.CRASHED):
            self.away = self.away or self.moved
