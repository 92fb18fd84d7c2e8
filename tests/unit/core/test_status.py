"""Statuses: what the outside may know of servers."""

import json
from datetime import UTC, datetime

import pytest

from mcp_manifold.config import BrokenServer, ServerSettings, Settings, load_dict
from mcp_manifold.core.hub import MERGED, Hub
from mcp_manifold.core.status import (
    STATES,
    ServerStatus,
    described,
    has_all_required,
    of_broken,
    of_disabled,
    overall,
    rfc3339,
    survey,
)
from mcp_manifold.model.policy import policy_of
from tests.fakes.clock import FakeClock


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


def test_a_degraded_server_is_connected_and_not_healthy() -> None:
    assert of("degraded") == {"status": "degraded", "servers": {"configured": 1, "connected": 1, "healthy": 0}}
    assert of("ready", "degraded", "broken") == {
        "status": "degraded",
        "servers": {"configured": 3, "connected": 2, "healthy": 1},
    }


@pytest.mark.parametrize(
    ("state", "word"),
    [("ready", "healthy"), ("degraded", "degraded"), ("disabled", "disabled")]
    + [(state, "unhealthy") for state in ("idle", "connecting", "backing off", "stopped", "broken")],
)
def test_every_state_has_a_health_word(state: str, word: str) -> None:
    assert described(ServerStatus("a", state))["status"] == word
    assert state in STATES


def test_required_servers_must_be_connected() -> None:
    config = Settings(
        servers=(
            ServerSettings(name="a", command="x", required=True),
            ServerSettings(name="b", command="x"),
            ServerSettings(name="off", command="x", required=True, disabled=True),
        )
    )
    gone = ServerStatus("b", "backing off")
    for state, is_enough in (("ready", True), ("degraded", True), ("connecting", False), ("backing off", False)):
        assert has_all_required(config, [ServerStatus("a", state), gone]) is is_enough
    assert not has_all_required(config, [gone])


def test_a_disabled_and_a_broken_server_have_a_status() -> None:
    assert of_disabled(ServerSettings(name="a", command="x")) == ServerStatus("a", "disabled")
    assert of_broken(BrokenServer("b", "no such variable", 3, 4)) == ServerStatus(
        "b", "broken", last_error="no such variable"
    )


def test_broken_servers_keep_their_place_in_the_configuration() -> None:
    off, broken = {"command": "x", "disabled": True}, {"command": "${NO_SUCH_VARIABLE}"}
    config = load_dict({"mcpServers": {"first": broken, "off": off, "second": broken, "last": off}}, environ={})
    hub = Hub(config.servers, config.manifold, policy_of(config.servers), broken=config.broken, clock=FakeClock())
    found = survey(config, {}, hub.view(MERGED), now=0.0)
    assert [(server.name, server.state) for server in found] == [
        ("first", "broken"), ("off", "disabled"), ("second", "broken"), ("last", "disabled"),
    ]  # fmt: skip


def test_a_server_is_described_without_its_stderr() -> None:
    status = ServerStatus("a", "backing off", last_error="gone", next_try=1.23456, moved="now", stderr=("hunter2",))
    found = described(status)
    assert "hunter2" not in json.dumps(found)
    assert (found["state"], found["lastError"], found["nextAttempt"], found["since"]) == (
        "backing off",
        "gone",
        1.235,
        "now",
    )
    quick = described(ServerStatus("a", "ready", latency=0.0012345))
    assert (quick["nextAttempt"], quick["since"], quick["latency"]) == (None, None, 1.234)


def test_times_are_in_utc() -> None:
    assert rfc3339(datetime(2026, 1, 31, 11, 0, 1, 250_999, tzinfo=UTC)) == "2026-01-31T11:00:01.250Z"
