"""One live MCP session to a backend: requests out, answers matched, everything pending failed at once when it is lost.

A Link dies once and never revives. It knows JSON-RPC and this hop's envelope; how bytes travel is its transport's
business, who may ask what is the router's. All methods but `request` are synchronous: what arrives is worked off in
wire order, so that a progress notification never overtakes, nor is overtaken by, the result it belongs to.
"""

import asyncio
import logging
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from mcp_manifold import wire
from mcp_manifold.call import Call
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
from mcp_manifold.wire import UNSET, Envelope, Payload
from mcp_manifold.wire.mirror import ParameterHeaders

logger = logging.getLogger(__name__)

_ID: Final = re.compile(rb'"id"\s*:\s*"?(\d{1,18})')
_REFUSED: Final = b'{"code":-32601,"message":"Method not found: nobody is behind this connection who could answer"}'


class Pending:
    """One request of ours that waits for its answer."""

    __slots__ = ("abort", "call", "deadline", "future", "method", "number", "params", "timeout", "token")

    def __init__(self, number: int, method: str, params: Mapping[str, Payload], timeout: float) -> None:
        self.number = number
        self.method = method
        self.params = params
        self.timeout = timeout
        self.deadline = 0.0
        self.call: Call | None = None
        self.token: Payload | None = None
        self.future: asyncio.Future[Payload] = asyncio.get_running_loop().create_future()
        self.abort: Callable[[], None] | None = None
        """Set by a transport on which giving up means closing this request's own stream."""

    def __repr__(self) -> str:
        return f"<Pending {self.number} {self.method}>"


class Transport(Protocol):
    """How a link's bytes travel. Calls `Link.fed`, `Link.fail` and `Link.lost`; each synchronously, in wire order."""

    def send_request(self, pending: Pending, body: bytes) -> None:
        """Send a request. Raises BackendError when it certainly cannot be sent."""

    def send_note(self, body: bytes) -> asyncio.Future[None] | None:
        """Send a notification or response; the future, if any, is done when the peer accepted it."""

    def adopt(self, version: str) -> None:
        """The session is negotiated: speak this revision from now on."""

    async def aclose(self) -> None:
        """Release everything, within a bound."""


Notified = Callable[[str, Payload, "Pending | None"], None]
"""Receives a backend's notification: method, raw params, and the request it came with where the transport tells."""


class Link:
    """See the module. `ended` is done, with the reason, once the link is dead."""

    def __init__(self, backend: str, *, on_notification: Notified, write_limit: int = 64 << 20) -> None:
        self.backend = backend
        self.write_limit = write_limit
        """Bytes that may wait to be written to the backend before requests are refused."""
        self.version = ""
        self.capabilities: Payload = wire.EMPTY
        self.calls = 0
        self.parameter_headers: ParameterHeaders | None = None
        """Set by the backend once its tools are listed; used where the transport mirrors arguments in headers."""
        self._stamp: dict[str, Payload] | None = None
        self._loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[BackendError] = self._loop.create_future()
        self._on_notification = on_notification
        self._transport: Transport | None = None
        self._pending: dict[int, Pending] = {}
        self._last = 0
        self._alarm: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        state = "ended" if self.ended.done() else self.version or "new"
        return f"<Link {self.backend} {state} pending={len(self._pending)}>"

    @property
    def era(self) -> wire.Era:
        """The era this link speaks."""
        return "modern" if self._stamp is not None else "handshake"

    @property
    def is_busy(self) -> bool:
        """Whether answers are due."""
        return bool(self._pending)

    @property
    def transport(self) -> Transport:
        """What carries the bytes; set once by `attach`."""
        if self._transport is None:
            raise BackendUnavailable(self.backend, "not connected yet")
        return self._transport

    def attach(self, transport: Transport) -> None:
        """Give the link the transport that was opened for it."""
        self._transport = transport

    def stamp(self, stamp: dict[str, Payload] | None) -> None:
        """Speak the modern era from now on, every request carrying `stamp` in its `_meta`; None: the handshake era."""
        self._stamp = stamp

    def adopt(self, version: str, capabilities: Payload) -> None:
        """The session is negotiated."""
        self.version = version
        self.capabilities = capabilities
        self.transport.adopt(version)

    # --- out ----------------------------------------------------------------------------------------------------

    async def request(
        self, method: str, params: dict[str, Payload], *, timeout: float, call: Call | None = None
    ) -> Payload:
        """Send a request and wait for its raw result object.

        Args:
            params: raw members, names and URIs already the backend's own.
            timeout: seconds; every progress notification starts them anew.
            call: the client request behind it, which gets its notifications and may cancel it.

        Raises:
            RemoteError: the backend answered with an error.
            BackendError: it did not answer, or not with MCP.
            CallCancelled: the caller took the request back.
        """
        if self.ended.done():
            raise self._dead()
        self._last = number = self._last + 1
        pending = Pending(number, method, params, timeout)
        if call is not None:
            pending.call = call
            meta = params.get("_meta")
            if meta is not None:
                pending.token = wire.client_meta(meta).get("progressToken")
        body = wire.request(number, method, wire.hop_params(params, token=number, stamp=self._stamp))
        self._pending[number] = pending
        try:
            self.transport.send_request(pending, body)
            self._watch(pending)
            if call is not None:
                call.on_cancel(lambda: self.abandon(pending, CallCancelled("the caller cancelled the request")))
            return await pending.future
        except asyncio.CancelledError:
            self.abandon(pending, None)
            raise
        finally:
            self._pending.pop(number, None)
            if call is not None:
                call.on_cancel(None)

    def notify(self, method: str, params: Payload | None = None) -> asyncio.Future[None] | None:
        """Send a notification; the future, if any, is done when the peer accepted it."""
        if self.ended.done():
            return None
        return self.transport.send_note(wire.notification(method, params))

    def abandon(self, pending: Pending, exc: Exception | None) -> None:
        """Give up on a request: the backend is told in its era's way, the waiting caller gets `exc`."""
        if self._pending.pop(pending.number, None) is None or pending.future.done():
            return
        if exc is not None:
            pending.future.set_exception(exc)
        if self.ended.done() or pending.method == "initialize":  # which must not be cancelled (basic/lifecycle)
            return
        if pending.abort is not None and self._stamp is not None:
            pending.abort()  # closing the response stream is the cancellation
        else:
            reason = str(exc) if exc is not None else "the caller went away"
            params = wire.encode({"requestId": pending.number, "reason": reason})
            self.notify("notifications/cancelled", Payload(params))
            if pending.abort is not None:
                pending.abort()

    # --- in -----------------------------------------------------------------------------------------------------

    def fed(self, data: bytes, origin: Pending | None = None) -> None:
        """Work off one message. `origin`: the request on whose own stream it came."""
        try:
            envelope = wire.parse_backend(data)
        except MalformedMessage as exc:
            self._garbled(data, exc, origin)
            return
        if envelope.method is not UNSET:
            if envelope.id is not UNSET:
                self._asked(envelope.method, envelope.id)
            else:
                self._told(envelope.method, wire.EMPTY if envelope.params is UNSET else envelope.params, origin)
        elif envelope.id is not UNSET:
            self._answered(envelope, origin)

    def oversized(self, start: bytes) -> None:
        """A message was longer than the limit and dropped; `start` is how it began."""
        self._garbled(start, MalformedMessage("larger than the message limit"), None)

    def fail(self, pending: Pending, exc: Exception) -> None:
        """One request failed; the link lives on."""
        self._pending.pop(pending.number, None)
        if not pending.future.done():
            pending.future.set_exception(exc)

    def lost(self, reason: BackendError) -> None:
        """The link is dead: everything pending fails now. Later calls of this method change nothing."""
        if self.ended.done():
            return
        self.ended.set_result(reason)
        if self._alarm is not None:
            self._alarm.cancel()
        pending, self._pending = self._pending, {}
        for waiting in pending.values():
            if not waiting.future.done():
                waiting.future.set_exception(
                    BackendLost(self.backend, f"{reason.message}, with the request in flight: its outcome is unknown")
                )

    def _dead(self) -> BackendError:
        return BackendUnavailable(self.backend, self.ended.result().message)

    def _answered(self, envelope: Envelope, origin: Pending | None) -> None:
        pending = self._pending.get(_number(envelope.id))
        if pending is None or (origin is not None and pending is not origin):
            logger.debug("answer to no request of ours", extra={"backend": self.backend})
            return
        del self._pending[pending.number]
        self.calls += 1
        if pending.future.done():
            return
        if envelope.error is not UNSET:
            code = wire.backend_code(envelope.error)
            pending.future.set_exception(RemoteError(bytes(envelope.error), code=code, backend=self.backend))
        elif envelope.result is not UNSET and wire.first_byte(envelope.result) == b"{":
            pending.future.set_result(envelope.result)
        else:
            pending.future.set_exception(BackendProtocolError(self.backend, "answered without a result object"))

    def _asked(self, method: str, id_: Payload) -> None:
        """A request of the backend's: `ping` is answered here, what needs a person behind us is refused."""
        answer = wire.response(id_, b"{}") if method == "ping" else wire.failure(id_, _REFUSED)
        self.transport.send_note(answer)

    def _told(self, method: str, params: Payload, origin: Pending | None) -> None:
        if method != "notifications/progress":
            self._on_notification(method, params, origin)
            return
        found = wire.client_meta(params)
        pending = self._pending.get(_number(found.get("progressToken", wire.NULL_ID)))
        if pending is None:
            return
        pending.deadline = self._loop.time() + pending.timeout
        if pending.call is not None and pending.token is not None:
            found["progressToken"] = pending.token
            pending.call.emit(wire.notification(method, wire.encode(found)))

    def _garbled(self, data: bytes, exc: MalformedMessage, origin: Pending | None) -> None:
        """Not JSON-RPC. If it was meant to be an answer, its caller must not wait for the timeout."""
        logger.warning("backend sent what is no message", extra={"backend": self.backend, "reason": exc.message})
        pending = origin
        if pending is None:
            found = _ID.search(data, 0, 4096)
            pending = self._pending.get(int(found.group(1))) if found else None
        if pending is not None:
            self.fail(pending, BackendProtocolError(self.backend, f"its answer is {exc.message}"))

    # --- deadlines: one timer a link, set to the earliest ---------------------------------------------------------

    def _watch(self, pending: Pending) -> None:
        pending.deadline = self._loop.time() + pending.timeout
        if self._alarm is None or self._alarm.when() > pending.deadline:
            if self._alarm is not None:
                self._alarm.cancel()
            self._alarm = self._loop.call_at(pending.deadline, self._expire)

    def _expire(self) -> None:
        now = self._loop.time()
        self._alarm = None
        for pending in [waiting for waiting in self._pending.values() if waiting.deadline <= now + 0.001]:
            self.abandon(pending, BackendTimeout(self.backend, f"no answer within {pending.timeout:g} s"))
        if self._pending:
            first = min(waiting.deadline for waiting in self._pending.values())
            self._alarm = self._loop.call_at(first, self._expire)


def either(first: "asyncio.Future[Any]", second: "asyncio.Future[Any]") -> set["asyncio.Future[Any]"]:
    """Two futures to wait for, whatever they hold."""
    return {first, second}


def _number(id_: Payload | object) -> int:
    """Our own request number in an id as a backend wrote it: `7`, `"7"` and `7.0` are the same; -1 for all else."""
    text = bytes(id_) if isinstance(id_, Payload) else b""
    try:
        return int(text)
    except ValueError:
        stripped = text.strip(b'"')
        whole, _, fraction = stripped.partition(b".")
        return int(whole) if whole.isdigit() and not fraction.strip(b"0") else -1
