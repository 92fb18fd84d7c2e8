"""A house with a silent backend, and calls to it."""

from typing import Any

from mcp_manifold.errors import RemoteError
from mcp_manifold.model.call import Call, Session
from mcp_manifold.model.policy import ANONYMOUS
from mcp_manifold.wire import LATEST_HANDSHAKE, Era
from tests.unit.backends.linking import reply_of
from tests.unit.core.house import House, call_of, server

WANTED = {
    "resultType": "input_required",
    "inputRequests": {"q": {"method": "elicitation/create", "params": {"message": "Which?"}}},
    "requestState": "s",
}
MISMATCH = RemoteError(b'{"code":-32020,"message":"headers"}', code=-32020, backend="a", era="modern")
RUNS_TASKS = b'{"tasks":{"requests":{"tools":{"call":{}}}}}'
TOOLS = ["t", {"name": "safe", "annotations": {"idempotentHint": True}}]


def house_of(era: Era = "handshake", **more: Any) -> House:
    """A house with one silent backend, `a`, that has listed."""
    house = House(server("a", **more))
    house.offers("a", lambda *_: None, era=era, tools=TOOLS, resources=["x:1"], capabilities=RUNS_TASKS)
    backend = house.fleet["a"]
    backend.lister.latest = house.hub.view("").listings[0]
    return house


def call(name: str = "a__t", version: str = LATEST_HANDSHAKE, **more: Any) -> Call:
    return call_of(Session("", ANONYMOUS, "", version), name=name, **more)


def read() -> Call:
    return call_of(Session("", ANONYMOUS, "", LATEST_HANDSHAKE), "resources/read", uri="x:1")


def is_over(house: House, made: Call) -> bool:
    """Whether a call has ended, and nothing is left of it."""
    assert [stage.in_flight for stage in house.stages] == [0, 0]
    assert house.stages[0].ends == house.stages[1].ends
    assert not house.dispatcher.tasks
    assert house.levels == []
    assert all(backend.is_idle for backend in house.fleet.values())
    return reply_of(made).is_answered and made.is_done
