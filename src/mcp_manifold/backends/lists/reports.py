"""Reports of changes that a backend is asked for over one link, and how a handshake-era backend is asked.

`Subscribing` asks for one URI at a time (`resources/subscribe`); `listening` does the same for the modern era. Neither
knows which client wants a report.
"""

import asyncio
from dataclasses import dataclass, field
from typing import Final, Protocol

from mcp_manifold import wire
from mcp_manifold.backends.link.link import Link
from mcp_manifold.errors import BackendError
from mcp_manifold.wire import Payload

UPDATED: Final = "notifications/resources/updated"
TASK_TOLD: Final = "notifications/tasks"
"""Reports the state of a task of the extension (SEP-2663)."""
START_WAIT: Final = 2.0
"""Seconds a new link waits for its subscriptions before it is used. Reports missed after that are made up for."""

Outcome = asyncio.Future[None]


class Reports(Protocol):
    """The subscriptions of one link, in either era."""

    def want(self, uri: str) -> Outcome:
        """Subscribe to a URI. The future is done when the backend agrees, and fails when it refuses."""

    def drop(self, uri: str) -> None:
        """Unsubscribe from a URI."""

    def is_due(self, params: dict[str, Payload]) -> bool:
        """Whether a report belongs to a current subscription."""


def offers_subscriptions(link: Link) -> bool:
    """Whether the backend declares `resources.subscribe`."""
    resources = wire.object_members(link.capabilities).get("resources")
    return bytes(wire.object_members(resources).get("subscribe", b"")) == b"true"


def new_outcome() -> Outcome:
    """A future whose exception is marked as retrieved, because its caller may be gone."""
    outcome: Outcome = asyncio.get_running_loop().create_future()
    outcome.add_done_callback(_retrieve)
    return outcome


def _retrieve(outcome: Outcome) -> None:
    if not outcome.cancelled():
        outcome.exception()


def complete(outcomes: list[Outcome], exc: BaseException | None = None) -> None:
    """Complete every future of a list with success or with `exc`, and clear the list."""
    waiting, outcomes[:] = list(outcomes), []
    for outcome in waiting:
        if not outcome.done():
            if exc is None:
                outcome.set_result(None)
            else:
                outcome.set_exception(exc)


@dataclass(slots=True)
class _Subscription:
    """One URI: the wanted state, the state the backend knows, and the callers that wait for these to agree."""

    is_wanted: bool = False
    is_active: bool = False
    is_busy: bool = False
    waiting: list[Outcome] = field(default_factory=list)


class Subscribing:
    """`resources/subscribe` and `resources/unsubscribe` over one link, with one request in flight per URI.

    So a subscribe and an unsubscribe of the same URI never overtake each other.
    """

    def __init__(self, link: Link, *, timeout: float) -> None:
        self._link = link
        self._timeout = timeout
        self._by_uri: dict[str, _Subscription] = {}

    def __repr__(self) -> str:
        return f"<Subscribing {self._link.backend} uris={len(self._by_uri)}>"

    def want(self, uri: str) -> Outcome:
        entry = self._by_uri.setdefault(uri, _Subscription())
        entry.is_wanted = True
        outcome = new_outcome()
        entry.waiting.append(outcome)
        self._advance(uri, entry)
        return outcome

    def drop(self, uri: str) -> None:
        entry = self._by_uri.get(uri)
        if entry is not None:
            entry.is_wanted = False
            self._advance(uri, entry)

    def is_due(self, params: dict[str, Payload]) -> bool:
        return True

    def _advance(self, uri: str, entry: _Subscription) -> None:
        """Send the next request for a URI, if one is needed and none is in flight."""
        if entry.is_busy:
            return
        if entry.is_wanted == entry.is_active:
            complete(entry.waiting)
            if not entry.is_wanted:
                self._by_uri.pop(uri, None)
            return
        subscribing = entry.is_wanted
        method = "resources/subscribe" if subscribing else "resources/unsubscribe"
        entry.is_busy = True
        try:
            pending = self._link.begin(method, {"uri": Payload(wire.encode(uri))}, timeout=self._timeout)
        except BackendError as exc:
            self._answered(uri, entry, subscribing, exc)
        else:
            pending.future.add_done_callback(lambda done: self._answered(uri, entry, subscribing, done.exception()))

    def _answered(self, uri: str, entry: _Subscription, subscribing: bool, exc: BaseException | None) -> None:
        entry.is_busy = False
        if exc is not None and subscribing:
            entry.is_wanted = False
            complete(entry.waiting, exc)
        else:
            entry.is_active = subscribing  # a failed unsubscribe counts as one: later reports are dropped anyway
        self._advance(uri, entry)
