"""The sources of `manifold` settings, and their precedence."""

import pytest
from pydantic import SecretStr

from mcp_manifold.config import LimitSettings, ManifoldSettings, load_dict
from mcp_manifold.errors import ConfigError
from tests.unit.config.conftest import Home

FILE = '{"mcpServers": {}, "manifold": {"port": 2}}'


def test_flags_win_over_environment_over_dotenv_over_file_over_defaults(home: Home) -> None:
    environ, flags = {"MCP_MANIFOLD_PORT": "4"}, {"port": 5}
    assert home.load('{"mcpServers": {}}').manifold.port == 8808
    assert home.load(FILE, environ={"MCP_MANIFOLD_PORT": ""}).manifold.port == 2
    home.write(".env", "MCP_MANIFOLD_PORT=3\n")
    assert home.load(FILE).manifold.port == 3
    assert home.load(FILE, environ=environ).manifold.port == 4
    assert home.load(FILE, environ={"mcp_manifold_port": "4"}).manifold.port == 4
    assert home.load(FILE, environ=environ, flags=flags).manifold.port == 5


def test_sources_are_merged_key_by_key(home: Home) -> None:
    home.write(".env", "MCP_MANIFOLD_LIMITS__MAX_STREAMS=3\nMCP_MANIFOLD_HOST=dotenv\n")
    text = '{"mcpServers": {}, "manifold": {"limits": {"maxBody": 1, "maxStreams": 1}, "host": "file", "name": "file"}}'
    environ = {"MCP_MANIFOLD_LIMITS__MAX_SESSIONS": "4"}
    manifold = home.load(text, environ=environ, flags={"limits": {"maxCallsPerSession": 5}}).manifold
    assert manifold.limits == LimitSettings(max_body=1, max_streams=3, max_sessions=4, max_calls_per_session=5)
    assert (manifold.host, manifold.name) == ("dotenv", "file")


EVERY_SETTING: dict[str, tuple[str, object]] = {
    "name": ("workbench", "workbench"),
    "instructions": ("be kind", "be kind"),
    "host": ("::1", "::1"),
    "port": ("0", 0),
    "base_path": ("tools/", "/tools"),
    "separator": ("-", "-"),
    "name_budget": ("48", 48),
    "startup_timeout": ("250ms", 0.25),
    "env": ('{"A": "1"}', {"A": SecretStr("1")}),
    "groups": ('{"g": []}', {"g": ()}),
    "insecure": ("true", True),
    "allowed_hosts": ("a.example.com, b.example.com", ("a.example.com", "b.example.com")),
    "allowed_origins": ('["https://a.example.com"]', ("https://a.example.com",)),
    "metrics": ("no", False),
    "drain": ("2m", 120.0),
    "limits": ('{"maxBody": 7, "session_idle": "1h"}', LimitSettings(max_body=7, session_idle=3600.0)),
    "log_level": ("DEBUG", "debug"),
    "log_format": ("json", "json"),
    "list_timeout": ("1500", 1.5),
    "list_interval": ("1m", 60.0),
    "list_grace": ("0", 0.0),
    "start": ("lazy", "lazy"),
    "remember": ("no", False),
    "state_dir": ("/var/lib/mcp", "/var/lib/mcp"),
    "idle_timeout": ("10m", 600.0),
    "login_shell_path": ("true", True),
    "watch": ("off", False),
}


@pytest.mark.parametrize("name", sorted(set(ManifoldSettings.model_fields) - {"tokens"}))
def test_every_setting_can_come_from_the_environment(home: Home, name: str) -> None:
    text, value = EVERY_SETTING[name]
    manifold = home.load("{}", environ={f"MCP_MANIFOLD_{name.upper()}": text}).manifold
    assert getattr(manifold, name) == value


@pytest.mark.parametrize("name", LimitSettings.model_fields)
def test_every_limit_can_come_from_the_environment(home: Home, name: str) -> None:
    manifold = home.load("{}", environ={f"MCP_MANIFOLD_LIMITS__{name.upper()}": "9000"}).manifold
    is_duration = isinstance(getattr(LimitSettings(), name), float)
    assert getattr(manifold.limits, name) == (9.0 if is_duration else 9000)


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("one,two", [("token-1", "one"), ("token-2", "two")]),
        ("one", [("token-1", "one")]),
        ('["a,b", {"token": "c", "name": "ci"}]', [("token-1", "a,b"), ("ci", "c")]),
    ],
)
def test_tokens_can_come_from_the_environment(home: Home, text: str, tokens: list[tuple[str, str]]) -> None:
    found = home.load("{}", environ={"MCP_MANIFOLD_TOKENS": text}).manifold.tokens
    assert [(token.name, token.token.get_secret_value()) for token in found] == tokens


def test_variables_of_other_programs_are_not_read(home: Home) -> None:
    environ = {"PORT": "1", "HOST": "h", "NAME": "n", "MCP_PORT": "2", "LIMITS__MAX_BODY": "3"}
    assert home.load("{}", environ=environ).manifold == ManifoldSettings()


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"MCP_MANIFOLD_PORT": "many"}, "MCP_MANIFOLD_PORT: expected a whole number"),
        ({"MCP_MANIFOLD_LIMITS__MAX_BODY": "0"}, "MCP_MANIFOLD_LIMITS__MAX_BODY: expected a number above 0"),
        ({"MCP_MANIFOLD_LIMITS": '{"maxBody": 0}'}, "MCP_MANIFOLD_LIMITS: expected a number above 0"),
        ({"MCP_MANIFOLD_LIMITS": "[]"}, "MCP_MANIFOLD_LIMITS: expected a JSON object"),
        (
            {"MCP_MANIFOLD_LIMITS": '{"maxBody": 1, "max_body": 1}'},
            "MCP_MANIFOLD_LIMITS: the setting is given twice, in two spellings (max_body)",
        ),
        ({"MCP_MANIFOLD_GROUPS": "a=b"}, "MCP_MANIFOLD_GROUPS: expected a JSON object"),
        ({"MCP_MANIFOLD_GROUPS": '{"g": ["x"]}'}, 'MCP_MANIFOLD_GROUPS: there is no server "x"'),
        (
            {"MCP_MANIFOLD_LIMITS": '{"maxBdy": 1}'},
            'MCP_MANIFOLD_LIMITS: unknown key "maxBdy"; did you mean "maxBody"?',
        ),
        (
            {"MCP_MANIFOLD_ALLOWED_HOSTS": "[a"},
            "MCP_MANIFOLD_ALLOWED_HOSTS: expected a JSON list, or values with commas between them",
        ),
    ],
)
def test_a_wrong_value_in_the_environment_names_the_variable(home: Home, environ: dict[str, str], message: str) -> None:
    assert home.error("{}", environ=environ) == message


@pytest.mark.parametrize("spelling", ["maxBody", "max_body"])
def test_a_variable_for_one_limit_wins_over_the_variable_for_all(home: Home, spelling: str) -> None:
    environ = {"MCP_MANIFOLD_LIMITS": f'{{"{spelling}": 1}}', "MCP_MANIFOLD_LIMITS__MAX_BODY": "2"}
    assert home.load("{}", environ=environ).manifold.limits.max_body == 2


def test_a_wrong_value_is_attributed_to_its_source(home: Home) -> None:
    text = '{"manifold": {"limits": {"maxBody": 0}}}'
    message = home.error(text, environ={"MCP_MANIFOLD_LIMITS__MAX_STREAMS": "1"})
    assert message == "manifold.json:1:37: manifold.limits.maxBody: expected a number above 0, got 0"
    assert home.error("{}", flags={"log_level": "loud"}) == (
        '--log-level: expected "debug", "info", "warning" or "error"'
    )
    assert home.error("{}", flags={"prot": 1}) == '--prot: unknown key "prot"; did you mean "port"?'
    assert home.error("{}", flags={"basePath": "a", "base_path": "b"}) == (
        "--base_path: the setting is given twice, in two spellings"
    )
    home.write(".env", "MCP_MANIFOLD_PORT=many\n")
    assert home.error("{}") == "MCP_MANIFOLD_PORT in .env: expected a whole number"


def test_an_unknown_variable_of_ours_is_warned_about(home: Home) -> None:
    home.write(".env", "MCP_MANIFOLD_HSOT=x\n")
    environ = {"MCP_MANIFOLD_PROT": "1", "MCP_MANIFOLD_CONFIG": "x", "MCP_MANIFOLD_LIMITS__MAX_BDY": "1"}
    assert home.load('{"mcpServers": {}}', environ=environ).warnings == (
        "environment: MCP_MANIFOLD_LIMITS__MAX_BDY: unknown variable, ignored; "
        'did you mean "MCP_MANIFOLD_LIMITS__MAX_BODY"?',
        'environment: MCP_MANIFOLD_PROT: unknown variable, ignored; did you mean "MCP_MANIFOLD_PORT"?',
        f'{home.directory}/.env: MCP_MANIFOLD_HSOT: unknown variable, ignored; did you mean "MCP_MANIFOLD_HOST"?',
    )


def test_a_number_without_unit_is_milliseconds_in_every_source_but_python(home: Home) -> None:
    manifold = {"drain": 1500, "listTimeout": "1.5s", "startupTimeout": "1500"}
    found = load_dict({"mcpServers": {}, "manifold": manifold}).manifold
    assert (found.drain, found.list_timeout, found.startup_timeout) == (1.5, 1.5, 1.5)
    assert home.load("{}", flags={"drain": 250}).manifold.drain == 0.25
    assert ManifoldSettings(drain=0.5).drain == 0.5


@pytest.mark.parametrize(
    ("written", "seconds"), [(0, 0.0), ("0", 0.0), ("0s", 0.0), (" 0.0 ms ", 0.0), (1500, 1.5), ("2m", 120.0)]
)
def test_a_zero_duration_is_accepted_where_it_means_never(written: object, seconds: float) -> None:
    found = load_dict({"mcpServers": {"a": {"command": "x", "pingInterval": written}}})
    assert (found.servers[0].ping_interval, found.broken) == (seconds, ())


@pytest.mark.parametrize("written", [-1, "-1s", False, "soon"])
def test_a_duration_that_may_be_zero_refuses_other_values(written: object) -> None:
    with pytest.raises(ConfigError, match="expected a duration"):
        load_dict({"mcpServers": {"a": {"command": "x", "pingInterval": written}}})


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        setattr(ManifoldSettings(), "port", 1)  # noqa: B010  # the type checker refuses the plain way
