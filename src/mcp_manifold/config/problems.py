"""What validation found, in words a user can act on. Knows the models' shape; never repeats a value."""

import typing
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final, Self

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from mcp_manifold.config.dialects import unknown
from mcp_manifold.config.document import Document
from mcp_manifold.config.spans import Loc
from mcp_manifold.errors import ConfigError

WORDS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "string_type": "expected text in quotes",
        "string_too_short": "expected some text",
        "string_too_long": "expected at most {max_length} characters",
        "int_type": "expected a whole number",
        "int_parsing": "expected a whole number",
        "int_from_float": "expected a whole number",
        "bool_type": "expected true or false",
        "bool_parsing": "expected true or false",
        "tuple_type": "expected a list in [ ]",
        "dict_type": "expected an object in {{ }}",
        "model_type": "expected an object in {{ }}",
        "model_attributes_type": "expected an object in {{ }}",
        "literal_error": "expected {expected}",
        "greater_than": "expected a number above {gt}",
        "greater_than_equal": "expected a number of at least {ge}",
        "less_than_equal": "expected a number of at most {le}",
    }
)


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong, and where. `is_value` when it is the value that is wrong, not the key."""

    loc: Loc
    reason: str
    is_value: bool = True

    def below(self, loc: Loc) -> Self:
        """The same problem, seen from further up."""
        return replace(self, loc=(*loc, *self.loc))

    def error(self, document: Document, *, server: str = "") -> ConfigError:
        """The error to raise; it shows the value where that can be no secret."""
        shown = document.shown(self.loc) if self.is_value and len(document.written(self.loc)) == len(self.loc) else ""
        return document.error(self.reason + shown, self.loc, at_key=not self.is_value, server=server)


def first_of(document: Document, found: list[Problem]) -> Problem:
    """The problem a reader of the document meets first."""

    def position(problem: Problem) -> tuple[int, int]:
        place = document.place(problem.loc, at_key=not problem.is_value)
        return (place.line, place.column) if place else (0, 0)

    return min(found, key=position)


def problems(exc: ValidationError, model: type[BaseModel]) -> list[Problem]:
    """All that `exc` found wrong with what should have been a `model`."""
    return [_problem(error, model) for error in exc.errors(include_url=False, include_input=False)]


def _problem(error: ErrorDetails, model: type[BaseModel]) -> Problem:
    loc, context = _named(error["loc"], model), error.get("ctx", {})
    match error["type"]:
        case "extra_forbidden":
            return Problem(loc, unknown(str(loc[-1]), _keys(model, loc[:-1])), is_value=False)
        case "missing":
            return Problem(loc[:-1], f'"{loc[-1]}" is missing', is_value=False)
        case "misfit":
            return Problem((*loc, context["key"]), context["reason"], is_value=False)
        case "value_error":
            return Problem(loc, str(context["error"]), is_value=_model_at(model, loc) is None)
        case kind:
            words = WORDS[kind].format_map(context) if kind in WORDS else error["msg"]
            return Problem(loc, words.replace("'", '"'))


def _keys(model: type[BaseModel], loc: Loc) -> list[str]:
    """The keys an object at `loc` can have."""
    inner = _model_at(model, loc)
    return [str(found.alias) for found in inner.model_fields.values()] if inner else []


def _named(loc: Loc, model: type[BaseModel]) -> Loc:
    """`loc` by field names instead of aliases, so that it can be looked up whichever way it was spelled."""
    out: list[str | int] = []
    for index, part in enumerate(loc):
        inner = _model_at(model, loc[:index])
        names = {str(found.alias): name for name, found in inner.model_fields.items()} if inner else {}
        out.append(names.get(part, part) if isinstance(part, str) else part)
    return tuple(out)


def _model_at(model: type[BaseModel], loc: Loc) -> type[BaseModel] | None:
    """The model of the object at `loc`; None where that is no model, but a map from names or a list."""
    here: object = model
    for part in loc:
        if isinstance(here, type) and issubclass(here, BaseModel):
            found = [item.annotation for name, item in here.model_fields.items() if part in (name, item.alias)]
            here = found[0] if found else None
        else:
            here = (typing.get_args(here) or (None,))[1 if typing.get_origin(here) is dict else 0]
    return here if isinstance(here, type) and issubclass(here, BaseModel) else None
