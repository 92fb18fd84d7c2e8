"""Subscriptions at a backend: one per URI in the handshake era, one for all in the modern era."""

import asyncio
from typing import Any

import pytest

from mcp_manifold.backends.link.pending import PendingRequest
from mcp_manifold.backends.lists.listening import LISTEN_ACK_WAIT, LISTEN_RETRY, Listening
from mcp_manifold.backends.lists.reports import Subscribing, offers_subscriptions
from mcp_manifold.errors import BackendError, BackendLost, BackendTimeout, InvalidParams, RemoteError
from mcp_manifold.wire import EMPTY, Payload, encode, modern_stamp, object_members
from mcp_manifold.wire.protocol import META_SUBSCRIPTION
from tests.fakes.clock import FakeClock
from tests.unit.backends.linking import FakeTransport, Heard, connected, within

pytestmark = pytest.mark.anyio

ALL = b'{"tools":{"listChanged":true},"prompts":{},"resources":{"listChanged":true,"subscribe":true}}'
LOST = BackendLost("notes", "gone")


class Server:
    """A fake backend that answers when a test tells it to."""

    def __init__(self, capabilities: bytes = ALL, *, modern: bool = False) -> None:
        self.heard = Heard()
        self.link, self.transport = connected(heard=self.heard)
        if modern:
            self.link.stamp(modern_stamp(EMPTY, EMPTY))
        self.link.adopt("", Payload(capabilities))

    @property
    def asked(self) -> list[tuple[str, Any]]:
        """Method and URI, or what was listened to."""
        return [
            (pending.method.partition("/")[2], body["params"].get("uri") or body["params"].get("notifications"))
            for pending, body in self.transport.requests
        ]

    async def answer(self, count: int, error: str = "") -> PendingRequest:
        pending = await self.transport.sent(count)
        said = f'"error":{{"code":-32603,"message":"{error}"}}' if error else '"result":{}'
        self.link.fed(f'{{"jsonrpc":"2.0","id":{pending.number},{said}}}'.encode())
        await asyncio.sleep(0)
        return pending

    async def acknowledge(self, reports: Listening, count: int, *uris: str) -> PendingRequest:
        pending = await self.transport.sent(count)
        reports.acknowledged(object_members(self.acknowledgement(pending, *uris)))
        return pending

    @staticmethod
    def acknowledgement(pending: PendingRequest, *uris: str) -> Payload:
        meta = {META_SUBSCRIPTION: pending.number}
        return Payload(encode({"notifications": {"resourceSubscriptions": uris}, "_meta": meta}))


def subscribing() -> tuple[Server, Subscribing]:
    """A backend of the handshake era, and the subscriptions at it."""
    server = Server()
    return server, Subscribing(server.link, timeout=5)


def listening(
    capabilities: bytes = ALL, *, lists: bool = False, clock: FakeClock | None = None
) -> tuple[Server, Listening]:
    """A backend of the modern era, and the subscription at it."""
    server = Server(capabilities, modern=True)
    return server, Listening(server.link, lists=lists, clock=clock)


def gone(transport: FakeTransport) -> list[Any]:
    """The numbers of the cancelled requests."""
    return [note["params"]["requestId"] for note in transport.notes if note["method"] == "notifications/cancelled"]


@pytest.mark.parametrize(
    ("capabilities", "offered"),
    [
        (b'{"resources":{"subscribe":true}}', True),
        (b'{"resources":{"subscribe":false}}', False),
        (b'{"resources":{}}', False),
        (b'{"resources":true}', False),
        (b"{}", False),
    ],
)
async def test_subscriptions_are_offered_where_they_are_declared(capabilities: bytes, offered: bool) -> None:
    assert offers_subscriptions(Server(capabilities).link) is offered


# --- the handshake era ----------------------------------------------------------------------------------------------


async def test_a_uri_is_subscribed_once_for_all_who_want_it() -> None:
    server, reports = subscribing()
    first, second = reports.want("a://x"), reports.want("a://x")
    assert not first.done()
    await server.answer(1)
    await within(asyncio.gather(first, second))
    await within(reports.want("a://x"))
    assert server.asked == [("subscribe", "a://x")]


async def test_subscribing_and_unsubscribing_never_overtake_one_another() -> None:
    server, reports = subscribing()
    reports.want("a://x")
    reports.drop("a://x")
    again = reports.want("a://x")
    reports.drop("a://x")
    assert server.asked == [("subscribe", "a://x")], "the first is not answered yet"
    await server.answer(1)
    await server.answer(2)
    assert server.asked == [("subscribe", "a://x"), ("unsubscribe", "a://x")]
    await within(again)
    assert repr(reports) == "<Subscribing notes uris=0>"


async def test_a_refusal_fails_all_who_wait_and_is_forgotten() -> None:
    server, reports = subscribing()
    waiting = [reports.want("a://x"), reports.want("a://x")]
    await server.answer(1, "no")
    for outcome in waiting:
        assert isinstance(outcome.exception(), RemoteError)
    reports.drop("a://x")
    reports.want("a://x")
    assert [method for method, _ in server.asked] == ["subscribe", "subscribe"]


async def test_a_failed_unsubscribe_counts_as_done() -> None:
    server, reports = subscribing()
    reports.want("a://x")
    await server.answer(1)
    reports.drop("a://x")
    await server.answer(2, "no")
    reports.want("a://x")
    assert [method for method, _ in server.asked] == ["subscribe", "unsubscribe", "subscribe"]


async def test_a_lost_link_fails_present_and_later_wishes() -> None:
    server, reports = subscribing()
    waiting = reports.want("a://x")
    server.link.lost(LOST)
    await asyncio.sleep(0)
    assert isinstance(waiting.exception(), BackendError)
    assert isinstance(reports.want("a://y").exception(), BackendError)
    reports.drop("a://x")


# --- 2026-07-28 -------------------------------------------------------------------------------------------------------


async def test_one_subscription_asks_for_the_declared_lists_and_what_is_wanted() -> None:
    server, reports = listening(lists=True)
    ready, wanted = reports.start(), [reports.want("a://y"), reports.want("a://x")]
    await server.acknowledge(reports, 1, "a://x", "a://y")
    await within(asyncio.gather(ready, *wanted))
    lists = {"toolsListChanged": True, "resourcesListChanged": True}
    assert server.asked == [("listen", {**lists, "resourceSubscriptions": ["a://x", "a://y"]})]
    assert not server.link.is_busy, "it stands; nobody waits for its answer"


@pytest.mark.parametrize(("capabilities", "lists"), [(b"{}", True), (ALL, False)])
async def test_where_there_is_nothing_to_ask_for_nothing_is_asked(capabilities: bytes, lists: bool) -> None:
    server = Server(capabilities, modern=True)
    assert Listening(server.link, lists=lists).start().done()
    await asyncio.sleep(0)
    assert server.asked == []


async def test_the_old_subscription_is_closed_once_the_new_one_stands() -> None:
    server, reports = listening(lists=True)
    reports.start()
    first = await server.acknowledge(reports, 1)
    wanted = reports.want("a://x")
    second = await server.transport.sent(2)
    assert gone(server.transport) == []
    assert reports.is_due(object_members(server.acknowledgement(first)))
    assert not reports.is_due(object_members(server.acknowledgement(second)))
    await server.acknowledge(reports, 2, "a://x")
    await within(wanted)
    assert gone(server.transport) == [first.number]
    assert not reports.is_due(object_members(server.acknowledgement(first))), "the new one brings it as well"
    reports.drop("a://x")
    await server.acknowledge(reports, 3)
    assert gone(server.transport) == [first.number, second.number]


async def test_wishes_that_come_while_one_opens_are_asked_for_together_afterwards() -> None:
    server, reports = listening()
    first = reports.want("a://1")
    await server.transport.sent(1)
    later = [reports.want("a://2"), reports.want("a://3")]
    await server.acknowledge(reports, 1, "a://1")
    await within(first)
    await server.acknowledge(reports, 2, "a://1", "a://2", "a://3")
    await within(asyncio.gather(*later))
    assert [asked["resourceSubscriptions"] for _, asked in server.asked] == [["a://1"], ["a://1", "a://2", "a://3"]]


async def test_what_the_backend_does_not_honour_is_refused() -> None:
    server, reports = listening()
    honoured, refused = reports.want("a://x"), reports.want("a://y")
    await server.acknowledge(reports, 1, "a://x")
    await within(honoured)
    assert isinstance(refused.exception(), InvalidParams)


async def test_the_last_wish_gone_closes_the_subscription() -> None:
    server, reports = listening()
    reports.want("a://x")
    pending = await server.acknowledge(reports, 1, "a://x")
    reports.drop("a://x")
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert gone(server.transport) == [pending.number]
    assert len(server.asked) == 1


async def test_a_backend_that_knows_no_subscriptions_is_not_asked_again() -> None:
    server, reports = listening(lists=True)
    ready = reports.start()
    pending = await server.transport.sent(1)
    server.link.fed(b'{"jsonrpc":"2.0","id":%d,"error":{"code":-32601,"message":"no"}}' % pending.number)
    await within(ready)
    with pytest.raises(BackendError):
        await within(reports.want("a://x"))
    assert len(server.asked) == 1
    assert "refused" in repr(reports)


async def test_a_subscription_that_ends_is_opened_again_and_what_was_missed_made_up_for() -> None:
    clock = FakeClock()
    server, reports = listening(lists=True, clock=clock)
    reports.start()
    reports.want("a://x")
    await server.acknowledge(reports, 1, "a://x")
    assert server.heard.notes == []
    await server.answer(1)  # it ends, well
    await clock.advance(LISTEN_RETRY)
    await server.answer(2, "busy")  # the second attempt fails
    await clock.advance(2 * LISTEN_RETRY)
    await server.acknowledge(reports, 3, "a://x")
    told = [(method, params) for method, params, _ in server.heard.notes]
    assert told == [
        ("notifications/tools/list_changed", b"{}"),
        ("notifications/resources/list_changed", b"{}"),
        ("notifications/resources/updated", b'{"uri":"a://x"}'),
    ]
    assert reports.is_due({}), "what carries no tag is not doubted"


async def test_a_backend_that_never_acknowledges_leaves_nobody_waiting() -> None:
    clock = FakeClock()
    server, reports = listening(clock=clock)
    wanted = reports.want("a://x")
    await server.transport.sent(1)
    await clock.advance(LISTEN_ACK_WAIT)
    assert isinstance(wanted.exception(), BackendTimeout)
    assert gone(server.transport) == [1]


async def test_an_acknowledgement_of_something_else_changes_nothing() -> None:
    server, reports = listening()
    wanted = reports.want("a://x")
    await server.transport.sent(1)
    reports.acknowledged({"_meta": Payload(b'{"%b":99}' % META_SUBSCRIPTION.encode())})
    assert not wanted.done()
    reports.acknowledged({"notifications": Payload(b'{"resourceSubscriptions":7}')})  # without a tag, and garbled
    assert isinstance(wanted.exception(), InvalidParams)


async def test_the_end_of_the_link_ends_the_subscription() -> None:
    server, reports = listening(lists=True)
    ready = reports.start()
    await server.transport.sent(1)
    server.link.lost(LOST)
    await within(ready)
    assert isinstance(await _failure(reports.want("a://x")), BackendError)
    assert len(server.asked) == 1


async def _failure(outcome: "asyncio.Future[None]") -> BaseException | None:
    await within(asyncio.wait({outcome}))
    return outcome.exception()
