"""The lister: everything when a link opens, then only changed kinds, at a bounded rate."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from mcp_manifold.backends.link.link import Link
from mcp_manifold.backends.link.negotiation import Negotiation
from mcp_manifold.backends.link.pending import PendingRequest
from mcp_manifold.backends.lists.lister import EARLY, LEAST_TTL, LIST_RETRY, REFRESH_EVERY, Lister
from mcp_manifold.backends.lists.pages import LIST_METHODS
from mcp_manifold.errors import BackendLost
from mcp_manifold.model.catalogue import Listing
from mcp_manifold.wire import Payload
from tests.fakes.clock import FakeClock
from tests.fakes.news import News
from tests.unit.backends.linking import FakeTransport, connected, within
from tests.unit.backends.running import Around

pytestmark = pytest.mark.anyio

GREETING = Negotiation("handshake", "2025-11-25", Payload(b"{}"), Payload(b'{"name":"n"}'), "be kind")
TOOLS = "notifications/tools/list_changed"
A = b'{"name":"a","inputSchema":{"type":"object"}}'
B = b'{"name":"b","inputSchema":{"type":"object"}}'


class Kept:
    """A lister of a fake backend whose tools and failures a test changes."""

    def __init__(
        self, *, tools: tuple[bytes, ...] = (A,), interval: float = 0.0, ttl: int = 0, declared: bytes = b"{}"
    ) -> None:
        self.ttl = ttl
        self.tools = tools
        self.broken: set[str] = set()
        self.silent: set[str] = set()
        self.published: list[Listing] = []
        self._news = News()
        self.link: Link
        self.transport: FakeTransport
        self.link, self.transport = connected(self._answer)
        self.link.adopt("2025-11-25", Payload(b'{"tools":%b,"prompts":{},"resources":{}}' % declared))
        self.clock = FakeClock()
        context = replace(Around(clock=self.clock).surroundings(), list_interval=interval)
        self.lister = Lister("notes", context, timeout=30, on_listing=self._listed, keep=self._keep)

    def __repr__(self) -> str:
        return f"<Kept {self.lister!r}>"

    def _answer(self, pending: PendingRequest) -> bytes | None:
        if pending.method in self.silent:
            return None
        if pending.method in self.broken:
            return b'"error":{"code":-32603,"message":"broken"}'
        items = b",".join(self.tools) if pending.method == "tools/list" else b""
        ttl = self.ttl if pending.method == "tools/list" else 0
        return b'"result":{"%b":[%b],"ttlMs":%d}' % (LIST_METHODS[pending.method][1].encode(), items, ttl)

    async def _keep(self, listing: Listing, greeting: Negotiation) -> None:
        assert listing is self.published[-1]

    def _listed(self, listing: Listing) -> None:
        self.published.append(listing)
        self._news.tell()

    @property
    def asked(self) -> Counter[str]:
        return Counter(self.transport.methods)

    async def listing(self, revision: int = 1) -> Listing:
        return await self._news.nth(revision, lambda: self.published)


@asynccontextmanager
async def keeping(given: Kept | None = None, *, over_http: bool = False) -> AsyncIterator[Kept]:
    """A lister at work, ended with its link."""
    kept = given or Kept()
    work = asyncio.ensure_future(kept.lister.keep(kept.link, GREETING, over_http=over_http))
    try:
        yield kept
    finally:
        kept.link.lost(BackendLost("notes", "over"))
        assert (await within(work)).message == "over"


async def test_everything_is_listed_once_when_a_link_opens() -> None:
    async with keeping() as kept:
        found = await kept.listing()
    assert (found.revision, found.tools, found.instructions) == (1, (A,), "be kind")
    assert found.server_info == b'{"name":"n"}'
    assert kept.asked == dict.fromkeys(LIST_METHODS, 1)
    assert kept.lister.latest is found


@pytest.mark.parametrize(
    ("method", "asked"),
    [
        (TOOLS, {"tools/list"}),
        ("notifications/prompts/list_changed", {"prompts/list"}),
        ("notifications/resources/list_changed", {"resources/list", "resources/templates/list"}),
    ],
)
async def test_a_change_refreshes_only_its_kind(method: str, asked: set[str]) -> None:
    async with keeping() as kept:
        await kept.listing()
        kept.lister.notified("notifications/message")
        kept.lister.notified(method)
        await kept.clock.advance(REFRESH_EVERY)
        assert (await kept.listing(2)).revision == 2
    assert kept.asked == {name: 2 if name in asked else 1 for name in LIST_METHODS}


async def test_many_changes_cause_one_refresh() -> None:
    async with keeping() as kept:
        await kept.listing()
        kept.tools = (B,)
        for _ in range(1000):
            kept.lister.notified(TOOLS)
        await kept.clock.advance(0.9 * REFRESH_EVERY)
        assert len(kept.published) == 1
        await kept.clock.advance(0.1 * REFRESH_EVERY)
        assert (await kept.listing(2)).tools == (B,)
    assert kept.asked["tools/list"] == 2


async def test_a_change_during_a_listing_is_not_missed() -> None:
    async with keeping() as kept:
        await kept.transport.sent(4)
        kept.lister.notified(TOOLS)
        await kept.listing()
        await kept.clock.advance(REFRESH_EVERY)
        await kept.listing(2)
    assert kept.asked["tools/list"] == 2


async def test_a_failing_refresh_keeps_the_last_listing_and_is_tried_again() -> None:
    async with keeping() as kept:
        first = await kept.listing()
        kept.broken, kept.tools = {"tools/list"}, (B,)
        kept.lister.notified(TOOLS)
        await kept.clock.advance(REFRESH_EVERY)
        await kept.clock.advance(LIST_RETRY)
        assert kept.asked["tools/list"] == 3
        await kept.clock.advance(LIST_RETRY)
        assert kept.asked["tools/list"] == 3, "each wait is twice the one before"
        assert kept.lister.latest is not None
        assert kept.lister.latest.tools == first.tools
        assert "tools/list" in kept.lister.latest.failed
        kept.broken = set()
        await kept.clock.advance(LIST_RETRY)
        assert (await kept.listing(4)).tools == (B,)
    assert kept.asked["tools/list"] == 4


async def test_a_list_that_fails_at_first_is_tried_again_and_the_others_are_published() -> None:
    kept = Kept()
    kept.broken = {"prompts/list"}
    async with keeping(kept):
        first = await kept.listing()
        assert (first.tools, list(first.failed)) == ((A,), ["prompts/list"])
        kept.broken = set()
        await kept.clock.advance(LIST_RETRY)
        assert (await kept.listing(2)).failed == {}
    assert kept.asked == {name: 2 if name == "prompts/list" else 1 for name in LIST_METHODS}


async def test_a_change_is_listed_while_another_list_waits_for_its_retry() -> None:
    kept = Kept()
    kept.broken = {"prompts/list"}
    async with keeping(kept):
        await kept.listing()
        await kept.clock.advance(LIST_RETRY)
        await kept.listing(2)
        kept.tools = (B,)
        kept.lister.notified(TOOLS)
        await kept.clock.advance(REFRESH_EVERY)
        assert (await kept.listing(3)).tools == (B,)
        assert kept.asked["prompts/list"] == 2


async def test_a_silent_list_does_not_delay_the_others() -> None:
    kept = Kept()
    kept.silent = {"prompts/list"}
    async with keeping(kept):
        await kept.transport.sent(4)
        await kept.clock.advance(EARLY)
        first = await kept.listing()
        assert (first.tools, first.failed) == ((A,), {"prompts/list": "no response yet"})


async def test_a_new_link_lists_everything_anew_and_the_revision_goes_on() -> None:
    async with keeping() as kept:
        await kept.listing()
    again = Kept()
    again.lister = kept.lister
    async with keeping(again):
        assert (await kept.listing(2)).revision == 2
    assert again.asked == dict.fromkeys(LIST_METHODS, 1)


async def test_a_link_lost_while_listing_ends_it() -> None:
    kept = Kept()
    kept.transport._answer = None
    async with keeping(kept):
        await kept.transport.sent(4)
    assert kept.published == []


async def test_lists_without_notifications_are_fetched_again_after_the_interval() -> None:
    async with keeping(Kept(interval=60, declared=b'{"listChanged":true}')) as kept:
        await kept.listing()
        await kept.clock.advance(59)
        assert kept.asked == dict.fromkeys(LIST_METHODS, 1)
        await kept.clock.advance(1)
        await kept.listing(2)
        await kept.clock.advance(60)
        await kept.listing(3)
    assert kept.asked == {name: 1 if name == "tools/list" else 3 for name in LIST_METHODS}


async def test_over_http_no_promise_of_a_handshake_server_spares_the_interval() -> None:
    kept = Kept(interval=60, declared=b'{"listChanged":true}')
    async with keeping(kept, over_http=True):
        await kept.listing()
        await kept.clock.advance(60)
        await kept.listing(2)
    assert kept.asked["tools/list"] == 2


@pytest.mark.parametrize(("ttl", "after"), [(10_000, 10.0), (1, LEAST_TTL)])
async def test_a_list_is_fetched_again_when_its_lifetime_is_over(ttl: int, after: float) -> None:
    async with keeping(Kept(ttl=ttl, declared=b'{"listChanged":true}')) as kept:
        await kept.listing()
        await kept.clock.advance(after - 0.5)
        assert kept.asked["tools/list"] == 1
        await kept.clock.advance(0.5)
        await kept.listing(2)
    assert kept.asked == {name: 2 if name == "tools/list" else 1 for name in LIST_METHODS}


async def test_without_an_interval_or_a_lifetime_nothing_is_fetched_again() -> None:
    async with keeping() as kept:
        await kept.listing()
        await kept.clock.advance(86400)
    assert kept.asked == dict.fromkeys(LIST_METHODS, 1)


async def test_relist_waits_for_the_new_listing() -> None:
    async with keeping() as kept:
        await kept.listing()
        kept.tools = ()
        relisting = asyncio.ensure_future(kept.lister.relist())
        await kept.clock.advance(REFRESH_EVERY)
        await within(relisting)
        assert kept.lister.latest is not None
        assert kept.lister.latest.tools == ()
