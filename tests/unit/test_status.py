"""Statuses: what the outside may know of servers."""

import json

import pytest

from mcp_manifold.config import BrokenServer, ServerSettings
from mcp_manifold.status import ServerStatus, described, of_broken, of_disabled, overall


def of(*states: str) -> object:
    return overall([ServerStatus(name=f"s{number}", state=state) for number, state in enumerate(states)])


@pytest.mark.parametrize(
    ("states", "word", "configured", "ready"),
    [
        ((), "healthy", 0, 0),
        (("disabled",), "healthy", 0, 0),
        (("ready", "ready", "disabled"), "healthy", 2, 2),
        (("ready", "backing off"), "degraded", 2, 1),
        (("ready", "broken"), "degraded", 2, 1),
        (("ready", "connecting", "idle"), "degraded", 3, 1),
        (("broken",), "unhealthy", 1, 0),
        (("connecting", "stopped"), "unhealthy", 2, 0),
    ],
)
def test_one_word_sums_up_all_enabled_servers(states: tuple[str, ...], word: str, configured: int, ready: int) -> None:
    assert of(*states) == {
        "status": word,
        "servers": {"configured": configured, "connected": ready, "healthy": ready},
    }


def test_a_disabled_and_a_broken_server_have_a_status() -> None:
    assert of_disabled(ServerSettings(name="a", command="x")) == ServerStatus("a", "disabled")
    assert of_broken(BrokenServer("b", "no such variable", 3, 4)) == ServerStatus(
        "b", "broken", last_error="no such variable"
    )


def test_a_server_is_described_without_its_stderr() -> None:
    status = ServerStatus("a", "backing off", last_error="gone", next_try=1.23456, since=2.0, stderr=("hunter2",))
    found = described(status)
    assert "hunter2" not in json.dumps(found)
    assert (found["state"], found["lastError"], found["nextAttempt"], found["since"]) == (
        "backing off",
        "gone",
        1.235,
        2.0,
    )
    assert described(ServerStatus("a", "ready"))["nextAttempt"] is None
