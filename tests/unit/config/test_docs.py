"""The configuration reference names every key, its examples load, and the pages state the limits that hold."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from mcp_manifold.backends.calls.breaker import MAX_BACKOFF_FACTOR
from mcp_manifold.backends.http.redirect import MAX_REDIRECTS
from mcp_manifold.backends.http.streams import RESUME_CEILING, STEADY_STREAM
from mcp_manifold.backends.life.monitors import PING_WAIT
from mcp_manifold.backends.link.monitors import FLOOD
from mcp_manifold.backends.process.command import SHELL_WAIT
from mcp_manifold.backends.process.stdio import LINES_A_SECOND, STDERR_A_SECOND
from mcp_manifold.config import LimitSettings, ManifoldSettings, ServerSettings
from mcp_manifold.config.dialects import DIALECTS, OWN_KEYS
from mcp_manifold.config.document import MAX_FILE, MAX_NESTING, PIPE_WAIT, parse_tree
from mcp_manifold.config.load import READ_TIMEOUT
from mcp_manifold.config.settings import RESERVED
from mcp_manifold.config.values import NAME_LENGTH, Value, setting_of
from mcp_manifold.fronts.resumption import KEEP, KEPT_BYTES, KEPT_EVENTS
from mcp_manifold.model.budget import MAX_DEFAULT, MIN_COUNTED
from mcp_manifold.model.lifecycle import FIRST_DELAY, LOOP_DELAY, MAX_DELAY
from mcp_manifold.wire.lines import ENDLESS_LINE
from tests.unit.config.conftest import Home

DOCS = Path(__file__).parents[3] / "docs"
TEXT = (DOCS / "configuration.md").read_text(encoding="utf-8")
LIMITS = {
    "../README.md": (f"at most {NAME_LENGTH} characters",),
    "configuration.md": (
        f"{MAX_FILE >> 20} MiB per file, {MAX_NESTING} levels of nesting, and {READ_TIMEOUT:g} seconds to read",
        f"at most once in {LOOP_DELAY:g} seconds",
        f"doubled after each failure, up to {MAX_BACKOFF_FACTOR} times",
        f"within {SHELL_WAIT:g} seconds at the start",
        f"at most {MAX_DEFAULT >> 30} GiB | all messages over {MIN_COUNTED >> 10} KiB",
    ),
    "observability.md": (f"at most every {LOOP_DELAY:g} s", f"A probe times out after {PING_WAIT:g} seconds"),
    "reliability.md": (
        f"{LINES_A_SECOND:,} messages and {STDERR_A_SECOND >> 20} MiB of stderr a second",
        f"{FLOOD:,} invalid lines a second",
        f"{MAX_FILE >> 20} MiB, and {PIPE_WAIT:g} s for a pipe to deliver",
        f"retried after {FIRST_DELAY:g} s, then less often, at most {MAX_DELAY:g} s apart",
        f"at most every {LOOP_DELAY:g} s",
        f"up to {RESUME_CEILING:g} s, until it brings a message or stays open for {STEADY_STREAM:g} s",
        f"up to {MAX_REDIRECTS} times",
    ),
    "decisions/0017-resumption.md": (f"{KEPT_EVENTS} events and {KEPT_BYTES >> 20} MiB", f"kept for {KEEP:g} s"),
    "decisions/0025-floods-pauses-and-endless-files.md": (
        f"{LINES_A_SECOND:,} messages a second of a child's stdout and {STDERR_A_SECOND >> 20} MiB a second",
        f"{FLOOD:,} of them in a second, or {ENDLESS_LINE >> 20} MiB beyond the limit",
        f"hold at most {MAX_FILE >> 20} MiB. A pipe must deliver within {PIPE_WAIT:g} s",
    ),
}
"""The limits that the pages state as numbers, as they have to state them."""


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


@pytest.mark.parametrize("page", LIMITS)
def test_the_limits_on_the_pages_are_the_ones_that_hold(page: str) -> None:
    text = " ".join((DOCS / page).read_text(encoding="utf-8").split())
    assert [limit for limit in LIMITS[page] if limit not in text] == []
