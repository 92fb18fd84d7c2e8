"""Keeps one backend's Listing current: lists when a link opens, and again, paced, when the backend says it changed."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from mcp_manifold.backends.link.link import Link
from mcp_manifold.backends.link.negotiation import Negotiation, Parameters
from mcp_manifold.backends.link.pending import either
from mcp_manifold.backends.lists.pages import LISTS, Pages, list_all
from mcp_manifold.config import LimitSettings
from mcp_manifold.errors import BackendError, RemoteError
from mcp_manifold.model.catalogue import Hint, Listing

logger = logging.getLogger(__name__)

REFRESH_EVERY: Final = 1.0
"""Seconds between two listings of one backend: a storm of `list_changed` costs one listing a second."""
RETRY_FIRST: Final = 1.0
RETRY_CEILING: Final = 30.0
_CHANGES: Final = {
    "notifications/tools/list_changed": ("tools/list",),
    "notifications/prompts/list_changed": ("prompts/list",),
    "notifications/resources/list_changed": ("resources/list", "resources/templates/list"),
}


class Lister:
    """Owns the raw pages of one backend and which of them are stale. `keep` runs in the backend's owner task.

    `latest` is what it listed in an earlier run of the program; each new listing is given away to be kept for the next.
    """

    def __init__(
        self,
        backend: str,
        limits: LimitSettings,
        *,
        timeout: float,
        parameters: Parameters,
        on_listing: Callable[[Listing], None],
        keep: Callable[[Listing, Negotiation], Awaitable[None]],
        latest: Listing | None = None,
    ) -> None:
        self.latest = latest
        self._backend = backend
        self._limits = limits
        self._timeout = timeout
        self._parameters = parameters
        self._on_listing = on_listing
        self._keep = keep
        self._pages: dict[str, Pages] = {}
        self._stale: set[str] = set()
        self._wake: asyncio.Future[None] | None = None
        self._listed: asyncio.Future[None] | None = None

    def __repr__(self) -> str:
        return (
            f"<Lister {self._backend} revision={self.latest.revision if self.latest else 0} stale={len(self._stale)}>"
        )

    def adapt(self, limits: LimitSettings, *, timeout: float) -> None:
        """Other limits hold from the next listing on."""
        self._limits = limits
        self._timeout = timeout

    def notified(self, method: str) -> None:
        """The backend sent this notification: if a list changed, it is stale. A flag, so that a storm is one event."""
        changed = _CHANGES.get(method)
        if changed is not None:
            self._stale.update(changed)
            if self._wake is not None and not self._wake.done():
                self._wake.set_result(None)

    async def relist(self) -> None:
        """List the tools again, at the usual pace; returns when that is done, or has taken too long."""
        if self._listed is None:
            self._listed = asyncio.get_running_loop().create_future()
        self.notified("notifications/tools/list_changed")
        await asyncio.wait({self._listed}, timeout=self._timeout + REFRESH_EVERY)

    async def keep(self, link: Link, greeting: Negotiation, *, over_http: bool) -> BackendError:
        """List until the link is lost; returns why it was."""
        self._stale = set(LISTS)
        loop = asyncio.get_running_loop()
        delay = 0.0
        while not link.ended.done():
            self._wake = loop.create_future()
            started = loop.time()
            if self._stale:
                delay = await self._refresh(link, greeting, delay, over_http=over_http)
            if delay:
                await asyncio.wait({link.ended}, timeout=delay)
                continue
            await asyncio.wait(either(link.ended, self._wake), return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait({link.ended}, timeout=max(0.0, started + REFRESH_EVERY - loop.time()))
        return link.ended.result()

    async def _refresh(self, link: Link, greeting: Negotiation, delay: float, *, over_http: bool) -> float:
        """List what is stale; returns the seconds after which to try again, 0 when all is fresh."""
        methods, self._stale = frozenset(self._stale), set()
        limits = self._limits
        try:
            self._pages |= await list_all(
                link,
                methods,
                timeout=self._timeout,
                max_pages=limits.list_pages,
                max_entries=limits.list_entries,
                max_bytes=limits.max_message,
            )
        except (BackendError, RemoteError) as exc:
            logger.warning("listing failed, the last one stays: %s", exc, extra={"backend": self._backend})
            self._stale |= methods
            return min(RETRY_CEILING, max(RETRY_FIRST, delay * 2))
        await self._keep(self._publish(link, greeting, over_http=over_http), greeting)
        return 0.0

    def _publish(self, link: Link, greeting: Negotiation, *, over_http: bool) -> Listing:
        tools = self._pages["tools/list"].items
        mirrored = over_http and link.era == "modern"
        tools, headers = self._parameters(self._backend, tools, mirrored=mirrored)
        link.mirror(headers)
        latest = self.latest = Listing(
            backend=self._backend,
            revision=1 if self.latest is None else self.latest.revision + 1,
            era=link.era,
            tools=tools,
            prompts=self._pages["prompts/list"].items,
            resources=self._pages["resources/list"].items,
            templates=self._pages["resources/templates/list"].items,
            capabilities=bytes(link.capabilities),
            instructions=greeting.instructions,
            server_info=bytes(greeting.server_info),
            hints=self._hints(greeting),
        )
        self._on_listing(latest)
        listed, self._listed = self._listed, None
        if listed is not None:
            listed.set_result(None)
        return latest

    def _hints(self, greeting: Negotiation) -> dict[str, Hint]:
        hints = {method: pages.hint for method, pages in self._pages.items()} | {"server/discover": greeting.hint}
        return {method: hint for method, hint in hints.items() if hint is not None}
