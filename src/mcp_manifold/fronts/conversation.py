"""One client on one two-way channel: legacy SSE and stdio. Knows neither's bytes, only messages in and messages out."""

import asyncio
import logging
from typing import Final, Protocol

from mcp_manifold.core.scope_responder import LISTS
from mcp_manifold.errors import MalformedMessage, ManifoldError, RequestError
from mcp_manifold.fronts.gateway import Gateway
from mcp_manifold.fronts.http.lists import listed
from mcp_manifold.fronts.in_flight import Flight, answered, concluded
from mcp_manifold.fronts.inbound import admit, log_level, speaks_modern
from mcp_manifold.fronts.sessions import OpenSession
from mcp_manifold.model.call import Call, Session
from mcp_manifold.wire import (
    MODERN_VERSION,
    NULL_ID,
    UNSET,
    Envelope,
    Payload,
    era_of,
    error_of,
    failure,
    members_of,
    parse,
)

_logger = logging.getLogger("mcp_manifold.fronts.conversation")
_ANY_TIME: Final = frozenset({"initialize", "ping"})


class Channel(Protocol):
    """The way to the client."""

    def push(self, message: bytes) -> bool:
        """Send a notification; False when the client reads too slowly for it."""
        ...

    def post(self, message: bytes) -> None:
        """Send an answer, which is never dropped."""
        ...


class Conversation:
    """Takes one client's messages and owns the calls that answer them.

    Args:
        modern: whether requests of the 2026-07-28 era, which need no session, are served too.
    """

    __slots__ = ("_channel", "_gateway", "_greeted", "_landed", "_modern", "_relayed", "_tasks", "opened")

    def __init__(self, gateway: Gateway, opened: OpenSession, channel: Channel, *, modern: bool) -> None:
        self._gateway = gateway
        self._channel = channel
        self._modern = modern
        self._greeted = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._relayed: set[Flight] = set()
        """Calls in flight that have no task."""
        self._landed: asyncio.Future[None] | None = None
        """Done once there are none any more; for `settle`."""
        self.opened = opened

    def __repr__(self) -> str:
        return f"<Conversation {self.opened!r} answering={len(self._tasks) + len(self._relayed)}>"

    def receive(self, data: bytes) -> None:
        """Take one message as text; what is no message is answered as such."""
        try:
            envelope = parse(data)
        except MalformedMessage as exc:
            self._channel.post(failure(NULL_ID, error_of(exc, "handshake")))
            return
        self.take(envelope)

    def take(self, envelope: Envelope) -> None:
        """Take one message. Never waits: a request is answered by a task of its own."""
        method, id_ = envelope.method, envelope.id
        if method is UNSET:
            self.opened.questions.answered(envelope)
            return
        try:
            params = members_of(envelope)
            if id_ is UNSET:
                self.opened.note(method, params)
            else:
                self._start(id_, method, params)
        except RequestError as exc:
            if id_ is not UNSET:
                self._channel.post(failure(id_, error_of(exc, era_of(self.opened.session.version), method=method)))

    def cut(self) -> None:
        """Cancel the calls in flight; whoever is in `settle` need not wait any longer."""
        for task in self._tasks:
            task.cancel()
        for flight in list(self._relayed):
            flight.call.cancel()

    async def settle(self, seconds: float) -> None:
        """Wait for the calls in flight, for so long; then cancel what is left, and wait for that."""
        for flight in list(self.opened.flights.values()):
            flight.call.finish()
        waiting: set[asyncio.Future[None]] = set(self._tasks)
        if self._relayed:
            self._landed = asyncio.get_running_loop().create_future()
            waiting.add(self._landed)
        if waiting and seconds:
            await asyncio.wait(waiting, timeout=seconds)
        self.cut()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _start(self, id_: Payload, method: str, params: dict[str, Payload]) -> None:
        session = self._session(method, params)
        call = Call(method, params, session, self._emit, id=id_)
        flight = Flight(call, None)
        key = self.opened.depart(id_, flight, self._gateway.settings.limits.max_calls_per_session)
        if session is self.opened.session and method == "initialize":
            self._greeted = True  # at once: the next message may come before the answer is out
        if method == "tools/call" and self._relay(key, flight, id_):
            return
        if method in LISTS and (found := listed(self._gateway, flight, id_)) is not None:
            self.opened.land(key)
            self._channel.post(b"".join(found[0]))
            return
        task = asyncio.get_running_loop().create_task(self._answer(key, flight, id_), name=f"front.call {method[:40]}")
        flight.task = task
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _relay(self, key: bytes, flight: Flight, id_: Payload) -> bool:
        """Answer a call without a task, if it needs nothing but its backend."""

        def over(result: Payload | None, reason: Exception | None) -> None:
            self._relayed.discard(flight)
            self.opened.land(key)
            message, _ = concluded(flight, id_, result, reason)
            if not flight.call.cancelled:
                self._channel.post(message)
            if self._landed is not None and not self._relayed and not self._landed.done():
                self._landed.set_result(None)

        self._relayed.add(flight)
        try:
            if self._gateway.relay(flight.call, over):
                return True
        except ManifoldError as exc:
            asyncio.get_running_loop().call_soon(over, None, exc)
            return True
        self._relayed.discard(flight)
        return False

    def _session(self, method: str, params: dict[str, Payload]) -> Session:
        """The session a request belongs to: the client's, or its own if it is of the stateless era."""
        own = self.opened.session
        if self._modern and speaks_modern(method, params, None):
            info, capabilities = admit(method, params, None)
            level = log_level(params)
            return Session("", own.principal, own.scope, MODERN_VERSION, info, capabilities, log_level=level)
        if method == "initialize":
            if self._greeted:
                raise RequestError("Invalid request: this session is initialized already")
            self.opened.greet(params)
        elif not self._greeted and method not in _ANY_TIME:
            raise RequestError("Invalid request: send initialize first")
        return own

    def _emit(self, message: bytes, /, *, needed: bool = False) -> None:
        (self._channel.post if needed else self._channel.push)(message)

    async def _answer(self, key: bytes, flight: Flight, id_: Payload) -> None:
        try:
            message, _ = await answered(self._gateway.handle, flight, id_)
        finally:
            self.opened.land(key)
        if flight.failed and flight.call.method == "initialize":
            self._greeted = False
        if not flight.call.cancelled:
            self._channel.post(message)
