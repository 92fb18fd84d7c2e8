"""What a link's backend is asked to report of its own accord: the shape both eras' classes have. Knows neither era."""

import asyncio
from typing import Final, Protocol

from mcp_manifold import wire
from mcp_manifold.backends.link.link import Link
from mcp_manifold.wire import Payload

UPDATED: Final = "notifications/resources/updated"
TASK_TOLD: Final = "notifications/tasks"
"""How a task of the extension stands now (SEP-2663)."""
START_WAIT: Final = 2.0
"""Seconds a link that opened waits for its subscriptions before it is used; what takes longer is made up for."""

Outcome = asyncio.Future[None]


class Reports(Protocol):
    """What a backend reports over one link."""

    def want(self, uri: str) -> Outcome:
        """Ask for reports on a URI; done when the backend agreed, fails with why it did not."""
        ...

    def drop(self, uri: str) -> None:
        """Nobody wants reports on that URI any more."""
        ...

    def is_due(self, params: dict[str, Payload]) -> bool:
        """Whether a report belongs to what is asked for now."""
        ...


def offers_subscriptions(link: Link) -> bool:
    """Whether the backend reports changes of single resources."""
    resources = wire.client_meta(link.capabilities).get("resources")
    return bytes(wire.client_meta(resources).get("subscribe", b"")) == b"true"


def new_outcome() -> Outcome:
    """One that nobody need come back for."""
    outcome: Outcome = asyncio.get_running_loop().create_future()
    outcome.add_done_callback(_read)
    return outcome


def _read(outcome: Outcome) -> None:
    """Take note of how it ended: whoever waited may be gone."""
    if not outcome.cancelled():
        outcome.exception()


def settle(outcomes: list[Outcome], exc: BaseException | None = None) -> None:
    """These are done, well or with what went wrong, and forgotten."""
    waiting, outcomes[:] = list(outcomes), []
    for outcome in waiting:
        if not outcome.done():
            if exc is None:
                outcome.set_result(None)
            else:
                outcome.set_exception(exc)
