"""Keeps one backend's Listing current: lists when a link opens, and again, rate-limited, on `list_changed`."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from mcp_manifold.backends.context import BackendContext
from mcp_manifold.backends.link.link import Link
from mcp_manifold.backends.link.negotiation import Negotiation
from mcp_manifold.backends.lists.pages import LIST_METHODS, Pages, list_all, usable
from mcp_manifold.errors import BackendError, RemoteError
from mcp_manifold.model.catalogue import Fault, Hint, Listing

logger = logging.getLogger(__name__)

REFRESH_EVERY: Final = 1.0
"""Seconds between two listings of one backend: a storm of `list_changed` costs one listing a second."""
LIST_RETRY: Final = 1.0
LIST_RETRY_CEILING: Final = 30.0
"""Seconds until a failed listing is retried: the first, doubled each time up to the ceiling."""
LOGGED_FAULTS: Final = 5
"""Invalid items of one listing that are named in the log."""
_CHANGES: Final = {
    "notifications/tools/list_changed": ("tools/list",),
    "notifications/prompts/list_changed": ("prompts/list",),
    "notifications/resources/list_changed": ("resources/list", "resources/templates/list"),
}


class Lister:
    """Owns the raw pages of one backend, and which of them are stale. `keep` runs in the backend's owner task.

    Args:
        timeout: seconds for one listing.
        on_listing: receives each new Listing.
        keep: writes a Listing to the cache.
        latest: the cached Listing of an earlier run.
    """

    def __init__(
        self,
        backend: str,
        context: BackendContext,
        *,
        timeout: float,
        on_listing: Callable[[Listing], None],
        keep: Callable[[Listing, Negotiation], Awaitable[None]],
        latest: Listing | None = None,
    ) -> None:
        self.latest = latest
        self._backend = backend
        self._context = context
        self._timeout = timeout
        self._on_listing = on_listing
        self._keep = keep
        self._pages: dict[str, Pages] = {}
        self._reported: tuple[Fault, ...] = ()
        self._stale: set[str] = set()
        self._wake: asyncio.Future[None] | None = None
        self._listed: asyncio.Future[None] | None = None

    def __repr__(self) -> str:
        return (
            f"<Lister {self._backend} revision={self.latest.revision if self.latest else 0} stale={len(self._stale)}>"
        )

    def adapt(self, context: BackendContext, *, timeout: float) -> None:
        """Use other limits from the next listing on."""
        self._context = context
        self._timeout = timeout

    def notified(self, method: str) -> None:
        """A notification came: `list_changed` marks its list stale. A flag, so that a storm costs one listing."""
        changed = _CHANGES.get(method)
        if changed is not None:
            self._stale.update(changed)
            if self._wake is not None and not self._wake.done():
                self._wake.set_result(None)

    async def relist(self) -> None:
        """List the tools again, at the usual rate; returns when that is done, or after the timeout."""
        if self._listed is None:
            self._listed = asyncio.get_running_loop().create_future()
        self.notified("notifications/tools/list_changed")
        await self._context.clock.wait(self._listed, seconds=self._timeout + REFRESH_EVERY)

    async def keep(self, link: Link, negotiation: Negotiation, *, over_http: bool) -> BackendError:
        """Keep the Listing current until the link ends; returns the reason for its end."""
        self._stale = set(LIST_METHODS)
        clock = self._context.clock
        delay = 0.0
        while not link.ended.done():
            self._wake = asyncio.get_running_loop().create_future()
            started = clock.now()
            if self._stale:
                delay = await self._refresh(link, negotiation, delay, over_http=over_http)
            if delay:
                await clock.wait(link.ended, seconds=delay)
                continue
            await clock.wait(link.ended, self._wake, seconds=None)
            await clock.wait(link.ended, seconds=max(0.0, started + REFRESH_EVERY - clock.now()))
        return link.ended.result()

    async def _refresh(self, link: Link, negotiation: Negotiation, delay: float, *, over_http: bool) -> float:
        """Fetch the stale lists; returns the seconds until a retry, 0 on success."""
        methods, self._stale = frozenset(self._stale), set()
        try:
            found = await list_all(
                link,
                methods,
                clock=self._context.clock,
                timeout=self._timeout,
                limits=self._context.limits,
            )
        except (BackendError, RemoteError) as exc:
            logger.warning("listing failed, keeping the previous one: %s", exc, extra={"backend": self._backend})
            self._stale |= methods
            return min(LIST_RETRY_CEILING, max(LIST_RETRY, delay * 2))
        for method, pages in found.items():
            self._pages[method] = await usable(pages, method, self._backend)
        await self._keep(self._publish(link, negotiation, over_http=over_http), negotiation)
        return 0.0

    def _publish(self, link: Link, negotiation: Negotiation, *, over_http: bool) -> Listing:
        tools = self._pages["tools/list"].items
        mirrored = over_http and link.era == "modern"
        tools, headers = self._context.parameters(self._backend, tools, mirrored=mirrored)
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
            instructions=negotiation.instructions,
            server_info=bytes(negotiation.server_info),
            hints=self._hints(negotiation),
            faults=tuple(fault for method in LIST_METHODS for fault in self._pages[method].faults),
        )
        self._report(latest)
        self._on_listing(latest)
        listed, self._listed = self._listed, None
        if listed is not None:
            listed.set_result(None)
        return latest

    def _report(self, listing: Listing) -> None:
        """Log the invalid items, unless they are those of the listing before."""
        faults, known, self._reported = listing.faults, self._reported, listing.faults
        if faults and faults != known:
            more = f" and {len(faults) - LOGGED_FAULTS} more" if len(faults) > LOGGED_FAULTS else ""
            said = "; ".join(map(str, faults[:LOGGED_FAULTS])) + more
            logger.warning("invalid items listed: %s", said, extra={"backend": self._backend})

    def _hints(self, negotiation: Negotiation) -> dict[str, Hint]:
        hints = {method: pages.hint for method, pages in self._pages.items()} | {"server/discover": negotiation.hint}
        return {method: hint for method, hint in hints.items() if hint is not None}
