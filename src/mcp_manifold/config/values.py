"""The kinds of value a setting can have: durations, counts, secrets, names. Knows no setting by name and no file."""

import math
import re
from typing import Annotated, Final

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationInfo
from pydantic.alias_generators import to_camel
from pydantic.json_schema import WithJsonSchema

TEXT: Final = "text"
"""The validation context of what users write (file, environment, flags): there a bare duration is in milliseconds."""

UNITS: Final = (("ms", 0.001), ("s", 1.0), ("m", 60.0), ("h", 3600.0))
DURATION: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(ms|s|m|h)?", re.ASCII)
DURATION_HINT: Final = 'expected a duration above zero: a number of milliseconds, or "500ms", "30s", "2m", "1h"'
SIZE: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(?:([kKMGT])(i)?)?B?", re.ASCII)
SIZE_HINT: Final = 'expected a number of bytes, or a text such as "512MB" or "1.5GiB"'
NAME_LENGTH: Final = 64


class Value(BaseModel):
    """Settings are values: frozen, strict about keys, camelCase in the file and snake_case in Python."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=to_camel,
        populate_by_name=True,
        hide_input_in_errors=True,
        use_attribute_docstrings=True,
        allow_inf_nan=False,
    )


def _seconds(value: object, info: ValidationInfo) -> float:
    """Seconds, from Python's seconds, a text with a unit, or (in texts) a number of milliseconds."""
    if isinstance(value, bool):
        raise ValueError(DURATION_HINT)
    if isinstance(value, str):
        return _positive(_parsed(value.strip()))
    if not isinstance(value, int | float):
        raise ValueError(DURATION_HINT)
    return _positive(value / 1000 if info.context == TEXT else float(value))


def _seconds_or_none(value: object, info: ValidationInfo) -> float:
    """As `_seconds`; zero, with or without a unit, is for never."""
    text = value.strip() if isinstance(value, str) else value
    if isinstance(text, str) and DURATION.fullmatch(text) and _parsed(text) == 0:
        return 0.0
    return 0.0 if not isinstance(value, bool) and value == 0 else _seconds(value, info)


def _parsed(text: str) -> float:
    found = DURATION.fullmatch(text)
    if found is None:
        raise ValueError(DURATION_HINT)
    return float(found[1]) * dict(UNITS)[found[2] or "ms"]


def _positive(seconds: float) -> float:
    if not (seconds > 0 and math.isfinite(seconds)):
        raise ValueError(DURATION_HINT)
    return seconds


def _bytes(value: object) -> object:
    """A number of bytes, or a text with a unit."""
    if isinstance(value, str):
        found = SIZE.fullmatch(value.strip())
        if found is None:
            raise ValueError(SIZE_HINT)
        base = 1024 if found[3] else 1000
        return int(float(found[1]) * base ** " KMGT".index(found[2].upper() if found[2] else " "))
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(SIZE_HINT)
    return value


def _whole(value: object) -> object:
    """`true` is no number, though Python says it is one."""
    if isinstance(value, bool):
        raise ValueError("expected a whole number")
    return value


def _as_text(value: object) -> object:
    """Numbers and booleans where only text makes sense (`"PORT": 3000`) become the text they were written as."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int | float) else value


def _without_null(value: str) -> str:
    if "\0" in value:
        raise ValueError("expected text without NUL characters")
    return value


def _secret_without_null(value: SecretStr) -> SecretStr:
    _without_null(value.get_secret_value())
    return value


def _without_line_end(value: SecretStr) -> SecretStr:
    if re.search(r"[\r\n\0]", value.get_secret_value()):
        raise ValueError("expected text on one line, without control characters")
    return value


def _name(value: str) -> str:
    reason = name_problem(value)
    if reason:
        raise ValueError(reason)
    return value


def name_problem(name: str) -> str:
    """Why this cannot name a server or a group; empty when it can."""
    if not name.strip() or len(name) > NAME_LENGTH:
        return f"expected a name of 1 to {NAME_LENGTH} characters"
    if name in (".", ".."):
        return 'a name must not be "." or ".."'
    if not name.isprintable():
        return "a name must not have control characters"
    if "/" in name or "+" in name:
        return 'a name must not have "/" or "+": it is part of an address'
    return ""


Duration = Annotated[
    float,
    BeforeValidator(_seconds),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "number", "exclusiveMinimum": 0, "description": "Milliseconds."},
                {"type": "string", "pattern": r"^\s*[0-9]+(\.[0-9]+)?\s*(ms|s|m|h)?\s*$|\$\{"},
            ]
        }
    ),
]
DurationOrNone = Annotated[
    float,
    BeforeValidator(_seconds_or_none),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "number", "minimum": 0, "description": "Milliseconds."},
                {"type": "string", "pattern": r"^\s*[0-9]+(\.[0-9]+)?\s*(ms|s|m|h)?\s*$|\$\{"},
            ]
        }
    ),
]
Size = Annotated[
    int,
    BeforeValidator(_bytes),
    Field(gt=0),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "exclusiveMinimum": 0, "description": "Bytes."},
                {"type": "string", "pattern": r"^\s*[0-9]+(\.[0-9]+)?\s*([kKMGT]i?)?B?\s*$|\$\{"},
            ]
        }
    ),
]
NotBoolean: Final = BeforeValidator(_whole)
Count = Annotated[int, Field(gt=0), NotBoolean]
CountOrNone = Annotated[int, Field(ge=0), NotBoolean]
Text = Annotated[str, BeforeValidator(_as_text), AfterValidator(_without_null)]
Secret = Annotated[
    SecretStr,
    BeforeValidator(_as_text),
    AfterValidator(_secret_without_null),
    WithJsonSchema({"type": ["string", "number", "boolean"]}),
]
HeaderValue = Annotated[
    SecretStr,
    BeforeValidator(_as_text),
    AfterValidator(_without_line_end),
    WithJsonSchema({"type": ["string", "number", "boolean"]}),
]
Name = Annotated[str, Field(min_length=1, max_length=NAME_LENGTH), AfterValidator(_name)]
