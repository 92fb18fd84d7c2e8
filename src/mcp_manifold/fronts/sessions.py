"""Client sessions of the handshake era: owner, calls in flight, server requests, and pending notifications.

Owns every open session of a front. Knows no HTTP body and no stream format.
"""

import asyncio
import hashlib
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from mcp_manifold.clock import Clock, LoopClock, RateLimiter, Timer
from mcp_manifold.core.dispatcher import InFlightCall
from mcp_manifold.errors import CallCancelled, InvalidParams, RequestError, TooManyRequests
from mcp_manifold.fronts.client_requests import PendingClientRequests, id_key
from mcp_manifold.fronts.gateway import Gateway
from mcp_manifold.fronts.http_errors import HttpError, Refused
from mcp_manifold.fronts.resumption import KEEP, Journal, Journals
from mcp_manifold.fronts.tally import Tally
from mcp_manifold.model.call import Call, Session
from mcp_manifold.model.key_store import KeyStore
from mcp_manifold.model.policy import Principal
from mcp_manifold.wire import EMPTY, Envelope, Payload, first_byte, negotiate_version, notification, text

logger = logging.getLogger(__name__)
_SWEEP: Final = 30.0
"""Seconds between two checks for expired sessions, at most."""
_SHORTEST_SWEEP: Final = 0.01
"""Seconds between two such checks, at least."""
_RETRY: Final = 1.0
_OLDEST: Final = "2024-11-05"
_LASTING: Final = "tasks/result"
"""The method that lasts as long as its task."""
Deliver = Callable[[bytes], bool]
"""Sends a message on the client's standing stream; False when the stream dropped it."""


class ActiveRequest:
    """A client's request in flight."""

    __slots__ = ("_in_flight", "call")
    call: Call
    _in_flight: InFlightCall | None
    """None before the call is dispatched, and once it is answered."""

    def cancel(self) -> None:
        """Cancel the call. The HTTP response is an error; on a channel there is none (2025-11-25, Cancellation)."""
        if self._in_flight is not None:
            self._in_flight.cancel()

    def end(self) -> None:
        """End a subscription with its result; do nothing for other requests."""
        if self._in_flight is not None:
            self._in_flight.end()


class OpenSession:
    """One client's session in its front."""

    __slots__ = (
        "_asked", "_clock", "_deliver", "_deserted", "_forsaking", "_gateway", "_pace", "_pending", "_tally",
        "_unwatch", "active", "digest", "draining", "ended", "hang_up", "id", "journals", "kind",
        "questions", "session", "used",
    )  # fmt: skip

    def __init__(
        self,
        gateway: Gateway,
        id_: str,
        kind: str,
        principal: Principal,
        scope: str,
        tally: Tally | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._gateway = gateway
        self._tally = tally
        self._clock = clock or LoopClock()
        self._pace = RateLimiter(gateway.settings.limits.max_notifications)
        self.kind = kind
        self.id = id_
        self.digest = hashlib.sha256(self.id.encode()).hexdigest()
        self.session = Session(self.digest[:32], principal, scope, _OLDEST, reach=self)
        self.questions = PendingClientRequests()
        self.active: dict[bytes, ActiveRequest] = {}
        """The requests in flight, by `id_key`."""
        self.draining = False
        """Whether new calls are refused. The standing stream ends after the last call in flight."""
        self.ended = False
        self.used = self._clock.now()
        """When a request last began or ended, by the clock."""
        self.hang_up: Callable[[], None] | None = None
        """Closes the client's standing stream; None while it has none."""
        self._deliver: Deliver | None = None
        self._asked: dict[Call | None, list[asyncio.Future[Envelope]]] = {}
        """The server requests sent on the streams of calls in flight, and for None on the standing stream."""
        self._deserted: dict[Call, tuple[Journal | None, Timer | None]] = {}
        """Calls in flight whose client disconnected, with the journal that it may resume, and for how long."""
        self._forsaking: Timer | None = None
        """Runs while the server requests of the standing stream wait for a new one."""
        self.journals: Journals | None = None
        """The events of its streams; None if its revision has no resumption."""
        self._pending: dict[str, None] = {}
        """The changes to announce."""
        self._unwatch: Callable[[], None] | None = None
        """Stops the watch for changes; None before the client is initialized."""

    def __repr__(self) -> str:
        state = "ended" if self.ended else "opening" if self._unwatch is None else "initialized"
        return f"<OpenSession {self.digest[:12]} {self.kind} {state} in_flight={len(self.active)}>"

    def introduce(self, params: dict[str, Payload]) -> None:
        """Adopt the client's info, capabilities and revision from `initialize`.

        Raises:
            InvalidParams: a member is of the wrong type.
        """
        info, capabilities = params.get("clientInfo", EMPTY), params.get("capabilities", EMPTY)
        if first_byte(info) != b"{" or first_byte(capabilities) != b"{":
            raise InvalidParams('Invalid params: "clientInfo" and "capabilities" must be objects')
        self.session.speak(negotiate_version(text(params.get("protocolVersion"), "protocolVersion")))
        self.session.introduce(info, capabilities)
        if self.kind == "mcp" and Journals.are_for(self.session.version):
            self.journals = Journals(self.digest[:8], self.session.version, self._gateway.budget, self._clock)

    # --- calls --------------------------------------------------------------------------------------------------------

    def register(self, id_: Payload, request: ActiveRequest, limit: int) -> bytes:
        """Register a request in flight; returns its key for `complete`.

        Raises:
            Refused: 404, the session has ended.
            RequestError: its id is in use, too many are in flight, or the session is draining.
        """
        if self.ended:
            raise Refused(HttpError.UNKNOWN_SESSION)
        if self.draining:
            raise TooManyRequests("The server is shutting down", retry_after=_RETRY)
        key = bytes(id_)
        if not key.isdigit():
            key = id_key(id_)
        if key in self.active:
            raise RequestError("Invalid request: a request with this id is still in flight")
        if len(self.active) >= limit:
            raise TooManyRequests(f"Too many requests in flight in this session (limit {limit})", retry_after=_RETRY)
        self.active[key] = request
        return key

    def complete(self, key: bytes) -> None:
        """Remove the answered request of `key`."""
        request = self.active.pop(key, None)
        if request is not None:
            if self._asked:
                self._keep_asked(self._asked.pop(request.call, ()))
            if self._deserted:
                self._return(request.call)
        self.used = self._clock.now()
        if self.draining and not self.active:
            self._clock.call_at(self._clock.now(), self._leave)  # after the answer, which may use the standing stream

    def note(self, method: str, params: dict[str, Payload]) -> None:
        """Handle a client's notification."""
        if method == "notifications/cancelled":
            id_ = params.get("requestId")
            request = None if id_ is None else self.active.get(id_key(id_))
            if request is not None and request.call.method != "initialize":
                request.cancel()
        elif method == "notifications/initialized":
            if self._unwatch is None and not self.ended:  # the client has listed nothing before
                self._unwatch = self._gateway.watch(self.session.scope, self._changed)
        elif self._pace.allows(self._clock.now()):
            self._gateway.notified(self.session, method, params)
        elif self._tally is not None:
            self._tally.drop_note()

    # --- server requests ----------------------------------------------------------------------------------------------

    def ask(self, method: str, params: Payload | None, call: Call | None) -> "asyncio.Future[Envelope]":
        """Send a server request on the stream of `call`, else on the standing stream, else on another call's stream.

        All of them belong to this client. Without any stream, the future fails at once.
        """
        if call is None or call.is_done or call in self._deserted:
            call = None if self._deliver is not None else self._any_call()
        asked = self.questions.ask(method, params, lambda message: self._post(message, call))
        self._asked[call] = [*(each for each in self._asked.get(call, ()) if not each.done()), asked]
        return asked

    def _any_call(self) -> Call | None:
        calls = [request.call for request in self.active.values() if request.call.session is self.session]
        return next((call for call in reversed(calls) if call not in self._deserted), None)

    def desert(self, call: Call, journal: Journal | None) -> None:
        """Note that the client disconnected from the stream of a call. The call continues.

        Server requests sent on that stream fail unless the client resumes the journal within KEEP seconds.
        """
        self._return(call)
        timer = None if journal is None else self._clock.call_later(KEEP, self._give_up, call)
        self._deserted[call] = journal, timer
        if journal is None:
            self._give_up(call)

    def mute(self, call: Call) -> None:
        """Send no server request on this call's response, which carries only the answer. Use other streams."""
        self._deserted[call] = None, None

    def regain(self, journal: Journal) -> None:
        """Use the stream of a call again, because the client has resumed it."""
        for call in [call for call, (left, _) in self._deserted.items() if left is journal]:
            self._return(call)

    def _return(self, call: Call) -> None:
        """Stop waiting for the client of a call, which is back or has its answer."""
        _, timer = self._deserted.pop(call, (None, None))
        if timer is not None:
            timer.cancel()

    def _give_up(self, call: Call) -> None:
        asked = self._asked.pop(call, ())
        if self._deliver is None:
            _fail(asked)
        else:
            self._keep_asked(asked)
        if call.method == _LASTING:  # a reconnecting client sends it again
            for request in [each for each in self.active.values() if each.call is call]:
                request.cancel()

    def _keep_asked(self, asked: Sequence["asyncio.Future[Envelope]"]) -> None:
        """Keep server requests whose stream ended: the client may still answer them by POST."""
        left = [each for each in asked if not each.done()]
        if left:
            self._asked[None] = [*self._asked.get(None, ()), *left]
            if self._deliver is None:
                self._wait_for_stream()

    def tell(self, message: bytes) -> bool:
        if self._deliver is not None:
            return self._deliver(message)
        return self.journals is not None and self.journals.missed(message)

    def _post(self, message: bytes, call: Call | None) -> bool:
        if call is None:
            return self._deliver is not None and self._deliver(message)
        call.reply.emit(message, needed=True)
        return True

    # --- the standing stream ------------------------------------------------------------------------------------------

    def attach(self, deliver: Deliver, hang_up: Callable[[], None]) -> None:
        """Use a new GET event stream (standing stream) of the client, and send the pending list changes on it."""
        self._deliver, self.hang_up = deliver, hang_up
        self._flush()

    def detach(self) -> None:
        """Stop using the standing stream, because it has ended."""
        self._deliver = self.hang_up = None
        self.used = self._clock.now()
        if None in self._asked and not self.ended:
            self._wait_for_stream()

    def _wait_for_stream(self) -> None:
        if self._forsaking is not None:
            self._forsaking.cancel()
        self._forsaking = self._clock.call_later(KEEP, self._forsake)

    def _forsake(self) -> None:
        """Fail the server requests of the standing stream, unless the client opened a new one."""
        if self._deliver is None:
            _fail(self._asked.pop(None, ()))

    # --- lifecycle ----------------------------------------------------------------------------------------------------

    def touch(self) -> None:
        """Record that the session is in use."""
        self.used = self._clock.now()

    def refuse_calls(self) -> None:
        """Refuse new calls. Open streams stay open."""
        self.draining = True

    def drain(self) -> None:
        """Refuse new calls, and close the standing stream once the calls in flight are answered."""
        self.refuse_calls()
        if not self.active:
            self._leave()

    def _leave(self) -> None:
        if self.hang_up is not None:
            self.hang_up()

    def end(self) -> None:
        """End the session: cancel its calls, close its stream, release its links."""
        if self.ended:
            return
        self.ended = True
        if self._unwatch is not None:
            self._unwatch()
        for request in list(self.active.values()):
            request.cancel()
        self.questions.close()
        if self.journals is not None:
            self.journals.close()
        if self.hang_up is not None:
            self.hang_up()
        self._gateway.ended(self.session)

    def is_idle(self, since: float) -> bool:
        """Whether the session was not used after `since`, and has no call and no stream."""
        return self.used < since and not self.active and self.hang_up is None

    def _changed(self, methods: Sequence[str]) -> None:
        self._pending.update(dict.fromkeys(methods))
        self._flush()

    def _flush(self) -> None:
        """Announce each pending change once, if the client has a stream."""
        if self._deliver is None:
            return
        for method in list(self._pending):
            if self._deliver(notification(method)):
                del self._pending[method]


def _fail(asked: Iterable["asyncio.Future[Envelope]"]) -> None:
    for each in asked:
        if not each.done():
            each.set_exception(CallCancelled("the client left the stream on which it was asked"))


class Sessions:
    """All sessions of the HTTP front, at most a number of them and each with a limited idle time."""

    def __init__(self, gateway: Gateway, tally: Tally, clock: Clock) -> None:
        self._gateway = gateway
        self._tally = tally
        self._clock = clock
        self._kept: KeyStore[OpenSession] = KeyStore()
        self._timer: Timer | None = None

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
            logger.warning("session refused: too many are open", extra={"open": len(self._kept)})
            raise Refused(HttpError.MANY_SESSIONS)
        opened = OpenSession(self._gateway, self._kept.issue(), kind, principal, scope, self._tally, self._clock)
        self._kept.keep(opened.id, opened)
        self._tally.count_sessions(len(self._kept))
        if self._timer is None:
            self._arm()
        return opened

    def find(self, id_: bytes, kind: str, principal: Principal, scope: str) -> OpenSession:
        """The session with that id, if the same principal opened it through the same endpoint.

        Raises:
            Refused: 404. An unknown id and another principal's session look the same.
        """
        opened = self._kept.find(id_.decode("latin-1"))
        if opened is not None:
            session = opened.session
            if session.principal.key == principal.key and session.scope == scope and opened.kind == kind:
                opened.touch()
                return opened
            logger.warning(
                "session refused: it belongs to another principal or endpoint",
                extra={"session": opened.digest[:12], "principal": principal.name, "scope": scope},
            )
        raise Refused(HttpError.UNKNOWN_SESSION)

    def end(self, opened: OpenSession) -> None:
        """End one session."""
        self._kept.forget(opened.id)
        self._tally.count_sessions(len(self._kept))
        opened.end()

    def keep(self, is_kept: Callable[[Session], bool]) -> None:
        """End the sessions for which `is_kept` is false."""
        for opened in [opened for opened in self._kept.all() if not is_kept(opened.session)]:
            self.end(opened)

    def sweep(self) -> None:
        """End the sessions that were idle for too long."""
        for opened in self._kept.all():
            if opened.journals is not None:
                opened.journals.tidy()
        since = self._clock.now() - self._gateway.settings.limits.session_idle
        for opened in [opened for opened in self._kept.all() if opened.is_idle(since)]:
            logger.info("session expired", extra={"session": opened.digest[:12]})
            self.end(opened)

    def drain(self) -> None:
        """Drain every session."""
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
        delay = min(_SWEEP, max(self._gateway.settings.limits.session_idle / 2, _SHORTEST_SWEEP))
        self._timer = self._clock.call_later(delay, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self.sweep()
        if len(self._kept):
            self._arm()
