"""Nobody else's mail: many clients of both eras on one shared backend, and not one message for another of them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import pytest

from tests.contract.behaviours import shows
from tests.contract.stand import LATEST, Stand, script_of, standing
from tests.peers import jsontext
from tests.peers.backend import Act, Script, resource, tool
from tests.peers.clients import MODERN_VERSION, Client
from tests.peers.turn import Turn
from tests.peers.ways import Way

pytestmark = pytest.mark.anyio

CLIENTS: Final = 40
CALLS: Final = 480
AT_ONCE: Final = 40
"""Calls in flight together: as many as show a mix-up, no more than a small machine takes."""


async def confide(turn: Turn) -> None:
    """Ask the caller something that names it, and return what was asked and what came back."""
    text = turn.param("arguments", "text") or b'""'
    params = b'{"message":%b,"requestedSchema":{"type":"object"}}' % text
    if turn.modern:
        body = turn.param("inputResponses", "who")
        if body is None or turn.param("requestState") != text:
            wanted = b'"who":{"method":"elicitation/create","params":%b}' % params
            await turn.reply(b'{"resultType":"input_required","inputRequests":{%b},"requestState":%b}' % (wanted, text))
            return
    else:
        got = await turn.ask("elicitation/create", params)
        body = got.result if got.result is not None else b'{"refused":%b}' % (got.error or b"null")
    await turn.reply(turn.result(b'"content":[],"structuredContent":{"to":%b,"got":%b}' % (text, body)))


KINDS: Final = ("echo", "progress", "log", "confide")
"""The tools, which are called in turn."""
CONFIDING: Final = Act("insist", '{"method":"elicitation/create","params":{"message":"who?"}}')
"""The same on a pipe, where a function cannot be sent to the child: everybody is asked the same."""


def shared(kind: str) -> Script:
    """One server for everybody."""
    said = '{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":$TEXT}}'
    return script_of(
        kind,
        tools=(
            tool("echo"),
            tool("progress", Act("progress", n=2)),
            tool("log", Act("notify", said, then=Act("progress", n=2))),
            tool("confide", CONFIDING if kind == "pipe" else confide),
        ),
        resources=tuple(resource(f"note://client-{number}") for number in range(CLIENTS)),
    )


@dataclass(slots=True, eq=False)
class Box:
    """One client, its name, and everything wrong that was ever in its mail."""

    name: str
    client: Client
    strays: list[str] = field(default_factory=list)
    confided: int = 0
    refused: int = 0
    logged: int = 0
    is_quiet: bool = False
    """Set a level that no message reaches."""

    def answer(self, params: bytes) -> str:
        """Answer a question with one's name, having looked whether it was for oneself."""
        message = str(jsontext.value(jsontext.member(params, "message")))
        if message != "who?" and not message.startswith(self.name + " "):
            self.strays.append(f"asked {message!r}")
        return f'{{"action":"accept","content":{{"by":"{self.name}"}}}}'

    async def call(self, number: int) -> None:
        """One call of one of the kinds, and a look at what came back."""
        tool, text = KINDS[number % 4], f"{self.name} {number}"
        token = '"same"' if number % 3 else f'"{text}"'
        params = f'{{"name":"{tool}","arguments":{{"text":"{text}"}},"_meta":{{"progressToken":{token}}}}}'
        reply = await self.client.request("tools/call", params, timeout=50)
        for raw in reply.notifications:
            given = jsontext.member(raw, "params", "progressToken")
            if given is not None and given != token.encode():
                self.strays.append(f"progress {given!r}")
        steps = sum(b"notifications/progress" in raw for raw in reply.notifications)
        if tool in ("progress", "log") and steps != 2:
            self.strays.append(f"{steps} steps of progress")
        self._look_at(tool, text, reply.value)

    def look_at_the_rest(self) -> None:
        """Everything that ever came, on whatever stream: log lines and updates carry a name as well."""
        for each in self.client.received:
            if each.method == "notifications/message":
                self.logged += 1
                if self.is_quiet:
                    self.strays.append("told what is below its level")
                self._mine(jsontext.value(jsontext.member(each.params, "data")), " ")
            elif each.method == "notifications/resources/updated":
                self._mine(str(jsontext.value(jsontext.member(each.params, "uri"))).removeprefix("note://") + " ", " ")

    def _mine(self, said: str, end: str) -> None:
        if not said.startswith(self.name + end):
            self.strays.append(f"told {said!r}")

    def _look_at(self, tool: str, text: str, result: dict[str, Any]) -> None:
        if tool != "confide":
            self._mine(result["content"][0]["text"] + "|", text.removeprefix(self.name) + "|")
            return
        said = result["structuredContent"]
        got = said["answers"][0] if "answers" in said else said["got"]
        if said.get("to", text) != text or got.get("content", {"by": self.name}) != {"by": self.name}:
            self.strays.append(f"confided {said}")
        self.confided += "content" in got
        self.refused += "content" not in got


@asynccontextmanager
async def boxes(stand: Stand, count: int) -> AsyncIterator[list[Box]]:
    """So many clients, every other one modern."""
    async with AsyncExitStack() as stack:
        found: list[Box] = []
        for number in range(count):
            way = Way("http", MODERN_VERSION if number % 2 else LATEST)
            client = await stack.enter_async_context(
                stand.client(way, connect=False, capabilities='{"elicitation":{}}')
            )
            box = Box(f"client-{number}", client)
            client.answers = {"elicitation/create": box.answer}
            client.log_level = "info" if number % 4 == 1 else None
            if count > CLIENTS:  # kept connections are closed when they are idle for seconds, as they are with so many
                client.extra = (("Connection", "close"),)
            await client.connect(way.version)
            if not client.is_modern:
                await client.watch()
                box.is_quiet = number % 4 == 2
                level = "error" if box.is_quiet else "debug"
                assert (await client.request("logging/setLevel", {"level": level})).result == b"{}"
            found.append(box)
        yield found


async def post(found: list[Box], calls: int) -> None:
    """Let them all call at once, within a bound, each about as often as the others."""
    free = asyncio.Semaphore(AT_ONCE)

    async def one(box: Box, number: int) -> None:
        async with free:
            await box.call(number)

    numbered = ((found[at % len(found)], at // len(found)) for at in range(calls))
    await asyncio.gather(*(one(box, number) for box, number in numbered))


async def updates(stand: Stand, kind: str, found: list[Box]) -> None:
    """Each of some clients, of either era, subscribes to a resource of its own, which then changes."""
    readers = found[:CLIENTS]
    for box in readers:
        uri = f"note://{box.name}"
        if box.client.is_modern:
            wanted = {"notifications": {"resourceSubscriptions": [uri]}}
            (ack,) = await (await box.client.begin("subscriptions/listen", wanted)).heard()
            assert uri.encode() in ack
        else:
            assert (await box.client.request("resources/subscribe", {"uri": uri})).error is None
    for box in readers:
        await stand[kind].announce("notifications/resources/updated", f'{{"uri":"note://{box.name}"}}')
    for box in readers:
        await box.client.wait_for("notifications/resources/updated")


async def deliver(kind: str, isolation: str, clients: int, calls: int) -> list[Box]:
    """All calls made, and nothing in a wrong box; the boxes."""
    limits = {"maxNotifications": 100_000}  # more than a quick machine makes in a second
    async with (
        standing({kind: shared(kind)}, manifold={"limits": limits}, **{kind: {"isolation": isolation}}) as stand,
        boxes(stand, clients) as found,
    ):
        await post(found, calls)
        await updates(stand, kind, found)
        for box in found:
            box.look_at_the_rest()
        assert {box.name: box.strays for box in found if box.strays} == {}
        if kind == "pipe":
            assert len(stand["pipe"].children) == 1
        return found


def asked(clients: int, calls: int) -> int:
    """How many of the calls ask their client."""
    return clients * len([number for number in range(calls // clients) if KINDS[number % 4] == "confide"])


@shows("mail")
@pytest.mark.parametrize(("kind", "isolation"), [("web", "auto"), ("web", "shared"), ("web26", "auto")])
async def test_over_http_every_message_reaches_its_own_client(kind: str, isolation: str) -> None:
    found = await deliver(kind, isolation, CLIENTS, CALLS)
    assert sum(box.confided for box in found) == asked(CLIENTS, CALLS)
    assert sum(box.logged for box in found) > CLIENTS


@shows("mail")
async def test_on_one_pipe_every_message_reaches_its_own_client_or_the_server_is_refused() -> None:
    found = await deliver("pipe", "shared", CLIENTS, CALLS)
    assert sum(box.confided + box.refused for box in found) == asked(CLIENTS, CALLS)
    assert sum(box.refused for box in found) > 0


@pytest.mark.slow
@pytest.mark.timeout(300)
@shows("mail")
@pytest.mark.parametrize(("kind", "isolation"), [("web", "auto"), ("web", "shared"), ("pipe", "shared")])
async def test_two_hundred_clients_and_ten_thousand_calls(kind: str, isolation: str) -> None:
    found = await deliver(kind, isolation, 200, 10_000)
    assert sum(box.confided + box.refused for box in found) == asked(200, 10_000)
    assert sum(box.refused for box in found) == 0 or kind == "pipe"
