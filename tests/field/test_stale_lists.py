"""Lists that go stale: servers that change without a word, lifetimes, gaps in streams, tools that a call adds."""

from typing import Any, Final

import pytest

from tests.contract.stand import CHANGED, LATEST, names, standing, until_listed
from tests.peers.acts import perform
from tests.peers.backend import Act, Script, tool
from tests.peers.script import Behaviour
from tests.peers.turn import Turn
from tests.peers.ways import Way

pytestmark = pytest.mark.anyio

HTTP: Final = Way("http", LATEST)
OFFER: Final = '{{"name":"{}","inputSchema":{{"type":"object"}}}}'


class Growing:
    """A server whose second tool, `new`, appears without a notification."""

    def __init__(self, kind: str, *, capabilities: str = '{"tools":{}}', ttl: int = 0) -> None:
        self.has_grown = False
        self._ttl = ttl
        on: dict[str, Behaviour] = {"tools/list": self._list, "tools/call": self._call}
        era: Any = "modern" if kind.endswith("26") else "handshake"
        self.script = Script(name=kind, era=era, tools=(tool("go"),), capabilities=capabilities, on=on)

    def __repr__(self) -> str:
        return f"<Growing {self.has_grown}>"

    async def _list(self, turn: Turn) -> None:
        items = ",".join(OFFER.format(name) for name in (["go", "new"] if self.has_grown else ["go"]))
        hints = f'"ttlMs":{self._ttl},"cacheScope":"private","resultType":"complete"'
        await perform(turn, Act("raw", f'{{"tools":[{items}],{hints}}}'))

    async def _call(self, turn: Turn) -> None:
        self.has_grown = self.has_grown or turn.text_param("name") == "go"
        await perform(turn, Act())


def has_new(listed: list[str]) -> bool:
    return any(name.endswith("__new") for name in listed)


@pytest.mark.parametrize("kind", ["web", "stream", "web26"])
async def test_a_change_without_a_notification_is_found_after_the_interval(kind: str) -> None:
    grown = Growing(kind)
    async with (
        standing({kind: grown.script}, manifold={"listInterval": "300ms"}) as stand,
        stand.client(HTTP) as client,
    ):
        await client.watch()
        assert not has_new(await names(client))
        grown.has_grown = True
        await until_listed(client, has_new)


async def test_a_promise_of_a_server_whose_stream_is_refused_is_not_trusted() -> None:
    grown = Growing("web", capabilities='{"tools":{"listChanged":true}}')
    made = Script(**{**{name: getattr(grown.script, name) for name in grown.script.__slots__}, "get_stream": False})
    async with standing({"web": made}, manifold={"listInterval": "300ms"}) as stand, stand.client(HTTP) as client:
        await client.watch()
        grown.has_grown = True
        await until_listed(client, has_new)


async def test_a_list_is_fetched_again_when_its_lifetime_is_over() -> None:
    grown = Growing("web26", capabilities='{"tools":{"listChanged":true}}', ttl=100)
    async with standing({"web26": grown.script}, manifold={"listInterval": 0}) as stand, stand.client(HTTP) as client:
        await client.watch()
        grown.has_grown = True
        await until_listed(client, has_new)


@pytest.mark.parametrize("kind", ["web", "stream", "web26"])
async def test_a_tool_that_a_call_added_is_listed_once_it_was_called(kind: str) -> None:
    grown = Growing(kind)
    async with standing({kind: grown.script}, manifold={"listInterval": 0}) as stand, stand.client(HTTP) as client:
        await client.watch()
        await client.call(f"{kind}__go", {"text": "grow"})
        assert (await client.call(f"{kind}__new", {"text": "yes"})).text == "yes"
        await until_listed(client, has_new)


async def test_a_gap_in_the_standing_stream_is_made_up_for() -> None:
    grown = Growing("web", capabilities='{"tools":{"listChanged":true}}')
    async with standing({"web": grown.script}, manifold={"listInterval": 0}) as stand, stand.client(HTTP) as client:
        await client.watch()
        await stand["web"].wait_get_stream()
        grown.has_grown = True
        stand["web"].end_get_streams()
        await until_listed(client, has_new)


async def test_a_gap_in_a_subscription_is_made_up_for() -> None:
    grown = Growing("web26", capabilities='{"tools":{"listChanged":true}}')
    async with standing({"web26": grown.script}, manifold={"listInterval": 0}) as stand, stand.client(HTTP) as client:
        await client.watch()
        grown.has_grown = True
        await stand["web26"].end_listens()
        await until_listed(client, has_new)


async def test_the_interval_can_be_changed_and_a_fetch_without_a_change_is_not_announced() -> None:
    grown = Growing("web")
    async with (
        standing({"web": grown.script}, manifold={"listInterval": "200ms"}) as stand,
        stand.client(HTTP) as client,
    ):
        await client.watch()
        before = len(stand["web"].calls("tools/list"))
        await stand["web"].wait_for("tools/list", count=before + 2)
        assert not any(each.method == CHANGED for each in client.received)
