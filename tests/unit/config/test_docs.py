"""The configuration reference names every key, and its examples load."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from mcp_manifold.config import LimitSettings, ManifoldSettings, ServerSettings
from mcp_manifold.config.dialects import DIALECTS, OWN_KEYS
from mcp_manifold.config.document import parse_tree
from mcp_manifold.config.settings import RESERVED
from mcp_manifold.config.values import Value, setting_of
from tests.unit.config.conftest import Home

TEXT = (Path(__file__).parents[3] / "docs" / "configuration.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "word",
    [
        *(found.alias for model in (ManifoldSettings, LimitSettings) for found in model.model_fields.values()),
        *(found.alias for name, found in ServerSettings.model_fields.items() if name != "name"),
        *(*OWN_KEYS, *(key.name for dialect in DIALECTS for key in dialect.keys), *RESERVED),
    ],
)
def test_every_key_is_in_the_reference(word: str) -> None:
    assert f"`{word}`" in TEXT


@pytest.mark.parametrize("example", re.findall(r"```jsonc?\n(.*?)```", TEXT, re.DOTALL))
def test_every_example_in_the_reference_loads(home: Home, example: str) -> None:
    data: Any = parse_tree(example).data
    if not {"mcpServers", "manifold"} & set(data):  # keys of a server
        data = {"mcpServers": {"it": {"command": "x", **data}}}
    data.setdefault("mcpServers", {name: {"command": "x"} for name in ("files", "github")})
    for file in ("db.env", "token"):
        home.write(file, "A=1")
    text = json.dumps(data).replace("/run/secrets/ci", "token")
    settings = home.load(text, environ={"GITHUB_TOKEN": "t"})
    assert (settings.broken, settings.warnings) == ((), ())


@pytest.mark.parametrize(
    ("model", "reload", "row"),
    [
        (ServerSettings, "live", "of a server | applied at once"),
        (ManifoldSettings, "live", "`watch` | applied at once"),
        (ManifoldSettings, "restart", "not applied"),
    ],
)
def test_the_table_of_reloading_agrees_with_the_settings(model: type[Value], reload: str, row: str) -> None:
    (line,) = [line for line in TEXT.splitlines() if row in line]
    keys = {str(found.alias) for name, found in model.model_fields.items() if setting_of(model, name).reload == reload}
    assert set(re.findall(r"`(\w+)`", line)) == keys - {"tokens"}
