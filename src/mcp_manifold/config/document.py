"""The configuration as it was written: values, their places, errors that point at them. Knows no setting's meaning."""

import difflib
import errno
import io
import os
import re
import select
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Final, Self

from pydantic.alias_generators import to_snake

from mcp_manifold.config.reading import parse
from mcp_manifold.config.spans import Loc, Malformed, SourceSpan, Spot
from mcp_manifold.errors import ConfigError

SPELLINGS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "type": "transport",
        "transport_type": "transport",
        "server_url": "url",
        "enabled": "disabled",
        "disabled_tools": "tools",
    }
)
"""Other clients' names of our settings, in snake_case."""

SECRET_KEYS: Final = frozenset(
    {"env", "headers", "tokens", "token", "url", "server_url", "command", "args", "env_file"}
)
"""What is below these keys, or may be, is never shown."""

MOST: Final = 16 << 20
"""Bytes a file of settings may have: without an end, reading `/dev/zero` would take all memory."""
PIPE_WAIT: Final = 5.0
"""Seconds the writer of a pipe may be silent: without an end, nothing would start, and nothing be reloaded."""
_FLAGS: Final = sum(getattr(os, name, 0) for name in ("O_NONBLOCK", "O_CLOEXEC", "O_BINARY"))

PLAIN_KEY: Final = re.compile(r"[A-Za-z_$][A-Za-z0-9_$-]*")


def field_of(key: str) -> str:
    """The setting a key of the file stands for, whichever way it is spelled."""
    name = to_snake(key)
    return SPELLINGS.get(name, name)


def did_you_mean(word: str, known: Iterable[str], *, cutoff: float = 0.6) -> str:
    """`; did you mean "x"?` for the nearest known word, or nothing."""
    plain = {re.sub(r"[-_ ]", "", name).lower(): name for name in known}
    near = difflib.get_close_matches(re.sub(r"[-_ ]", "", word).lower(), plain, n=1, cutoff=cutoff)
    return f'; did you mean "{plain[near[0]]}"?' if near else ""


@dataclass(frozen=True, slots=True)
class Document:
    """What was written, before anything in it is expanded. `spots` is empty where there is no text."""

    path: str
    data: Mapping[str, object] = field(repr=False)
    spots: Mapping[Loc, Spot] = field(default_factory=dict, repr=False)

    @classmethod
    def read(cls, path: Path) -> Self:
        """The file at `path`.

        Raises:
            ConfigError: it cannot be read, is no JSON5, or not an object.
        """
        text = text_of(path)
        try:
            parsed = parse(text)
        except Malformed as exc:
            place = exc.place
            raise ConfigError(exc.reason, path=str(path), line=place.line, column=place.column) from None
        return cls(str(path), _object(parsed.data, str(path), parsed.spots), parsed.spots)

    def place(self, loc: Loc, *, at_key: bool = False) -> SourceSpan | None:
        """Where `loc` is, or the innermost part of it that was written."""
        spot = self.spots.get(self.written(loc))
        if spot is None:
            return None
        return spot.key if at_key else spot.value

    def written(self, loc: Loc) -> Loc:
        """`loc` in the spelling of the document; parts it does not have are left out."""
        here: object = self.data
        out: list[str | int] = []
        for part in loc:
            found = _spelled(here, part)
            if found is not None:
                out.append(found)
                here = here[found]  # type: ignore[index]  # _spelled found it in there
        return tuple(out)

    def value(self, loc: Loc) -> object:
        """What was written at `loc`, or at the innermost part of it."""
        here: object = self.data
        for part in self.written(loc):
            here = here[part]  # type: ignore[index]  # written() walked the same way
        return here

    def error(self, reason: str, loc: Loc, *, at_key: bool = False, server: str = "") -> ConfigError:
        """An error that points at `loc`."""
        place = self.place(loc, at_key=at_key) or SourceSpan(0, 0)
        reason = f"{dotted(self.written(loc))}: {reason}" if self.written(loc) else reason
        return ConfigError(reason, path=self.path, line=place.line, column=place.column, server=server)

    def note(self, text: str, loc: Loc) -> str:
        """A warning that points at the key of `loc`."""
        place = self.place(loc, at_key=True)
        return f"{self.path}:{place.line}:{place.column}: {text}" if place else f"{self.path}: {text}"

    def shown(self, loc: Loc) -> str:
        """`, got ...` where what was written may be shown: short, and certainly no secret."""
        value = self.value(loc)
        if SECRET_KEYS & {to_snake(part) for part in loc if isinstance(part, str)}:
            return ""
        if isinstance(value, str):
            return f', got "{value}"' if "${" not in value and len(value) <= 40 and value.isprintable() else ""
        return ", got null" if value is None else f", got {_kind(value)}"


def text_of(path: Path) -> str:
    """The text of a file.

    Raises:
        ConfigError: it cannot be read, or is not UTF-8.
    """
    try:
        return bytes_of(path).decode("utf-8-sig")
    except OSError as exc:
        raise ConfigError(f"cannot be read: {exc.strerror}", path=str(path)) from exc
    except ValueError:
        raise ConfigError("cannot be read as UTF-8 text", path=str(path)) from None


def bytes_of(path: Path) -> bytes:
    """What is in a file. Ends also where it is a pipe that nobody writes to, or a device without an end.

    Raises:
        OSError: it cannot be read, or not all of it.
    """
    file = os.open(path, os.O_RDONLY | _FLAGS)
    try:
        parts: list[bytes] = []
        while piece := _piece(file):
            parts.append(piece)
            if sum(map(len, parts)) > MOST:
                raise OSError(errno.EFBIG, f"it is larger than {MOST >> 20} MiB")
        if not parts and stat.S_ISFIFO(os.fstat(file).st_mode):
            raise OSError(errno.EPIPE, "it is a pipe that nobody writes to")
        return b"".join(parts)
    finally:
        os.close(file)


def _piece(file: int) -> bytes:
    while True:
        try:
            return os.read(file, 1 << 20)
        except BlockingIOError:  # a pipe, whose writer takes its time
            if not select.select([file], [], [], PIPE_WAIT)[0]:
                raise OSError(errno.ETIMEDOUT, f"nothing was written to it for {PIPE_WAIT:g} s") from None


def dotenv_of(path: Path) -> dict[str, str]:
    """The variables of a `NAME=value` file; references in it stay as they are.

    Raises:
        ConfigError: it cannot be read, or is not UTF-8.
    """
    from dotenv import dotenv_values  # noqa: PLC0415 - only who has such a file needs it

    found = dotenv_values(stream=io.StringIO(text_of(path)), interpolate=False)
    return {name: value for name, value in found.items() if value is not None}


def dotted(loc: Loc) -> str:
    """`mcpServers.github.args[0]`."""
    out = ""
    for part in loc:
        if isinstance(part, int):
            out += f"[{part}]"
        elif PLAIN_KEY.fullmatch(part):
            out += f".{part}" if out else part
        else:
            out += f'["{part}"]'
    return out


def _spelled(here: object, part: str | int) -> str | int | None:
    if isinstance(here, Mapping):
        if part in here:
            return part
        return next((key for key in here if isinstance(key, str) and field_of(key) == part), None)
    if isinstance(part, int) and isinstance(here, list | tuple) and part < len(here):
        return part
    return None


def _kind(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    return "an object" if isinstance(value, Mapping) else "a list"


def _object(data: object, path: str, spots: Mapping[Loc, Spot]) -> Mapping[str, object]:
    if isinstance(data, Mapping):
        return data
    place = spots[()].value
    raise ConfigError('expected an object such as {"mcpServers": {}}', path=path, line=place.line, column=place.column)
