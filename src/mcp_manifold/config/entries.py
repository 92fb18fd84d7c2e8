"""From the written entries to servers, each on its own: one that lacks a variable or a file breaks no other."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from mcp_manifold.config.dialects import SERVER_KEYS, Misfit, settle
from mcp_manifold.config.document import Document, dotenv_of, field_of
from mcp_manifold.config.expand import Unresolved, Variables
from mcp_manifold.config.problems import first_of, problems
from mcp_manifold.config.server import RESERVED, ServerSettings
from mcp_manifold.config.settings import BrokenServer
from mcp_manifold.config.spans import Loc, SourceSpan
from mcp_manifold.config.values import TEXT, name_problem
from mcp_manifold.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Entries:
    """The servers of one document. `names` are all of them in order, broken ones too."""

    servers: tuple[ServerSettings, ...]
    broken: tuple[BrokenServer, ...]
    notes: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Whatever can be a member of a group."""
        return (*(server.name for server in self.servers), *(server.name for server in self.broken))


def read_entries(document: Document, variables: Variables, key: str) -> Entries:
    """The servers below the top-level `key`.

    Raises:
        ConfigError: an entry is not what it should be.
    """
    servers: list[ServerSettings] = []
    broken: list[BrokenServer] = []
    notes: list[str] = []
    for loc, written in _written(document, key):
        notes += _notes(document, loc, written)
        try:
            servers.append(_server(document, variables, loc, written))
        except Unresolved as exc:
            place = document.place(exc.loc) or SourceSpan(0, 0)
            broken.append(BrokenServer(str(loc[-1]), exc.reason, place.line, place.column))
    return Entries(tuple(servers), tuple(broken), tuple(notes))


def files_in(document: Document, variables: Variables) -> Iterator[Path]:
    """The files beside the document that it is made of: those references are to, and the `envFile` of servers."""
    yield from variables.files(document.data)
    for key in SERVER_KEYS:
        entries = document.data.get(key)
        for written in entries.values() if isinstance(entries, Mapping) else ():
            yield from _env_files(written, variables)


def _env_files(written: object, variables: Variables) -> Iterator[Path]:
    for key, value in written.items() if isinstance(written, Mapping) else ():
        if field_of(key) == "env_file" and isinstance(value, str):
            with suppress(Unresolved):  # then the server is broken, and says so
                yield variables.path(str(variables.expand(value)))


def _written(document: Document, key: str) -> Iterator[tuple[Loc, Mapping[str, object]]]:
    entries = document.data[key]
    if not isinstance(entries, Mapping):
        raise document.error("expected an object with a server per key", (key,))
    spelled: dict[str, str] = {}
    for name, written in entries.items():
        loc = (key, name)
        reason = name_problem(name)
        if name in RESERVED:
            reason = f'"{name}" cannot name a server: /{name} is an endpoint of its own'
        other = spelled.setdefault(name.lower(), name)
        if other != name:
            reason = (
                f'"{name}" differs from server "{other}" by case only: in the URI {name.lower()}+... they are the same'
            )
        if reason:
            raise document.error(reason, loc, at_key=True)
        if not isinstance(written, Mapping):
            raise document.error("expected an object in { }", loc, server=name)
        yield loc, written


def _notes(document: Document, loc: Loc, written: Mapping[str, object]) -> list[str]:
    """What to say about keys without effect; also where an entry's keys are judged, before any value is looked up."""
    try:
        notes = settle(written).notes
    except Misfit as exc:
        raise _misfit(document, loc, exc) from None
    return [document.note(f'server "{loc[-1]}": {text}', (*loc, key)) for key, text in notes]


def _server(document: Document, variables: Variables, loc: Loc, written: Mapping[str, object]) -> ServerSettings:
    name = str(loc[-1])
    is_disabled = settle(written).data.get("disabled") is True
    try:
        data = settle(_expanded(variables, loc, written, is_disabled=is_disabled)).data
    except Misfit as exc:
        raise _misfit(document, loc, exc) from None
    complete = data if is_disabled else _with_env_file(data, variables, loc)
    try:
        return ServerSettings.model_validate({**complete, "name": name}, context=TEXT)
    except ValidationError as exc:
        found = first_of(document, [problem.below(loc) for problem in problems(exc, ServerSettings)])
        raise found.error(document, server=name) from None


def _misfit(document: Document, loc: Loc, misfit: Misfit) -> ConfigError:
    return document.error(misfit.reason, (*loc, misfit.key), at_key=True, server=str(loc[-1]))


def _expanded(
    variables: Variables, loc: Loc, written: Mapping[str, object], *, is_disabled: bool
) -> Mapping[str, object]:
    """The entry with its references replaced. Of a disabled server, what cannot be replaced is left out."""
    out: dict[str, object] = {}
    for key, value in written.items():
        try:
            out[key] = variables.expand(value, (*loc, key))
        except Unresolved:
            if not is_disabled or field_of(key) in ("command", "url"):
                raise
    return out


def _with_env_file(data: Mapping[str, object], variables: Variables, loc: Loc) -> Mapping[str, object]:
    """The entry with the variables of its `envFile` below those of its `env`."""
    text, env = data.get("env_file"), data.get("env") or {}
    if not isinstance(text, str) or not isinstance(env, Mapping):
        return data
    path = variables.path(text)
    try:
        return {**data, "env_file": str(path), "env": {**dotenv_of(path), **env}}
    except ConfigError as exc:
        raise Unresolved(f'the envFile "{text}" {exc.reason}', (*loc, "env_file")) from None
