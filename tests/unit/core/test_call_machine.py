"""A state machine over everything that can happen to calls: each ends exactly once, and nothing is left."""

import asyncio
import json
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from mcp_manifold.backends.calls.request_policy import PAUSE
from mcp_manifold.core.dispatcher import InFlightCall
from mcp_manifold.errors import (
    BackendLost,
    BackendProtocolError,
    BackendTimeout,
    BackendUnavailable,
    RemoteError,
    SessionExpired,
    TooManyRequests,
)
from mcp_manifold.model.call import Call
from mcp_manifold.wire import LATEST_HANDSHAKE, LONG, MODERN_VERSION, Envelope, Era, Payload
from tests.fakes.clock import settled
from tests.unit.backends.linking import FakeReply, reply_of
from tests.unit.core.house import Client, FakeBackend, House, modern_call, server
from tests.unit.core.silent import MISMATCH, RUNS_TASKS, TOOLS, WANTED

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
