"""Whose calls over a link were given up just now: the backend may go on with them, and ask for their sake."""

import asyncio

from mcp_manifold.backends.link.pending import PendingRequest
from mcp_manifold.model.call import Session


class AbandonedCalls:
    """See the module. Owns what was given up and is not answered yet, each for as long as it might have taken."""

    __slots__ = ("_loop", "_until")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._until: dict[int, tuple[Session | None, float]] = {}

    def __repr__(self) -> str:
        return f"<AbandonedCalls {len(self._until)}>"

    def add(self, pending: PendingRequest) -> None:
        """A call was given up."""
        now = self._loop.time()
        self._until = {number: each for number, each in self._until.items() if each[1] > now}
        if pending.call is not None or pending.is_parked:
            session = None if pending.call is None else pending.call.session
            self._until[pending.number] = (session, now + pending.timeout)

    def clear(self, number: int) -> None:
        """The backend answered it after all."""
        self._until.pop(number, None)

    @property
    def clients(self) -> list[Session | None]:
        """The clients whose calls they were; None for one that was sent away and did not come back."""
        now = self._loop.time()
        return [session for session, until in self._until.values() if until > now]
