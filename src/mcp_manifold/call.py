"""One client request on its way through, and the shape of what wraps it.

Knows who asks and how to reach them while the request runs; knows neither fronts nor backends.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from mcp_manifold.policy import Principal
from mcp_manifold.wire import EMPTY, Era, Payload, era_of

Emit = Callable[[bytes], None]
"""Hands one complete notification to the caller's own stream, in wire order, before the result. Never blocks."""


def _nothing() -> Payload:
    return EMPTY


@dataclass(slots=True, eq=False)
class Session:
    """One client's conversation with a front (handshake era), or one request (2026-07-28).

    `key` identifies it towards links held per client; empty for a client that has none (2026-07-28 requests).
    `scope` names the endpoint it came in by: `""` merged, `"server:<name>"`, `"group:<name>"`.
    """

    key: str
    principal: Principal
    scope: str
    version: str
    client_info: Payload = field(default_factory=_nothing)
    capabilities: Payload = field(default_factory=_nothing)

    @property
    def era(self) -> Era:
        """The era of the revision the client speaks."""
        return era_of(self.version)


@dataclass(slots=True, eq=False)
class Call:
    """One client request: what it asks, for whom, where its notifications go, and how it is taken back."""

    method: str
    params: dict[str, Payload]
    session: Session
    emit: Emit
    backend: str = ""
    """Set by the router: the backend that serves the call; empty for what is answered here."""
    cancelled: bool = False
    _on_cancel: Callable[[], None] | None = field(default=None, repr=False)

    def cancel(self) -> None:
        """Take the request back: whoever works on it is told, at most once."""
        self.cancelled = True
        undo, self._on_cancel = self._on_cancel, None
        if undo is not None:
            undo()

    def on_cancel(self, undo: Callable[[], None] | None) -> None:
        """Register what stops the work in progress, in place of what was; called at once if already cancelled."""
        self._on_cancel = undo
        if undo is not None and self.cancelled:
            self.cancel()


Handler = Callable[[Call], Awaitable[Payload]]
"""Answers a call with its raw result object, in the caller's era. Raises ManifoldError."""

Stage = Callable[[Handler], Handler]
"""Wraps one concern around a handler."""


def compose(stages: Sequence[Stage], inner: Handler) -> Handler:
    """The handler that runs `stages` outside-in around `inner`."""
    for stage in reversed(stages):
        inner = stage(inner)
    return inner
