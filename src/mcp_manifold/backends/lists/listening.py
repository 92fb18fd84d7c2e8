"""Reports of a modern backend: changes of resources, lists and tasks, over one `subscriptions/listen` stream.

Theory. A subscription cannot be changed. When the wanted topics change, a new stream is opened; the old one is closed
once the new one is acknowledged; one change at a time. A topic is a member of the filter with one URI or task id.
"""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from mcp_manifold import wire
from mcp_manifold.backends.link.link import Link
from mcp_manifold.backends.link.pending import PendingRequest
from mcp_manifold.backends.lists.reports import START_WAIT, TASK_TOLD, UPDATED, Outcome, complete, new_outcome
from mcp_manifold.clock import Clock, LoopClock, Timer
from mcp_manifold.errors import BackendError, BackendLost, BackendTimeout, InvalidParams, RemoteError
from mcp_manifold.wire import Payload
from mcp_manifold.wire.protocol import META_SUBSCRIPTION, METHOD_NOT_FOUND

logger = logging.getLogger(__name__)

LISTEN_RETRY: Final = 1.0
LISTEN_RETRY_CEILING: Final = 30.0
"""Seconds until a lost stream is reopened: the first, doubled each time up to the ceiling. A stream that lived longer
than the ceiling starts again with the first."""
LISTEN_ACK_WAIT: Final = 10.0
"""Seconds a backend may take to acknowledge; without it a silent one would block every later change."""
_NONE: Final = Payload(b"[]")
_LISTS: Final = {"tools": "toolsListChanged", "prompts": "promptsListChanged", "resources": "resourcesListChanged"}
_RESOURCES: Final = "resourceSubscriptions"
_TASKS: Final = "taskIds"

Topic = tuple[str, str]
"""A list member of a subscription's filter, and one of its items."""


@dataclass(slots=True, eq=False)
class _Stream:
    """One `subscriptions/listen`, opening or acknowledged."""

    pending: PendingRequest
    topics: frozenset[Topic]
    since: float
    timer: Timer | None = None


class Listening:
    """`subscriptions/listen` over one link: one stream at a time, reopened when it is lost.

    Args:
        lists: subscribe to list changes too, where the backend declares them.
    """

    def __init__(self, link: Link, *, lists: bool, clock: Clock | None = None) -> None:
        self._link = link
        self._lists = _declared_lists(link) if lists else {}
        self._clock = clock or LoopClock()
        self._born = self._clock.now()
        self._wanted: dict[Topic, list[Outcome]] = {}
        self._opening: _Stream | None = None
        self._current: _Stream | None = None
        self._timer: Timer | None = None
        self._is_updating = False
        self._failures = 0
        self._missed = False
        self._refused = False
        self._ready: list[Outcome] = []

    def __repr__(self) -> str:
        state = "refused" if self._refused else "opening" if self._opening else "open" if self._current else "closed"
        return f"<Listening {self._link.backend} {state} topics={len(self._wanted)}>"

    def start(self) -> Outcome:
        """Open the first stream. The future is done when the stream is acknowledged, or has failed."""
        outcome = new_outcome()
        if self._lists or self._wanted:
            self._ready.append(outcome)
            self._update_soon()
        else:
            outcome.set_result(None)
        return outcome

    def want(self, uri: str) -> Outcome:
        return self._want((_RESOURCES, uri))

    def want_task(self, id_: str) -> Outcome:
        """Subscribe to a task of the extension, as `want` does to a URI."""
        return self._want((_TASKS, id_))

    def view_of(self, task: str) -> None:
        """Fetch a task's state and feed it as a notification, because earlier ones may have been missed."""
        try:
            pending = self._link.begin("tasks/get", {"taskId": Payload(wire.encode(task))}, timeout=LISTEN_ACK_WAIT)
        except BackendError:  # the link is ending; the next one catches up
            return
        pending.future.add_done_callback(self._on_task)

    def drop(self, uri: str) -> None:
        self._drop((_RESOURCES, uri))

    def drop_task(self, id_: str) -> None:
        """Unsubscribe from a task."""
        self._drop((_TASKS, id_))

    def is_due(self, params: dict[str, Payload]) -> bool:
        tag = wire.object_members(params.get("_meta")).get(META_SUBSCRIPTION)
        return tag is None or (self._current is not None and _is_number(tag, self._current.pending.number))

    def acknowledged(self, params: dict[str, Payload]) -> None:
        """Handle `notifications/subscriptions/acknowledged`: make the opening stream the current one."""
        tag = wire.object_members(params.get("_meta")).get(META_SUBSCRIPTION)
        stream = self._opening
        if stream is None or (tag is not None and not _is_number(tag, stream.pending.number)):
            return
        old, self._current, self._opening = self._current, stream, None
        _stop(stream)
        if old is not None:
            self._link.abandon(old.pending, None)
        self._answer(stream, wire.object_members(params.get("notifications")))
        is_late = bool(self._ready) and self._clock.now() - self._born > START_WAIT
        missed, self._missed = self._missed or is_late, False
        if missed:
            self._catch_up()
        complete(self._ready)
        self._update_soon()

    def _answer(self, stream: _Stream, granted: dict[str, Payload]) -> None:
        honoured = {(member, name) for member in (_RESOURCES, _TASKS) for name in _names(granted.get(member))}
        for topic in stream.topics & self._wanted.keys():
            refused = InvalidParams(f"Invalid params: the server does not report changes of {topic[1]}")
            complete(self._wanted[topic], None if topic in honoured else refused)

    def _catch_up(self) -> None:
        """Report everything as changed, because changes without a stream go unseen."""
        for kind in self._lists:
            self._link.fed(wire.notification(f"notifications/{kind}/list_changed"))
        for member, name in list(self._wanted):
            if member == _RESOURCES:
                self._link.fed(wire.notification(UPDATED, wire.encode({"uri": name})))
            else:
                self.view_of(name)

    def _on_task(self, done: "asyncio.Future[Payload]") -> None:
        if not done.cancelled() and done.exception() is None:
            members = wire.object_members(done.result())
            said = {key: value for key, value in members.items() if key not in ("resultType", "_meta")}
            self._link.fed(wire.notification(TASK_TOLD, wire.encode(said)))

    def _want(self, topic: Topic) -> Outcome:
        outcome = new_outcome()
        self._wanted.setdefault(topic, []).append(outcome)
        self._update_soon()
        return outcome

    def _drop(self, topic: Topic) -> None:
        complete(self._wanted.pop(topic, []))
        if self._timer is None:
            self._update_soon()

    # --- one stream at a time -----------------------------------------------------------------------------------------

    def _update_soon(self) -> None:
        """Schedule `_update`, once for all topics that change in the same turn."""
        if not self._is_updating:
            self._is_updating = True
            asyncio.get_running_loop().call_soon(self._update)

    def _update(self) -> None:
        self._is_updating = False
        if self._opening is not None:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        topics = frozenset(self._wanted)
        if self._refused or self._link.ended.done():
            self._fail(topics, BackendLost(self._link.backend, "no reports over this connection"))
        elif not topics and not self._lists:
            self._close()
        elif self._current is None or self._current.topics != topics:
            self._open(topics)
        elif any(self._wanted.values()):
            for outcomes in self._wanted.values():
                complete(outcomes)

    def _open(self, topics: frozenset[Topic]) -> None:
        wanted: dict[str, object] = dict.fromkeys(self._lists.values(), True)
        for member in (_RESOURCES, _TASKS):
            names = sorted(name for each, name in topics if each == member)
            if names:
                wanted[member] = names
        try:
            pending = self._link.begin("subscriptions/listen", {"notifications": Payload(wire.encode(wanted))})
        except BackendError as exc:
            self._fail(topics, exc)
            self._retry()
            return
        self._opening = stream = _Stream(pending, topics, self._clock.now())
        stream.timer = self._clock.call_later(LISTEN_ACK_WAIT, self._unacknowledged, stream)
        pending.future.add_done_callback(lambda done: self._over(stream, done.exception()))

    def _unacknowledged(self, stream: _Stream) -> None:
        self._link.abandon(stream.pending, None)
        self._over(
            stream, BackendTimeout(self._link.backend, f"subscription not acknowledged within {LISTEN_ACK_WAIT:g} s")
        )

    def _over(self, stream: _Stream, exc: BaseException | None) -> None:
        """Handle the end of a stream that we did not close."""
        _stop(stream)
        if stream is self._opening:
            self._opening = None
            self._refused = isinstance(exc, RemoteError) and exc.code == METHOD_NOT_FOUND
            self._fail(
                stream.topics, exc or BackendLost(self._link.backend, "the server ended the subscription at once")
            )
        elif stream is self._current:
            self._current = None
            self._missed = True
        else:
            return
        if self._clock.now() - stream.since > LISTEN_RETRY_CEILING:
            self._failures = 0
        if not self._refused and not self._link.ended.done():
            logger.debug("subscription ended: %s", exc or "by the server", extra={"backend": self._link.backend})
            self._retry()

    def _fail(self, topics: frozenset[Topic], exc: BaseException) -> None:
        self._missed = True
        for topic in topics & self._wanted.keys():
            complete(self._wanted[topic], exc)
        complete(self._ready)

    def _retry(self) -> None:
        delay = min(LISTEN_RETRY_CEILING, LISTEN_RETRY * 2 ** min(self._failures, 8))
        self._failures += 1
        if self._timer is None:
            self._timer = self._clock.call_later(delay, self._update)

    def _close(self) -> None:
        current, self._current = self._current, None
        if current is not None:
            self._link.abandon(current.pending, None)


def _names(granted: Payload | None) -> Sequence[str]:
    try:
        return wire.texts(_NONE if granted is None else granted, "what is honoured")
    except InvalidParams:
        return ()


def _declared_lists(link: Link) -> dict[str, str]:
    declared = wire.object_members(link.capabilities)
    return {
        kind: member
        for kind, member in _LISTS.items()
        if bytes(wire.object_members(declared.get(kind)).get("listChanged", b"")) == b"true"
    }


def _stop(stream: _Stream) -> None:
    if stream.timer is not None:
        stream.timer.cancel()
        stream.timer = None


def _is_number(tag: Payload, number: int) -> bool:
    return bytes(tag).strip(b'"') == b"%d" % number
