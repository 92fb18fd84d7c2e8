"""Clients that vanish in the middle of something, without a word: what they had going ends, here and behind."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from mcp_manifold.fronts.resumption import KEEP
from tests.contract.asking import BOTH_MODES, SAMPLE, URL, Pondering, ResultCallback, one
from tests.contract.behaviours import shows
from tests.contract.stand import ERAS, LATEST, MODERN, OLDEST, Stand, script_of, standing
from tests.fakes.clock import FakeClock
from tests.peers import tasks
from tests.peers.backend import Act, Script, resource, tool
from tests.peers.clients import Client
from tests.peers.message import META
from tests.peers.processes import until
from tests.peers.ways import Way

pytestmark = pytest.mark.anyio

KINDS = ("pipe", "web", "web26")
FRONTS = (Way("stdio", LATEST), Way("http", LATEST), Way("http", OLDEST), Way("sse", LATEST))
ABLE = f'{BOTH_MODES[:-1]},"extensions":{{"{tasks.EXTENSION}":{{}}}}}}'


def script(kind: str) -> Script:
    """A backend with something of everything a client can be in the middle of."""
    modern = ERAS[kind] == "modern"
    offered = '"tools":{},"logging":{},"resources":{"subscribe":true}'
    more = f'"extensions":{{"{tasks.EXTENSION}":{{}}}}' if modern else tasks.CAPABILITIES[1:-1].partition(",")[2]
    url = URL.replace(',"elicitationId":"e/1"', "") if modern else URL
    return script_of(
        kind,
        capabilities=f"{{{offered},{more}}}",
        tools=(
            tool("echo"),
            tool("hang", Act("hang")),
            tool("sample", Act("ask", one("sampling/createMessage", SAMPLE))),
            tool("visit", Act("ask", one("elicitation/create", url))),
            tool("slow", Act("task", "done"), execution={"taskSupport": "optional"}),
        ),
        resources=(resource(f"note://{kind}/1"),),
    )


# --- what it may be in the middle of ---------------------------------------------------------------------------------


async def executor(client: Client, stand: Stand) -> None:
    """Waits for the results of calls, with their progress."""
    for kind in KINDS:
        await client.begin("tools/call", {"name": f"{kind}__hang", "_meta": {"progressToken": kind}})
        await stand[kind].wait_for("tools/call")


async def asked(client: Client, stand: Stand) -> None:
    """Thinks about what servers asked."""
    Pondering(client)
    for number, kind in enumerate(KINDS, start=1):
        await client.begin("tools/call", {"name": f"{kind}__sample"})
        await client.wait_for("sampling/createMessage", count=number)


async def asked_aside(client: Client, stand: Stand) -> None:
    """Thinks about what it was asked while two of its calls were in flight, so that it was not for either."""
    Pondering(client)
    await client.watch()
    await client.begin("tools/call", {"name": "pipe__hang"})
    await stand["pipe"].wait_for("tools/call")
    await client.begin("tools/call", {"name": "pipe__sample"})
    await client.wait_for("sampling/createMessage")


async def parked(client: Client, stand: Stand) -> None:
    """Was told that input is required."""
    for kind in KINDS:
        assert (await client.call(f"{kind}__sample")).slice("resultType") == b'"input_required"'


async def sent_off(client: Client, stand: Stand) -> None:
    """Was sent to pages in the course of calls, which it has not finished with."""
    for kind in KINDS:
        await client.call(f"{kind}__visit")


async def watching(client: Client, stand: Stand) -> None:
    """Watches resources and lists."""
    await client.watch()
    if client.is_modern:
        uris = [f"note://{kind}/1" for kind in KINDS]
        await (await client.begin("subscriptions/listen", {"notifications": {"resourceSubscriptions": uris}})).heard()
        return
    for kind in KINDS:
        assert (await client.request("resources/subscribe", {"uri": f"note://{kind}/1"})).result == b"{}"


async def logging(client: Client, stand: Stand) -> None:
    """Wants to hear everything, in a call that goes on."""
    if not client.is_modern:
        await client.request("logging/setLevel", {"level": "debug"})
    for kind in KINDS:
        meta = {META + "logLevel": "debug"} if client.is_modern else {}
        await client.begin("tools/call", {"name": f"{kind}__hang", "_meta": meta})
        await stand[kind].wait_for("tools/call")


async def tasking(client: Client, stand: Stand) -> None:
    """Waits for the results of tasks, or to hear how they stand."""
    ids = []
    for kind in KINDS:
        if (ERAS[kind] == "modern") is client.is_modern:
            params = {"name": f"{kind}__slow", **({} if client.is_modern else {"task": {}})}
            made = (await client.request("tools/call", params)).value
            ids.append(made["taskId"] if client.is_modern else made["task"]["taskId"])
    if client.is_modern:
        await (await client.begin("subscriptions/listen", {"notifications": {"taskIds": ids}})).heard()
    for id_ in () if client.is_modern or client.version != LATEST else ids:
        await client.begin("tasks/result", {"taskId": id_})
        await stand[id_.partition(".")[0]].wait_for("tasks/result")


HANDSHAKE = (executor, asked, asked_aside, sent_off, watching, logging, tasking)
STATELESS = (executor, parked, watching, logging, tasking)
MIDDLES = [(way, doing) for way in FRONTS for doing in HANDSHAKE if way.version != OLDEST or doing is not tasking]
MIDDLES += [(way, doing) for way in MODERN for doing in STATELESS]


@shows("left-clean")
@pytest.mark.parametrize(("way", "doing"), MIDDLES, ids=[f"{way}-{doing.__name__}" for way, doing in MIDDLES])
async def test_nothing_is_left_of_a_client_that_vanished(
    way: Way, doing: Callable[[Client, Stand], Awaitable[None]]
) -> None:
    answers = ResultCallback().answers if doing in (asked, asked_aside, sent_off) else None
    soon = {kind: {"timeout": "1500ms", "era": ERAS[kind]} for kind in KINDS}
    settings: dict[str, Any] = {"limits": {"parkTime": "300ms"}}
    async with standing({kind: script(kind) for kind in KINDS}, manifold=settings, **soon) as stand:
        stand.clock = clock = FakeClock()
        async with stand.client(way, capabilities=ABLE, answers=answers) as client:
            await doing(client, stand)
        if way.transport == "stdio":
            await stand["pipe"].wait_all_gone()
        else:
            await nothing_left(stand, clock)
        for conversation in stand["web"].engine.conversations:
            assert not conversation.subscribed
        assert not stand["web26"].engine.listens or way.transport != "stdio"
    assert not [repr(task) for task in asyncio.all_tasks() if "front." in task.get_name()]


async def nothing_left(stand: Stand, clock: FakeClock) -> None:
    """Wait until the manifold keeps nothing of any client; minutes pass for those who might come back."""
    parts = stand.manifold.runtime

    async def is_so() -> bool:
        await clock.advance(KEEP)
        links = [link for backend in parts.fleet.values() for link in backend.links()]
        return (
            repr(parts.watching) == f"<Watching <Subscriptions watchers=0 links=0> links={len(links)} listens=0>"
            and not parts.watching._followed._names
            and not parts.bridge.parked
            and not parts.bridge._by_pending
            and not parts.bridge._elicitations
            and not parts.levels._sessions
            and not any(link.is_busy or link.is_watched or link.holder for link in links)
            and not any("front." in task.get_name() for task in asyncio.all_tasks())
        )

    await until(is_so, "the end of all that was a client's")
