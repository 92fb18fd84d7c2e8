"""The collector of a configuration's problems. Every stage of loading adds to it; it points each at its place."""

import typing
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Final, Literal

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from mcp_manifold.config.dialects import Loc, remedy_for
from mcp_manifold.config.document import Document, SourceSpan, dotted
from mcp_manifold.errors import ConfigError, ConfigProblem

MAX_PROBLEMS: Final = 100
"""Problems of one severity that are kept; further ones are counted."""

Severity = Literal["error", "broken", "warning"]

WORDS: Final[Mapping[str, str]] = {
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
"""Our words for the types of validation errors. The library's own may repeat a value, which may be a secret."""


class Diagnostics:
    """The problems of one configuration so far. One error per place is kept: the first causes the others."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._found: dict[ConfigProblem, None] = {}
        self._counts: Counter[Severity] = Counter()
        self._places: set[tuple[int, int]] = set()
        self.faulty: set[str] = set()
        """The servers whose entries have errors."""
        self.unusable: dict[str, ConfigProblem] = {}
        """The first problem of each server that cannot be used."""

    def __repr__(self) -> str:
        return f"<Diagnostics {self._document.path} {len(self._found)} problems>"

    @property
    def is_full(self) -> bool:
        """Whether there are too many errors to list. Further ones are only counted, without a remedy."""
        return max(self._counts["error"], self._counts["broken"]) >= MAX_PROBLEMS

    @property
    def problems(self) -> tuple[ConfigProblem, ...]:
        """The problems in file order. Those without a place in the file come first."""
        found = sorted(self._found, key=lambda problem: (problem.line, problem.column))
        more = {severity: count - MAX_PROBLEMS for severity, count in self._counts.items() if count > MAX_PROBLEMS}
        return (*found, *(ConfigProblem(f"and {count} more of these", severity) for severity, count in more.items()))

    def check(self, *, has_servers: bool = True) -> None:
        """Raise if anything prevents the use of the configuration, such as faulty entries and no other server.

        Raises:
            ConfigError: with all problems found so far.
        """
        if self._counts["error"] or (self.faulty and not has_servers):
            raise ConfigError(problems=self.problems)

    def error(self, what: str, loc: Loc, *, at_key: bool = False, remedy: str = "", server: str = "") -> None:
        """Add an error at the value of `loc`, or at its key. In a server's entry it makes that server unusable."""
        if server:
            self.faulty.add(server)
        self._add(what, loc, "broken" if server else "error", at_key=at_key, remedy=remedy, server=server)

    def unresolved(self, what: str, loc: Loc, *, server: str) -> None:
        """Add a reference that cannot be resolved yet. Its server is unusable until then."""
        self._add(what, loc, "broken", server=server)

    def warning(self, what: str, loc: Loc = (), *, remedy: str = "", server: str = "") -> None:
        """Add a warning at the key of `loc`; without one, at the file as a whole."""
        self._add(what, loc, "warning", at_key=True, remedy=remedy, server=server)

    def fault(self, what: str, place: SourceSpan) -> None:
        """Add a syntax error of the text."""
        self._keep(ConfigProblem(what, file=self._document.path, line=place.line, column=place.column))

    def elsewhere(self, what: str, key: str, *, remedy: str = "", file: str = "", severity: Severity = "error") -> None:
        """Add a problem of a flag or of an environment variable."""
        self._keep(ConfigProblem(what, severity, remedy, file=file, key=key))

    def invalid(
        self,
        exc: ValidationError,
        model: type[BaseModel],
        at: Loc,
        *,
        is_whole: bool,
        server: str = "",
        blame: Callable[[Loc], str] | None = None,
    ) -> None:
        """Add all that `exc` found wrong with the object at `at`, which should be a `model`.

        A check of the whole object counts only if `is_whole`: no key of it was left out for another problem. `blame`
        names the flag or variable that set a value; it is empty for those of the document.
        """
        for found in exc.errors(include_url=False, include_input=False):
            loc, what, remedy, at_key = explained(found, model, with_remedy=not self.is_full)
            if not is_whole and not found["loc"]:
                continue
            culprit = blame(loc) if blame else ""
            if culprit:
                self.elsewhere(what, culprit, remedy=remedy)
                continue
            loc = (*at, *loc)
            is_written = len(self._document.written(loc)) == len(loc)
            shown = self._document.shown(loc) if not at_key and is_written else ""
            self.error(what + shown, loc, at_key=at_key, remedy=remedy, server=server)

    def _add(
        self, what: str, loc: Loc, severity: Severity, *, at_key: bool = False, remedy: str = "", server: str = ""
    ) -> None:
        place = (self._document.place(loc, at_key=at_key) if loc or severity != "warning" else None) or SourceSpan(0, 0)
        key = dotted(self._document.written(loc))
        self._keep(
            ConfigProblem(what, severity, remedy, self._document.path, place.line, place.column, key=key, server=server)
        )

    def _keep(self, problem: ConfigProblem) -> None:
        place = (problem.line, problem.column)
        is_warning = problem.severity == "warning"
        if problem in self._found or (not is_warning and problem.line and place in self._places):
            return
        if not is_warning:
            self._places.add(place)
        if problem.severity == "broken":
            self.unusable.setdefault(problem.server, problem)
        self._counts[problem.severity] += 1
        if self._counts[problem.severity] <= MAX_PROBLEMS:
            self._found[problem] = None


def explained(error: ErrorDetails, model: type[BaseModel], *, with_remedy: bool = True) -> tuple[Loc, str, str, bool]:
    """A validation error as its path by field names, reason, remedy, and whether to point at the key."""
    loc, context = _by_field(error["loc"], model), error.get("ctx", {})
    match error["type"]:
        case "extra_forbidden":
            key = str(loc[-1])
            remedy = remedy_for(key, _keys(model, loc[:-1])) if with_remedy else ""
            return loc, f'unknown key "{key}"', remedy, True
        case "missing":
            return loc[:-1], f'"{loc[-1]}" is missing', "", True
        case "wrong_key":
            return (*loc, context["key"]), context["reason"], "", True
        case "value_error":
            return loc, str(context["error"]), "", _model_at(model, loc) is not None
        case kind:
            words = WORDS[kind].format_map(context) if kind in WORDS else error["msg"]
            return loc, words.replace("'", '"'), "", False


def _keys(model: type[BaseModel], loc: Loc) -> list[str]:
    """The keys of an object at `loc`."""
    inner = _model_at(model, loc)
    return [str(found.alias) for found in inner.model_fields.values()] if inner else []


def _by_field(loc: Loc, model: type[BaseModel]) -> Loc:
    """`loc` by field names instead of aliases."""
    out: list[str | int] = []
    for index, part in enumerate(loc):
        inner = _model_at(model, loc[:index])
        names = {str(found.alias): name for name, found in inner.model_fields.items()} if inner else {}
        out.append(names.get(part, part) if isinstance(part, str) else part)
    return tuple(out)


def _model_at(model: type[BaseModel], loc: Loc) -> type[BaseModel] | None:
    """The model of the object at `loc`; None for a map or a list."""
    here: object = model
    for part in loc:
        if isinstance(here, type) and issubclass(here, BaseModel):
            found = [item.annotation for name, item in here.model_fields.items() if part in (name, item.alias)]
            here = found[0] if found else None
        else:
            here = (typing.get_args(here) or (None,))[1 if typing.get_origin(here) is dict else 0]
    return here if isinstance(here, type) and issubclass(here, BaseModel) else None
