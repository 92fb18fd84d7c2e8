"""The written reference names every key there is, and its example works."""

import re
from pathlib import Path

import pytest

from mcp_manifold.config import LimitSettings, ManifoldSettings, ServerSettings
from mcp_manifold.config.dialects import DIALECTS, OWN_KEYS
from mcp_manifold.config.settings import RESERVED
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


def test_the_example_in_the_reference_loads(home: Home) -> None:
    example = re.search(r"```jsonc\n(.*?)```", TEXT, re.DOTALL)
    assert example is not None
    settings = home.load(example[1], environ={"GITHUB_TOKEN": "t"})
    assert [server.name for server in settings.servers] == ["github", "files"]
    assert (settings.broken, settings.warnings) == ((), ())
