"""Watching and log levels in front of links that only remember: what is counted, bounded, cleaned up, survived."""

import asyncio
import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from mcp_manifold.backends.backend import Backend
from mcp_manifold.backends.fleet import Fleet
from mcp_manifold.backends.link.link import Link
from mcp_manifold.backends.link.server_requests import ServerNotification, open_link
from mcp_manifold.core import listen
from mcp_manifold.core import watching as module
from mcp_manifold.core.log_levels import LogLevels
from mcp_manifold.core.tasks import Tasks
from mcp_manifold.core.watching import Watching
from mcp_manifold.errors import (
    BackendLost,
    BackendUnavailable,
    CallCancelled,
    InvalidParams,
    RemoteError,
    TooManyRequests,
    UnknownItem,
    UnknownMethod,
)
from mcp_manifold.model.call import Call, Session
from mcp_manifold.model.catalogue import Listing
from mcp_manifold.model.policy import ANONYMOUS
from mcp_manifold.wire import LATEST_HANDSHAKE, MODERN_VERSION, Envelope, Payload, encode
from tests.unit.backends.linking import FakeTransport, within
from tests.unit.core.house import INFO
from tests.unit.core.test_hub import hub, server

pytestmark = pytest.mark.anyio

SAYS = b'{"resources":{"subscribe":true},"logging":{}}'
UPDATED = "notifications/resources/updated"


class FakeBackend:
    """Its links, opened by hand: the shared one, and one for each session given a place of its own."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.settings = SimpleNamespace(timeout=5.0)
        self.links: dict[str, Link] = {}
        self.places: dict[Session, str] = {}
        self.reopened: list[Session] = []
        self.grown = asyncio.Event()
        self.is_full = False

    async def link_for(self, session: Session) -> Link:
        link = self.link_of(session)
        if link is None:
            raise BackendUnavailable(self.name, "is not reachable")
        return link

    def link_of(self, session: Session) -> Link | None:
        return self.links.get(self.places.get(session, ""))

    def is_served(self, session: Session, link: Link) -> bool:
        return self.places.get(session, "") == link.place

    def reopen(self, session: Session) -> None:
        if self.is_full:
            raise BackendUnavailable(self.name, "already has too many")
        self.reopened.append(session)
        self.grown.set()


class Client:
    """A handshake-era client's reach, which remembers."""

    def __init__(self, key: str = "c", scope: str = "") -> None:
        self.told: list[Any] = []
        self.session = Session(key, ANONYMOUS, scope, LATEST_HANDSHAKE, reach=self)

    def tell(self, message: bytes) -> bool:
        self.told.append(json.loads(message))
        return True

    def ask(self, method: str, params: Payload | None, call: Call | None) -> "asyncio.Future[Envelope]":
        raise AssertionError(method)

    def call(self, method: str, **params: object) -> Call:
        return call_of(self.session, method, **params)


class Stream:
    """Where a 2026-07-28 call's messages go."""

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.grown = asyncio.Event()
        self.session = Session("", ANONYMOUS, "", MODERN_VERSION)

    def __call__(self, message: bytes, /, *, needed: bool = False) -> None:
        self.told.append(json.loads(message))
        self.grown.set()

    def call(self, method: str = "subscriptions/listen", **params: object) -> Call:
        made = call_of(self.session, method, **params)
        made.emit, made.id = self, Payload(b'"l"')
        return made


def call_of(session: Session, method: str, **params: object) -> Call:
    return Call(
        method, {key: Payload(encode(value)) for key, value in params.items()}, session, lambda message, **_: None
    )


class Place:
    """Servers `a` and `b` with a resource each, what watches them, and their links."""

    def __init__(self, *names: str) -> None:
        self.hub = hub(*(server(name) for name in names), startup_timeout=0.01)
        self.backends = {name: FakeBackend(name) for name in names}
        for name in names:
            items = (json.dumps({"uri": f"{name}://1", "name": "1"}).encode(),)
            self.hub.adopt(Listing(name, 1, "handshake", (), (), items, (), capabilities=SAYS))
        tasks = Tasks(self.hub, cast("Fleet", self), server_info=INFO)  # only asked to find one
        self.watching = Watching(self.hub, self.find, tasks, server_info=INFO)
        self.levels = LogLevels(self.hub, self.find)

    def find(self, name: str) -> Backend:
        if name not in self.backends:
            raise BackendUnavailable(name, "is no longer configured")
        return cast("Backend", self.backends[name])  # only what is asked of one

    async def open(
        self, name: str, place: str = "", *, holder: Session | None = None, says: bytes = SAYS, deaf: bool = False
    ) -> tuple[Link, FakeTransport]:
        link = open_link(name, on_notification=lambda _: None, on_question=lambda _: None, holder=holder, place=place)
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
        notices = {**self.watching.notices, **self.levels.notices}
        notices[method](ServerNotification(link, method, Payload(encode(params)), call, session, concurrent))


async def until(grown: asyncio.Event, met: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not met():
            grown.clear()
            await grown.wait()


# --- subscriptions ----------------------------------------------------------------------------------------------------


async def test_a_client_that_leaves_lets_go_of_everything_it_watched() -> None:
    place, client, other = Place("a"), Client("1"), Client("2")
    link, transport = await place.open("a")
    for each in (client, other):
        await place.ask(each.call("resources/subscribe", uri="a://1"))
    place.watching.ended(client.session)
    assert (transport.methods, link.is_watched) == (["resources/subscribe"], True)
    place.watching.ended(other.session)
    place.watching.ended(other.session)
    assert (transport.methods, link.is_watched) == (["resources/subscribe", "resources/unsubscribe"], False)
    place.notice(link, UPDATED, uri="a://1")
    assert client.told == other.told == []


async def test_a_subscription_to_what_is_unknown_unreachable_or_silent_is_refused() -> None:
    place, client = Place("a", "b"), Client()
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


async def test_a_client_may_watch_so_much_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_WATCHED", 1)
    monkeypatch.setattr(listen, "MAX_WATCHED", 1)
    place, client = Place("a", "b"), Client()
    await place.open("a")
    await place.open("b")
    for _ in range(2):
        await place.ask(client.call("resources/subscribe", uri="a://1"))
    with pytest.raises(TooManyRequests):
        await place.ask(client.call("resources/subscribe", uri="b://1"))
    with pytest.raises(InvalidParams):
        await place.ask(Stream().call(notifications={"resourceSubscriptions": ["a://1", "b://1"]}))


async def test_a_subscription_that_is_given_up_while_the_backend_thinks_leaves_nothing() -> None:
    place, client = Place("a"), Client()
    link, transport = await place.open("a", deaf=True)
    asking = asyncio.ensure_future(place.ask(client.call("resources/subscribe", uri="a://1")))
    pending = await transport.sent(1)
    asking.cancel()
    await asyncio.wait({asking})
    link.fed(b'{"jsonrpc":"2.0","id":%d,"result":{}}' % pending.number)
    await transport.sent(2)
    assert transport.methods == ["resources/subscribe", "resources/unsubscribe"]


async def test_what_is_watched_over_a_link_is_asked_for_when_it_opens_again() -> None:
    place, client = Place("a"), Client()
    link, _ = await place.open("a")
    await place.ask(client.call("resources/subscribe", uri="a://1"))
    link.lost(BackendLost("a", "gone"))
    again, transport = await place.open("a")
    assert transport.methods == ["resources/subscribe"]
    place.notice(link, UPDATED, uri="a://1")
    place.notice(again, UPDATED, uri="a://1")
    assert [told["params"]["uri"] for told in client.told] == ["a://1"], "the dead link's word does not count"


async def test_a_link_of_a_watchers_own_is_opened_again_though_nobody_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REOPEN_AFTER", 0.0)
    place, client = Place("a"), Client()
    backend = place.backends["a"]
    backend.places[client.session] = "own"
    link, _ = await place.open("a", "own", holder=client.session)
    await place.ask(client.call("resources/subscribe", uri="a://1"))
    link.lost(BackendLost("a", "gone"))
    await until(backend.grown, lambda: backend.reopened == [client.session])
    backend.is_full = True
    await place.open("a")  # the backend is back: another attempt, which is refused without harm
    assert backend.reopened == [client.session]
    del place.backends["a"]
    place.watching.ended(client.session)


async def test_a_watcher_moves_to_the_link_that_serves_its_calls_from_now_on() -> None:
    place, client, other = Place("a"), Client("1"), Client("2")
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


async def test_what_is_watched_at_home_is_told_over_the_links_beside_it_as_well() -> None:
    place, stream = Place("a"), Stream()
    place.backends["a"].places[stream.session] = "principal x"
    await place.open("a")
    home, _ = await place.open("a", "principal x")
    _, early = await place.open("a", "principal x#1")
    listening = asyncio.ensure_future(place.ask(stream.call(notifications={"resourceSubscriptions": ["a://1"]})))
    await until(stream.grown, lambda: bool(stream.told))
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


async def test_what_a_backend_says_of_nothing_is_not_told() -> None:
    place, client = Place("a"), Client()
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


async def test_nothing_goes_out_before_the_acknowledgement() -> None:
    place, stream = Place("a"), Stream()
    link, transport = await place.open("a", deaf=True)
    call = stream.call(notifications={"toolsListChanged": True, "resourceSubscriptions": ["a://1", "x://"]})
    listening = asyncio.ensure_future(place.ask(call))
    pending = await transport.sent(1)
    place.notice(link, UPDATED, uri="a://1")
    assert stream.told == []
    link.fed(b'{"jsonrpc":"2.0","id":%d,"result":{}}' % pending.number)
    await until(stream.grown, lambda: len(stream.told) == 2)
    ack, told = stream.told
    assert ack["method"] == "notifications/subscriptions/acknowledged"
    assert ack["params"]["notifications"] == {"toolsListChanged": True, "resourceSubscriptions": ["a://1"]}
    assert told["params"]["_meta"] == {"io.modelcontextprotocol/subscriptionId": "l"}
    place.watching.close()
    result = json.loads(bytes(await within(listening)))
    assert result["_meta"]["io.modelcontextprotocol/subscriptionId"] == "l"
    assert not link.is_watched


async def test_a_listen_that_is_cancelled_or_finished_early_ends_at_once() -> None:
    place = Place("a")
    taken_back, finished = Stream().call(notifications={}), Stream().call(notifications={})
    taken_back.cancel()
    finished.finish()
    with pytest.raises(CallCancelled):
        await place.ask(taken_back)
    assert json.loads(bytes(await place.ask(finished)))["resultType"] == "complete"
    assert "listens=0" in repr(place.watching)


async def test_a_backend_that_does_not_answer_is_left_out_of_the_acknowledgement(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "ACK_WAIT", 0.01)
    place, stream = Place("a"), Stream()
    link, _ = await place.open("a", deaf=True)
    listening = asyncio.ensure_future(place.ask(stream.call(notifications={"resourceSubscriptions": ["a://1"]})))
    await until(stream.grown, lambda: bool(stream.told))
    assert stream.told[0]["params"]["notifications"] == {}
    assert not link.is_watched
    place.watching.close()
    await within(listening)


# --- log levels -------------------------------------------------------------------------------------------------------


async def test_a_backend_without_logging_is_not_told_a_level() -> None:
    place, client = Place("a", "b"), Client()
    _, loud = await place.open("a")
    _, mute = await place.open("b", says=b"{}")
    await place.ask(client.call("logging/setLevel", level="debug"))
    assert (loud.methods, mute.methods) == (["logging/setLevel"], [])


async def test_a_client_of_one_server_does_not_turn_up_another() -> None:
    place, client = Place("a", "b"), Client(scope="server:a")
    _, mine = await place.open("a")
    link, other = await place.open("b")
    await place.ask(client.call("logging/setLevel", level="debug"))
    assert (mine.methods, other.methods) == (["logging/setLevel"], [])
    place.notice(link, "notifications/message", level="alert", data=1)
    assert client.told == []


async def test_a_level_that_a_backend_refuses_is_not_asked_for_for_ever() -> None:
    place, client = Place("a"), Client()
    link, transport = await place.open("a", deaf=True)
    asking = asyncio.ensure_future(place.ask(client.call("logging/setLevel", level="debug")))
    pending = await transport.sent(1)
    link.fail(pending, RemoteError(b"{}", code=-32603, backend="a"))
    assert bytes(await within(asking)) == b"{}"
    await place.ask(client.call("logging/setLevel", level="debug"))
    assert transport.methods == ["logging/setLevel"]


async def test_the_last_word_on_a_level_counts_whatever_came_before_it_was_taken() -> None:
    place, client = Place("a"), Client()
    client.session.key = "own"
    place.backends["a"].places[client.session] = "own"
    link, transport = await place.open("a", "own", holder=client.session, deaf=True)
    asked = [
        asyncio.ensure_future(place.ask(client.call("logging/setLevel", level=level)))
        for level in ("debug", "error", "warning")
    ]
    for count in (1, 2):
        pending = await transport.sent(count)
        link.fed(b'{"jsonrpc":"2.0","id":%d,"result":{}}' % pending.number)
    await within(asyncio.gather(*asked))
    assert [body["params"]["level"] for _, body in transport.requests] == ["debug", "warning"]


async def test_what_may_be_about_several_calls_is_counted_and_dropped() -> None:
    place, client = Place("a"), Client()
    link, _ = await place.open("a")
    await place.ask(client.call("logging/setLevel", level="debug"))
    place.notice(link, "notifications/message", level="alert", data=1, concurrent=True)
    assert client.told == []
    assert place.levels.dropped == 1


@pytest.mark.parametrize("level", ["loud", 7, None, "INFO"])
async def test_a_message_without_a_level_of_the_protocol_goes_nowhere(level: object) -> None:
    place, client = Place("a"), Client()
    link, _ = await place.open("a")
    await place.ask(client.call("logging/setLevel", level="debug"))
    place.notice(link, "notifications/message", level=level, data=1)
    assert client.told == []


async def test_a_modern_call_hears_nothing_it_did_not_ask_for() -> None:
    place, stream = Place("a"), Stream()
    link, _ = await place.open("a")
    call = stream.call("tools/call")
    place.notice(link, "notifications/message", call=call, level="emergency", data=1)
    stream.session.log_level = "error"
    place.notice(link, "notifications/message", call=call, level="warning", data=2)
    place.notice(link, "notifications/message", call=call, level="error", data=3)
    assert [told["params"]["data"] for told in stream.told] == [3]


async def test_a_server_that_left_the_configuration_harms_nobody() -> None:
    place, client = Place("a", "b"), Client()
    link, _ = await place.open("a")
    await place.ask(client.call("logging/setLevel", level="debug"))
    del place.backends["a"]
    place.notice(link, "notifications/message", level="alert", data=1)
    await place.ask(client.call("logging/setLevel", level="info"))
    async with place.levels.raised(link, "debug"):
        pass
    place.levels.ended(client.session)
    assert client.told == []
    assert "clients=0" in repr(place.levels)


async def test_the_levels_of_modern_calls_add_up_and_pass() -> None:
    place = Place("a")
    link, transport = await place.open("a")
    async with place.levels.raised(link, "error"), place.levels.raised(link, "debug"):
        pass
    await transport.sent(3)
    assert [body["params"]["level"] for _, body in transport.requests] == ["info", "debug", "info"]
