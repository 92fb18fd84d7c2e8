"""The short way in: a `tools/call` or list that came as one small request is relayed, or answered, without a task.

Theory of operation. Everything that lets a request in by the long way lets it in here, in the same order, by the same
judges; but nothing is refused here. What is not let in, or cannot be relayed or listed at once, is left as it came,
and goes the long way, which says what is wrong with it. A call that turns out to need a stream gets the stream of the
long way.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from mcp_manifold.core.scope_responder import LISTS
from mcp_manifold.errors import ManifoldError, RequestError
from mcp_manifold.fronts.gateway import Gateway
from mcp_manifold.fronts.http.lists import LIST, Listed, listed, listed_in, unheard
from mcp_manifold.fronts.http.responder import Responder, silence
from mcp_manifold.fronts.http.stream import KEEP_ALIVE, Tally
from mcp_manifold.fronts.http.validation import RequestValidator
from mcp_manifold.fronts.in_flight import Flight, concluded
from mcp_manifold.fronts.inbound import (
    METHOD_HEADER,
    MODERN_HEADER,
    NAME_HEADER,
    VERSION_HEADER,
    admit,
    log_level,
    serves_handshake,
    speaks_modern,
)
from mcp_manifold.fronts.server import BULKY, Head, Reply
from mcp_manifold.fronts.sessions import OpenSession, Sessions
from mcp_manifold.model.call import Call, Session
from mcp_manifold.model.policy import ANONYMOUS, Principal
from mcp_manifold.wire import (
    MODERN_VERSION,
    NULL_ID,
    UNSET,
    Envelope,
    Payload,
    members_of,
    parse,
    response_pieces,
    text,
)

logger = logging.getLogger(__name__)

_METHOD: Final = b'"tools/call"'
_LOOK: Final = 0.25
"""Seconds between two looks at which calls are silent for too long."""
_SESSION_HEADER: Final = b"mcp-session-id"


class ClientContext:
    """The `_meta`, and the name, of a 2026-07-28 request that say what its head says, and what they say of the client.

    Raises:
        RequestError: they do not (see `inbound.admit`).
    """

    __slots__ = ("_capabilities", "_info", "_level", "_meta", "_method", "_name", "tool")

    def __init__(self, method: str, params: dict[str, Payload], head: Head) -> None:
        info, capabilities = admit(method, params, head.headers)
        self._method = method
        self._level = log_level(params)
        self.tool = text(params.get("name"), "name") if method == "tools/call" else ""
        self._meta, self._name = bytes(params["_meta"]), bytes(params.get("name", NULL_ID))
        # copies: what is kept for the next request must not keep all of this one
        self._info, self._capabilities = Payload(bytes(info)), Payload(bytes(capabilities))

    def __repr__(self) -> str:
        return f"<ClientContext {self._method}>"

    def session(self, principal: Principal, scope: str) -> Session:
        """The session of one such request."""
        return Session("", principal, scope, MODERN_VERSION, self._info, self._capabilities, log_level=self._level)

    def holds(self, method: str, params: dict[str, Payload]) -> bool:
        """Whether another request says the same, byte for byte."""
        return (
            method == self._method
            and bytes(params.get("_meta", NULL_ID)) == self._meta
            and bytes(params.get("name", NULL_ID)) == self._name
        )


class AdmissionDecision:
    """What was thought of a request's head, by the judges then in force: for whom it is let in, in which session."""

    __slots__ = ("_validator", "agreed", "is_in", "opened", "principal", "scope")

    def __init__(
        self,
        validator: RequestValidator,
        principal: Principal = ANONYMOUS,
        scope: str = "",
        opened: OpenSession | None = None,
        *,
        is_in: bool = False,
    ) -> None:
        self._validator = validator
        self.principal = principal
        self.scope = scope
        self.opened = opened
        self.is_in = is_in
        self.agreed: ClientContext | None = None
        """What last came with that head in 2026-07-28, and said the same."""

    def __repr__(self) -> str:
        return f"<AdmissionDecision {'in' if self.is_in else 'not in'} scope={self.scope!r}>"

    def holds(self, validator: RequestValidator) -> bool:
        """Whether it would be the same now."""
        return self._validator is validator and (self.opened is None or not self.opened.ended)


class Shortcut:
    """See the module. Owns the calls that are in flight by the short way."""

    __slots__ = ("_flying", "_gateway", "_landed", "_loop", "_sessions", "_timer", "tally", "validator")

    validator: RequestValidator
    """Who lets requests in; set before the first comes."""

    def __init__(self, gateway: Gateway, sessions: Sessions, tally: Tally, landed: Callable[[], None]) -> None:
        self.tally = tally
        self._gateway = gateway
        self._sessions = sessions
        self._landed = landed
        self._flying: dict[Passage, float] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<Shortcut {len(self._flying)} in flight>"

    def take(self, head: Head, body: bytes, reply: Reply) -> "Passage | Listed | None":
        """Relay the call a request is, or give the list it asks for; None, and nothing has happened, if not at once."""
        if (body.find(_METHOD) < 0 and LIST not in body) or len(body) > self.validator.max_body:
            return None
        verdict = head.verdict
        if not isinstance(verdict, AdmissionDecision) or not verdict.holds(self.validator):
            head.verdict = verdict = self._judge(head)
        if not verdict.is_in:
            return None
        try:
            envelope = parse(body)
            if envelope.method != "tools/call" or envelope.id is UNSET:
                answer = self._listed(head, verdict, envelope, reply)
                self.tally.bytes_in += 0 if answer is None else len(body)
                return answer
            params = members_of(envelope)
            passage = self._passage(head, verdict, envelope.id, params, reply)
            if passage is None or not self._begins(passage):
                return None
        except RequestError:  # an id that is in use, for one
            return None
        self.tally.bytes_in += len(body)
        return passage

    def _judge(self, head: Head) -> AdmissionDecision:
        """Whether a request with that head is let in, and for whom."""
        validator = self.validator
        admitted = validator.admit(head)
        if admitted is None or not self._gateway.has_scope(admitted[1]):
            return AdmissionDecision(validator)
        principal, scope = admitted
        headers = head.headers
        version = headers.get(VERSION_HEADER)
        if version == MODERN_HEADER:
            return AdmissionDecision(validator, principal, scope, is_in=True)
        named = headers.get(_SESSION_HEADER)
        if named is None or METHOD_HEADER in headers or NAME_HEADER in headers or not serves_handshake(version):
            return AdmissionDecision(validator)
        opened = self._sessions.of(named, "mcp", principal, scope)
        return AdmissionDecision(validator, principal, scope, opened, is_in=opened is not None)

    def _passage(
        self, head: Head, verdict: AdmissionDecision, id_: Payload, params: dict[str, Payload], reply: Reply
    ) -> "Passage | None":
        """Raises RequestError where the long way would, and for what it knows better."""
        opened = verdict.opened
        if opened is not None:
            if "_meta" in params and speaks_modern("tools/call", params, head.headers.get(VERSION_HEADER)):
                return None
            return Passage(self, Call("tools/call", params, opened.session, unheard, id=id_), id_, opened, reply)
        agreed = _agreed(verdict, "tools/call", params, head)
        if self._gateway.input_schema(verdict.scope, agreed.tool) is not None:
            return None
        session = agreed.session(verdict.principal, verdict.scope)
        return Passage(self, Call("tools/call", params, session, unheard, id=id_), id_, None, reply)

    def _begins(self, passage: "Passage") -> bool:
        """Whether a call is on its way now; raises RequestError as `Passage.depart`."""
        passage.depart(self.validator.max_calls)
        try:
            if not self._gateway.relay(passage.call, passage.over):
                passage.turn_back()
                return False
        except ManifoldError as exc:  # a stage refuses it: it is answered in a moment, since it has not begun yet
            asyncio.get_running_loop().call_soon(passage.over, None, exc)
        loop = self._loop = self._loop or asyncio.get_running_loop()  # asking for it is a system call
        self._flying[passage] = loop.time()
        if self._timer is None:
            self._timer = loop.call_later(_LOOK, self._look)
        return True

    def _listed(self, head: Head, verdict: AdmissionDecision, envelope: Envelope, reply: Reply) -> Listed | None:
        """The answer to a request for a list; None for what is none, or has to be waited for.

        Raises:
            RequestError: where the long way does.
        """
        method, opened = envelope.method, verdict.opened
        if method not in LISTS or envelope.id is UNSET:
            return None
        params = members_of(envelope)
        if opened is None:
            session = _agreed(verdict, method, params, head).session(verdict.principal, verdict.scope)
        elif "_meta" in params and speaks_modern(method, params, head.headers.get(VERSION_HEADER)):
            return None
        else:
            session = opened.session
        flight, id_ = Flight(Call(method, params, session, unheard, id=envelope.id), None), envelope.id
        found = listed(self._gateway, flight, id_) if opened is None else listed_in(opened, self._gateway, flight, id_)
        return None if found is None else Listed(*found, reply, self.tally, self._landed).begin()

    def landed(self, passage: "Passage") -> None:
        """A call is over."""
        self._flying.pop(passage, None)
        self._landed()

    def _look(self) -> None:
        """Give the clients of silent calls a stream, on which keep-alives and resumption work."""
        self._timer = None
        loop = asyncio.get_running_loop()
        now = loop.time()
        for passage, begun in list(self._flying.items()):
            if now - begun >= passage.silence:
                del self._flying[passage]
                passage.commit()
        if self._flying:
            self._timer = loop.call_later(_LOOK, self._look)


class Passage(Flight):
    """One call on the short way: in flight from its request to its answer."""

    __slots__ = ("_id", "_key", "_opened", "_reply", "_shortcut", "_stream")

    def __init__(self, shortcut: Shortcut, call: Call, id_: Payload, opened: OpenSession | None, reply: Reply) -> None:
        super().__init__(call, None)
        self._shortcut = shortcut
        self._opened = opened
        self._id = id_
        self._reply = reply
        self._stream: Responder | None = None
        self._key = b""
        call.emit, call.commit = self.emit, self.commit

    def __repr__(self) -> str:
        return f"<Passage {super().__repr__()}{' streaming' if self._stream else ''}>"

    @property
    def silence(self) -> float:
        """Seconds without a word after which the client is to have a stream."""
        return KEEP_ALIVE if self._opened is None else silence(self._opened.journals)

    # --- in flight ----------------------------------------------------------------------------------------------------

    def depart(self, limit: int) -> None:
        """Be in flight in its session.

        Raises:
            RequestError: as `OpenSession.depart`.
        """
        try:
            if self._opened is not None:
                self._key = self._opened.depart(self._id, self, limit)
        except RequestError:
            self._let_go()
            raise

    def turn_back(self) -> None:
        """It is no longer in flight, or never was."""
        if self._opened is not None:
            self._opened.land(self._key)
        self._let_go()

    def emit(self, message: bytes, /, *, needed: bool = False) -> None:
        """Send a message ahead of the answer; see `call.Emit`."""
        self._streaming().emit(message, needed=needed)

    def commit(self) -> None:
        """Switch to an event stream."""
        self._streaming().commit()

    def left(self) -> None:
        """The client is gone, and there was no stream yet."""
        if self._opened is None:
            self.take_back()  # in 2026-07-28 leaving is cancelling
        else:
            self._opened.desert(self.call, None)

    def _streaming(self) -> Responder:
        if self._stream is None:
            opened, call = self._opened, self.call
            receive, send = self._reply.lengthen()
            self._stream = stream = Responder(send, self._shortcut.tally, None if opened is None else opened.journals)
            if opened is None:
                stream.open(receive, self.take_back)
            else:
                stream.open(receive, lambda: opened.desert(call, stream.journal))
        return self._stream

    # --- over ---------------------------------------------------------------------------------------------------------

    def over(self, result: Payload | None, reason: Exception | None) -> None:
        """It has a result, or a reason why not: answer it. The front's boundary: nothing is raised into the backend."""
        try:
            if self._stream is not None:
                self._reply.own(self._finish(self._stream, result, reason))
                return
            if result is not None and len(result) > BULKY and not self.call.cancelled:
                self._share(result)
            else:
                message, status = self._land(result, reason)
                self._shortcut.tally.bytes_out += len(message)
                self._reply.respond(status, message)
        except Exception:
            logger.exception("answer failed unexpectedly")
            self._reply.drop()
        self._shortcut.landed(self)

    def _share(self, result: Payload) -> None:
        """Answer with a bulky result, which is written as it is held: a copy of it takes longer than the rest."""
        self.turn_back()
        self.land()
        pieces = response_pieces(self._id, (memoryview(result),))
        self._shortcut.tally.bytes_out += sum(map(len, pieces))
        self._reply.share(pieces, counts=True)

    async def _finish(self, stream: Responder, result: Payload | None, reason: Exception | None) -> None:
        """In a task: what else happened in this turn, a question taken back say, goes out before the answer."""
        try:
            await stream.finish(*self._land(result, reason))
        finally:
            stream.close()
            self._shortcut.landed(self)

    def _land(self, result: Payload | None, reason: Exception | None) -> tuple[bytes, int]:
        self.turn_back()
        return concluded(self, self._id, result, reason)

    def _let_go(self) -> None:
        """Of what leads back here."""
        call = self.call
        call.emit, call.commit = unheard, _nothing


def _agreed(verdict: AdmissionDecision, method: str, params: dict[str, Payload], head: Head) -> ClientContext:
    """The client a request describes, checked against its head; raises as `ClientContext`."""
    agreed = verdict.agreed
    if agreed is None or not agreed.holds(method, params):
        agreed = verdict.agreed = ClientContext(method, params, head)
    return agreed


def _nothing() -> None:
    """What comes of committing then."""
