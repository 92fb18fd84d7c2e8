"""Log messages of backends: sets the level of each link, and routes each message to the clients it concerns.

Theory. A handshake-era backend has one level per link: the most verbose level that any client of the link wants. Each
client receives only messages at or above its own level. A client that set no level receives those of its own calls from
`info` up. A 2026-07-28 client receives only messages that its request asked for. A message that may
belong to calls of several clients is dropped.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from mcp_manifold import wire
from mcp_manifold.backends.backend import Backend
from mcp_manifold.backends.link.link import Link
from mcp_manifold.backends.link.server_requests import ServerNotification
from mcp_manifold.clock import Clock, wait_all
from mcp_manifold.core.hub import Hub
from mcp_manifold.errors import BackendError, BackendUnavailable, InvalidParams, UnknownMethod
from mcp_manifold.model.call import Call, Handler, Session
from mcp_manifold.wire import Payload
from mcp_manifold.wire.protocol import DEFAULT_LOG_LEVEL, LOG_LEVELS

logger = logging.getLogger(__name__)

SET_WAIT: Final = 2.0
"""Seconds that a client, or a new link, waits until backends accept a level; they may still accept it later."""
_MESSAGE: Final = "notifications/message"


@dataclass(slots=True, eq=False)
class _Volume:
    """The log level of one link."""

    timeout: float
    wanted: str = ""
    sent: str = ""
    """The level that the backend was last set to."""
    is_busy: bool = False
    """Whether a `logging/setLevel` is in flight."""
    waiting: list["asyncio.Future[None]"] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    """The levels of the 2026-07-28 calls in flight."""


class LogLevels:
    """The log levels of links and clients. Answers `methods`, and handles the backends' `notifications`.

    Args:
        find: returns the backend of a name; raises BackendUnavailable if it is no longer configured.
    """

    def __init__(self, hub: Hub, find: Callable[[str], Backend], *, clock: Clock) -> None:
        self._hub = hub
        self._find = find
        self._clock = clock
        self._sessions: set[Session] = set()
        self._volumes: dict[Link, _Volume] = {}
        self.dropped = 0
        """Messages dropped because they may belong to calls of several clients."""

    def __repr__(self) -> str:
        return f"<LogLevels clients={len(self._sessions)} links={len(self._volumes)} dropped={self.dropped}>"

    @property
    def methods(self) -> Mapping[str, Handler]:
        """The methods that this object answers."""
        return {"logging/setLevel": self._set_level}

    @property
    def notifications(self) -> Mapping[str, Callable[[ServerNotification], None]]:
        """The notifications of backends that this object handles."""
        return {_MESSAGE: self._logged}

    # --- levels ---------------------------------------------------------------------------------------------------

    async def _set_level(self, call: Call) -> Payload:
        session = call.session
        level = wire.text(call.params.get("level"), "level")
        if level not in LOG_LEVELS:
            raise InvalidParams(f'Invalid params: "level" must be one of {", ".join(LOG_LEVELS)}')
        listings = self._hub.view(session.scope).listings
        if not any("logging" in wire.capability_names(Payload(listing.capabilities)) for listing in listings):
            raise UnknownMethod("Method not found: no server here offers logging")
        session.hear(level)
        self._sessions.add(session)
        await self._agreed([self._adjust(link) for link in self._links_of(session)])
        return wire.EMPTY

    def _links_of(self, session: Session) -> list[Link]:
        """The open links that serve a client."""
        backends = [self._backend(name) for name in self._hub.members(session.scope)]
        found = [backend.open_session_link(session) for backend in backends if backend is not None]
        return [link for link in found if link is not None]

    def _backend(self, name: str) -> Backend | None:
        try:
            return self._find(name)
        except BackendUnavailable:  # it is no longer configured
            return None

    async def opened(self, link: Link) -> None:
        """Set the level of a link that has opened; waits up to `SET_WAIT` until the backend accepts it."""
        if link.era == "handshake" and "logging" in wire.capability_names(link.capabilities):
            self._volumes[link] = _Volume(self._find(link.backend).settings.timeout)
            link.ended.add_done_callback(lambda _: self._volumes.pop(link, None))
            await self._agreed([self._adjust(link)])

    def ended(self, session: Session) -> None:
        """Forget the level of a session that has ended."""
        if session in self._sessions:
            self._sessions.discard(session)
            for link in self._links_of(session):
                if link.holder is None:
                    self._adjust(link)

    async def raise_level(self, link: Link, level: str) -> None:
        """Raise a handshake-era backend's log level for a call; returns when accepted, or after `SET_WAIT`."""
        volume = self._volumes.get(link)
        if volume is not None and level in LOG_LEVELS:
            volume.calls.append(level)
            try:
                await self._agreed([self._adjust(link)])
            except BaseException:
                self.lower_level(link, level)
                raise

    def lower_level(self, link: object, level: str) -> None:
        """Undo `raise_level`."""
        volume = self._volumes.get(link) if isinstance(link, Link) else None
        if volume is not None and isinstance(link, Link) and level in volume.calls:
            volume.calls.remove(level)
            self._adjust(link)

    def _adjust(self, link: Link) -> "asyncio.Future[None] | None":
        """Set a link to the level that is wanted now; returns None if it has that level already."""
        volume = self._volumes.get(link)
        if volume is None:
            return None
        volume.wanted = self._wanted(link, volume) or volume.wanted
        if volume.wanted == volume.sent and not volume.is_busy:
            return None
        outcome: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        volume.waiting.append(outcome)
        self._advance(link, volume)
        return outcome

    def _wanted(self, link: Link, volume: _Volume) -> str:
        """The most verbose level that any client of a link wants; empty if no client set one."""
        if link.holder is not None:
            return link.holder.log_level
        levels = {session.log_level for session in self._clients_of(link)}
        levels.update(volume.calls)
        if levels or volume.sent or volume.is_busy:  # for clients of the link that set none
            levels.add(DEFAULT_LOG_LEVEL)
        return min(levels, key=LOG_LEVELS.index, default="")

    def _clients_of(self, link: Link) -> list[Session]:
        """The clients of a link that set a level."""
        backend = self._backend(link.backend)
        if backend is None:
            return []
        return [
            session
            for session in self._sessions
            if link.backend in self._hub.members(session.scope) and backend.is_served(session, link)
        ]

    def _advance(self, link: Link, volume: _Volume) -> None:
        if volume.is_busy:
            return
        if volume.wanted == volume.sent:
            waiting, volume.waiting = volume.waiting, []
            for outcome in waiting:
                if not outcome.done():
                    outcome.set_result(None)
            return
        volume.is_busy, level = True, volume.wanted
        params = {"level": Payload(wire.encode(level))}
        try:
            pending = link.begin("logging/setLevel", params, timeout=volume.timeout)
        except BackendError as exc:
            self._answered(link, volume, level, exc)
        else:
            pending.future.add_done_callback(lambda done: self._answered(link, volume, level, done.exception()))

    def _answered(self, link: Link, volume: _Volume, level: str, exc: BaseException | None) -> None:
        if exc is not None:  # it keeps its level; a second request would be refused too
            logger.debug("log level not set: %s", exc, extra={"backend": link.backend})
        volume.is_busy, volume.sent = False, level
        self._advance(link, volume)

    # --- messages -------------------------------------------------------------------------------------------------

    def _logged(self, notification: ServerNotification) -> None:
        found = wire.object_members(notification.params)
        try:
            severity = LOG_LEVELS.index(wire.text(found.get("level"), "level"))
        except (InvalidParams, ValueError):
            return  # an unknown level cannot be compared with the client's
        message = _Message(notification.link.backend, severity, found)
        call, session = notification.call, notification.session
        if call is not None:
            if message.is_for(call.session):
                call.reply.emit(message.encoded(self._names_server(call.session)))
        elif session is not None:
            self._send(session, message)
        elif notification.concurrent:
            self.dropped += 1
            logger.debug("log message dropped: origin is ambiguous", extra={"backend": notification.link.backend})
        else:
            for each in self._clients_of(notification.link):
                self._send(each, message)

    def _send(self, session: Session, message: "_Message") -> None:
        if session.reach is not None and session.era == "handshake" and message.is_for(session):
            session.reach.tell(message.encoded(self._names_server(session)))

    def _names_server(self, session: Session) -> bool:
        return len(self._hub.members(session.scope)) > 1

    async def _agreed(self, outcomes: "Sequence[asyncio.Future[None] | None]") -> None:
        await wait_all(self._clock, [each for each in outcomes if each is not None], seconds=SET_WAIT)


@dataclass(frozen=True, slots=True)
class _Message:
    """One log message of a backend. `severity` is the index of its level in LOG_LEVELS."""

    backend: str
    severity: int
    members: Mapping[str, Payload]

    def is_for(self, session: Session) -> bool:
        """Whether the message is at or above the client's level."""
        default = DEFAULT_LOG_LEVEL if session.era == "handshake" else ""
        level = session.log_level or default
        return level in LOG_LEVELS and self.severity >= LOG_LEVELS.index(level)

    def encoded(self, names_server: bool) -> bytes:
        """The notification for a client. With `names_server`, the server's name precedes the logger's."""
        members = wire.off_hop(self.members)
        if names_server:
            members["logger"] = Payload(wire.encode(self._logger()))
        return wire.notification(_MESSAGE, wire.encode(members))

    def _logger(self) -> str:
        try:
            return f"{self.backend}/{wire.text(self.members.get('logger'), 'logger')}"
        except InvalidParams:
            return self.backend
