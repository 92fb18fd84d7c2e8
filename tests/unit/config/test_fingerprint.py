"""The fingerprint of a server: it depends on the definition, not on name or treatment."""

from typing import Any

import pytest

from mcp_manifold.config import ServerSettings
from mcp_manifold.config.compare import fingerprint

SECRET = "correct-horse-battery-staple"
PROGRAM: dict[str, Any] = {"name": "a", "command": "x", "args": ["1", "2"], "env": {"K": SECRET}, "cwd": "/"}
ADDRESS: dict[str, Any] = {"name": "a", "url": "https://a.example/mcp", "headers": {"Authorization": SECRET}}


def print_of(base: dict[str, Any], **change: Any) -> str:
    return fingerprint(ServerSettings.model_validate({**base, **change}))


@pytest.mark.parametrize(
    ("base", "change"),
    [
        (PROGRAM, {"command": "y"}),
        (PROGRAM, {"args": ["12"]}),
        (PROGRAM, {"args": ["1", "2", ""]}),
        (PROGRAM, {"env": {"K": "other"}}),
        (PROGRAM, {"env": {}}),
        (PROGRAM, {"cwd": "/tmp"}),
        (PROGRAM, {"era": "modern"}),
        (ADDRESS, {"url": "https://a.example/mcp2"}),
        (ADDRESS, {"headers": {"Authorization": "other"}}),
        (ADDRESS, {"transport": "sse"}),
    ],
)
def test_the_fingerprint_changes_with_the_definition(base: dict[str, Any], change: dict[str, Any]) -> None:
    assert print_of(base, **change) != print_of(base)


@pytest.mark.parametrize(
    "change",
    [
        {"name": "b"},
        {"timeout": 5.0},
        {"start": "lazy"},
        {"prefix": "p"},
        {"tools": {"allow": ["x"]}},
        {"required": True},
        {"breaker": {"failures": 1}},
    ],
)
def test_the_fingerprint_ignores_name_presentation_and_treatment(change: dict[str, Any]) -> None:
    assert print_of(PROGRAM, **change) == print_of(PROGRAM)


def test_the_fingerprint_ignores_the_order_of_variables() -> None:
    assert print_of(PROGRAM, env={"A": "1", "B": "2"}) == print_of(PROGRAM, env={"B": "2", "A": "1"})


def test_the_fingerprint_is_a_file_name_without_secrets() -> None:
    found = print_of(PROGRAM)
    assert found.isalnum()
    assert len(found) == 40
    assert SECRET not in found


def test_any_text_has_a_fingerprint() -> None:
    assert print_of(PROGRAM, args=["\udce4", "\n", "\x7f"])
