"""The Manifold as a library: entering and leaving; without servers, with broken and disabled ones."""

import asyncio
import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from mcp_manifold import Manifold
from mcp_manifold.core.hub import terms_of
from mcp_manifold.errors import AllUnavailable, BackendUnavailable, ConfigError, UnknownItem
from mcp_manifold.model.call import Session
from mcp_manifold.model.catalogue import Listing, Rules, merge
from mcp_manifold.model.policy import ANONYMOUS, unmatched_patterns
from mcp_manifold.wire import LATEST_HANDSHAKE, MODERN_VERSION
from tests.unit.fronts.fakes import Client, initialize

pytestmark = pytest.mark.anyio
BOUND = 10.0  # seconds any test waits for anything
MISSING = {"command": "/nonexistent/mcp-server"}


def manifold(servers: dict[str, Any] | None = None, **settings: Any) -> Manifold:
    return Manifold.from_config({"mcpServers": servers or {}, "manifold": settings})


async def test_a_manifold_without_servers_lists_nothing_and_is_healthy() -> None:
    async with manifold() as made:
        await asyncio.wait_for(made.settle(), timeout=BOUND)
        for listing in (made.list_tools, made.list_prompts, made.list_resources, made.list_resource_templates):
            assert await listing() == []
        assert made.status() == []
        assert made.health()["status"] == "healthy"
        assert made.servers_health() == {"servers": []}
        assert made.readiness() == {"ready": True}
        assert made.problems() == ()
        for asked in (made.call_tool("t"), made.read_resource("x:1"), made.get_prompt("p", {"a": "b"})):
            with pytest.raises(UnknownItem):
                await asked


async def test_methods_of_a_manifold_that_is_not_entered_raise() -> None:
    made = manifold()
    assert repr(made) == "<Manifold mcp-manifold not entered>"
    for attempt in (made.list_tools, made.settle):
        with pytest.raises(RuntimeError, match="enter the Manifold first"):
            await attempt()
    with pytest.raises(RuntimeError, match="enter the Manifold first"):
        made.status()
    assert made.readiness() == {"ready": False}


async def test_entering_twice_is_refused_and_entering_again_works() -> None:
    made = manifold(name="ours")
    async with made:
        assert repr(made) == "<Manifold ours running>"
        with pytest.raises(RuntimeError, match="entered already"):
            await made.__aenter__()
        assert await made.list_tools() == []
    async with made:
        assert await made.list_tools() == []
    assert repr(made) == "<Manifold ours not entered>"


@pytest.mark.parametrize("failure", [None, ZeroDivisionError])
async def test_leaving_ends_every_task_also_after_an_error(failure: type[Exception] | None) -> None:
    before = asyncio.all_tasks()
    with pytest.raises(failure) if failure else nullcontext():
        async with manifold({"gone": MISSING, "also": MISSING}) as made:
            await asyncio.wait_for(made.settle(), timeout=BOUND)
            assert asyncio.all_tasks() - before
            if failure:
                raise failure
    assert asyncio.all_tasks() - before == set()


async def test_a_server_that_cannot_start_is_reported_and_affects_no_other() -> None:
    async with manifold({"gone": MISSING, "off": {**MISSING, "disabled": True}}) as made:
        await asyncio.wait_for(made.settle(), timeout=BOUND)
        with pytest.raises(AllUnavailable, match=r"gone: .* was not found"):
            await made.list_tools()
        gone, off = made.status()
        assert (gone.name, off.name, off.state) == ("gone", "off", "disabled")
        assert gone.state in ("backing off", "connecting")
        assert "not found" in gone.last_error
        assert made.health() == {"status": "unhealthy", "servers": {"configured": 1, "connected": 0, "healthy": 0}}
        assert made.readiness() == {"ready": True}
        assert json.dumps(made.servers_health())
        with pytest.raises(BackendUnavailable, match="was not found"):
            await made.call_tool("gone__t")
        with pytest.raises(UnknownItem):
            await made.call_tool("elsewhere__t")


async def test_a_server_with_an_invalid_entry_has_the_status_broken() -> None:
    off = {**MISSING, "disabled": True}
    async with manifold({"bad": {"command": "x", "env": {"A": "${NO_SUCH_VARIABLE_HERE}"}}, "off": off}) as made:
        states = {server.name: server for server in made.status()}
        bad = states["bad"]
        assert (bad.state, states["off"].state) == ("broken", "disabled")
        assert "NO_SUCH_VARIABLE_HERE" in bad.last_error
        assert made.health()["status"] == "unhealthy"
        with pytest.raises(AllUnavailable, match=r'bad: the variable "NO_SUCH_VARIABLE_HERE" is not set'):
            await made.list_tools()
        scopes = ("", "server:bad", "server:off")
        assert [made.runtime.has_scope(scope) for scope in scopes] == [True, False, False]
    async with manifold({"off": off}) as made:
        assert made.health()["status"] == "healthy"


async def test_a_failing_status_callback_does_not_end_a_backend() -> None:
    loop, failures, names = asyncio.get_running_loop(), list[object](), asyncio.Queue[str]()

    def fail(name: str) -> None:
        raise ZeroDivisionError(name)

    handler = loop.get_exception_handler()
    loop.set_exception_handler(lambda _, context: failures.append(type(context["exception"])))
    try:
        made = manifold({"gone": MISSING})
        made.on_status(fail)
        made.on_status(names.put_nowait)
        async with made, asyncio.timeout(BOUND):
            assert [await names.get() for _ in range(3)] == ["gone"] * 3
    finally:
        loop.set_exception_handler(handler)
    assert set(failures) == {ZeroDivisionError}


async def test_a_session_may_end_twice_or_after_the_manifold() -> None:
    session = Session("key", ANONYMOUS, "", MODERN_VERSION)
    async with manifold({"gone": MISSING}) as made:
        runtime = made.runtime
        runtime.ended(session)
        runtime.ended(session)
    runtime.ended(session)
    runtime.notified(session, "notifications/roots/list_changed", {})


async def test_a_mapping_and_a_file_give_equal_settings_and_overrides_win(tmp_path: Path) -> None:
    data: dict[str, Any] = {"mcpServers": {"a": MISSING}, "manifold": {"name": "ours", "port": 1234}}
    path = tmp_path / "mcp.json"
    path.write_text(json.dumps(data))
    overrides = {"port": 4321, "host": "::1", "name": None, "allowed_hosts": ()}
    for source in (data, path, str(path)):
        made = Manifold.from_config(source)
        assert ([server.name for server in made.config.servers], made.settings.port) == (["a"], 1234)
        made = Manifold.from_config(source, overrides=overrides)
        assert (made.settings.port, made.settings.host, made.settings.name) == (4321, "::1", "ours")
    assert data["manifold"] == {"name": "ours", "port": 1234}


async def test_an_invalid_configuration_is_refused_before_anything_starts() -> None:
    with pytest.raises(ConfigError, match="port"):
        manifold(port=-1)
    with pytest.raises(ConfigError):
        Manifold.from_config({"mcpServers": {}, "manifold": []}, overrides={"port": 1})
    with pytest.raises(ConfigError, match="missing"):
        Manifold.from_config("missing.json")


async def test_the_endpoint_can_be_mounted_before_the_manifold_is_entered() -> None:
    made = manifold(name="ours")
    app = made.asgi_app()
    assert made.asgi_app() is app
    client, greeting = Client(app), initialize(LATEST_HANDSHAKE)
    probes = {"/_healthz": 200, "/_readyz": 503, "/health": 503}
    for path, status in probes.items():
        assert (await client.send("GET", path)).status == status
    assert (await client.call(greeting)).json == {"error": "The server is not running"}
    async with made:
        assert (await client.send("GET", "/_readyz")).status == 200
        assert (await client.send("GET", "/health")).json["status"] == "healthy"
        assert (await client.call(greeting)).json["result"]["serverInfo"]["name"] == "ours"
    for path, status in probes.items():
        assert (await client.send("GET", path)).status == status


async def test_a_manifold_that_was_stopped_does_not_begin_to_serve() -> None:
    async with manifold() as made:
        made.stop()
        await asyncio.wait_for(made.serve_http(ready=lambda *_: pytest.fail("it listens")), timeout=BOUND)


async def test_patterns_and_overrides_that_match_nothing_are_problems() -> None:
    entries: dict[str, Any] = {
        "a": {
            "tools": {"allow": ["t", "tt", "@readOnly"], "block": ["*x"]},
            "prompts": {"block": ["p"]},
            "resources": {"allow": ["x:*", "y:*", "z:{v}"]},
            "overrides": {"tools": {"t": {"name": "n"}, "T": {"name": "m"}}, "resources": {"z:{v}": {"name": "r"}}},
        },
        "unlisted": {"tools": {"allow": ["nothing"]}},
        "off": {"tools": {"allow": ["nothing"]}, "disabled": True},
    }
    servers = manifold({name: {**MISSING, **entry} for name, entry in entries.items()}).config.servers
    tools, prompts = (b'{"name":"t"}',), (b'{"name":"p"}',)
    resources, templates = (b'{"name":"r","uri":"x:1"}',), (b'{"name":"v","uriTemplate":"z:{v}"}',)
    listing = Listing("a", 1, "handshake", tools, prompts, resources, templates)
    whole = merge([(listing, terms_of(servers[0], native=False))], Rules())
    assert unmatched_patterns(servers, whole) == (
        'server "a": the tools pattern "tt" matches no item',
        'server "a": the tools pattern "@readOnly" matches no item',
        'server "a": the tools pattern "*x" matches no item',
        'server "a": the tools override "T" matches no item',
        'server "a": the resources pattern "y:*" matches no item',
    )
