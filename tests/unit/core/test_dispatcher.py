"""The Dispatcher: every call ends once, is cancelled in every step, and leaves nothing behind."""

from typing import Any

import pytest

from mcp_manifold.core.dispatcher import MAX_PLANS
from mcp_manifold.errors import (
    BackendLost,
    BackendOverloaded,
    BackendProtocolError,
    BackendTimeout,
    BackendUnavailable,
    CallCancelled,
    RemoteError,
    TooManyRequests,
)
from mcp_manifold.model.call import Call, Session
from mcp_manifold.model.catalogue import Hint
from mcp_manifold.model.policy import ANONYMOUS
from mcp_manifold.wire import LATEST_HANDSHAKE, MODERN_VERSION, Payload
from tests.fakes.clock import settled
from tests.unit.backends.linking import reply_of
from tests.unit.core.house import Client, House, call_of, server
from tests.unit.core.silent import TOOLS, WANTED, call, house_of, is_over

pytestmark = pytest.mark.anyio

# --- ends -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [LATEST_HANDSHAKE, MODERN_VERSION])
async def test_a_call_is_sent_and_answered_in_the_turns_of_its_messages(version: str) -> None:
    house, made = house_of(), call(version=version)
    house.dispatch(made)
    backend = house.fleet["a"]
    assert backend.asked == [("tools/call", {"name": "t"})]
    assert (made.backend, made.attempts, backend.executor.running) == ("a", 1, 1)
    backend.answer({"content": []})
    assert is_over(house, made)
    assert reply_of(made).result["content"] == []
    assert house.stages[0].ends == ["ok"]


async def test_stages_see_a_call_from_the_outside_in_and_back() -> None:
    house, steps = house_of(), list[str]()
    for number, stage in enumerate(house.stages):
        stage.steps, stage.name = steps, str(number)
    house.dispatch(call())
    house.fleet["a"].answer({})
    assert steps == ["0 began", "1 began", "1 ended", "0 ended"]


async def test_a_call_that_ended_tells_how_long_it_took() -> None:
    house, made = house_of(), call()
    house.dispatch(made)
    await house.clock.advance(2.5)
    house.fleet["a"].answer({})
    assert (is_over(house, made), made.seconds) == (True, 2.5)


async def test_a_list_is_answered_before_dispatch_returns() -> None:
    house = house_of()
    made = call_of(Session("", ANONYMOUS, "", LATEST_HANDSHAKE), "tools/list")
    house.dispatch(made)
    assert is_over(house, made)
    assert len(reply_of(made).result["tools"]) == 2


async def test_stages_see_the_first_piece_of_a_list() -> None:
    house, seen = House(server("a")), list[Payload | None]()
    hint = Hint(60_000, is_public=False, at=house.clock.now())
    house.offers("a", era="modern", tools=["t"], hints={"tools/list": hint})  # its time makes a piece of its own
    house.stages[0].ended = lambda call, result, failure: seen.append(result)  # type: ignore[method-assign]
    house.dispatcher.adapt()
    house.attempted()
    made = call_of(Session("", ANONYMOUS, "", MODERN_VERSION), "tools/list")
    house.dispatch(made)
    first = bytes(seen[0] or b"")
    assert b'"tools":[' in first
    assert b"60000" not in first
    assert reply_of(made).result["ttlMs"] == 60_000


FAILURES = (
    BackendTimeout("a", "too late"),
    BackendProtocolError("a", "no MCP"),
    BackendUnavailable("a", "refused", status=401),
    CallCancelled("taken back"),
    RemoteError(b'{"code":-1,"message":"no"}', code=-1, backend="a"),
    ZeroDivisionError(),
)


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: type(failure).__name__)
async def test_any_failure_of_the_request_ends_the_call(failure: Exception) -> None:
    house, made = house_of(), call()
    house.dispatch(made)
    backend = house.fleet["a"]
    backend.link.fail(backend.transport.requests[0][0], failure)
    assert is_over(house, made)
    assert isinstance(reply_of(made).failure, type(failure))
    assert house.stages[0].ends == [type(failure).__name__]


async def test_a_refused_call_reaches_no_backend_and_ends_for_the_stages_that_saw_it_begin() -> None:
    house, made = house_of(), call()
    house.stages[1].refusal = TooManyRequests("no more", retry_after=1.0)
    house.dispatch(made)
    assert isinstance(reply_of(made).failure, TooManyRequests)
    assert (house.stages[0].ends, house.stages[1].ends) == (["TooManyRequests"], [])
    assert house.fleet["a"].asked == []


@pytest.mark.parametrize("which", ["began", "ended", "reply"])
async def test_a_defect_around_a_call_reaches_neither_the_backends_reader_nor_other_calls(
    which: str, caplog: pytest.LogCaptureFixture
) -> None:
    house, made, other = house_of(), call(), call()
    house.dispatch(other)

    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    if which == "reply":
        made.reply.respond = broken  # type: ignore[method-assign]
    else:
        setattr(house.stages[1], which, broken)
        house.dispatcher.adapt()
    house.dispatch(made)
    backend = house.fleet["a"]
    for pending in list(backend.link.pending):
        backend.answer({}, pending)
    assert reply_of(other).result == {}
    assert made.is_done
    assert backend.is_idle
    if which == "began":
        assert isinstance(reply_of(made).failure, ZeroDivisionError)
    else:
        assert "a call failed" in caplog.text
    assert reply_of(made).result == ({} if which == "ended" else None)


async def test_a_defect_while_finishing_costs_its_call_an_error_and_nothing_else() -> None:
    house, made = house_of("modern"), call()
    house.dispatch(made)
    house.dispatcher.results = None  # type: ignore[assignment]  # a defect
    house.fleet["a"].answer({})
    assert is_over(house, made)
    assert isinstance(reply_of(made).failure, AttributeError)


async def test_closing_cancels_every_wait() -> None:
    house = house_of(max_concurrency=1)
    made = [call_of(Session("", ANONYMOUS, "", LATEST_HANDSHAKE), "resources/subscribe"), call(), call()]
    for each in made:
        house.dispatch(each)
    await house.dispatcher.aclose()
    assert [type(reply_of(each).failure) for each in made] == [CallCancelled, type(None), CallCancelled]
    house.fleet["a"].answer({})
    assert all(is_over(house, each) for each in made)


# --- cancelling -------------------------------------------------------------------------------------------------------


def sent(house: House) -> Call:
    return call()


def waiting_for_slot(house: House) -> Call:
    house.dispatch(call())
    return call()


def waiting_for_link(house: House) -> Call:
    backend = house.fleet["a"]
    backend.link.lost(BackendLost("a", "gone"))
    backend.connect = house._wait  # type: ignore[assignment]  # takes its time
    return call()


def raising_level(house: House) -> Call:
    made = call(version=MODERN_VERSION)
    made.session.log_level = "debug"
    return made


def asking_client(house: House) -> Call:
    house.offers("a", lambda *_: WANTED, era="modern", tools=TOOLS)
    return Client().call(name="a__t")


def retrying(house: House) -> Call:
    backend = house.fleet["a"]
    backend.transport.refusal = BackendUnavailable("a", "refused").unsent()
    return call()


def local(house: House) -> Call:
    return call_of(Session("", ANONYMOUS, "", LATEST_HANDSHAKE), "resources/subscribe")


def creating_task(house: House) -> Call:
    return call(task={})


STEPS = (sent, waiting_for_slot, waiting_for_link, raising_level, asking_client, retrying, local, creating_task)


@pytest.mark.parametrize("turns", [0, 1, 2, 5])
@pytest.mark.parametrize("at", STEPS, ids=lambda at: at.__name__)
async def test_a_call_is_cancelled_in_every_step(at: Any, turns: int) -> None:
    house = house_of(max_concurrency=1)
    made = at(house)
    in_flight = house.dispatch(made)
    await settled(turns)
    for _ in range(2):
        in_flight.cancel()
    await settled()
    assert isinstance(reply_of(made).failure, CallCancelled)
    for pending in list(house.fleet["a"].link.pending):
        house.fleet["a"].answer({}, pending)
    await settled()
    assert is_over(house, made)
    assert house.tasks._expected["a"] == 0


async def test_cancelling_a_sent_call_cancels_it_at_the_backend_once() -> None:
    house, made = house_of(), call()
    in_flight = house.dispatch(made)
    for _ in range(2):
        in_flight.cancel()
    notes = house.fleet["a"].transport.notes
    assert [(note["method"], note["params"]["requestId"]) for note in notes] == [("notifications/cancelled", 1)]
    house.fleet["a"].answer({"late": True}, 1)
    assert is_over(house, made)


async def test_cancelling_a_call_that_is_done_changes_nothing() -> None:
    house, made = house_of(), call()
    in_flight = house.dispatch(made)
    house.fleet["a"].answer({})
    in_flight.cancel()
    assert (made.is_cancelled, house.fleet["a"].transport.notes) == (False, [])


async def test_a_call_that_should_end_is_passed_on() -> None:
    house = house_of()
    made = local(house)
    house.dispatch(made).end()
    assert (made.is_ending, house.ending) == (True, [made])
    house.released.set()
    await settled()
    assert is_over(house, made)


# --- waiting ----------------------------------------------------------------------------------------------------------


async def test_the_time_a_call_waited_for_its_slot_counts_towards_its_timeout() -> None:
    house = house_of(max_concurrency=1, timeout=10)
    first, second = call(), call()
    house.dispatch(first)
    house.dispatch(second)
    await house.clock.advance(7)
    house.fleet["a"].answer({})
    await settled()
    assert len(house.fleet["a"].asked) == 2
    await house.clock.advance(2.5)
    assert not second.is_done
    await house.clock.advance(0.5)
    assert isinstance(reply_of(second).failure, BackendTimeout)
    assert is_over(house, second)


async def test_a_call_without_a_slot_in_time_was_never_sent() -> None:
    house = house_of(max_concurrency=1, timeout=10)
    backend = house.fleet["a"]
    house.dispatch(call())
    backend.link.stall(backend.transport.requests[0][0])
    made = call()
    house.dispatch(made)
    await house.clock.advance(10)
    assert isinstance(reply_of(made).failure, BackendOverloaded)
    backend.answer({})
    assert is_over(house, made)


async def test_a_call_opens_its_link_first() -> None:
    house, made = house_of(), call()
    house.fleet["a"].link.lost(BackendLost("a", "gone"))
    house.dispatch(made)
    await settled()
    house.fleet["a"].answer({})
    assert is_over(house, made)
    assert len(house.fleet["a"].transports) == 2


async def test_a_call_that_cannot_be_connected_fails_with_the_reason() -> None:
    house, made = house_of(), call()
    backend = house.fleet["a"]
    backend.link.lost(BackendLost("a", "gone"))
    backend.connects = None
    house.dispatch(made)
    await settled()
    assert "is not reachable" in str(reply_of(made).failure)
    assert is_over(house, made)


async def test_a_link_that_is_lost_after_every_wait_ends_the_call() -> None:
    house, made = house_of(), call()
    backend = house.fleet["a"]
    tries: list[None] = []
    backend.link.lost(BackendLost("a", "gone"))
    backend.connects = lambda: tries.append(None)
    house.dispatch(made)
    await settled(MAX_PLANS * 4)
    assert "lost every time" in str(reply_of(made).failure)
    assert (len(tries), is_over(house, made)) == (MAX_PLANS, True)


async def test_a_raised_log_level_is_lowered_when_the_call_ends() -> None:
    house = house_of()
    made = raising_level(house)
    house.dispatch(made)
    await settled()
    assert house.levels == [(house.fleet["a"].link, "debug")]
    house.fleet["a"].answer({"content": []})
    assert is_over(house, made)
