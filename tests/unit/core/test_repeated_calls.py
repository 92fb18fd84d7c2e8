"""Calls that are sent more than once: after a failure, or with their client's input."""

from typing import Any

import pytest

from mcp_manifold.backends.calls.executor import MAX_ATTEMPTS
from mcp_manifold.backends.calls.request_policy import PAUSE
from mcp_manifold.core.bridge import MAX_ROUNDS
from mcp_manifold.errors import (
    BackendLost,
    BackendTimeout,
    BackendUnavailable,
    RemoteError,
    SessionExpired,
)
from mcp_manifold.wire import MODERN_VERSION
from tests.fakes.clock import settled
from tests.unit.backends.linking import reply_of
from tests.unit.core.house import Client, House, server
from tests.unit.core.silent import MISMATCH, TOOLS, WANTED, call, house_of, is_over, read

pytestmark = pytest.mark.anyio

# --- second attempts --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("failure", "made", "retry", "attempts", "is_paused"),
    [
        (BackendUnavailable("a", "refused").unsent(), call, "safe", 2, True),
        (BackendUnavailable("a", "refused").unsent(), call, "never", 1, False),
        (BackendLost("a", "reset"), read, "safe", 2, True),
        (BackendLost("a", "reset"), call, "idempotent", 1, False),
        (BackendLost("a", "reset"), lambda: call("a__safe"), "idempotent", 2, True),
        (BackendLost("a", "reset"), lambda: call("a__safe"), "safe", 1, False),
        (SessionExpired("a", "unknown session"), call, "never", MAX_ATTEMPTS, False),
        (BackendTimeout("a", "too late"), read, "safe", 1, False),
        (RemoteError(b'{"code":-1}', code=-1, backend="a"), read, "safe", 1, False),
    ],
)
async def test_a_failed_request_is_sent_again_by_these_rules(
    failure: Exception, made: Any, retry: str, attempts: int, is_paused: bool
) -> None:
    house, again = house_of(retry=retry), made()
    backend = house.fleet["a"]
    backend._answer = lambda *_: failure
    house.dispatch(again)
    await settled()
    assert len(backend.asked) == (1 if is_paused else attempts)
    await house.clock.advance(PAUSE)
    assert len(backend.asked) == again.attempts == attempts
    assert isinstance(reply_of(again).failure, type(failure))
    assert (backend.executor.retries, is_over(house, again)) == (is_paused, True)


async def test_a_lost_session_and_another_failure_are_made_up_for_together() -> None:
    house, made = house_of(), read()
    failures: list[object] = [SessionExpired("a", "unknown session"), BackendLost("a", "reset"), {"contents": []}]
    house.fleet["a"]._answer = lambda *_: failures.pop(0)
    house.dispatch(made)
    await house.clock.advance(PAUSE)
    assert reply_of(made).result == {"contents": []}
    assert is_over(house, made)


@pytest.mark.parametrize("times", [1, 2])
async def test_a_header_mismatch_relists_the_tools_once(times: int) -> None:
    house, made = house_of("modern"), call(version=MODERN_VERSION)
    answers: list[object] = [*[MISMATCH] * times, {"content": []}]
    house.fleet["a"]._answer = lambda *_: answers.pop(0)
    house.dispatch(made)
    await settled()
    assert (house.fleet["a"].lister.relisted, len(house.fleet["a"].asked)) == (1, 2)
    assert (reply_of(made).failure is None) is (times == 1)
    assert is_over(house, made)


async def test_the_second_attempt_keeps_the_slot() -> None:
    house = house_of(max_concurrency=1)
    backend = house.fleet["a"]
    first, second = read(), call()
    house.dispatch(first)
    house.dispatch(second)
    backend.link.fail(backend.transport.requests[0][0], BackendLost("a", "reset"))
    await house.clock.advance(PAUSE)
    assert [method for method, _ in backend.asked] == ["resources/read"] * 2
    backend.answer({"contents": []})
    await settled()
    backend.answer({})
    assert is_over(house, first)
    assert is_over(house, second)


# --- input ------------------------------------------------------------------------------------------------------------


async def test_the_call_is_sent_again_with_the_clients_input() -> None:
    house, client = House(server("a")), Client(response=b'{"action":"accept"}')
    answers: list[object] = [WANTED, {"content": [], "resultType": "complete"}]
    backend = house.offers("a", lambda *_: answers.pop(0), era="modern", tools=TOOLS)
    made = client.call(name="a__t", inputResponses={"old": 1}, requestState="old")
    house.dispatch(made)
    await settled()
    assert reply_of(made).result == {"content": []}
    responses = {"inputResponses": {"q": {"action": "accept"}}, "requestState": "s"}
    assert backend.asked[1] == ("tools/call", {"name": "t", **responses})
    assert is_over(house, made)


async def test_a_server_that_asks_for_input_for_ever_is_stopped() -> None:
    house, client = House(server("a")), Client(response=b"{}")
    house.offers("a", lambda *_: WANTED, era="modern", tools=TOOLS)
    made = client.call(name="a__t")
    house.dispatch(made)
    await settled(MAX_ROUNDS * 8)
    assert f"more than {MAX_ROUNDS} times" in str(reply_of(made).failure)
    assert (len(client.asked), is_over(house, made)) == (MAX_ROUNDS, True)


async def test_each_round_of_input_has_attempts_of_its_own() -> None:
    house, client = House(server("a")), Client(response=b"{}")
    lost = SessionExpired("a", "unknown session")
    answers: list[object] = [WANTED, WANTED, WANTED, lost, lost, {"content": []}]
    backend = house.offers("a", lambda *_: answers.pop(0), era="modern", tools=TOOLS)
    made = client.call(name="a__t")
    house.dispatch(made)
    await settled(60)
    assert (reply_of(made).result, len(backend.asked)) == ({"content": []}, 6)


async def test_each_round_of_input_has_the_whole_timeout() -> None:
    house, client = House(server("a", max_concurrency=1, timeout=10)), Client(response=b"{}")
    backend = house.offers("a", lambda *_: None, era="modern", tools=TOOLS)
    house.dispatch(client.call(name="a__t"))
    made = client.call(name="a__t")
    house.dispatch(made)
    await house.clock.advance(7)
    backend.answer({"content": []})
    await settled()
    backend.answer(WANTED)
    await settled()
    assert len(backend.asked) == 3
    await house.clock.advance(9.5)
    assert not made.is_done
    await house.clock.advance(0.5)
    assert isinstance(reply_of(made).failure, BackendTimeout)
    assert is_over(house, made)
