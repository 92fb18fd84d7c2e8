"""References in texts: their values, and the reports of unresolved ones."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_manifold.config.environment import References
from tests.unit.config.conftest import Home

VALUES = {"USER": "ada", "EMPTY": "", "NESTED": "${USER}"}


def expanded(data: object) -> tuple[object, list[str]]:
    """The data with references resolved, and why some are not."""
    reasons: list[str] = []
    return References(VALUES, Path()).expand(data, (), lambda reason, _: reasons.append(reason)), reasons


@pytest.mark.parametrize(
    ("text", "becomes"),
    [
        ("${USER}", "ada"),
        ("<${USER}/${USER}>", "<ada/ada>"),
        ("${env:USER}", "ada"),
        ("${USER:-bob}", "ada"),
        ("${MISSING:-bob}", "bob"),
        ("${MISSING:-}", ""),
        ("${MISSING:-a:-b}", "a:-b"),
        ("${env:MISSING:-bob}", "bob"),
        ("${EMPTY}", ""),
        ("${EMPTY:-bob}", "bob"),
        ("${NESTED}", "${USER}"),
        ("$${USER}", "${USER}"),
        ("$USER and pa$$word and $", "$USER and pa$$word and $"),
    ],
)
def test_a_reference_is_replaced_and_nothing_else_changes(text: str, becomes: str) -> None:
    assert expanded(text) == (becomes, [])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("${MISSING}", 'the variable "MISSING" is not set'),
        ("${env:MISSING}", 'the variable "MISSING" is not set'),
        ("${USER", 'a "${" is not closed'),
        ("${}", "a reference names no variable"),
        ("${a b}", "a reference names no variable"),
        ("${input:key}", '"${input:...}" is not known'),
        ("${A:-${B}}", 'the default of "A" must not be a reference itself'),
        ("${file:absent}", 'the file "absent" cannot be read: No such file or directory'),
        ("${file:a\0b}", "cannot be read as UTF-8 text"),
    ],
)
def test_an_unresolved_reference_is_reported_with_the_reason(text: str, reason: str) -> None:
    data, (found,) = expanded(text)
    assert data == text
    assert reason in found


@given(st.recursive(st.text(alphabet="ab$ }"), lambda inner: st.lists(inner) | st.dictionaries(st.text("k${}"), inner)))
def test_data_without_references_stays_as_it_is(data: object) -> None:
    assert expanded(data) == (data, [])
    nested = {"${USER}": [{"a": ("${USER}", 1, None, True)}]}
    assert expanded(nested)[0] == {"${USER}": [{"a": ["ada", 1, None, True]}]}, "keys are not expanded"


def test_a_file_is_read_beside_the_configuration_without_its_last_line_end(home: Home) -> None:
    home.write("token", "one\ntwo\n\n")
    home.write("dos", "one\r\n")
    env = home.server('{"command": "x", "env": {"A": "${file:token}", "B": "${file:./dos}"}}').env
    assert (env["A"].get_secret_value(), env["B"].get_secret_value()) == ("one\ntwo\n", "one")


def test_variables_come_from_the_process_and_from_the_env_file_beside_and_the_process_wins(home: Home) -> None:
    home.write(".env", "ONE=dotenv\nTWO=dotenv\n# comment\nexport THREE='a $ONE b'\n")
    entry = '{"command": "x", "args": ["${ONE}", "${TWO}", "${THREE}"]}'
    assert home.server(entry, environ={"ONE": "process"}).args == ("process", "dotenv", "a $ONE b")


@pytest.mark.parametrize(
    ("entry", "reason", "column"),
    [
        ('{"url": "http://a", "headers": {"X": "${NOPE}"}}', 'the variable "NOPE" is not set', 45),
        ('{"command": "${file:blob}"}', 'the file "blob" cannot be read as UTF-8 text', 20),
        ('{"command": "x", "envFile": "no.env"}', 'the envFile "no.env" cannot be read: No such file or directory', 36),
    ],
)
def test_an_unresolved_reference_breaks_only_its_server(home: Home, entry: str, reason: str, column: int) -> None:
    (home.directory / "blob").write_bytes(b"\xff\xfe\x00")
    settings = home.load(f'{{"mcpServers": {{\n  "a": {entry},\n  "b": {{"command": "y"}}}}}}')
    assert [server.name for server in settings.servers] == ["b"]
    (broken,) = settings.broken
    assert (broken.name, broken.reason, broken.line, broken.column) == ("a", reason, 2, column)


def test_an_unset_variable_in_the_endpoints_own_settings_is_an_error(home: Home) -> None:
    text = '{"manifold": {\n  "tokens": ["${NOPE}"]}}'
    assert home.error(text) == 'manifold.json:2:14: manifold.tokens[0]: the variable "NOPE" is not set'


def test_a_disabled_server_needs_no_variable_and_no_file(home: Home) -> None:
    server = home.server('{"command": "x", "env": {"A": "${NOPE}"}, "envFile": "absent", "disabled": true}')
    assert server.disabled
    assert server.env == {}


def test_booleans_and_numbers_can_be_references(home: Home) -> None:
    environ = {"ON": "true", "WAIT": "90s", "PORT": "99"}
    text = """{"manifold": {"port": "${PORT}", "insecure": "${ON}"},
               "mcpServers": {"a": {"command": "x", "enabled": "${ON}", "timeout": "${WAIT}"}}}"""
    settings = home.load(text, environ=environ)
    assert (settings.manifold.port, settings.manifold.insecure) == (99, True)
    assert (settings.servers[0].disabled, settings.servers[0].timeout) == (False, 90.0)


def test_env_wins_over_the_env_file(home: Home) -> None:
    home.write("server.env", "A=file\nB=file\nEMPTY\n")
    server = home.server('{"command": "x", "envFile": "server.env", "env": {"B": "env"}}')
    assert {name: value.get_secret_value() for name, value in server.env.items()} == {"A": "file", "B": "env"}
    assert server.env_file == str(home.directory / "server.env")
