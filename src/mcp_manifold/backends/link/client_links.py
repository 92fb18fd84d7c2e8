"""Client links: one backend's links for single clients, held for a session or leased for one call at a time.

Owns the task of each link. `isolation` decides which client gets which link; the opener opens them.
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import TypedDict

from anyio.abc import TaskGroup

from mcp_manifold.backends.link.isolation import LinkKey, leased, primary_of
from mcp_manifold.backends.link.link import Link
from mcp_manifold.clock import Clock, LoopClock
from mcp_manifold.config import LimitSettings, ServerSettings
from mcp_manifold.errors import BackendError, BackendUnavailable, RemoteError
from mcp_manifold.model.call import Call, Session
from mcp_manifold.model.policy import ANONYMOUS

logger = logging.getLogger(__name__)

Opened = Callable[[LinkKey, Session], AbstractAsyncContextManager[Link]]
"""Opens a link for a key; closes it, bounded, on leaving the context."""


class Bounds(TypedDict):
    """Limits of ClientLinks: the number of links, and the idle seconds of each."""

    most: int
    idle: float


def _future() -> "asyncio.Future[Link]":
    return asyncio.get_running_loop().create_future()


def _signal() -> "asyncio.Future[None]":
    return asyncio.get_running_loop().create_future()


@dataclass(slots=True, eq=False)
class _Held:
    """One link: opening (`link` is not done), open, or failed."""

    link: "asyncio.Future[Link]" = field(default_factory=_future)
    released: "asyncio.Future[None]" = field(default_factory=_signal)
    opened: float = 0.0
    leased: Call | None = None
    """The call it was last opened or kept for, which may not be sent yet."""

    def is_free_for(self, call: Call | None) -> bool:
        """Whether no other call has leased the link without having been sent. `Link.is_busy` knows of sent ones."""
        leased = self.leased
        return leased is None or leased is call or leased.attempts > 0 or leased.is_cancelled or leased.is_done

    def can_lease(self, link: Link, call: Call | None) -> bool:
        """Whether `call` can be the only call on this link.

        After a cancelled call the backend may still send requests for it, so a call of another client needs another
        link. A watched link is the exception: its client has to see what its calls do.
        """
        if link.is_busy or not self.is_free_for(call):
            return False
        return link.is_clear or link.is_watched or (call is not None and call.session.principal != ANONYMOUS)

    def live(self) -> Link | None:
        if not self.link.done() or self.link.exception() is not None or self.released.done():
            return None
        link = self.link.result()
        return None if link.ended.done() else link


class ClientLinks:
    """The client links of one backend, by key: at most `most`, each closed after `idle` seconds without a call."""

    def __init__(self, backend: str, opened: Opened, *, most: int, idle: float, clock: Clock | None = None) -> None:
        self._backend = backend
        self._opened = opened
        self._most = most
        self._idle = idle
        self._held: dict[str, _Held] = {}
        self._clock = clock or LoopClock()

    def adapt(self, *, most: int, idle: float) -> None:
        """Use other limits from now on; links above them stay open."""
        self._most = most
        self._idle = idle

    def __repr__(self) -> str:
        return f"<ClientLinks {self._backend} {len(self._held)}/{self._most}>"

    def __len__(self) -> int:
        return len(self._held)

    def find(self, link_key: LinkKey, call: Call | None = None) -> Link | None:
        """The open link of a key, if it can be used now. An exclusive one must be free for `call`. Changes nothing.

        A request that is sent over a link makes it busy, so nothing more is needed to lease it.
        """
        found = self._find(link_key, call)
        return None if found is None else found.live()

    def _find(self, link_key: LinkKey, call: Call | None) -> _Held | None:
        for key in self._keys(link_key):
            held = self._held.get(key)
            link = None if held is None else held.live()
            if link is not None and held is not None and (not link_key.exclusive or held.can_lease(link, call)):
                return held
        return None

    def links(self) -> list[Link]:
        """All open links."""
        return [link for held in self._held.values() if (link := held.live()) is not None]

    async def link(self, link_key: LinkKey, session: Session, group: TaskGroup, call: Call | None = None) -> Link:
        """Get the link for `link_key`; open it in the task group if there is none.

        Raises:
            BackendError: it cannot be opened, or too many are open.
            RemoteError: the backend refused.
        """
        held = self._find(link_key, call)
        if held is None:
            return await asyncio.shield(self.open(link_key, session, group, call))
        if link_key.exclusive:
            held.leased = call
        return held.link.result()

    def open(
        self, link_key: LinkKey, session: Session, group: TaskGroup, call: Call | None = None
    ) -> "asyncio.Future[Link]":
        """Start to open the link for `link_key`, unless it is opening already.

        Raises:
            BackendUnavailable: too many are open.
        """
        key = self._free_key(link_key, call)
        held = self._held.get(key)
        if held is None or held.live() is None:
            if held is None and len(self._held) >= self._most:
                reason = f"already has {self._most} clients with a connection of their own; try again later"
                raise BackendUnavailable(self._backend, reason)
            if held is None or held.link.done():
                held = self._held[key] = _Held()
                at = link_key._replace(key=key, exclusive=False)
                group.start_soon(self._own, at, session, held, name=f"{self._backend} for one client")
        if link_key.exclusive:
            held.leased = call
        return held.link

    def release(self, key: str) -> None:
        """Close the link of a client that left."""
        held = self._held.get(key)
        if held is not None and not held.released.done():
            held.released.set_result(None)

    def close(self) -> None:
        """Close all links."""
        for key in list(self._held):
            self.release(key)

    def _keys(self, link_key: LinkKey) -> list[str]:
        """The keys of its links, the primary first."""
        if not link_key.exclusive:
            return [link_key.key]
        more = [key for key in self._held if key != link_key.key and primary_of(key) == link_key.key]
        return [link_key.key, *sorted(more, key=lambda key: (len(key), key))]

    def _free_key(self, link_key: LinkKey, call: Call | None) -> str:
        """A key without a link, or whose link is opening without a lease."""
        key, number = link_key.key, 0
        while link_key.exclusive and (held := self._held.get(key)) is not None:
            if not held.link.done() and held.is_free_for(call):
                break
            number += 1
            key = leased(link_key.key, number)
        return key

    async def _own(self, link_key: LinkKey, session: Session, held: _Held) -> None:
        """Run one client link from its opening to its end, as its owner task."""
        key = link_key.key
        try:
            async with self._opened(link_key, session) as link:
                held.opened = self._clock.now()
                if held.link.cancelled():
                    return
                held.link.set_result(link)
                await self._until_over(link, held)
        except (BackendError, RemoteError) as exc:
            if not held.link.done():
                held.link.set_exception(exc)
        except Exception:  # task boundary: a defect on one client's link must not end the others
            logger.exception("client link failed", extra={"backend": self._backend})
        finally:
            if not held.link.done():
                held.link.set_exception(BackendUnavailable(self._backend, "is stopped"))
            held.link.exception()  # retrieved here, because its caller may be gone
            if self._held.get(key) is held:
                del self._held[key]

    async def _until_over(self, link: Link, held: _Held) -> None:
        """Wait until the link ends, its client leaves, or it was idle for too long."""
        left = self._idle
        while left > 0 and not link.ended.done() and not held.released.done():
            await self._clock.wait(link.ended, held.released, seconds=left)
            used = max(link.used, link.heard, held.opened)
            left = self._idle if link.is_busy or link.is_watched else used + self._idle - self._clock.now()
        if left <= 0:
            logger.info("idle link closed", extra={"backend": self._backend})


def bounds_of(server: ServerSettings, limits: LimitSettings) -> Bounds:
    """The limits of a server's client links: a process costs more than a session."""
    if server.transport == "stdio":
        return {"most": limits.max_client_processes, "idle": limits.client_idle}
    return {"most": limits.max_sessions, "idle": limits.session_idle}
