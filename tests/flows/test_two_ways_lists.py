"""A list takes a short way or the long one: nobody can tell which from what comes back."""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, Final

import pytest

from mcp_manifold import Manifold
from mcp_manifold.config import load_dict
from mcp_manifold.errors import TooManyRequests
from mcp_manifold.wire import HANDSHAKE_VERSIONS
from tests.contract.offers import offering
from tests.contract.stand import standing
from tests.flows.test_two_ways import META, Door, House, message, post, say
from tests.peers.backend import Act, Script, tool
from tests.peers.clients import MODERN_VERSION
from tests.peers.processes import until
from tests.unit.fronts.wires import Answer, staged

pytestmark = pytest.mark.anyio

LISTS: Final = ("tools/list", "prompts/list", "resources/list", "resources/templates/list")
DOWN: Final = {"command": "/no/such/program"}
PATHS: Final = {"": "/mcp", "one": "/web/mcp", "group": "/groups/team/mcp", "lost": "/groups/down/mcp"}


def modern(method: str, *, path: str = "/mcp", meta: Mapping[str, Any] = META, named: str = "", **params: Any) -> bytes:
    """A request of 2026-07-28 for a list."""
    lines = {"mcp_protocol_version": MODERN_VERSION, "mcp_method": named or method}
    return post(message(method, {"_meta": meta, **params}), path=path, **lines)


@dataclass
class Lists(House):
    """A house in which lists are asked for."""

    @property
    def listed(self) -> dict[str, int]:
        """Lists the stages were told the end of, by outcome."""
        found: dict[str, int] = {}
        for (method, _), series in self.manifold._counts.series.items():
            for outcome, count in series.outcomes.items() if method in LISTS else ():
                if count:
                    found[outcome] = found.get(outcome, 0) + count
        return found

    async def taken(self, *requests: bytes) -> list[Answer]:
        """What comes back for these, which all go the short way where it is open."""
        before = self.short.app.taken
        answers = await self.both(*requests)
        assert self.short.app.taken == before + len(requests)
        return answers

    async def left(self, *requests: bytes) -> list[Answer]:
        """What comes back for these, none of which goes the short way."""
        before = self.short.app.taken
        answers = await self.both(*requests)
        assert self.short.app.taken == before
        return answers


@asynccontextmanager
async def listing(
    scripts: Mapping[str, Script] | None = None, *, settled: bool = True, **manifold: Any
) -> AsyncIterator[Lists]:
    """A house over `web` and `web26`, and over two servers that are down."""
    known = scripts or {"web": offering("web"), "web26": offering("web26")}
    groups = {"team": ["web"], "down": ["gone"]}
    settings = {"tokens": [{"name": "one", "token": "token-one"}], "groups": groups, **manifold}
    entries = {server: {"tools": {"block": ["only_*"]}} for server in known}
    async with standing(known, manifold=settings, **entries) as stand:
        config = {**stand.config, "mcpServers": {**stand.config["mcpServers"], "gone": DOWN}}
        async with Manifold.from_config(config) as manifold_:
            front: Any = manifold_.asgi_app()
            async with (
                staged(Door(front, is_short=True)) as short,
                staged(Door(front, is_short=False)) as long,
            ):
                house = Lists(stand, manifold_, front, short, long)
                if settled:
                    await manifold_.settle()
                    house.session = await house.open()
                yield house
                await until(lambda: not house.flying, "the end of all calls")
            front.close()


def tools(answer: Answer) -> set[str]:
    """The names of the tools in an answer."""
    return {each["name"] for each in json.loads(answer.body)["result"]["tools"]}


# --- the same ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", LISTS)
async def test_a_list_is_answered_the_same_whichever_way_it_takes(method: str) -> None:
    async with listing() as house:
        for path in PATHS.values():
            for version in HANDSHAKE_VERSIONS:
                session = await house.open(version, path=path) if path != PATHS["lost"] else ""
                sent = post(message(method), session=session, path=path)
                if session:
                    await house.taken(sent, sent, post(message(method, {}, "\u00e9"), session=session, path=path))
            sent = modern(method, path=path)
            for answer in await house.taken(sent, sent, modern(method, path=path, cursor=None)):
                assert ("error" in json.loads(answer.body)) is (path == PATHS["lost"])


async def test_a_list_says_who_is_missing_whichever_way_it_takes() -> None:
    async with listing() as house:
        (answer,) = await house.taken(post(message("tools/list"), session=house.session))
        assert json.loads(answer.body)["result"]["_meta"]["mcp-manifold/missing"][0]["server"] == "gone"
        assert tools(answer)
        assert not {name for name in tools(answer) if "only_" in name}


@pytest.mark.parametrize("era", ["handshake", "modern"])
async def test_pages_are_the_same_whichever_way_they_take(era: str) -> None:
    async with listing(limits={"pageSize": 3}) as house:

        def send(**params: Any) -> bytes:
            if era == "modern":
                return modern("tools/list", **params)
            return post(message("tools/list", params), session=house.session)

        (answer,) = await house.taken(send())
        pages, result = 1, json.loads(answer.body)["result"]
        while "nextCursor" in result:
            (answer,) = await house.taken(send(cursor=result["nextCursor"]))
            pages, result = pages + 1, json.loads(answer.body)["result"]
        assert pages > 3
        (answer,) = await house.taken(send(cursor="x"))
        assert json.loads(answer.body)["error"]["code"] == -32602


async def test_what_is_unusual_is_left_to_the_long_way_and_answered_the_same() -> None:
    async with listing() as house:
        raw = '{"jsonrpc":"2.0","id":1,"method":"tools/list"}'
        sent = {
            "a notification": post(raw.replace('"id":1,', "").encode(), session=house.session),
            "params of a list": post(message("tools/list", [1]), session=house.session),
            "no session": post(message("tools/list")),
            "a wrong token": post(message("tools/list"), session=house.session, token="wrong"),
            "a mirrored method": post(message("tools/list"), session=house.session, mcp_method="tools/list"),
            "tasks": post(message("tasks/list"), session=house.session),
            "no such endpoint": modern("tools/list", path="/nowhere/mcp"),
            "another method": modern("tools/list", named="prompts/list"),
            "no capabilities": modern("tools/list", meta={next(iter(META)): MODERN_VERSION}),
            "another version": modern("tools/list", meta={**META, next(iter(META)): "2099-01-01"}),
            "an odd level": modern("tools/list", meta={**META, "io.modelcontextprotocol/logLevel": "loud"}),
            "modern of its own": post(message("tools/list", {"_meta": META}), session=house.session),
        }
        well = (post(message("tools/list"), session=house.session), modern("tools/list"))
        for name, one in sent.items():
            before = house.short.app.taken
            answers = await house.both(*well, one, *well, one)
            assert house.short.app.taken == before + 4, name
            assert answers[2] == answers[5], name


# --- what is told of it -----------------------------------------------------------------------------------------------


async def test_a_list_is_counted_whichever_way_it_takes() -> None:
    async with listing() as house:
        tally = house.front.tally
        sent = post(message("tools/list"), session=house.session)
        told = []
        for stage in (house.short, house.long):
            before = (tally.bytes_in, tally.bytes_out, house.listed.get("ok", 0))
            await say(stage, sent)
            after = (tally.bytes_in, tally.bytes_out, house.listed.get("ok", 0))
            told.append([new - old for old, new in zip(before, after, strict=True)])
        assert told[0] == told[1]
        assert told[0][2] == 1
        assert told[0][1] > told[0][0] > 0


async def test_a_list_a_stage_refuses_is_refused_whichever_way_it_takes() -> None:
    async with listing() as house:

        def began(call: object) -> None:
            raise TooManyRequests("not now", retry_after=1.0)

        stages: Any = house.manifold._running.lists._stages
        stages._inward = (*stages._inward, type("Refusing", (), {"began": staticmethod(began)}))
        for sent in (post(message("tools/list"), session=house.session), modern("tools/list")):
            (answer,) = await house.taken(sent)
            assert b"not now" in answer.body


# --- start-up, changes, the end ---------------------------------------------------------------------------------------


async def test_during_start_up_a_list_waits_on_the_long_way() -> None:
    slow = replace(offering("web"), on={"initialize": Act("hang", "start", then=Act("default"))})
    async with listing({"web": slow}, settled=False) as house:
        await house.stand["web"].wait_for("initialize")
        wire = await house.short.open()
        await wire.send(modern("tools/list"))
        await until(lambda: house.flying == 1, "the list to be waited for")
        assert not house.short.app.taken
        await house.stand["web"].release("start")
        assert "web__echo" in tools(await wire.answer())
        (answer,) = await house.taken(modern("tools/list"))
        assert "web__echo" in tools(answer)


async def test_a_list_is_of_what_there_is_now() -> None:
    async with listing() as house:
        sent = (post(message("tools/list"), session=house.session), modern("tools/list"))
        await house.taken(*sent)
        await house.stand["web"].set_tools((tool("fresh"),))
        await until(
            lambda: house.manifold._running.hub.view("").catalogue.find_tool("web__fresh") is not None, "the change"
        )
        for answer in await house.taken(*sent):
            assert "web__fresh" in tools(answer)
        config = json.loads(json.dumps(house.stand.config))
        config["mcpServers"]["web"]["tools"] = {"block": ["fresh"]}
        del config["manifold"]["groups"]["down"]
        assert not (await house.manifold.reload(load_dict(config, environ={}))).error
        for answer in await house.taken(*sent):
            assert tools(answer)
            assert "web__fresh" not in tools(answer)
            assert b"mcp-manifold/missing" not in answer.body


async def test_a_front_that_is_closing_gives_no_list_either_way() -> None:
    async with listing() as house:
        house.front.drain(lambda: None)
        for sent in (post(message("tools/list"), session=house.session), modern("tools/list")):
            (answer,) = await house.left(sent)
            assert answer.status == 503


async def test_lists_sent_ahead_are_answered_in_their_order() -> None:
    async with listing() as house:
        for stage in (house.short, house.long):
            wire = await stage.open()
            await wire.send(b"".join(post(message("tools/list", None, n), session=house.session) for n in range(20)))
            for number in range(20):
                assert json.loads((await wire.answer()).body)["id"] == number
        assert house.short.app.taken == 20
