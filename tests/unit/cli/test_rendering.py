"""Statuses, URLs, results and lists as text; the progress of `serve`."""

import base64
import io
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_manifold.cli import requests, statuses
from mcp_manifold.cli.exits import as_exit, did_you_mean, only_error
from mcp_manifold.cli.output import columns, cut, size
from mcp_manifold.cli.requests import attributed, lines, tool_arguments
from mcp_manifold.cli.root import without_configuration
from mcp_manifold.cli.serve import banner, root_url, snippet
from mcp_manifold.cli.statuses import PlainConsole, Reporter
from mcp_manifold.core.status import ServerStatus
from mcp_manifold.errors import BackendTimeout, ConfigError, ManifoldError, RemoteError
from tests.unit.cli.fake_manifold import GONE, NOTES, settings


@pytest.mark.parametrize(
    ("status", "line"),
    [
        (NOTES, "ready over stdio (handshake 2025-11-25), 2 tools, 1 resource, 1 resource template, 1 prompt"),
        (ServerStatus("x", "ready", "http", tools=1, hidden=2), "ready over Streamable HTTP, 1 tool, 2 hidden"),
        (
            ServerStatus("x", "ready", "sse", breaker="open", last_error="no answer", next_try=2.0),
            "ready over SSE, circuit breaker open (no answer); next attempt in 2.0 s",
        ),
        (ServerStatus("x", "idle", is_resting=True), "idle until the next call, nothing offered"),
        (ServerStatus("x", "degraded", "stdio"), "degraded (reason unknown), still called over stdio"),
        (GONE, "not reachable (connection refused); next attempt in 0.4 s"),
        (ServerStatus("x", "broken", last_error="no command"), "broken: no command"),
        (ServerStatus("x", "connecting"), "connecting"),
        (ServerStatus("x", "disabled"), "disabled"),
        (ServerStatus("x", "stopped"), "stopped"),
    ],
)
def test_every_state_is_one_sentence(status: ServerStatus, line: str) -> None:
    assert statuses.line(status) == f"{status.name}: {line}"


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        ("'uvx' could not be started: Permission denied", "command"),
        ("the server answered 401", "headers"),
        ("connection refused", "url"),
        ("no answer within 5 s", "--wait"),
        ("the server exited with code 1", "by hand"),
    ],
)
def test_known_failures_come_with_a_remedy(error: str, advice: str) -> None:
    assert advice in statuses.remedy(ServerStatus("x", "backing off", last_error=error))


def test_a_report_shows_the_remedy_and_the_end_of_stderr() -> None:
    assert statuses.outcome(GONE) == "gone: not reachable (connection refused)", "without the next attempt"
    assert statuses.report(GONE, 0.25) == [
        "!! gone: not reachable (connection refused) (after 0.2 s)",
        '     check that it is running, and its "url"',
        "     stderr: one",
        r"     stderr: two \x1b[2J",
    ]


@given(st.text(), st.text(), st.text(), st.sampled_from(["ready", "connecting", "backing off", "broken", "other"]))
def test_s26_no_line_of_a_server_has_control_characters(name: str, title: str, error: str, state: str) -> None:
    item = {"name": name, "title": title, "description": error}
    listed = lines([attributed("tools", "name", [item], [])], 0)
    for line in (statuses.line(ServerStatus(name, state, last_error=error)), *listed):
        assert not any(ord(c) < 0x20 or 0x7F <= ord(c) < 0xA0 for c in line)


class Stage:
    """A Reporter and its output."""

    def __init__(self, *servers: ServerStatus) -> None:
        self.servers = list(servers)
        self.paper = io.StringIO()
        self.reporter = Reporter(lambda: self.servers, PlainConsole(file=self.paper))

    def now(self, *servers: ServerStatus) -> list[str]:
        """The lines printed when the servers change to these."""
        self.servers = list(servers)
        self.paper.seek(0)
        self.paper.truncate()
        self.reporter.moved("any")
        return self.paper.getvalue().splitlines()


def test_each_change_is_printed_once_between_begin_and_end() -> None:
    stage = Stage()
    assert stage.now(NOTES) == []
    stage.servers = []
    stage.reporter.begin()
    assert stage.now(GONE) == [statuses.line(GONE)]
    assert stage.now(replace(GONE, next_try=7.0)) == []
    assert stage.now(replace(GONE, state="connecting")) == []
    assert stage.now(replace(GONE, last_error="another")) != []
    assert stage.now(replace(NOTES, name="gone")) == [statuses.line(replace(NOTES, name="gone"))]
    assert stage.now(ServerStatus("notes", "ready", "stdio")) == [], "its lists are not fetched yet"
    assert stage.now(NOTES) == [statuses.line(NOTES)]
    stage.reporter.end()
    assert stage.now(GONE) == []


def test_an_empty_server_is_printed_once_all_were_tried() -> None:
    stage = Stage(ServerStatus("[red]x[/red]:smile:", "ready", "stdio"))
    stage.reporter.begin()
    stage.reporter.settled(("two tools collide",))
    line = "[red]x[/red]:smile:: ready over stdio, nothing offered"
    assert stage.paper.getvalue() == f"{line}\nnote: two tools collide\n", "names are not markup"


def test_a_closed_pipe_ends_only_the_report() -> None:
    class Left(io.StringIO):
        def write(self, _: str) -> int:
            raise BrokenPipeError

    reporter = Reporter(lambda: [GONE], PlainConsole(file=Left()))
    reporter.begin()
    assert repr(reporter) == "<Reporter closed shown=1>"


def test_on_a_terminal_errors_follow_the_table_as_lines() -> None:
    paper = io.StringIO()
    reporter = Reporter(lambda: [NOTES, GONE], PlainConsole(file=paper, force_terminal=True, width=100))
    reporter.begin()
    for text in ("backing off", "stdio (handshake 2025-11-25)"):
        assert text in paper.getvalue()
    assert statuses.line(GONE) not in paper.getvalue()
    reporter.settled(())
    assert statuses.line(GONE) in paper.getvalue()
    assert statuses.line(NOTES) not in paper.getvalue()


def test_the_banner_has_every_url_of_the_first_servers() -> None:
    shown = "\n".join(banner(settings("notes", "a b?", groups={"writing": ["notes"]}), "http://127.0.0.1:8808/x"))
    for path in ("/mcp", "/sse", "/notes/mcp", "/a%20b%3F/mcp", "/groups/writing/mcp", "/health"):
        assert f"http://127.0.0.1:8808/x{path}" in shown
    many = banner(settings(*(f"s{n}" for n in range(20))), "http://127.0.0.1:1")
    assert any("and 8 more" in line for line in many)


@pytest.mark.parametrize(
    ("host", "root"),
    [
        ("0.0.0.0", "http://127.0.0.1:1"),
        ("::", "http://[::1]:1"),
        ("::1", "http://[::1]:1"),
        ("a.test", "http://a.test:1"),
    ],
)
def test_addresses_are_ones_a_client_can_use(host: str, root: str) -> None:
    assert root_url(host, 1) == root


def test_the_snippet_has_a_placeholder_for_the_token() -> None:
    shown = str(snippet(settings("notes", tokens=["s3cret"]), "http://h:1"))
    assert "Bearer YOUR_TOKEN" in shown
    assert "s3cret" not in shown
    assert "headers" not in str(snippet(settings("notes"), "http://h:1"))


PICTURE = base64.b64encode(b"x" * 1500).decode()


@pytest.mark.parametrize(
    ("block", "text"),
    [
        ({"type": "text", "text": "hello"}, "hello"),
        ({"type": "image", "mimeType": "image/png", "data": PICTURE}, "[image: image/png, 1.5 kB]"),
        ({"type": "audio", "data": "?"}, "[audio: unknown type, invalid base64]"),
        ({"type": "resource_link", "uri": "a://b", "name": "B"}, "[link: a://b (B)]"),
        ({"type": "resource", "resource": {"uri": "a://b", "text": "inside"}}, "inside"),
        ({"type": "resource", "resource": {"uri": "a://b", "blob": "eA=="}}, "[a://b: unknown type, 1 byte]"),
        ({"type": "new"}, '{\n  "type": "new"\n}'),
        ("odd", '"odd"'),
    ],
)
def test_content_blocks_read_as_text_or_are_described(block: object, text: str) -> None:
    assert requests.block_text(block) == text


def test_results_and_messages_are_shown_as_text() -> None:
    assert requests.result_text({"content": [], "structuredContent": {"a": 1}}) == '{\n  "a": 1\n}'
    assert requests.result_text({"content": []}) == ""
    messages = [
        {"role": "user", "content": {"type": "text", "text": "hi"}},
        {"role": "assistant", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
    ]
    assert requests.messages_text({"messages": messages}) == "user:\nhi\n\nassistant:\na\nb"


@pytest.mark.parametrize(
    ("text", "pairs", "found"),
    [
        (None, (), {}),
        ('{"a": 1}', (), {"a": 1}),
        ("-", ("b=2",), {"from": "stdin", "b": 2}),
        ('{"a": 1}', ("a=two words",), {"a": "two words"}),
        (None, ('a={"b": [true]}', "c=", "d=x=y", "e=NaN"), {"a": {"b": [True]}, "c": "", "d": "x=y", "e": "NaN"}),
    ],
)
def test_tool_arguments_are_json_and_pairs(text: str | None, pairs: tuple[str, ...], found: dict[str, Any]) -> None:
    assert tool_arguments(text, pairs, lambda: '{"from": "stdin"}') == found


def test_items_are_attributed_to_their_server() -> None:
    servers = [ServerStatus("a", "ready", tools=1), ServerStatus("b", "ready", tools=2)]
    items = [{"name": name} for name in ("x", "y", "z")]
    assert [owner for _, owner in attributed("tools", "name", items, servers).items] == ["a", "b", "b"]
    assert [owner for _, owner in attributed("tools", "name", items[:2], servers).items] == ["", ""]


def test_long_descriptions_are_cut_to_the_width_of_a_terminal() -> None:
    item = {"name": "a__t", "title": "T", "description": "many words\nand more " * 20}
    listed = attributed("tools", "name", [item], [ServerStatus("a", "ready", tools=1)])
    on_terminal = lines([listed], 40)
    assert on_terminal[:2] == ["Tools (1)", "  a__t  [a]  T"]
    assert (len(on_terminal[2]), on_terminal[2][-1]) == (40, "…")
    assert "…" not in lines([listed], 0)[2]
    assert lines([attributed("tools", "name", [], [])], 0) == ["No tools, prompts or resources."]


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (ConfigError("no"), 2, "no"),
        (BackendTimeout("git", "no answer"), 1, "git: no answer"),
        (
            RemoteError(b'{"code": -1, "message": "full", "data": {"left": 0}}', code=-1, backend="disk"),
            1,
            'disk answered with error -1: full\n{"left": 0}',
        ),
        (RemoteError(b"?", code=-1, backend="disk"), 1, "disk answered with error -1"),
    ],
)
def test_errors_become_exit_codes_and_messages(error: ManifoldError, code: int, message: str) -> None:
    exit_ = as_exit(error)
    assert exit_.exit_code == code
    assert exit_.format_message().startswith(message)


def test_suggestions_are_close_names_or_native_ones() -> None:
    known = ["notes__add_note", "git__log"]
    expected = {"notes__ad_note": ' Did you mean "notes__add_note"?', "log": ' Did you mean "git__log"?', "zzz": ""}
    assert {name: did_you_mean(name, known) for name in expected} == expected
    error = ConfigError("x")
    several = ExceptionGroup("", [error, error])
    assert only_error(ExceptionGroup("", [ExceptionGroup("", [error])])) is error
    assert only_error(several) is several


@given(st.text(max_size=50), st.integers(min_value=1, max_value=40))
def test_cut_text_fits(text: str, wide: int) -> None:
    assert len(cut(text, wide)) <= wide
    assert cut(text, 0) == text


def test_columns_are_aligned_and_sizes_are_readable() -> None:
    assert columns([("a", "b", ""), ("long", "c", "d")]) == ["  a     b", "  long  c  d"]
    assert [size(n) for n in (1, 999, 1500, 2_500_000)] == ["1 byte", "999 bytes", "1.5 kB", "2.5 MB"]


@pytest.mark.parametrize("platform", ["linux", "darwin", "win32"])
def test_without_a_configuration_five_lines_show_the_first_steps(platform: str) -> None:
    _, second, third, _, _ = without_configuration("no configuration file: looked for a, b", platform)
    assert ("claude_desktop_config.json" in second, "uvx" in third) == (True, True)
