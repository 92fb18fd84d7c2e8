"""What a call notes of itself: its backend, its attempts, and whether it may create a task."""

from typing import Any

import pytest

from mcp_manifold.backends.link.server_requests import ServerNotification
from mcp_manifold.errors import BackendUnavailable, RemoteError
from mcp_manifold.model.call import Session
from mcp_manifold.model.policy import ANONYMOUS
from mcp_manifold.wire import LATEST_HANDSHAKE, Payload
from tests.fakes.clock import settled
from tests.unit.backends.linking import reply_of
from tests.unit.core.house import Client, House, call_of, server
from tests.unit.core.silent import RUNS_TASKS

pytestmark = pytest.mark.anyio


async def test_a_call_that_was_never_sent_names_the_backend_at_fault() -> None:
    house = House(server("a"))
    house.offers("a", tools=["t"])
    del house.fleet["a"]
    call = call_of(Session("", ANONYMOUS, "", LATEST_HANDSHAKE), name="a__t")
    house.dispatch(call)
    assert isinstance(reply_of(call).failure, BackendUnavailable)
    assert call.backend == "a"
    assert call.attempts == 0


async def test_a_call_keeps_the_backend_it_was_sent_to() -> None:
    house = House(server("a"))
    backend = house.offers("a", lambda *_: None, tools=["t"])
    call = call_of(Session("", ANONYMOUS, "", LATEST_HANDSHAKE), name="a__t")
    house.dispatch(call)
    backend.link.fail(backend.transport.requests[0][0], BackendUnavailable("other", "is not reachable"))
    assert call.backend == "a"


@pytest.mark.parametrize("creates", [False, True])
async def test_messages_about_unknown_tasks_are_kept_only_while_a_call_may_create_one(creates: bool) -> None:
    house, passed = House(server("a")), list[ServerNotification]()
    backend = house.offers("a", lambda *_: None, tools=["t"], capabilities=RUNS_TASKS)
    more: dict[str, Any] = {"task": {}} if creates else {}
    call = call_of(Session("", ANONYMOUS, "", LATEST_HANDSHAKE), name="a__t", **more)
    house.dispatch(call)
    params = Payload(b'{"_meta":{"io.modelcontextprotocol/related-task":{"taskId":"7"}}}')
    house.tasks.on_notification(
        ServerNotification(backend.link, "notifications/message", params, None, None), passed.append
    )
    assert len(passed) == (0 if creates else 1)
    backend.answer(RemoteError(b'{"code":-1,"message":"no"}', code=-1, backend="a"))
    await settled()
    assert len(passed) == 1


async def test_a_round_of_input_starts_the_count_of_attempts_again() -> None:
    house, client = House(server("a")), Client(response=b'{"action":"decline"}')
    backend = house.offers("a", lambda *_: None, era="modern", tools=["t"])
    call = client.call(name="a__t")
    house.dispatch(call)
    backend.answer({"resultType": "input_required", "inputRequests": {"q": {"method": "roots/list"}}})
    await settled()
    assert len(backend.asked) == 2
    assert (call.attempts, call.rounds) == (1, 1)
