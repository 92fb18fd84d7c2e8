"""Calls: the order of stages, and taking a request back."""

import pytest

from mcp_manifold.call import Call, Handler, Session, Stage, compose
from mcp_manifold.policy import ANONYMOUS
from mcp_manifold.wire import EMPTY, HANDSHAKE_VERSIONS, MODERN_VERSION, Payload

pytestmark = pytest.mark.anyio


def unheard(message: bytes, /, *, needed: bool = True) -> None:
    raise AssertionError(message)


def call(version: str = MODERN_VERSION) -> Call:
    return Call("tools/call", {}, Session("", ANONYMOUS, "", version), unheard)


async def test_stages_run_from_the_outside_in_and_back() -> None:
    steps: list[str] = []

    def stage(name: str) -> Stage:
        def wrap(inner: Handler) -> Handler:
            async def run(call: Call) -> Payload:
                steps.append(f"{name} in")
                result = await inner(call)
                steps.append(f"{name} out")
                return result

            return run

        return wrap

    async def innermost(call: Call) -> Payload:
        steps.append("handler")
        return EMPTY

    assert await compose([stage("first"), stage("second")], innermost)(call()) is EMPTY
    assert steps == ["first in", "second in", "handler", "second out", "first out"]


async def test_without_stages_the_handler_is_itself() -> None:
    async def handler(call: Call) -> Payload:
        return EMPTY

    assert compose([], handler) is handler


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
