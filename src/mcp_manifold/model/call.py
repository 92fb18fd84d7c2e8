"""One client request in flight: its session, its reply, and the stages that observe it.

Knows neither fronts nor backends. Only its creator and the Dispatcher write to a Call.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

from mcp_manifold.model.policy import Principal
from mcp_manifold.wire import (
    EMPTY,
    Envelope,
    Era,
    Payload,
    Pieces,
    capabilities_of,
    capability_names,
    era_of,
    relayable_capabilities,
)

_FIRST_ELICITATION: Final = "2025-06-18"
_INTERACTION: Final = frozenset({"roots", "sampling", "elicitation"})


class Reply(Protocol):
    """Receives the answer to a call, as an HTTP response, on a channel or in a future. No method blocks."""

    def emit(self, message: bytes, /, *, needed: bool = False) -> None:
        """Send a complete message before the answer, in wire order. Never drop a `needed` one for a slow reader."""

    def stream(self) -> None:
        """Start the event stream of the answer, if it can have one, because the answer takes long."""

    def respond(self, result: Payload | Pieces | None, failure: BaseException | None) -> None:
        """Send the answer, once: the raw result in the client's era, or the failure."""

    def disconnected(self) -> None:
        """Handle a client that left before the answer: by its era, cancel the call or keep its answer."""


class Reach(Protocol):
    """Sends requests and notifications to a client that keeps a session. No method blocks."""

    def ask(self, method: str, params: Payload | None, call: "Call | None") -> "asyncio.Future[Envelope]":
        """Send a server request on the stream of `call`; for None, on the client's GET event stream (standing stream).

        The future holds the client's response (its `result` or `error`). Cancelling it withdraws the request. It fails
        with CallCancelled when the client left.
        """

    def tell(self, message: bytes) -> bool:
        """Send a notification on the standing stream; False if the client has none, or reads too slowly."""


def _empty() -> Payload:
    return EMPTY


@dataclass(slots=True, eq=False)
class Session:
    """One client's conversation with a front (handshake era), or one request (2026-07-28).

    `key` identifies it for links that serve one client; empty without a session (2026-07-28). `scope` names its
    endpoint: `""` for the merged one, `"server:<name>"`, `"group:<name>"`.
    """

    key: str
    principal: Principal
    scope: str
    version: str
    client_info: Payload = field(default_factory=_empty)
    capabilities: Payload = field(default_factory=_empty)
    reach: Reach | None = None
    """Sends requests and notifications to the client; None if only the streams of its calls reach it."""
    _relayable: dict[Era, Payload] = field(default_factory=dict, repr=False)
    log_level: str = ""
    """The level set by `logging/setLevel`, or for this one request; empty for none."""
    era: Era = field(init=False)
    """The era of the client's protocol revision."""

    def __post_init__(self) -> None:
        self.era = era_of(self.version)

    def speak(self, version: str) -> None:
        """Adopt the negotiated protocol revision."""
        self.version, self.era = version, era_of(version)

    def introduce(self, client_info: Payload, capabilities: Payload) -> None:
        """Adopt the identity and capabilities that the client declared in `initialize`.

        Elicitation exists since 2025-06-18: a client of an earlier revision is never asked, whatever it declares.
        """
        if self.version < _FIRST_ELICITATION:
            capabilities = capabilities_of(capabilities, capability_names(capabilities) - {"elicitation"})
        self.client_info, self.capabilities = client_info, capabilities

    def hear(self, level: str) -> None:
        """Adopt the log level that the client has set."""
        self.log_level = level

    @property
    def wants(self) -> frozenset[str]:
        """The client's capabilities that allow server requests: `roots`, `sampling`, `elicitation`."""
        return _INTERACTION & capability_names(self.capabilities)

    def relayable(self, era: Era) -> Payload:
        """The client's capabilities as declared to a backend of `era`."""
        if self.era == era == "modern":
            return self.capabilities
        found = self._relayable.get(era)
        if found is None:
            found = self._relayable[era] = relayable_capabilities(self.capabilities, same_era=self.era == era)
        return found


@dataclass(slots=True, eq=False)
class Call:
    """One client request. The Dispatcher sets the fields from `backend` on."""

    method: str
    params: dict[str, Payload]
    session: Session
    reply: Reply
    id: Payload | None = None
    """The request's id as the client wrote it; None for a call that is not a message, as of an embedding program."""
    backend: str = ""
    """The backend that serves it; empty if it is answered here."""
    backend_era: Era = "handshake"
    """The era of the link that it was sent over."""
    seconds: float = 0.0
    """How long it took, once it has ended."""
    attempts: int = 0
    """Requests sent to a backend for it; counted anew in each round."""
    rounds: int = 0
    """Times its client was asked for input, after which it is sent again."""
    retries: int = 0
    """Second attempts after a failure."""
    slot: object = None
    """The executor whose slot it holds, before it is sent."""
    level: object = None
    """The link whose log level was raised for it."""
    is_ending: bool = False
    """It should end with its result; for subscriptions, which otherwise last until their client cancels."""
    is_cancelled: bool = False
    is_done: bool = False
    """It was answered."""

    def __repr__(self) -> str:
        state = "done" if self.is_done else "cancelled" if self.is_cancelled else "in flight"
        return f"<Call {self.method} {state}{f' at {self.backend}' if self.backend else ''}>"


Handler = Callable[[Call], Awaitable[Payload]]
"""Answers a call without a backend: returns the raw result in the client's era. Raises ManifoldError."""


class Stage(Protocol):
    """One concern of every call, such as counting. It is called when a call begins and ends, and never waits."""

    @property
    def is_active(self) -> bool:
        """Whether the stage observes calls. Read when the settings change, not for each call."""

    def began(self, call: Call) -> None:
        """Note the begin of a call. Raises ManifoldError to refuse it; earlier stages then see its end."""

    def ended(self, call: Call, result: Payload | None, failure: BaseException | None) -> None:
        """Note the end of a call, with its result or failure. The result of a list may be its first piece only."""
