"""Every command on a Manifold without servers: output, exit codes and requests."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from mcp_manifold.cli import cli
from mcp_manifold.cli.root import COMMANDS
from mcp_manifold.config import BrokenServer
from mcp_manifold.errors import BackendUnavailable, ConfigError, ConfigProblem, UnknownItem
from tests.unit.cli.fake_manifold import GONE, NOTES, FakeManifold, settings

TOOLS: list[dict[str, Any]] = [
    {"name": "notes__add_note", "title": "Add", "description": "Adds \x1b[31mit"},
    {"name": "notes__find", "inputSchema": {"type": "object"}},
]


def text(words: str) -> dict[str, str]:
    return {"type": "text", "text": words}


@pytest.mark.parametrize(
    ("args", "result", "asked", "code", "stdout"),
    [
        (
            ("call", "t", '{"text": "milk"}', "--arg", "n=2"), {"content": [text("done \x1b")]},
            ("t", {"text": "milk", "n": 2}), 0, "done \x1b\n",  # to a pipe as it came
        ),
        (("call", "t", "-"), {"content": []}, ("t", {"from": "stdin"}), 0, "\n"),
        (("call", "t"), {"content": [text("no such note")], "isError": True}, ("t", {}), 1, "no such note\n"),
        (("read", "a://b"), {"contents": [{"uri": "a://b", "text": "hello"}]}, "a://b", 0, "hello\n"),
        (
            ("prompt", "p", "--arg", "n=1"), {"messages": [{"role": "user", "content": text("Summarise.")}]},
            ("p", {"n": "1"}), 0, "user:\nSummarise.\n",
        ),
    ],
    ids=["call", "call-stdin", "call-error", "read", "prompt"],
)  # fmt: skip
def test_a_command_sends_its_arguments_and_prints_the_result(
    args: tuple[str, ...], result: dict[str, Any], asked: object, code: int, stdout: str
) -> None:
    manifold = FakeManifold(result=result)
    found = manifold.run(*args, text='{"from": "stdin"}')
    assert (found.exit_code, found.stdout, manifold.asked) == (code, stdout, [asked])
    assert not manifold.is_entered


def test_call_prints_progress_on_stderr_and_passes_the_wait() -> None:
    manifold = FakeManifold(result={"content": []}, progress=[{"progress": 1.0, "total": 2, "message": "half\x1b"}])
    result = manifold.run("call", "t", "--wait", "1.5")
    assert (result.stderr, manifold.overrides) == ("progress 1/2 half\\x1b\n", {"startupTimeout": "1500ms"})


def test_call_as_json_prints_the_whole_result() -> None:
    manifold = FakeManifold(result={"content": [], "_meta": {"a": "\u202e"}})
    result = manifold.run("call", "t", "--json")
    assert "\\u202e" in result.stdout
    assert json.loads(result.stdout) == manifold.result


def test_call_of_an_unknown_tool_suggests_names_and_names_unavailable_servers() -> None:
    manifold = FakeManifold(tools=TOOLS, servers=[NOTES, GONE], result=UnknownItem("tool", "notes__ad_note"))
    result = manifold.run("call", "notes__ad_note")
    assert result.exit_code == 1
    assert 'Unknown tool: notes__ad_note. Did you mean "notes__add_note"?' in result.stderr
    assert "gone: not reachable (connection refused)" in result.stderr


@pytest.mark.parametrize(
    ("command", "failure", "stderr"),
    [
        (("call", "zzz"), UnknownItem("tool", "zzz"), "mcp-manifold list --tools"),
        (("call", "g__log"), BackendUnavailable("git", "is gone \x1b[2J"), "Error: git: is gone \\x1b[2J\n"),
        (("read", "note://milc"), UnknownItem("resource", "note://milc"), '"note://milk"'),
    ],
)
def test_a_failed_command_exits_with_1(command: tuple[str, ...], failure: Exception, stderr: str) -> None:
    result = FakeManifold(resources=[{"uri": "note://milk"}], result=failure).run(*command)
    assert result.exit_code == 1
    assert stderr in result.stderr


@pytest.mark.parametrize(
    ("args", "stderr"),
    [
        (("call", "t", "[1]"), "must be a JSON object"),
        (("call", "t", "{"), "not valid JSON"),
        (("call", "t", "--arg", "a"), "KEY=VALUE"),
        (("prompt", "p", "--arg", "=a"), "KEY=VALUE"),
        (("stdio", "--server", "note"), 'Did you mean "notes"?'),
        (("stdio", "--server", "notes", "--group", "w"), ""),
        (("chek",), 'Did you mean "check"?'),
    ],
)
def test_an_invalid_argument_starts_nothing_and_exits_with_2(args: tuple[str, ...], stderr: str) -> None:
    manifold = FakeManifold()
    result = manifold.run(*args)
    assert (result.exit_code, manifold.asked) == (2, [])
    assert stderr in result.stderr


def test_an_interrupted_command_exits_with_130() -> None:
    class Interrupted(FakeManifold):
        async def settle(self) -> None:
            raise KeyboardInterrupt

    assert Interrupted().run("call", "t").exit_code == 130


def test_read_decodes_a_blob_into_a_pipe_or_a_file(tmp_path: Path) -> None:
    target = tmp_path / "out.bin"
    manifold = FakeManifold(result={"contents": [{"text": "é"}, {"blob": "AP8="}]})
    assert manifold.run("read", "a://b").stdout_bytes == b"\xc3\xa9\x00\xff"
    assert manifold.run("read", "a://b", "--output", str(target)).stdout == ""
    assert target.read_bytes() == b"\xc3\xa9\x00\xff"


@pytest.mark.parametrize("contents", [{"blob": "?"}, {"uri": "a://b"}])
def test_read_of_contents_that_cannot_be_decoded_exits_with_1(contents: dict[str, str], tmp_path: Path) -> None:
    manifold = FakeManifold(result={"contents": [contents]})
    assert manifold.run("read", "a://b", "--output", str(tmp_path / "out")).exit_code == 1


def test_list_shows_names_servers_and_titles_without_control_characters() -> None:
    manifold = FakeManifold(
        tools=TOOLS, prompts=[{"name": "notes__sum"}], resources=[{"uri": "a://b", "name": "B"}], servers=[NOTES, GONE]
    )
    result = manifold.run("list")
    assert "  notes__add_note  [notes]  Add\n      Adds \\x1b[31mit\n" in result.stdout
    assert "Prompts (1)" in result.stdout
    assert "  a://b  [notes]  B\n" in result.stdout
    assert result.stderr == "not listed: gone: not reachable (connection refused)\n"
    assert result.exit_code == 0


def test_list_of_one_kind_as_json_has_the_items_as_clients_get_them() -> None:
    result = FakeManifold(tools=TOOLS, prompts=[{"name": "p"}]).run("list", "--tools", "--json")
    assert json.loads(result.stdout) == {"tools": [{"server": "notes", "item": tool} for tool in TOOLS]}


def test_check_counts_the_servers_and_names_broken_ones_and_warnings() -> None:
    config = settings("notes", "git")
    result = FakeManifold(config=config).run("check")
    assert (result.exit_code, result.stdout) == (0, "ok: 2 servers, 0 disabled, in mcp.json\n")
    odd = ConfigProblem("odd", "warning")
    unset = ConfigProblem("no ${TOKEN}", "broken", file="mcp.json", line=3, column=7, key="mcpServers.git.url")
    update = {"broken": (BrokenServer("git", "no ${TOKEN}", 3, 7),), "problems": (odd, unset)}
    result = FakeManifold(config=config.model_copy(update=update)).run("check")
    assert result.exit_code == 1
    assert "warning: odd\nbroken: mcp.json:3:7: mcpServers.git.url: no ${TOKEN}\n" in result.stdout


def test_check_live_reports_every_server_and_problem() -> None:
    manifold = FakeManifold(servers=[NOTES, GONE], notes=("the pattern 'x' matches nothing",))
    result = manifold.run("check", "--live")
    assert (result.exit_code, manifold.overrides) == (1, {"startupTimeout": "30000ms"})
    for line in ("ok notes: ready over stdio", "!! gone: not reachable (connection refused)", "note: the pattern 'x'"):
        assert line in result.stdout
    found = json.loads(manifold.run("check", "--live", "--json").stdout)
    first, second = found["servers"]
    assert (found["ok"], first["name"], second["name"]) == (False, "notes", "gone")
    assert (second["error"], first["seconds"] >= 0) == ("connection refused", True)


def test_check_of_a_real_file_that_is_wrong_exits_with_2(tmp_path: Path) -> None:
    path = tmp_path / "mcp.json"
    path.write_text('{"mcpServers": {"a": {"comand": "x"}, "b": {"command": "x", "timeout": "soon", "icon": 1}}}')
    plain = CliRunner().invoke(cli, ["check", "-c", str(path)])
    as_json = CliRunner().invoke(cli, ["-c", str(path), "check", "--json"])
    assert (plain.exit_code, as_json.exit_code) == (2, 2)
    assert plain.stderr.startswith("Error: ")
    found = json.loads(as_json.stdout)
    assert found["ok"] is False
    assert found["diagnostics"][0] == {
        "severity": "broken",
        "what": 'unknown key "comand"',
        "remedy": 'did you mean "command"?',
        "file": str(path),
        "line": 1,
        "column": 23,
        "key": "mcpServers.a.comand",
        "server": "a",
    }
    assert [(each["severity"], each["key"]) for each in found["diagnostics"][1:]] == [
        ("broken", "mcpServers.b.timeout"),
        ("warning", "mcpServers.b.icon"),
    ]


def test_serve_prints_its_urls_and_the_servers_or_the_error() -> None:
    manifold = FakeManifold(servers=[NOTES, GONE], notes=("two tools collide",))
    result = manifold.run("serve", "--port", "0", "--base-path", "/x", "--insecure")
    assert result.exit_code == 0
    for line in ("http://127.0.0.1:8808/mcp", "notes: ready over stdio", "note: two tools collide"):
        assert line in result.stdout
    assert manifold.overrides == {"port": 0, "basePath": "/x", "insecure": True}
    assert ("unwatch", "") in manifold.asked
    unsafe = FakeManifold(result=ConfigError("refusing to listen")).run("serve")
    assert (unsafe.exit_code, unsafe.stderr) == (2, "Error: refusing to listen\n")


@pytest.mark.parametrize(
    ("args", "scope"), [((), ""), (("--server", "notes"), "server:notes"), (("--group", "w"), "group:w")]
)
def test_stdio_serves_the_scope_asked_for_and_prints_nothing(args: tuple[str, ...], scope: str) -> None:
    manifold = FakeManifold(config=settings("notes", groups={"w": ["notes"]}))
    result = manifold.run("stdio", *args)
    assert (result.exit_code, result.stdout) == (0, "")
    assert manifold.asked == [("stdio", scope)]


def test_without_a_command_the_configuration_and_the_next_steps_are_shown() -> None:
    result = FakeManifold().run()
    assert (result.exit_code, len(result.stdout.splitlines())) == (0, 5)
    assert result.stdout.startswith("mcp.json: 1 server, 0 disabled\n")


def test_a_missing_configuration_exits_with_2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.delenv("MCP_MANIFOLD_CONFIG", raising=False)
    result = CliRunner().invoke(cli, [])
    assert (result.exit_code, "looked for mcp-manifold.json" in result.stdout) == (2, True)
    result = CliRunner().invoke(cli, ["-c", str(tmp_path / "none.json"), "check"])
    assert (result.exit_code, "none.json" in result.stderr) == (2, True)


def test_schema_prints_a_json_schema() -> None:
    assert "mcpServers" in json.loads(FakeManifold().run("schema").stdout)["properties"]


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_explains_itself_with_an_example_and_the_exit_codes(command: str) -> None:
    result = CliRunner().invoke(cli, [command, "--help"])
    assert result.exit_code == 0
    assert "Exit codes: 0 ok" in result.stdout
    assert "mcp-manifold" in result.stdout
    for option in () if command == "status" else ("--config", "--log-level", "--log-format"):  # which reads no file
        assert option in result.stdout
