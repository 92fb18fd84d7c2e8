"""Server entries in the spellings of many clients."""

import pytest

from mcp_manifold.config import FilterSettings, OverrideSettings, ServerSettings, load_dict
from mcp_manifold.config.dialects import IGNORED, Dialect, Key, ServerEntry, servers_of
from tests.unit.config.conftest import Home

CLAUDE_DESKTOP = """{
  "mcpServers": {
    "filesystem": {
      "command": "npx",
      "args": ["-y", "@modelcontextprotocol/server-filesystem", "C:\\\\Users\\\\ada\\\\Desktop"],
      "env": {"LOG": "1"}
    },
    "My Notes (old)": {"command": "uvx", "args": ["notes"]}
  },
  "globalShortcut": "Ctrl+Space",
  "preferences": {"menuBarEnabled": false}
}"""

CLAUDE_CODE = """{"mcpServers": {
  "api": {"type": "http", "url": "${BASE:-https://api.example.com}/mcp", "headers": {"Authorization": "Bearer ${KEY}"}},
  "events": {"type": "sse", "url": "https://example.com/sse", "oauth": {"clientId": "x"}},
  "local": {"type": "stdio", "command": "/bin/server", "args": [], "env": {}}
}}"""

CURSOR = """{"mcpServers": {
  "git": {"command": "uvx", "args": ["mcp-server-git"], "envFile": "git.env", "autoApprove": ["git_log"]},
  "remote": {"url": "http://localhost:3000/sse", "headers": {"API_KEY": "${env:KEY}"}}
}}"""

VS_CODE = """{
  // comments are usual here
  "inputs": [{"type": "promptString", "id": "key", "description": "Key", "password": true}],
  "servers": {
    "github": {"type": "http", "url": "https://api.example.com/mcp/", "gallery": true, "version": "1.0"},
    "play": {"command": "npx", "args": ["-y", "play"], "dev": {"watch": "**/*.ts"}},
    "asks": {"command": "npx", "env": {"KEY": "${input:key}"}},
  },
}"""

WINDSURF = """{"mcpServers": {
  "far": {"serverUrl": "https://far.example.com/mcp", "disabledTools": ["drop"], "disabled": false, "alwaysAllow": []}
}}"""


def test_a_claude_desktop_file_works_unchanged(home: Home) -> None:
    settings = home.load(CLAUDE_DESKTOP)
    first, second = settings.servers
    assert (first.name, first.transport, first.command) == ("filesystem", "stdio", "npx")
    assert first.args[2] == r"C:\Users\ada\Desktop"
    assert second.name == "My Notes (old)"
    assert settings.warnings == (
        f"{home.file}:10:3: globalShortcut: another client's key, ignored",
        f"{home.file}:11:3: preferences: another client's key, ignored",
    )


def test_a_claude_code_file_works_unchanged(home: Home) -> None:
    settings = home.load(CLAUDE_CODE, environ={"KEY": "k"})
    assert [server.transport for server in settings.servers] == ["http", "sse", "stdio"]
    assert settings.servers[0].url == "https://api.example.com/mcp"
    assert settings.servers[0].headers["Authorization"].get_secret_value() == "Bearer k"
    assert settings.warnings == (
        f"{home.file}:3:63: mcpServers.events.oauth: not supported; the server is used without it",
    )


def test_a_cursor_file_works_unchanged(home: Home) -> None:
    home.write("git.env", "TOKEN=t")
    settings = home.load(CURSOR, environ={"KEY": "k"})
    assert [server.transport for server in settings.servers] == ["stdio", "auto"]
    assert settings.servers[0].env["TOKEN"].get_secret_value() == "t"
    assert settings.servers[1].headers["API_KEY"].get_secret_value() == "k"


def test_a_vs_code_file_works_unchanged_except_for_prompts(home: Home) -> None:
    settings = home.load(VS_CODE)
    assert [(server.name, server.transport) for server in settings.servers] == [("github", "auto"), ("play", "stdio")]
    assert [server.name for server in settings.broken] == ["asks"]
    assert '"${input:...}" is not known' in settings.broken[0].reason


def test_a_windsurf_file_works_unchanged(home: Home) -> None:
    (server,) = home.load(WINDSURF).servers
    assert (server.url, server.transport) == ("https://far.example.com/mcp", "auto")
    assert server.tools == FilterSettings(block=("drop",))


def test_a_dialect_is_a_row_of_a_table() -> None:
    other = Dialect(
        "other",
        ("mcp", "servers"),
        (
            Key("httpUrl", "url"),
            Key("startup_timeout_sec", "initialize_timeout", lambda value: f"{value}s"),
            Key("color", note=IGNORED),
        ),
    )
    entry = ServerEntry({"httpUrl": "http://a", "startup_timeout_sec": 3, "color": "red", "prefix": "p", "x": 1}, other)
    assert entry.data == {"url": "http://a", "initialize_timeout": "3s", "prefix": "p"}
    assert (entry.notes, entry.unknown, entry.problems) == ([("color", IGNORED)], ["x"], [])
    assert servers_of({"mcp": {"servers": {"a": {}}}}, other) == {"a": {}}


@pytest.mark.parametrize("key", ["type", "transport", "transportType", "transport_type"])
@pytest.mark.parametrize(
    ("transport", "spellings"),
    [
        ("http", ("http", "HTTP", "streamable-http", "streamableHttp", "streamable_http", "Streamable")),
        ("sse", ("sse", "SSE")),
        ("auto", ("auto",)),
    ],
)
def test_a_transport_has_many_spellings(home: Home, key: str, transport: str, spellings: tuple[str, ...]) -> None:
    for spelling in spellings:
        assert home.server(f'{{"url": "http://a/mcp", "{key}": "{spelling}"}}').transport == transport


@pytest.mark.parametrize(
    ("entry", "is_disabled"),
    [
        ("{command: 'x'}", False),
        ("{command: 'x', disabled: true}", True),
        ("{command: 'x', enabled: false}", True),
        ("{command: 'x', enabled: true, disabled: false}", False),
        ("{command: 'x', disabled: 'yes'}", True),
    ],
)
def test_enabled_is_the_opposite_of_disabled(home: Home, entry: str, is_disabled: bool) -> None:
    assert home.server(entry).disabled is is_disabled


def test_disabled_tools_join_the_blocked_ones(home: Home) -> None:
    server = home.server('{"command": "x", "tools": {"allow": ["a*"], "block": ["ab"]}, "disabledTools": ["ac"]}')
    assert server.tools == FilterSettings(allow=("a*",), block=("ab", "ac"))


@pytest.mark.parametrize(
    ("tools", "filtered"),
    [
        ('["*"]', FilterSettings()),
        ('["a", "b"]', FilterSettings(allow=("a", "b"))),
        ('{"allow": []}', FilterSettings(allow=())),
        ('{"allow": null}', FilterSettings()),
        ("{}", FilterSettings()),
    ],
)
def test_an_empty_allow_list_is_not_the_same_as_none(home: Home, tools: str, filtered: FilterSettings) -> None:
    assert home.server(f'{{"command": "x", "tools": {tools}}}').tools == filtered


def test_a_key_that_is_null_counts_as_not_written(home: Home) -> None:
    server = home.server('{"command": "x", "url": null, "env": null, "cwd": null, "type": null, "timeout": null}')
    assert server == ServerSettings(name="it", command="x")


def test_every_setting_of_a_server_is_read(home: Home) -> None:
    server = home.server("""{
        "command": "x", "args": ["-p", 80, 1.5], "env": {"A": 1, "B": true, "C": false, "D": 2.5}, "cwd": "/srv",
        "timeout": "2m", "sseReadTimeout": 1500, "prefix": "",
        "prompts": {"block": ["*"]}, "resources": {"allow": ["ui://*"]},
        "overrides": {"tools": {"now": {"name": "time"}}, "prompts": {"p": {"title": "P"}},
                      "resources": {"file:///x": {"description": "D"}}},
        "isolation": "client", "era": "modern", "uris": "prefix"}""")
    assert (server.args, server.cwd, server.timeout) == (("-p", "80", "1.5"), "/srv", 120.0)
    assert [value.get_secret_value() for value in server.env.values()] == ["1", "true", "false", "2.5"]
    assert (server.prefix, server.isolation, server.era, server.uris) == ("", "client", "modern", "prefix")
    assert (server.prompts, server.resources) == (FilterSettings(block=("*",)), FilterSettings(allow=("ui://*",)))
    assert server.sse_read_timeout == 1.5
    assert server.overrides.tools == {"now": OverrideSettings(name="time")}
    assert server.overrides.prompts == {"p": OverrideSettings(title="P")}
    assert server.overrides.resources == {"file:///x": OverrideSettings(description="D")}


def test_settings_of_the_other_kind_of_server_are_warned_about(home: Home) -> None:
    text = '{"mcpServers": {"z": {"command": "x", "headers": {"A": "b"}}, "b": {"url": "http://b", "args": ["x"]}}}'
    settings = home.load(text)
    assert settings.warnings == (
        f'{home.file}:1:39: mcpServers.z.headers: no effect on a server with "command"',
        f'{home.file}:1:88: mcpServers.b.args: no effect on a server with "url"',
    )
    assert [server.name for server in settings.servers] == ["z", "b"], "in the order of the file"
    assert home.load("{}").warnings == (f'{home.file}: there is no "mcpServers", so there is nothing to offer',)


@pytest.mark.parametrize("key", ["description", "autoApprove", "alwaysAllow", "icon", "gallery", "version", "_comment"])
def test_keys_of_other_clients_without_meaning_here_are_ignored_with_a_warning(home: Home, key: str) -> None:
    settings = home.load(f'{{"mcpServers": {{"a": {{"command": "x", "{key}": {{}}}}}}}}')
    assert settings.servers == (ServerSettings(name="a", command="x"),)
    assert settings.warnings == (f"{home.file}:1:39: mcpServers.a.{key}: another client's key, ignored",)


def test_settings_are_loaded_from_a_mapping() -> None:
    settings = load_dict(
        {"mcpServers": {"a": {"command": "${RUN}", "args": ("x",), "timeout": 1500}}, "manifold": {"port": 0}},
        environ={"RUN": "python", "MCP_MANIFOLD_PORT": "9", "MCP_MANIFOLD_OTHER": "1"},
    )
    assert settings.servers == (ServerSettings(name="a", command="python", args=("x",), timeout=1.5),)
    assert (settings.manifold.port, settings.source, settings.warnings) == (0, "<dict>", ())


def test_python_gives_durations_in_seconds_and_the_transport_is_inferred(home: Home) -> None:
    server = ServerSettings(name="a", url="http://a", timeout=0.25)
    assert (server.timeout, server.transport) == (0.25, "auto")
    assert ServerSettings(name="a", command="x").transport == "stdio"
    for type_ in ("STDIO", "auto"):
        assert home.server(f'{{"command": "x", "type": "{type_}"}}').transport == "stdio"
    with pytest.raises(ValueError, match='"mcp" cannot name a server'):
        ServerSettings(name="mcp", command="x")


@pytest.mark.parametrize(
    ("written", "size"),
    [("1000", 1000), ('"1000"', 1000), ('"512MB"', 512_000_000), ('"1.5 GiB"', 3 * 2**29), ('"10 B"', 10)],
)
def test_limits_of_a_process_are_sizes_and_counts(home: Home, written: str, size: int) -> None:
    rlimits = home.server(f'{{"command": "x", "rlimits": {{"memory": {written}}}}}').rlimits
    assert (rlimits.memory, rlimits.files, rlimits.cpu) == (size, None, None)
    for wrong in ('"memory": "much"', '"memory": 0', '"memory": true', '"files": 0', '"cpu": "1m"', '"disk": 1'):
        assert "rlimits" in home.error(f'{{"mcpServers": {{"a": {{"command": "x", "rlimits": {{{wrong}}}}}}}}}')
