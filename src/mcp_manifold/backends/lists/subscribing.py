"""Reports of a handshake-era backend: it is asked URI by URI, one request at a time for each. Knows no client.

What is wanted and what the backend was told are kept in step, so that subscribing and unsubscribing never overtake one
another.
"""

from dataclasses import dataclass, field

from mcp_manifold import wire
from mcp_manifold.backends.link.link import Link
from mcp_manifold.backends.lists.reports import Outcome, new_outcome, settle
from mcp_manifold.errors import BackendError
from mcp_manifold.wire import Payload


@dataclass(slots=True)
class _Wish:
    """One URI: what is wanted, what the backend was told, who waits to hear that these agree."""

    wanted: bool = False
    told: bool = False
    is_busy: bool = False
    waiting: list[Outcome] = field(default_factory=list)


class Subscribing:
    """`resources/subscribe` and `resources/unsubscribe` over one link."""

    def __init__(self, link: Link, *, timeout: float) -> None:
        self._link = link
        self._timeout = timeout
        self._wishes: dict[str, _Wish] = {}

    def __repr__(self) -> str:
        return f"<Subscribing {self._link.backend} uris={len(self._wishes)}>"

    def want(self, uri: str) -> Outcome:
        """See `Reports`."""
        wish = self._wishes.setdefault(uri, _Wish())
        wish.wanted = True
        outcome = new_outcome()
        wish.waiting.append(outcome)
        self._advance(uri, wish)
        return outcome

    def drop(self, uri: str) -> None:
        """See `Reports`."""
        wish = self._wishes.get(uri)
        if wish is not None:
            wish.wanted = False
            self._advance(uri, wish)

    def is_due(self, params: dict[str, Payload]) -> bool:
        """See `Reports`."""
        return True

    def _advance(self, uri: str, wish: _Wish) -> None:
        if wish.is_busy:
            return
        if wish.wanted == wish.told:
            settle(wish.waiting)
            if not wish.wanted:
                self._wishes.pop(uri, None)
            return
        subscribing = wish.wanted
        method = "resources/subscribe" if subscribing else "resources/unsubscribe"
        wish.is_busy = True
        try:
            pending = self._link.begin(method, {"uri": Payload(wire.encode(uri))}, timeout=self._timeout)
        except BackendError as exc:
            self._answered(uri, wish, subscribing, exc)
        else:
            pending.future.add_done_callback(lambda done: self._answered(uri, wish, subscribing, done.exception()))

    def _answered(self, uri: str, wish: _Wish, subscribing: bool, exc: BaseException | None) -> None:
        wish.is_busy = False
        if exc is not None and subscribing:
            wish.wanted = False
            settle(wish.waiting, exc)
        else:
            wish.told = subscribing  # an unsubscribe that failed is as good as one: whatever still comes goes nowhere
        self._advance(uri, wish)
