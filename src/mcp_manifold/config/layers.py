"""The layers of the endpoint's settings: flags over environment over `.env` over file, merged by `pydantic-settings`.

Imported only if there is a flag or a variable: the library takes a fifth of a second to import.
"""

import json
import typing
from collections.abc import Mapping
from typing import Any, Final

from pydantic import BaseModel, create_model
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, EnvSettingsSource, InitSettingsSource, SettingsConfigDict
from pydantic_settings.sources import PydanticBaseSettingsSource

from mcp_manifold.config.diagnostics import Diagnostics
from mcp_manifold.config.dialects import Loc, by_field
from mcp_manifold.config.environment import PREFIX, VARIABLES, own_variables
from mcp_manifold.config.settings import ManifoldSettings


class _Base(BaseSettings):
    model_config = SettingsConfigDict(
        env_prefix=PREFIX.lower(), env_nested_delimiter="__", case_sensitive=True, extra="allow"
    )


def _shape(found: FieldInfo) -> str:
    """`object`, `list` or `text`: the notation of a field in a variable."""
    origin = typing.get_origin(found.annotation) or found.annotation
    is_object = origin is dict or (isinstance(origin, type) and issubclass(origin, BaseModel))
    return "object" if is_object else "list" if origin is tuple else "text"


_SHAPES: Final = {name: _shape(found) for name, found in ManifoldSettings.model_fields.items()}
_FIELDS: Final[dict[str, Any]] = {
    name: (dict[str, Any] | Any if shape == "object" else Any, None) for name, shape in _SHAPES.items()
}
"""A field of any type for each setting: values are merged here, and validated by `ManifoldSettings`."""


_Fields: Final = create_model("_Fields", __base__=_Base, **_FIELDS)


class Layers:
    """What each source sets, by field name. Merges the sources, and names the source of a value."""

    def __init__(
        self,
        flags: Mapping[str, object],
        environ: Mapping[str, str],
        dotenv: Mapping[str, str],
        file: Mapping[str, object],
        dotenv_path: str,
        diagnostics: Diagnostics,
    ) -> None:
        self._environ = environ
        self._dotenv = dotenv
        self._dotenv_path = dotenv_path
        self._sources: tuple[PydanticBaseSettingsSource, ...] = (
            InitSettingsSource(_Fields, dict(flags)),
            _Variables(_Fields, environ, diagnostics),
            _Variables(_Fields, dotenv, diagnostics, f" in {dotenv_path}"),
            InitSettingsSource(_Fields, dict(file)),
        )

    def __repr__(self) -> str:
        return f"<Layers {len(self._sources)} sources>"

    def merged(self) -> dict[str, Any]:
        """The settings of all sources, the strongest first. Objects are merged key by key, lists are replaced.

        A variable that cannot be read is reported, and counts as unset.
        """
        sources = self._sources

        class Layered(_Base):
            @classmethod
            def settings_customise_sources(cls, *_: object, **__: object) -> tuple[PydanticBaseSettingsSource, ...]:
                """The sources, strongest first."""
                return sources

        return create_model("Sources", __base__=Layered, **_FIELDS)().model_dump(exclude_unset=True)

    def blame(self, loc: Loc) -> str:
        """The flag or variable that set the value at `loc`; empty if the file did."""
        if not loc:
            return ""
        flags, environ, dotenv, _ = (source() for source in self._sources)
        if _has(flags, loc):
            return f"--{str(loc[0]).replace('_', '-')}"
        if _has(environ, loc):
            return _variable(loc, self._environ)
        return f"{_variable(loc, self._dotenv)} in {self._dotenv_path}" if _has(dotenv, loc) else ""


class _Variables(EnvSettingsSource):
    """The settings in environment variables, some of which hold lists or JSON."""

    def __init__(
        self, settings: type[BaseSettings], values: Mapping[str, str], diagnostics: Diagnostics, suffix: str = ""
    ) -> None:
        super().__init__(settings)
        self.env_vars = {name.lower(): value for name, value in own_variables(values).items()}
        self._diagnostics = diagnostics
        self._suffix = suffix

    def __call__(self) -> dict[str, Any]:
        return by_field(super().__call__(), ManifoldSettings, self._twice)

    def prepare_field_value(self, field_name: str, field: FieldInfo, value: Any, value_is_complex: bool) -> Any:
        """The value of one setting: a text, a list (with commas or as JSON), or a JSON object."""
        shape = _SHAPES[field_name]
        if shape == "list":
            return self._listed(field_name, value) if value else None
        found = super().prepare_field_value(field_name, field, value, value_is_complex)
        if shape == "object" and found is not None and not isinstance(found, dict):
            self._report(field_name, "expected a JSON object")
            return None
        return found

    def decode_complex_value(self, field_name: str, field: FieldInfo, value: Any) -> Any:
        """The JSON of a variable, keyed by field name, so that variables for single keys can be merged into it."""
        found = super().decode_complex_value(field_name, field, value)
        return by_field({field_name: found}, ManifoldSettings, self._twice)[field_name]

    def _listed(self, field_name: str, text: str) -> list[object] | None:
        if not text.lstrip().startswith("["):
            return [part.strip() for part in text.split(",") if part.strip()]
        try:
            return list(json.loads(text))
        except (ValueError, RecursionError):
            self._report(field_name, "expected a JSON list, or values with commas between them")
            return None

    def _twice(self, loc: Loc) -> None:
        self._report(str(loc[0]), f"the setting is given twice, in two spellings ({loc[-1]})")

    def _report(self, field_name: str, what: str) -> None:
        self._diagnostics.elsewhere(what, f"{PREFIX}{field_name.upper()}{self._suffix}")


def _variable(loc: Loc, values: Mapping[str, str]) -> str:
    """The variable that set `loc`: the most specific one that is set."""
    is_set = own_variables(values)
    names = [name for name, at in VARIABLES.items() if name in is_set and loc[: len(at)] == at]
    return max(names, key=len, default=PREFIX + str(loc[0]).upper())


def _has(values: object, loc: Loc) -> bool:
    """Whether a source sets `loc`, or the list it is in: lists are not merged."""
    for part in loc:
        if not isinstance(values, Mapping):
            return True
        if part not in values:
            return False
        values = values[part]
    return True
