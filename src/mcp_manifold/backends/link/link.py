"""One live MCP session to a backend: requests out, answers matched, everything pending failed when it is lost.

A Link ends once and never revives. It knows JSON-RPC and the `_meta` of this hop; how bytes travel is its transport's
business, where a call goes is the plan's. Messages are handled synchronously and in wire order, so that a progress
notification neither overtakes nor is overtaken by the result it belongs to.
"""

import asyncio
import logging
from math import inf
from typing import Final

from mcp_manifold import wire
from mcp_manifold.backends.link.meta_rewriter import MetaRewriter
from mcp_manifold.backends.link.monitors import AbandonedCalls, InvalidMessageMonitor, is_bare, is_echo, is_noise
from mcp_manifold.backends.link.pending import (
    HUMAN_WAIT,
    MessageHandler,
    PendingRequest,
    ResultCallback,
    Transport,
    answered_by,
    ignore,
    retrieve,
    settle_future,
)
from mcp_manifold.clock import Clock, DeadlineTimer, LoopClock
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
from mcp_manifold.model.call import Call, Session
from mcp_manifold.wire import UNSET, Envelope, Payload
from mcp_manifold.wire.param_headers import ParameterHeaders

logger = logging.getLogger(__name__)

ANSWER_GRACE: Final = 2.0
"""Seconds a request gets after a garbled line that looked like its answer: servers also log parts of what they send."""


class Link:
    """One session with a backend. `ended` is a future that holds the reason once the link has ended."""

    def __init__(
        self,
        backend: str,
        *,
        holder: Session | None = None,
        key: str = "",
        write_limit: int = 64 << 20,
        clock: Clock | None = None,
    ) -> None:
        self.backend = backend
        self.key = key
        """The key of this link among those of the backend; empty for the shared one."""
        self.write_limit = write_limit
        """Bytes that may wait to be written to the backend before requests are refused."""
        self.version = ""
        self.era: wire.Era = "handshake"
        """The era this link speaks."""
        self.capabilities: Payload = wire.EMPTY
        self.calls = 0
        """Answers received."""
        self.heard = 0.0
        """When the backend last answered, by the link's clock; 0 before the first answer."""
        self.latency: float | None = None
        """Seconds the last successful request took."""
        self.used = 0.0
        """When the last request was sent, by the link's clock; 0 before the first."""
        self.is_watched = False
        """Whether clients subscribe to something over it: it is in use even without calls."""
        self.parameter_headers: ParameterHeaders | None = None
        """The headers that mirror tool arguments; used by HTTP transports."""
        self.clock = clock or LoopClock()
        self.ended: asyncio.Future[BackendError] = asyncio.get_running_loop().create_future()
        self.holder = holder
        """The only client this link may serve; None for a link that clients share."""
        self.only: Session | None = holder
        """The one client served so far; None before the first call, and once there were two."""
        self._is_crowded = False
        self.pending: dict[int, PendingRequest] = {}
        """The requests that wait for their answers, by number. Only this link changes it."""
        self.abandoned = AbandonedCalls(self.clock)
        self._meta = MetaRewriter()
        self._handler: MessageHandler | None = None
        self._transport: Transport | None = None
        self._last = 0
        self._deadlines = DeadlineTimer(self.clock, self._earliest, self._expire)
        self.invalid = InvalidMessageMonitor(backend)

    def __repr__(self) -> str:
        state = "ended" if self.ended.done() else self.version or "new"
        return f"<Link {self.backend} {state} pending={len(self.pending)}>"

    @property
    def is_busy(self) -> bool:
        """Whether a request with a timeout awaits its answer."""
        return any(pending.timeout != inf for pending in self.pending.values())

    @property
    def is_clear(self) -> bool:
        """Whether the backend certainly works on no call: no request is open, and none was abandoned recently."""
        return not self.is_busy and not self.abandoned.clients

    @property
    def due(self) -> int:
        """The number of requests awaiting an answer, without those that have no timeout."""
        return sum(1 for pending in self.pending.values() if pending.timeout != inf)

    @property
    def transport(self) -> Transport:
        """The transport that was attached.

        Raises:
            BackendUnavailable: none was yet.
        """
        if self._transport is None:
            raise BackendUnavailable(self.backend, "not connected yet")
        return self._transport

    @property
    def handler(self) -> MessageHandler:
        """The handler of server requests and notifications; set once by `handled_by`."""
        if self._handler is None:
            raise RuntimeError("this link has no message handler")
        return self._handler

    def handled_by(self, handler: MessageHandler) -> None:
        """Set the handler of server requests and notifications."""
        self._handler = handler

    def attach(self, transport: Transport) -> None:
        """Use `transport`, which was opened for this link."""
        self._transport = transport

    def stamp(self, stamp: dict[str, Payload] | None) -> None:
        """Speak the modern era, with `stamp` in the `_meta` of every request. With None, speak the handshake era."""
        self._meta.adopt(stamp)
        self.era = self._meta.era

    def adopt(self, version: str, capabilities: Payload) -> None:
        """Adopt what was negotiated: the protocol revision, and the capabilities of the backend."""
        self.version = version
        self.capabilities = capabilities
        self._meta.adopt_logging("logging" in wire.capability_names(capabilities))
        self.transport.adopt(version)

    def watch(self, is_watched: bool) -> None:
        """Note whether clients subscribe to something over this link."""
        self.is_watched = is_watched

    def mirror(self, headers: ParameterHeaders | None) -> None:
        """Set the headers that mirror tool arguments, now that the tools are listed."""
        self.parameter_headers = headers

    # --- requests -------------------------------------------------------------------------------------------------

    def send(
        self,
        method: str,
        params: dict[str, Payload],
        on_result: ResultCallback,
        *,
        timeout: float,
        ceiling: float = inf,
        waited: float = 0.0,
        call: Call | None = None,
    ) -> PendingRequest:
        """Send a request. After this has returned, `on_result` receives its outcome, once.

        Args:
            params: raw members, with the backend's own names and URIs.
            timeout: seconds; each progress notification restarts them.
            ceiling: seconds in total, whatever progress is reported.
            waited: seconds of both that are spent already.
            call: the client's request behind it, which receives its notifications.

        Raises:
            BackendError: the request certainly was not sent; `on_result` is not called.
        """
        if self.ended.done():
            raise BackendUnavailable(self.backend, self.ended.result().message).unsent()
        self._last = number = self._last + 1
        pending = PendingRequest(number, method, params, timeout, ceiling, call, on_result, self.clock.now())
        if "_meta" not in params and self._meta.is_plain:
            body = wire.request(number, method, wire.encode(params) if params else None)
        else:
            rewritten, pending.token = self._meta.rewrite(params, number, call)
            body = wire.request(number, method, rewritten)
        if call is not None and call.session is not self.only and not self._is_crowded:
            self._is_crowded = self.only is not None
            self.only = None if self._is_crowded else call.session
        self.pending[number] = pending
        self.used = pending.begun
        try:
            self.transport.send_request(pending, body)
        except BaseException:
            del self.pending[number]
            raise
        self._watch(pending, waited)
        return pending

    async def request(self, method: str, params: dict[str, Payload], *, timeout: float, waited: float = 0.0) -> Payload:
        """Send a request of our own and wait for its result.

        Args:
            timeout: seconds, `waited` of which are spent already.

        Raises:
            RemoteError: the backend answered with an error.
            BackendError: it did not answer, or not with MCP.
        """
        outcome: asyncio.Future[Payload] = asyncio.get_running_loop().create_future()
        pending = self.send(method, params, settle_future(outcome), timeout=timeout, waited=waited)
        try:
            return await outcome
        except asyncio.CancelledError:
            self.abandon(pending, None)
            raise

    def begin(self, method: str, params: dict[str, Payload], *, timeout: float = inf) -> PendingRequest:
        """Send a request of our own; its outcome is in the `future` of the result. Raises as `send` does.

        Without a timeout it stands as long as the link does, and does not make the link busy.
        """
        outcome: asyncio.Future[Payload] = asyncio.get_running_loop().create_future()
        outcome.add_done_callback(retrieve)
        pending = self.send(method, params, settle_future(outcome), timeout=timeout)
        pending.outcome = outcome
        return pending

    def notify(self, method: str, params: Payload | None = None) -> asyncio.Future[None] | None:
        """Send a notification; the future, if any, is done when the peer accepted it."""
        if self.ended.done():
            return None
        return self.transport.send_note(wire.notification(method, params))

    def abandon(self, pending: PendingRequest, reason: Exception | None) -> None:
        """Complete a request with `reason`, and cancel it at the backend in the way of its era."""
        if self.pending.pop(pending.number, None) is None:
            return
        if pending.stalls:
            self.handler.on_finished(pending)
        if self.holder is None:
            self.abandoned.add(pending)
        self._complete(pending, None, reason or CallCancelled())
        if self.ended.done() or pending.method == "initialize":  # which must not be cancelled (basic/lifecycle)
            return
        if pending.abort is not None and self.era == "modern":
            pending.abort()  # closing the response stream is the cancellation
            return
        words = str(reason) if reason is not None else "the caller went away"
        self.notify("notifications/cancelled", Payload(wire.encode({"requestId": pending.number, "reason": words})))
        if pending.abort is not None:
            pending.abort()

    # --- parking --------------------------------------------------------------------------------------------------

    def park(self, pending: PendingRequest, answer: Payload) -> None:
        """Answer the client's call with `answer`; keep its backend request pending until `resume`."""
        self._pause(pending)
        callback, pending.on_result = pending.on_result, ignore
        if callback is not None:
            callback(pending, answer, None)
        pending.is_parked, pending.call = True, None

    def resume(self, pending: PendingRequest, call: Call, on_result: ResultCallback) -> None:
        """Give a parked request's outcome to `call` from now on. An outcome that is known already comes right after."""
        pending.is_parked, pending.call, pending.on_result = False, call, on_result
        meta = call.params.get("_meta")
        pending.token = None if meta is None else wire.object_members(meta).get("progressToken")
        kept, pending.kept = pending.kept, None
        if kept is None:
            self._watch(pending)
        else:
            self.clock.call_later(0, self._complete, pending, *kept)

    def stall(self, pending: PendingRequest) -> None:
        """Pause a request's deadline while a server request to its client is open."""
        pending.stalls += 1
        self._pause(pending)

    def release(self, pending: PendingRequest) -> None:
        """Restart a request's deadline, unless another server request still pauses it."""
        pending.stalls -= 1
        if not pending.stalls and not pending.is_parked and pending.number in self.pending:
            self._watch(pending)

    # --- deadlines ------------------------------------------------------------------------------------------------

    def _watch(self, pending: PendingRequest, waited: float = 0.0) -> None:
        """Start the request's deadline now, less what it spent before; restart it after a pause."""
        now = self.clock.now()
        if not pending.latest:
            pending.latest = now + pending.ceiling - waited
        elif pending.paused:
            pending.latest += now - pending.paused
            pending.paused = 0.0
        pending.deadline = min(now + pending.timeout - waited, pending.latest)
        self._deadlines.watch(pending.deadline)

    def _pause(self, pending: PendingRequest) -> None:
        """Pause the deadline, within a bound."""
        now = self.clock.now()
        pending.paused = pending.paused or now
        pending.deadline = now + HUMAN_WAIT

    def _earliest(self) -> float:
        return min((waiting.deadline for waiting in self.pending.values()), default=inf)

    def _expire(self, now: float) -> None:
        for pending in [waiting for waiting in self.pending.values() if waiting.deadline <= now]:
            if pending.garbled:
                self.fail(pending, BackendProtocolError(self.backend, pending.garbled))
            else:
                self.abandon(pending, BackendTimeout(self.backend, f"no answer within {pending.expired_timeout}"))

    def _garbled(self, number: int, reason: str, origin: PendingRequest | None) -> None:
        """Fail a request soon, unless its answer follows the garbled one; at once for one on its own stream."""
        pending = self.pending.get(number)
        if origin is not None:
            self.fail(origin, BackendProtocolError(self.backend, reason))
            if origin.abort is not None:
                origin.abort()  # what else is on its stream is not worth reading
        elif pending is not None:
            pending.garbled = reason
            pending.deadline = min(pending.deadline, self.clock.now() + ANSWER_GRACE)
            self._deadlines.watch(pending.deadline)

    # --- incoming messages --------------------------------------------------------------------------------------------

    def fed(self, data: bytes, origin: PendingRequest | None = None) -> None:
        """Handle one received message. `origin` is the request on whose own stream the message came."""
        try:
            envelope = wire.parse_backend(data)
        except MalformedMessage as exc:
            self._invalid_message(data, exc.message)
            self._garbled(answered_by(data), f"its answer is {exc.message}", origin)
            return
        if envelope.method is UNSET:
            if (envelope.result is UNSET or not envelope.jsonrpc) and origin is None and is_noise(envelope):
                self._invalid_message(data, "neither a request nor an answer")
                if is_bare(data):
                    self._garbled(number_of(envelope.id), "answered without a result object", origin)
            elif envelope.id is not UNSET:
                self._answered(envelope, origin)
        elif envelope.id is UNSET:
            self._notified(envelope.method, wire.EMPTY if envelope.params is UNSET else envelope.params, origin)
        elif envelope.method == "ping":
            self.transport.send_note(wire.response(envelope.id, b"{}"))
        elif is_echo(envelope.method, self.pending.get(number_of(envelope.id))):
            self._invalid_message(data, "the echo of a request")
        else:
            params = None if envelope.params is UNSET else envelope.params
            self.handler.on_request(envelope.method, envelope.id, params, origin)

    def oversized(self, start: bytes) -> None:
        """Handle a message that exceeded the limit and was dropped; `start` is its beginning."""
        self._invalid_message(start, "larger than the message limit")
        self._garbled(0, "its answer is larger than the message limit", self.pending.get(answered_by(start)))

    def fail(self, pending: PendingRequest, failure: Exception) -> None:
        """Fail one request. The link stays open."""
        self.pending.pop(pending.number, None)
        if pending.stalls and not pending.is_done:
            self.handler.on_finished(pending)
        self._complete(pending, None, failure)

    def lost(self, reason: BackendError) -> None:
        """End the link, and fail everything pending now. Later calls change nothing."""
        if self.ended.done():
            return
        self.ended.set_result(reason)
        self._deadlines.stop()
        pending, self.pending = self.pending, {}
        self.handler.on_lost()
        unknown = f"{reason.message}, with the request in flight: its outcome is unknown"
        for waiting in pending.values():
            self._complete(waiting, None, BackendLost(self.backend, unknown))
            if waiting.abort is not None:
                waiting.abort()

    def _answered(self, envelope: Envelope, origin: PendingRequest | None) -> None:
        number = number_of(envelope.id)
        pending = self.pending.get(number)
        if pending is None or (origin is not None and pending is not origin):
            self.abandoned.clear(number)
            logger.debug("answer to an unknown request", extra={"backend": self.backend})
            return
        del self.pending[number]
        self.calls += 1
        self.heard = self.clock.now()
        if pending.stalls:
            self.handler.on_finished(pending)
        result = envelope.result
        if envelope.error is not UNSET:
            error, code = bytes(envelope.error), wire.backend_code(envelope.error)
            self._complete(pending, None, RemoteError(error, code=code, backend=self.backend, era=self.era))
        elif result is not UNSET and wire.is_object(result):
            self.latency = self.heard - pending.begun
            if isinstance(envelope, wire.ParsedEnvelope):
                pending.view = wire.ResultView(result, envelope.members, envelope.text)
            self._complete(pending, result, None)
        else:
            self._complete(pending, None, BackendProtocolError(self.backend, "answered without a result object"))

    def _complete(self, pending: PendingRequest, result: Payload | None, failure: Exception | None) -> None:
        """Report an outcome, once; keep it while the request is parked."""
        if pending.is_parked:
            pending.kept = pending.kept or (result, failure)
            return
        callback, pending.on_result = pending.on_result, None
        if callback is not None:
            callback(pending, result, failure)

    def _notified(self, method: str, params: Payload, origin: PendingRequest | None) -> None:
        found = wire.object_members(params) if method == "notifications/progress" else {}
        pending = self.pending.get(number_of(found.get("progressToken", wire.NULL_ID)))
        if pending is None:
            self.handler.on_notification(method, params, origin)
            return
        if not pending.stalls:
            pending.deadline = min(self.clock.now() + pending.timeout, pending.latest)
        if pending.call is not None and pending.token is not None and self.handler.has_room():
            found["progressToken"] = pending.token
            pending.call.reply.emit(wire.notification(method, wire.encode(found)))

    def _invalid_message(self, data: bytes, reason: str) -> None:
        """Report a message that is not JSON-RPC."""
        if self.invalid.is_flood(data, reason, self.clock.now()):
            self.lost(BackendProtocolError(self.backend, "too many invalid messages"))


def number_of(id_: Payload | object) -> int:
    """The request number in an id as the backend wrote it: `7`, `"7"` and `7.0` are equal; -1 for anything else."""
    text = bytes(id_) if isinstance(id_, Payload) else b""
    if len(text) > 32:  # not one of ours, and perhaps more digits than Python converts
        return -1
    try:
        return int(text)
    except ValueError:
        whole, _, fraction = text.strip(b'"').partition(b".")
        return int(whole) if whole.isdigit() and not fraction.strip(b"0") else -1
