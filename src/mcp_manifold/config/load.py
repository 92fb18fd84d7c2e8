"""From a file, or a dict, to `Settings`: reads, expands, validates, and says where it went wrong. Starts nothing."""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dotenv import dotenv_values
from pydantic import ValidationError
from pydantic.alias_generators import to_camel

from mcp_manifold.config.dialects import (
    ROOT_KEYS,
    SERVER_KEYS,
    Misfit,
    by_name,
    misplaced_servers,
    near_root_key,
    settle,
)
from mcp_manifold.config.document import Document, did_you_mean, text_of
from mcp_manifold.config.expand import Unresolved, Variables
from mcp_manifold.config.layers import CONFIG_VARIABLE, Layers
from mcp_manifold.config.locations import candidates, find
from mcp_manifold.config.problems import problems
from mcp_manifold.config.server import RESERVED, ServerSettings
from mcp_manifold.config.settings import BrokenServer, ManifoldSettings, Settings
from mcp_manifold.config.syntax import Loc, Place
from mcp_manifold.config.values import TEXT, name_problem
from mcp_manifold.errors import ConfigError


def load(
    path: Path | None = None,
    *,
    overrides: Mapping[str, object] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Settings:
    """The settings of the file at `path`, or of the one `find` finds.

    `overrides` are flags for the `manifold` object, spelled and with units as in the file; None and () are no flags.

    Raises:
        ConfigError: there is no such file, or something in it, or in the environment, is wrong.
    """
    environ = os.environ if environ is None else environ
    path = _chosen(environ) if path is None else path
    document = Document.read(path)
    dotenv_path = path.parent / ".env"
    dotenv = _dotenv(dotenv_path) if dotenv_path.is_file() else {}
    layers = Layers(overrides or {}, environ, dotenv, {}, str(dotenv_path))
    return _Loading(document, Variables({**dotenv, **environ}, path.parent), layers).settings()


def load_dict(data: Mapping[str, object], *, environ: Mapping[str, str] | None = None) -> Settings:
    """The settings a program brings along, shaped and with units as in the file.

    Variables in it are expanded, but no setting comes from the environment, and no `.env` is read.

    Raises:
        ConfigError: something in it is wrong.
    """
    variables = Variables(os.environ if environ is None else environ, Path())
    return _Loading(Document("<dict>", data), variables, Layers({}, {}, {}, {})).settings()


def _chosen(environ: Mapping[str, str]) -> Path:
    path = find(environ)
    if path is None:
        tried = ", ".join(str(candidate) for candidate in candidates(environ, sys.platform))
        raise ConfigError(f"no configuration file: looked for {tried}; ${CONFIG_VARIABLE} can name another")
    return path


def _dotenv(path: Path) -> dict[str, str]:
    text_of(path)  # says why, if it cannot be read
    found = dotenv_values(path, interpolate=False, encoding="utf-8-sig")
    return {name: value for name, value in found.items() if value is not None}


@dataclass(frozen=True, slots=True)
class _Loading:
    """One configuration on its way to becoming settings."""

    document: Document
    variables: Variables
    layers: Layers = field(repr=False)

    def settings(self) -> Settings:
        notes = self._root()
        servers: list[ServerSettings] = []
        broken: list[BrokenServer] = []
        for loc, entry in self._entries():
            name = str(loc[-1])
            settled, more = self._settled(loc, entry)
            notes += more
            try:
                servers.append(self._server(name, loc, settled))
            except Unresolved as exc:
                place = self.document.place(exc.loc) or Place(0, 0)
                broken.append(BrokenServer(name, exc.reason, place.line, place.column))
        manifold, more = self._manifold()
        self._check_groups(manifold, [*(server.name for server in servers), *(server.name for server in broken)])
        return Settings(
            manifold=manifold,
            servers=tuple(servers),
            broken=tuple(broken),
            source=self.document.path,
            warnings=(*notes, *more),
        )
