"""What a line of the log looks like, and which loggers write one. Knows no event and decides on no message.

Nothing is redacted here, because nothing secret arrives: callers never log credentials, arguments or results. What
arrives may still have been written by a stranger, so no control character gets through: a server's name, error or
stderr cannot forge a line or drive a terminal (S26, S44).
"""

import json
import logging
import re
import sys
import time
from collections.abc import Mapping
from typing import Final, Literal, TextIO

Format = Literal["text", "json"]

LEVELS: Final = ("debug", "info", "warning", "error")
FORMATS: Final = ("text", "json")

_OWN: Final = "mcp_manifold"
_SERVERS: Final = ("uvicorn", "uvicorn.error", "uvicorn.access", "uvicorn.asgi")
"""Loggers that would otherwise bring their own handlers."""

_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}
_RESERVED: Final = frozenset({"time", "level", "logger", "message", "exception"})
_BARE: Final = re.compile(r"[^\s\"=]+")
_UNSAFE: Final = re.compile(
    "[\x00-\x1f\x7f-\x9f"  # C0, DEL, C1
    "\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069"  # direction, line and paragraph separators
    "\ud800-\udfff\ufff9-\ufffb"  # halves of characters, interlinear annotation
    "\U000e0000-\U000e0fff]"  # tags and variation selectors: text nobody sees
)
_UNSAFE_IN_TEXT: Final = re.compile(f"(?![\n\t]){_UNSAFE.pattern}")


def visible(text: str) -> str:
    """`text` on one line, with every character that acts instead of showing written as an escape."""
    return _UNSAFE.sub(_escape, text)


def visible_text(text: str) -> str:
    """The same for text of several lines: line ends and tabs stay."""
    return _UNSAFE_IN_TEXT.sub(_escape, text.replace("\r\n", "\n"))


def _escape(found: re.Match[str]) -> str:
    code = ord(found.group())
    if code < 0x100:
        return {0x09: "\\t", 0x0A: "\\n", 0x0D: "\\r"}.get(code, f"\\x{code:02x}")
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def fields_of(record: logging.LogRecord) -> Mapping[str, object]:
    """What the caller gave as `extra`; empty values are left out."""
    return {key: value for key, value in vars(record).items() if key not in _STANDARD and value not in ("", None)}


class TextFormatter(logging.Formatter):
    """`12:00:01 WARNING mcp_manifold.backends.backend backend=git lost: ...`; a traceback follows, indented."""

    def __repr__(self) -> str:
        return "<TextFormatter>"

    def format(self, record: logging.LogRecord) -> str:
        """One line, and the traceback if there is one."""
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        fields = [f"{key}={_field(value)}" for key, value in fields_of(record).items()]
        line = " ".join([clock, record.levelname, record.name, *fields, visible(record.getMessage())])
        traceback = _traceback(record, self)
        return "\n".join([line, *("    " + visible(part) for part in traceback.splitlines())])


class JsonFormatter(logging.Formatter):
    """One JSON object a line, in ASCII: `{"time": ..., "level": ..., "logger": ..., "message": ..., fields}`."""

    def __repr__(self) -> str:
        return "<JsonFormatter>"

    def format(self, record: logging.LogRecord) -> str:
        """The object; a field that would hide one of ours gets `field_` in front."""
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
    """Writes to the stream it was given, or to whatever stderr is at the time; a log nobody reads hurts nobody."""

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
        """Somebody closed the log: there is nobody left to tell."""


def configure(level: str, format: str = "text", stream: TextIO | None = None) -> None:
    """Let every logger of this process write lines of `format` to `stream` (stderr), ours from `level` on.

    Other libraries have nothing to say below a warning, except the HTTP server while debugging. To be called by
    whoever owns the process: the command line; an embedding program configures its own logging. Calling it again
    replaces what it did.
    """
    number = logging.getLevelNamesMapping()[level.upper()]
    handler = _Handler(stream)
    handler.setFormatter(JsonFormatter() if format == "json" else TextFormatter())
    root = logging.getLogger()
    for old in [old for old in root.handlers if isinstance(old, _Handler)]:
        root.removeHandler(old)
    root.addHandler(handler)
    others = number if number == logging.DEBUG else max(number, logging.WARNING)
    root.setLevel(max(number, logging.WARNING))
    logging.getLogger(_OWN).setLevel(number)
    for name in _SERVERS:
        _route(logging.getLogger(name), others)


def _route(logger: logging.Logger, level: int) -> None:
    logger.handlers.clear()
    logger.propagate = True
    logger.setLevel(level)
