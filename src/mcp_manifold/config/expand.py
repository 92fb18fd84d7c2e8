"""`${...}` in texts: variables and files. Knows no setting; what a reference yields is never looked at again."""

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from mcp_manifold.config.document import bytes_of
from mcp_manifold.config.spans import Loc

REFERENCE: Final = re.compile(r"\$\$\{|\$\{([^}]*)(\}?)")
VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
FORMS: Final = 'known are "${NAME}", "${NAME:-default}", "${env:NAME}" and "${file:path}"; "$${" is a literal "${"'


class Unresolved(Exception):
    """A reference leads nowhere. `loc` is the value it is in; `reason` names the reference, never what is behind it."""

    def __init__(self, reason: str, loc: Loc) -> None:
        super().__init__(reason, loc)
        self.reason = reason
        self.loc = loc


@dataclass(frozen=True, slots=True)
class Variables:
    """What references can refer to. Files are relative to `directory`."""

    values: Mapping[str, str] = field(repr=False)
    directory: Path

    def expand(self, data: object, loc: Loc = ()) -> object:
        """`data` with the references in all its texts replaced; keys stay as they are.

        Raises:
            Unresolved: a variable is not set and has no default, a file cannot be read, or a reference is malformed.
        """
        match data:
            case str():
                return REFERENCE.sub(lambda found: self._resolved(found, loc), data)
            case Mapping():
                return {key: self.expand(value, (*loc, key)) for key, value in data.items()}
            case list() | tuple():
                return [self.expand(value, (*loc, index)) for index, value in enumerate(data)]
            case _:
                return data

    def files(self, data: object) -> Iterator[Path]:
        """The files that references in `data` are to, readable or not."""
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
        """A path as written in the configuration."""
        return self.directory / os.path.expanduser(text)  # Path.expanduser() fails for an unknown user

    def _resolved(self, found: re.Match[str], loc: Loc) -> str:
        if found[0] == "$${":
            return "${"
        if not found[2]:
            raise Unresolved(f'a "${{" is not closed; {FORMS}', loc)
        kind, colon, rest = found[1].partition(":")
        if colon and kind == "file":
            return self._content(rest, loc)
        if colon and kind == "env":
            return self._variable(rest, loc)
        if colon and not rest.startswith("-"):
            raise Unresolved(f'"${{{kind}:...}}" is not known; {FORMS}', loc)
        if not VARIABLE.fullmatch(kind):
            raise Unresolved(f"a reference names no variable; {FORMS}", loc)
        return self._variable(found[1], loc)

    def _variable(self, body: str, loc: Loc) -> str:
        name, has_default, default = body.partition(":-")
        if "${" in default:
            raise Unresolved(f'the default of "{name}" must not be a reference itself', loc)
        value = self.values.get(name)
        if has_default:
            return value or default
        if value is None:
            raise Unresolved(f'the variable "{name}" is not set', loc)
        return value

    def _content(self, text: str, loc: Loc) -> str:
        try:
            content = bytes_of(self.path(text)).decode("utf-8")
        except OSError as exc:
            raise Unresolved(f'the file "{text}" cannot be read: {exc.strerror}', loc) from None
        except ValueError:
            raise Unresolved(f'the file "{text}" cannot be read as UTF-8 text', loc) from None
        return content.removesuffix("\n").removesuffix("\r")
