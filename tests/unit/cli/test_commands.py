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


# --- call ------------------------------------------------------------------------------------------------------------


def test_call_passes_the_arguments_and_prints_the_text() -> None:
    manifold = FakeManifold(result={"content": [{"type": "text", "text": "done \x1b"}]})

    result = manifold.run("call", "notes__add_note", '{"text": "milk"}', "--arg", "n=2")

    assert (result.exit_code, result.stdout) == (0, "done \x1b\n")  # to a pipe as it came
    assert manifold.asked == [("notes__add_note", {"text": "milk", "n": 2})]
    assert not manifold.is_entered


def test_call_reads_arguments_from_stdin() -> None:
    manifold = FakeManifold(result={"content": []})

    assert manifold.run("call", "t", "-", text='{"a": 1}').exit_code == 0
    assert manifold.asked == [("t", {"a": 1})]


def test_call_prints_progress_on_stderr() -> None:
    manifold = FakeManifold(result={"content": []}, progress=[{"progress": 1, "total": 2, "message": "half"}])

    result = manifold.run("call", "t")

    assert result.stderr == "progress 1/2 half\n"


def test_call_of_a_tool_that_reports_an_error_exits_with_1() -> None:
    manifold = FakeManifold(result={"content": [{"type": "text", "text": "no such note"}], "isError": True})

    result = manifold.run("call", "t")

    assert (result.exit_code, result.stdout) == (1, "no such note\n")


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


def test_call_without_similar_names_points_at_the_list() -> None:
    result = FakeManifold(result=UnknownItem("tool", "zzz")).run("call", "zzz")

    assert "mcp-manifold list --tools" in result.stderr


def test_call_to_an_unavailable_server_exits_with_1_and_the_reason() -> None:
    result = FakeManifold(result=BackendUnavailable("git", "is gone \x1b[2J")).run("call", "git__log")

    assert (result.exit_code, result.stderr) == (1, "Error: git: is gone \\x1b[2J\n")


def test_call_with_bad_arguments_starts_nothing_and_exits_with_2() -> None:
    manifold = FakeManifold()

    assert manifold.run("call", "t", "[1]").exit_code == 2
    assert manifold.asked == []


def test_wait_becomes_the_start_up_timeout() -> None:
    manifold = FakeManifold(result={"content": []})

    manifold.run("call", "t", "--wait", "1.5")

    assert manifold.overrides == {"startupTimeout": "1500ms"}


def test_an_interrupted_command_exits_with_130() -> None:
    class Interrupted(FakeManifold):
        async def settle(self) -> None:
            raise KeyboardInterrupt

    assert Interrupted().run("call", "t").exit_code == 130


# --- read and prompt -------------------------------------------------------------------------------------------------


def test_read_prints_the_text() -> None:
    result = FakeManifold(result={"contents": [{"uri": "a://b", "text": "hello"}]}).run("read", "a://b")

    assert (result.exit_code, result.stdout) == (0, "hello\n")


def test_read_decodes_a_blob_into_a_pipe() -> None:
    result = FakeManifold(result={"contents": [{"uri": "a://b", "blob": "AP8="}]}).run("read", "a://b")

    assert result.stdout_bytes == b"\x00\xff"


def test_read_writes_a_file(tmp_path: Path) -> None:
    target = tmp_path / "out.bin"
    manifold = FakeManifold(result={"contents": [{"uri": "a://b", "blob": "AP8="}]})

    result = manifold.run("read", "a://b", "--output", str(target))

    assert (result.exit_code, result.stdout) == (0, "")
    assert target.read_bytes() == b"\x00\xff"


@pytest.mark.parametrize("contents", [{"blob": "?"}, {"uri": "a://b"}])
def test_read_of_contents_that_cannot_be_decoded_exits_with_1(contents: dict[str, str], tmp_path: Path) -> None:
    manifold = FakeManifold(result={"contents": [contents]})

    assert manifold.run("read", "a://b", "--output", str(tmp_path / "out")).exit_code == 1


def test_read_of_an_unknown_resource_suggests_one() -> None:
    manifold = FakeManifold(resources=[{"uri": "note://milk"}], result=UnknownItem("resource", "note://milc"))

    result = manifold.run("read", "note://milc")

    assert result.exit_code == 1
    assert '"note://milk"' in result.stderr


def test_prompt_prints_its_messages() -> None:
    message = {"role": "user", "content": {"type": "text", "text": "Summarise."}}
    manifold = FakeManifold(result={"messages": [message]})

    result = manifold.run("prompt", "notes__sum", "--arg", "n=1")

    assert (result.exit_code, result.stdout) == (0, "user:\nSummarise.\n")
    assert manifold.asked == [("notes__sum", {"n": "1"})]


# --- list ------------------------------------------------------------------------------------------------------------


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


# --- check -----------------------------------------------------------------------------------------------------------


def test_check_counts_the_servers() -> None:
    result = FakeManifold(config=settings("notes", "git")).run("check")

    assert (result.exit_code, result.stdout) == (0, "ok: 2 servers, 0 disabled, in mcp.json\n")


def test_check_names_broken_servers_and_warnings_and_exits_with_1() -> None:
    broken = BrokenServer("git", "no ${TOKEN}", 3, 7)
    odd = ConfigProblem("odd", "warning")
    unset = ConfigProblem("no ${TOKEN}", "broken", file="mcp.json", line=3, column=7, key="mcpServers.git.url")
    config = settings("notes").model_copy(update={"broken": (broken,), "problems": (odd, unset)})

    result = FakeManifold(config=config).run("check")

    assert result.exit_code == 1
    assert "warning: odd\nbroken: mcp.json:3:7: mcpServers.git.url: no ${TOKEN}\n" in result.stdout


def test_check_live_reports_every_server_and_problem() -> None:
    manifold = FakeManifold(servers=[NOTES, GONE], notes=("the pattern 'x' matches nothing",))

    result = manifold.run("check", "--live")

    assert result.exit_code == 1
    assert "ok notes: ready over stdio" in result.stdout
    assert "!! gone: not reachable (connection refused)" in result.stdout
    assert "note: the pattern 'x' matches nothing" in result.stdout
    assert manifold.overrides == {"startupTimeout": "30000ms"}


def test_check_live_as_json_has_a_server_object_each() -> None:
    found = json.loads(FakeManifold(servers=[NOTES, GONE]).run("check", "--live", "--json").stdout)

    assert found["ok"] is False
    assert [server["name"] for server in found["servers"]] == ["notes", "gone"]
    assert found["servers"][1]["error"] == "connection refused"
    assert found["servers"][0]["seconds"] >= 0


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
        "severity": "error",
        "what": 'unknown key "comand"',
        "remedy": 'did you mean "command"?',
        "file": str(path),
        "line": 1,
        "column": 23,
        "key": "mcpServers.a.comand",
        "server": "a",
    }
    assert [(each["severity"], each["key"]) for each in found["diagnostics"][1:]] == [
        ("error", "mcpServers.b.timeout"),
        ("warning", "mcpServers.b.icon"),
    ]


# --- serve and stdio -------------------------------------------------------------------------------------------------


def test_serve_prints_its_urls_and_the_servers() -> None:
    manifold = FakeManifold(servers=[NOTES, GONE], notes=("two tools collide",))

    result = manifold.run("serve", "--port", "0", "--base-path", "/x", "--insecure")

    assert result.exit_code == 0
    assert "http://127.0.0.1:8808/mcp" in result.stdout
    assert "notes: ready over stdio" in result.stdout
    assert "note: two tools collide" in result.stdout
    assert manifold.overrides == {"port": 0, "basePath": "/x", "insecure": True}
    assert ("unwatch", "") in manifold.asked


def test_serve_on_an_unsafe_address_exits_with_2() -> None:
    result = FakeManifold(result=ConfigError("refusing to listen")).run("serve")

    assert (result.exit_code, result.stderr) == (2, "Error: refusing to listen\n")


@pytest.mark.parametrize(
    ("args", "scope"), [((), ""), (("--server", "notes"), "server:notes"), (("--group", "w"), "group:w")]
)
def test_stdio_serves_the_scope_asked_for_and_prints_nothing(args: tuple[str, ...], scope: str) -> None:
    manifold = FakeManifold(config=settings("notes", groups={"w": ["notes"]}))

    result = manifold.run("stdio", *args)

    assert (result.exit_code, result.stdout) == (0, "")
    assert manifold.asked == [("stdio", scope)]


def test_stdio_of_an_unknown_server_suggests_one() -> None:
    result = FakeManifold().run("stdio", "--server", "note")

    assert result.exit_code == 2
    assert 'Did you mean "notes"?' in result.stderr


def test_stdio_takes_a_server_or_a_group_and_not_both() -> None:
    assert FakeManifold().run("stdio", "--server", "notes", "--group", "w").exit_code == 2


# --- no command, schema, help ----------------------------------------------------------------------------------------


def test_without_a_command_the_configuration_and_the_next_steps_are_shown() -> None:
    result = FakeManifold().run()

    assert result.exit_code == 0
    assert result.stdout.startswith("mcp.json: 1 server, 0 disabled\n")
    assert len(result.stdout.splitlines()) == 5


def test_without_a_command_and_configuration_it_exits_with_2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.delenv("MCP_MANIFOLD_CONFIG", raising=False)

    result = CliRunner().invoke(cli, [])

    assert result.exit_code == 2
    assert "looked for mcp-manifold.json" in result.stdout


def test_schema_prints_a_json_schema() -> None:
    result = CliRunner().invoke(cli, ["schema"])

    assert result.exit_code == 0
    assert "mcpServers" in json.loads(result.stdout)["properties"]


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_explains_itself_with_an_example_and_the_exit_codes(command: str) -> None:
    result = CliRunner().invoke(cli, [command, "--help"])

    assert result.exit_code == 0
    assert "Exit codes: 0 ok" in result.stdout
    assert "mcp-manifold" in result.stdout
    for option in () if command == "status" else ("--config", "--log-level", "--log-format"):  # which reads no file
        assert option in result.stdout


def test_a_mistyped_command_gets_a_suggestion() -> None:
    result = CliRunner().invoke(cli, ["chek"])

    assert result.exit_code == 2
    assert 'Did you mean "check"?' in result.stderr


def test_options_before_a_command_apply_to_it(tmp_path: Path) -> None:
    result = CliRunner().invoke(cli, ["-c", str(tmp_path / "none.json"), "check"])

    assert result.exit_code == 2
    assert "none.json" in result.stderr
