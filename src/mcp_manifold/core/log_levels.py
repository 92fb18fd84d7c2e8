"""Log messages of backends: how much each is asked for, and who hears what of it.

Theory. A handshake-era backend has one level for each link, so a link gets the most verbose level that anybody wants
who is served by it, and every client hears only what is at or above its own. A client that set no level hears its own
calls from `info` up; one of 2026-07-28 hears nothing but what the request itself asked for. What may be about several
clients' calls is nobody's.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from mcp_manifold import wire
from mcp_manifold.backends.backend import Backend
from mcp_manifold.backends.link.link import Link
from mcp_manifold.backends.link.server_requests import ServerNotification
from mcp_manifold.core.hub import Hub
from mcp_manifold.errors import BackendError, BackendUnavailable, InvalidParams, UnknownMethod
from mcp_manifold.model.call import Call, Handler, Session
from mcp_manifold.wire import Payload
from mcp_manifold.wire.protocol import DEFAULT_LOG_LEVEL, LOG_LEVELS

logger = logging.getLogger(__name__)

SET_WAIT: Final = 2.0
"""Seconds a client, or a link that opened, waits until its backends took a level; they may take it later as well."""
_MESSAGE: Final = "notifications/message"


@dataclass(slots=True, eq=False)
class _Volume:
    """The level of one link: what the backend was told, what it is to be told, who waits for that."""

    timeout: float
    wanted: str = ""
    told: str = ""
    is_busy: bool = False
    waiting: list["asyncio.Future[None]"] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    """The levels of the 2026-07-28 calls in flight."""


class LogLevels:
    """See the module. `methods` and `notices` are what it answers and hears."""

    def __init__(self, hub: Hub, find: Callable[[str], Backend]) -> None:
        self._hub = hub
        self._find = find
        self._sessions: set[Session] = set()
        self._volumes: dict[Link, _Volume] = {}
        self.dropped = 0
        """Messages that went to nobody because it could not be told whose call they were about."""

    def __repr__(self) -> str:
        return f"<LogLevels clients={len(self._sessions)} links={len(self._volumes)} dropped={self.dropped}>"

    @property
    def methods(self) -> Mapping[str, Handler]:
        """The methods it answers."""
        return {"logging/setLevel": self._set_level}

    @property
    def notices(self) -> Mapping[str, Callable[[ServerNotification], None]]:
        """The notifications of backends it hears."""
        return {_MESSAGE: self._logged}

    # --- how much --------------------------------------------------------------------------------------------------

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
        await _agreed([self._adjust(link) for link in self._links_of(session)])
        return wire.EMPTY

    def _links_of(self, session: Session) -> list[Link]:
        """The open links that serve a client."""
        backends = [self._backend(name) for name in self._hub.members(session.scope)]
        found = [backend.link_of(session) for backend in backends if backend is not None]
        return [link for link in found if link is not None]

    def _backend(self, name: str) -> Backend | None:
        try:
            return self._find(name)
        except BackendUnavailable:  # it is no longer configured
            return None

    async def opened(self, link: Link) -> None:
        """A link opened: ask for the level its clients want; waits, within a bound, until the backend agreed."""
        if link.era == "handshake" and "logging" in wire.capability_names(link.capabilities):
            self._volumes[link] = _Volume(self._find(link.backend).settings.timeout)
            link.ended.add_done_callback(lambda _: self._volumes.pop(link, None))
            await _agreed([self._adjust(link)])

    def ended(self, session: Session) -> None:
        """A client's session is over: what it wanted does not count any more."""
        if session in self._sessions:
            self._sessions.discard(session)
            for link in self._links_of(session):
                if link.holder is None:
                    self._adjust(link)

    async def raise_level(self, link: Link, level: str) -> None:
        """Have a handshake-era backend log at this level, or more, until `lower`; returns once it agreed, or soon."""
        volume = self._volumes.get(link)
        if volume is not None and level in LOG_LEVELS:
            volume.calls.append(level)
            try:
                await _agreed([self._adjust(link)])
            except BaseException:
                self.lower_level(link, level)
                raise

    def lower_level(self, link: object, level: str) -> None:
        """End what `raise_level` began."""
        volume = self._volumes.get(link) if isinstance(link, Link) else None
        if volume is not None and isinstance(link, Link) and level in volume.calls:
            volume.calls.remove(level)
            self._adjust(link)

    def _adjust(self, link: Link) -> "asyncio.Future[None] | None":
        """Bring a link to the level that is wanted now; None when it has it."""
        volume = self._volumes.get(link)
        if volume is None:
            return None
        volume.wanted = self._wanted(link, volume) or volume.wanted
        if volume.wanted == volume.told and not volume.is_busy:
            return None
        outcome: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        volume.waiting.append(outcome)
        self._advance(link, volume)
        return outcome

    def _wanted(self, link: Link, volume: _Volume) -> str:
        """The most verbose level anybody wants who is served by a link; empty while nobody said anything."""
        if link.holder is not None:
            return link.holder.log_level
        levels = {session.log_level for session in self._hearers(link)}
        levels.update(volume.calls)
        if levels or volume.told:  # for those on the link who set none
            levels.add(DEFAULT_LOG_LEVEL)
        return min(levels, key=LOG_LEVELS.index, default="")

    def _hearers(self, link: Link) -> list[Session]:
        """The clients that set a level and are served by a link."""
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
        if volume.wanted == volume.told:
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
        if exc is not None:  # it keeps the level it has; asking again would not change that
            logger.debug("log level not set: %s", exc, extra={"backend": link.backend})
        volume.is_busy, volume.told = False, level
        self._advance(link, volume)

    # --- who hears it ------------------------------------------------------------------------------------------------

    def _logged(self, notice: ServerNotification) -> None:
        found = wire.object_members(notice.params)
        try:
            grade = LOG_LEVELS.index(wire.text(found.get("level"), "level"))
        except (InvalidParams, ValueError):
            return  # no level of the protocol's: nobody could say whether it was wanted
        message = _Message(notice.link.backend, grade, found)
        if notice.call is not None:
            if message.is_for(notice.call.session):
                notice.call.reply.emit(message.written(self._signs(notice.call.session)))
        elif notice.session is not None:
            self._tell(notice.session, message)
        elif notice.concurrent:
            self.dropped += 1
            logger.debug("log message of nobody's dropped", extra={"backend": notice.link.backend})
        else:
            for session in self._hearers(notice.link):
                self._tell(session, message)

    def _tell(self, session: Session, message: "_Message") -> None:
        if session.reach is not None and session.era == "handshake" and message.is_for(session):
            session.reach.tell(message.written(self._signs(session)))

    def _signs(self, session: Session) -> bool:
        return len(self._hub.members(session.scope)) > 1


@dataclass(frozen=True, slots=True)
class _Message:
    """One log message of a backend's."""

    backend: str
    grade: int
    members: Mapping[str, Payload]

    def is_for(self, session: Session) -> bool:
        """Whether it is grave enough for what the client wants to hear."""
        default = DEFAULT_LOG_LEVEL if session.era == "handshake" else ""
        level = session.log_level or default
        return level in LOG_LEVELS and self.grade >= LOG_LEVELS.index(level)

    def written(self, signs: bool) -> bytes:
        """The notification for a client; `signs`: with the server's name in front of the logger's."""
        members = wire.off_hop(self.members)
        if signs:
            members["logger"] = Payload(wire.encode(self._signed()))
        return wire.notification(_MESSAGE, wire.encode(members))

    def _signed(self) -> str:
        try:
            return f"{self.backend}/{wire.text(self.members.get('logger'), 'logger')}"
        except InvalidParams:
            return self.backend


async def _agreed(outcomes: "list[asyncio.Future[None] | None]") -> None:
    waiting = [outcome for outcome in outcomes if outcome is not None]
    if waiting:
        await asyncio.wait(waiting, timeout=SET_WAIT)
