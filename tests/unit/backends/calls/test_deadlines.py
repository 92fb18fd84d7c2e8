"""How long a request may take: by its server, by its item, and in all."""

from math import inf

from mcp_manifold.backends.calls.request_policy import Deadlines, Patience
from mcp_manifold.config import ServerSettings
from tests.unit.backends.linking import raw


def deadlines(**more: object) -> Deadlines:
    return Deadlines(ServerSettings.model_validate({"name": "a", "command": "x", **more}))


def test_without_more_ado_all_are_alike() -> None:
    found = deadlines(timeout="5s", maxTimeout="1m")
    assert found.usual == Patience(5.0, 60.0)
    assert not found.special
    assert found.of("tools/call", raw(name="t")) is found.usual


def test_no_bound_in_all_is_zero_in_the_settings() -> None:
    assert deadlines(maxTimeout=0).usual.ceiling == inf


def test_single_items_have_their_own() -> None:
    overrides = {
        "tools": {"slow": {"timeout": "10m"}, "endless": {"maxTimeout": 0}, "renamed": {"name": "other"}},
        "prompts": {"slow": {"timeout": "1s"}},
        "resources": {"file:///slow": {"timeout": "2s", "maxTimeout": "3s"}},
    }
    found = deadlines(overrides=overrides)
    assert found.of("tools/call", raw(name="slow")) == Patience(600.0, 3600.0)
    assert found.of("tools/call", raw(name="endless")) == Patience(60.0, inf)
    assert found.of("tools/call", raw(name="renamed")) is found.usual
    assert found.of("prompts/get", raw(name="slow")) == Patience(1.0, 3600.0)
    assert found.of("resources/read", raw(uri="file:///slow")) == Patience(2.0, 3.0)
    assert found.of("completion/complete", raw(ref={})) is found.usual
