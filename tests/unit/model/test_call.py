"""Calls: what stages are told, and taking a request back."""

import asyncio

import pytest

from mcp_manifold.errors import TooManyRequests, UnknownItem
from mcp_manifold.model.call import Call, Session, Stages
from mcp_manifold.model.policy import ANONYMOUS
from mcp_manifold.wire import EMPTY, HANDSHAKE_VERSIONS, MODERN_VERSION, Payload

pytestmark = pytest.mark.anyio


def unheard(message: bytes, /, *, needed: bool = True) -> None:
    raise AssertionError(message)


def call(version: str = MODERN_VERSION) -> Call:
    return Call("tools/call", {}, Session("", ANONYMOUS, "", version), unheard)


class Watching:
    """A stage that writes down what it is told."""

    def __init__(self, name: str, steps: list[str], *, refuses: bool = False) -> None:
        self.name = name
        self.steps = steps
        self.refuses = refuses

    def began(self, call: Call) -> None:
        if self.refuses:
            raise TooManyRequests("no more", retry_after=1.0)
        self.steps.append(f"{self.name} began")

    def ended(self, call: Call, result: Payload | None, failure: BaseException | None) -> None:
        assert (result is None) != (failure is None)
        assert call.begun > 0
        self.steps.append(f"{self.name} ended {'well' if failure is None else type(failure).__name__}")


async def test_stages_see_a_call_from_the_outside_in_and_back() -> None:
    steps: list[str] = []

    async def innermost(call: Call) -> Payload:
        steps.append("handler")
        return EMPTY

    stages = Stages([Watching("first", steps), Watching("second", steps)])
    assert await stages.around(innermost)(call()) is EMPTY
    assert steps == ["first began", "second began", "handler", "second ended well", "first ended well"]


@pytest.mark.parametrize("failure", [UnknownItem("tool", "t"), ZeroDivisionError(), asyncio.CancelledError()])
async def test_stages_see_a_call_fail_however_it_does(failure: BaseException) -> None:
    steps: list[str] = []

    async def innermost(call: Call) -> Payload:
        raise failure

    with pytest.raises(type(failure)):
        await Stages([Watching("only", steps)]).around(innermost)(call())
    assert steps == ["only began", f"only ended {type(failure).__name__}"]


async def test_a_stage_that_refuses_a_call_ends_it_for_those_who_saw_it_begin() -> None:
    steps: list[str] = []

    async def innermost(call: Call) -> Payload:
        raise AssertionError("refused")

    stages = Stages([Watching("first", steps), Watching("second", steps, refuses=True), Watching("third", steps)])
    with pytest.raises(TooManyRequests):
        await stages.around(innermost)(call())
    assert steps == ["first began", "first ended TooManyRequests"]


async def test_a_call_taken_back_tells_whoever_works_on_it_once() -> None:
    told: list[str] = []
    taken = call()
    taken.on_cancel(lambda: told.append("x"))
    assert told == []
    taken.cancel()
    taken.cancel()
    assert told == ["x"]


async def test_work_that_begins_after_the_call_was_taken_back_is_told_at_once() -> None:
    told: list[str] = []
    taken = call()
    taken.cancel()
    taken.on_cancel(lambda: told.append("x"))
    taken.on_cancel(lambda: told.append("y"))
    assert told == ["x", "y"]


async def test_only_the_work_in_progress_is_told() -> None:
    told: list[str] = []
    taken = call()
    taken.on_cancel(lambda: told.append("first"))
    taken.on_cancel(lambda: told.append("second"))
    taken.cancel()
    assert told == ["second"]


async def test_work_that_is_over_is_not_told() -> None:
    told: list[str] = []
    taken = call()
    taken.on_cancel(lambda: told.append("x"))
    taken.on_cancel(None)
    taken.cancel()
    assert told == []
    assert taken.cancelled


async def test_work_that_takes_itself_back_in_turn_is_told_once() -> None:
    told: list[str] = []
    taken = call()

    def undo() -> None:
        told.append("x")
        taken.cancel()

    taken.on_cancel(undo)
    taken.cancel()
    assert told == ["x"]


async def test_a_session_knows_its_era() -> None:
    assert call().session.era == "modern"
    assert {call(version).session.era for version in HANDSHAKE_VERSIONS} == {"handshake"}
    assert (bytes(call().session.client_info), bytes(call().session.capabilities)) == (b"{}", b"{}")
