"""Interaction: passes requests that a server makes during a call to the call's client, in the form of its era.

Theory. A handshake-era server sends a request and waits for the response; a modern one returns `input_required` and is
called again. A handshake-era client can receive requests; a modern one receives only results. So:

    client \\ server   handshake                                   modern
    handshake         relay the request (`on_request`)            ask the client, call again (`ask`)
    modern            park the call, return `input_required`,     pass on: they need no help
                      resume on retry (`on_request`, `resume`)

Owns the parked calls. A parked call is resumed once, by its unguessable `requestState`, within its time; after that it
is cancelled at the backend. The principal, the endpoint and the target must be the same.
"""

import asyncio
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from mcp_manifold import wire
from mcp_manifold.backends.backend import Backend
from mcp_manifold.backends.link.link import Link
from mcp_manifold.backends.link.pending import PendingRequest, ResultCallback
from mcp_manifold.backends.link.server_requests import ServerRequest
from mcp_manifold.clock import Clock, LoopClock, Timer
from mcp_manifold.config import LimitSettings
from mcp_manifold.errors import BackendProtocolError, BackendTimeout, CallCancelled, InvalidParams, RemoteError
from mcp_manifold.model.call import Call, Session
from mcp_manifold.model.key_store import KeyStore
from mcp_manifold.wire import UNSET, Envelope, Payload, ResultView
from mcp_manifold.wire.protocol import INTERNAL_ERROR, METHOD_NOT_FOUND

INTERACTIVE: Final = frozenset({"tools/call", "prompts/get", "resources/read"})
"""Methods whose result may be `input_required` (2026-07-28 basic/patterns/mrtr)."""
MAX_ROUNDS: Final = 10
"""Rounds of input in one call; the clients of the SDKs accept as many."""
UNSAFE_URL: Final = "asked its client to open a URL that is neither https nor on this machine"
STATE_ONLY_WAIT: Final = 0.05
"""Seconds before a call is repeated whose result has a `requestState` but no input requests."""


@dataclass(slots=True, eq=False)
class Parked:
    """A backend request that is still open, while its modern client was answered `input_required`."""

    link: Link
    pending: PendingRequest
    session: Session
    target: tuple[str, str, str]
    requests: dict[str, ServerRequest] = field(default_factory=dict)
    """The open server requests, by their keys in `inputRequests`."""
    state: str = ""
    timer: Timer | None = None


class CallTarget(NamedTuple):
    """The target of a call: method, backend, native name or URI. A retry must have the same target."""

    method: str
    backend: Backend
    native: str

    @property
    def key(self) -> tuple[str, str, str]:
        """The call target's identity, for comparison."""
        return (self.method, self.backend.name, self.native)


@dataclass(frozen=True, slots=True)
class Repeat:
    """A call that is sent again when its client makes it again, after opening the URLs it was given."""

    state: str
    session: Session
    target: tuple[str, str, str]
    until: float

    def is_for(self, session: Session, target: tuple[str, str, str], now: float) -> bool:
        """Whether the principal of that session may repeat the call for `target` now."""
        return _is_of(self.session, session) and self.target == target and now <= self.until


class Bridge:
    """Relays requests of servers to clients, and their answers to servers.

    Args:
        names_server: whether messages to clients of a scope name the server, because the scope has several.
    """

    def __init__(
        self, limits: LimitSettings, *, names_server: Callable[[str], bool], clock: Clock | None = None
    ) -> None:
        self._limits = limits
        self._clock = clock or LoopClock()
        self._names_server = names_server
        self._loop = asyncio.get_running_loop()
        self._parked: KeyStore[Parked] = KeyStore()
        self._by_pending: dict[PendingRequest, Parked] = {}
        self._repeats: KeyStore[Repeat] = KeyStore()
        self._elicitations: dict[tuple[Link, bytes], Session] = {}

    def __repr__(self) -> str:
        return f"<Bridge parked={len(self._parked)}>"

    @property
    def parked(self) -> int:
        """The number of parked calls."""
        return len(self._parked)

    def adapt(self, limits: LimitSettings) -> None:
        """Use other limits for the calls parked from now on."""
        self._limits = limits

    # --- requests of handshake-era servers ------------------------------------------------------------------------

    def on_request(self, request: ServerRequest) -> None:
        """Relay a server request to its client, park its call, or refuse the request. No other client gets it."""
        parked = None if request.pending is None else self._by_pending.get(request.pending)
        session = parked.session if parked is not None else request.session
        if session is None:
            request.fail(_error(METHOD_NOT_FOUND, "Method not found: the client this is for is ambiguous"))
            return
        refused = wire.refusal(request.method, request.params, session.capabilities)
        if refused is not None:
            request.fail(refused)
        elif session.era == "modern":
            self._park(request, session, parked)
        elif session.reach is None:
            request.fail(_error(METHOD_NOT_FOUND, "Method not found: the client cannot receive requests"))
        else:
            self._relay(request, session)

    def elicited(self, link: Link, elicitation: Payload) -> Session | None:
        """The client that was sent this URL elicitation; returned once only. None for an unknown one."""
        return self._elicitations.pop((link, bytes(elicitation)), None)

    def remember_urls(self, exc: RemoteError, link: Link | None, session: Session) -> None:
        """Remember the URL elicitations in an error, to notify the handshake-era client when they are complete."""
        if link is not None:
            for params in wire.required_urls(exc.raw):
                self._remember(link, params, session)

    def ended(self, session: Session) -> None:
        """Forget the URL elicitations of a session that has ended."""
        self._elicitations = {key: each for key, each in self._elicitations.items() if each is not session}

    def _relay(self, request: ServerRequest, session: Session) -> None:
        assert session.reach is not None
        params = request.params
        if self._names_server(session.scope):
            params = wire.signed(request.method, params, request.link.backend)
        call = None if request.pending is None else request.pending.call
        asking = session.reach.ask(request.method, params, call)
        if not asking.done():
            self._remember(request.link, params, session)
        request.when_withdrawn(lambda: _cancel(asking))
        asking.add_done_callback(lambda done: _respond(request, done))

    def _remember(self, link: Link, params: Payload | None, session: Session) -> None:
        found = wire.object_members(params).get("elicitationId")
        if found is not None:
            while len(self._elicitations) >= self._limits.max_parked:
                del self._elicitations[next(iter(self._elicitations))]
            self._elicitations[(link, bytes(found))] = session

    # --- parked calls of modern clients ---------------------------------------------------------------------------

    def _park(self, request: ServerRequest, session: Session, parked: Parked | None) -> None:
        pending = request.pending
        if pending is None or pending.method not in INTERACTIVE:
            request.fail(
                _error(METHOD_NOT_FOUND, "Method not found: a client of this era gets requests only within a call")
            )
            return
        if parked is None:
            if len(self._parked) >= self._limits.max_parked:
                request.fail(_error(INTERNAL_ERROR, "Too many calls are waiting for their clients"))
                return
            target = (pending.method, request.link.backend, _native(pending))
            parked = self._by_pending[pending] = Parked(request.link, pending, session, target)
            self._loop.call_soon(self._send_away, parked)  # after the other messages of the same read
        parked.requests[f"{request.link.backend}-{uuid.uuid4().hex[:8]}"] = request
        request.when_withdrawn(lambda: self._withdrawn(pending))

    def _send_away(self, parked: Parked) -> None:
        """Answer the client with `input_required`; the call then waits for its retry."""
        waiting = {key: each for key, each in parked.requests.items() if each.is_open}
        if not waiting or parked.pending.is_done:
            self._by_pending.pop(parked.pending, None)
            _fail(waiting, "its call has ended")
            return
        parked.requests = waiting
        parked.state = self._parked.issue()
        self._parked.keep(parked.state, parked)
        parked.timer = self._clock.call_later(self._limits.park_time, self._expire, parked)
        signer = parked.target[1] if self._names_server(parked.session.scope) else ""
        requests = {key: _as_input_request(each.method, each.params, signer) for key, each in waiting.items()}
        answer = {"resultType": "input_required", "inputRequests": requests, "requestState": parked.state}
        parked.link.park(parked.pending, Payload(wire.encode(answer)))

    def _withdrawn(self, pending: PendingRequest) -> None:
        """Forget the parked call of a withdrawn server request, if the call has ended."""
        parked = self._by_pending.get(pending)
        if parked is not None and pending.is_done:
            self._drop(parked)

    def _expire(self, parked: Parked) -> None:
        """Cancel a parked call whose client did not return in time."""
        self._drop(parked)
        link = parked.link
        reason = f"its client did not return within {self._limits.park_time:g} s"
        link.abandon(parked.pending, BackendTimeout(link.backend, reason))
        _fail(parked.requests, reason)

    def _drop(self, parked: Parked) -> None:
        self._parked.forget(parked.state)
        self._by_pending.pop(parked.pending, None)
        if parked.timer is not None:
            parked.timer.cancel()

    def find_parked(self, call: Call, target: CallTarget) -> "Parked | Repeat":
        """The parked or repeatable call that a modern client's retry continues. Changes nothing.

        Raises:
            InvalidParams: the state is unknown, used, expired, another principal's, or for another target or endpoint.
        """
        state = wire.text(call.params.get("requestState"), "requestState")
        repeat = self._repeats.find(state)
        if repeat is not None and repeat.is_for(call.session, target.key, self._clock.now()):
            return repeat
        parked = self._parked.find(state)
        if parked is None or not _is_of(parked.session, call.session) or parked.target != target.key:
            raise InvalidParams("Invalid params: the requestState is unknown, was used already, or has expired")
        return parked

    def consume(self, repeat: "Repeat") -> None:
        """Forget the state of a call that was sent again, so that the state cannot be used twice."""
        self._repeats.forget(repeat.state)

    def resume(self, parked: "Parked", call: Call, on_result: ResultCallback) -> PendingRequest:
        """Resume a parked call: send the client's answers to the backend; `on_result` receives the outcome."""
        self._parked.forget(parked.state)
        if parked.timer is not None:
            parked.timer.cancel()
        parked.session = call.session
        given = wire.object_members(call.params.get("inputResponses"))
        waiting = {key: each for key, each in parked.requests.items() if key not in given}
        answered = {key: each for key, each in parked.requests.items() if key in given}
        parked.requests = waiting
        if waiting:
            self._loop.call_soon(self._send_away, parked)
        else:
            self._by_pending.pop(parked.pending, None)
        parked.link.resume(parked.pending, call, on_result)
        for key, each in answered.items():
            each.answer(given[key])
        return parked.pending

    def url_required(self, exc: RemoteError, call: Call, target: CallTarget) -> Payload | None:
        """A handshake-era server's error -32042 (URL elicitation required) as an `input_required` result.

        Returns:
            None if the client supports none of the elicitations, or too many calls are waiting.
        """
        found = wire.required_urls(exc.raw)
        method, session = "elicitation/create", call.session
        if not found or any(wire.refusal(method, params, session.capabilities) is not None for params in found):
            return None
        now = self._clock.now()
        for repeat in self._repeats.all():
            if repeat.until <= now:
                self._repeats.forget(repeat.state)
        if len(self._repeats) >= self._limits.max_parked:
            return None
        state = self._repeats.issue()
        until = now + self._limits.park_time
        self._repeats.keep(state, Repeat(state, session, target.key, until))
        requests = {
            f"url-{number}": _as_input_request(method, params, exc.backend if self._names_server(session.scope) else "")
            for number, params in enumerate(found, start=1)
        }
        return Payload(wire.encode({"resultType": "input_required", "inputRequests": requests, "requestState": state}))

    # --- modern servers, handshake-era clients --------------------------------------------------------------------

    async def ask(self, call: Call, backend: str, wanted: wire.InputRequired) -> dict[str, Payload]:
        """Send the input requests of a modern server to a handshake-era client; returns the params of the next call.

        Raises:
            BackendError: the client does not support them, refused, or did not answer in time.
        """
        again = {key: value for key, value in call.params.items() if key not in ("inputResponses", "requestState")}
        if wanted.requests:
            again["inputResponses"] = Payload(wire.encode(await self._ask_all(call, backend, wanted.requests)))
        else:
            await self._clock.sleep(STATE_ONLY_WAIT)
        if wanted.state is not UNSET:
            again["requestState"] = wanted.state
        return again

    def named(self, call: Call, result: Payload, view: ResultView | None) -> Payload:
        """A modern server's result for a modern client, with the server's name in each input request's text.

        Raises:
            BackendProtocolError: the client must not open the URL of an elicitation in it.
        """
        wanted = wire.input_required(result, view)
        if wanted is None or not wanted.requests:
            return result
        given = ((each.method, None if each.params is UNSET else each.params) for each in wanted.requests.values())
        if any(wire.opens_unsafe_url(method, params) for method, params in given):
            raise BackendProtocolError(call.backend, UNSAFE_URL)
        return wire.signed_requests(result, call.backend) if self._names_server(call.session.scope) else result

    async def _ask_all(self, call: Call, name: str, requests: Mapping[str, wire.InputRequest]) -> dict[str, Payload]:
        session = call.session
        for request in requests.values():
            params = None if request.params is UNSET else request.params
            if wire.opens_unsafe_url(request.method, params):
                raise BackendProtocolError(name, UNSAFE_URL)
            if session.reach is None or wire.refusal(request.method, params, session.capabilities) is not None:
                reason = f"needs {request.method} to continue, which the client does not support"
                raise BackendProtocolError(name, reason)
        asking = {key: self._ask(call, name, request) for key, request in requests.items()}
        try:
            async with self._clock.timeout(self._limits.park_time):
                await asyncio.wait(asking.values())
        except TimeoutError:
            raise BackendTimeout(name, "the client did not answer the server's request in time") from None
        finally:
            _cancel(*asking.values())
        return {key: _given(name, each) for key, each in asking.items()}

    def _ask(self, call: Call, name: str, request: wire.InputRequest) -> "asyncio.Future[Envelope]":
        assert call.session.reach is not None
        params = None if request.params is UNSET else request.params
        if self._names_server(call.session.scope):
            params = wire.signed(request.method, params, name)
        return call.session.reach.ask(request.method, _with_id(params), call)


def _is_of(first: Session, second: Session) -> bool:
    """Whether two requests are of the same principal, at the same endpoint."""
    return (first.principal.key, first.scope) == (second.principal.key, second.scope)


def _given(backend: str, response: "asyncio.Future[Envelope]") -> Payload:
    """The client's result. An error ends the call, because a modern server does not wait for one."""
    if response.cancelled():
        raise CallCancelled("the call was cancelled while it waited for its client")
    envelope = response.result()
    if envelope.result is UNSET:
        raise BackendProtocolError(backend, "requested input from its client, and the client refused")
    return envelope.result


def _cancel(*responses: "asyncio.Future[Envelope]") -> None:
    for each in responses:
        each.cancel()


def _fail(requests: Mapping[str, ServerRequest], reason: str) -> None:
    """Answer server requests that are still open with an error."""
    for request in requests.values():
        request.fail(_error(INTERNAL_ERROR, f"No answer: {reason}"))


def _respond(request: ServerRequest, response: "asyncio.Future[Envelope]") -> None:
    """Send the client's response, or the reason why there is none, to the server."""
    if response.cancelled():
        return
    exc = response.exception()
    if exc is not None:
        request.fail(_error(INTERNAL_ERROR, f"No answer: {exc}"))
        return
    envelope = response.result()
    if envelope.error is not UNSET:
        request.fail(envelope.error)
    else:
        request.answer(wire.EMPTY if envelope.result is UNSET else envelope.result)


def _as_input_request(method: str, params: Payload | None, signer: str) -> dict[str, object]:
    """A server request in the form of 2026-07-28, without `elicitationId` and progress token.

    Args:
        signer: the server's name for the texts; empty for none.
    """
    if params is None:
        return {"method": method}
    found = wire.object_members(wire.signed(method, params, signer) if signer else params)
    found.pop("elicitationId", None)
    if "_meta" in found:
        meta = wire.object_members(found["_meta"])
        meta.pop("progressToken", None)  # the client has no stream to send progress on
        found["_meta"] = Payload(wire.encode(meta))
    return {"method": method, "params": Payload(wire.encode(found))}


def _with_id(params: Payload | None) -> Payload | None:
    """URL elicitation params with the `elicitationId` that 2025-11-25 requires."""
    found = wire.object_members(params)
    if params is None or bytes(found.get("mode", b"")) != b'"url"' or "elicitationId" in found:
        return params
    return Payload(wire.encode({**found, "elicitationId": uuid.uuid4().hex}))


def _native(pending: PendingRequest) -> str:
    key = "uri" if pending.method == "resources/read" else "name"
    return wire.text(pending.params.get(key), key)


def _error(code: int, message: str) -> bytes:
    return wire.encode({"code": code, "message": message})
