"""The environment of a stdio server: what it needs to start as in a terminal, what is configured, and nothing else."""

import json
from pathlib import Path

import pytest

from mcp_manifold import Manifold
from mcp_manifold.config import load, load_dict
from mcp_manifold.errors import BackendError, ConfigError
from tests.peers.backend import ROOT, Act, Script, StdioBackend, tool

pytestmark = pytest.mark.anyio

NEEDED = {
    "LC_ALL": "C.UTF-8",
    "LANG": "de_DE.UTF-8",
    "TZ": "Europe/Berlin",
    "TMPDIR": "/var/tmp",
    "SSL_CERT_FILE": "/etc/ca.pem",
    "NODE_EXTRA_CA_CERTS": "/etc/ca.pem",
    "REQUESTS_CA_BUNDLE": "/etc/ca.pem",
    "HTTPS_PROXY": "http://proxy:1",
    "no_proxy": "localhost",
    "npm_config_registry": "http://npm.test",
    "npm_config_@corp:registry": "http://npm.test/corp",
    "UV_INDEX_URL": "http://pypi.test",
    "PIP_INDEX_URL": "http://pypi.test",
}
OTHERS = {"AWS_SECRET": "hush", "AWS_REGION": "r", "GITHUB_TOKEN": "hush", "MCP_MANIFOLD_TOKENS": "[]", "LCX": "hush"}


async def seen(entry: dict[str, object], manifold: dict[str, object] | None = None) -> dict[str, str]:
    """The environment of a server with this entry, as it sees it."""
    script = Script(name="pipe", era="handshake", tools=(tool("env", Act("env")),))
    async with StdioBackend(script) as backend:
        server = {"command": backend.command, "args": backend.args, "cwd": str(ROOT), **entry}
        config = {"mcpServers": {"pipe": server}, "manifold": {"remember": False, **(manifold or {})}}
        async with Manifold.from_config(config) as running:
            found: dict[str, str] = (await running.call_tool("pipe__env"))["structuredContent"]
            return found


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**NEEDED, **OTHERS}.items():
        monkeypatch.setenv(name, value)


async def test_a_server_inherits_what_it_needs_to_start_and_no_secret() -> None:
    found = await seen({})
    assert NEEDED.items() <= found.items()
    assert not OTHERS.keys() & found.keys()


async def test_inherit_env_adds_what_matches_its_patterns_for_that_server() -> None:
    found = await seen({"inheritEnv": ["AWS_*"], "env": {"AWS_REGION": "mine"}})
    assert (found["AWS_SECRET"], found["AWS_REGION"]) == ("hush", "mine")
    assert "GITHUB_TOKEN" not in found


async def test_inherit_env_can_pass_on_everything_but_our_own_variables() -> None:
    found = await seen({"inheritEnv": ["*"]})
    assert found["GITHUB_TOKEN"] == "hush"
    assert "MCP_MANIFOLD_TOKENS" not in found


async def test_the_env_of_manifold_is_for_all_and_a_servers_own_wins(tmp_path: Path) -> None:
    (tmp_path / "more.env").write_text("B=file\nC=file\n")
    entry: dict[str, object] = {
        "env": {"C": "own"},
        "envFile": str(tmp_path / "more.env"),
        "inheritEnv": ["AWS_REGION"],
    }
    found = await seen(entry, {"env": {"A": 1, "B": "all", "C": "all", "TZ": "UTC", "AWS_REGION": "all"}})
    assert [found[name] for name in ("A", "B", "C", "TZ", "AWS_REGION")] == ["1", "file", "own", "UTC", "all"]


async def test_a_reload_changes_the_env_of_processes_that_are_started_from_then_on() -> None:
    script = Script(name="pipe", era="handshake", tools=(tool("env", Act("env")), tool("die", Act("die"))))
    async with StdioBackend(script) as backend:
        config = {
            "mcpServers": {"pipe": {"command": backend.command, "args": backend.args, "cwd": str(ROOT)}},
            "manifold": {"remember": False},
        }
        async with Manifold.from_config(config) as running:
            assert "ADDED" not in (await running.call_tool("pipe__env"))["structuredContent"]
            outcome = await running.reload(
                load_dict({**config, "manifold": {"remember": False, "env": {"ADDED": "1"}}})
            )
            assert (outcome.keys, outcome.unchanged) == (("env",), ("pipe",))
            with pytest.raises(BackendError):
                await running.call_tool("pipe__die")
            assert (await running.call_tool("pipe__env"))["structuredContent"]["ADDED"] == "1"


def test_values_of_env_are_secret(tmp_path: Path) -> None:
    path = tmp_path / "mcp.json"
    path.write_text('{"mcpServers": {}, "manifold": {"env": {"A": "hush"}}}')
    assert "hush" not in repr(load(path, environ={"MCP_MANIFOLD_ENV": '{"B": "hush"}'}))


@pytest.mark.parametrize(
    ("entry", "manifold", "words"),
    [
        ({"inheritEnv": ["A=B"]}, {}, "mcpServers.it.inheritEnv[0]: expected the name of an environment variable"),
        ({"inheritEnv": [""]}, {}, "mcpServers.it.inheritEnv[0]: expected the name of an environment variable"),
        ({"inheritEnv": "AWS_*"}, {}, "mcpServers.it.inheritEnv: "),
        ({}, {"env": {"A=B": "1"}}, 'manifold.env["A=B"]: expected the name of an environment variable'),
    ],
)
def test_wrong_names_are_refused_with_their_place(
    entry: dict[str, object], manifold: dict[str, object], words: str, tmp_path: Path
) -> None:
    path = tmp_path / "mcp.json"
    path.write_text(json.dumps({"mcpServers": {"it": {"command": "x", **entry}}, "manifold": manifold}))
    with pytest.raises(ConfigError) as caught:
        load(path, environ={})
    assert words in str(caught.value)
