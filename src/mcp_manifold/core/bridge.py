"""Interaction: what a server asks in the middle of a call reaches the client whose call it is, in that client's era.

Theory. A handshake-era server sends a request and waits; a modern one returns `input_required` and is called again. A
handshake-era client can be sent a request; a modern one can only be answered. So:

    client \\ server   handshake                               modern
    handshake         relay the request (`asked`)             ask, then call again (`ask`)
    modern            park the call, answer `input_required`, the client and the server do it alone
                      go on when it comes back (`asked`, `resume`)

Owns the parked calls. A parked call is found by an unguessable `requestState`, by its own principal, for the same
target, once, and until its time is over; then the backend is told that the call is cancelled.
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
"""Times one call may ask for input: as many as the clients of the SDKs accept."""
STATE_ONLY_WAIT: Final = 0.05
"""Seconds before a call is repeated that gave a state and asked for nothing."""


@dataclass(slots=True, eq=False)
class Parked:
    """A backend's call whose modern client was sent away for input."""

    link: Link
    pending: PendingRequest
    session: Session
    target: tuple[str, str, str]
    questions: dict[str, ServerRequest] = field(default_factory=dict)
    state: str = ""
    timer: Timer | None = None


class CallTarget(NamedTuple):
    """What a call is for: method, backend, native name or URI. A retry must be for the same."""

    method: str
    backend: Backend
    native: str

    @property
    def key(self) -> tuple[str, str, str]:
        """Its identity."""
        return (self.method, self.backend.name, self.native)


@dataclass(frozen=True, slots=True)
class Repeat:
    """A call that is simply to be made again, once its client did what it was asked."""

    state: str
    principal: str
    target: tuple[str, str, str]
    until: float

    def is_for(self, principal: str, target: tuple[str, str, str], now: float) -> bool:
        """Whether it may be used by that principal, for that target, now."""
        return (self.principal, self.target) == (principal, target) and now <= self.until


class Bridge:
    """See the module. `names_server` tells whether a scope has several servers, so that the asking one is named."""

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
        """How many calls wait for their client to come back with input."""
        return len(self._parked)

    def adapt(self, limits: LimitSettings) -> None:
        """Other limits hold for what is parked from now on."""
        self._limits = limits

    # --- a handshake-era server asks --------------------------------------------------------------------------------

    def asked(self, question: ServerRequest) -> None:
        """Take a server's request to the client it is for, or refuse it; never to somebody else."""
        parked = None if question.pending is None else self._by_pending.get(question.pending)
        session = parked.session if parked is not None else question.session
        if session is None:
            question.fail(_error(METHOD_NOT_FOUND, "Method not found: it cannot be told which client this is for"))
            return
        refused = wire.refusal(question.method, question.params, session.capabilities)
        if refused is not None:
            question.fail(refused)
        elif session.era == "modern":
            self._park(question, session, parked)
        elif session.reach is None:
            question.fail(_error(METHOD_NOT_FOUND, "Method not found: the client cannot be asked anything"))
        else:
            self._relay(question, session)

    def completed(self, link: Link, elicitation: Payload) -> Session | None:
        """The client that was sent this URL elicitation, once: it is told that it is complete."""
        return self._elicitations.pop((link, bytes(elicitation)), None)

    def sent_off(self, exc: RemoteError, link: Link | None, session: Session) -> None:
        """A handshake-era client is told by an error to visit pages: it is to hear when it is done there."""
        if link is not None:
            for params in wire.required_urls(exc.raw):
                self._remember(link, params, session)

    def ended(self, session: Session) -> None:
        """A client's session is over: it need not be told that anything is complete."""
        self._elicitations = {key: each for key, each in self._elicitations.items() if each is not session}

    def _relay(self, question: ServerRequest, session: Session) -> None:
        assert session.reach is not None
        params = question.params
        if self._names_server(session.scope):
            params = wire.signed(question.method, params, question.link.backend)
        call = None if question.pending is None else question.pending.call
        asking = session.reach.ask(question.method, params, call)
        if not asking.done():
            self._remember(question.link, params, session)
        question.on_withdrawn = lambda: _cancel(asking)
        asking.add_done_callback(lambda done: _hand_over(question, done))

    def _remember(self, link: Link, params: Payload | None, session: Session) -> None:
        found = wire.object_members(params).get("elicitationId")
        if found is not None:
            while len(self._elicitations) >= self._limits.max_parked:
                del self._elicitations[next(iter(self._elicitations))]
            self._elicitations[(link, bytes(found))] = session

    # --- ... on behalf of a modern client ---------------------------------------------------------------------------

    def _park(self, question: ServerRequest, session: Session, parked: Parked | None) -> None:
        pending = question.pending
        if pending is None or pending.method not in INTERACTIVE:
            question.fail(
                _error(METHOD_NOT_FOUND, "Method not found: a client of this era is only asked within a call")
            )
            return
        if parked is None:
            if len(self._parked) >= self._limits.max_parked:
                question.fail(_error(INTERNAL_ERROR, "Too many calls are waiting for their clients"))
                return
            target = (pending.method, question.link.backend, _native(pending))
            parked = self._by_pending[pending] = Parked(question.link, pending, session, target)
            self._loop.call_soon(self._send_away, parked)  # after what else came in the same breath
        parked.questions[f"{question.link.backend}-{uuid.uuid4().hex[:8]}"] = question
        question.on_withdrawn = lambda: self._withdrawn(pending)

    def _send_away(self, parked: Parked) -> None:
        """Answer the client that input is required; the call now waits for it to come back."""
        asked = {key: question for key, question in parked.questions.items() if question.is_open}
        if not asked or parked.pending.is_done:
            self._by_pending.pop(parked.pending, None)
            _fail(asked, "the call it came with is over")
            return
        parked.questions = asked
        parked.state = self._parked.issue()
        self._parked.keep(parked.state, parked)
        parked.timer = self._clock.call_later(self._limits.park_time, self._expire, parked)
        signer = parked.target[1] if self._names_server(parked.session.scope) else ""
        requests = {key: _as_input_request(each.method, each.params, signer) for key, each in asked.items()}
        answer = {"resultType": "input_required", "inputRequests": requests, "requestState": parked.state}
        parked.link.park(parked.pending, Payload(wire.encode(answer)))

    def _withdrawn(self, pending: PendingRequest) -> None:
        """The backend, or the end of its link, took a question back: with the last one the parking is over."""
        parked = self._by_pending.get(pending)
        if parked is not None and pending.is_done:
            self._drop(parked)

    def _expire(self, parked: Parked) -> None:
        """The client never came back."""
        self._drop(parked)
        link = parked.link
        reason = f"its client did not come back within {self._limits.park_time:g} s"
        link.abandon(parked.pending, BackendTimeout(link.backend, reason))
        _fail(parked.questions, reason)

    def _drop(self, parked: Parked) -> None:
        self._parked.forget(parked.state)
        self._by_pending.pop(parked.pending, None)
        if parked.timer is not None:
            parked.timer.cancel()

    def find_parked(self, call: Call, target: CallTarget) -> "Parked | Repeat":
        """What a modern client that came back continues; nothing is changed yet.

        Raises:
            InvalidParams: the state is unknown, used, expired, another principal's, or for another target.
        """
        state = wire.text(call.params.get("requestState"), "requestState")
        principal = call.session.principal.key
        repeat = self._repeats.find(state)
        if repeat is not None and repeat.is_for(principal, target.key, self._clock.now()):
            return repeat
        parked = self._parked.find(state)
        if parked is None or parked.session.principal.key != principal or parked.target != target.key:
            raise InvalidParams("Invalid params: the requestState is unknown, was used already, or has expired")
        return parked

    def consume(self, repeat: "Repeat") -> None:
        """The call is made again: its state cannot be used a second time."""
        self._repeats.forget(repeat.state)

    def resume(self, parked: "Parked", call: Call, on_result: ResultCallback) -> PendingRequest:
        """Continue a parked call: hand the client's answers to the backend; `on_result` receives the outcome."""
        self._parked.forget(parked.state)
        if parked.timer is not None:
            parked.timer.cancel()
        parked.session = call.session
        given = wire.object_members(call.params.get("inputResponses"))
        waiting = {key: question for key, question in parked.questions.items() if key not in given}
        answered = {key: question for key, question in parked.questions.items() if key in given}
        parked.questions = waiting
        if waiting:
            self._loop.call_soon(self._send_away, parked)
        else:
            self._by_pending.pop(parked.pending, None)
        parked.link.resume(parked.pending, call, on_result)
        for key, question in answered.items():
            question.answer(given[key])
        return parked.pending

    def url_required(self, exc: RemoteError, call: Call, target: CallTarget) -> Payload | None:
        """A handshake-era server's "URL elicitation required" (-32042), which modern revisions do not have, as the
        `input_required` they have instead; None if it says nothing that can be asked.
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
        self._repeats.keep(state, Repeat(state, session.principal.key, target.key, until))
        requests = {
            f"url-{number}": _as_input_request(method, params, exc.backend if self._names_server(session.scope) else "")
            for number, params in enumerate(found, start=1)
        }
        return Payload(wire.encode({"resultType": "input_required", "inputRequests": requests, "requestState": state}))

    # --- a modern server asks a handshake-era client ------------------------------------------------------------------

    async def ask(self, call: Call, backend: str, wanted: wire.InputRequired) -> dict[str, Payload]:
        """Ask the client what a modern server's `input_required` wants to know; returns the params to call again with.

        Raises:
            BackendError: the client cannot be asked that, refused, or did not answer in time.
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
        """What a modern server asks a modern client, with the server named where a person reads it."""
        if not self._names_server(call.session.scope):
            return result
        wanted = wire.input_required(result, view)
        if wanted is None:
            return result
        return wire.signed_requests(result, call.backend) if wanted.requests else result

    async def _ask_all(self, call: Call, name: str, requests: Mapping[str, wire.InputRequest]) -> dict[str, Payload]:
        session = call.session
        for request in requests.values():
            params = None if request.params is UNSET else request.params
            if session.reach is None or wire.refusal(request.method, params, session.capabilities) is not None:
                reason = f"needs {request.method} to go on, which this client cannot be asked"
                raise BackendProtocolError(name, reason)
        asking = {key: self._ask(call, name, request) for key, request in requests.items()}
        try:
            async with self._clock.timeout(self._limits.park_time):
                await asyncio.wait(asking.values())
        except TimeoutError:
            raise BackendTimeout(name, "the client did not answer what the server asked in time") from None
        finally:
            _cancel(*asking.values())
        return {key: _given(name, each) for key, each in asking.items()}

    def _ask(self, call: Call, name: str, request: wire.InputRequest) -> "asyncio.Future[Envelope]":
        assert call.session.reach is not None
        params = None if request.params is UNSET else request.params
        if self._names_server(call.session.scope):
            params = wire.signed(request.method, params, name)
        return call.session.reach.ask(request.method, _with_id(params), call)


def _given(backend: str, asked: "asyncio.Future[Envelope]") -> Payload:
    """What the client answered; anything but a result ends the call, since a modern server is not waiting for it."""
    if asked.cancelled():
        raise CallCancelled("the call was cancelled while its client was asked")
    envelope = asked.result()
    if envelope.result is UNSET:
        raise BackendProtocolError(backend, "asked its client for input, and the client refused")
    return envelope.result


def _cancel(*asked: "asyncio.Future[Envelope]") -> None:
    for each in asked:
        each.cancel()


def _fail(questions: Mapping[str, ServerRequest], reason: str) -> None:
    """Answer the questions that are still open, which outlive their call, with an error."""
    for question in questions.values():
        question.fail(_error(INTERNAL_ERROR, f"No answer: {reason}"))


def _hand_over(question: ServerRequest, asked: "asyncio.Future[Envelope]") -> None:
    """The client's answer, or the reason why there is none, to the server that asked."""
    if asked.cancelled():
        return
    exc = asked.exception()
    if exc is not None:
        question.fail(_error(INTERNAL_ERROR, f"No answer: {exc}"))
        return
    envelope = asked.result()
    if envelope.error is not UNSET:
        question.fail(envelope.error)
    else:
        question.answer(wire.EMPTY if envelope.result is UNSET else envelope.result)


def _as_input_request(method: str, params: Payload | None, signer: str) -> dict[str, object]:
    """A question as 2026-07-28 has it: no `elicitationId`, no progress token; `signer` is who asks, if that is told."""
    if params is None:
        return {"method": method}
    found = wire.object_members(wire.signed(method, params, signer) if signer else params)
    found.pop("elicitationId", None)
    if "_meta" in found:
        meta = wire.object_members(found["_meta"])
        meta.pop("progressToken", None)  # there is nothing to send progress on
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
