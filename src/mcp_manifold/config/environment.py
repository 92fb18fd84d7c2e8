"""The environment: our own variables, `${...}` references, what servers inherit, and how much memory there is."""

import os
import re
import shlex
import shutil
import stat
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from types import MappingProxyType
from typing import Final

from pydantic import BaseModel

from mcp_manifold.config.dialects import Loc, suggestion
from mcp_manifold.config.document import CONFIG_VARIABLE, read_bytes
from mcp_manifold.config.settings import ManifoldSettings

PREFIX: Final = "MCP_MANIFOLD_"
"""The beginning of the names of our own variables."""
PROCESS_MARK: Final = "MCP_MANIFOLD_PARENT"
"""The variable that marks a server's process: `<pid>:<start time>` of its manifold. Not a setting."""
INHERITED: Final = (
    (
        "APPDATA",
        "HOMEDRIVE",
        "HOMEPATH",
        "LOCALAPPDATA",
        "PATH",
        "PATHEXT",
        "PROCESSOR_ARCHITECTURE",
        "SYSTEMDRIVE",
        "SYSTEMROOT",
        "TEMP",
        "USERNAME",
        "USERPROFILE",
    )
    if sys.platform == "win32"
    else ("HOME", "LOGNAME", "PATH", "SHELL", "TERM", "USER")
)
"""The SDK's list (`mcp.client.stdio.DEFAULT_INHERITED_ENV_VARS`); a contract test compares them. Short, so that no
secret leaks into a server (S37)."""
INHERITED_TOO: Final = (
    *("LANG", "LANGUAGE", "LC_*", "TZ", "TZDIR"),
    *("TMPDIR", "TMP", "TEMP"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS", "GIT_SSL_CAINFO"),
    *("PIP_CERT", "NPM_CONFIG_CAFILE", "DENO_CERT", "UV_NATIVE_TLS", "UV_SYSTEM_CERTS", "NODE_USE_SYSTEM_CA"),
    *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "NODE_USE_ENV_PROXY"),
    *(
        "NPM_CONFIG_PROXY",
        "NPM_CONFIG_HTTPS_PROXY",
        "NPM_CONFIG_NOPROXY",
        "NPM_CONFIG_*REGISTRY",
        "NPM_CONFIG_USERCONFIG",
    ),
    *("UV_INDEX", "UV_INDEX_URL", "UV_DEFAULT_INDEX", "UV_EXTRA_INDEX_URL", "UV_FIND_LINKS", "UV_CONFIG_FILE"),
    *("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_TRUSTED_HOST", "PIP_CONFIG_FILE"),
)
"""Patterns, in any case, of what a server and its package runner need to start as in a terminal: locale, time zone,
temporary directory, CA bundle, proxy, package index."""
CGROUPS: Final = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
"""The files with a container's memory limit on Linux: cgroup version 2, version 1."""
REFERENCE: Final = re.compile(r"\$\$\{|\$\{([^}]*)(\}?)")
VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
FORMS: Final = (
    'known are "${NAME}", "${NAME:-default}", "${env:NAME}", "${file:path}" and "${manifold:python}"; '
    '"$${" is a literal "${"'
)


def _variables() -> Iterator[tuple[str, Loc]]:
    for name, found in ManifoldSettings.model_fields.items():
        yield PREFIX + name.upper(), (name,)
        inner = found.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            for below in inner.model_fields:
                yield f"{PREFIX}{name.upper()}__{below.upper()}", (name, below)


VARIABLES: Final[Mapping[str, Loc]] = MappingProxyType(dict(_variables()))
"""The path of the setting that each of our variables sets."""


def own_variables(values: Mapping[str, str]) -> dict[str, str]:
    """The environment variables that set something for mcp-manifold. An empty variable counts as unset."""
    return {name.upper(): value for name, value in values.items() if name.upper() in VARIABLES and value}


def unknown_variables(values: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """The names that look like variables of mcp-manifold but set nothing, each with a remedy."""
    for name in sorted(values):
        if name.upper().startswith(PREFIX) and name.upper() not in (*VARIABLES, CONFIG_VARIABLE, PROCESS_MARK):
            yield name, suggestion(name, VARIABLES)


def inherited() -> dict[str, str]:
    """The variables that every server inherits, without shell functions."""
    names = {name for name in os.environ if name in INHERITED or _matches(name.upper(), INHERITED_TOO)}
    return {name: os.environ[name] for name in sorted(names) if not os.environ[name].startswith("()")}


def matching(patterns: Sequence[str]) -> dict[str, str]:
    """The variables whose names match one of the patterns, without our own, which may hold tokens."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.upper().startswith(PREFIX) and _matches(name, patterns)
    }


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def login_shell() -> str:
    """The path of the user's shell; empty on Windows."""
    return "" if sys.platform == "win32" else os.environ.get("SHELL") or "/bin/sh"


def words_of(command: str) -> list[str]:
    """The words of a command line; a single word for a program, even if its path has spaces.

    A path with spaces is a program, if it exists or its first word does not.
    """
    if len(command.split()) < 2 or shutil.which(command) is not None:
        return [command]
    try:
        words = shlex.split(command, posix=os.name != "nt")
    except ValueError:  # an open quotation
        return [command]
    is_path = any(mark and mark in words[0] for mark in (os.sep, os.altsep)) if words else False
    return words if words and not (is_path and shutil.which(words[0]) is None) else [command]


def is_open_to_all(path: Path) -> bool:
    """Whether every user of this machine can read a file; False if that is unknown."""
    try:
        return os.name == "posix" and bool(path.stat().st_mode & stat.S_IROTH)
    except OSError:
        return False


def memory_given(limits: Sequence[Path] = CGROUPS) -> int:
    """The bytes of memory that this process may use: the machine's, or the container's limit if that is less."""
    try:
        found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    except (AttributeError, ValueError, OSError):  # Windows, and systems that do not tell
        found = [8 << 30]
    for path in limits:
        try:
            text = path.read_text().strip()
        except OSError:
            continue
        if text.isdigit():
            found.append(int(text))
    return min(found)


ReportUnresolved = Callable[[str, Loc], None]
"""Takes the reason why a reference is unresolved, and the path of the value it is in."""


class _Unresolved(Exception):
    """Why a reference is unresolved; names the reference, never a value."""


@dataclass(frozen=True, slots=True)
class References:
    """Replaces each `${...}` in a text by a variable or a file relative to `directory`, and expands no result again."""

    values: Mapping[str, str] = field(repr=False)
    directory: Path

    def expand(self, data: object, loc: Loc, report: ReportUnresolved) -> object:
        """`data` with each `${...}` in its texts replaced by its value. Keys are not changed.

        A text whose reference is unresolved is reported, and stays as it is.
        """
        match data:
            case str():
                try:
                    return REFERENCE.sub(self._resolved, data)
                except _Unresolved as exc:
                    report(str(exc), loc)
                    return data
            case Mapping():
                return {key: self.expand(value, (*loc, key), report) for key, value in data.items()}
            case list() | tuple():
                return [self.expand(value, (*loc, index), report) for index, value in enumerate(data)]
            case _:
                return data

    def resolved(self, text: str) -> str | None:
        """`text` with each `${...}` replaced by its value; None if a value is missing."""
        try:
            return REFERENCE.sub(self._resolved, text)
        except _Unresolved:
            return None

    def files(self, data: object) -> Iterator[Path]:
        """The files that `${file:...}` in `data` names, readable or not."""
        match data:
            case str():
                for found in REFERENCE.finditer(data):
                    kind, _, rest = (found[1] or "").partition(":")
                    if kind == "file":
                        yield self.path(rest)
            case Mapping():
                for value in data.values():
                    yield from self.files(value)
            case list() | tuple():
                for value in data:
                    yield from self.files(value)

    def path(self, text: str) -> Path:
        """The path that a text in the configuration stands for."""
        return self.directory / os.path.expanduser(text)  # Path.expanduser() fails for an unknown user

    def _resolved(self, found: re.Match[str]) -> str:
        if found[0] == "$${":
            return "${"
        if not found[2]:
            raise _Unresolved(f'a "${{" is not closed; {FORMS}')
        kind, colon, rest = found[1].partition(":")
        if colon and kind == "file":
            return self._content(rest)
        if colon and kind == "env":
            return self._variable(rest)
        if colon and (kind, rest) == ("manifold", "python"):  # the interpreter, with the SDK, that runs this program
            return sys.executable
        if colon and not rest.startswith("-"):
            raise _Unresolved(f'"${{{kind}:...}}" is not known; {FORMS}')
        if not VARIABLE.fullmatch(kind):
            raise _Unresolved(f"a reference names no variable; {FORMS}")
        return self._variable(found[1])

    def _variable(self, body: str) -> str:
        name, has_default, default = body.partition(":-")
        if "${" in default:
            raise _Unresolved(f'the default of "{name}" must not be a reference itself')
        value = self.values.get(name)
        if has_default:
            return value or default
        if value is None:
            raise _Unresolved(f'the variable "{name}" is not set')
        return value

    def _content(self, text: str) -> str:
        try:
            content = read_bytes(self.path(text)).decode("utf-8")
        except OSError as exc:
            raise _Unresolved(f'the file "{text}" cannot be read: {exc.strerror}') from None
        except ValueError:
            raise _Unresolved(f'the file "{text}" cannot be read as UTF-8 text') from None
        return content.removesuffix("\n").removesuffix("\r")
