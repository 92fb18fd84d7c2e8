"""The kinds of value a setting can have: durations, sizes, counts, patterns, secrets, names. Names no setting."""

import math
import re
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationInfo
from pydantic.alias_generators import to_camel
from pydantic.json_schema import WithJsonSchema
from pydantic_core import PydanticCustomError

TEXT: Final = "text"
"""The validation context of files, variables and flags: there a number without a unit is in milliseconds."""

UNITS: Final = (("ms", 0.001), ("s", 1.0), ("m", 60.0), ("h", 3600.0))
DURATION: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(ms|s|m|h)?", re.ASCII)
DURATION_HINT: Final = 'expected a duration above zero: a number of milliseconds, or "500ms", "30s", "2m", "1h"'
SIZE: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(?:([kKMGT])(i)?)?B?", re.ASCII)
SIZE_HINT: Final = 'expected a number of bytes, or a text such as "512MB" or "1.5GiB"'
NAME_LENGTH: Final = 64
ANNOTATIONS: Final = ("readOnly", "destructive", "idempotent", "openWorld")
"""The tool annotations that a pattern can test, as in `@readOnly`."""
MAX_PATTERN: Final = 512
"""Characters of the longest pattern."""
MAX_STARS: Final = 16
"""Stars in one pattern. Each star may scan the whole name once, so this bounds the time of a match."""


class Value(BaseModel):
    """Base of all settings: frozen, no unknown keys, camelCase in the file and snake_case in Python."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=to_camel,
        populate_by_name=True,
        hide_input_in_errors=True,
        use_attribute_docstrings=True,
        allow_inf_nan=False,
    )


@dataclass(frozen=True, slots=True)
class Setting:
    """Metadata of a settings field: how a reload applies a change, and which part of the program reads the field."""

    reload: Literal["live", "restart-server", "restart"]
    """`live`: at once. `restart-server`: the server is stopped and started. `restart`: at the next program start."""
    used_by: str
    """The package or module that reads the field, relative to `mcp_manifold`. A test looks for the read."""
    identifies: bool = False
    """Whether what a server offers depends on the field; such fields form its fingerprint."""


def setting_of(model: type[BaseModel], field: str) -> Setting:
    """The metadata of a field.

    Raises:
        LookupError: the field has none.
    """
    for item in model.model_fields[field].metadata:
        if isinstance(item, Setting):
            return item
    raise LookupError(f"{model.__name__}.{field} has no Setting")


def _seconds(value: object, info: ValidationInfo) -> float:
    """Seconds, from Python's seconds, a text with a unit, or (in a text source) a number of milliseconds."""
    if isinstance(value, bool):
        raise ValueError(DURATION_HINT)
    if isinstance(value, str):
        return _positive(_parsed(value.strip()))
    if not isinstance(value, int | float):
        raise ValueError(DURATION_HINT)
    return _positive(value / 1000 if info.context == TEXT else float(value))


def bare_number(value: object) -> float | None:
    """The number of a duration without a unit, which is in milliseconds; None for anything else."""
    if isinstance(value, str):
        found = DURATION.fullmatch(value.strip())
        return float(found[1]) if found and not found[2] else None
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def durations(model: type[BaseModel]) -> frozenset[str]:
    """The fields of `model` that are durations."""
    readers = (_seconds, _seconds_or_zero)
    return frozenset(
        name
        for name, found in model.model_fields.items()
        for item in (*found.metadata, *_metadata(found.annotation))
        if isinstance(item, BeforeValidator) and item.func in readers
    )


def _metadata(annotation: object) -> Iterator[object]:
    """The metadata of the members of an optional type, such as `Duration | None`."""
    for member in typing.get_args(annotation):
        yield from getattr(member, "__metadata__", ())


def _seconds_or_zero(value: object, info: ValidationInfo) -> float:
    """As `_seconds`, but zero is allowed, with or without a unit."""
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
    """Bytes, from a number or a text with a unit."""
    if isinstance(value, str):
        found = SIZE.fullmatch(value.strip())
        if found is None:
            raise ValueError(SIZE_HINT)
        base = 1024 if found[3] else 1000
        return int(float(found[1]) * base ** " KMGT".index(found[2].upper() if found[2] else " "))
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(SIZE_HINT)
    return value


def _not_boolean(value: object) -> object:
    """Refuses `true`, which Python counts as a number."""
    if isinstance(value, bool):
        raise ValueError("expected a whole number")
    return value


def _as_text(value: object) -> object:
    """Turns numbers and booleans into the text they were written as, where only text makes sense (`"PORT": 3000`)."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int | float) else value


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


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


def _pattern(value: str) -> str:
    reason = pattern_problem(value)
    if reason:
        raise ValueError(reason)
    return value


def name_problem(name: str) -> str:
    """The reason why a text cannot name a server or a group; empty when it can."""
    if not name.strip() or len(name) > NAME_LENGTH:
        return f"expected a name of 1 to {NAME_LENGTH} characters"
    if name in (".", ".."):
        return 'a name must not be "." or ".."'
    if not name.isprintable():
        return "a name must not have control characters"
    if "/" in name or "+" in name:
        return 'a name must not have "/" or "+": it is part of an address'
    return ""


def pattern_problem(pattern: str) -> str:
    """The reason why a text is no filter pattern; empty when it is one.

    A pattern is a name, a glob (`*`, `?`, `[...]`), or a test of a tool's annotations, such as `@readOnly`.
    """
    test = pattern.lstrip("!@")
    marks = pattern[: len(pattern) - len(test)]
    if marks in ("@", "!@", "@!"):
        known = ", ".join(f"@{name}" for name in ANNOTATIONS)
        return "" if test in ANNOTATIONS else f"invalid pattern: expected a name, a glob or one of {known}"
    if marks:
        return 'invalid pattern: only tests can be negated, as in "!@readOnly"; use the block list'
    if len(pattern) > MAX_PATTERN or pattern.count("*") > MAX_STARS:
        return f"invalid pattern: longer than {MAX_PATTERN} characters, or more than {MAX_STARS} stars"
    return ""


def _variable_names(value: dict[str, SecretStr]) -> dict[str, SecretStr]:
    for name in value:
        if not name or re.search(r"[=\0]", name):
            raise wrong_key(name, 'expected the name of an environment variable, without "="')
    return value


def _variable_pattern(value: str) -> str:
    if not value or re.search(r"[=\0]", value) or len(value) > MAX_PATTERN or value.count("*") > MAX_STARS:
        raise ValueError('expected the name of an environment variable, or a pattern such as "AWS_*"')
    return value


def wrong_key(key: str, reason: str) -> PydanticCustomError:
    """A validation error that points at `key` of the validated object."""
    return PydanticCustomError("wrong_key", "{reason}", {"key": key, "reason": reason})


def _texts(pattern: str, number: dict[str, object]) -> WithJsonSchema:
    """The JSON Schema of a number, or a text with a unit, or a reference."""
    text = {"type": "string", "pattern": rf"^\s*[0-9]+(\.[0-9]+)?\s*{pattern}\s*$|\$\{{"}
    return WithJsonSchema({"anyOf": [number, text]})


_PLAIN: Final = WithJsonSchema({"type": ["string", "number", "boolean"]})

Duration = Annotated[
    float,
    BeforeValidator(_seconds),
    _texts("(ms|s|m|h)?", {"type": "number", "exclusiveMinimum": 0, "description": "Milliseconds."}),
]
DurationOrZero = Annotated[
    float,
    BeforeValidator(_seconds_or_zero),
    _texts("(ms|s|m|h)?", {"type": "number", "minimum": 0, "description": "Milliseconds."}),
]
Size = Annotated[
    int,
    BeforeValidator(_bytes),
    Field(gt=0),
    _texts("([kKMGT]i?)?B?", {"type": "integer", "exclusiveMinimum": 0, "description": "Bytes."}),
]
NotBoolean: Final = BeforeValidator(_not_boolean)
Lower: Final = BeforeValidator(_lower)
Count = Annotated[int, Field(gt=0), NotBoolean]
CountOrZero = Annotated[int, Field(ge=0), NotBoolean]
Text = Annotated[str, BeforeValidator(_as_text), AfterValidator(_without_null)]
Secret = Annotated[SecretStr, BeforeValidator(_as_text), AfterValidator(_secret_without_null), _PLAIN]
Variables = Annotated[dict[str, Secret], AfterValidator(_variable_names)]
VariablePattern = Annotated[str, AfterValidator(_variable_pattern)]
HeaderValue = Annotated[SecretStr, BeforeValidator(_as_text), AfterValidator(_without_line_end), _PLAIN]
Name = Annotated[str, Field(min_length=1, max_length=NAME_LENGTH), AfterValidator(_name)]
Pattern = Annotated[str, AfterValidator(_pattern)]
