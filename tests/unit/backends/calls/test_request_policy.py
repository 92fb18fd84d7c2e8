"""What may be sent once more: what never arrived, what only reads, and what says it bears it, if it is believed."""

import json

import pytest

from mcp_manifold.backends.calls.request_policy import READS, RetrySetting, may_repeat
from mcp_manifold.errors import (
    BackendError,
    BackendLost,
    BackendOverloaded,
    BackendProtocolError,
    BackendTimeout,
    BackendUnavailable,
)
from mcp_manifold.model.catalogue import Listing
from tests.unit.backends.linking import raw

HINTS: dict[str, object] = {
    "plain": {},
    "twice": {"idempotentHint": True},
    "look": {"readOnlyHint": True},
    "odd": [],
    "no": {"idempotentHint": False},
}
TOOLS = (b"nonsense", *(json.dumps({"name": name, "annotations": each}).encode() for name, each in HINTS.items()))
LISTING = Listing("a", 1, "handshake", tools=TOOLS)
LOST = BackendLost("a", "lost")
UNSENT = BackendUnavailable("a", "refused").unsent()


def repeats(exc: BackendError, method: str = "tools/call", retry: RetrySetting = "safe", name: str = "plain") -> bool:
    return may_repeat(exc, method, raw(name=name), retry=retry, listing=LISTING)


def test_what_never_arrived_is_repeated_whatever_it_is() -> None:
    assert repeats(UNSENT)
    assert repeats(UNSENT, "prompts/get")


@pytest.mark.parametrize("method", sorted(READS))
def test_reads_are_repeated_when_nobody_answered(method: str) -> None:
    assert repeats(LOST, method)
    assert repeats(BackendUnavailable("a", "bad gateway", status=502), method)


@pytest.mark.parametrize(
    "exc",
    [
        BackendTimeout("a", "late"),
        BackendProtocolError("a", "nonsense"),
        BackendUnavailable("a", "too many", status=429),
        BackendUnavailable("a", "who are you", status=401),
        BackendUnavailable("a", "boom", status=500),
        BackendOverloaded("a", "full", running=1, waiting=1),
    ],
    ids=lambda exc: f"{type(exc).__name__}-{exc.status}",
)
def test_a_server_that_answered_or_took_its_time_is_not_asked_again(exc: BackendError) -> None:
    assert not repeats(exc, "resources/read", "idempotent")


def test_a_tool_call_that_may_have_arrived_is_not_repeated() -> None:
    assert not any(repeats(LOST, name=name) for name in HINTS)


def test_tools_that_bear_it_are_repeated_if_they_are_believed() -> None:
    assert [name for name in (*HINTS, "unknown") if repeats(LOST, retry="idempotent", name=name)] == ["twice", "look"]
    assert not may_repeat(LOST, "tools/call", raw(name="twice"), retry="idempotent", listing=None)


def test_never_is_never() -> None:
    assert not repeats(UNSENT, retry="never")
    assert not repeats(LOST, "resources/read", retry="never")
