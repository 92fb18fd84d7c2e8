"""What the end of a call tells its stages: the backend at fault, also if the call was never sent."""

import pytest

from mcp_manifold.errors import BackendUnavailable
from mcp_manifold.model.call import Session
from mcp_manifold.model.policy import ANONYMOUS
from mcp_manifold.wire import LATEST_HANDSHAKE
from tests.unit.backends.linking import reply_of
from tests.unit.core.house import House, call_of, server

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
