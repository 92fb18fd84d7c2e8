"""A client's messages on one two-way channel (legacy SSE, stdio), and the replies to its requests."""

import asyncio
import logging
from collections.abc import Callable
from typing import Final, Protocol

from mcp_manifold.errors import MalformedMessage, RequestError
from mcp_manifold.fronts.checks import log_level, require_modern, speaks_modern
from mcp_manifold.fronts.gateway import Gateway
from mcp_manifold.fronts.http_errors import failed
from mcp_manifold.fronts.sessions import ActiveRequest, OpenSession
from mcp_manifold.model.call import Call, Session
from mcp_manifold.wire import (
    MODERN_VERSION,
    NULL_ID,
    UNSET,
    Envelope,
    Payload,
    Pieces,
    batch_of,
    encode,
    era_of,
    error_of,
    failure,
    members_of,
    parse,
    response,
    response_pieces,
)
from mcp_manifold.wire.protocol import REQUEST_CANCELLED

logger = logging.getLogger(__name__)
_ANY_TIME: Final = frozenset({"initialize", "ping"})
"""Methods that are allowed before `initialize`."""
_CUT: Final = encode({"code": REQUEST_CANCELLED, "message": "Request cancelled: the connection ends before its answer"})
_CLEAN_UP: Final = 2.0
"""Seconds that cancelled calls get to end before the channel is closed."""


class Channel(Protocol):
    """Sends messages to the client."""

    def push(self, message: bytes) -> bool:
        """Send a message that may be dropped; False when the client's send buffer is full."""

    def post(self, message: bytes) -> None:
        """Send a message that is never dropped."""


class ChannelReply(ActiveRequest):
    """The reply to one request on a channel. Registers the request in its session."""

    __slots__ = ("_conversation", "_id", "_key")

    def __init__(
        self, conversation: "Conversation", method: str, params: dict[str, Payload], session: Session, id_: Payload
    ) -> None:
        self.call = Call(method, params, session, self, id_)
        self._conversation = conversation
        self._id = id_
        self._key = b""
        self._in_flight = None

    def __repr__(self) -> str:
        return f"<ChannelReply to {self.call!r}>"

    def begin(self, gateway: Gateway, opened: OpenSession) -> None:
        """Dispatch the call, registered in its session.

        Raises:
            RequestError: the session refuses the request; no call was begun.
        """
        self._key = opened.register(self._id, self, gateway.settings.limits.max_calls_per_session)
        in_flight = gateway.dispatch(self.call)
        if not self.call.is_done:
            self._in_flight = in_flight

    def emit(self, message: bytes, /, *, needed: bool = False) -> None:
        self._conversation.emit(message, needed=needed)

    def stream(self) -> None:
        """Do nothing: a channel is always a stream."""

    def disconnected(self) -> None:
        self.cancel()

    def respond(self, result: Payload | Pieces | None, failure: BaseException | None) -> None:
        call = self.call
        if result is None or call.is_cancelled:
            message, _ = failed(call, self._id, failure)
        elif isinstance(result, tuple):
            message = b"".join(response_pieces(self._id, result))
        else:
            message = response(self._id, result)
        self._in_flight = None
        call.reply = self._conversation.late  # breaks the reference cycle with the call
        self._conversation.answered(call, self._key, message, has_failed=failure is not None)


class AfterAnswer:
    """The reply of an answered call: passes late messages to `emit`, or drops them without it."""

    __slots__ = ("_emit",)

    def __init__(self, emit: Callable[..., None] | None = None) -> None:
        self._emit = emit

    def __repr__(self) -> str:
        return f"<AfterAnswer {'dropping' if self._emit is None else 'passing on'}>"

    def emit(self, message: bytes, /, *, needed: bool = False) -> None:
        """Forward or drop a late message."""
        if self._emit is not None:
            self._emit(message, needed=needed)

    def stream(self) -> None:
        """Do nothing."""

    def respond(self, result: Payload | Pieces | None, failure: BaseException | None) -> None:
        """Drop a second answer."""

    def disconnected(self) -> None:
        """Do nothing."""


DISCARD: Final = AfterAnswer()


class Conversation:
    """Receives one client's messages and begins the calls of its requests.

    Args:
        modern: whether to serve 2026-07-28 requests, which need no session, as well.
    """

    __slots__ = ("_channel", "_gateway", "_initialized", "_modern", "_settled", "late", "opened")

    def __init__(self, gateway: Gateway, opened: OpenSession, channel: Channel, *, modern: bool) -> None:
        self._gateway = gateway
        self._channel = channel
        self._modern = modern
        self._initialized = False
        """Whether an `initialize` request was accepted and has not failed."""
        self._settled: asyncio.Future[None] | None = None
        """Set while `settle` waits; done once no call is in flight."""
        self.opened = opened
        self.late = AfterAnswer(self.emit)
        """The reply of answered calls: forwards their late messages to the client."""

    def __repr__(self) -> str:
        return f"<Conversation {self.opened!r}>"

    def receive(self, data: bytes) -> None:
        """Handle one encoded message. An invalid one is answered with an error."""
        try:
            envelope = parse(data)
        except MalformedMessage as exc:
            if not self.take_batch(data):
                self._channel.post(failure(NULL_ID, error_of(exc, "handshake")))
            return
        self.take(envelope)

    def take_batch(self, data: bytes) -> bool:
        """Handle the messages of a batch, and answer them one by one; False if the message is no batch."""
        messages = batch_of(data, self.opened.session.version)
        for message in messages:
            try:
                self.take(parse(message))
            except MalformedMessage as exc:
                self._channel.post(failure(NULL_ID, error_of(exc, "handshake")))
        return bool(messages)

    def take(self, envelope: Envelope) -> None:
        """Handle one message without waiting. The response may be sent before this returns, or later."""
        method, id_ = envelope.method, envelope.id
        if method is UNSET:
            self.opened.questions.answered(envelope)
            return
        try:
            params = members_of(envelope)
            if id_ is UNSET:
                self.opened.note(method, params)
            else:
                self._begin(id_, method, params)
        except RequestError as exc:
            if id_ is not UNSET:
                self._channel.post(failure(id_, error_of(exc, era_of(self.opened.session.version), method=method)))

    def _begin(self, id_: Payload, method: str, params: dict[str, Payload]) -> None:
        session = self._session(method, params)
        if session is self.opened.session and method == "initialize":
            self._initialized = True  # now: the next message may arrive before the response
        try:
            ChannelReply(self, method, params, session, id_).begin(self._gateway, self.opened)
        except RequestError:
            if session is self.opened.session and method == "initialize":
                self._initialized = False
            raise

    def _session(self, method: str, params: dict[str, Payload]) -> Session:
        """The session of a request: the client's, or a new one for a 2026-07-28 request."""
        own = self.opened.session
        if self._modern and speaks_modern(method, params, None):
            info, capabilities = require_modern(method, params, None)
            level = log_level(params)
            return Session("", own.principal, own.scope, MODERN_VERSION, info, capabilities, log_level=level)
        if method == "initialize":
            if self._initialized:
                raise RequestError("Invalid request: this session is initialized already")
            self.opened.introduce(params)
        elif not self._initialized and method not in _ANY_TIME:
            raise RequestError("Invalid request: send initialize first")
        return own

    def emit(self, message: bytes, *, needed: bool = False) -> None:
        """Send a message that belongs to a call."""
        (self._channel.post if needed else self._channel.push)(message)

    def answered(self, call: Call, key: bytes, message: bytes, *, has_failed: bool) -> None:
        """Send a call's response, unless the call was cancelled."""
        self.opened.complete(key)
        if has_failed and call.method == "initialize" and call.session is self.opened.session:
            self._initialized = False
        if not call.is_cancelled:
            self._channel.post(message)
        if self._settled is not None and not self.opened.active and not self._settled.done():
            self._settled.set_result(None)

    def cut(self) -> None:
        """Cancel all calls in flight, and refuse their requests."""
        for request in list(self.opened.active.values()):
            call = request.call
            if call.id is not None and not call.is_cancelled:
                self._channel.post(failure(call.id, _CUT))
            request.cancel()

    async def settle(self, seconds: float) -> None:
        """Wait up to `seconds` for the calls in flight; then cancel the others and wait for their end."""
        for request in list(self.opened.active.values()):
            request.end()
        if self.opened.active and seconds:
            await self._until_settled(seconds)
        self.cut()
        if self.opened.active:
            await self._until_settled(_CLEAN_UP)

    async def _until_settled(self, seconds: float) -> None:
        self._settled = asyncio.get_running_loop().create_future()
        await asyncio.wait({self._settled}, timeout=seconds)
