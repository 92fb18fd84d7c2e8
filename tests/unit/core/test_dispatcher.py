"""The Dispatcher: every call ends exactly once, whatever happens, and leaves nothing behind."""

import asyncio
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from mcp_manifold.backends.calls.executor import MAX_ATTEMPTS
from mcp_manifold.backends.calls.request_policy import PAUSE
from mcp_manifold.core.bridge import MAX_ROUNDS
from mcp_manifold.core.dispatcher import MAX_PLANS, InFlightCall
from mcp_manifold.errors import (
    BackendLost,
    BackendOverloaded,
    BackendProtocolError,
    BackendTimeout,
    BackendUnavailable,
    CallCancelled,
    RemoteError,
    SessionExpired,
    TooManyRequests,
)
from mcp_manifold.model.call import Call, Session
from mcp_manifold.model.policy import ANONYMOUS
from mcp_manifold.wire import LATEST_HANDSHAKE, LONG, MODERN_VERSION, Envelope, Era, Payload
from tests.fakes.clock import settled
from tests.unit.backends.linking import FakeReply, reply_of
from tests.unit.core.house import Client, FakeBackend, House, call_of, modern_call, server

pytestmark = pytest.mark.anyio

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


async def test_a_list_is_answered_before_dispatch_returns() -> None:
    house = house_of()
    made = call_of(Session("", ANONYMOUS, "", LATEST_HANDSHAKE), "tools/list")
    house.dispatch(made)
    assert is_over(house, made)
    assert len(reply_of(made).result["tools"]) == 2


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
    await house.clock.advance(3)
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


async def test_cancelling_withdraws_the_requests_to_the_client() -> None:
    house, client = House(server("a")), Client()
    house.offers("a", lambda *_: WANTED, era="modern", tools=TOOLS)
    made = client.call(name="a__t")
    in_flight = house.dispatch(made)
    await settled()
    in_flight.cancel()
    await settled()
    assert client.asked[0][2].cancelled()
    assert is_over(house, made)


@pytest.mark.parametrize("capabilities", [b"{}", b'{"elicitation":{"url":{}}}'])
async def test_a_client_that_does_not_support_the_input_gets_an_error(capabilities: bytes) -> None:
    house, client = House(server("a")), Client(capabilities=capabilities)
    house.offers("a", lambda *_: WANTED, era="modern", tools=TOOLS)
    made = client.call(name="a__t")
    house.dispatch(made)
    await settled()
    assert "needs elicitation/create" in str(reply_of(made).failure)
    assert client.asked == []


# --- the state machine ------------------------------------------------------------------------------------------------

VERSIONS = st.sampled_from([LATEST_HANDSHAKE, MODERN_VERSION])
RESULTS: dict[str, object] = {
    "plain": {"content": []},
    "long": {"content": [{"type": "resource_link", "uri": "x:1", "name": "n"}], "pad": "y" * LONG},
    "task": {"task": {"taskId": "7", "status": "working"}},
    "input": WANTED,
    "error": RemoteError(b'{"code":-1,"message":"no"}', code=-1, backend="a"),
}
LOSSES = (
    BackendTimeout("a", "too late"),
    BackendLost("a", "reset"),
    BackendUnavailable("a", "refused").unsent(),
    SessionExpired("a", "unknown session"),
    BackendProtocolError("a", "no MCP"),
    MISMATCH,
    ZeroDivisionError(),
)


class BrokenReply(FakeReply):
    """Counts its answer, and raises."""

    def respond(self, result: Any, failure: BaseException | None) -> None:
        super().respond(result, failure)
        raise ZeroDivisionError


class Calls(RuleBasedStateMachine):
    """Calls of both eras to a backend of each era, and everything that can happen to them."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.calls: list[tuple[Call, InFlightCall]] = []
        self.clients: list[Client] = []
        self.refused = 0
        self.loop.run_until_complete(self._build())

    async def _build(self) -> None:
        self.house = House(server("a", max_concurrency=2, max_queue=2), server("b", max_concurrency=2))
        eras: tuple[tuple[str, Era], ...] = (("a", "handshake"), ("b", "modern"))
        for name, era in eras:
            backend = self.house.offers(
                name, lambda *_: None, era=era, tools=TOOLS, resources=["x:1"], capabilities=RUNS_TASKS
            )
            backend.lister.latest = self.house.hub.view("").listings[-1]

    def run(self, turns: int = 20) -> None:
        self.loop.run_until_complete(settled(turns))

    def pendings(self) -> list[tuple[FakeBackend, Any]]:
        fleet = self.house.fleet.values()
        return [(backend, pending) for backend in fleet for pending in backend.link.pending.values()]

    @initialize(seed=st.none())
    def begin(self, seed: None) -> None:
        self.dispatch("a", LATEST_HANDSHAKE, "t", "", False, 20)

    @rule(
        backend=st.sampled_from("ab"), version=VERSIONS, name=st.sampled_from(["t", "safe", "x"]),
        extra=st.sampled_from(["", "task", "level"]), is_broken=st.booleans(), turns=st.sampled_from([0, 20]),
    )  # fmt: skip
    def dispatch(self, backend: str, version: str, name: str, extra: str, is_broken: bool, turns: int) -> None:
        async def made() -> None:
            if version == MODERN_VERSION:
                call = modern_call(name=f"{backend}__{name}")
            else:
                self.clients.append(Client())
                call = self.clients[-1].call(name=f"{backend}__{name}")
            if extra == "task":
                call.params["task"] = Payload(b"{}")
            elif extra == "level":
                call.session.log_level = "debug"
            if is_broken:
                call.reply = BrokenReply()
            self.calls.append((call, self.house.dispatch(call)))

        self.house.attempted()
        self.loop.run_until_complete(made())
        self.run(turns)

    @precondition(lambda self: self.pendings())
    @rule(number=st.integers(0, 9), result=st.sampled_from(sorted(RESULTS)), turns=st.sampled_from([0, 20]))
    def answered(self, number: int, result: str, turns: int) -> None:
        backend, pending = self.pendings()[number % len(self.pendings())]
        self.on_loop(lambda: backend.answer(RESULTS[result], pending.number))
        self.run(turns)

    @precondition(lambda self: self.pendings())
    @rule(number=st.integers(0, 9), failure=st.sampled_from(LOSSES), turns=st.sampled_from([0, 20]))
    def failed(self, number: int, failure: Exception, turns: int) -> None:
        backend, pending = self.pendings()[number % len(self.pendings())]
        self.on_loop(lambda: backend.link.fail(pending, failure))
        self.run(turns)

    @precondition(lambda self: self.pendings())
    @rule(number=st.integers(0, 9))
    def server_asks(self, number: int) -> None:
        backend, pending = self.pendings()[number % len(self.pendings())]
        body = {"jsonrpc": "2.0", "id": number, "method": "elicitation/create", "params": {"message": "?"}}
        self.on_loop(lambda: backend.link.fed(json.dumps(body).encode(), pending))
        self.run()

    @rule(number=st.integers(0, 9), is_accepted=st.booleans())
    def client_answers(self, number: int, is_accepted: bool) -> None:
        waiting = [future for each in self.clients for _, _, future in each.asked if not future.done()]
        if waiting:
            future = waiting[number % len(waiting)]
            error = Envelope(error=Payload(b'{"code":-1,"message":"no"}'))
            self.on_loop(lambda: future.set_result(Envelope(result=Payload(b"{}")) if is_accepted else error))
            self.run()

    @rule(turns=st.sampled_from([0, 20]))
    def resumed(self, turns: int) -> None:
        parked = list(self.house.bridge._parked.all())
        if parked:
            each = parked[0]
            responses = {key: {"action": "accept"} for key in each.requests}

            async def made() -> None:
                name = f"{each.target[1]}__{each.target[2]}"
                call = modern_call(name=name, requestState=each.state, inputResponses=responses)
                self.calls.append((call, self.house.dispatch(call)))

            self.loop.run_until_complete(made())
            self.run(turns)

    @rule(number=st.integers(0, 99), turns=st.sampled_from([0, 20]))
    def cancelled(self, number: int, turns: int) -> None:
        _, in_flight = self.calls[number % len(self.calls)]
        self.on_loop(in_flight.cancel)
        self.run(turns)

    @rule(name=st.sampled_from("ab"), can_connect=st.booleans())
    def link_lost(self, name: str, can_connect: bool) -> None:
        backend = self.house.fleet[name]
        backend.connects = backend.open if can_connect else None
        self.on_loop(lambda: backend.link.lost(BackendLost(name, "gone")))
        self.run()

    @rule(is_refusing=st.booleans())
    def stage_refuses(self, is_refusing: bool) -> None:
        self.house.stages[1].refusal = TooManyRequests("no more", retry_after=1.0) if is_refusing else None

    @rule(seconds=st.sampled_from([PAUSE, 60.0, 400.0]))
    def time_passes(self, seconds: float) -> None:
        self.loop.run_until_complete(self.house.clock.advance(seconds))

    def on_loop(self, act: Any) -> None:
        async def acting() -> None:
            act()

        self.loop.run_until_complete(acting())

    @invariant()
    def counts_agree(self) -> None:
        done = [call for call, _ in self.calls if call.is_done]
        assert all(reply_of(call).is_answered == call.is_done for call, _ in self.calls)
        outer, inner = self.house.stages
        assert len(outer.ends) == len(done)
        assert outer.in_flight == len(self.calls) - len(done)
        assert inner.in_flight == outer.in_flight, "a refused call is over at once"
        for backend in self.house.fleet.values():
            assert 0 <= backend.executor.running <= backend.executor.most
            assert backend.executor.beside >= 0
            assert backend.executor.waiting.size <= outer.in_flight

    def teardown(self) -> None:
        try:
            for _, in_flight in self.calls:
                self.on_loop(in_flight.cancel)
            self.run()
            self.loop.run_until_complete(self.house.clock.advance(10_000))
            assert all(call.is_done for call, _ in self.calls)
            self.counts_agree()
            assert not self.house.dispatcher.tasks
            assert self.house.levels == []
            assert self.house.bridge.parked == 0
            assert not +self.house.tasks._expected
            assert all(backend.is_idle for backend in self.house.fleet.values())
            assert not self.pendings()
        finally:
            self.loop.close()


TestCalls = Calls.TestCase
TestCalls.settings = settings(
    max_examples=60, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
