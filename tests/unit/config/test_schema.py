"""The published schema is current, and accepts the files that loading accepts."""

import json
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from mcp_manifold.config import LimitSettings, ManifoldSettings, ServerSettings, json_schema
from mcp_manifold.config.document import parse_tree
from tests.unit.config import test_server_entries as samples
from tests.unit.config.conftest import Home

ROOT = Path(__file__).parents[3]
PUBLISHED = ROOT / "docs" / "config.schema.json"


def judge(text: str) -> bool:
    return bool(Draft202012Validator(json_schema()).is_valid(parse_tree(text).data))


def test_the_published_schema_is_current() -> None:
    """`python -m tests.unit.config.test_schema` publishes it."""
    assert PUBLISHED.read_text(encoding="utf-8") == published()


def published() -> str:
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"


def test_the_schema_is_valid() -> None:
    Draft202012Validator.check_schema(json_schema())


def test_every_key_is_described() -> None:
    definitions = json_schema()["$defs"]
    for name, definition in definitions.items():
        for key, found in definition["properties"].items():
            assert found.get("description"), f"{name}.{key}"


@pytest.mark.parametrize("model", [ServerSettings, ManifoldSettings, LimitSettings])
def test_the_schema_has_every_setting_in_both_spellings(model: type[ServerSettings]) -> None:
    keys = json_schema()["$defs"][model.__name__]["properties"]
    fields = {
        name: found.alias for name, found in model.model_fields.items() if (model, name) != (ServerSettings, "name")
    }
    assert set(fields) | set(fields.values()) <= set(keys)


@pytest.mark.parametrize(
    "text",
    [
        samples.CLAUDE_DESKTOP, samples.CLAUDE_CODE, samples.CURSOR, samples.VS_CODE, samples.WINDSURF,
        (ROOT / "config.example.json").read_text(encoding="utf-8"), "{}",
        '{"manifold": {"port": "${PORT}", "drain": 500, "tokens": ["a", {"token": "b", "name": "c"}]}}',
        '{"manifold": {"limits": {"maxBody": 1, "session_idle": "30m"}, "groups": {"g": []}, "logLevel": "debug"}}',
        '{"mcpServers": {"a": {"command": "x", "env": {"A": 1}, "timeout": "${T}", "disabled": "${D}"}}}',
        '{"mcpServers": {"a": {"url": "http://a", "transportType": "streamableHttp", "prefix": "", "tools": ["*"]}}}',
    ],
)  # fmt: skip
def test_valid_files_are_valid(home: Home, text: str) -> None:
    assert judge(text)
    home.write("git.env", "")
    home.load(text, environ={"PORT": "1", "T": "1s", "D": "no"})


@pytest.mark.parametrize(
    "text",
    [
        "[]", '{"mcpServers": []}', '{"mcpServers": {}, "servers": {}}', '{"mcpServers": {"a": {}}}',
        '{"mcpServers": {"a/b": {"command": "x"}}}', '{"mcpServers": {"a": {"command": "x", "url": "http://a"}}}',
        '{"mcpServers": {"a": {"command": "x", "tiemout": 1}}}',
        '{"mcpServers": {"a": {"command": "x", "timeout": "soon"}}}',
        '{"mcpServers": {"a": {"command": "x", "timeout": 0}}}',
        '{"mcpServers": {"a": {"command": "x", "type": "pigeon"}}}',
        '{"mcpServers": {"a": {"command": "x", "env": {"A": []}}}}',
        '{"mcpServers": {"a": {"command": "x", "era": "ancient"}}}',
        '{"mcpServers": {"a": {"command": "x", "overrides": {"tools": {"t": {}}}}}}', '{"manifold": {"prot": 1}}',
        '{"manifold": {"port": 70000}}', '{"manifold": {"port": "many"}}', '{"manifold": {"separator": "/"}}',
        '{"manifold": {"limits": {"maxBody": 0}}}', '{"manifold": {"tokens": [{"name": "a"}]}}',
    ],
)  # fmt: skip
def test_the_schema_refuses_what_loading_refuses(home: Home, text: str) -> None:
    assert not judge(text)
    assert home.error(text)


if __name__ == "__main__":
    PUBLISHED.write_text(published(), encoding="utf-8")
