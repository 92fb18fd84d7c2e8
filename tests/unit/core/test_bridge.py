"""The bridge alone: links that only remember on one side, clients that answer as told on the other."""

import asyncio
import json
from functools import partial
from typing import Any, cast

import pytest

from mcp_manifold.backends.backend import Backend
from mcp_manifold.backends.link.server_requests import Inbox, ServerRequest, open_link
from mcp_manifold.config import LimitSettings
from mcp_manifold.core.bridge import MAX_ROUNDS, Bridge, CallTarget
from mcp_manifold.errors import (
    BackendProtocolError,
    BackendTimeout,
    CallCancelled,
    InvalidParams,
    ManifoldError,
    RemoteError,
)  # fmt: skip
from mcp_manifold.model.call import Call, Session
from mcp_manifold.model.policy import ANONYMOUS, Principal
from mcp_manifold.wire import LATEST_HANDSHAKE, MODERN_VERSION, Envelope, Payload, encode
from tests.unit.backends.linking import FakeTransport, Heard, tool, within
from tests.unit.core.house import FakeBackend, unheard

pytestmark = pytest.mark.anyio

ABLE = b'{"sampling":{},"elicitation":{"form":{},"url":{}},"roots":{}}'
FORM = {"message": "Which?", "requestedSchema": {}, "_meta": {"progressToken": 1, "x-vendor": 2}}


class Client:
    """A client that keeps a session: what it was asked, and the futures it answers with."""

    def __init__(self, *, capabilities: bytes = ABLE) -> None:
        self.asked: list[tuple[str, Any, asyncio.Future[Envelope]]] = []
        self.said: bytes | None = None
        """The response's member, at once; None: it takes its time."""
        self.session = Session("s", ANONYMOUS, "", LATEST_HANDSHAKE, capabilities=Payload(capabilities), reach=self)

    def __repr__(self) -> str:
        return f"<Client asked={len(self.asked)}>"

    def ask(self, method: str, params: Payload | None, call: Call | None) -> "asyncio.Future[Envelope]":
        future: asyncio.Future[Envelope] = asyncio.get_running_loop().create_future()
        self.asked.append((method, None if params is None else json.loads(bytes(params)), future))
        if self.said is not None:
            future.set_result(Envelope(result=Payload(self.said)))
        return future

    def tell(self, message: bytes) -> bool:
        return True

    def call(self, **params: object) -> Call:
        return Call(
            "tools/call", {name: Payload(encode(value)) for name, value in params.items()}, self.session, unheard
        )


def modern(*, capabilities: bytes = ABLE, principal: Principal = ANONYMOUS, **params: object) -> Call:
    """A request of a client that keeps none."""
    session = Session("", principal, "", MODERN_VERSION, capabilities=Payload(capabilities))
    given = {"name": "t", **params}
    return Call("tools/call", {name: Payload(encode(value)) for name, value in given.items()}, session, unheard)


class House:
    """A bridge with one handshake-era link."""

    def __init__(self, *, several: bool = False, short: bool = False, **limits: float) -> None:
        self.short = short
        """Whether its calls take the short way, on which nobody waits."""
        self.bridge = Bridge(LimitSettings.model_validate(limits), names_server=lambda scope: several)
        self.link = open_link("notes", on_notification=Heard(), on_question=self.bridge.asked)
        self.transport = FakeTransport(self.link)
        self.target = CallTarget("tools/call", cast("Backend", FakeBackend("notes", "handshake", lambda *_: {})), "t")

    def __repr__(self) -> str:
        return f"<House {self.bridge!r}>"

    async def begin(self, call: Call) -> "asyncio.Future[Payload]":
        count = len(self.transport.requests)
        begun: asyncio.Future[Payload]
        if self.short:
            begun = asyncio.get_running_loop().create_future()
            told = partial(_told, begun)
            self.link.relay("tools/call", tool("t"), timeout=60.0, call=call, ceiling=600.0, told=told)
        else:
            work = self.link.request("tools/call", tool("t"), timeout=60.0, call=call)
            begun = asyncio.get_running_loop().create_task(work)
        await self.transport.sent(count + 1)
        return begun

    def ask(self, method: str = "elicitation/create", params: object = FORM, id_: int = 7) -> None:
        message = {"jsonrpc": "2.0", "id": id_, "method": method, "params": params}
        self.link.fed(json.dumps(message).encode(), self.transport.requests[-1][0])

    def answer(self, number: int = 1) -> None:
        self.link.fed(b'{"jsonrpc":"2.0","id":%d,"result":{"done":1.50}}' % number)

    async def park(self, call: Call, *methods: str) -> dict[str, Any]:
        """The `input_required` that a call is answered with."""
        task = await self.begin(call)
        for number, method in enumerate(methods or ("elicitation/create",)):
            self.ask(method, id_=number)
        found: dict[str, Any] = json.loads(bytes(await within(task)))
        return found

    def resume(self, parked: dict[str, Any], *said: object, **more: Any) -> "asyncio.Task[Payload | None]":
        given = dict(zip(parked["inputRequests"], said, strict=False))
        call = modern(requestState=parked["requestState"], inputResponses=given, **more)
        return asyncio.get_running_loop().create_task(self.bridge.resume(call, self.target))

    @property
    def sent(self) -> list[dict[str, Any]]:
        return [note for note in self.transport.notes if "method" not in note]


def _told(begun: "asyncio.Future[Payload]", result: Payload | None, failure: Exception | None) -> None:
    if result is not None:
        begun.set_result(result)  # which fails if it is told twice
    else:
        begun.set_exception(failure or AssertionError("neither"))


either_way = pytest.mark.parametrize("short", [True, False], ids=["short", "long"])


async def turns(count: int = 3) -> None:
    """Let what was scheduled happen."""
    for _ in range(count):
        await asyncio.sleep(0)


# --- refusing --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "params", "capabilities", "code"),
    [
        ("elicitation/create", FORM, b"{}", -32601),
        ("elicitation/create", {**FORM, "mode": "url"}, b'{"elicitation":{}}', -32602),
        ("sampling/createMessage", {"tools": []}, b'{"sampling":{}}', -32602),
        ("roots/list", {}, b'{"sampling":{}}', -32601),
    ],
)
async def test_what_was_not_declared_is_refused_for_either_client(
    method: str, params: object, capabilities: bytes, code: int
) -> None:
    for call in (Client(capabilities=capabilities).call(), modern(capabilities=capabilities)):
        house = House()
        task = await house.begin(call)
        house.ask(method, params)
        assert house.sent[0]["error"]["code"] == code
        house.answer()
        await within(task)


async def test_a_question_of_nobodys_call_is_refused() -> None:
    house = House()
    question = ServerRequest(cast("Inbox", house.link.handler), Payload(b"3"), "roots/list", None)
    house.bridge.asked(question)
    assert house.sent[0]["error"]["code"] == -32601
    assert not question.is_open


async def test_a_client_without_a_way_back_is_not_asked() -> None:
    house, call = House(), Client().call()
    call.session.reach = None
    task = await house.begin(call)
    house.ask()
    assert "cannot be asked" in house.sent[0]["error"]["message"]
    house.answer()
    await within(task)


# --- asking a client that keeps a session ----------------------------------------------------------------------------


async def test_a_client_that_leaves_is_an_error_for_the_server_that_waits() -> None:
    house, client = House(), Client()
    task = await house.begin(client.call())
    house.ask()
    client.asked[0][2].set_exception(CallCancelled("the client left"))
    await turns()
    assert house.sent[0]["error"] == {"code": -32603, "message": "No answer: the client left"}
    house.answer()
    await within(task)


async def test_a_question_taken_back_is_taken_back_from_the_client() -> None:
    house, client = House(several=True), Client()
    task = await house.begin(client.call())
    house.ask(id_=9)
    assert client.asked[0][1]["message"] == "[notes] Which?"
    house.link.fed(b'{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":9}}')
    assert client.asked[0][2].cancelled()
    await turns()
    assert house.sent == []
    house.answer()
    await within(task)


async def test_who_was_sent_to_a_url_is_remembered_once_and_not_for_ever() -> None:
    house, client = House(max_parked=1), Client()
    task = await house.begin(client.call())
    for id_ in ("e1", "e2"):
        house.ask(params={**FORM, "mode": "url", "elicitationId": id_})
    assert house.bridge.completed(house.link, Payload(b'"e1"')) is None
    assert house.bridge.completed(house.link, Payload(b'"e2"')) is client.session
    assert house.bridge.completed(house.link, Payload(b'"e2"')) is None
    house.answer()
    await within(task)


# --- parking ---------------------------------------------------------------------------------------------------------


@either_way
async def test_a_parked_call_goes_on_where_it_was(short: bool) -> None:
    house = House(short=short, several=True)
    parked = await house.park(modern(), "elicitation/create", "roots/list")
    assert parked["resultType"] == "input_required"
    asked = list(parked["inputRequests"].values())
    assert [each["method"] for each in asked] == ["elicitation/create", "roots/list"]
    assert asked[0]["params"] == {"message": "[notes] Which?", "requestedSchema": {}, "_meta": {"x-vendor": 2}}
    assert repr(house.bridge) == "<Bridge parked=1>"
    waiting = house.resume(parked, {"action": "accept"}, {"roots": []})
    await turns()
    assert [note["result"] for note in house.sent] == [{"action": "accept"}, {"roots": []}]
    house.answer()
    assert bytes(await within(waiting)) == b'{"done":1.50}'
    assert repr(house.bridge) == "<Bridge parked=0>"


@pytest.mark.parametrize(
    "wrong", [{"principal": Principal("eve", "eve")}, {"requestState": "guessed"}, {"requestState": ""}]
)
async def test_what_does_not_fit_is_refused_and_leaves_it_parked(wrong: dict[str, Any]) -> None:
    house = House()
    parked = await house.park(modern())
    given = {"requestState": parked["requestState"], "inputResponses": {}, **wrong}
    with pytest.raises(InvalidParams, match="unknown, was used already, or has expired"):
        await house.bridge.resume(modern(**given), house.target)
    other = CallTarget("tools/call", house.target.backend, "another")
    with pytest.raises(InvalidParams):
        await house.bridge.resume(modern(requestState=parked["requestState"]), other)
    waiting = house.resume(parked, {"action": "accept"})
    await turns()
    house.answer()
    assert await within(waiting) is not None


@pytest.mark.parametrize("state", [7, None, ["x"]])
async def test_a_state_that_is_no_text_is_an_invalid_param(state: object) -> None:
    house = House()
    with pytest.raises(InvalidParams):
        await house.bridge.resume(modern(requestState=state), house.target)


@either_way
async def test_a_call_nobody_comes_back_for_is_cancelled_at_its_server(short: bool) -> None:
    house = House(short=short, park_time=0.01)
    parked = await house.park(modern())
    await within(house.transport._until(lambda: bool(house.transport.notes)))
    assert house.transport.notes[-1]["method"] == "notifications/cancelled"
    assert house.transport.notes[-1]["params"]["requestId"] == 1
    assert "did not come back" in house.transport.notes[-1]["params"]["reason"]
    with pytest.raises(InvalidParams):
        await house.resume(parked)
    assert (repr(house.bridge), house.link.is_busy) == ("<Bridge parked=0>", False)


async def test_too_many_parked_calls_are_an_error_for_the_server() -> None:
    house = House(max_parked=1)
    await house.park(modern())
    task = await house.begin(modern())
    house.ask()
    assert house.sent[0]["error"]["code"] == -32603
    house.answer(2)
    await within(task)


@either_way
async def test_a_question_taken_back_before_anybody_knew_parks_nothing(short: bool) -> None:
    house = House(short=short)
    task = await house.begin(modern())
    house.ask(id_=9)
    house.link.fed(b'{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":9}}')
    await turns()
    assert repr(house.bridge) == "<Bridge parked=0>"
    house.answer()
    assert bytes(await within(task)) == b'{"done":1.50}'


@either_way
async def test_an_answer_that_comes_with_the_question_is_the_answer(short: bool) -> None:
    house = House(short=short)
    task = await house.begin(modern())
    house.ask()
    house.answer()
    assert bytes(await within(task)) == b'{"done":1.50}'
    await turns()
    assert repr(house.bridge) == "<Bridge parked=0>"


@either_way
async def test_an_answer_that_came_while_it_was_parked_is_there_for_who_comes_back(short: bool) -> None:
    house = House(short=short)
    parked = await house.park(modern())
    house.answer()
    assert bytes(await within(house.resume(parked, {"action": "accept"}))) == b'{"done":1.50}'
    assert house.sent == []


@either_way
async def test_a_call_that_is_taken_back_with_the_question_parks_nothing(short: bool) -> None:
    house, call = House(short=short), modern()
    task = await house.begin(call)
    house.ask()
    call.cancel()
    with pytest.raises(CallCancelled):
        await within(task)
    await turns()
    assert [note["method"] for note in house.transport.notes] == ["notifications/cancelled"]
    assert (repr(house.bridge), house.link.is_busy) == ("<Bridge parked=0>", False)


@either_way
async def test_taking_back_the_call_that_was_answered_leaves_the_parked_one_alone(short: bool) -> None:
    house, call = House(short=short), modern()
    parked = await house.park(call)
    call.cancel()
    assert house.transport.notes == []
    waiting = house.resume(parked, {"action": "accept"})
    await turns()
    house.answer()
    assert bytes(await within(waiting)) == b'{"done":1.50}'


async def test_other_requests_of_modern_clients_are_not_parked() -> None:
    house, call = House(), modern()
    work = house.link.request("completion/complete", {}, timeout=60.0, call=call)
    task = asyncio.get_running_loop().create_task(work)
    await house.transport.sent()
    house.ask()
    assert "within a call" in house.sent[0]["error"]["message"]
    house.answer()
    await within(task)


# --- -32042 ----------------------------------------------------------------------------------------------------------


def url_error(*elicitations: object) -> RemoteError:
    data = {"elicitations": list(elicitations)} if elicitations else {}
    raw = json.dumps({"code": -32042, "message": "first", "data": data}).encode()
    return RemoteError(raw, code=-32042, backend="notes")


URL = {"mode": "url", "message": "Sign in", "url": "https://x.test/", "elicitationId": "1"}


async def test_a_url_that_is_needed_first_is_asked_for_and_the_call_made_again_once() -> None:
    house = House(several=True)
    answer = house.bridge.url_required(url_error(URL, URL), modern(), house.target)
    assert answer is not None
    wanted = json.loads(bytes(answer))
    assert len(wanted["inputRequests"]) == 2
    asked = wanted["inputRequests"]["url-1"]["params"]
    assert asked == {"mode": "url", "message": "[notes] Sign in", "url": "https://x.test/"}
    again = modern(requestState=wanted["requestState"])
    assert await house.bridge.resume(again, house.target) is None
    with pytest.raises(InvalidParams):
        await house.bridge.resume(again, house.target)


@pytest.mark.parametrize(
    ("exc", "capabilities"),
    [
        (url_error(), ABLE),
        (url_error("no object"), ABLE),
        (url_error(URL), b'{"elicitation":{}}'),
        (url_error(URL, {**URL, "mode": "hologram"}), ABLE),
        (RemoteError(b'{"code":-32042,"data":7}', code=-32042, backend="notes"), ABLE),
    ],
)
async def test_an_error_that_asks_for_nothing_that_can_be_shown_stays_an_error(
    exc: RemoteError, capabilities: bytes
) -> None:
    house = House()
    assert house.bridge.url_required(exc, modern(capabilities=capabilities), house.target) is None


# --- a modern server, a client that keeps a session ------------------------------------------------------------------

WANTED = {
    "resultType": "input_required",
    "inputRequests": {"k/1": {"method": "elicitation/create", "params": {"mode": "url", "message": "m", "url": "u"}}},
    "requestState": "\u00e9tat",
}


async def completed(house: House, call: Call, *results: object) -> tuple[Payload, FakeBackend]:
    """What the client gets of a call that is answered in turn with these."""
    queue = list(results)
    backend = FakeBackend("notes", "modern", lambda *_: queue.pop(0))
    target = CallTarget("tools/call", cast("Backend", backend), "t")
    first = await backend.request(call, "tools/call", {})
    return await house.bridge.complete(call, target, dict(call.params), first), backend


async def test_input_that_is_required_is_asked_for_and_the_call_is_repeated_with_it() -> None:
    client = Client()
    client.said = b'{"action":"accept"}'
    call = client.call(name="t", inputResponses={"old": 1}, requestState="old")
    result, backend = await completed(House(), call, WANTED, {"resultType": "complete", "n": 1})
    assert json.loads(bytes(result))["n"] == 1
    asked = client.asked[0][1]
    assert len(asked.pop("elicitationId")) >= 16
    assert asked == {"mode": "url", "message": "m", "url": "u"}
    assert backend.asked[1][1] == {
        "name": "t", "inputResponses": {"k/1": {"action": "accept"}}, "requestState": "\u00e9tat",
    }  # fmt: skip


async def test_a_state_alone_is_sent_back_and_none_when_there_was_none() -> None:
    state_only = {"resultType": "input_required", "requestState": "s"}
    asking = {**WANTED}
    del asking["requestState"]
    client = Client()
    client.said = b"{}"
    _, backend = await completed(House(), client.call(name="t"), state_only, asking, {"resultType": "complete"})
    assert backend.asked[1][1] == {"name": "t", "requestState": "s"}
    assert "requestState" not in backend.asked[2][1]


@pytest.mark.parametrize(
    "result", [b'{"content":[{"text":"\\"input_required\\""}]}', b'{"resultType":"other","x":"input_required"}']
)
async def test_a_result_that_only_speaks_of_it_is_the_result(result: bytes) -> None:
    found, _ = await completed(House(), Client().call(), result)
    assert bytes(found) == result


async def test_a_server_that_never_has_enough_is_stopped() -> None:
    client = Client()
    client.said = b"{}"
    with pytest.raises(BackendProtocolError, match=f"more than {MAX_ROUNDS} times"):
        await completed(House(), client.call(), *[WANTED] * (MAX_ROUNDS + 1))
    assert len(client.asked) == MAX_ROUNDS


@pytest.mark.parametrize(
    ("response", "problem", "match"),
    [
        (Envelope(error=Payload(b'{"code":-1,"message":"no"}')), BackendProtocolError, "the client refused"),
        (None, BackendTimeout, "did not answer"),
        (CallCancelled("the client left"), CallCancelled, "left"),
    ],
)
async def test_without_an_answer_the_call_ends(
    response: Envelope | Exception | None, problem: type[ManifoldError], match: str
) -> None:
    client = Client()
    work = completed(House(park_time=0.01 if response is None else 60), client.call(), WANTED)
    task = asyncio.get_running_loop().create_task(work)
    await turns()
    if isinstance(response, Exception):
        client.asked[0][2].set_exception(response)
    elif response is not None:
        client.asked[0][2].set_result(response)
    with pytest.raises(problem, match=match):
        await within(task)
    assert client.asked[0][2].done()


async def test_a_call_that_is_cancelled_takes_its_questions_back() -> None:
    client = Client()
    call = client.call()
    task = asyncio.get_running_loop().create_task(completed(House(), call, WANTED))
    await turns()
    call.cancel()
    with pytest.raises(CallCancelled):
        await within(task)
    assert client.asked[0][2].cancelled()


async def test_nothing_is_asked_if_one_of_the_questions_cannot_be() -> None:
    client = Client(capabilities=b'{"elicitation":{"url":{}}}')
    both = {**WANTED["inputRequests"], "k/2": {"method": "roots/list"}}  # type: ignore[dict-item]  # it is one
    with pytest.raises(BackendProtocolError, match="needs roots/list"):
        await completed(House(), client.call(), {**WANTED, "inputRequests": both})
    assert client.asked == []
