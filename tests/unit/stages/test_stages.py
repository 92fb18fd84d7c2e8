"""Stages: the order in which they observe a call, and what they see of its end."""

import asyncio
from typing import Any

import pytest

from mcp_manifold.config import ManifoldSettings
from mcp_manifold.core.dispatcher import Dispatcher
from mcp_manifold.core.hub import Hub
from mcp_manifold.core.lists import ScopeResponder
from mcp_manifold.core.plan import Facts
from mcp_manifold.errors import CallCancelled, TooManyRequests, UnknownItem
from mcp_manifold.model.call import Call
from mcp_manifold.model.policy import policy_of
from mcp_manifold.wire import EMPTY, Payload
from tests.fakes.clock import settled
from tests.unit.stages.calls import Answers, make_call

pytestmark = pytest.mark.anyio


class Recorder:
    """A stage that records what it observes."""

    def __init__(self, name: str, steps: list[str], *, refuses: bool = False, is_active: bool = True) -> None:
        self.name = name
        self.steps = steps
        self.refuses = refuses
        self.is_active = is_active

    def began(self, call: Call) -> None:
        if self.refuses:
            raise TooManyRequests("no more", retry_after=1.0)
        assert call.began > 0
        self.steps.append(f"{self.name} began")

    def ended(self, call: Call, result: Payload | None, failure: BaseException | None) -> None:
        assert (result is None) != (failure is None)
        self.steps.append(f"{self.name} ended {'well' if failure is None else type(failure).__name__}")


class Scene:
    """A dispatcher with stages, and one method that `outcome` answers; without an outcome it never ends."""

    def __init__(self, outcome: Payload | Exception | None = EMPTY) -> None:
        self.outcome = outcome
        self.steps: list[str] = []
        self.reply = Answers()

    async def _handler(self, call: Call) -> Payload:
        self.steps.append("handler")
        if self.outcome is None:
            await asyncio.get_running_loop().create_future()
        if isinstance(self.outcome, Exception):
            raise self.outcome
        assert self.outcome is not None
        return self.outcome

    def dispatcher(self, *stages: Recorder) -> Dispatcher:
        hub = Hub((), ManifoldSettings(), policy_of(()))
        unused: Any = None
        facts = Facts(
            hub,
            unused,
            ScopeResponder(hub, server_info=EMPTY, instructions=""),
            unused,
            unused,
            unused,
            local={"test/method": self._handler},
            raise_level=unused,
        )
        return Dispatcher(facts, unused, stages, lower_level=unused, end=unused)

    async def run(self, *stages: Recorder, cancel: bool = False) -> None:
        call = make_call("test/method")
        call.reply = self.reply
        in_flight = self.dispatcher(*stages).dispatch(call)
        await settled()
        if cancel:
            in_flight.cancel()
            await settled()


async def test_stages_observe_a_call_from_the_outside_in_and_back() -> None:
    scene = Scene()
    first, second = Recorder("first", scene.steps), Recorder("second", scene.steps)
    await scene.run(first, second, Recorder("off", scene.steps, is_active=False))
    assert scene.steps == ["first began", "second began", "handler", "second ended well", "first ended well"]
    assert scene.reply.given == [EMPTY]


@pytest.mark.parametrize("failure", [UnknownItem("tool", "t"), ZeroDivisionError(), None])
async def test_stages_observe_every_kind_of_failure(failure: Exception | None) -> None:
    scene = Scene(failure)
    await scene.run(Recorder("only", scene.steps), cancel=failure is None)
    (given,) = scene.reply.given
    assert type(given) is (CallCancelled if failure is None else type(failure))
    assert scene.steps == ["only began", "handler", f"only ended {type(given).__name__}"]


async def test_a_stage_that_refuses_a_call_ends_it_for_the_stages_before_it() -> None:
    scene = Scene()
    stages = [Recorder(name, scene.steps, refuses=name == "second") for name in ("first", "second", "third")]
    await scene.run(*stages)
    assert scene.steps == ["first began", "first ended TooManyRequests"]
    assert [type(given) for given in scene.reply.given] == [TooManyRequests]
