"""`plan` for tasks and for retries with a `requestState`; and planning changes nothing."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcp_manifold.core.bridge import Parked
from mcp_manifold.core.plan import Answer, Send, Step, Wait, plan
from mcp_manifold.errors import (
    BackendLost,
    InvalidParams,
    ManifoldError,
)
from mcp_manifold.model.call import Call, Session
from mcp_manifold.model.policy import ANONYMOUS, Principal
from mcp_manifold.wire import (
    HANDSHAKE_VERSIONS,
    MODERN_VERSION,
    Era,
    Payload,
    encode,
    members,
)
from tests.unit.backends.linking import raw
from tests.unit.core.house import ABLE, LISTS, FakeBackend, House, call_of, modern_call, server
from tests.unit.core.test_plan import OFFER, RUNS_TASKS, call, fill, house_of, send_of, step

pytestmark = pytest.mark.anyio

# --- tasks ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "era", "capabilities", "creates", "is_kept"),
    [
        ("2025-11-25", "handshake", RUNS_TASKS, True, True),
        ("2025-11-25", "handshake", b"{}", False, False),
        ("2025-11-25", "modern", RUNS_TASKS, False, False),
        ("2025-06-18", "handshake", RUNS_TASKS, False, False),
        (MODERN_VERSION, "modern", b"{}", False, True),
    ],
)
async def test_a_task_is_requested_only_of_a_backend_that_runs_them(
    version: str, era: Era, capabilities: bytes, creates: bool, is_kept: bool
) -> None:
    house = House(server("a"))
    house.offers("a", era=era, capabilities=capabilities, **OFFER)
    send = send_of(house, call(version=version, task={}))
    assert (send.creates_task, "task" in send.params) == (creates, is_kept)


async def test_a_request_about_a_task_needs_no_slot_and_uses_the_link_that_created_it() -> None:
    house = House(server("a", max_concurrency=1))
    backend = house.offers("a", capabilities=RUNS_TASKS, **OFFER)
    made = call_of(Session("", ANONYMOUS, "", "2025-11-25"), "tasks/get", taskId="?")
    with pytest.raises(InvalidParams, match="unknown task"):
        step(house, made)
    creating = call(version="2025-11-25", task={})
    creating.backend = "a"
    result = house.tasks.arrived(
        creating, backend.link, 1, Payload(b'{"task":{"taskId":"7"}}'), None, creates_task=True
    )
    public = members(members(result)["task"])["taskId"]
    made.params["taskId"] = public
    fill(house)
    first = backend.link
    backend.open()
    send = send_of(house, made)
    assert (send.link, send.native, encode(send.params), send.task is None) == (
        first, "7", b'{"taskId":"7"}', False,
    )  # fmt: skip
    first.lost(BackendLost("a", "gone"))
    assert send_of(house, made).link is backend.link
    made.session = Session("", Principal("eve", "eve"), "", "2025-11-25")
    with pytest.raises(InvalidParams, match="unknown task"):
        step(house, made)


# --- requestState -----------------------------------------------------------------------------------------------------


async def parked(house: House) -> tuple[Call, Parked]:
    """A modern client's retry of a call that was parked."""
    backend = house.fleet["a"]
    backend._answer = lambda *_: None
    first = modern_call(name="a__t")
    house.dispatch(first)
    pending = backend.transport.requests[-1][0]
    body = {"jsonrpc": "2.0", "id": 7, "method": "elicitation/create", "params": {"message": "?"}}
    backend.link.fed(encode(body), pending)
    await house.clock.advance(0)
    (state,) = [each.state for each in house.bridge._parked.all()]
    retry = modern_call(name="a__t", requestState=state, inputResponses={})
    found = house.bridge.find_parked(retry, Send(house.backend(), backend.link, {}, "t").target("tools/call"))
    assert isinstance(found, Parked)
    return retry, found


async def test_a_retry_resumes_its_parked_call_whatever_the_state_of_the_backend() -> None:
    house = house_of()
    retry, found = await parked(house)
    house.fleet["a"].executor.breaker.failed(house.clock.now(), "no answer")
    fill(house)
    send = send_of(house, retry)
    assert (send.parked, send.link, sorted(send.params)) == (found, house.fleet["a"].link, ["name"])
    assert send_of(house, retry).parked is found, "planning does not use the state up"


# --- purity -----------------------------------------------------------------------------------------------------------

json_values = st.none() | st.integers(-3, 3) | st.sampled_from(["a__t", "t", "a__p", "x:1", "y:2", "ref/prompt", ""])
params_of = st.dictionaries(
    st.sampled_from(["name", "uri", "ref", "task", "taskId", "requestState", "inputResponses", "cursor", "_meta"]),
    json_values | st.fixed_dictionaries({"type": json_values, "name": json_values}),
)
methods = st.sampled_from(
    ["tools/call", "prompts/get", "resources/read", "completion/complete", "tasks/get", "tasks/cancel", "x/y", "ping",
     "server/discover", "initialize", "resources/subscribe", "tasks/list", *LISTS]
)  # fmt: skip
Change = Callable[[House, FakeBackend], object]
CHANGES: tuple[Change, ...] = (
    lambda house, backend: None,
    lambda house, backend: house.attempted(),
    lambda house, backend: setattr(backend, "has_connected", False),
    lambda house, backend: backend.executor.breaker.failed(house.clock.now(), "x"),
    lambda house, backend: setattr(backend.executor, "running", 1),
    lambda house, backend: backend.link.lost(BackendLost("a", "gone")),
    lambda house, backend: house.fleet.clear(),
)


def state_of(house: House, backend: FakeBackend) -> tuple[object, ...]:
    executor = backend.executor
    held = (executor.running, executor.beside, executor.waiting.size, executor.breaker.position, executor.retries)
    sent = (len(backend.transport.requests), len(backend.transport.notes), len(backend.link.pending))
    known = [(scope, id(view), len(view.encoded)) for scope, view in house.hub.views.items()]
    return (held, sent, known, repr(house.bridge), repr(house.tasks), house.clock.pending, list(house.levels))


@settings(deadline=None)
@given(
    methods, params_of, st.sampled_from([*HANDSHAKE_VERSIONS, MODERN_VERSION]),
    st.sampled_from(["handshake", "modern"]),
    st.lists(st.sampled_from(CHANGES), max_size=3), st.sampled_from(["", "debug"]),
)  # fmt: skip
def test_planning_twice_gives_the_same_step_and_changes_nothing(
    method: str, params: dict[str, Any], version: str, era: Era, changes: list[Change], level: str
) -> None:
    async def planned() -> None:
        house = house_of(era)
        backend = house.fleet["a"]
        for change in changes:
            change(house, backend)
        session = Session("", ANONYMOUS, "", version, capabilities=Payload(ABLE), log_level=level)
        made = Call(method, raw(**params), session, call().reply)
        view, given_params, found = house.hub.view(""), dict(made.params), list[object]()
        before = state_of(house, backend)
        for _ in range(2):
            try:
                found.append(comparable(plan(made, view, house.facts)))
            except ManifoldError as exc:
                found.append((type(exc), str(exc)))
        assert found[0] == found[1]
        assert (state_of(house, backend), made.params) == (before, given_params)
        assert (made.attempts, made.backend, made.slot, made.level) == (0, "", None, None)

    asyncio.run(planned())


def comparable(found: Step) -> object:
    """A step as a value: two waits for the same are equal, and two answers by the same work."""
    if isinstance(found, Wait):
        return found.why
    if isinstance(found, Answer):
        return repr(found.work)
    return found
