"""One client request on its way through, and the stages that see it begin and end.

Knows who asks and how to reach them while the request runs; knows neither fronts nor backends.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Final, Protocol

from mcp_manifold.errors import ManifoldError
from mcp_manifold.model.policy import Principal
from mcp_manifold.wire import (
    EMPTY,
    Envelope,
    Era,
    Payload,
    ResultView,
    capability_names,
    era_of,
    relayable_capabilities,
    view_of,
)


class Emit(Protocol):
    """Hands one complete message to the caller's own stream, in wire order, before the result. Never blocks."""

    def __call__(self, message: bytes, /, *, needed: bool = False) -> object:
        """`needed`: it must not be dropped, however slowly the caller reads."""
        ...


_INTERACTION: Final = frozenset({"roots", "sampling", "elicitation"})


class Reach(Protocol):
    """The way to a client that keeps a session, besides the answers to its requests. Nothing here ever blocks."""

    def ask(self, method: str, params: Payload | None, call: "Call | None") -> "asyncio.Future[Envelope]":
        """Send the client a request of a server's: on the stream of `call`, or on its standing stream for None.

        The future gives the client's response (its `result` or `error`). Cancelling it tells the client that the
        question is taken back. It fails with CallCancelled when the client left.
        """
        ...

    def tell(self, message: bytes) -> bool:
        """Send a notification on the standing stream; False when the client has none, or is too slow for it."""
        ...


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
    reach: Reach | None = None
    """How to ask and tell the client something; None where only its requests' own streams lead to it."""
    _relayable: dict[Era, Payload] = field(default_factory=dict, repr=False)
    log_level: str = ""
    """The level the client set with `logging/setLevel`, or for this one request; empty while it set none."""
    era: Era = field(init=False)
    """The era of the revision the client speaks."""

    def __post_init__(self) -> None:
        self.era = era_of(self.version)

    def speak(self, version: str) -> None:
        """The client and we agreed on a revision."""
        self.version, self.era = version, era_of(version)

    @property
    def wants(self) -> frozenset[str]:
        """What the client declared it can do for servers: `roots`, `sampling`, `elicitation`."""
        return _INTERACTION & capability_names(self.capabilities)

    def relayable(self, era: Era) -> Payload:
        """What a backend of that era may be told this client can do, as far as it is passed on."""
        if self.era == era == "modern":
            return self.capabilities
        found = self._relayable.get(era)
        if found is None:
            found = self._relayable[era] = relayable_capabilities(self.capabilities, same_era=self.era == era)
        return found


@dataclass(slots=True, eq=False)
class Call:
    """One client request: what it asks, for whom, where its notifications go, and how it is taken back."""

    method: str
    params: dict[str, Payload]
    session: Session
    emit: Emit
    commit: Callable[[], None] = lambda: None
    """Tells the front that the answer will take long, so that its stream may be begun."""
    backend: str = ""
    """Set by the router: the backend that serves the call; empty for what is answered here."""
    backend_era: Era = "handshake"
    """Set by the link: the era the backend was spoken to in."""
    number: int = 0
    """Set by the link: the id, and progress token, under which the backend got it."""
    look: ResultView | None = None
    """The last look at a large result of it; set by the link, for one that was opened when it was read."""
    id: Payload | None = None
    """The request's id as the client wrote it; None for a call that no message made."""
    begun: float = 0.0
    """When it began, by `time.perf_counter`; set by the stages."""
    is_repeated: bool = False
    """Set where it failed and is sent to its backend once more, which happens once at most."""
    is_outdated: bool = False
    """Set when its backend asked for other headers than we knew of: they are learnt before it is sent again."""
    cancelled: bool = False
    finished: bool = False
    _on_cancel: Callable[[], None] | None = field(default=None, repr=False)
    _on_finish: Callable[[], None] | None = field(default=None, repr=False)

    def view_of(self, result: Payload) -> ResultView | None:
        """A look at a result of it, if that is large; the same one for as long as it is the same result."""
        self.look = view_of(result, self.look)
        return self.look

    def cancel(self) -> None:
        """Take the request back: whoever works on it is told, at most once."""
        self.cancelled = True
        undo, self._on_cancel = self._on_cancel, None
        if undo is not None:
            undo()

    def finish(self) -> None:
        """Ask a call that never ends by itself to end now, with its result; others are not touched."""
        self.finished = True
        if self._on_finish is not None:
            self._on_finish()

    def on_finish(self, end: Callable[[], None]) -> None:
        """Register what ends a call that never ends by itself; called at once if that was asked already."""
        self._on_finish = end
        if self.finished:
            end()

    def on_cancel(self, undo: Callable[[], None] | None) -> None:
        """Register what stops the work in progress, in place of what was; called at once if already cancelled."""
        self._on_cancel = undo
        if undo is not None and self.cancelled:
            self.cancel()


Handler = Callable[[Call], Awaitable[Payload]]
"""Answers a call with its raw result object, in the caller's era. Raises ManifoldError."""


ResultCallback = Callable[[Payload | None, Exception | None], None]
"""Gets the result of a call nobody waits for, or why there is none."""


class Stage(Protocol):
    """One concern of every call: told when it begins and when it ends, whichever way the call takes. Never waits."""

    def began(self, call: Call) -> None:
        """A call begins. Raises ManifoldError to refuse it; stages that saw it begin are told of that end."""
        ...

    def ended(self, call: Call, result: Payload | None, failure: BaseException | None) -> None:
        """It ended, with a result or a failure. `call.begun` says when it began."""
        ...


class Stages:
    """The stages of all calls, outside in: the first sees a call begin first, and end last."""

    __slots__ = ("_ends", "_inward")

    def __init__(self, stages: Sequence[Stage]) -> None:
        self._inward = tuple(stages)
        self._ends = tuple(stage.ended for stage in reversed(stages))

    def __repr__(self) -> str:
        return f"<Stages {', '.join(type(stage).__name__ for stage in self._inward)}>"

    def begin(self, call: Call) -> None:
        """Tell of a call.

        Raises:
            ManifoldError: one refuses it. It is over then.
        """
        call.begun = perf_counter()
        told = 0
        try:
            for stage in self._inward:
                stage.began(call)
                told += 1
        except ManifoldError as exc:
            for stage in self._inward[:told][::-1]:
                stage.ended(call, None, exc)
            raise

    def end(self, call: Call, result: Payload | None, failure: BaseException | None) -> None:
        """Tell how a call ended that began."""
        for ended in self._ends:
            ended(call, result, failure)

    def around(self, inner: Handler) -> Handler:
        """The handler that tells of the calls `inner` answers."""

        async def handle(call: Call) -> Payload:
            self.begin(call)
            try:
                result = await inner(call)
            except BaseException as exc:
                self.end(call, None, exc)
                raise
            self.end(call, result, None)
            return result

        return handle
