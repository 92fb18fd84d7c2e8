"""Links of one backend that not everybody shares: held for a client session, or lent for one call at a time.

Owns their tasks' life. Who gets which is `isolation`'s decision; how a link is opened is the backend's.
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import TypedDict

from anyio.abc import TaskGroup

from mcp_manifold.backends.link.isolation import LinkKey, home_of, lent
from mcp_manifold.backends.link.link import Link
from mcp_manifold.backends.link.pending import either
from mcp_manifold.config import LimitSettings, ServerSettings
from mcp_manifold.errors import BackendError, BackendUnavailable, RemoteError
from mcp_manifold.model.call import Call, Session
from mcp_manifold.model.policy import ANONYMOUS

logger = logging.getLogger(__name__)

Opened = Callable[[LinkKey, Session], AbstractAsyncContextManager[Link]]
"""Opens a link for a place; closes it, within a bound, when the context is left."""


class Bounds(TypedDict):
    """The keyword arguments of that meaning."""

    most: int
    idle: float


def _future() -> "asyncio.Future[Link]":
    return asyncio.get_running_loop().create_future()


def _signal() -> "asyncio.Future[None]":
    return asyncio.get_running_loop().create_future()


@dataclass(slots=True, eq=False)
class _Held:
    """One held link, on its way (`link` not done), open, or failed."""

    link: "asyncio.Future[Link]" = field(default_factory=_future)
    released: "asyncio.Future[None]" = field(default_factory=_signal)
    used: float = 0.0
    lent: Call | None = None
    """The call it was last lent for, which may not have been sent yet."""

    def is_free_for(self, call: Call | None) -> bool:
        """Whether nobody else is about to call over it; what is due on the link by then says the rest."""
        lent = self.lent
        return lent is None or lent is call or lent.attempts > 0 or lent.is_cancelled or lent.is_done

    def is_to_lend(self, link: Link, call: Call | None) -> bool:
        """Whether the call may be the one at a time.

        A call given up just now may still be worked on, and ask; where it may be another client's, the next one goes
        elsewhere. Not so if somebody watches over the link: what calls do is to be seen there.
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
    """The held links of one backend, by key; at most `most`, each closed after `idle` seconds without a call."""

    def __init__(self, backend: str, opened: Opened, *, most: int, idle: float) -> None:
        self._backend = backend
        self._opened = opened
        self._most = most
        self._idle = idle
        self._held: dict[str, _Held] = {}
        self._loop = asyncio.get_running_loop()

    def adapt(self, *, most: int, idle: float) -> None:
        """Other limits hold from now on; links that are too many are not closed for that."""
        self._most = most
        self._idle = idle

    def __repr__(self) -> str:
        return f"<ClientLinks {self._backend} {len(self._held)}/{self._most}>"

    def __len__(self) -> int:
        return len(self._held)

    def live(self, place: LinkKey, call: Call | None = None) -> Link | None:
        """The open link of a place, if there is one that may be used now; of those that are lent, for this call."""
        for key in self._keys(place):
            held = self._held.get(key)
            link = None if held is None else held.live()
            if held is None or link is None:
                continue
            if place.exclusive:
                if not held.is_to_lend(link, call):
                    continue
                held.lent = call
            held.used = asyncio.get_running_loop().time()
            return link
        return None

    def find(self, key: str) -> Link | None:
        """The open link of a place that is not exclusive."""
        held = self._held.get(key)
        link = None if held is None else held.live()
        if held is not None and link is not None:
            held.used = self._loop.time()
        return link

    def links(self) -> list[Link]:
        """All open links."""
        return [link for held in self._held.values() if (link := held.live()) is not None]

    async def link(self, place: LinkKey, session: Session, group: TaskGroup, call: Call | None = None) -> Link:
        """The link of a place, opened in `group` if need be.

        Raises:
            BackendError: it cannot be opened, or too many are open.
            RemoteError: the backend refused.
        """
        found = self.live(place, call)
        return found if found is not None else await asyncio.shield(self.open(place, session, group, call))

    def open(
        self, place: LinkKey, session: Session, group: TaskGroup, call: Call | None = None
    ) -> "asyncio.Future[Link]":
        """Begin to open the link of a place, unless that goes on already.

        Raises:
            BackendUnavailable: too many are open.
        """
        key = self._free_key(place, call)
        held = self._held.get(key)
        if held is None or held.live() is None:
            if held is None and len(self._held) >= self._most:
                reason = f"already has {self._most} clients with a connection of their own; try again later"
                raise BackendUnavailable(self._backend, reason)
            if held is None or held.link.done():
                held = self._held[key] = _Held()
                at = place._replace(key=key, exclusive=False)
                group.start_soon(self._own, at, session, held, name=f"{self._backend} for one client")
        if place.exclusive:
            held.lent = call
        return held.link

    def release(self, key: str) -> None:
        """The client is gone: close its link."""
        held = self._held.get(key)
        if held is not None and not held.released.done():
            held.released.set_result(None)

    def close(self) -> None:
        """Close all of them."""
        for key in list(self._held):
            self.release(key)

    def _keys(self, place: LinkKey) -> list[str]:
        """Where its links may be, home first."""
        if not place.exclusive:
            return [place.key]
        more = [key for key in self._held if key != place.key and home_of(key) == place.key]
        return [place.key, *sorted(more, key=lambda key: (len(key), key))]

    def _free_key(self, place: LinkKey, call: Call | None) -> str:
        """Where a link is to be opened; or is being opened for nobody in particular."""
        key, number = place.key, 0
        while place.exclusive and (held := self._held.get(key)) is not None:
            if not held.link.done() and held.is_free_for(call):
                break
            number += 1
            key = lent(place.key, number)
        return key

    async def _own(self, place: LinkKey, session: Session, held: _Held) -> None:
        """The owner task of one held link."""
        key = place.key
        try:
            async with self._opened(place, session) as link:
                held.used = asyncio.get_running_loop().time()
                if held.link.cancelled():
                    return
                held.link.set_result(link)
                await self._until_over(link, held)
        except (BackendError, RemoteError) as exc:
            if not held.link.done():
                held.link.set_exception(exc)
        except Exception:  # the task's boundary: a fault of ours on one client's link must not end the others
            logger.exception("link for one client failed", extra={"backend": self._backend})
        finally:
            if not held.link.done():
                held.link.set_exception(BackendUnavailable(self._backend, "is stopped"))
            held.link.exception()  # read here, since the caller it was meant for may be gone
            if self._held.get(key) is held:
                del self._held[key]

    async def _until_over(self, link: Link, held: _Held) -> None:
        """Wait until the link is lost, its client is gone, or nobody used it for long."""
        loop = asyncio.get_running_loop()
        left = self._idle
        while left > 0 and not link.ended.done() and not held.released.done():
            await asyncio.wait(either(link.ended, held.released), timeout=left, return_when=asyncio.FIRST_COMPLETED)
            left = self._idle if link.is_busy or link.is_watched else held.used + self._idle - loop.time()
        if left <= 0:
            logger.info("idle link closed", extra={"backend": self._backend})


def bounds_of(server: ServerSettings, limits: LimitSettings) -> Bounds:
    """How many links are held for single clients, and for how long: a process is dearer than a session."""
    if server.transport == "stdio":
        return {"most": limits.max_client_processes, "idle": limits.client_idle}
    return {"most": limits.max_sessions, "idle": limits.session_idle}
