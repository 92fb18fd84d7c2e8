"""Keeps one backend's Listing current: lists when a link opens, and again, rate-limited, on `list_changed`."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Final

import anyio

from mcp_manifold.backends.context import BackendContext
from mcp_manifold.backends.link.link import Link
from mcp_manifold.backends.link.negotiation import Negotiation
from mcp_manifold.backends.lists.pages import KIND_OF_LIST, LIST_METHODS, Found, Pages, list_all, usable
from mcp_manifold.errors import BackendError, RemoteError
from mcp_manifold.model.catalogue import Fault, Hint, Listing
from mcp_manifold.wire import Payload, object_members, text_at

logger = logging.getLogger(__name__)

REFRESH_EVERY: Final = 1.0
"""Seconds between two listings of one backend: a storm of `list_changed` costs one listing a second."""
LEAST_TTL: Final = 5.0
"""Seconds after which a list is fetched again at the earliest, whatever lifetime (`ttlMs`) its server gives."""
LIST_RETRY: Final = 1.0
LIST_RETRY_CEILING: Final = 30.0
"""Seconds until a failed listing is retried: the first, doubled each time up to the ceiling."""
EARLY: Final = 5.0
"""Seconds after which tools that have arrived are published, even if other lists have not."""
LOGGED_FAULTS: Final = 5
"""Invalid items of one listing that are named in the log."""
SAID: Final = 200
"""Characters of a backend's reason that are shown."""
_NOTHING: Final = Pages()
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
        self._pages = {} if latest is None else {m: Pages(latest.items(kind)) for m, kind in KIND_OF_LIST.items()}
        self._failed: dict[str, str] = {}
        self._delays: dict[str, float] = {}
        self._due: dict[str, float] = {}
        self._announced: frozenset[str] = frozenset()
        self._reported: tuple[Fault, ...] = ()
        self._stale: set[str] = set()
        self._wake: asyncio.Future[None] | None = None
        self._listed: asyncio.Future[None] | None = None

    def __repr__(self) -> str:
        return (
            f"<Lister {self._backend} revision={self.latest.revision if self.latest else 0} stale={len(self._stale)}>"
        )

    def adapt(self, context: BackendContext, *, timeout: float) -> None:
        """Use other limits from the next listing on; with another interval, list now."""
        old, self._context = self._context, context
        if context.list_interval != old.list_interval:
            self.refresh(LIST_METHODS)
        self._timeout = timeout

    def notified(self, method: str) -> None:
        """Handle a notification: after a `list_changed`, fetch its list again. Many of them cost one listing."""
        changed = _CHANGES.get(method)
        if changed is not None:
            self.refresh(changed)

    def refresh(self, methods: Iterable[str] = ("tools/list", "prompts/list")) -> None:
        """Fetch these lists again soon, because they may be out of date."""
        self._stale.update(methods)
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    async def relist(self) -> None:
        """List the tools again, at the usual rate; returns when that is done, or after the timeout."""
        if self._listed is None:
            self._listed = asyncio.get_running_loop().create_future()
        self.notified("notifications/tools/list_changed")
        await self._context.clock.wait(self._listed, seconds=self._timeout + REFRESH_EVERY)

    async def keep(self, link: Link, negotiation: Negotiation, *, over_http: bool) -> BackendError:
        """Fetch the lists whenever they change, until the link ends; returns the reason for its end."""
        self._stale = set(LIST_METHODS)
        self._due.clear()
        self._announced = _announced(link, over_http=over_http)
        clock = self._context.clock
        while not link.ended.done():
            self._wake = asyncio.get_running_loop().create_future()
            started = clock.now()
            if self._stale:
                await self._refresh(link, lambda: self._publish(link, negotiation, over_http=over_http), negotiation)
            next_ = min(self._due.values(), default=None)
            await clock.wait(link.ended, self._wake, seconds=None if next_ is None else max(0.0, next_ - clock.now()))
            await clock.wait(link.ended, seconds=max(0.0, started + REFRESH_EVERY - clock.now()))
            self._stale |= {method for method, at in self._due.items() if at <= clock.now()}
        return link.ended.result()

    async def _refresh(self, link: Link, publish: Callable[[], Listing], negotiation: Negotiation) -> None:
        """Fetch the stale lists. One that fails keeps its last items, and is retried; the others are published."""
        methods, self._stale = frozenset(self._stale), set()
        context, found = self._context, Found()

        async def publish_early() -> None:
            """Publish the tools without the lists that have no response by then."""
            await context.clock.sleep(EARLY)
            if isinstance(found.get("tools/list"), Pages):
                self._failed |= dict.fromkeys(methods - found.keys() - self._pages.keys(), "no response yet")
                await self._adopt(found)
                await self._keep(publish(), negotiation)

        async with anyio.create_task_group() as group:
            group.start_soon(publish_early, name=f"{self._backend} early listing")
            await list_all(link, methods, found, clock=context.clock, timeout=self._timeout, limits=context.limits)
            group.cancel_scope.cancel()
        if not link.ended.done() or all(isinstance(each, Pages) for each in found.values()):
            await self._adopt(found)
            await self._keep(publish(), negotiation)

    async def _adopt(self, found: Found) -> None:
        """Take fetched lists out of `found`, and schedule those that failed again."""
        for method, pages in dict(found).items():
            before = self._failed.pop(method, "")
            self._due.pop(method, None)
            if isinstance(pages, Pages):
                self._delays.pop(method, None)
                self._pages[method] = await usable(pages, method, self._backend)
                reason = pages.problem
                self._schedule(method, pages)
            else:
                reason = pages.message if isinstance(pages, BackendError) else _said(pages)
                delay = min(LIST_RETRY_CEILING, max(LIST_RETRY, self._delays.get(method, 0.0) * 2))
                self._delays[method] = delay
                self._due[method] = self._context.clock.now() + delay
            if reason:
                self._failed[method] = reason
                level = logging.DEBUG if reason == before else logging.WARNING  # log the same reason once
                logger.log(
                    level, "%s failed, keeping what is known: %s", method, reason, extra={"backend": self._backend}
                )
            del found[method]

    def _schedule(self, method: str, pages: Pages) -> None:
        """Note when a list is fetched again without a notification: after its lifetime, and after the interval."""
        if pages.hint is None:
            return
        waits = [self._context.list_interval] if self._context.list_interval and method not in self._announced else []
        if pages.hint.ttl_ms:
            waits.append(max(LEAST_TTL, pages.hint.ttl_ms / 1000))
        if waits:
            self._due[method] = self._context.clock.now() + min(waits)

    def _publish(self, link: Link, negotiation: Negotiation, *, over_http: bool) -> Listing:
        pages = {method: self._pages.get(method, _NOTHING) for method in LIST_METHODS}
        tools = pages["tools/list"].items
        mirrored = over_http and link.era == "modern"
        tools, headers = self._context.parameters(self._backend, tools, mirrored=mirrored)
        link.mirror(headers)
        latest = self.latest = Listing(
            backend=self._backend,
            revision=1 if self.latest is None else self.latest.revision + 1,
            era=link.era,
            tools=tools,
            prompts=pages["prompts/list"].items,
            resources=pages["resources/list"].items,
            templates=pages["resources/templates/list"].items,
            capabilities=bytes(link.capabilities),
            instructions=negotiation.instructions,
            server_info=bytes(negotiation.server_info),
            hints=self._hints(negotiation),
            faults=tuple(fault for each in pages.values() for fault in each.faults),
            notes=(f"tools of {self._backend} are used, although it declares no tools capability",)
            if tools and "tools" not in object_members(link.capabilities)
            else (),
            failed={method: self._failed[method] for method in LIST_METHODS if method in self._failed},
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


def _announced(link: Link, *, over_http: bool) -> frozenset[str]:
    """The list methods whose changes are reliably announced.

    A handshake-era server over HTTP may declare `listChanged` and refuse the stream that would carry it.
    """
    if over_http and link.era == "handshake":
        return frozenset()
    declared = object_members(link.capabilities)
    return frozenset(
        method
        for method, (capability, _) in LIST_METHODS.items()
        if bytes(object_members(declared.get(capability)).get("listChanged", b"")) == b"true"
    )


def _said(refusal: RemoteError) -> str:
    """What a backend gave as its reason."""
    return f"error {refusal.code}: {(text_at(Payload(refusal.raw), 'message') or 'no message')[:SAID]}"
