"""The configuration file as written: finding it, reading it, and its text as a tree of values with their places.

The text is JSON with the comforts of JSON5. Reading takes time linear in its length: every token is matched once, by
patterns that cannot backtrack, and nesting is bounded. The file system is given limited time, too.
"""

import bisect
import codecs
import errno
import io
import math
import os
import re
import select
import stat
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NoReturn

from pydantic.alias_generators import to_snake

from mcp_manifold.config.dialects import Loc, field_of
from mcp_manifold.errors import ConfigError

CONFIG_VARIABLE: Final = "MCP_MANIFOLD_CONFIG"
"""The environment variable that names the file."""
LOCAL_NAME: Final = "mcp-manifold.json"
MAX_FILE: Final = 4 << 20
"""Bytes of the largest file that is read: as many as can be within the deadline. `/dev/zero` has no end."""
PIPE_WAIT: Final = 5.0
"""Seconds the writer of a pipe may be silent; without a limit, a start or a reload would hang."""
MAX_NESTING: Final = 64
"""Levels of nesting; the reader recurses once per level."""
MAX_DIGITS: Final = 400
"""Digits of one integer; Python refuses to read integers of some thousand."""
MAX_SYMLINKS: Final = 16
"""Symbolic links followed one after the other."""
Stamps = Mapping[str, object]
"""The state of each file, by path: equal as long as it is the same file with the same content."""

SECRET_KEYS: Final = frozenset(
    {"env", "headers", "tokens", "token", "url", "server_url", "command", "args", "env_file"}
)
"""Keys whose values are never shown, nor anything below them."""

_OPEN_FLAGS: Final = sum(getattr(os, name, 0) for name in ("O_NONBLOCK", "O_CLOEXEC", "O_BINARY"))
_PLAIN_KEY: Final = re.compile(r"[A-Za-z_$][A-Za-z0-9_$-]*")
_TOKEN: Final = re.compile(
    r"""
    (?P<space>[\t\n\v\f\r\ \u00a0\u2028\u2029\ufeff]++)
    |(?P<line>//[^\n\r\u2028\u2029]*+)
    |(?P<comment>/\*)
    |(?P<string>"(?:[^"\\\r\n]++|\\(?:\r\n|.))*+"|'(?:[^'\\\r\n]++|\\(?:\r\n|.))*+')
    |(?P<open>["'])
    |(?P<number>[+-]?(?:0[xX][0-9a-fA-F]++|(?:[0-9]++(?:\.[0-9]*+)?|\.[0-9]++)(?:[eE][+-]?[0-9]++)?|Infinity\b|NaN\b))
    |(?P<name>(?:[^\W\d]|\$)[\w$\u200c\u200d]*+)
    |(?P<mark>[{}\[\]:,])
    """,
    re.VERBOSE | re.DOTALL,
)
_ESCAPE: Final = re.compile(r"\\(u[0-9a-fA-F]{4}|x[0-9a-fA-F]{2}|\r\n|.)", re.DOTALL)
_LEADING_ZERO: Final = re.compile("0[0-9]")
_ESCAPES: Final = (("b", "\b"), ("f", "\f"), ("n", "\n"), ("r", "\r"), ("t", "\t"), ("v", "\v"), ("0", "\0"))
_CONSTANTS: Final = (("true", True), ("false", False), ("null", None))


@dataclass(frozen=True, slots=True)
class SourceSpan:
    """A position in the configuration file: line and column, both from 1."""

    line: int
    column: int


@dataclass(frozen=True, slots=True)
class Tree:
    """The values of a text, the position of each, and the syntax errors. `data` is None after a syntax error."""

    data: object = field(repr=False)
    places: Mapping[Loc, tuple[SourceSpan, SourceSpan]] = field(repr=False)
    """By path, the places of the key and of the value; equal where there is no key."""
    faults: tuple[tuple[str, SourceSpan], ...] = ()


def parse_tree(text: str) -> Tree:
    """The tree of a JSON5 text. Stricter than JSON5: no key twice, no NaN or Infinity, no unknown escape."""
    return _Reader(text).tree()


class _SyntaxFault(Exception):
    """The text cannot be read any further."""


class _Reader:
    """Reads one text from start to end, one token ahead."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._lines = [0, *(found.end() for found in re.finditer("\n", text))]
        self._places: dict[Loc, tuple[SourceSpan, SourceSpan]] = {}
        self._faults: list[tuple[str, SourceSpan]] = []
        self._kind = ""
        self._token = ""
        self._start = self._end = 0

    def __repr__(self) -> str:
        return f"<_Reader at {self._start} of {len(self._text)}>"

    def tree(self) -> Tree:
        """The tree of the whole text."""
        data: object = None
        try:
            self._advance()
            data = self._value((), None, 0)
            if self._kind:
                self._fail("expected the end of the file")
        except _SyntaxFault:
            data = None
        return Tree(data, self._places, tuple(self._faults))

    def _advance(self) -> None:
        """Step to the next token; its kind is "" at the end of the text."""
        while found := _TOKEN.match(self._text, self._end):
            self._kind, self._token = found.lastgroup or "", found[0]
            self._start, self._end = found.span()
            if self._kind == "comment":
                end = self._text.find("*/", self._end)
                if end < 0:
                    self._fail("the comment that begins here is never closed")
                self._end = end + 2
            elif self._kind not in ("space", "line"):
                return
        self._kind, self._token, self._start = "", "", self._end
        if self._end < len(self._text):
            self._fail("unexpected character")

    def _value(self, loc: Loc, key: SourceSpan | None, depth: int) -> object:
        """The value that begins with the current token."""
        place = self._place(self._start)
        self._places[loc] = (key or place, place)
        if self._token in ("{", "["):
            if depth == MAX_NESTING:
                self._fail(f"nested more than {MAX_NESTING} levels deep")
            return self._object(loc, depth) if self._token == "{" else self._array(loc, depth)
        kind, token, start = self._kind, self._token, self._start
        if kind == "string":
            self._advance()
            return self._string(token, place)
        if kind == "number":
            self._advance()
            return self._number(token, start)
        constants = dict(_CONSTANTS)
        if kind != "name" or token not in constants:
            self._fail("expected a value")
        self._advance()
        return constants[token]

    def _object(self, loc: Loc, depth: int) -> dict[str, object]:
        out: dict[str, object] = {}
        expected = '"}" or a key'
        self._advance()
        while self._token != "}":
            place = self._place(self._start)
            if self._kind not in ("string", "name"):
                self._fail(f"expected {expected}")
            key = self._string(self._token, place) if self._kind == "string" else self._token
            self._advance()
            self._take(":", 'expected ":"')
            if key in out:
                first = self._places[*loc, key][0].line
                self._fault(f'the key "{key}" is given twice, first in line {first}', place)
                self._value((*loc, key, -1), place, depth + 1)  # read past it
            else:
                out[key] = self._value((*loc, key), place, depth + 1)
            if self._token != "}":
                self._take_comma('expected "," or "}"')
        self._advance()
        return out

    def _array(self, loc: Loc, depth: int) -> list[object]:
        out: list[object] = []
        self._advance()
        while self._token != "]":
            out.append(self._value((*loc, len(out)), None, depth + 1))
            if self._token != "]":
                self._take_comma('expected "," or "]"')
        self._advance()
        return out

    def _take(self, mark: str, otherwise: str) -> None:
        if self._token != mark:
            self._fail(otherwise)
        self._advance()

    def _take_comma(self, otherwise: str) -> None:
        comma = self._start
        self._take(",", otherwise)
        if self._token == ",":
            self._fail("one comma too many", comma)

    def _string(self, token: str, place: SourceSpan) -> str:
        """The text of a string token; a fault in it does not end the reading."""
        if "\\" not in token:
            return token[1:-1]
        text = _ESCAPE.sub(lambda found: self._character(found[1], place), token[1:-1])
        try:
            return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le")  # joins surrogate pairs
        except UnicodeDecodeError:
            self._fault("the string that begins here has half a surrogate pair", place)
            return ""

    def _character(self, escape: str, place: SourceSpan) -> str:
        """The character of an escape, without its backslash, in the string that begins at `place`."""
        if len(escape) > 2:
            return chr(int(escape[1:], 16))
        if escape in "\r\n\u2028\u2029":
            return ""
        plain = dict(_ESCAPES).get(escape)
        if plain is None and escape.isalnum():
            reason = rf'the string that begins here has an unknown escape "\{escape}"; a backslash is "\\"'
            self._fault(reason, place)
        return escape if plain is None else plain

    def _number(self, token: str, start: int) -> int | float | None:
        digits = token.lstrip("+-")
        sign = -1 if token.startswith("-") else 1
        fault = "expected a decimal number" if _LEADING_ZERO.match(digits) else "expected a finite number"
        if digits.isdecimal() or digits[:2] in ("0x", "0X"):
            if len(digits) > MAX_DIGITS:
                fault = "a number is too long"
            elif digits[:2] in ("0x", "0X"):
                return sign * int(digits, 16)
            elif not _LEADING_ZERO.match(digits):
                return sign * int(digits)
        elif not _LEADING_ZERO.match(digits) and math.isfinite(number := float(digits)):
            return sign * number
        self._fault(fault, self._place(start + len(token) - len(digits)))
        return None

    def _fail(self, reason: str, at: int | None = None) -> NoReturn:
        """End the reading with a fault at `at`, else at the current token."""
        place = self._place(self._start if at is None else at)
        if not self._kind and self._end == len(self._text):
            reason = f"the file ends too early: {reason}" if self._text.strip() else "the file is empty"
            place = self._place(len(self._text.rstrip()))
        elif self._kind == "open":
            is_last_line = self._text.find("\n", self._start) < 0
            reason = "the string that begins here is " + ("never closed" if is_last_line else "not closed on its line")
        self._fault(reason, place)
        raise _SyntaxFault

    def _fault(self, reason: str, place: SourceSpan) -> None:
        """Note a fault; one string can have millions, of which the first is enough."""
        if not self._faults or self._faults[-1][1] != place:
            self._faults.append((reason, place))

    def _place(self, index: int) -> SourceSpan:
        line = bisect.bisect_right(self._lines, index)
        return SourceSpan(line, index - self._lines[line - 1] + 1)


@dataclass(frozen=True, slots=True)
class Document:
    """A configuration before its references are expanded. `places` is empty if it did not come from a text."""

    path: str
    data: Mapping[str, object] = field(repr=False)
    places: Mapping[Loc, tuple[SourceSpan, SourceSpan]] = field(default_factory=dict, repr=False)

    def place(self, loc: Loc, *, at_key: bool = False) -> SourceSpan | None:
        """The position of `loc` in the file, or of the innermost part of `loc` that was written."""
        found = self.places.get(self.written(loc))
        return found and found[0 if at_key else 1]

    def written(self, loc: Loc) -> Loc:
        """`loc` as spelled in the document, up to the first part that the document does not have."""
        here: object = self.data
        out: list[str | int] = []
        for part in loc:
            found = _spelled(here, part)
            if found is not None:
                out.append(found)
                here = here[found]  # type: ignore[index]  # _spelled found it in there
        return tuple(out)

    def shown(self, loc: Loc) -> str:
        """`, got ...` for the value at `loc`; empty if it may be a secret, or is long."""
        if SECRET_KEYS & {to_snake(part) for part in loc if isinstance(part, str)}:
            return ""
        value: object = self.data
        for part in self.written(loc):
            value = value[part]  # type: ignore[index]  # written() walked the same way
        if isinstance(value, str):
            return f', got "{value}"' if "${" not in value and len(value) <= 40 and value.isprintable() else ""
        if value is None or isinstance(value, bool):
            return f", got {str(value).lower() if value is not None else 'null'}"
        return f", got {value!r}" if isinstance(value, int | float) else f", got {_kind(value)}"


def dotted(loc: Loc) -> str:
    """The path of a key as text: `mcpServers.github.args[0]`."""
    out = ""
    for part in loc:
        if isinstance(part, int):
            out += f"[{part}]"
        elif _PLAIN_KEY.fullmatch(part):
            out += f".{part}" if out else part
        else:
            out += f'["{part}"]'
    return out


def _kind(value: object) -> str:
    return "an object" if isinstance(value, Mapping) else "a list"


def _spelled(here: object, part: str | int) -> str | int | None:
    if isinstance(here, Mapping):
        if part in here:
            return part
        return next((key for key in here if isinstance(key, str) and field_of(key) == part), None)
    if isinstance(part, int) and isinstance(here, list | tuple) and part < len(here):
        return part
    return None


# --- files ------------------------------------------------------------------------------------------------------------


def candidates(environ: Mapping[str, str], platform: str) -> tuple[Path, ...]:
    """The paths where the configuration file may be, best first; only the environment's path, if it names one."""
    named = environ.get(CONFIG_VARIABLE)
    if named:
        return (Path(named).expanduser(),)
    return (Path(LOCAL_NAME), _user_directory(environ, platform) / "mcp-manifold" / "config.json")


def _user_directory(environ: Mapping[str, str], platform: str) -> Path:
    home = Path(environ.get("HOME") or environ.get("USERPROFILE") or os.path.expanduser("~"))
    if environ.get("XDG_CONFIG_HOME"):
        return Path(environ["XDG_CONFIG_HOME"])
    if platform == "win32":
        return Path(environ.get("APPDATA") or home / "AppData" / "Roaming")
    return home / "Library" / "Application Support" if platform == "darwin" else home / ".config"


def find(environ: Mapping[str, str] | None = None) -> Path | None:
    """The configuration file to use if no option names one: that of the environment, else the first that exists."""
    environ = os.environ if environ is None else environ
    found = candidates(environ, sys.platform)
    if environ.get(CONFIG_VARIABLE):
        return found[0]
    return next((path for path in found if path.is_file()), None)


def read_text(path: Path) -> str:
    """The text of a file.

    Raises:
        ConfigError: the file cannot be read, or is not UTF-8.
    """
    try:
        content = read_bytes(path)
        if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in content[:4]:
            raise ConfigError("is UTF-16 text; save it as UTF-8", path=str(path))
        return content.decode("utf-8-sig")
    except OSError as exc:
        raise ConfigError(f"cannot be read: {exc.strerror}", path=str(path)) from exc
    except ValueError:
        raise ConfigError("cannot be read as UTF-8 text", path=str(path)) from None


def read_bytes(path: Path) -> bytes:
    """The content of a file, a pipe or a device, within `MAX_FILE` and `PIPE_WAIT`.

    Raises:
        OSError: it cannot be read completely.
    """
    file = os.open(path, os.O_RDONLY | _OPEN_FLAGS)
    try:
        content = bytearray()
        while piece := _piece(file):
            content += piece
            if len(content) > MAX_FILE:
                raise OSError(errno.EFBIG, f"it is larger than {MAX_FILE >> 20} MiB")
        if not content and stat.S_ISFIFO(os.fstat(file).st_mode):
            raise OSError(errno.EPIPE, "it is a pipe that nobody writes to")
        return bytes(content)
    finally:
        os.close(file)


def _piece(file: int) -> bytes:
    while True:
        try:
            return os.read(file, 1 << 20)
        except BlockingIOError:  # a pipe whose writer is slow
            if not select.select([file], [], [], PIPE_WAIT)[0]:
                raise OSError(errno.ETIMEDOUT, f"nothing was written to it for {PIPE_WAIT:g} s") from None


def read_dotenv(path: Path) -> dict[str, str]:
    """The variables of a `NAME=value` file; references in it stay as they are.

    Raises:
        ConfigError: it cannot be read, or is not UTF-8.
    """
    from dotenv import dotenv_values  # noqa: PLC0415 - few configurations have such a file

    found = dotenv_values(stream=io.StringIO(read_text(path)), interpolate=False)
    return {name: value for name, value in found.items() if value is not None}


def stamps(files: Iterable[str]) -> Stamps:
    """The present state of each file, for comparison. A file that is missing or unreadable has the stamp None."""
    return {file: _stamp(Path(file)) for file in files}


def _stamp(path: Path) -> object:
    try:
        found = path.stat()
        return (str(path.resolve()), found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
    except (OSError, RuntimeError, ValueError):  # missing, a circle of links, or no valid path
        return None


def directories(files: Iterable[str]) -> frozenset[str]:
    """The directories to watch for changes of `files`, including those of symbolic links that lead to them."""
    return frozenset(str(directory) for file in files for directory in _around(Path(file).absolute()))


def _around(path: Path) -> Iterable[Path]:
    for _ in range(MAX_SYMLINKS):
        if os.path.isdir(path.parent):
            yield path.parent
        try:
            path = path.parent / path.readlink()
        except (OSError, ValueError):  # not a link
            return
