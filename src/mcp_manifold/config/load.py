"""The pipeline from a file or a mapping to `Settings`: read, translate, expand, validate. Starts nothing.

Every stage reports its problems to one `Diagnostics` and goes on, so that a user sees all of them at once.
"""

import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Final

from pydantic import BaseModel, ValidationError

from mcp_manifold.config.diagnostics import Diagnostics
from mcp_manifold.config.dialects import (
    IGNORED,
    ROOT_KEYS,
    SERVER_KEYS,
    Dialect,
    Loc,
    ServerEntry,
    by_field,
    counts_seconds,
    dialect_of,
    field_of,
    misplaced_servers,
    other_notation,
    remedy_for,
    server_keys,
    servers_of,
    suggestion,
)
from mcp_manifold.config.document import (
    CONFIG_VARIABLE,
    Document,
    SourceSpan,
    candidates,
    find,
    parse_tree,
    read_dotenv,
    read_text,
)
from mcp_manifold.config.environment import (
    References,
    ReportUnresolved,
    is_open_to_all,
    own_variables,
    unknown_variables,
    words_of,
)
from mcp_manifold.config.settings import RESERVED, BrokenServer, ManifoldSettings, ServerSettings, Settings
from mcp_manifold.config.values import TEXT, bare_number, durations, name_problem
from mcp_manifold.errors import ConfigError, ConfigProblem

_SECRET: Final = re.compile(r"tokens?$|secret|passw|api.?key|auth|credential|private.?key|_pat$", re.IGNORECASE)
"""The keys of secrets: in `env`, `headers` and `manifold`."""
MAPPING: Final = "<dict>"
"""The source of settings that did not come from a file."""
SUSPICIOUS: Final = 1000
"""A duration below this, without a unit, may be meant in seconds."""
READ_TIMEOUT: Final = 30.0
"""Seconds to read a configuration. A file system that does not answer would otherwise hang a start or a reload."""


def load(
    path: Path | None = None,
    *,
    overrides: Mapping[str, object] | None = None,
    environ: Mapping[str, str] | None = None,
    timeout: float = READ_TIMEOUT,
) -> Settings:
    """The settings of the file at `path`, or of the one that `find` finds.

    Args:
        overrides: flags for the `manifold` object, spelled and with units as in the file; None and () are no flags.
        timeout: seconds to read all files.

    Raises:
        ConfigError: there is no such file, or the configuration has errors; it carries all problems.
    """
    reading = begin_load(path, overrides=overrides, environ=environ)
    try:
        return reading.result(timeout)
    except TimeoutError:
        raise given_up(path, timeout) from None


def begin_load(
    path: Path | None = None,
    *,
    overrides: Mapping[str, object] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Future[Settings]:
    """Start a thread that does what `load` does. The thread blocks neither the caller nor the end of the program."""
    reading: Future[Settings] = Future()
    reading.set_running_or_notify_cancel()
    work = partial(_read, path, overrides or {}, os.environ if environ is None else environ)
    Thread(target=_complete, args=(reading, work), name="configuration", daemon=True).start()
    return reading


def given_up(path: Path | str | None, seconds: float) -> ConfigError:
    """The error to raise for a configuration that took too long to read."""
    file = path or "the file"
    return ConfigError(
        f"configuration: reading {file} was given up after {seconds:g} s; check its size and its file system"
    )


def load_dict(data: Mapping[str, object], *, environ: Mapping[str, str] | None = None) -> Settings:
    """The settings in a mapping, which has the shape and the units of the file.

    References in it are expanded, but no setting comes from the environment, and no `.env` is read.

    Raises:
        ConfigError: the configuration has errors; it carries all problems.
    """
    document = Document(MAPPING, data)
    diagnostics = Diagnostics(document)
    _check_keys(data, diagnostics)
    diagnostics.check()
    references = References(os.environ if environ is None else environ, Path())
    return _Loading(document, references, diagnostics).settings({}, {}, {})


def _complete(reading: Future[Settings], work: Callable[[], Settings]) -> None:
    try:
        reading.set_result(work())
    except BaseException as exc:  # noqa: BLE001 - the thread's boundary: the waiting caller gets it
        reading.set_exception(exc)


def _read(path: Path | None, flags: Mapping[str, object], environ: Mapping[str, str]) -> Settings:
    path = _chosen(environ) if path is None else path
    text = read_text(path)
    tree = parse_tree(text)
    document = Document(str(path), tree.data if isinstance(tree.data, Mapping) else {}, tree.places)
    diagnostics = Diagnostics(document)
    notation = other_notation(text) if tree.faults else ""
    if notation:
        diagnostics.fault(f"this is {notation}; write it as JSON (comments are allowed)", SourceSpan(1, 1))
    for what, place in () if notation else tree.faults:
        diagnostics.fault(what, place)
    if not isinstance(tree.data, Mapping):
        if not tree.faults:
            diagnostics.error('expected an object such as {"mcpServers": {}}', ())
        diagnostics.check()
    dotenv_path = path.parent / ".env"
    dotenv = read_dotenv(dotenv_path) if dotenv_path.is_file() else {}
    for file, values in (("environment", environ), (str(dotenv_path), dotenv)):
        for name, remedy in unknown_variables(values):
            diagnostics.elsewhere("unknown variable, ignored", name, remedy=remedy, file=file, severity="warning")
    loading = _Loading(document, References({**dotenv, **environ}, path.parent), diagnostics)
    for readable in (at for at, values in ((path, document.data), (dotenv_path, {**dotenv})) if holds_secrets(values)):
        if is_open_to_all(readable):
            what, remedy = "every user of this machine can read the secrets in it", f"run: chmod 600 {readable}"
            diagnostics.elsewhere(what, "", remedy=remedy, file=str(readable), severity="warning")
    settings = loading.settings(flags, environ, dotenv, str(dotenv_path))
    files = (path, dotenv_path, *loading.files())
    return settings.model_copy(update={"files": tuple(dict.fromkeys(map(str, files)))})


def _chosen(environ: Mapping[str, str]) -> Path:
    path = find(environ)
    if path is None:
        tried = ", ".join(str(candidate) for candidate in candidates(environ, sys.platform))
        raise ConfigError(f"no configuration file: looked for {tried}; {CONFIG_VARIABLE} can name another")
    return path


def holds_secrets(data: object, key: str = "") -> bool:
    """Whether the value of a key holds a secret itself, not only references to secrets."""
    if isinstance(data, Mapping):
        return any(holds_secrets(value, str(below)) for below, value in data.items())
    if isinstance(data, list | tuple):
        return any(holds_secrets(value, key) for value in data)
    return isinstance(data, str) and data != "" and "${" not in data and _SECRET.search(key) is not None


def _check_keys(data: object, diagnostics: Diagnostics) -> None:
    """Report keys that are not text; only a mapping from Python can have them."""
    if isinstance(data, Mapping):
        for key, value in data.items():
            if not isinstance(key, str):
                diagnostics.error(f"expected only text as keys, got {type(key).__name__}", ())
            _check_keys(value, diagnostics)
    elif isinstance(data, list | tuple):
        for value in data:
            _check_keys(value, diagnostics)


class _Loading:
    """One document on its way to settings."""

    def __init__(self, document: Document, references: References, diagnostics: Diagnostics) -> None:
        self._document = document
        self._references = references
        self._diagnostics = diagnostics
        self._dialect = dialect_of(document.data)
        self._servers: list[ServerSettings] = []
        self._names: list[str] = []
        self._counts_seconds = False

    def __repr__(self) -> str:
        return f"<_Loading {self._document.path} {len(self._names)} servers>"

    def settings(
        self, flags: Mapping[str, object], environ: Mapping[str, str], dotenv: Mapping[str, str], dotenv_path: str = ""
    ) -> Settings:
        """The settings of the document and of the other layers. Raises ConfigError with all problems."""
        self._check_root()
        if self._dialect is not None:
            for loc, written in self._entries(self._dialect):
                self._read_server(loc, written, self._dialect)
        manifold = self._manifold(flags, environ, dotenv, dotenv_path)
        self._diagnostics.check(has_servers=any(not server.disabled for server in self._servers))
        return Settings(
            manifold=manifold,
            servers=tuple(self._servers),
            broken=tuple(map(self._broken, self._diagnostics.unusable.values())),
            order=tuple(self._names),
            source=self._document.path,
            problems=self._diagnostics.problems,
        )

    def files(self) -> Iterator[Path]:
        """The files that the document names in `${file:...}` or `envFile`."""
        yield from self._references.files(self._document.data)
        entries = servers_of(self._document.data, self._dialect) if self._dialect else None
        for written in entries.values() if isinstance(entries, Mapping) else ():
            for key, value in written.items() if isinstance(written, Mapping) else ():
                if field_of(key) == "env_file" and isinstance(value, str):
                    text = self._references.resolved(value)
                    if text is not None:
                        yield self._references.path(text)

    def _check_root(self) -> None:
        """Report top-level keys: ours must be spelled right, those of other programs are ignored."""
        data, report = self._document.data, self._diagnostics
        if all(key in data for key in SERVER_KEYS):
            report.error('expected either "mcpServers" or "servers", not both', ("servers",), at_key=True)
        misplaced = [] if self._dialect else list(misplaced_servers(data))
        for key in misplaced:
            report.error('looks like a server; servers belong inside "mcpServers"', (key,), at_key=True)
        if not self._dialect and not misplaced:
            report.warning('there is no "mcpServers", so there is nothing to offer')
        for key in data:
            near = "" if key in ROOT_KEYS else suggestion(key, ROOT_KEYS, cutoff=0.85)
            if near:
                report.error(f'unknown key "{key}"', (key,), at_key=True, remedy=near)
            elif key not in ROOT_KEYS and key not in misplaced:
                report.warning(IGNORED, (key,))

    def _entries(self, dialect: Dialect) -> Iterator[tuple[Loc, Mapping[str, object]]]:
        """The server entries whose names and shapes are right."""
        entries = servers_of(self._document.data, dialect)
        if not isinstance(entries, Mapping):
            self._diagnostics.error("expected an object with a server per key", dialect.servers)
            return
        self._names = list(entries)
        self._counts_seconds = counts_seconds(entries)
        spelled: dict[str, str] = {}
        for name, written in entries.items():
            loc = (*dialect.servers, name)
            reason = name_problem(name)
            if name in RESERVED:
                reason = f'"{name}" cannot name a server: /{name} is an endpoint of its own'
            other = spelled.setdefault(name.lower(), name)
            if other != name:
                uri = f"{name.lower()}+..."
                reason = f'"{name}" differs from server "{other}" by case only: in the URI {uri} they are the same'
            if reason:
                self._diagnostics.error(reason, loc, at_key=True, server=name)
            elif not isinstance(written, Mapping):
                self._diagnostics.error("expected an object in { }", loc, server=name)
            else:
                yield loc, written

    def _read_server(self, loc: Loc, written: Mapping[str, object], dialect: Dialect) -> None:
        """Read one entry. One with faults or unresolved references is broken, and breaks no other."""
        name = str(loc[-1])
        unresolved: list[tuple[str, Loc]] = []

        def report(reason: str, at: Loc, /) -> None:
            unresolved.append((reason, at))

        entry = ServerEntry(
            {key: self._references.expand(value, (*loc, key), report) for key, value in written.items()}, dialect
        )
        self._report_keys(loc, entry, dialect)
        lost = {field_of(str(at[len(loc)])) for _, at in unresolved}
        data = {key: value for key, value in entry.data.items() if key not in lost}
        if ServerEntry(written, dialect).data.get("disabled") is True:  # it is never started
            unresolved = [each for each in unresolved if field_of(str(each[1][len(loc)])) in ("command", "url")]
        else:
            data |= self._from_env_file(data, loc, report)
        for reason, at in unresolved:
            self._diagnostics.unresolved(reason, at, server=name)
        data |= self._command_line(data, loc)
        data |= self._durations(data, ServerSettings, loc)
        try:
            server = ServerSettings.model_validate({**data, "name": name}, context=TEXT)
        except ValidationError as exc:
            is_whole = entry.is_sound and not unresolved
            self._diagnostics.invalid(exc, ServerSettings, loc, is_whole=is_whole, server=name)
        else:
            if name not in self._diagnostics.unusable:
                self._servers.append(server)

    def _broken(self, problem: ConfigProblem) -> BrokenServer:
        reason = f"{problem.what}; {problem.remedy}" if problem.remedy else problem.what
        is_faulty = problem.server in self._diagnostics.faulty
        return BrokenServer(problem.server, reason, problem.line, problem.column, is_faulty)

    def _report_keys(self, loc: Loc, entry: ServerEntry, dialect: Dialect) -> None:
        name = str(loc[-1])
        for key in entry.unknown:
            remedy = "" if self._diagnostics.is_full else remedy_for(key, server_keys(dialect))
            self._diagnostics.error(f'unknown key "{key}"', (*loc, key), at_key=True, remedy=remedy, server=name)
        for key, reason in entry.problems:
            self._diagnostics.error(reason, (*loc, key), at_key=True, server=name)
        for key, note in entry.notes:
            what, _, remedy = note.partition("; ")
            self._diagnostics.warning(what, (*loc, key), remedy=remedy, server=name)

    def _command_line(self, data: Mapping[str, object], loc: Loc) -> dict[str, object]:
        """The `command` and `args` of an entry whose `command` is a whole command line."""
        command, args = data.get("command"), data.get("args") or []
        if not isinstance(command, str) or not isinstance(args, list):
            return {}
        program, *first = words_of(command)
        if not first:
            return {}
        what = f"a command line: read as a program and {len(first)} of its arguments"
        self._diagnostics.warning(what, (*loc, "command"), remedy='write the arguments in "args"', server=str(loc[-1]))
        return {"command": program, "args": [*first, *args]}

    def _durations(self, data: Mapping[str, object], model: type[BaseModel], loc: Loc) -> dict[str, object]:
        """The durations of a server, or of the endpoint, that are in seconds. Warns of those that may be meant so."""
        found: dict[str, object] = {}
        for field in durations(model) & data.keys():
            number = bare_number(data[field])
            if number is None or not 0 < number < SUSPICIOUS:
                continue
            in_seconds = f"{number:g}s"
            if field == "timeout" and model is ServerSettings and self._counts_seconds:
                found[field] = in_seconds
                what, remedy = f"read as {number:g} seconds, as in the client of this entry", f'write "{in_seconds}"'
            else:
                what, remedy = f"{number:g} milliseconds", f'if seconds are meant, write "{in_seconds}"'
            self._diagnostics.warning(what, (*loc, field), remedy=remedy, server=str(loc[1]) if len(loc) > 1 else "")
        return found

    def _from_env_file(self, data: Mapping[str, object], loc: Loc, report: ReportUnresolved) -> dict[str, object]:
        """The settings `env_file` and `env` of a server, with the variables of the file below those of `env`."""
        text, env = data.get("env_file"), data.get("env") or {}
        if not isinstance(text, str) or not isinstance(env, Mapping):
            return {}
        path = self._references.path(text)
        try:
            return {"env_file": str(path), "env": {**read_dotenv(path), **env}}
        except ConfigError as exc:
            report(f'the envFile "{text}" {exc.reason}', (*loc, "env_file"))
            return {}

    def _manifold(
        self, flags: Mapping[str, object], environ: Mapping[str, str], dotenv: Mapping[str, str], dotenv_path: str
    ) -> ManifoldSettings:
        """The endpoint's settings; invalid ones are reported, and have their defaults."""
        file, given = self._file_layer(), self._flag_layer(flags)
        merged, blame = file, lambda _: ""
        if given or own_variables(environ) or own_variables(dotenv):
            from mcp_manifold.config.layers import Layers  # noqa: PLC0415 - takes long to import, and is rarely needed

            layers = Layers(given, environ, dotenv, file, dotenv_path, self._diagnostics)
            merged, blame = layers.merged(), layers.blame
        try:
            manifold = ManifoldSettings.model_validate(merged, context=TEXT)
        except ValidationError as exc:
            self._diagnostics.invalid(exc, ManifoldSettings, ("manifold",), is_whole=True, blame=blame)
            wrong = {found["loc"][0] for found in exc.errors(include_url=False, include_input=False)}
            right = {key: value for key, value in merged.items() if key not in wrong}
            manifold = ManifoldSettings.model_validate(right, context=TEXT)
        self._check_groups(manifold, blame)
        return manifold

    def _file_layer(self) -> dict[str, object]:
        """The `manifold` object by field name; keys with unresolved references are left out."""
        written = self._document.data.get("manifold", {})
        if not isinstance(written, Mapping):
            self._diagnostics.error("expected an object in { }", ("manifold",))
            return {}
        out: dict[str, object] = {}
        lost: list[str | int] = []

        def report(reason: str, at: Loc, /) -> None:
            lost.append(at[1])
            self._diagnostics.error(reason, at)

        for key, value in written.items():
            out[key] = self._references.expand(value, ("manifold", key), report)
        known = {key: value for key, value in out.items() if key not in lost}
        found = by_field(known, ManifoldSettings, self._given_twice)
        self._durations(found, ManifoldSettings, ("manifold",))
        return found

    def _given_twice(self, loc: Loc) -> None:
        self._diagnostics.error("the setting is given twice, in two spellings", ("manifold", *loc), at_key=True)

    def _flag_layer(self, flags: Mapping[str, object]) -> dict[str, object]:
        def twice(loc: Loc) -> None:
            self._diagnostics.elsewhere("the setting is given twice, in two spellings", f"--{loc[-1]}")

        given = {key: value for key, value in flags.items() if value not in (None, ())}
        return by_field(given, ManifoldSettings, twice)

    def _check_groups(self, manifold: ManifoldSettings, blame: Callable[[Loc], str]) -> None:
        for group, members in manifold.groups.items():
            for index, member in enumerate(members):
                if member in self._names:
                    continue
                what, remedy = f'there is no server "{member}"', suggestion(member, self._names)
                culprit = blame(("groups", group))
                if culprit:
                    self._diagnostics.elsewhere(what, culprit, remedy=remedy)
                else:
                    self._diagnostics.error(what, ("manifold", "groups", group, index), remedy=remedy)
