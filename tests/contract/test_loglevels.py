"""Log messages: who hears which, in either era, from backends of either."""

from typing import Any

import pytest

from tests.contract.behaviours import shows
from tests.contract.stand import KINDS, LATEST, MODERN, STREAMED, WAYS, script_of, standing
from tests.peers import jsontext
from tests.peers.backend import Act, Script, tool
from tests.peers.clients import MODERN_VERSION, Client, Reply
from tests.peers.ways import Way

pytestmark = pytest.mark.anyio

MESSAGE = "notifications/message"
BACKGROUND = '{"level":"warning","logger":"clock","data":{"big":123456789012345678901234,"nil":null}}'


def logging(kind: str) -> Script:
    """A backend with a tool for each of four levels, which says so once, and one that waits."""
    levels = tuple(tool(level, Act("log", level)) for level in ("debug", "info", "warning", "error"))
    late = tool("late", Act("log", "info", then=Act("hang", then=Act("log", "info"))))
    return script_of(kind, tools=(*levels, tool("echo"), late))


def levels_of(raws: list[bytes]) -> list[Any]:
    return [jsontext.value(jsontext.member(raw, "params", "level")) for raw in raws]


async def heard(client: Client, kind: str) -> list[Any]:
    """The levels of what a client heard of its four calls, on whatever stream."""
    before = len(client.received)
    for level in ("debug", "info", "warning", "error"):
        assert (await client.call(f"{kind}__{level}", {"text": level})).text == level
    return levels_of([each.raw for each in client.received[before:] if each.method == MESSAGE])


async def set_level(client: Client, level: str) -> Reply:
    return await client.request("logging/setLevel", {"level": level})


def told(backend: Any) -> list[Any]:
    """The levels a backend was told."""
    return [jsontext.value(jsontext.member(each.params, "level")) for each in backend.calls("logging/setLevel")]


@shows("log-default", "log-level")
@pytest.mark.parametrize("way", STREAMED, ids=str)
async def test_a_client_hears_what_is_at_or_above_its_level(way: Way) -> None:
    async with standing({kind: logging(kind) for kind in KINDS}) as stand, stand.client(way) as client:
        for kind in KINDS:
            assert await heard(client, kind) == ["info", "warning", "error"], kind
        for level, wanted in (("debug", 4), ("error", 1), ("emergency", 0), ("warning", 2)):
            assert (await set_level(client, level)).result == b"{}"
            for kind in KINDS:
                assert len(await heard(client, kind)) == wanted, (kind, level)


@shows("log-level-bad")
@pytest.mark.parametrize("way", STREAMED, ids=str)
@pytest.mark.parametrize("params", ['{"level":"loud"}', '{"level":7}', "{}", '{"level":"Info"}', '{"level":""}'])
async def test_an_unknown_level_is_refused_and_no_backend_hears_of_it(way: Way, params: str) -> None:
    async with standing({"web": logging("web")}) as stand, stand.client(way) as client:
        assert (await client.request("logging/setLevel", params)).code == -32602
        assert await heard(client, "web") == ["info", "warning", "error"]
        assert told(stand["web"]) == []


@shows("log-level-bad")
@pytest.mark.parametrize("way", STREAMED, ids=str)
async def test_where_no_backend_logs_there_is_no_level_to_set(way: Way) -> None:
    mute = script_of("web", tools=(tool("echo"),), capabilities='{"tools":{}}')
    async with standing({"web": mute}) as stand, stand.client(way, connect=False) as client:
        greeting = await client.connect(way.version)
        assert greeting.slice("capabilities", "logging") is None
        assert (await set_level(client, "info")).code == -32601


@shows("log-modern")
@pytest.mark.parametrize("way", MODERN, ids=str)
async def test_a_request_hears_what_it_asked_for_and_the_next_nothing(way: Way) -> None:
    async with standing({kind: logging(kind) for kind in KINDS}) as stand, stand.client(way) as client:
        for kind in KINDS:
            for level, wanted in ((None, 0), ("debug", 4), ("warning", 2), (None, 0), ("emergency", 0)):
                client.log_level = level
                assert len(await heard(client, kind)) == wanted, (kind, level)
        assert (await client.request("logging/setLevel", {"level": "info"})).code == -32601


@shows("log-level-bad", "log-modern")
@pytest.mark.parametrize("way", MODERN, ids=str)
async def test_an_unknown_level_in_a_request_is_refused(way: Way) -> None:
    async with standing({"web26": logging("web26")}) as stand, stand.client(way) as client:
        client.log_level = "loud"
        assert (await client.call("web26__echo")).code == -32602
        assert stand["web26"].calls("tools/call") == []


@shows("log-level-most", "log-own")
async def test_a_shared_backend_logs_at_the_most_verbose_level_anybody_wants() -> None:
    way = Way("sse", LATEST)
    async with standing({"pipe": logging("pipe")}) as stand, stand.client(way) as first:
        async with stand.client(way) as second:
            await set_level(first, "error")
            assert told(stand["pipe"]) == ["info"], "as others may be there who set no level"
            await set_level(second, "debug")
            assert told(stand["pipe"]) == ["info", "debug"]
            await set_level(first, "warning")
            assert told(stand["pipe"]) == ["info", "debug"], "never lowered for the others"
            assert await heard(second, "pipe") == ["debug", "info", "warning", "error"]
            assert await heard(first, "pipe") == ["warning", "error"]
        await stand["pipe"].wait_for("logging/setLevel", count=3)  # the one who wanted more is gone
        assert told(stand["pipe"]) == ["info", "debug", "info"]
        assert [each.method for each in first.received].count(MESSAGE) == 2


@shows("log-level-most")
async def test_a_level_wanted_by_one_modern_request_is_set_for_its_time_alone() -> None:
    async with standing({"pipe": logging("pipe")}) as stand, stand.client(Way("http", MODERN_VERSION)) as modern:
        modern.log_level = "debug"
        assert levels_of((await modern.call("pipe__debug")).notifications) == ["debug"]
        await stand["pipe"].wait_for("logging/setLevel", count=2)
        assert told(stand["pipe"]) == ["debug", "info"]


@shows("log-level-most")
@pytest.mark.parametrize("kind", ["web", "stream"])
async def test_a_link_of_a_clients_own_has_the_clients_level_from_the_beginning(kind: str) -> None:
    async with standing({kind: logging(kind)}) as stand, stand.client(Way("http", LATEST)) as client:
        await set_level(client, "error")
        assert await heard(client, kind) == ["error"]
        assert told(stand[kind]) == ["error"]
        methods = [each.method for each in stand[kind].requests]
        assert methods.index("logging/setLevel") < methods.index("tools/call")


@shows("log-level-most")
async def test_a_backend_that_comes_back_is_told_the_level_again() -> None:
    async with standing({"pipe": logging("pipe")}) as stand, stand.client(Way("http", LATEST)) as client:
        await set_level(client, "debug")
        await stand["pipe"].exit(1)
        await stand["pipe"].wait_for("logging/setLevel", count=2)
        assert await heard(client, "pipe") == ["debug", "info", "warning", "error"]


@shows("log-own")
@pytest.mark.parametrize("kind", KINDS)
async def test_a_message_goes_to_the_call_it_is_about_or_to_nobody(kind: str) -> None:
    way, script = Way("sse", LATEST), logging(kind)
    async with standing({kind: script}) as stand, stand.client(way) as first, stand.client(way) as second:
        waiting = await first.begin("tools/call", {"name": f"{kind}__late"})
        await first.wait_for(MESSAGE)
        other = await second.begin("tools/call", {"name": f"{kind}__late"})
        await stand[kind].wait_for("tools/call", count=2)
        await stand[kind].release()
        await waiting.reply()
        await other.reply()
        mine = [each for each in first.received if each.method == MESSAGE]
        others = [each for each in second.received if each.method == MESSAGE]
        if kind in ("web", "stream", "web26"):  # told apart by their streams
            assert (len(mine), len(others)) == (2, 2)
        else:  # whatever came while both were in flight may be about either; what the later one to end said was its own
            assert len(mine) >= 1
            assert len(mine) + len(others) <= 2


@shows("log-own")
@pytest.mark.parametrize("way", STREAMED, ids=str)
async def test_what_is_about_no_call_goes_to_who_set_a_level(way: Way) -> None:
    async with standing({"pipe": logging("pipe")}) as stand, stand.client(way) as client:
        await client.watch()
        await set_level(client, "notice")
        await stand["pipe"].announce(MESSAGE, BACKGROUND.replace("warning", "info"))
        await stand["pipe"].announce(MESSAGE, BACKGROUND)
        message = await client.wait_for(MESSAGE)
        assert message.params == BACKGROUND.encode()


@shows("log-own")
async def test_what_is_about_no_call_goes_to_nobody_below_their_level() -> None:
    way, script = Way("sse", LATEST), logging("pipe")
    async with (
        standing({"pipe": script}) as stand,
        stand.client(way) as first,
        stand.client(way) as second,
        stand.client(way) as third,
    ):
        await set_level(first, "debug")
        await set_level(second, "error")
        await stand["pipe"].announce(MESSAGE, BACKGROUND)
        await stand["pipe"].announce(MESSAGE, BACKGROUND.replace("warning", "alert"))
        await first.wait_for(MESSAGE, count=2)
        await second.wait_for(MESSAGE)
        await third.request("ping")
        assert levels_of([each.raw for each in second.received if each.method == MESSAGE]) == ["alert"]
        assert MESSAGE not in [each.method for each in third.received]


@shows("log-signed")
@pytest.mark.parametrize("way", WAYS, ids=str)
async def test_the_logger_is_named_after_its_server_where_there_are_several(way: Way) -> None:
    scripts = {kind: logging(kind) for kind in ("web", "web26")}
    async with standing(scripts) as stand, stand.client(way) as client, stand.client(way, scope="web26") as alone:
        client.log_level = alone.log_level = "info" if way.version == MODERN_VERSION else None
        for kind in ("web", "web26"):
            (raw,) = (await client.call(f"{kind}__warning")).notifications
            assert jsontext.member(raw, "params", "logger") == jsontext.text(f"{kind}/fake")
            assert jsontext.member(raw, "params", "x-unknown") == b"1.50"
            assert jsontext.member(raw, "params", "data") == b'{"step":1,"nil":null}'
        (raw,) = (await alone.call("warning")).notifications
        assert jsontext.member(raw, "params", "logger") == b'"fake"'
