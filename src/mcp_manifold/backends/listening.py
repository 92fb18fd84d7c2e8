"""What a link's backend is asked to report of its own accord: changes of resources, and of lists. One class per era.

Theory. Both classes are told which URIs are wanted and keep the backend's knowledge in step with that, one request at a
time, so that subscribing and unsubscribing never overtake one another. A handshake-era backend is asked URI by URI. A
2026-07-28 backend is asked by one `subscriptions/listen`, which cannot be changed: another one is opened, and the old
one closed once the new one is acknowledged. Knows no client.
"""

import asyncio
import logging
from dataclasses import dataclass, field
from typing import Final, Protocol

from mcp_manifold import wire
from mcp_manifold.backends.link import Link
from mcp_manifold.backends.pending import Pending
from mcp_manifold.errors import BackendError, BackendLost, BackendTimeout, InvalidParams, RemoteError
from mcp_manifold.wire import Payload
from mcp_manifold.wire.protocol import META_SUBSCRIPTION, METHOD_NOT_FOUND

logger = logging.getLogger(__name__)

RETRY_FIRST: Final = 1.0
RETRY_CEILING: Final = 30.0
"""Seconds between two attempts to listen; a stream that lived longer than this begins anew with the first."""
START_WAIT: Final = 2.0
"""Seconds a link that opened waits for its subscriptions before it is used; what takes longer is made up for."""
ACK_WAIT: Final = 10.0
"""Seconds a backend may take to acknowledge; one that never does would leave every later wish waiting."""
UPDATED: Final = "notifications/resources/updated"
_NONE: Final = Payload(b"[]")
_LISTS: Final = {"tools": "toolsListChanged", "prompts": "promptsListChanged", "resources": "resourcesListChanged"}

Outcome = asyncio.Future[None]


class Reports(Protocol):
    """What a backend reports over one link."""

    def want(self, uri: str) -> Outcome:
        """Ask for reports on a URI; done when the backend agreed, fails with why it did not."""
        ...

    def drop(self, uri: str) -> None:
        """Nobody wants reports on that URI any more."""
        ...

    def is_due(self, params: dict[str, Payload]) -> bool:
        """Whether a report belongs to what is asked for now."""
        ...


def offers_subscriptions(link: Link) -> bool:
    """Whether the backend reports changes of single resources."""
    resources = wire.client_meta(link.capabilities).get("resources")
    return bytes(wire.client_meta(resources).get("subscribe", b"")) == b"true"


# --- the handshake era ------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Wish:
    """One URI: what is wanted, what the backend was told, who waits to hear that these agree."""

    wanted: bool = False
    told: bool = False
    is_busy: bool = False
    waiting: list[Outcome] = field(default_factory=list)


class Subscribing:
    """`resources/subscribe` and `resources/unsubscribe` over one link."""

    def __init__(self, link: Link, *, timeout: float) -> None:
        self._link = link
        self._timeout = timeout
        self._wishes: dict[str, _Wish] = {}

    def __repr__(self) -> str:
        return f"<Subscribing {self._link.backend} uris={len(self._wishes)}>"

    def want(self, uri: str) -> Outcome:
        """See `Reports`."""
        wish = self._wishes.setdefault(uri, _Wish())
        wish.wanted = True
        outcome = _outcome()
        wish.waiting.append(outcome)
        self._advance(uri, wish)
        return outcome

    def drop(self, uri: str) -> None:
        """See `Reports`."""
        wish = self._wishes.get(uri)
        if wish is not None:
            wish.wanted = False
            self._advance(uri, wish)

    def is_due(self, params: dict[str, Payload]) -> bool:
        """See `Reports`."""
        return True

    def _advance(self, uri: str, wish: _Wish) -> None:
        if wish.is_busy:
            return
        if wish.wanted == wish.told:
            _settle(wish.waiting)
            if not wish.wanted:
                self._wishes.pop(uri, None)
            return
        subscribing = wish.wanted
        method = "resources/subscribe" if subscribing else "resources/unsubscribe"
        wish.is_busy = True
        try:
            pending = self._link.begin(method, {"uri": Payload(wire.encode(uri))}, timeout=self._timeout)
        except BackendError as exc:
            self._answered(uri, wish, subscribing, exc)
        else:
            pending.future.add_done_callback(lambda done: self._answered(uri, wish, subscribing, done.exception()))

    def _answered(self, uri: str, wish: _Wish, subscribing: bool, exc: BaseException | None) -> None:
        wish.is_busy = False
        if exc is not None and subscribing:
            wish.wanted = False
            _settle(wish.waiting, exc)
        else:
            wish.told = subscribing  # an unsubscribe that failed is as good as one: whatever still comes goes nowhere
        self._advance(uri, wish)


# --- 2026-07-28 -------------------------------------------------------------------------------------------------------


@dataclass(slots=True, eq=False)
class _Stream:
    """One `subscriptions/listen` of ours, on its way or acknowledged."""

    pending: Pending
    uris: frozenset[str]
    since: float
    timer: asyncio.TimerHandle | None = None


class Listening:
    """`subscriptions/listen` over one link: one stream at a time, and again after its loss.

    Args:
        lists: whether changes of lists are asked for as well, as far as the backend declares them.
    """

    def __init__(self, link: Link, *, lists: bool) -> None:
        self._link = link
        self._lists = _declared_lists(link) if lists else {}
        self._loop = asyncio.get_running_loop()
        self._born = self._loop.time()
        self._wanted: dict[str, list[Outcome]] = {}
        self._opening: _Stream | None = None
        self._current: _Stream | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._turning = False
        self._failures = 0
        self._missed = False
        self._refused = False
        self._ready: list[Outcome] = []

    def __repr__(self) -> str:
        state = "refused" if self._refused else "opening" if self._opening else "open" if self._current else "closed"
        return f"<Listening {self._link.backend} {state} uris={len(self._wanted)}>"

    def start(self) -> Outcome:
        """Begin; done when the backend listens, or when it is clear that it does not."""
        outcome = _outcome()
        if self._lists or self._wanted:
            self._ready.append(outcome)
            self._turn_soon()
        else:
            outcome.set_result(None)
        return outcome

    def want(self, uri: str) -> Outcome:
        """See `Reports`."""
        outcome = _outcome()
        self._wanted.setdefault(uri, []).append(outcome)
        self._turn_soon()
        return outcome

    def drop(self, uri: str) -> None:
        """See `Reports`."""
        _settle(self._wanted.pop(uri, []))
        if self._timer is None:
            self._turn_soon()

    def is_due(self, params: dict[str, Payload]) -> bool:
        """See `Reports`: what an older stream still brings, the current one brings as well."""
        tag = wire.client_meta(params.get("_meta")).get(META_SUBSCRIPTION)
        return tag is None or (self._current is not None and _is_number(tag, self._current.pending.number))

    def acknowledged(self, params: dict[str, Payload]) -> None:
        """The backend's `notifications/subscriptions/acknowledged`: the newest stream is the one from now on."""
        tag = wire.client_meta(params.get("_meta")).get(META_SUBSCRIPTION)
        stream = self._opening
        if stream is None or (tag is not None and not _is_number(tag, stream.pending.number)):
            return
        old, self._current, self._opening = self._current, stream, None
        _stop(stream)
        if old is not None:
            self._link.abandon(old.pending, None)
        self._answer(stream, wire.client_meta(params.get("notifications")))
        is_late = bool(self._ready) and self._loop.time() - self._born > START_WAIT
        missed, self._missed = self._missed or is_late, False
        if missed:
            self._make_up()
        _settle(self._ready)
        self._turn_soon()

    def _answer(self, stream: _Stream, granted: dict[str, Payload]) -> None:
        try:
            honoured = wire.texts(granted.get("resourceSubscriptions", _NONE), "resourceSubscriptions")
        except InvalidParams:
            honoured = []
        for uri in stream.uris & self._wanted.keys():
            refused = InvalidParams(f"Invalid params: the server does not report changes of {uri}")
            _settle(self._wanted[uri], None if uri in honoured else refused)

    def _make_up(self) -> None:
        """Whatever may have changed while nobody listened counts as changed: told again, it is read again."""
        for kind in self._lists:
            self._link.fed(wire.notification(f"notifications/{kind}/list_changed"))
        for uri in list(self._wanted):
            self._link.fed(wire.notification(UPDATED, wire.encode({"uri": uri})))

    # --- one stream after the other -----------------------------------------------------------------------------------

    def _turn_soon(self) -> None:
        """Look at what is to be done, once for all that is wished for at the same time."""
        if not self._turning:
            self._turning = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._turning = False
        if self._opening is not None:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        uris = frozenset(self._wanted)
        if self._refused or self._link.ended.done():
            self._fail(uris, BackendLost(self._link.backend, "it reports nothing over this connection"))
        elif not uris and not self._lists:
            self._close()
        elif self._current is None or self._current.uris != uris:
            self._open(uris)
        elif any(self._wanted.values()):
            for outcomes in self._wanted.values():
                _settle(outcomes)

    def _open(self, uris: frozenset[str]) -> None:
        wanted: dict[str, object] = dict.fromkeys(self._lists.values(), True)
        if uris:
            wanted["resourceSubscriptions"] = sorted(uris)
        try:
            pending = self._link.begin("subscriptions/listen", {"notifications": Payload(wire.encode(wanted))})
        except BackendError as exc:
            self._fail(uris, exc)
            self._retry()
            return
        self._opening = stream = _Stream(pending, uris, self._loop.time())
        stream.timer = self._loop.call_later(ACK_WAIT, self._unacknowledged, stream)
        pending.future.add_done_callback(lambda done: self._over(stream, done.exception()))

    def _unacknowledged(self, stream: _Stream) -> None:
        self._link.abandon(stream.pending, None)
        self._over(stream, BackendTimeout(self._link.backend, f"did not acknowledge within {ACK_WAIT:g} s"))

    def _over(self, stream: _Stream, exc: BaseException | None) -> None:
        """A stream ended that was not closed by us."""
        _stop(stream)
        if stream is self._opening:
            self._opening = None
            self._refused = isinstance(exc, RemoteError) and exc.code == METHOD_NOT_FOUND
            self._fail(stream.uris, exc or BackendLost(self._link.backend, "it ended the subscription at once"))
        elif stream is self._current:
            self._current = None
            self._missed = True
        else:
            return
        if self._loop.time() - stream.since > RETRY_CEILING:
            self._failures = 0
        if not self._refused and not self._link.ended.done():
            logger.debug("subscription ended: %s", exc or "by the server", extra={"backend": self._link.backend})
            self._retry()

    def _fail(self, uris: frozenset[str], exc: BaseException) -> None:
        self._missed = True
        for uri in uris & self._wanted.keys():
            _settle(self._wanted[uri], exc)
        _settle(self._ready)

    def _retry(self) -> None:
        delay = min(RETRY_CEILING, RETRY_FIRST * 2 ** min(self._failures, 8))
        self._failures += 1
        if self._timer is None:
            self._timer = self._loop.call_later(delay, self._turn)

    def _close(self) -> None:
        current, self._current = self._current, None
        if current is not None:
            self._link.abandon(current.pending, None)


def _declared_lists(link: Link) -> dict[str, str]:
    declared = wire.client_meta(link.capabilities)
    return {
        kind: member
        for kind, member in _LISTS.items()
        if bytes(wire.client_meta(declared.get(kind)).get("listChanged", b"")) == b"true"
    }


def _stop(stream: _Stream) -> None:
    if stream.timer is not None:
        stream.timer.cancel()
        stream.timer = None


def _is_number(tag: Payload, number: int) -> bool:
    return bytes(tag).strip(b'"') == b"%d" % number


def _outcome() -> Outcome:
    outcome: Outcome = asyncio.get_running_loop().create_future()
    outcome.add_done_callback(_read)
    return outcome


def _read(outcome: Outcome) -> None:
    """Take note of how it ended: whoever waited may be gone."""
    if not outcome.cancelled():
        outcome.exception()


def _settle(outcomes: list[Outcome], exc: BaseException | None = None) -> None:
    waiting, outcomes[:] = list(outcomes), []
    for outcome in waiting:
        if not outcome.done():
            if exc is None:
                outcome.set_result(None)
            else:
                outcome.set_exception(exc)
