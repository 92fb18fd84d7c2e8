"""Subscriptions over links on fake transports: counted, bounded, restored and cleaned up."""

import asyncio
import json
from typing import Any, cast

import pytest

from mcp_manifold.backends.backend import Backend
from mcp_manifold.backends.fleet import Fleet
from mcp_manifold.backends.link.link import Link
from mcp_manifold.backends.link.server_requests import ServerNotification
from mcp_manifold.core.log_levels import LogLevels
from mcp_manifold.core.tasks import Tasks
from mcp_manifold.core.watching import ACK_WAIT, MAX_WATCHED, REOPEN_AFTER, Watching
from mcp_manifold.errors import (
    BackendLost,
    BackendUnavailable,
    InvalidParams,
    TooManyRequests,
    UnknownItem,
    UnknownMethod,
)
from mcp_manifold.model.call import Call, Session
from mcp_manifold.model.catalogue import Listing
from mcp_manifold.model.policy import ANONYMOUS
from mcp_manifold.wire import MODERN_VERSION, Payload, encode
from tests.fakes.clock import FakeClock, settled
from tests.unit.backends.linking import FakeReply, FakeTransport, new_link, within
from tests.unit.core.house import INFO, Client, call_of
from tests.unit.core.test_hub import hub, server

pytestmark = pytest.mark.anyio

SAYS = b'{"resources":{"subscribe":true},"logging":{}}'
UPDATED = "notifications/resources/updated"


class FakeBackend:
    """Its links, opened by hand: the shared one, and one for each session given a place of its own."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.settings = server(name, timeout=5)
        self.links: dict[str, Link] = {}
        self.places: dict[Session, str] = {}
        self.reopened: list[Session] = []
        self.is_full = False

    async def session_link(self, session: Session) -> Link:
        link = self.open_session_link(session)
        if link is None:
            raise BackendUnavailable(self.name, "is not reachable")
        return link

    def open_session_link(self, session: Session) -> Link | None:
        return self.links.get(self.places.get(session, ""))

    def is_served(self, session: Session, link: Link) -> bool:
        return self.places.get(session, "") == link.key

    def reopen(self, session: Session) -> None:
        if self.is_full:
            raise BackendUnavailable(self.name, "already has too many")
        self.reopened.append(session)


def client_of(key: str = "c", scope: str = "") -> Client:
    """A handshake-era client."""
    client = Client()
    client.session.key, client.session.scope = key, scope
    return client


class Stream(FakeReply):
    """The reply to a 2026-07-28 call, and its messages."""

    def __init__(self) -> None:
        super().__init__()
        self.session = Session("", ANONYMOUS, "", MODERN_VERSION)

    @property
    def told(self) -> list[Any]:
        return [json.loads(message) for message in self.emitted]

    def call(self, method: str = "subscriptions/listen", **params: object) -> Call:
        made = call_of(self.session, method, **params)
        made.reply, made.id = self, Payload(b'"l"')
        return made


class Place:
    """Servers `a` and `b` with a resource each, what watches them, and their links."""

    def __init__(self, *names: str) -> None:
        self.clock = FakeClock()
        self.hub = hub(*(server(name) for name in names), clock=self.clock)
        self.backends = {name: FakeBackend(name) for name in names}
        for name in names:
            items = (json.dumps({"uri": f"{name}://1", "name": "1"}).encode(),)
            self.hub.adopt(Listing(name, 1, "handshake", (), (), items, (), capabilities=SAYS))
        tasks = Tasks(self.hub, cast("Fleet", self))  # it only calls `find`
        self.watching = Watching(self.hub, self.find, tasks, server_info=INFO, clock=self.clock)
        self.levels = LogLevels(self.hub, self.find, clock=self.clock)

    def find(self, name: str) -> Backend:
        if name not in self.backends:
            raise BackendUnavailable(name, "is no longer configured")
        return cast("Backend", self.backends[name])

    async def open(
        self, name: str, place: str = "", *, holder: Session | None = None, says: bytes = SAYS, deaf: bool = False
    ) -> tuple[Link, FakeTransport]:
        link = new_link(name=name, holder=holder, key=place, clock=self.clock)
        transport = FakeTransport(link, None if deaf else lambda pending: b'"result":{}')
        link.adopt("", Payload(says))
        self.backends[name].links[place] = link
        await self.levels.opened(link)
        await self.watching.opened(link)
        return link, transport

    async def ask(self, call: Call) -> Payload:
        methods = {**self.watching.methods, **self.levels.methods}
        result: Payload = await within(methods[call.method](call))
        return result

    def notice(
        self, link: Link, method: str, *, call: Call | None = None, concurrent: bool = False, **params: Any
    ) -> None:
        session = None if call is None else call.session
        handlers = {**self.watching.notifications, **self.levels.notifications}
        handlers[method](ServerNotification(link, method, Payload(encode(params)), call, session, concurrent))


# --- subscriptions ----------------------------------------------------------------------------------------------------


async def test_a_subscription_to_an_unknown_unreachable_or_unsupported_resource_is_refused() -> None:
    place, client = Place("a", "b"), client_of()
    with pytest.raises(UnknownItem):
        await place.ask(client.call("resources/subscribe", uri="c://1"))
    with pytest.raises(BackendUnavailable):
        await place.ask(client.call("resources/subscribe", uri="a://1"))
    await place.open("b", says=b'{"resources":{}}')
    with pytest.raises(UnknownMethod):
        await place.ask(client.call("resources/subscribe", uri="b://1"))
    with pytest.raises(InvalidParams):
        await place.ask(client.call("resources/unsubscribe"))
    assert "watchers=0" in repr(place.watching)


async def test_a_client_may_watch_so_many_resources() -> None:
    place, client = Place("a"), client_of()
    items = tuple(encode({"uri": f"a://{number}", "name": "n"}) for number in range(MAX_WATCHED + 1))
    place.hub.adopt(Listing("a", 2, "handshake", (), (), items, (), capabilities=SAYS))
    await place.open("a")
    for number in [*range(MAX_WATCHED), 0]:
        await place.ask(client.call("resources/subscribe", uri=f"a://{number}"))
    with pytest.raises(TooManyRequests):
        await place.ask(client.call("resources/subscribe", uri=f"a://{MAX_WATCHED}"))
    uris = [f"a://{number}" for number in range(MAX_WATCHED + 1)]
    with pytest.raises(InvalidParams):
        await place.ask(Stream().call(notifications={"resourceSubscriptions": uris}))


async def test_a_subscription_that_is_cancelled_before_the_backend_agrees_leaves_nothing() -> None:
    place, client = Place("a"), client_of()
    link, transport = await place.open("a", deaf=True)
    asking = asyncio.ensure_future(place.ask(client.call("resources/subscribe", uri="a://1")))
    pending = await transport.sent(1)
    asking.cancel()
    await asyncio.wait({asking})
    link.fed(b'{"jsonrpc":"2.0","id":%d,"result":{}}' % pending.number)
    await transport.sent(2)
    assert transport.methods == ["resources/subscribe", "resources/unsubscribe"]


async def test_subscriptions_are_restored_when_a_link_opens_again() -> None:
    place, client = Place("a"), client_of()
    link, _ = await place.open("a")
    await place.ask(client.call("resources/subscribe", uri="a://1"))
    link.lost(BackendLost("a", "gone"))
    again, transport = await place.open("a")
    assert transport.methods == ["resources/subscribe"]
    place.notice(link, UPDATED, uri="a://1")
    place.notice(again, UPDATED, uri="a://1")
    assert [told["params"]["uri"] for told in client.told] == ["a://1"], "the dead link's word does not count"


async def test_a_lost_link_of_one_watcher_is_opened_again_without_a_call() -> None:
    place, client = Place("a"), client_of()
    backend = place.backends["a"]
    backend.places[client.session] = "own"
    link, _ = await place.open("a", "own", holder=client.session)
    await place.ask(client.call("resources/subscribe", uri="a://1"))
    link.lost(BackendLost("a", "gone"))
    await place.clock.advance(REOPEN_AFTER)
    assert backend.reopened == [client.session]
    backend.is_full = True
    await place.open("a")  # the backend is back: another attempt, which is refused without harm
    assert backend.reopened == [client.session]
    del place.backends["a"]
    place.watching.ended(client.session)


async def test_a_watcher_moves_to_the_link_that_serves_its_calls() -> None:
    place, client, other = Place("a"), client_of("1"), client_of("2")
    shared, before = await place.open("a")
    for each in (client, other):
        await place.ask(each.call("resources/subscribe", uri="a://1"))
    for number, each in enumerate((client, other), start=1):
        place.backends["a"].places[each.session] = str(number)
        link, transport = await place.open("a", str(number), holder=each.session)
        assert (transport.methods, link.is_watched) == (["resources/subscribe"], True)
        told = len(each.told)
        place.notice(link, UPDATED, uri="a://1")
        place.notice(shared, UPDATED, uri="a://1")
        assert len(each.told) == told + 1
    assert (before.methods, shared.is_watched) == (["resources/subscribe", "resources/unsubscribe"], False)


async def test_subscriptions_of_the_primary_apply_to_secondary_links() -> None:
    place, stream = Place("a"), Stream()
    place.backends["a"].places[stream.session] = "principal x"
    await place.open("a")
    home, _ = await place.open("a", "principal x")
    _, early = await place.open("a", "principal x#1")
    listening = asyncio.ensure_future(place.ask(stream.call(notifications={"resourceSubscriptions": ["a://1"]})))
    await settled()
    beside, late = await place.open("a", "principal x#2")
    for link in (home, beside):
        place.notice(link, UPDATED, uri="a://1")
    assert [each["params"].get("uri") for each in stream.told] == [None, "a://1", "a://1"]
    assert (home.is_watched, beside.is_watched) == (True, False)
    place.watching.close()
    await within(listening)
    assert early.methods == late.methods == ["resources/subscribe", "resources/unsubscribe"]
    for link in (home, beside):
        link.lost(BackendLost("a", "gone"))


async def test_updates_without_a_watched_uri_are_dropped() -> None:
    place, client = Place("a"), client_of()
    link, _ = await place.open("a")
    await place.ask(client.call("resources/subscribe", uri="a://1"))
    for uri in ("a://2", 7, None, ["a://1"]):
        place.notice(link, UPDATED, uri=uri)
    place.notice(link, UPDATED)
    assert client.told == []
    meta = {"io.modelcontextprotocol/subscriptionId": 1, "theirs": 2}
    place.notice(link, UPDATED, uri="a://1", _meta=meta)
    assert client.told == [{"jsonrpc": "2.0", "method": UPDATED, "params": {"uri": "a://1", "_meta": {"theirs": 2}}}]
    place.notice(link, UPDATED, uri="a://1", _meta={"io.modelcontextprotocol/subscriptionId": 1})
    assert client.told[1]["params"] == {"uri": "a://1"}


# --- subscriptions/listen ---------------------------------------------------------------------------------------------


async def test_nothing_is_sent_before_the_acknowledgement() -> None:
    place, stream = Place("a"), Stream()
    link, transport = await place.open("a", deaf=True)
    call = stream.call(notifications={"toolsListChanged": True, "resourceSubscriptions": ["a://1", "x://"]})
    listening = asyncio.ensure_future(place.ask(call))
    pending = await transport.sent(1)
    place.notice(link, UPDATED, uri="a://1")
    assert stream.told == []
    link.fed(b'{"jsonrpc":"2.0","id":%d,"result":{}}' % pending.number)
    await settled()
    ack, told = stream.told
    assert ack["method"] == "notifications/subscriptions/acknowledged"
    assert ack["params"]["notifications"] == {"toolsListChanged": True, "resourceSubscriptions": ["a://1"]}
    assert told["params"]["_meta"] == {"io.modelcontextprotocol/subscriptionId": "l"}
    place.watching.close()
    result = json.loads(bytes(await within(listening)))
    assert result["_meta"]["io.modelcontextprotocol/subscriptionId"] == "l"
    assert not link.is_watched


async def test_a_listen_that_is_cancelled_or_ended_early_leaves_nothing() -> None:
    place = Place("a")
    link, _ = await place.open("a")
    cancelled = asyncio.ensure_future(place.ask(Stream().call(notifications={"resourceSubscriptions": ["a://1"]})))
    await settled()
    assert link.is_watched
    cancelled.cancel()
    await asyncio.wait({cancelled})
    ended = Stream().call(notifications={})
    ended.is_ending = True
    assert json.loads(bytes(await place.ask(ended)))["resultType"] == "complete"
    assert ("listens=0" in repr(place.watching), link.is_watched) == (True, False)


async def test_a_listen_is_ended_by_its_call() -> None:
    place, stream = Place("a"), Stream()
    call = stream.call(notifications={"toolsListChanged": True})
    listening = asyncio.ensure_future(place.ask(call))
    await settled()
    place.watching.end(stream.call())
    assert not listening.done()
    place.watching.end(call)
    assert json.loads(bytes(await within(listening)))["resultType"] == "complete"


async def test_a_backend_that_does_not_answer_is_left_out_of_the_acknowledgement() -> None:
    place, stream = Place("a"), Stream()
    link, _ = await place.open("a", deaf=True)
    listening = asyncio.ensure_future(place.ask(stream.call(notifications={"resourceSubscriptions": ["a://1"]})))
    await settled()
    assert stream.told == []
    await place.clock.advance(ACK_WAIT)
    assert stream.told[0]["params"]["notifications"] == {}
    assert not link.is_watched
    place.watching.close()
    await within(listening)
