"""One live MCP session to a backend: requests out, answers matched, everything pending failed at once when it is lost.

A Link dies once and never revives. It knows JSON-RPC and this hop's envelope; how bytes travel is its transport's
business, who may ask what is the router's. All methods but `request` are synchronous: what arrives is worked off in
wire order, so that a progress notification never overtakes, nor is overtaken by, the result it belongs to.
"""

import asyncio
import logging
from functools import partial
from math import inf
from time import monotonic

from mcp_manifold import wire
from mcp_manifold.backends.link.abandoned_calls import AbandonedCalls
from mcp_manifold.backends.link.deadline_timer import DeadlineTimer
from mcp_manifold.backends.link.invalid_messages import InvalidMessageMonitor
from mcp_manifold.backends.link.meta_rewriter import MetaRewriter, token_of
from mcp_manifold.backends.link.pending import (
    CallbackOutcome,
    MessageHandler,
    Outcome,
    PendingRequest,
    Transport,
    note_outcome,
    number_in,
    number_of,
)
from mcp_manifold.errors import (
    BackendError,
    BackendLost,
    BackendProtocolError,
    BackendTimeout,
    BackendUnavailable,
    CallCancelled,
    MalformedMessage,
    RemoteError,
)
from mcp_manifold.model.call import Call, ResultCallback, Session
from mcp_manifold.wire import UNSET, Envelope, Payload
from mcp_manifold.wire.param_headers import ParameterHeaders

logger = logging.getLogger(__name__)


class Link:
    """See the module. `ended` is done, with the reason, once the link is dead."""

    def __init__(
        self, backend: str, *, holder: Session | None = None, place: str = "", write_limit: int = 64 << 20
    ) -> None:
        self.backend = backend
        self.place = place
        """Which of the backend's links it is, by who uses it; empty for the one everybody shares."""
        self.write_limit = write_limit
        """Bytes that may wait to be written to the backend before requests are refused."""
        self.version = ""
        self.capabilities: Payload = wire.EMPTY
        self.calls = 0
        self.heard = 0.0
        """When the backend last answered anything, by the loop's clock; 0 before that."""
        self.latency: float | None = None
        """Seconds the last request took that had a result."""
        self.is_watched = False
        """Somebody is told what the backend reports over it: it is in use even while no call is."""
        self.parameter_headers: ParameterHeaders | None = None
        """Set by the backend once its tools are listed; used where the transport mirrors arguments in headers."""
        self._stamping = MetaRewriter()
        self._loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[BackendError] = self._loop.create_future()
        self.holder = holder
        """The client this link is held for; None for one that clients share."""
        self.only: Session | None = holder
        """The one client this link ever served; None before the first, and since there was another."""
        self._is_crowded = False
        self.pending: dict[int, PendingRequest] = {}
        """The requests that wait for their answers, by number; for `question` to look at, and nobody else to change."""
        self._handler: MessageHandler | None = None
        self._transport: Transport | None = None
        self.abandoned = AbandonedCalls()
        self._last = 0
        self._deadlines = DeadlineTimer(lambda: self.pending.values(), self._expired)
        self._noise = InvalidMessageMonitor(backend)

    def __repr__(self) -> str:
        state = "ended" if self.ended.done() else self.version or "new"
        return f"<Link {self.backend} {state} pending={len(self.pending)}>"

    @property
    def era(self) -> wire.Era:
        """The era this link speaks."""
        return self._stamping.era

    @property
    def is_busy(self) -> bool:
        """Whether answers are due."""
        return any(pending.timeout != inf for pending in self.pending.values())

    @property
    def is_clear(self) -> bool:
        """Whether the backend certainly works on nothing: nothing is due, and nothing was given up just now."""
        return not self.is_busy and not self.abandoned.clients

    @property
    def due(self) -> int:
        """How many answers are due."""
        return sum(1 for pending in self.pending.values() if pending.timeout != inf)

    @property
    def transport(self) -> Transport:
        """What carries the bytes; set once by `attach`."""
        if self._transport is None:
            raise BackendUnavailable(self.backend, "not connected yet")
        return self._transport

    @property
    def handler(self) -> MessageHandler:
        """Who works off what the backend sends of its own accord; set once by `heard_by`."""
        if self._handler is None:
            raise RuntimeError("nobody listens to this link")
        return self._handler

    def heard_by(self, handler: MessageHandler) -> None:
        """Give the link who listens to it."""
        self._handler = handler

    def stall(self, pending: PendingRequest) -> None:
        """The request's time stands still while a person is asked something."""
        pending.stalls += 1
        self._deadlines.pause(pending)

    def go_on(self, pending: PendingRequest) -> None:
        """The request's time goes on, from the start, once nothing stalls it any more."""
        pending.stalls -= 1
        if not pending.stalls and not pending.is_parked and pending.number in self.pending:
            self._deadlines.watch(pending)

    def attach(self, transport: Transport) -> None:
        """Give the link the transport that was opened for it."""
        self._transport = transport

    def stamp(self, stamp: dict[str, Payload] | None) -> None:
        """Speak the modern era from now on, every request carrying `stamp` in its `_meta`; None: the handshake era."""
        self._stamping.adopt(stamp)

    def adopt(self, version: str, capabilities: Payload) -> None:
        """The session is negotiated."""
        self.version = version
        self.capabilities = capabilities
        self._stamping.has_logging = "logging" in wire.capability_names(capabilities)
        self.transport.adopt(version)

    # --- out ----------------------------------------------------------------------------------------------------

    async def request(
        self,
        method: str,
        params: dict[str, Payload],
        *,
        timeout: float,
        call: Call | None = None,
        ceiling: float = inf,
        waited: float = 0.0,
    ) -> Payload:
        """Send a request and wait for its raw result object.

        Args:
            params: raw members, names and URIs already the backend's own.
            timeout: seconds; every progress notification starts them anew.
            call: the client request behind it, which gets its notifications and may cancel it.
            ceiling: seconds in all, whatever progress is reported; `waited` of them are over already.

        Raises:
            RemoteError: the backend answered with an error.
            BackendError: it did not answer, or not with MCP.
            CallCancelled: the caller took the request back.
        """
        return await self._outcome(
            self._sent(method, params, timeout, call, self._loop.create_future(), ceiling, waited)
        )

    def relay(
        self,
        method: str,
        params: dict[str, Payload],
        *,
        timeout: float,
        call: Call,
        ceiling: float,
        told: ResultCallback,
    ) -> None:
        """As `request`, for who does not wait: `told` gets what came of it in the turn in which it is known.

        Raises:
            BackendError: it certainly was not sent. Nothing is told then.
        """
        pending = self._sent(method, params, timeout, call, CallbackOutcome(call, told), ceiling)
        call.on_cancel(partial(self._taken_back, pending))

    def begin(self, method: str, params: dict[str, Payload], *, timeout: float = inf) -> PendingRequest:
        """Send a request of our own; its answer is taken from `PendingRequest.future`. Raises as `request` does.
        Without a timeout it stands for as long as the link does, and is no reason to call the link busy.
        """
        pending = self._sent(method, params, timeout, None, self._loop.create_future())
        pending.future.add_done_callback(note_outcome)
        return pending

    def _sent(
        self,
        method: str,
        params: dict[str, Payload],
        timeout: float,
        call: Call | None,
        outcome: Outcome,
        ceiling: float = inf,
        waited: float = 0.0,
    ) -> PendingRequest:
        if self.ended.done():
            raise BackendUnavailable(self.backend, self.ended.result().message).unsent()
        self._last = number = self._last + 1
        pending = PendingRequest(number, method, params, timeout, outcome)
        pending.begun = monotonic()  # the loop's clock may only count milliseconds
        pending.ceiling = ceiling
        put, pending.token = self._stamping.put(params, number, call)
        body = wire.request(number, method, put)
        if call is not None:
            pending.call = call
            call.backend_era, call.number = self._stamping.era, number
            self._met(call.session)
        self.pending[number] = pending
        try:
            self.transport.send_request(pending, body)
        except BaseException:
            del self.pending[number]
            raise
        self._deadlines.watch(pending, waited)
        return pending

    async def resume(self, pending: PendingRequest, call: Call) -> Payload:
        """Wait for a parked request again, now on behalf of `call`; raises as `request` does."""
        pending.is_parked = False
        pending.call, pending.token = call, token_of(call.params)
        self._deadlines.watch(pending)
        return await self._outcome(pending)

    def park(self, pending: PendingRequest, answer: Payload) -> None:
        """Send the caller away with `answer`, waiting or not, and keep the request: the backend goes on with it."""
        waiting, pending.outcome = pending.outcome, self._loop.create_future()
        pending.future.add_done_callback(note_outcome)
        pending.is_parked = True
        pending.call = None
        self._deadlines.pause(pending)
        waiting.set_result(answer)

    async def _outcome(self, pending: PendingRequest) -> Payload:
        call = pending.call
        if call is not None:
            call.on_cancel(partial(self._taken_back, pending))
        try:
            return await pending.future
        except asyncio.CancelledError:
            self.abandon(pending, None)
            raise
        finally:
            if not pending.is_parked:
                self.pending.pop(pending.number, None)
                self.handler.over(pending)
            if call is not None:
                call.on_cancel(None)
            del pending  # it has the error, whose traceback leads here: a circle would keep both

    def _met(self, session: Session) -> None:
        if session is not self.only and not self._is_crowded:
            self._is_crowded = self.only is not None
            self.only = None if self._is_crowded else session

    def notify(self, method: str, params: Payload | None = None) -> asyncio.Future[None] | None:
        """Send a notification; the future, if any, is done when the peer accepted it."""
        if self.ended.done():
            return None
        return self.transport.send_note(wire.notification(method, params))

    def _taken_back(self, pending: PendingRequest) -> None:
        self.abandon(pending, CallCancelled("the caller cancelled the request"))

    def abandon(self, pending: PendingRequest, exc: Exception | None) -> None:
        """Give up on a request: the backend is told in its era's way, the waiting caller gets `exc`."""
        if self.pending.pop(pending.number, None) is None:
            return
        if pending.outcome.done() and not pending.outcome.cancelled():  # answered in the same turn
            return
        self.handler.over(pending)
        if self.holder is None:
            self.abandoned.add(pending)
        if exc is not None and not pending.outcome.done():
            pending.outcome.set_exception(exc)
        if self.ended.done() or pending.method == "initialize":  # which must not be cancelled (basic/lifecycle)
            return
        if pending.abort is not None and self.era == "modern":
            pending.abort()  # closing the response stream is the cancellation
        else:
            reason = str(exc) if exc is not None else "the caller went away"
            params = wire.encode({"requestId": pending.number, "reason": reason})
            self.notify("notifications/cancelled", Payload(params))
            if pending.abort is not None:
                pending.abort()

    # --- in -----------------------------------------------------------------------------------------------------

    def fed(self, data: bytes, origin: PendingRequest | None = None) -> None:
        """Work off one message. `origin`: the request on whose own stream it came."""
        try:
            envelope = wire.parse_backend(data)
        except MalformedMessage as exc:
            self._garbled(data, exc, origin)
            return
        if envelope.method is not UNSET:
            if envelope.id is not UNSET:
                params = None if envelope.params is UNSET else envelope.params
                if envelope.method == "ping":  # which is for us
                    self.transport.send_note(wire.response(envelope.id, b"{}"))
                else:
                    self.handler.asked(envelope.method, envelope.id, params, origin)
            else:
                self._told(envelope.method, wire.EMPTY if envelope.params is UNSET else envelope.params, origin)
        elif envelope.id is not UNSET:
            self._answered(envelope, origin)

    def oversized(self, start: bytes) -> None:
        """A message was longer than the limit and dropped; `start` is how it began."""
        self._garbled(start, MalformedMessage("larger than the message limit"), None)

    def fail(self, pending: PendingRequest, exc: Exception) -> None:
        """One request failed; the link lives on."""
        self.pending.pop(pending.number, None)
        if not pending.outcome.done():
            self.handler.over(pending)
            pending.outcome.set_exception(exc)

    def lost(self, reason: BackendError) -> None:
        """The link is dead: everything pending fails now. Later calls of this method change nothing."""
        if self.ended.done():
            return
        self.ended.set_result(reason)
        self._deadlines.stop()
        pending, self.pending = self.pending, {}
        self.handler.lost()
        for waiting in pending.values():
            if not waiting.outcome.done():
                waiting.outcome.set_exception(
                    BackendLost(self.backend, f"{reason.message}, with the request in flight: its outcome is unknown")
                )
            if waiting.abort is not None:
                waiting.abort()

    def _answered(self, envelope: Envelope, origin: PendingRequest | None) -> None:
        pending = self.pending.get(number_of(envelope.id))
        if pending is None or (origin is not None and pending is not origin):
            self.abandoned.clear(number_of(envelope.id))
            logger.debug("answer to no request of ours", extra={"backend": self.backend})
            return
        del self.pending[pending.number]
        self.calls += 1
        self.heard = self._loop.time()
        if pending.outcome.done():
            return
        self.handler.over(pending)
        if envelope.error is not UNSET:
            error, code = bytes(envelope.error), wire.backend_code(envelope.error)
            pending.outcome.set_exception(RemoteError(error, code=code, backend=self.backend, era=self.era))
        elif envelope.result is not UNSET and wire.is_object(envelope.result):
            self.latency = monotonic() - pending.begun
            if isinstance(envelope, wire.ParsedEnvelope) and pending.call is not None:
                pending.call.look = wire.ResultView(envelope.result, envelope.members, envelope.text)
            pending.outcome.set_result(envelope.result)
        else:
            pending.outcome.set_exception(BackendProtocolError(self.backend, "answered without a result object"))

    def _told(self, method: str, params: Payload, origin: PendingRequest | None) -> None:
        found = wire.client_meta(params) if method == "notifications/progress" else {}
        pending = self.pending.get(number_of(found.get("progressToken", wire.NULL_ID)))
        if pending is None:
            self.handler.told(method, params, origin)
            return
        if not pending.stalls:
            self._deadlines.progressed(pending)
        if pending.call is not None and pending.token is not None and self.handler.has_room():
            found["progressToken"] = pending.token
            pending.call.emit(wire.notification(method, wire.encode(found)))

    def _garbled(self, data: bytes, exc: MalformedMessage, origin: PendingRequest | None) -> None:
        """Not JSON-RPC. If it was meant to be an answer, its caller must not wait for the timeout."""
        if self._noise.is_flood(exc.message, self._loop.time()):
            self.lost(BackendProtocolError(self.backend, "it floods us with what is no message"))
        pending = origin or self.pending.get(number_in(data))
        if pending is not None:
            self.fail(pending, BackendProtocolError(self.backend, f"its answer is {exc.message}"))

    def _expired(self, pending: PendingRequest, spent: str) -> None:
        self.abandon(pending, BackendTimeout(self.backend, f"no answer within {spent}"))
