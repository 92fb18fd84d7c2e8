"""Secrets are in the settings, but in no repr, message or traceback."""

import io
import traceback
from pathlib import Path

import pytest

from mcp_manifold.config.diagnostics import Diagnostics
from mcp_manifold.config.document import Document, parse_tree
from mcp_manifold.config.environment import References
from mcp_manifold.config.layers import Layers
from mcp_manifold.errors import ConfigError
from tests.unit.config.conftest import Home

CANARY = "c4n4ry"

EVERYWHERE = """{"manifold": {"tokens": ["c4n4ry-1", {"token": "${TOKEN}", "name": "ci"}]},
  "mcpServers": {
    "a": {"command": "x", "args": ["--key=c4n4ry"], "env": {"A": "c4n4ry", "B": "${TOKEN}"}},
    "b": {"url": "https://u:c4n4ry@b.example.com/?key=c4n4ry", "headers": {"Authorization": "c4n4ry"}}}}"""


def test_secrets_are_in_the_settings_but_in_no_repr_and_no_str(home: Home) -> None:
    settings = home.load(EVERYWHERE, environ={"TOKEN": f"{CANARY}-2", "MCP_MANIFOLD_OTHER": CANARY})
    tokens, server = settings.manifold.tokens, settings.servers[0]
    for value in (settings, settings.manifold, *settings.servers, *tokens, settings.warnings):
        assert CANARY not in repr(value) + str(value)
    assert [token.token.get_secret_value() for token in tokens] == [f"{CANARY}-1", f"{CANARY}-2"]
    assert [token.name for token in tokens] == ["token-1", "ci"]
    assert server.env["B"].get_secret_value() == f"{CANARY}-2"


@pytest.mark.parametrize(
    "text",
    [
        '{"manifold": {"tokens": ["c4n4ry with spaces"]}}', '{"manifold": {"tokens": "c4n4ry"}}',
        '{"manifold": {"tokens": [{"token": "c4n4ry", "token2": 1}]}}',
        '{"manifold": {"tokens": ["c4n4ry", "c4n4ry"]}}', '{"manifold": {"port": "${TOKEN}"}}',
        '{"manifold": {"port": "${FALLBACK:-c4n4ry}"}}', '{"manifold": {"logLevel": "${file:secret}"}}',
        '{"mcpServers": {"a": {"command": "x", "env": {"A": ["c4n4ry"]}}}}',
        '{"mcpServers": {"a": {"command": "x", "env": "c4n4ry"}}}',
        '{"mcpServers": {"a": {"command": "x", "args": "c4n4ry"}}}',
        '{"mcpServers": {"a": {"command": "x", "timeout": "${TOKEN}"}}}', '{"mcpServers": {"a": {"url": "c4n4ry"}}}',
        '{"mcpServers": {"a": {"url": "http://x", "headers": {"A": "c4n4ry\\nX: y"}}}}',
        '{"mcpServers": {"a": {"url": "http://x", "headers": {"A": {"b": "c4n4ry"}}}}}',
        '{"mcpServers": {"a": {"command": "x", "env": {"A": c4n4ry}}}}',
        '{"mcpServers": {"a": {"command": "x", "env": {"A": "c4n4ry}}}}',
        '{"mcpServers": {"a": {"command": "x", "env": {"A": "B": "c4n4ry"}}}}',
    ],
)  # fmt: skip
def test_secrets_are_in_no_error_and_no_traceback(home: Home, text: str) -> None:
    home.write("secret", CANARY)
    with pytest.raises(ConfigError) as caught:
        home.load(text, environ={"TOKEN": CANARY})
    printed = io.StringIO()
    traceback.print_exception(caught.value.with_traceback(None), file=printed)
    assert CANARY not in str(caught.value) + repr(caught.value) + repr(caught.value.problems) + printed.getvalue()


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("TOKENS", ("[c4n4ry", '[{"token": "c4n4ry", "x": 1}]', "c4n4ry x")),
        ("PORT", ("c4n4ry",)),
        ("LIMITS", ("c4n4ry",)),
    ],
)
def test_an_error_names_the_variable_and_not_its_value(home: Home, name: str, values: tuple[str, ...]) -> None:
    for value in values:
        message = home.error("{}", environ={f"MCP_MANIFOLD_{name}": value})
        assert message.startswith(f"MCP_MANIFOLD_{name}")
        assert CANARY not in message


def test_the_repr_of_loading_parts_has_no_values() -> None:
    secret = {"KEY": CANARY}
    document = Document("x", secret)
    layers = Layers(secret, secret, secret, secret, "", Diagnostics(document))
    tree = parse_tree(f'{{"a": "{CANARY}"}}')
    for value in (document, References(secret, Path()), layers, Diagnostics(document), tree):
        assert CANARY not in repr(value)
