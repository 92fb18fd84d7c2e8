"""The short way of a call: which calls may take it, and that it ends as the long one does, once, for everybody."""

import asyncio
import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
from mcp_manifold.core.lane import Lane

from mcp_manifold.backends.fleet import Fleet
from mcp_manifold.backends.link.server_requests import open_link
from mcp_manifold.core.bridge import Bridge
from mcp_manifold.core.tasks import Tasks
from mcp_manifold.errors import (
    BackendLost,
    BackendUnavailable,
    CallCancelled,
    ManifoldError,
    RemoteError,
    TooManyRequests,
)
from mcp_manifold.model.call import Call, ResultCallback, Session, Stages
from mcp_manifold.model.policy import ANONYMOUS
from mcp_manifold.wire import (
    EMPTY,
    LARGE,
    LATEST_HANDSHAKE,
    LONG,
    MODERN_VERSION,
    Envelope,
    Era,
    ParsedEnvelope,
    Payload,
    ResultView,
    encode,
    parse_backend,
)
from tests.unit.backends.linking import FakeTransport, within
from tests.unit.core.house import INFO, META, FakeBackend, House, server, unheard

pytestmark = pytest.mark.anyio

ERAS: tuple[Era, ...] = ("handshake", "modern")
PAIRS = tuple((version, era) for version in (LATEST_HANDSHAKE, MODERN_VERSION) for era in ERAS)
all_pairs = pytest.mark.parametrize(("version", "era"), PAIRS)
"""Whichever era a client speaks, and its server."""


class FreeBackend(FakeBackend):
    """Has an open link, and keeps what it is given to relay."""

    def __init__(self, name: str, era: Era, answer: Any = lambda *_: {"content": []}) -> None:
        super().__init__(name, era, answer)
        self.link: Any = SimpleNamespace(era=era)
        self.relayed: list[tuple[Call, dict[str, Any]]] = []
        self.refusal: ManifoldError | None = None
        self.told: ResultCallback = lambda result, failure: None
        self.again: Callable[[], None] = lambda: None

    def free(self, call: Call) -> Any:
        return self.link

    def relay(
        self, link: Any, call: Call, params: dict[str, Payload], told: ResultCallback, again: Callable[[], None]
    ) -> None:
        assert link is self.link
        if self.refusal is not None:
            raise self.refusal
        call.backend_era = self.era
        self.relayed.append((call, json.loads(encode(params))))
        self.told, self.again = told, again


class Heard:
    """What somebody was told, who must be told once."""

    def __init__(self) -> None:
        self.result: bytes | None = None
        self.failure: Exception | None = None
        self.done = asyncio.Event()

    def __call__(self, result: Payload | None, failure: Exception | None) -> None:
        assert not self.done.is_set(), "told twice"
        assert (result is None) != (failure is None)
        self.result, self.failure = None if result is None else bytes(result), failure
        self.done.set()

    async def until(self) -> "Heard":
        async with asyncio.timeout(10):
            await self.done.wait()
        return self


class Watching:
    """A stage that counts what it is told; it may refuse."""

    def __init__(self) -> None:
        self.flying = 0
        self.ends: list[str] = []
        self.refusal: ManifoldError | None = None

    def began(self, call: Call) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.flying += 1

    def ended(self, call: Call, result: Payload | None, failure: BaseException | None) -> None:
        self.flying -= 1
        self.ends.append("ok" if failure is None else type(failure).__name__)


class Ways:
    """A lane over a house with one server, `a`, whose link is open."""

    def __init__(self, era: Era = "handshake", answer: Any = lambda *_: {"content": []}, **settings: Any) -> None:
        self.house = House(server("a", **settings))
        self.house.offers("a", era=era, tools=["t", "hidden"])
        self.backend = FreeBackend("a", era, answer)
        self.house.fleet["a"] = self.backend
        self.first, self.second = Watching(), Watching()
        self.long_calls = 0
        fleet = cast("Fleet", self.house.fleet)
        stages = Stages([self.first, self.second])
        self.lane = Lane(self.house.router, Tasks(self.house.hub, fleet, server_info=INFO), stages, self._long)
        self.heard = Heard()

    async def _long(self, call: Call) -> Payload:
        self.long_calls += 1
        return await self.house.router.route(call)

    def call(self, version: str = LATEST_HANDSHAKE, method: str = "tools/call", scope: str = "", **params: Any) -> Call:
        raw = {key: Payload(encode(value)) for key, value in {"name": "a__t", **params}.items()}
        return Call(method, raw, Session("", ANONYMOUS, scope, version), unheard)

    def relay(self, version: str = LATEST_HANDSHAKE, **params: Any) -> bool:
        return self.lane.relay(self.call(version, **params), self.heard)


# --- which calls ------------------------------------------------------------------------------------------------------


@all_pairs
async def test_a_plain_call_goes_to_its_backend_under_the_name_it_has_there(version: str, era: Era) -> None:
    ways = Ways(era)
    assert ways.relay(version, arguments={"x": 1}, extra=[None])
    ((call, params),) = ways.backend.relayed
    assert params == {"name": "t", "arguments": {"x": 1}, "extra": [None]}
    assert call.backend == "a"
    assert not ways.backend.asked


LONG_CALLS: dict[str, dict[str, Any]] = {
    "another method": {"method": "prompts/get"},
    "a task": {"task": {}},
    "a name of a number": {"name": 1},
    "an unknown tool": {"name": "a__other"},
    "a hidden tool": {"name": "a__hidden"},
    "an endpoint that is none": {"scope": "server:b"},
}


@pytest.mark.parametrize("params", LONG_CALLS.values(), ids=LONG_CALLS)
async def test_what_is_no_plain_call_goes_the_long_way_and_no_stage_hears_of_it(params: dict[str, Any]) -> None:
    ways = Ways(tools={"block": ["hidden"]})
    call = ways.call(**params)
    assert not ways.lane.relay(call, ways.heard)
    assert not ways.backend.relayed
    assert call.backend == ""
    assert (ways.first.flying, ways.first.ends, ways.heard.done.is_set()) == (0, [], False)


@pytest.mark.parametrize("why", ["nameless", "no link", "not configured"])
async def test_who_has_to_wait_goes_the_long_way(why: str) -> None:
    ways = Ways()
    call = ways.call()
    if why == "nameless":
        del call.params["name"]
    elif why == "no link":
        ways.backend.link = None
    else:
        del ways.house.fleet["a"]
    assert not ways.lane.relay(call, ways.heard)
    assert ways.first.flying == 0


@pytest.mark.parametrize("what", ["requestState", "inputResponses", "level"])
async def test_a_modern_call_that_is_more_than_a_call_to_the_other_era_goes_the_long_way(what: str) -> None:
    for version, era in PAIRS:
        ways = Ways(era)
        call = ways.call(version)
        if what == "level":
            call.session.log_level = "info"
        else:
            call.params[what] = EMPTY
        assert ways.lane.relay(call, ways.heard) == ((version, era) != (MODERN_VERSION, "handshake"))


# --- how they end -----------------------------------------------------------------------------------------------------

RESULTS = {
    "plain": b'{"content":[ ],"n":1.50}',
    "failed": b'{"content":[],"isError":true}',
    "link": b'{"content":[{"type":"resource_link","uri":"file:///x","name":"n"}]}',
    "block": b'{"content":[{"type":"resource","resource":{"uri":"file:///x","text":"\\u00e9"}}]}',
    "lone surrogate": b'{"content":[{"type":"resource_link","uri":"x:\\ud800","name":"n"}]}',
    "a task": b'{"resultType":"task","taskId":"7","status":"working","content":[]}',
    "large": b'{"content":[],"x":"' + b"y" * LARGE + b'"}',
    "large with a stamp": b'{"content":[],"_meta":{"a":1},"resultType":"complete","x":"' + b"y" * LARGE + b'"}',
    "a large task": b'{"resultType":"task","taskId":"7","status":"working","x":"' + b"y" * LARGE + b'"}',
    "large words": b'{"content":[],"taskId":"task","x":"input_required","y":"' + b"y" * LARGE + b'"}',
    "long": b'{"content":[{"type":"resource_link","uri":"file:///x","name":"n"}],"x":"' + b"y" * LONG + b'"}',
}


@all_pairs
async def test_a_long_result_that_was_opened_and_has_no_links_arrives_in_the_turn_in_which_it_came(
    version: str, era: Era
) -> None:
    ways = Ways(era)
    assert ways.relay(version)
    opened = parse_backend(b'{"jsonrpc":"2.0","id":7,"result":{"content":[],"x":"%b"}}' % (b"y" * LONG))
    assert isinstance(opened, ParsedEnvelope)
    assert isinstance(opened.result, Payload)
    ways.backend.relayed[0][0].look = ResultView(opened.result, opened.members, opened.text)
    ways.backend.told(opened.result, None)
    assert ways.heard.done.is_set()
    assert ways.heard.result is not None
    assert json.loads(ways.heard.result)["x"] == "y" * LONG


@all_pairs
@pytest.mark.parametrize("result", RESULTS.values(), ids=RESULTS)
async def test_a_result_arrives_as_it_does_by_the_long_way(result: bytes, version: str, era: Era) -> None:
    ways = Ways(era, lambda *_: result)
    assert ways.relay(version)
    assert not ways.heard.done.is_set()
    assert ways.first.flying == ways.second.flying == 1
    ways.backend.told(Payload(result), None)
    assert ways.heard.done.is_set() == (len(result) < LONG)  # in the turn in which it came
    await ways.heard.until()
    other = Ways(era, lambda *_: result)
    tasks = Tasks(other.house.hub, cast("Fleet", other.house.fleet), server_info=INFO)
    try:
        wanted: object = bytes(await tasks.around(other.house.router.route)(other.call(version)))
    except ManifoldError as exc:  # a task nobody asked for
        wanted = str(exc)
    assert wanted == (str(ways.heard.failure) if ways.heard.result is None else ways.heard.result)
    assert ways.first.ends == ways.second.ends
    assert ways.first.flying == ways.second.flying == 0


@all_pairs
async def test_an_error_arrives_as_it_does_by_the_long_way(version: str, era: Era) -> None:
    def error() -> RemoteError:
        raw = b'{"code":-32002,"message":"no","data":{"uri":"file:///x"}}'
        return RemoteError(raw, code=-32002, backend="a", era=era)

    ways = Ways(era)
    assert ways.relay(version)
    ways.backend.told(None, error())
    other = Ways(era, lambda *_: error())
    with pytest.raises(RemoteError) as caught:
        await other.house.router.route(other.call(version))
    assert isinstance(ways.heard.failure, RemoteError)
    assert bytes(ways.heard.failure.raw) == bytes(caught.value.raw)
    assert ways.second.ends == ["RemoteError"]


@pytest.mark.parametrize("failure", [BackendLost("a", "is gone"), CallCancelled("taken back"), ZeroDivisionError()])
async def test_any_other_failure_is_told_as_it_is(failure: Exception) -> None:
    ways = Ways()
    assert ways.relay()
    ways.backend.told(None, failure)
    assert ways.heard.failure is failure
    assert ways.first.ends == [type(failure).__name__]


async def test_a_defect_on_the_way_back_costs_its_caller_an_error_and_nobody_else_anything(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ways = Ways()

    def arrived(*_: object) -> Payload:
        raise ZeroDivisionError

    monkeypatch.setattr(ways.house.router, "arrived", arrived)
    assert ways.relay()
    ways.backend.told(Payload(b"{}"), None)  # whoever reads from the backend goes on
    assert isinstance(ways.heard.failure, ZeroDivisionError)
    assert ways.first.ends == ["ZeroDivisionError"]
    assert ways.first.flying == 0


async def test_a_stage_that_refuses_a_call_keeps_it_from_the_backend() -> None:
    ways = Ways()
    ways.second.refusal = TooManyRequests("no more", retry_after=1.0)
    with pytest.raises(TooManyRequests):
        ways.relay()
    assert not ways.backend.relayed
    assert ways.first.ends == ["TooManyRequests"]
    assert (ways.first.flying, ways.second.flying, ways.heard.done.is_set()) == (0, 0, False)


# --- what one era has no words for ------------------------------------------------------------------------------------

WANTED = {
    "resultType": "input_required",
    "inputRequests": {"q": {"method": "elicitation/create", "params": {"message": "Which?"}}},
    "requestState": "s",
}


class Asked:
    """A client that keeps a session, and takes its time to answer."""

    def __init__(self) -> None:
        self.answers: list[asyncio.Future[Envelope]] = []
        self.was_asked = asyncio.Event()

    def ask(self, method: str, params: Payload | None, call: Call | None) -> "asyncio.Future[Envelope]":
        self.answers.append(asyncio.get_running_loop().create_future())
        self.was_asked.set()
        return self.answers[-1]

    def tell(self, message: bytes) -> bool:
        return True


async def asking(ways: Ways) -> tuple[Call, Asked]:
    """A call whose client is being asked what its modern server wants to know."""
    call, client = ways.call(), Asked()
    call.session.capabilities, call.session.reach = Payload(b'{"elicitation":{}}'), client
    assert ways.lane.relay(call, ways.heard)
    ways.backend.told(Payload(encode(WANTED)), None)
    async with asyncio.timeout(10):
        await client.was_asked.wait()
    assert not ways.heard.done.is_set()
    return call, client


async def test_what_a_modern_server_wants_to_know_is_asked_and_the_call_made_again() -> None:
    ways = Ways("modern", lambda *_: {"content": [], "resultType": "complete"})
    _, client = await asking(ways)
    client.answers[0].set_result(Envelope(result=Payload(b'{"action":"accept"}')))
    await ways.heard.until()
    assert ways.heard.result == b'{"content":[]}'
    responses = {"inputResponses": {"q": {"action": "accept"}}, "requestState": "s"}
    assert ways.backend.asked == [("tools/call", {"name": "t", **responses})]
    assert (ways.long_calls, ways.first.ends, ways.first.flying) == (0, ["ok"], 0)


async def test_an_error_of_the_call_that_is_made_again_arrives_as_any_other() -> None:
    raw = b'{"code":-32002,"message":"no","data":{"uri":"file:///x"}}'
    ways = Ways("modern", lambda *_: RemoteError(raw, code=-32002, backend="a", era="modern"))
    _, client = await asking(ways)
    client.answers[0].set_result(Envelope(result=Payload(b'{"action":"accept"}')))
    assert isinstance((await ways.heard.until()).failure, RemoteError)
    assert ways.first.ends == ["RemoteError"]


async def test_a_call_that_is_taken_back_while_its_client_is_asked_takes_the_question_back() -> None:
    ways = Ways("modern")
    call, client = await asking(ways)
    call.cancel()
    assert client.answers[0].cancelled()
    assert isinstance((await ways.heard.until()).failure, CallCancelled)
    assert (ways.backend.asked, ways.first.ends, ways.first.flying) == ([], ["CallCancelled"], 0)


async def test_a_result_that_only_speaks_of_input_is_answered_at_once() -> None:
    ways = Ways("modern")
    assert ways.relay()
    ways.backend.told(Payload(b'{"content":[{"type":"text","text":"\\"input_required\\""},"input_required"]}'), None)
    assert ways.heard.done.is_set()


def url_error() -> RemoteError:
    elicitation = {"mode": "url", "url": "https://x.test", "message": "Sign in", "elicitationId": "1"}
    raw = encode({"code": -32042, "message": "no", "data": {"elicitations": [elicitation]}})
    return RemoteError(raw, code=-32042, backend="a", era="handshake")


@pytest.mark.parametrize("can", [True, False])
async def test_a_url_that_is_needed_first_is_asked_of_a_modern_client_as_by_the_long_way(can: bool) -> None:
    ways = Ways(answer=lambda *_: url_error())
    call, other = ways.call(MODERN_VERSION), ways.call(MODERN_VERSION)
    call.session.capabilities = other.session.capabilities = Payload(b'{"elicitation":{"url":{}}}' if can else b"{}")
    assert ways.lane.relay(call, ways.heard)
    ways.backend.told(None, url_error())
    assert ways.heard.done.is_set()
    assert ways.first.ends == ["ok" if can else "RemoteError"]
    if not can:
        assert isinstance(ways.heard.failure, RemoteError)
        return
    answer = json.loads(ways.heard.result or b"")
    wanted = json.loads(bytes(await ways.house.router.route(other)))
    assert answer.pop("requestState") != wanted.pop("requestState")
    assert answer == wanted
    assert answer["resultType"] == "input_required"


class LinkedBackend(FreeBackend):
    """Has a link that is one, and relays over it."""

    def __init__(self, bridge: Bridge) -> None:
        super().__init__("a", "handshake")
        self.link = open_link("a", on_notification=lambda notice: None, on_question=bridge.asked)
        self.transport = FakeTransport(self.link)

    def relay(
        self, link: Any, call: Call, params: dict[str, Payload], told: ResultCallback, again: Callable[[], None]
    ) -> None:
        link.relay(call.method, params, timeout=60.0, call=call, ceiling=600.0, told=told)


async def test_a_parked_call_goes_on_by_the_long_way_even_to_a_url_that_is_needed_first() -> None:
    ways = Ways()
    ways.house.fleet["a"] = backend = LinkedBackend(ways.house.bridge)
    call = ways.call(MODERN_VERSION)
    call.session.capabilities = Payload(b'{"elicitation":{"form":{},"url":{}}}')
    assert ways.lane.relay(call, ways.heard)
    backend.link.fed(b'{"jsonrpc":"2.0","id":7,"method":"elicitation/create","params":{"message":"Which?"}}')
    parked = json.loads((await ways.heard.until()).result or b"")
    assert (parked["resultType"], parked["_meta"], ways.first.ends) == ("input_required", META, ["ok"])
    (key,) = parked["inputRequests"]
    again = ways.call(MODERN_VERSION, requestState=parked["requestState"], inputResponses={key: {"action": "accept"}})
    again.session = call.session
    assert not ways.lane.relay(again, ways.heard)
    going_on = asyncio.get_running_loop().create_task(_routed(ways, again))
    await within(backend.transport._until(lambda: bool(backend.transport.notes)))
    assert backend.transport.notes == [{"jsonrpc": "2.0", "id": 7, "result": {"action": "accept"}}]
    backend.link.fed(b'{"jsonrpc":"2.0","id":1,"error":%b}' % bytes(url_error().raw))
    assert list(json.loads(bytes(await within(going_on)))["inputRequests"]) == ["url-1"]


async def _routed(ways: Ways, call: Call) -> Payload:
    return await ways.house.router.route(call)


# --- on by the long way -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["not sent", "again"])
async def test_what_was_not_sent_or_is_sent_again_goes_on_by_the_long_way_once(how: str) -> None:
    ways = Ways(answer=lambda *_: {"content": [], "by": "long"})
    if how == "not sent":
        ways.backend.refusal = BackendUnavailable("a", "is not there")
    assert ways.relay()
    assert not ways.heard.done.is_set()
    if how == "again":
        ways.backend.again()
    await ways.heard.until()
    assert ways.heard.result == b'{"content": [], "by": "long"}'
    assert ways.long_calls == 1
    assert ways.first.ends == ways.second.ends == ["ok"]
    assert ways.first.flying == 0


async def test_what_fails_by_the_long_way_as_well_is_told_once() -> None:
    ways = Ways(answer=lambda *_: BackendLost("a", "is gone"))
    assert ways.relay()
    ways.backend.again()
    assert isinstance((await ways.heard.until()).failure, BackendLost)
    assert ways.first.ends == ["BackendLost"]


async def test_closing_ends_what_went_on_by_the_long_way() -> None:
    ways = Ways()
    begun = _stuck(ways)
    assert ways.relay()
    ways.backend.again()
    async with asyncio.timeout(10):
        await begun.wait()
    ways.lane.close()
    assert isinstance((await ways.heard.until()).failure, CallCancelled)
    assert ways.first.ends == ["CallCancelled"]
    assert ways.first.flying == 0


def _stuck(ways: Ways) -> asyncio.Event:
    """From now on its server answers nothing, and does not look whether anybody still wants to know."""
    begun = asyncio.Event()

    async def request(*_: object) -> Payload:
        begun.set()
        await asyncio.Event().wait()
        raise AssertionError

    ways.backend.request = request  # type: ignore[assignment]  # a fake's
    return begun


async def test_closing_ends_what_only_just_went_on_by_the_long_way() -> None:
    ways = Ways()
    _stuck(ways)
    assert ways.relay()
    ways.backend.again()
    ways.lane.close()
    assert isinstance((await ways.heard.until()).failure, CallCancelled)
    assert ways.first.flying == 0


@pytest.mark.parametrize("at", ["once", "last"])
async def test_a_call_that_is_taken_back_while_it_waits_on_the_long_way_is_over(at: str) -> None:
    ways = Ways()
    begun = _stuck(ways)
    call = ways.call()
    assert ways.lane.relay(call, ways.heard)
    ways.backend.again()
    if at == "last":
        async with asyncio.timeout(10):
            await begun.wait()
    call.cancel()
    assert isinstance((await ways.heard.until()).failure, CallCancelled)
    assert ways.first.ends == ["CallCancelled"]
    assert ways.first.flying == 0
