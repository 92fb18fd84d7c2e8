"""How text is written: escapes for untrusted text, layout for the terminal, and the lines of the log.

Logging redacts nothing: callers never log credentials, arguments or results. But names, errors and stderr come from
servers, so control characters are escaped: no text can forge a log line or drive a terminal (S26, S44).
"""

import json
import logging
import re
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Final, TextIO

import click

LEVELS: Final = ("debug", "info", "warning", "error")
FORMATS: Final = ("text", "json")
UNBOUNDED: Final = 0
"""The width of an output that is not a terminal: nothing is cut."""

_OWN: Final = "mcp_manifold"
_HTTP_SERVER: Final = ("uvicorn", "uvicorn.error", "uvicorn.access", "uvicorn.asgi")
"""Loggers that would otherwise install their own handlers."""

_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}
_RESERVED: Final = frozenset({"time", "level", "logger", "message", "exception"})
_BARE: Final = re.compile(r"[^\s\"=]+")
_UNSAFE: Final = re.compile(
    "[\x00-\x1f\x7f-\x9f"  # C0, DEL, C1
    "\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069"  # direction, line and paragraph separators
    "\ud800-\udfff\ufff9-\ufffb"  # surrogates, interlinear annotation
    "\U000e0000-\U000e0fff]"  # tags and variation selectors: invisible text
)
_UNSAFE_IN_TEXT: Final = re.compile(f"(?![\n\t]){_UNSAFE.pattern}")


def visible(text: str) -> str:
    """`text` on one line, with control and invisible characters as escapes."""
    return _UNSAFE.sub(_escape, text)


def visible_text(text: str) -> str:
    """`text` of several lines with control and invisible characters as escapes; line ends and tabs stay."""
    return _UNSAFE_IN_TEXT.sub(_escape, text.replace("\r\n", "\n"))


def _escape(found: re.Match[str]) -> str:
    code = ord(found.group())
    if code < 0x100:
        return {0x09: "\\t", 0x0A: "\\n", 0x0D: "\\r"}.get(code, f"\\x{code:02x}")
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def is_terminal() -> bool:
    """Whether stdout is a terminal."""
    return sys.stdout.isatty()


def width() -> int:
    """Columns of the terminal; UNBOUNDED when stdout is not one."""
    return shutil.get_terminal_size().columns if is_terminal() else UNBOUNDED


def say(lines: Sequence[str]) -> None:
    """Print lines on stdout."""
    if lines:
        click.echo("\n".join(lines))


def say_as_it_came(text: str) -> None:
    """Print text from a server: unchanged to a pipe, escaped to a terminal."""
    click.echo(visible_text(text) if is_terminal() else text)


def note(line: str) -> None:
    """Print a line on stderr."""
    click.echo(line, err=True)


def cut(text: str, columns: int) -> str:
    """`text` in at most `columns` characters; an ellipsis marks a cut."""
    return text if columns == UNBOUNDED or len(text) <= columns else text[: max(columns - 1, 0)] + "…"


def columns(rows: Sequence[Sequence[str]], *, indent: str = "  ") -> list[str]:
    """Rows as lines with aligned cells."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return [
        (indent + "  ".join(cell.ljust(wide) for cell, wide in zip(row, widths, strict=True))).rstrip() for row in rows
    ]


def counted(number: int, one: str) -> str:
    """`1 tool`, `3 tools`."""
    return f"{number} {one if number == 1 else one + 's'}"


def size(number: int) -> str:
    """A number of bytes with a unit: `1 byte`, `1.5 kB`."""
    if number < 1000:
        return counted(number, "byte")
    return f"{number / 1000:.1f} kB" if number < 1_000_000 else f"{number / 1_000_000:.1f} MB"


def fields_of(record: logging.LogRecord) -> Mapping[str, object]:
    """The `extra` of a record, without empty values."""
    return {key: value for key, value in vars(record).items() if key not in _STANDARD and value not in ("", None)}


class TextFormatter(logging.Formatter):
    """Writes `12:00:01 WARNING mcp_manifold.backends.backend backend=git lost: ...`, then an indented traceback."""

    def __repr__(self) -> str:
        return "<TextFormatter>"

    def format(self, record: logging.LogRecord) -> str:
        """The log line, followed by the indented traceback if there is one."""
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        fields = [f"{key}={_field(value)}" for key, value in fields_of(record).items()]
        line = " ".join([clock, record.levelname, record.name, *fields, visible(record.getMessage())])
        traceback = _traceback(record, self)
        return "\n".join([line, *("    " + visible(part) for part in traceback.splitlines())])


class JsonFormatter(logging.Formatter):
    """Writes one JSON object a line, in ASCII: `{"time": ..., "level": ..., "logger": ..., "message": ..., fields}`."""

    def __repr__(self) -> str:
        return "<JsonFormatter>"

    def format(self, record: logging.LogRecord) -> str:
        """The record as a JSON object. A field with a reserved name gets the prefix `field_`."""
        seconds, milliseconds = divmod(int(record.created * 1000), 1000)
        line: dict[str, object] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{milliseconds:03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        for key, value in fields_of(record).items():
            line[f"field_{key}" if key in _RESERVED else key] = value
        traceback = _traceback(record, self)
        if traceback:
            line["exception"] = traceback
        return json.dumps(line, default=str)


def _field(value: object) -> str:
    text = value if isinstance(value, str) else str(value)
    return visible(text) if _BARE.fullmatch(text) else visible(json.dumps(text, ensure_ascii=False))


def _traceback(record: logging.LogRecord, formatter: logging.Formatter) -> str:
    parts = [formatter.formatException(record.exc_info)] if record.exc_info and record.exc_info[1] else []
    return "\n".join([*parts, *([formatter.formatStack(record.stack_info)] if record.stack_info else [])])


class _Handler(logging.StreamHandler[TextIO]):
    """Writes to a given stream, or to the current stderr. Errors of the stream are ignored."""

    def __init__(self, stream: TextIO | None) -> None:
        super().__init__(stream or sys.stderr)
        self._follows_stderr = stream is None

    def __repr__(self) -> str:
        return f"<_Handler to {'stderr' if self._follows_stderr else self.stream!r}>"

    def emit(self, record: logging.LogRecord) -> None:
        """Write the line."""
        if self._follows_stderr:
            self.stream = sys.stderr
        super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:
        """Ignore the error: the log was closed, and there is no other place to report it."""


def configure(level: str, format: str = "text", stream: TextIO | None = None) -> None:
    """Configure logging for the whole process. Only the command line does this; a second call replaces the first.

    Our loggers write from `level` on. Other libraries write warnings and errors, and everything at `debug`.

    Args:
        format: `text` or `json`.
        stream: where to write; stderr by default.
    """
    number = logging.getLevelNamesMapping()[level.upper()]
    handler = _Handler(stream)
    handler.setFormatter(JsonFormatter() if format == "json" else TextFormatter())
    root = logging.getLogger()
    for old in [old for old in root.handlers if isinstance(old, _Handler)]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(max(number, logging.WARNING))
    logging.getLogger(_OWN).setLevel(number)
    for name in _HTTP_SERVER:
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
        logger.setLevel(number if number == logging.DEBUG else max(number, logging.WARNING))
