"""From a file, or a dict, to `Settings`: finds, reads, expands, validates, says where it went wrong. Starts nothing."""

import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from pydantic import ValidationError

from mcp_manifold.config.dialects import ROOT_KEYS, SERVER_KEYS, Misfit, by_name, misplaced_servers, near_root_key
from mcp_manifold.config.document import Document, did_you_mean, dotenv_of
from mcp_manifold.config.entries import Entries, files_in, read_entries
from mcp_manifold.config.expand import Unresolved, Variables
from mcp_manifold.config.layers import CONFIG_VARIABLE, Layers
from mcp_manifold.config.locations import MAPPING, candidates, find
from mcp_manifold.config.problems import first_of, problems
from mcp_manifold.config.settings import ManifoldSettings, Settings
from mcp_manifold.config.values import TEXT
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
    dotenv = dotenv_of(dotenv_path) if dotenv_path.is_file() else {}
    layers = Layers(overrides or {}, environ, dotenv, {}, str(dotenv_path))
    variables = Variables({**dotenv, **environ}, path.parent)
    settings = _settings(document, variables, layers)
    files = (path, dotenv_path, *files_in(document, variables))
    return settings.model_copy(update={"files": tuple(dict.fromkeys(map(str, files)))})


def load_dict(data: Mapping[str, object], *, environ: Mapping[str, str] | None = None) -> Settings:
    """The settings a program brings along, shaped and with units as in the file.

    References in it are expanded, but no setting comes from the environment, and no `.env` is read.

    Raises:
        ConfigError: something in it is wrong.
    """
    document = Document(MAPPING, data)
    _check_keys(document, data)
    variables = Variables(os.environ if environ is None else environ, Path())
    return _settings(document, variables, Layers({}, {}, {}, {}))


def _settings(document: Document, variables: Variables, layers: Layers) -> Settings:
    notes = _root_notes(document)
    key = next((key for key in SERVER_KEYS if key in document.data), None)
    entries = read_entries(document, variables, key) if key else Entries((), (), ())
    layers = replace(layers, file=_written_manifold(document, variables))
    manifold = _manifold(document, layers)
    _check_groups(document, layers, manifold, entries.names)
    return Settings(
        manifold=manifold,
        servers=entries.servers,
        broken=entries.broken,
        source=document.path,
        warnings=(*notes, *entries.notes, *layers.warnings()),
    )


def _chosen(environ: Mapping[str, str]) -> Path:
    path = find(environ)
    if path is None:
        tried = ", ".join(str(candidate) for candidate in candidates(environ, sys.platform))
        raise ConfigError(f"no configuration file: looked for {tried}; {CONFIG_VARIABLE} can name another")
    return path


def _check_keys(document: Document, data: object) -> None:
    """A dict from Python may have keys no file can have."""
    if isinstance(data, Mapping):
        for key, value in data.items():
            if not isinstance(key, str):
                raise document.error(f"expected only text as keys, got {type(key).__name__}", ())
            _check_keys(document, value)
    elif isinstance(data, list | tuple):
        for value in data:
            _check_keys(document, value)


def _root_notes(document: Document) -> list[str]:
    """What to say about top-level keys of other programs; ours must be spelled right."""
    if all(key in document.data for key in SERVER_KEYS):
        raise document.error('expected either "mcpServers" or "servers", not both', ("servers",), at_key=True)
    has_servers = any(key in document.data for key in SERVER_KEYS)
    strange = "" if has_servers else misplaced_servers(document.data)
    if strange:
        raise document.error('looks like a server; servers belong inside "mcpServers"', (strange,), at_key=True)
    notes = [] if has_servers else [f'{document.path}: there is no "mcpServers", so there is nothing to offer']
    for key in document.data:
        near = "" if key in ROOT_KEYS else near_root_key(key)
        if near:
            raise document.error(f'unknown key "{key}"{near}', (key,), at_key=True)
        if key not in ROOT_KEYS:
            notes.append(document.note(f'the top-level key "{key}" has no meaning here and is ignored', (key,)))
    return notes


def _written_manifold(document: Document, variables: Variables) -> dict[str, object]:
    """What the file says of the endpoint, by field name."""
    written = document.data.get("manifold", {})
    if not isinstance(written, Mapping):
        raise document.error("expected an object in { }", ("manifold",))
    try:
        expanded = {key: variables.expand(value, ("manifold", key)) for key, value in written.items()}
        return by_name(expanded, ManifoldSettings)
    except Unresolved as exc:
        raise document.error(exc.reason, exc.loc) from None
    except Misfit as exc:
        raise document.error(exc.reason, ("manifold", *exc.within, exc.key), at_key=True) from None


def _manifold(document: Document, layers: Layers) -> ManifoldSettings:
    try:
        return ManifoldSettings.model_validate(layers.merged(), context=TEXT)
    except ValidationError as exc:
        found = problems(exc, ManifoldSettings)
        for problem in found:
            culprit = layers.blame(problem.loc)
            if culprit:
                raise ConfigError(f"{culprit}: {problem.reason}") from None
        raise first_of(document, [problem.below(("manifold",)) for problem in found]).error(document) from None


def _check_groups(document: Document, layers: Layers, manifold: ManifoldSettings, names: tuple[str, ...]) -> None:
    for group, members in manifold.groups.items():
        for index, member in enumerate(members):
            if member not in names:
                reason = f'there is no server "{member}"{did_you_mean(member, names)}'
                culprit = layers.blame(("groups", group))
                if culprit:
                    raise ConfigError(f"{culprit}: {reason}")
                raise document.error(reason, ("manifold", "groups", group, index))
