"""A link that relays for who does not wait: told once, in the turn in which it is known, whatever becomes of it."""

import asyncio

import pytest

from mcp_manifold.backends.link.link import Link
from mcp_manifold.backends.link.pending import CallbackOutcome
from mcp_manifold.errors import (
    BackendLost,
    BackendProtocolError,
    BackendTimeout,
    BackendUnavailable,
    CallCancelled,
    RemoteError,
)
from mcp_manifold.model.call import Call
from mcp_manifold.wire import EMPTY, Payload, modern_stamp
from tests.unit.backends.linking import Caller, FakeTransport, connected, within

pytestmark = pytest.mark.anyio

CANCELLED = "notifications/cancelled"


class Heard:
    """What became of a call; it is told once."""

    def __init__(self) -> None:
        self.result: bytes | None = None
        self.failure: Exception | None = None
        self.done = asyncio.Event()

    def __call__(self, result: Payload | None, failure: Exception | None) -> None:
        assert not self.done.is_set(), "told twice"
        assert (result is None) != (failure is None)
        self.result, self.failure = None if result is None else bytes(result), failure
        self.done.set()


def relay(link: Link, call: Call, *, timeout: float = 30.0, ceiling: float = 600.0) -> Heard:
    heard = Heard()
    link.relay("tools/call", call.params, timeout=timeout, call=call, ceiling=ceiling, told=heard)
    return heard


def ready() -> tuple[Link, FakeTransport, Call]:
    link, transport = connected()
    return link, transport, Caller().call(name="echo", arguments={})


async def test_a_result_is_told_in_the_turn_in_which_it_comes() -> None:
    link, transport, call = ready()
    heard = relay(link, call)
    assert not heard.done.is_set()
    assert [pending.method for pending, _ in transport.requests] == ["tools/call"]
    assert (call.number, call.backend_era) == (1, "handshake")
    link.fed(b'{"jsonrpc":"2.0","id":1,"result":{ "a" : 1.50 }}')
    assert heard.result == b'{ "a" : 1.50 }'
    assert not link.is_busy
    call.cancel()  # too late: nobody is told of it
    link.fed(b'{"jsonrpc":"2.0","id":1,"result":{"again":true}}')
    link.lost(BackendLost("notes", "is gone"))
    assert not transport.notes


@pytest.mark.parametrize(
    ("answer", "failure"),
    [
        (b'"error":{"code":-32001,"message":"no"}', RemoteError),
        (b'"result":[]', BackendProtocolError),
        (b'"result":null', BackendProtocolError),
    ],
)
async def test_what_is_no_result_is_told_as_a_failure(answer: bytes, failure: type[Exception]) -> None:
    link, _, call = ready()
    heard = relay(link, call)
    link.fed(b'{"jsonrpc":"2.0","id":1,%b}' % answer)
    assert isinstance(heard.failure, failure)
    assert not link.is_busy


async def test_what_cannot_be_sent_is_raised_and_nothing_is_told() -> None:
    link, transport, call = ready()
    transport.refusal = BackendUnavailable("notes", "is not there")
    heard = Heard()
    with pytest.raises(BackendUnavailable):
        link.relay("tools/call", call.params, timeout=1.0, call=call, ceiling=1.0, told=heard)
    assert not link.pending
    call.cancel()
    link.lost(BackendLost("notes", "is gone"))
    with pytest.raises(BackendUnavailable):
        link.relay("tools/call", call.params, timeout=1.0, call=call, ceiling=1.0, told=heard)
    assert not heard.done.is_set()


async def test_a_call_that_is_taken_back_is_told_so_at_once_and_the_backend_as_well() -> None:
    link, transport, call = ready()
    heard = relay(link, call)
    call.cancel()
    assert isinstance(heard.failure, CallCancelled)
    assert [(note["method"], note["params"]["requestId"]) for note in transport.notes] == [(CANCELLED, 1)]
    call.cancel()
    link.fed(b'{"jsonrpc":"2.0","id":1,"result":{"late":true}}')
    assert len(transport.notes) == 1


async def test_in_2026_07_28_a_call_is_taken_back_by_closing_its_stream() -> None:
    link, transport, call = ready()
    link.stamp(modern_stamp(EMPTY, EMPTY))
    heard = relay(link, call)
    aborted: list[None] = []
    ((pending, _),) = transport.requests
    pending.abort = lambda: aborted.append(None)
    call.cancel()
    assert isinstance(heard.failure, CallCancelled)
    assert (len(aborted), transport.notes) == (1, [])


async def test_calls_on_a_link_that_is_lost_fail_each_once() -> None:
    link, _, _ = ready()
    heard = [relay(link, Caller().call(name="echo", arguments={})) for _ in range(3)]
    link.lost(BackendLost("notes", "is gone"))
    link.lost(BackendLost("notes", "is gone again"))
    assert all(isinstance(each.failure, BackendLost) for each in heard)
    assert ["outcome is unknown" in str(each.failure) for each in heard] == [True] * 3


async def test_who_is_told_of_a_loss_may_call_again_without_harm() -> None:
    link, _, call = ready()
    second, others = Heard(), Heard()

    def retry(result: Payload | None, failure: Exception | None) -> None:
        assert isinstance(failure, BackendLost)
        with pytest.raises(BackendUnavailable):
            link.relay("tools/call", call.params, timeout=1.0, call=call, ceiling=1.0, told=second)

    link.relay("tools/call", call.params, timeout=30.0, call=call, ceiling=600.0, told=retry)
    link.relay(
        "tools/call", call.params, timeout=30.0, call=Caller().call(name="x", arguments={}), ceiling=600.0, told=others
    )
    link.lost(BackendLost("notes", "is gone"))
    assert isinstance(others.failure, BackendLost)
    assert not second.done.is_set()


@pytest.mark.parametrize("limits", [(0.02, 600.0), (30.0, 0.02)], ids=["timeout", "ceiling"])
async def test_a_call_that_takes_too_long_is_told_so_and_taken_back(limits: tuple[float, float]) -> None:
    link, transport, call = ready()
    heard = relay(link, call, timeout=limits[0], ceiling=limits[1])
    await within(heard.done.wait())
    assert isinstance(heard.failure, BackendTimeout)
    assert [note["method"] for note in transport.notes] == [CANCELLED]


async def test_progress_goes_ahead_of_the_result_under_the_callers_own_token() -> None:
    caller = Caller()
    link, transport = connected()
    call = caller.call(name="t", _meta={"progressToken": "mine"})
    heard = relay(link, call)
    assert transport.requests[0][1]["params"]["_meta"]["progressToken"] == 1
    note = b'{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":1,"progress":1}}'
    link.fed(note)
    assert not heard.done.is_set()
    link.fed(b'{"jsonrpc":"2.0","id":1,"result":{}}')
    link.fed(note)  # too late
    assert [b'"progressToken":"mine"' in said for said in caller.emitted] == [True]


def test_a_teller_tells_once_and_is_then_done() -> None:
    heard = Heard()
    teller = CallbackOutcome(Caller().call(), heard)
    assert not teller.done()
    assert not teller.cancelled()
    teller.set_result(Payload(b"{}"))
    assert teller.done()
    teller.set_exception(ValueError())
    teller.set_result(Payload(b"[]"))
    assert heard.result == b"{}"


def test_a_teller_is_done_before_it_tells() -> None:
    seen: list[bool] = []
    teller = CallbackOutcome(Caller().call(), lambda result, failure: seen.append(teller.done()))
    teller.set_exception(ValueError())
    assert seen == [True]


def test_of_a_call_that_was_told_nothing_is_left_to_take_back() -> None:
    undone: list[str] = []
    call = Caller().call()
    call.on_cancel(lambda: undone.append("undone"))
    CallbackOutcome(call, Heard()).set_result(EMPTY)
    call.cancel()
    assert undone == []
