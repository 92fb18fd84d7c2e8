"""A directory with a configuration file, and ways to load it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mcp_manifold.config import ServerSettings, Settings, load
from mcp_manifold.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Home:
    """A directory with a configuration file; the process environment is not used."""

    directory: Path

    @property
    def file(self) -> Path:
        return self.directory / "manifold.json"

    def write(self, name: str, text: str) -> Path:
        path = self.directory / name
        path.write_text(text, encoding="utf-8")
        return path

    def load(
        self, text: str, *, environ: Mapping[str, str] | None = None, flags: Mapping[str, object] | None = None
    ) -> Settings:
        self.write(self.file.name, text)
        return load(self.file, environ=environ or {}, overrides=flags)

    def server(self, entry: str, *, environ: Mapping[str, str] | None = None) -> ServerSettings:
        """The only server, loaded from the text of its entry."""
        settings = self.load(f'{{"mcpServers": {{"it": {entry}}}}}', environ=environ)
        assert settings.broken == ()
        return settings.servers[0]

    def error(self, text: str, **sources: Any) -> str:
        """What is wrong with a configuration, or with some of its servers, without the directory."""
        try:
            problems = self.load(text, **sources).problems
        except ConfigError as exc:
            problems = exc.problems
        faults = [str(problem) for problem in problems if problem.severity != "warning"]
        assert faults, "nothing is wrong"
        return "\n".join(faults).replace(f"{self.directory}/", "")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)
