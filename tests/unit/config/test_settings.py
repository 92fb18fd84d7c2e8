"""Every setting says how a reload applies it, and is read by the code that it names (rule D13)."""

import ast
from pathlib import Path

import pytest

import mcp_manifold
from mcp_manifold.config import settings
from mcp_manifold.config.values import Setting, Value, setting_of

ROOT = Path(mcp_manifold.__file__).parent
MODELS = tuple(
    found
    for found in vars(settings).values()
    if isinstance(found, type) and issubclass(found, Value) and found not in (Value, settings.Settings)
)
FIELDS = [(model, name) for model in MODELS for name in model.model_fields]
READ_BY_CONFIG = {"env_file", "remember", "state_dir"}  # settings about files, which only this package reads


def readers(setting: Setting) -> list[Path]:
    """The source files that should read the setting."""
    place = ROOT / setting.used_by
    return sorted(place.rglob("*.py")) if place.is_dir() else [place]


def names_in(file: Path) -> set[str]:
    """The attributes that a file reads, and the texts in it."""
    nodes = list(ast.walk(ast.parse(file.read_text(encoding="utf-8"))))
    attributes = {node.attr for node in nodes if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)}
    return attributes | {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}


@pytest.mark.parametrize(("model", "name"), FIELDS, ids=lambda part: getattr(part, "__name__", part))
def test_the_module_in_its_metadata_reads_the_setting(model: type[Value], name: str) -> None:
    setting = setting_of(model, name)
    assert setting.used_by.startswith("config/") == (name in READ_BY_CONFIG)
    assert any(name in names_in(file) for file in readers(setting)), f"nothing in {setting.used_by} reads {name}"


def test_a_setting_of_a_server_never_needs_a_restart_of_the_program() -> None:
    treatments = {setting_of(settings.ServerSettings, name).reload for name in settings.ServerSettings.model_fields}
    assert treatments == {"live", "restart-server"}
