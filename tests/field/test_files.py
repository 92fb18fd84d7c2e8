"""Configuration files as people have them: from other programs, half right, in other notations, readable by all."""

import io
import os
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from rich.console import Console

from mcp_manifold.app.manifold import Manifold
from mcp_manifold.cli import cli
from mcp_manifold.cli.statuses import PlainConsole, awaited, waited_for
from mcp_manifold.config import Settings, load
from mcp_manifold.core.status import ServerStatus
from mcp_manifold.errors import ConfigError
from tests.unit.cli.fake_manifold import NOTES

pytestmark = pytest.mark.anyio

SAMPLE = Path(__file__).parents[2] / "config.example.json"


def loaded(directory: Path, text: str | bytes, mode: int = 0o600) -> Settings:
    path = directory / "mcp.json"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    path.chmod(mode)
    return load(path, environ={})


def warned(settings: Settings) -> list[str]:
    return [f"{problem.key}: {problem.what}; {problem.remedy}" for problem in settings.problems]


# --- durations --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entry", "timeout", "said"),
    [
        ('"timeout": 60, "autoApprove": []', 60, ["read as 60 seconds", 'write "60s"']),
        ('"timeout": "60", "alwaysAllow": ["x"]', 60, ["read as 60 seconds", 'write "60s"']),
        ('"timeout": 60', 0.06, ["60 milliseconds", 'if seconds are meant, write "60s"']),
        ('"timeout": 1000, "autoApprove": []', 1, []),
        ('"timeout": "60ms", "autoApprove": []', 0.06, []),
    ],
)
def test_a_small_timeout_is_read_as_its_client_means_it_or_is_warned_about(
    tmp_path: Path, entry: str, timeout: float, said: list[str]
) -> None:
    found = loaded(tmp_path, f'{{"mcpServers": {{"s": {{"command": "x", {entry}}}}}}}')
    assert found.servers[0].timeout == timeout
    about = [line for line in warned(found) if line.startswith("mcpServers.s.timeout:")]
    assert len(about) == bool(said)
    assert all(part in about[0] for part in said)


def test_the_sign_of_one_entry_counts_for_the_file_but_not_for_our_own_keys(tmp_path: Path) -> None:
    text = """{"mcpServers": {
        "a": {"command": "x", "autoApprove": []}, "b": {"command": "x", "timeout": 5, "listTimeout": 5}},
        "manifold": {"drain": 9}}"""
    found = loaded(tmp_path, text)
    assert (found.servers[1].timeout, found.servers[1].list_timeout, found.manifold.drain) == (5, 0.005, 0.009)
    assert [line.split(":")[0] for line in warned(found) if "seconds" in line] == [
        "mcpServers.b.timeout", "mcpServers.b.listTimeout", "manifold.drain",
    ]  # fmt: skip


# --- entries ----------------------------------------------------------------------------------------------------------


def test_an_unusable_name_or_entry_costs_that_entry_only(tmp_path: Path) -> None:
    text = """{"mcpServers": {"a/b": {"command": "x"}, "typo": {"comand": "x"}, "no": 1, "bad": {"url": "ftp://x"},
               "fine": {"command": "x"}, "Fine": {"command": "x"}}}"""
    found = loaded(tmp_path, text)
    assert [server.name for server in found.servers] == ["fine"]
    assert [server.name for server in found.broken] == ["a/b", "typo", "no", "bad", "Fine"]
    assert found.broken[1].reason == 'unknown key "comand"; did you mean "command"?'
    assert all(server.line for server in found.broken)


def test_a_file_in_which_no_entry_is_usable_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match='unknown key "comand"'):
        loaded(tmp_path, '{"mcpServers": {"typo": {"comand": "x"}, "off": {"command": "x", "disabled": true}}}')


async def test_a_faulty_entry_is_shown_among_the_servers_and_the_others_start() -> None:
    entry = {"command": sys.executable, "args": ["examples/convert.py"], "cwd": str(SAMPLE.parent)}
    manifold = Manifold.from_config({"mcpServers": {"typo": {"comand": "x"}, "convert": entry}})
    async with manifold:
        await manifold.settle()
        states = {status.name: (status.state, status.last_error) for status in manifold.status()}
        assert states["convert"][0] == "ready"
        assert states["typo"] == ("broken", 'unknown key "comand"; did you mean "command"?')


@pytest.mark.parametrize(
    ("command", "args", "expected"),
    [
        ("npx -y 'a b'", [], ("npx", ("-y", "a b"))),
        ("npx -y", ["pkg"], ("npx", ("-y", "pkg"))),
        ("{real} -m x", [], ("{real}", ("-m", "x"))),
        ("{spaced}", [], ("{spaced}", ())),
        ("/not/there yet/server", [], ("/not/there yet/server", ())),
        ("npx 'open", [], ("npx 'open", ())),
    ],
)
def test_a_command_line_in_place_of_a_program_is_recognised(
    tmp_path: Path, command: str, args: list[str], expected: tuple[str, tuple[str, ...]]
) -> None:
    spaced = tmp_path / "my server"
    spaced.write_text("#!/bin/sh\n")
    spaced.chmod(0o700)
    places = {"real": sys.executable, "spaced": str(spaced)}
    path = tmp_path / "mcp.json"
    path.write_text("{}")
    entry = f'{{"command": "{command.format(**places)}", "args": {str(args).replace(chr(39), chr(34))}}}'
    found = loaded(tmp_path, f'{{"mcpServers": {{"s": {entry}}}}}')
    server = found.servers[0]
    assert (server.command, server.args) == (expected[0].format(**places), expected[1])
    assert any("a command line" in line for line in warned(found)) is (server.command != command.format(**places))


@pytest.mark.parametrize("servers", ["{}", '{"a": {"command": "x", "disabled": true}}'])
def test_a_file_with_nothing_to_offer_is_not_plainly_ok(tmp_path: Path, servers: str) -> None:
    path = tmp_path / "mcp.json"
    path.write_text(f'{{"mcpServers": {servers}}}')
    result = CliRunner().invoke(cli, ["check", "-c", str(path)])
    assert result.stdout.startswith("empty: 0 servers")
    assert "no server is enabled, so there is nothing to offer" in result.stdout


# --- other notations --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'# Codex\n[mcp_servers.x]\ncommand = "x"\n', "mcp.json:1:1: this is TOML; write it as JSON"),
        (b'model = "o3"\n', "this is TOML"),
        (b"# mine\nmcpServers:\n  x:\n    command: x\n", "this is YAML"),
        (b"---\na: 1\n", "this is YAML"),
        ('{"mcpServers": {}}'.encode("utf-16"), "is UTF-16 text; save it as UTF-8"),
        ('{"mcpServers": {}}'.encode("utf-16-le"), "is UTF-16 text; save it as UTF-8"),
        (b'{"mcpServers": {"a": }}', "1:22"),
    ],
)
def test_another_notation_is_called_by_its_name(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path, content)
    assert message in str(caught.value)
    assert ("this is" in str(caught.value)) is ("this is" in message)


# --- secrets, address, progress, example ------------------------------------------------------------------------------


@pytest.mark.skipif(os.name != "posix", reason="file modes are those of POSIX")
@pytest.mark.parametrize(
    ("part", "holds"),
    [
        ('"env": {"GITHUB_TOKEN": "s3cret"}', True),
        ('"headers": {"Authorization": "Bearer s3cret"}', True),
        ('"env": {"GITHUB_TOKEN": "${GITHUB_TOKEN:-}", "LANG": "C", "X_API_KEY": ""}', False),
    ],
)
def test_a_file_with_secrets_that_everybody_can_read_is_warned_about(tmp_path: Path, part: str, holds: bool) -> None:
    text = f'{{"mcpServers": {{"s": {{"command": "x", {part}}}}}}}'
    said = [line for line in loaded(tmp_path, text, 0o644).warnings if "chmod 600" in line]
    assert len(said) == holds
    assert "s3cret" not in "".join(said)
    assert not [line for line in loaded(tmp_path, text, 0o600).warnings if "chmod" in line]


def test_the_address_is_checked_before_anything_starts_and_by_check(tmp_path: Path) -> None:
    mark = tmp_path / "started"
    path = tmp_path / "mcp.json"
    entry = f'{{"command": "touch", "args": ["{mark}"]}}'
    path.write_text(f'{{"mcpServers": {{"s": {entry}}}, "manifold": {{"host": "0.0.0.0"}}}}')
    served = CliRunner().invoke(cli, ["serve", "-c", str(path)])
    assert (served.exit_code, "refusing to listen" in served.stderr) == (2, True)
    assert not mark.exists()
    assert 'warning: `serve` with this file: refusing to listen on "0.0.0.0"' in (
        CliRunner().invoke(cli, ["check", "-c", str(path)]).stdout
    )


async def test_a_terminal_shows_which_servers_are_awaited() -> None:
    waiting = ServerStatus("slow", "connecting", "stdio")
    assert awaited([NOTES, waiting]) == "Starting servers, 1 of 2 ready; waiting for slow"
    silent_server = {"command": sys.executable, "args": ["-c", "input()"]}
    manifold = Manifold.from_config({"mcpServers": {"slow": silent_server}, "manifold": {"startupTimeout": "50ms"}})
    screen = io.StringIO()
    async with manifold:
        await waited_for(manifold, manifold.settle(), PlainConsole(screen, force_terminal=True, width=80))
        assert "waiting for slow" in screen.getvalue()
        silent = Console(file=io.StringIO(), force_terminal=False)
        await waited_for(manifold, manifold.settle(), silent)
    assert silent.file.getvalue() == ""  # type: ignore[attr-defined]  # it is the StringIO above


def test_the_example_runs_with_our_own_interpreter() -> None:
    assert {server.command for server in load(SAMPLE, environ={}).servers} == {sys.executable}
