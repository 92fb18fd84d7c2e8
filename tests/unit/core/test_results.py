"""Results: the answer of a backend in the client's era, with public URIs, in the turn it arrives in."""

import json
from typing import Any

import pytest

from mcp_manifold.errors import BackendProtocolError, RemoteError
from mcp_manifold.model.call import Call, Session
from mcp_manifold.model.policy import ANONYMOUS
from mcp_manifold.wire import LARGE, LATEST_HANDSHAKE, LONG, MODERN_VERSION, Era, Payload
from tests.fakes.clock import settled
from tests.unit.backends.linking import reply_of
from tests.unit.core.house import META, FakeBackend, House, call_of, modern_call, server

pytestmark = pytest.mark.anyio

PAIRS = [(version, era) for version in (LATEST_HANDSHAKE, MODERN_VERSION) for era in ("handshake", "modern")]
all_pairs = pytest.mark.parametrize(("version", "era"), PAIRS)
"""The eras of client and backend."""
REF = {"type": "resource_link", "uri": "file:///x", "name": "n"}


def sent(version: str, era: Era, *names: str, **params: Any) -> tuple[House, FakeBackend, Call]:
    """A call of the last server that was sent and waits for its answer."""
    names = names or ("a",)
    house = House(*(server(name) for name in names))
    for name in names:
        house.offers(name, lambda *_: None, era=era, tools=["t"], resources=["x:1"])
    session = Session("", ANONYMOUS, "", version, capabilities=Payload(b'{"elicitation":{"url":{}}}'))
    made = call_of(session, name=f"{names[-1]}__t", **params)
    house.dispatch(made)
    return house, house.fleet[names[-1]], made


RESULTS: dict[str, dict[str, Any]] = {
    "plain": {"content": [], "n": 1.5},
    "tool error": {"content": [], "isError": True},
    "link": {"content": [REF]},
    "embedded": {"content": [{"type": "resource", "resource": {"uri": "file:///x", "text": "\u00e9"}}]},
    "large": {"content": [], "x": "y" * LARGE},
    "large with members of a modern result": {
        "content": [], "_meta": {"a": 1}, "resultType": "complete", "x": "y" * LARGE,
    },
    "words only": {"content": [{"type": "text", "text": '"input_required"'}, "input_required"], "x": "task"},
    "long with a link": {"content": [REF], "x": "y" * LONG},
    "long without a link": {"content": [], "x": "y" * LONG},
}  # fmt: skip


@all_pairs
@pytest.mark.parametrize("what", RESULTS)
async def test_a_result_keeps_its_members_in_the_clients_era(what: str, version: str, era: Era) -> None:
    house, backend, made = sent(version, era)
    backend.answer(RESULTS[what])
    assert reply_of(made).is_answered is (what != "long with a link"), "in the turn it arrives in"
    await settled(200)
    found, expected = reply_of(made).result, dict(RESULTS[what])
    if version == MODERN_VERSION:
        expected = {**expected, "resultType": "complete", "_meta": {**expected.get("_meta", {}), **META}}
    elif era == "modern":
        expected.pop("resultType", None)
    assert found == expected
    assert house.stages[0].ends == ["ok"]


@pytest.mark.parametrize("capabilities", [b"{}", b'{"extensions":{"io.modelcontextprotocol/tasks":{}}}'])
async def test_a_task_of_the_extension_gets_a_public_id_or_is_an_error(capabilities: bytes) -> None:
    house = House(server("a"))
    backend = house.offers("a", lambda *_: None, era="modern", tools=["t"])
    made = modern_call(name="a__t", capabilities=capabilities)
    house.dispatch(made)
    backend.answer({"resultType": "task", "taskId": "7", "status": "working"})
    if capabilities == b"{}":
        assert isinstance(reply_of(made).failure, BackendProtocolError)
    else:
        assert reply_of(made).result["taskId"].startswith("a.")


# --- -32042: a URL must be visited first ------------------------------------------------------------------------------


def url_error() -> RemoteError:
    elicitation = {"mode": "url", "url": "https://x.test", "message": "Sign in", "elicitationId": "1"}
    raw = json.dumps({"code": -32042, "message": "no", "data": {"elicitations": [elicitation]}}).encode()
    return RemoteError(raw, code=-32042, backend="a", era="handshake")


async def test_a_parked_call_may_end_with_a_required_url() -> None:
    house, backend, made = sent(MODERN_VERSION, "handshake")
    made.session.capabilities = Payload(b'{"elicitation":{"form":{},"url":{}}}')
    body = b'{"jsonrpc":"2.0","id":7,"method":"elicitation/create","params":{"message":"Which?"}}'
    backend.link.fed(body, backend.transport.requests[0][0])
    await settled()
    parked = reply_of(made).result
    assert (parked["resultType"], parked["_meta"], house.stages[0].ends) == ("input_required", META, ["ok"])
    (key,) = parked["inputRequests"]
    again = modern_call(name="a__t", requestState=parked["requestState"], inputResponses={key: {"action": "accept"}})
    house.dispatch(again)
    assert backend.transport.notes == [{"jsonrpc": "2.0", "id": 7, "result": {"action": "accept"}}]
    backend.answer(url_error())
    assert list(reply_of(again).result["inputRequests"]) == ["url-1"]
    assert backend.is_idle
