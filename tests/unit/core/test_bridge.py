"""The Bridge: relays, parks and resumes requests of servers, and asks clients for modern servers."""

import asyncio
import json
from typing import Any, cast

import pytest

from mcp_manifold.backends.backend import Backend
from mcp_manifold.backends.link.server_requests import Inbox, ServerRequest
from mcp_manifold.config import LimitSettings
from mcp_manifold.core.bridge import STATE_ONLY_WAIT, Bridge, CallTarget, Parked
from mcp_manifold.errors import (
    BackendProtocolError,
    BackendTimeout,
    CallCancelled,
    InvalidParams,
    ManifoldError,
    RemoteError,
)
from mcp_manifold.model.call import Call
from mcp_manifold.model.policy import Principal
from mcp_manifold.wire import Envelope, Payload, encode, input_required
from tests.fakes.clock import FakeClock, settled
from tests.unit.backends.linking import FakeTransport, Sent, new_link, send
from tests.unit.core.house import ABLE, Client, modern_call

pytestmark = pytest.mark.anyio

FORM = {"message": "Which?", "requestedSchema": {}, "_meta": {"progressToken": 1, "x-vendor": 2}}


def modern(**params: Any) -> Call:
    return modern_call(**{"name": "t", **params})


class House:
    """A bridge with one handshake-era link."""

    def __init__(self, *, several: bool = False, **limits: float) -> None:
        self.clock = FakeClock()
        limits_ = LimitSettings.model_validate(limits)
        self.bridge = Bridge(limits_, names_server=lambda scope: several, clock=self.clock)
        self.link = new_link(on_request=self.bridge.on_request, clock=self.clock)
        self.transport = FakeTransport(self.link)
        backend = cast("Backend", type("Named", (), {"name": "notes"}))
        self.target = CallTarget("tools/call", backend, "t")

    def begin(self, call: Call, method: str = "tools/call") -> Sent:
        call.params["name"] = Payload(b'"t"')
        return send(self.link, call, method=method)

    def ask(self, method: str = "elicitation/create", params: object = FORM, id_: int = 7) -> None:
        message = {"jsonrpc": "2.0", "id": id_, "method": method, "params": params}
        self.link.fed(json.dumps(message).encode(), self.transport.requests[-1][0])

    def cancel(self, id_: int) -> None:
        body = b'{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":%d}}'
        self.link.fed(body % id_)

    def answer(self, number: int = 1) -> None:
        self.link.fed(b'{"jsonrpc":"2.0","id":%d,"result":{"done":1.50}}' % number)

    async def park(self, call: Call, *methods: str) -> dict[str, Any]:
        """The `input_required` that a call is answered with."""
        sent = self.begin(call)
        for number, method in enumerate(methods or ("elicitation/create",)):
            self.ask(method, id_=number)
        await settled()
        found: dict[str, Any] = json.loads(sent.result or b"null")
        return found

    async def resume(self, parked: dict[str, Any], *responses: object, **more: Any) -> Sent:
        """Let the client of a parked call return with these responses."""
        given = dict(zip(parked["inputRequests"], responses, strict=False))
        call, sent = modern(requestState=parked["requestState"], inputResponses=given, **more), Sent()
        found = self.bridge.find_parked(call, self.target)
        assert isinstance(found, Parked)
        sent.pending = self.bridge.resume(found, call, sent.on_result)
        await self.clock.advance(0)
        return sent

    @property
    def sent(self) -> list[dict[str, Any]]:
        return [note for note in self.transport.notes if "method" not in note]


# --- refusing ---------------------------------------------------------------------------------------------------------


async def test_a_request_of_an_unknown_call_is_refused() -> None:
    house = House()
    request = ServerRequest(cast("Inbox", house.link.handler), Payload(b"3"), "roots/list", None)
    house.bridge.on_request(request)
    assert house.sent[0]["error"]["code"] == -32601
    assert not request.is_open


async def test_a_client_that_cannot_receive_requests_is_sent_none() -> None:
    house, call = House(), Client().call()
    call.session.reach = None
    house.begin(call)
    house.ask()
    assert "cannot receive requests" in house.sent[0]["error"]["message"]


# --- relaying ---------------------------------------------------------------------------------------------------------


async def test_a_client_that_leaves_is_an_error_for_the_server_that_waits() -> None:
    house, client = House(), Client()
    house.begin(client.call())
    house.ask()
    client.asked[0][2].set_exception(CallCancelled("the client left"))
    await settled()
    assert house.sent[0]["error"] == {"code": -32603, "message": "No answer: the client left"}


async def test_the_client_of_a_url_elicitation_is_remembered_once_and_within_a_bound() -> None:
    house, client = House(max_parked=1), Client()
    house.begin(client.call())
    for id_ in ("e1", "e2"):
        house.ask(params={**FORM, "mode": "url", "url": "https://x.test", "elicitationId": id_})
    assert house.bridge.elicited(house.link, Payload(b'"e1"')) is None
    assert house.bridge.elicited(house.link, Payload(b'"e2"')) is client.session
    assert house.bridge.elicited(house.link, Payload(b'"e2"')) is None
    house.ask(params={**FORM, "mode": "url", "url": "https://x.test", "elicitationId": "e3"})
    house.bridge.ended(client.session)
    assert house.bridge.elicited(house.link, Payload(b'"e3"')) is None


# --- parking ----------------------------------------------------------------------------------------------------------


async def test_a_parked_call_continues_when_its_client_returns() -> None:
    house = House(several=True)
    parked = await house.park(modern(), "elicitation/create", "roots/list")
    assert parked["resultType"] == "input_required"
    asked = list(parked["inputRequests"].values())
    assert [each["method"] for each in asked] == ["elicitation/create", "roots/list"]
    assert asked[0]["params"] == {"message": "[notes] Which?", "requestedSchema": {}, "_meta": {"x-vendor": 2}}
    assert (repr(house.bridge), house.bridge.parked) == ("<Bridge parked=1>", 1)
    waiting = await house.resume(parked, {"action": "accept"}, {"roots": []})
    assert [note["result"] for note in house.sent] == [{"action": "accept"}, {"roots": []}]
    house.answer()
    assert (waiting.result, house.bridge.parked) == (b'{"done":1.50}', 0)


@pytest.mark.parametrize(
    "wrong",
    [
        {"principal": Principal("eve", "eve")},
        {"scope": "server:notes"},
        {"requestState": "guessed"},
        {"requestState": ""},
    ],
)
async def test_a_state_that_does_not_fit_is_refused_and_leaves_the_call_parked(wrong: dict[str, Any]) -> None:
    house = House()
    parked = await house.park(modern())
    given = {"requestState": parked["requestState"], "inputResponses": {}, **wrong}
    with pytest.raises(InvalidParams, match="unknown, was used already, or has expired"):
        house.bridge.find_parked(modern(**given), house.target)
    with pytest.raises(InvalidParams):
        house.bridge.find_parked(modern(requestState=parked["requestState"]), house.target._replace(native="another"))
    waiting = await house.resume(parked, {"action": "accept"})
    house.answer()
    assert waiting.result is not None
    with pytest.raises(InvalidParams):
        await house.resume(parked, {"action": "accept"})


async def test_a_parked_call_whose_client_does_not_return_is_cancelled_at_its_server() -> None:
    house = House(park_time=30)
    parked = await house.park(modern())
    await house.clock.advance(30)
    assert house.transport.notes[0]["method"] == "notifications/cancelled"
    assert house.transport.notes[0]["params"]["requestId"] == 1
    assert "did not return within 30 s" in house.transport.notes[0]["params"]["reason"]
    with pytest.raises(InvalidParams):
        await house.resume(parked)
    assert (house.bridge.parked, house.link.is_busy) == (0, False)


@pytest.mark.parametrize("ends", ["the request is cancelled", "the call is answered", "the call is cancelled"])
async def test_a_call_that_changes_in_the_turn_of_the_request_is_not_parked(ends: str) -> None:
    house = House()
    sent = house.begin(modern())
    assert sent.pending is not None
    house.ask(id_=9)
    match ends:
        case "the request is cancelled":
            house.cancel(9)
        case "the call is answered":
            house.answer()
        case "the call is cancelled":
            house.link.abandon(sent.pending, CallCancelled())
    await settled()
    assert house.bridge.parked == 0
    house.answer()
    assert isinstance(sent.failure, CallCancelled) if ends == "the call is cancelled" else sent.result is not None
    assert not house.link.is_busy


async def test_an_answer_that_arrives_while_the_call_is_parked_is_kept() -> None:
    house = House()
    parked = await house.park(modern())
    house.answer()
    assert (await house.resume(parked, {"action": "accept"})).result == b'{"done":1.50}'
    assert house.sent == []


# --- -32042 -----------------------------------------------------------------------------------------------------------


def url_error(*elicitations: object) -> RemoteError:
    data = {"elicitations": list(elicitations)} if elicitations else {}
    raw = json.dumps({"code": -32042, "message": "first", "data": data}).encode()
    return RemoteError(raw, code=-32042, backend="notes")


URL = {"mode": "url", "message": "Sign in", "url": "https://x.test/", "elicitationId": "1"}


async def test_a_required_url_is_an_input_request_and_its_state_is_used_once() -> None:
    house = House(several=True, park_time=30, max_parked=2)
    answer = house.bridge.url_required(url_error(URL, URL), modern(), house.target)
    assert answer is not None
    wanted = json.loads(bytes(answer))
    assert len(wanted["inputRequests"]) == 2
    asked = wanted["inputRequests"]["url-1"]["params"]
    assert asked == {"mode": "url", "message": "[notes] Sign in", "url": "https://x.test/"}
    again = modern(requestState=wanted["requestState"])
    repeat = house.bridge.find_parked(again, house.target)
    assert not isinstance(repeat, Parked)
    assert house.bridge.find_parked(again, house.target) is repeat
    house.bridge.consume(repeat)
    with pytest.raises(InvalidParams):
        house.bridge.find_parked(again, house.target)
    for _ in range(2):
        assert house.bridge.url_required(url_error(URL), modern(), house.target) is not None
    assert house.bridge.url_required(url_error(URL), modern(), house.target) is None, "too many"
    await house.clock.advance(31)
    assert house.bridge.url_required(url_error(URL), modern(), house.target) is not None


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
async def test_an_error_without_a_supported_elicitation_stays_an_error(exc: RemoteError, capabilities: bytes) -> None:
    house = House()
    assert house.bridge.url_required(exc, modern(capabilities=capabilities), house.target) is None


# --- modern servers, clients that keep a session ----------------------------------------------------------------------

WANTED: dict[str, Any] = {
    "resultType": "input_required",
    "inputRequests": {
        "k/1": {"method": "elicitation/create", "params": {"mode": "url", "message": "m", "url": "https://u"}}
    },
    "requestState": "\u00e9tat",
}


async def ask(house: House, call: Call, result: object = WANTED) -> dict[str, Any]:
    """The params with which a call is sent again."""
    wanted = input_required(Payload(encode(result)), None)
    assert wanted is not None
    found = await house.bridge.ask(call, "notes", wanted)
    return {key: json.loads(bytes(value)) for key, value in found.items()}


async def test_a_state_alone_is_returned_after_a_pause_and_none_if_there_was_none() -> None:
    house, client = House(), Client(response=b"{}")
    waiting = asyncio.ensure_future(
        ask(house, client.call(name="t"), {"resultType": "input_required", "requestState": "s"})
    )
    await settled()
    assert not waiting.done()
    await house.clock.advance(STATE_ONLY_WAIT)
    assert await waiting == {"name": "t", "requestState": "s"}
    stateless = {key: value for key, value in WANTED.items() if key != "requestState"}
    assert "requestState" not in await ask(house, client.call(name="t"), stateless)


@pytest.mark.parametrize(
    "result", [b'{"content":[{"text":"\\"input_required\\""}]}', b'{"resultType":"other","x":"input_required"}']
)
async def test_a_result_that_only_contains_the_words_asks_for_nothing(result: bytes) -> None:
    assert input_required(Payload(result), None) is None


@pytest.mark.parametrize(
    ("response", "problem", "match"),
    [
        (Envelope(error=Payload(b'{"code":-1,"message":"no"}')), BackendProtocolError, "the client refused"),
        (None, BackendTimeout, "did not answer"),
        (CallCancelled("the client left"), CallCancelled, "left"),
    ],
)
async def test_without_the_clients_input_the_call_ends(
    response: Envelope | Exception | None, problem: type[ManifoldError], match: str
) -> None:
    house, client = House(park_time=30), Client()
    task = asyncio.ensure_future(ask(house, client.call()))
    await settled()
    if isinstance(response, Exception):
        client.asked[0][2].set_exception(response)
    elif response is not None:
        client.asked[0][2].set_result(response)
    await house.clock.advance(30)
    with pytest.raises(problem, match=match):
        await task
    assert client.asked[0][2].done()


async def test_nothing_is_asked_if_one_of_the_requests_is_not_supported() -> None:
    client = Client(capabilities=b'{"elicitation":{"url":{}}}')
    both = {**WANTED["inputRequests"], "k/2": {"method": "roots/list"}}
    with pytest.raises(BackendProtocolError, match="needs roots/list"):
        await ask(House(), client.call(), {**WANTED, "inputRequests": both})
    assert client.asked == []


# --- URLs a server sends its client to --------------------------------------------------------------------------------

URL_CLIENT = b'{"elicitation":{"url":{}}}'
UNSAFE = [
    "http://evil.test/",
    "javascript:alert(1)",
    "https:/x",
    "https://a b",
    "file:///etc/passwd",
    "https://[",
    7,
    None,
]


@pytest.mark.parametrize("url", UNSAFE)
@pytest.mark.parametrize("era", ["handshake", "modern"])
async def test_a_client_is_not_sent_to_an_unsafe_url(url: object, era: str) -> None:
    house = House()
    house.begin(Client(capabilities=URL_CLIENT).call() if era == "handshake" else modern(capabilities=URL_CLIENT))
    house.ask(params={"mode": "url", "message": "Open", "url": url, "elicitationId": "e"})
    assert house.sent[0]["error"]["code"] == -32602
    assert "https://" in house.sent[0]["error"]["message"]


@pytest.mark.parametrize(
    "url", ["https://example.org/x?y=1", "http://127.0.0.1:80/", "http://localhost/", "http://[::1]/"]
)
async def test_a_client_is_sent_to_a_safe_url(url: str) -> None:
    house, client = House(), Client(capabilities=URL_CLIENT)
    house.begin(client.call())
    house.ask(params={"mode": "url", "message": "Open", "url": url, "elicitationId": "e"})
    assert len(client.asked) == 1


@pytest.mark.parametrize("several", [False, True])
async def test_a_modern_server_cannot_send_a_client_to_an_unsafe_url_either(several: bool) -> None:
    wanted = {"method": "elicitation/create", "params": {"mode": "url", "message": "x", "url": "http://evil.test"}}
    result = Payload(encode({"resultType": "input_required", "inputRequests": {"a": wanted}}))
    with pytest.raises(BackendProtocolError, match="neither https nor on this machine"):
        House(several=several).bridge.named(modern(), result, None)
