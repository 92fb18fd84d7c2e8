"""Log lines: format, fields, and escapes, so that no text can forge a line or drive a terminal."""

import io
import json
import logging
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_manifold.cli.output import FORMATS, JsonFormatter, TextFormatter, configure, visible, visible_text

OURS = logging.getLogger("mcp_manifold.backends.backend")


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """Puts the process's logging back."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:], root.level = handlers, level
    for name in ("mcp_manifold", "uvicorn", "uvicorn.error", "uvicorn.access", "uvicorn.asgi"):
        logging.getLogger(name).setLevel(logging.NOTSET)


def record(message: str, **extra: object) -> logging.LogRecord:
    made = logging.makeLogRecord({"msg": message, "name": "mcp_manifold.x", "levelname": "WARNING", "created": 0.5})
    vars(made).update(extra)
    return made


def test_a_text_line_has_time_level_logger_fields_and_message() -> None:
    clock, rest = TextFormatter().format(record("lost: gone", backend="git", scope="", principal="a b")).split(" ", 1)
    assert len(clock) == 8
    assert rest == 'WARNING mcp_manifold.x backend=git principal="a b" lost: gone'


def test_a_json_line_is_one_object_with_the_fields() -> None:
    line = JsonFormatter().format(record("lost\n", backend="git", level="mine"))
    assert "\n" not in line
    assert json.loads(line) == {
        "time": "1970-01-01T00:00:00.500Z",
        "level": "warning",
        "logger": "mcp_manifold.x",
        "message": "lost\n",
        "backend": "git",
        "field_level": "mine",
    }


def test_a_traceback_is_indented_in_text_and_a_member_in_json() -> None:
    stream = io.StringIO()
    for form in FORMATS:
        configure("info", form, stream)
        try:
            raise ValueError("boom\n12:00:00 WARNING forged")
        except ValueError:
            OURS.exception("failed")
    *text, as_json = stream.getvalue().splitlines()
    assert text[0].endswith("failed")
    assert all(line.startswith("    ") for line in text[1:])
    assert "boom" in json.loads(as_json)["exception"]


def test_s44_a_message_cannot_forge_a_line_or_drive_the_terminal() -> None:
    line = TextFormatter().format(record("a\r\n12:00:00 INFO forged \x1b[2J\u202e", backend="x\ny"))
    assert line.endswith(r"a\r\n12:00:00 INFO forged \x1b[2J\u202e")
    assert "\n" not in line


@given(st.text())
def test_s26_visible_text_has_no_character_that_acts(text: str) -> None:
    shown = visible(text)
    assert not any(ord(c) < 0x20 or 0x7F <= ord(c) < 0xA0 or 0xD800 <= ord(c) < 0xE000 for c in shown)
    assert not any(0xE0000 <= ord(c) <= 0xE0FFF or 0x202A <= ord(c) <= 0x202E for c in shown)
    assert visible(shown) == shown
    shown.encode()


@pytest.mark.parametrize(
    ("text", "shown"),
    [("naïve – 漢字 🎉", "naïve – 漢字 🎉"), ("a\U000e0041", r"a\U000e0041"), ("a\r\n\tb\x1b\r", r"a\r\n\tb\x1b\r")],
)
def test_characters_that_act_show_as_escapes_and_ordinary_text_stays(text: str, shown: str) -> None:
    assert visible(text) == shown
    assert visible_text("a\r\n\tb\x1b\r") == "a\n\tb\\x1b\\r", "text of several lines keeps its line ends and tabs"


def test_the_level_applies_to_our_loggers_and_others_write_warnings() -> None:
    stream = io.StringIO()
    configure("info", "text", stream)
    OURS.debug("no")
    OURS.info("yes")
    logging.getLogger("somebody").info("no")
    logging.getLogger("somebody").warning("yes")
    assert [line.rsplit(" ", 1)[1] for line in stream.getvalue().splitlines()] == ["yes", "yes"]


def test_the_http_servers_loggers_write_our_lines() -> None:
    stream, own = io.StringIO(), io.StringIO()
    logging.getLogger("uvicorn").addHandler(logging.StreamHandler(own))
    configure("info", "text", stream)
    logging.getLogger("uvicorn.error").warning("hello")
    logging.getLogger("uvicorn.access").info("GET /")
    assert (stream.getvalue()[-29:], own.getvalue()) == (" WARNING uvicorn.error hello\n", "")


def test_configuring_again_replaces_the_first_configuration() -> None:
    first, second = io.StringIO(), io.StringIO()
    configure("info", "text", first)
    configure("error", "text", second)
    OURS.error("once")
    assert (first.getvalue(), second.getvalue().count("once")) == ("", 1)
    second.close()
    OURS.error("a closed stream is ignored")


def test_without_a_stream_the_log_follows_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    configure("info")
    OURS.info("here")
    assert capsys.readouterr().err.endswith("here\n")
