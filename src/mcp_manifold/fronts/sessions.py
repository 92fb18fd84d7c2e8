"""The sessions clients have open: who owns each, what is in flight in it, what it is still to be told.

Owns every handshake-era client session of a front. Knows no HTTP body and no stream format.
"""

import asyncio
import hashlib
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from mcp_manifold.clock import RateLimiter
from mcp_manifold.errors import CallCancelled, InvalidParams, RequestError, TooManyRequests
from mcp_manifold.fronts.client_requests import PendingClientRequests
from mcp_manifold.fronts.gateway import Gateway
from mcp_manifold.fronts.http.asgi import Refused
from mcp_manifold.fronts.http.resumption import KEEP, Journal, Journals
from mcp_manifold.fronts.http.stream import Tally
from mcp_manifold.fronts.in_flight import Flight
from mcp_manifold.fronts.inbound import id_key
from mcp_manifold.model.call import Call, Session
from mcp_manifold.model.key_store import InMemoryKeyStore, KeyStore
from mcp_manifold.model.policy import Principal
from mcp_manifold.wire import EMPTY, Envelope, Payload, first_byte, negotiate_version, notification, text

_logger = logging.getLogger("mcp_manifold.fronts.sessions")
_SWEEP: Final = 30.0
_RETRY: Final = 1.0
_OLDEST: Final = "2024-11-05"
_LASTING: Final = "tasks/result"
"""What waits as long as its task takes, instead of an answer's usual time."""
Deliver = Callable[[bytes], bool]
"""Hands a notification to the client's stream; False when it did not take it."""


class OpenSession:
    """One client's session, as its front holds it."""

    __slots__ = (
        "_asked", "_deliver", "_deserted", "_gateway", "_loop", "_pace", "_pending", "_tally", "_unwatch", "digest",
        "draining", "ended", "flights", "hang_up", "id", "initialized", "journals", "kind", "questions", "session",
        "used",
    )  # fmt: skip

    def __init__(
        self, gateway: Gateway, id_: str, kind: str, principal: Principal, scope: str, tally: Tally | None = None
    ) -> None:
        self._gateway = gateway
        self._tally = tally
        self._pace = RateLimiter(gateway.settings.limits.max_notifications)
        self.kind = kind
        self.id = id_
        self.digest = hashlib.sha256(self.id.encode()).hexdigest()
        self.session = Session(self.digest[:32], principal, scope, _OLDEST, reach=self)
        self.questions = PendingClientRequests()
        self.flights: dict[bytes, Flight] = {}
        self.initialized = False
        self.draining = False
        """Takes no more calls; its standing stream ends with the last one in flight."""
        self.ended = False
        self._loop = asyncio.get_running_loop()
        self.used = self._loop.time()
        self.hang_up: Callable[[], None] | None = None
        """Closes the client's standing stream; None while it has none."""
        self._deliver: Deliver | None = None
        self._asked: dict[Call | None, list[asyncio.Future[Envelope]]] = {}
        """What the client was asked on the streams of its calls in flight, and for None on the standing one."""
        self._deserted: dict[Call, Journal | None] = {}
        """Calls in flight whose own stream the client left, and where it may come back to."""
        self.journals: Journals | None = None
        """What its streams brought, where the client may resume them."""
        self._pending: dict[str, None] = {}
        self._unwatch: Callable[[], None] | None = None

    def __repr__(self) -> str:
        state = "ended" if self.ended else "initialized" if self.initialized else "opening"
        return f"<OpenSession {self.digest[:12]} {self.kind} {state} in_flight={len(self.flights)}>"

    def greet(self, params: dict[str, Payload]) -> None:
        """Take what `initialize` says of the client.

        Raises:
            InvalidParams: a member is of the wrong type.
        """
        info, capabilities = params.get("clientInfo", EMPTY), params.get("capabilities", EMPTY)
        if first_byte(info) != b"{" or first_byte(capabilities) != b"{":
            raise InvalidParams('Invalid params: "clientInfo" and "capabilities" must be objects')
        self.session.speak(negotiate_version(text(params.get("protocolVersion"), "protocolVersion")))
        self.session.client_info, self.session.capabilities = info, capabilities
        if self.kind == "mcp" and Journals.are_for(self.session.version):
            self.journals = Journals(self.digest[:8], self.session.version, self._gateway.budget)

    def depart(self, id_: Payload, flight: Flight, limit: int) -> bytes:
        """Enter a call as being in flight; returns the key to remove it by.

        Raises:
            RequestError: its id is in use, too many are in flight, or the session is ending.
        """
        if self.draining:
            raise TooManyRequests("The server is shutting down", retry_after=_RETRY)
        key = id_key(id_)
        if key in self.flights:
            raise RequestError("Invalid request: a request with this id is still in flight")
        if len(self.flights) >= limit:
            raise TooManyRequests(f"Too many requests in flight in this session (limit {limit})", retry_after=_RETRY)
        self.flights[key] = flight
        return key

    def land(self, key: bytes) -> None:
        """The call under `key` is over."""
        flight = self.flights.pop(key, None)
        if flight is not None:
            if self._asked:
                self._keep_asked(self._asked.pop(flight.call, ()))
            if self._deserted:
                self._deserted.pop(flight.call, None)
        self.used = self._loop.time()
        if self.draining and not self.flights:
            self._loop.call_soon(self._leave)  # after its answer, which may go over the standing stream

    def note(self, method: str, params: dict[str, Payload]) -> None:
        """Act on a client's notification."""
        if method == "notifications/cancelled":
            id_ = params.get("requestId")
            flight = None if id_ is None else self.flights.get(id_key(id_))
            if flight is not None and flight.call.method != "initialize":
                flight.take_back()
        elif method == "notifications/initialized":
            self.initialized = True
            if self._unwatch is None and not self.ended:  # what changed before cannot have been listed yet
                self._unwatch = self._gateway.watch(self.session.scope, self._changed)
        elif self._pace.allows(asyncio.get_running_loop().time()):
            self._gateway.notified(self.session, method, params)
        elif self._tally is not None:
            self._tally.dropped_notes += 1

    def ask(self, method: str, params: Payload | None, call: Call | None) -> "asyncio.Future[Envelope]":
        """See `call.Reach`: on the stream of the call, else on the standing one, else on that of any other call, since
        the client is the right one on each of them; without any it fails at once.
        """
        if call is None or call in self._deserted:
            call = None if self._deliver is not None else self._any_call()
        asked = self.questions.ask(method, params, lambda message: self._post(message, call))
        self._asked[call] = [*(each for each in self._asked.get(call, ()) if not each.done()), asked]
        return asked

    def _any_call(self) -> Call | None:
        calls = [flight.call for flight in self.flights.values() if flight.call.session is self.session]
        return next((call for call in reversed(calls) if call not in self._deserted), None)

    def desert(self, call: Call, journal: Journal | None) -> None:
        """The client left the stream of a call, which goes on; what it was asked there, nobody will answer unless it
        comes back to the journal soon.
        """
        self._deserted[call] = journal
        if journal is None:
            self._give_up(call)
        else:
            asyncio.get_running_loop().call_later(KEEP, self._give_up, call)

    def regain(self, journal: Journal) -> None:
        """The client came back to the stream of a call."""
        self._deserted = {call: left for call, left in self._deserted.items() if left is not journal}

    def _give_up(self, call: Call) -> None:
        if call not in self._deserted:
            return
        asked = self._asked.pop(call, ())
        if self._deliver is None:
            _fail(asked)
        else:
            self._keep_asked(asked)
        if call.method == _LASTING:  # nobody waits for it any more, and whoever comes back asks again
            for flight in [each for each in self.flights.values() if each.call is call]:
                flight.take_back()

    def _keep_asked(self, asked: Sequence["asyncio.Future[Envelope]"]) -> None:
        """The stream on which the client was asked this is gone; it may answer for as long as it is there itself."""
        left = [each for each in asked if not each.done()]
        if left:
            self._asked[None] = [*self._asked.get(None, ()), *left]
            if self._deliver is None:
                asyncio.get_running_loop().call_later(KEEP, self._forsake)

    def tell(self, message: bytes) -> bool:
        """See `call.Reach`."""
        if self._deliver is not None:
            return self._deliver(message)
        return self.journals is not None and self.journals.missed(message)

    def _post(self, message: bytes, call: Call | None) -> None:
        if call is not None:
            call.emit(message, needed=True)
        elif self._deliver is None or not self._deliver(message):
            self.questions.unreachable()

    def attach(self, deliver: Deliver, hang_up: Callable[[], None]) -> None:
        """The client has a standing stream now; what it missed is told at once."""
        self._deliver, self.hang_up = deliver, hang_up
        self._flush()

    def detach(self) -> None:
        """The standing stream is gone."""
        self._deliver = self.hang_up = None
        loop = asyncio.get_running_loop()
        self.used = loop.time()
        if None in self._asked:
            loop.call_later(KEEP, self._forsake)

    def _forsake(self) -> None:
        """Unless the client came back to a standing stream, nobody will answer what it was asked there."""
        if self._deliver is None:
            _fail(self._asked.pop(None, ()))

    def drain(self) -> None:
        """Take no more calls, and close the standing stream once those in flight are over."""
        self.draining = True
        if not self.flights:
            self._leave()

    def _leave(self) -> None:
        if self.hang_up is not None:
            self.hang_up()

    def end(self) -> None:
        """The session is over: calls are taken back, the stream is closed, links are let go."""
        if self.ended:
            return
        self.ended = True
        if self._unwatch is not None:
            self._unwatch()
        for flight in list(self.flights.values()):
            flight.take_back()
        self.questions.close()
        if self.journals is not None:
            self.journals.close()
        if self.hang_up is not None:
            self.hang_up()
        self._gateway.ended(self.session)

    def is_idle(self, since: float) -> bool:
        """Whether nothing happened since then, and nothing is going on."""
        return self.used < since and not self.flights and self.hang_up is None

    def _changed(self, methods: Sequence[str]) -> None:
        self._pending.update(dict.fromkeys(methods))
        self._flush()

    def _flush(self) -> None:
        """Tell of changes: once each, however often they happened, and never before the client is ready."""
        if not self.initialized or self._deliver is None:
            return
        for method in list(self._pending):
            if self._deliver(notification(method)):
                del self._pending[method]


def _fail(asked: Iterable["asyncio.Future[Envelope]"]) -> None:
    for each in asked:
        if not each.done():
            each.set_exception(CallCancelled("the client left the stream on which it was asked"))


class Sessions:
    """All sessions of the HTTP fronts, bounded in number and in idle time."""

    __slots__ = ("_gateway", "_kept", "_tally", "_timer")

    def __init__(self, gateway: Gateway, tally: Tally) -> None:
        self._gateway = gateway
        self._tally = tally
        self._kept: KeyStore[OpenSession] = InMemoryKeyStore()
        self._timer: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<Sessions open={len(self._kept)}>"

    def create(self, kind: str, principal: Principal, scope: str) -> OpenSession:
        """Open a session.

        Raises:
            Refused: 503 at the limit.
        """
        if len(self._kept) >= self._gateway.settings.limits.max_sessions:
            self.sweep()
        if len(self._kept) >= self._gateway.settings.limits.max_sessions:
            _logger.warning("session refused: too many are open", extra={"open": len(self._kept)})
            raise Refused(503, "Too many open sessions, try again later", headers=((b"retry-after", b"10"),))
        opened = OpenSession(self._gateway, self._kept.issue(), kind, principal, scope, self._tally)
        self._kept.keep(opened.id, opened)
        self._tally.sessions = len(self._kept)
        if self._timer is None:
            self._arm()
        return opened

    def find(self, id_: bytes, kind: str, principal: Principal, scope: str) -> OpenSession:
        """The session of that id, if it was opened here, by the same principal, through the same endpoint.

        Raises:
            Refused: 404, the same for somebody else's session and for none at all.
        """
        opened = self.of(id_, kind, principal, scope)
        if opened is not None:
            return opened
        opened = self._kept.find(id_.decode("latin-1"))
        if opened is not None:
            _logger.warning(
                "session refused: it belongs to another principal or endpoint",
                extra={"session": opened.digest[:12], "principal": principal.name, "scope": scope},
            )
        raise Refused(404, "Session not found")

    def of(self, id_: bytes, kind: str, principal: Principal, scope: str) -> OpenSession | None:
        """As `find`, but None where that refuses."""
        opened = self._kept.find(id_.decode("latin-1"))
        if opened is None:
            return None
        session = opened.session
        if session.principal.key != principal.key or session.scope != scope or opened.kind != kind:
            return None
        opened.used = asyncio.get_running_loop().time()
        return opened

    def end(self, opened: OpenSession) -> None:
        """End one session."""
        self._kept.forget(opened.id)
        self._tally.sessions = len(self._kept)
        opened.end()

    def keep(self, is_kept: Callable[[Session], bool]) -> None:
        """End the sessions that are not to be kept."""
        for opened in [opened for opened in self._kept.all() if not is_kept(opened.session)]:
            self.end(opened)

    def sweep(self) -> None:
        """End the sessions that were idle for too long."""
        for opened in self._kept.all():
            if opened.journals is not None:
                opened.journals.tidy()
        since = asyncio.get_running_loop().time() - self._gateway.settings.limits.session_idle
        for opened in [opened for opened in self._kept.all() if opened.is_idle(since)]:
            _logger.info("session expired", extra={"session": opened.digest[:12]})
            self.end(opened)

    def drain(self) -> None:
        """Let no session begin a call, and those without one leave."""
        for opened in self._kept.all():
            opened.drain()

    def close(self) -> None:
        """End all sessions."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for opened in self._kept.all():
            self.end(opened)

    def _arm(self) -> None:
        delay = min(_SWEEP, max(self._gateway.settings.limits.session_idle / 2, 0.01))
        self._timer = asyncio.get_running_loop().call_later(delay, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self.sweep()
        if len(self._kept):
            self._arm()
