"""What clients asked to be told: changes of resources and lists, in either era, from backends of either."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from tests.contract.behaviours import shows
from tests.contract.offers import SHARED, offering, offerings
from tests.contract.stand import ERAS, IN_PROCESS, KINDS, LATEST, MODERN, STREAMED, script_of, standing
from tests.peers import BOUND, jsontext
from tests.peers.backend import Act, Script, prompt, resource, tool
from tests.peers.clients import MODERN_VERSION, Client, PendingRequest
from tests.peers.message import META
from tests.peers.recorder import Received
from tests.peers.ways import Way

pytestmark = pytest.mark.anyio

UPDATED = "notifications/resources/updated"
ACKNOWLEDGED = "notifications/subscriptions/acknowledged"
SHARING = tuple(way for way in STREAMED if way.transport != "stdio")
"""Ways on which several clients have one manifold."""


def uri_of(kind: str, number: int = 1) -> str:
    return f"note://{kind}/{number}"


def several(kind: str) -> Script:
    """A backend with three resources."""
    listed = tuple(resource(uri_of(kind, number)) for number in (1, 2, 3))
    return replace(offering(kind), resources=listed, templates=())


def touching(kind: str, told: str) -> Script:
    """The same with a tool that sends this notification."""
    return replace(several(kind), tools=(tool("touch", Act("notify", told)),))


async def reported(backend: Any, uri: str, method: str = UPDATED, **members: str) -> None:
    """Let a backend report a change, once all that are subscribed over HTTP have the stream for it."""
    engine = getattr(backend, "engine", None)
    for conversation in () if engine is None else list(engine.conversations):
        if conversation.subscribed:
            async with asyncio.timeout(BOUND):
                await conversation.standing_opened.wait()
    await backend.announce(method, jsontext.text({"uri": uri, **members}).decode())


def updates(client: Client) -> list[str]:
    """The URIs a client was told of."""
    return [
        str(jsontext.value(jsontext.member(each.params, "uri"))) for each in client.received if each.method == UPDATED
    ]


def tag(raw: bytes) -> bytes | None:
    return jsontext.member(raw, "params", "_meta", META + "subscriptionId")


async def listen(client: Client, *uris: str, **lists: bool) -> PendingRequest:
    """An acknowledged subscription."""
    wanted = {**lists, **({"resourceSubscriptions": list(uris)} if uris else {})}
    pending = await client.begin("subscriptions/listen", {"notifications": wanted})
    await pending.heard()
    return pending


def of(method: str, uri: str) -> Any:
    return lambda item: item.method == method and jsontext.value(jsontext.member(item.params, "uri")) == uri


# --- handshake-era clients


@shows("subscribe")
@pytest.mark.parametrize("way", STREAMED, ids=str)
async def test_a_change_is_told_to_who_subscribed_until_it_leaves_off(way: Way) -> None:
    scripts = {kind: several(kind) for kind in KINDS}
    async with standing(scripts) as stand, stand.client(way) as client:
        await client.watch()
        for kind in KINDS:
            for number in (1, 2):
                reply = await client.request("resources/subscribe", {"uri": uri_of(kind, number)})
                assert reply.result == b"{}", reply
            await reported(stand[kind], uri_of(kind), **{"x-unknown": "kept"})
            told = await client.wait_for(lambda each, kind=kind: of(UPDATED, uri_of(kind))(each))
            assert jsontext.member(told.params, "x-unknown") == b'"kept"'
            assert jsontext.member(told.params, "_meta", META + "subscriptionId") is None
            assert (await client.request("resources/unsubscribe", {"uri": uri_of(kind)})).result == b"{}"
            await _left_off(stand[kind], kind)
            await reported(stand[kind], uri_of(kind))
            await reported(stand[kind], uri_of(kind, 2))
            await client.wait_for(lambda each, kind=kind: of(UPDATED, uri_of(kind, 2))(each))
        assert updates(client) == [uri_of(kind, number) for kind in KINDS for number in (1, 2)]


async def _left_off(backend: Any, kind: str) -> None:
    """The backend was told that its first resource is watched no more."""
    if ERAS[kind] == "handshake":
        await backend.wait_for("resources/unsubscribe")
        return

    def without(item: Received) -> bool:
        asked = jsontext.value(jsontext.member(item.params, "notifications", "resourceSubscriptions"))
        return item.method == "subscriptions/listen" and asked == [uri_of(kind, 2)]

    await backend.wait_for(without)
    await backend.wait_cancelled()


@shows("subscribe", "subscribe-own")
@pytest.mark.parametrize("way", STREAMED, ids=str)
async def test_a_change_of_a_sub_resource_is_told_to_who_subscribed_to_the_whole(way: Way) -> None:
    part = '{"jsonrpc":"2.0","method":"%s","params":{"uri":"%s/part"}}'
    scripts = {kind: touching(kind, part % (UPDATED, uri_of(kind))) for kind in KINDS}
    async with standing(scripts) as stand, stand.client(way) as client:
        await client.watch()
        for kind in KINDS:
            await client.call(f"{kind}__touch")
            await client.request("resources/subscribe", {"uri": uri_of(kind)})
            await client.call(f"{kind}__touch")
            await client.wait_for(lambda each, kind=kind: of(UPDATED, f"{uri_of(kind)}/part")(each))
        assert updates(client) == [f"{uri_of(kind)}/part" for kind in KINDS]


@shows("subscribe", "subscribe-own")
@pytest.mark.parametrize("way", SHARING, ids=str)
async def test_a_uri_of_two_backends_is_told_as_the_client_knows_it(way: Way) -> None:
    async with standing(offerings(("web", "stream"))) as stand, stand.client(way) as first, stand.client(way) as second:
        await first.watch()
        await second.watch()
        await first.request("resources/subscribe", {"uri": SHARED})
        await second.request("resources/subscribe", {"uri": f"stream+{SHARED}"})
        await reported(stand["stream"], SHARED)
        await reported(stand["web"], SHARED)
        await first.wait_for(UPDATED)
        await second.wait_for(UPDATED)
        assert updates(first) == [SHARED]
        assert updates(second) == [f"stream+{SHARED}"]


@shows("subscribe-own")
@pytest.mark.parametrize("way", SHARING, ids=str)
async def test_two_clients_hear_of_their_own_resources_only(way: Way) -> None:
    scripts = {kind: several(kind) for kind in KINDS}
    async with standing(scripts) as stand, stand.client(way) as first, stand.client(way) as second:
        await first.watch()
        await second.watch()
        for kind in KINDS:
            for client, number in ((first, 1), (second, 2), (first, 3), (second, 3)):
                await client.request("resources/subscribe", {"uri": uri_of(kind, number)})
            for number in (1, 2, 3):
                await reported(stand[kind], uri_of(kind, number))
            for client in (first, second):
                await client.wait_for(lambda each, kind=kind: of(UPDATED, uri_of(kind, 3))(each))
        assert updates(first) == [uri_of(kind, number) for kind in KINDS for number in (1, 3)]
        assert updates(second) == [uri_of(kind, number) for kind in KINDS for number in (2, 3)]


@shows("subscribe-once")
@pytest.mark.parametrize("way", SHARING, ids=str)
async def test_a_shared_backend_is_asked_at_the_first_and_let_go_at_the_last(way: Way) -> None:
    async with standing({"pipe": several("pipe")}) as stand, stand.client(way) as first:
        async with stand.client(way) as second:
            for client in (first, second, second):
                assert (await client.request("resources/subscribe", {"uri": uri_of("pipe")})).result == b"{}"
            await first.request("resources/unsubscribe", {"uri": uri_of("pipe")})
            await second.call("pipe__echo")
            assert [each.method for each in stand["pipe"].requests if "subscribe" in each.method] == [
                "resources/subscribe"
            ]
            if way.transport == "http":
                assert await second.delete() < 300
        await stand["pipe"].wait_for("resources/unsubscribe")  # the last one vanished
        assert len(stand["pipe"].calls("resources/subscribe")) == 1


@shows("subscribe-kept")
@pytest.mark.parametrize("kind", KINDS)
async def test_a_backend_that_comes_back_or_lost_its_connection_is_asked_again(kind: str) -> None:
    asked = "resources/subscribe" if ERAS[kind] == "handshake" else "subscriptions/listen"
    async with standing({kind: several(kind)}) as stand, stand.client(Way("http", LATEST)) as client:
        await client.watch()
        await client.request("resources/subscribe", {"uri": uri_of(kind)})
        before = len(stand[kind].calls(asked))
        if kind in IN_PROCESS:
            if kind == "web":
                stand[kind].forget_sessions()
            await stand[kind].reset_connections()
        else:
            await stand[kind].exit(1)
        await stand[kind].wait_for(asked, count=before + 1)
        await client.wait_for(UPDATED)  # what may have been missed counts as changed
        assert (await client.call(f"{kind}__echo", {"text": "back"})).text == "back"  # over the new connection
        heard = len(updates(client))
        await reported(stand[kind], uri_of(kind))
        await client.wait_for(UPDATED, count=heard + 1)
        assert set(updates(client)) == {uri_of(kind)}


@shows("subscribe-refused")
@pytest.mark.parametrize("way", STREAMED, ids=str)
async def test_what_cannot_be_subscribed_to_is_said_to_be_so(way: Way) -> None:
    deaf = script_of("web_deaf", resources=(resource("deaf://1"),), capabilities='{"resources":{}}')
    scripts = {"web_deaf": deaf, "stream": several("stream")}
    async with standing(scripts) as stand, stand.client(way) as client:
        assert (await client.request("resources/subscribe", {"uri": "deaf://1"})).code == -32601
        assert (await client.request("resources/subscribe", {"uri": "nowhere://1"})).code == -32002
        assert (await client.request("resources/subscribe", {})).code == -32602
        assert (await client.request("resources/subscribe", {"uri": 7})).code == -32602
        assert (await client.request("subscriptions/listen", {"notifications": {}})).code == -32601
        assert stand["web_deaf"].calls("resources/subscribe") == []


@shows("subscribe-refused")
async def test_a_refusal_of_the_backend_is_passed_on_and_nothing_is_left_of_it() -> None:
    script = script_of(
        "web",
        resources=(resource(uri_of("web")),),
        on={"resources/subscribe": Act("error", '{"code":-32050,"message":"not this one"}')},
    )
    async with standing({"web": script}) as stand, stand.client(Way("http", LATEST)) as client:
        for count in (1, 2):
            assert (await client.request("resources/subscribe", {"uri": uri_of("web")})).code is not None
            assert len(stand["web"].calls("resources/subscribe")) == count


# --- 2026-07-28 clients -----------------------------------------------------------------------------------------------


@shows("listen", "listen-filter")
@pytest.mark.parametrize("way", MODERN, ids=str)
async def test_a_subscription_is_acknowledged_first_and_brings_what_was_asked_for(way: Way) -> None:
    async with standing({kind: several(kind) for kind in KINDS}) as stand, stand.client(way) as client:
        wanted = [uri_of(kind) for kind in KINDS]
        asked = {"promptsListChanged": True, "toolsListChanged": False, "resourceSubscriptions": [*wanted, "no://such"]}
        pending = await client.begin("subscriptions/listen", {"notifications": asked}, id="the client's")
        (ack,) = await pending.heard()
        assert jsontext.member(ack, "method") == jsontext.text(ACKNOWLEDGED)
        honoured = jsontext.value(jsontext.member(ack, "params", "notifications"))
        assert honoured == {"promptsListChanged": True, "resourceSubscriptions": wanted}
        for kind in KINDS:
            await reported(stand[kind], uri_of(kind, 2))
            await reported(stand[kind], uri_of(kind))
            await client.wait_for(lambda each, kind=kind: of(UPDATED, uri_of(kind))(each))
        await stand["web"].set_tools([tool("fresh")])
        await stand["web26"].set_offers("prompts", [prompt("fresh")])
        await client.wait_for("notifications/prompts/list_changed")
        assert updates(client) == wanted
        assert not [each for each in client.received if each.method == "notifications/tools/list_changed"]
        assert {tag(raw) for raw in pending.notifications} == {b'"the client\'s"'}
        assert not pending.is_done


@shows("listen", "subscribe-own")
@pytest.mark.parametrize("way", MODERN, ids=str)
async def test_two_subscriptions_of_a_client_are_kept_apart(way: Way) -> None:
    async with standing({kind: several(kind) for kind in IN_PROCESS}) as stand, stand.client(way) as client:
        first = await listen(client, *(uri_of(kind) for kind in IN_PROCESS))
        second = await listen(client, *(uri_of(kind, number) for kind in IN_PROCESS for number in (2, 3)))
        for kind in IN_PROCESS:
            for number in (1, 2, 3):
                await reported(stand[kind], uri_of(kind, number))
        await first.heard(1 + len(IN_PROCESS))
        await second.heard(1 + 2 * len(IN_PROCESS))
        assert {tag(raw) for raw in first.notifications} == {first.id}
        assert {tag(raw) for raw in second.notifications} == {second.id}
        told = [jsontext.value(jsontext.member(raw, "params", "uri")) for raw in first.notifications[1:]]
        assert sorted(told) == sorted(uri_of(kind) for kind in IN_PROCESS)


@shows("listen", "subscribe")
@pytest.mark.parametrize("early", [True, False])
@pytest.mark.parametrize("way", [Way("http", LATEST), *MODERN], ids=str)
async def test_what_a_client_has_a_process_do_is_told_where_it_listens(way: Way, early: bool) -> None:
    """Also when the server turns out to ask its clients things, so that calls go to another process."""
    form = '{"method":"elicitation/create","params":{"mode":"form","message":"m","requestedSchema":{}}}'
    told = f'{UPDATED} {{"uri":"{uri_of("pipe")}"}}'
    tools = (tool("touch", Act("announce", told)), tool("ask", Act("ask", form)), tool("hang", Act("hang")))
    answers = {"elicitation/create": '{"action":"accept","content":{}}'}
    async with (
        standing({"pipe": replace(several("pipe"), tools=tools)}) as stand,
        stand.client(way, answers=answers) as client,
    ):
        await client.watch()
        if not early:
            await client.call("pipe__ask")
        if client.is_modern:
            await listen(client, uri_of("pipe"))
        else:
            await client.request("resources/subscribe", {"uri": uri_of("pipe")})
        if early:
            await client.call("pipe__ask")
        await client.call("pipe__touch")
        await client.wait_for(UPDATED)
        given_up = await client.begin("tools/call", {"name": "pipe__hang"})
        await stand["pipe"].wait_for(lambda item: item.method == "tools/call" and b"hang" in item.raw)
        await client.cancel(given_up)
        await stand["pipe"].wait_cancelled()
        await client.call("pipe__touch")
        await client.wait_for(UPDATED, count=2)
        assert updates(client) == [uri_of("pipe")] * 2
        assert len(stand["pipe"].pids) == 2


@shows("listen", "listen-filter")
@pytest.mark.parametrize("way", MODERN, ids=str)
async def test_every_list_is_announced_to_who_asked_for_it(way: Way) -> None:
    async with standing(offerings(("web", "web26"))) as stand, stand.client(way) as client:
        await client.request("tools/list")
        pending = await listen(client, toolsListChanged=True, resourcesListChanged=True)
        await stand["web26"].set_tools([tool("fresh")])
        await client.wait_for("notifications/tools/list_changed")
        await stand["web"].set_offers("prompts", [prompt("fresh")])
        await stand["web"].set_offers("resources", [resource("fresh://1")])
        await client.wait_for("notifications/resources/list_changed")
        assert not [each for each in client.received if each.method == "notifications/prompts/list_changed"]
        assert {tag(raw) for raw in pending.notifications} == {pending.id}
        listed = await client.request("tools/list")
        assert b"web26__fresh" in (listed.result or b"")


@shows("listen-closed")
@pytest.mark.parametrize("way", MODERN, ids=str)
async def test_a_subscription_that_ends_well_ends_with_its_result(way: Way) -> None:
    async with standing({"web26": several("web26")}) as stand, stand.client(way) as client:
        pending = await listen(client, uri_of("web26"), toolsListChanged=True)
        if way.transport == "stdio":
            client.close_stdin()
        else:
            stand.manifold.asgi_app().front().close()
        reply = await pending.reply()
        assert reply.slice("resultType") == b'"complete"'
        assert reply.slice("_meta", META + "subscriptionId") == pending.id


@shows("listen-closed", "subscribe-once")
@pytest.mark.parametrize("way", MODERN, ids=str)
async def test_a_subscription_that_is_taken_back_leaves_nothing_behind(way: Way) -> None:
    async with standing({kind: several(kind) for kind in IN_PROCESS}) as stand, stand.client(way) as client:
        pending = await listen(client, *(uri_of(kind) for kind in IN_PROCESS))
        await client.cancel(pending)
        await stand["web"].wait_for("resources/unsubscribe")
        await stand["stream"].wait_for("resources/unsubscribe")
        await stand["web26"].wait_for("subscriptions/listen", count=3)
        await stand["web26"].wait_cancelled(count=2)
        asked = [jsontext.member(each.params, "notifications") for each in stand["web26"].calls("subscriptions/listen")]
        assert [b"resourceSubscriptions" in (each or b"") for each in asked] == [False, True, False]


@shows("listen-filter")
@pytest.mark.parametrize("way", MODERN, ids=str)
@pytest.mark.parametrize("bad", ["{}", '{"notifications":[]}', '{"notifications":{"resourceSubscriptions":[1]}}'])
async def test_a_subscription_to_nothing_that_can_be_understood_is_refused(way: Way, bad: str) -> None:
    async with standing({"web": several("web")}) as stand, stand.client(way) as client:
        assert (await client.request("subscriptions/listen", bad)).code == -32602
        assert (await client.request("resources/subscribe", {"uri": uri_of("web")})).code == -32601


@shows("listen")
async def test_one_subscription_is_open_at_a_backend_however_many_watch() -> None:
    async with standing({"web26": several("web26")}) as stand, stand.client(Way("http", MODERN_VERSION)) as client:
        await asyncio.gather(*(listen(client, uri_of("web26", number)) for number in (1, 2, 3)))
        await stand["web26"].recorder.wait_until(lambda: len(stand["web26"].engine.listens) == 1, "one listen")
        granted = stand["web26"].engine.listens[0].granted
        assert granted["resourceSubscriptions"] == [uri_of("web26", number) for number in (1, 2, 3)]
        assert granted["toolsListChanged"] is True


@shows("subscribe-kept")
async def test_a_backend_that_ends_the_subscription_is_asked_again_and_listed_again() -> None:
    async with standing({"web26": offering("web26")}) as stand, stand.client(Way("http", LATEST)) as client:
        await client.watch()
        await client.request("tools/list")
        before = len(stand["web26"].calls("tools/list"))
        await stand["web26"].end_listens()
        await stand["web26"].wait_for("subscriptions/listen", count=2)
        await stand["web26"].wait_for("tools/list", count=before + 1)
        await stand["web26"].set_tools([tool("fresh")])
        await client.wait_for("notifications/tools/list_changed")
