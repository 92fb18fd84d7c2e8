"""Where the endpoint's own settings come from, and which wins: flags, environment, `.env`, file. Knows no server."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from pydantic import BaseModel, SecretStr, create_model
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from mcp_manifold.config.dialects import Misfit, by_name
from mcp_manifold.config.document import did_you_mean
from mcp_manifold.config.environment import MARK
from mcp_manifold.config.settings import ManifoldSettings
from mcp_manifold.config.syntax import Loc
from mcp_manifold.errors import ConfigError

PREFIX: Final = "MCP_MANIFOLD_"
CONFIG_VARIABLE: Final = "MCP_MANIFOLD_CONFIG"
"""Where the file is: not a setting, but a variable of ours all the same."""

LISTS: Final = ("tokens", "allowed_hosts", "allowed_origins")
OBJECTS: Final = ("limits", "groups")


@dataclass(frozen=True, slots=True)
class Layers:
    """What each source says, by field name, in order of precedence; the texts in it are not validated yet."""

    flags: Mapping[str, object] = field(repr=False)
    environ: Mapping[str, str] = field(repr=False)
    dotenv: Mapping[str, str] = field(repr=False)
    file: Mapping[str, object] = field(repr=False)
    dotenv_path: str = ""

    def merged(self) -> dict[str, object]:
        """The settings with those of higher precedence on top; objects are merged key by key.

        Raises:
            ConfigError: a variable cannot be read, or a flag is not known.
        """
        layers = self

        class Merged(_Collector):
            @classmethod
            def settings_customise_sources(
                cls, settings_cls: type[BaseSettings], *_: object, **__: object
            ) -> tuple[PydanticBaseSettingsSource, ...]:
                return layers._sources(settings_cls)

        return dict(_collecting(Merged)().model_dump(exclude_unset=True))

    def blame(self, loc: Loc) -> str:
        """The flag or variable that said what is at `loc`; empty when it was the file."""
        if not loc:
            return ""
        flags, environ, dotenv, _ = (source() for source in self._sources(_collecting(_Collector)))
        if _has(flags, loc):
            return f"--{str(loc[0]).replace('_', '-')}"
        if _has(environ, loc):
            return _variable(loc, self.environ)
        return f"{_variable(loc, self.dotenv)} in {self.dotenv_path}" if _has(dotenv, loc) else ""

    def warnings(self) -> tuple[str, ...]:
        """What to say of variables that look like ours and are not."""
        sources = ((self.environ, "environment"), (self.dotenv, self.dotenv_path))
        return tuple(f"{place}: {text}" for values, place in sources for text in _strangers(values))

    def _sources(self, settings: type[BaseSettings]) -> tuple[PydanticBaseSettingsSource, ...]:
        try:
            flags = by_name(
                {key: value for key, value in self.flags.items() if value not in (None, ())}, ManifoldSettings
            )
        except Misfit as exc:
            raise ConfigError(f"--{exc.key}: {exc.reason}") from None
        return (
            InitSettingsSource(settings, _hidden(flags)),
            _Variables(settings, self.environ),
            _Variables(settings, self.dotenv),
            InitSettingsSource(settings, _hidden(self.file)),
        )


class _Collector(BaseSettings):
    model_config = SettingsConfigDict(
        env_prefix=PREFIX.lower(), env_nested_delimiter="__", case_sensitive=True, extra="allow"
    )


def _collecting(base: type[BaseSettings]) -> type[BaseSettings]:
    """`base` with a field for each of ours that takes anything: sources collect here, `ManifoldSettings` judges."""
    fields: dict[str, Any] = {name: (_taking(name), None) for name in ManifoldSettings.model_fields}
    return create_model("Sources", __base__=base, **fields)


def _taking(name: str) -> object:
    return dict[str, Any] | Any if name in OBJECTS else Any


class _Variables(EnvSettingsSource):
    """Settings from `MCP_MANIFOLD_*` variables, wherever those are from. An empty one counts as not set."""

    def __init__(self, settings: type[BaseSettings], values: Mapping[str, str]) -> None:
        super().__init__(settings)
        self.env_vars = {name.lower(): value for name, value in values.items() if name.upper() in VARIABLES and value}

    def __call__(self) -> dict[str, Any]:
        try:
            return _hidden(by_name(super().__call__(), ManifoldSettings))
        except Misfit as exc:
            raise ConfigError(f"{PREFIX}LIMITS: {exc.reason} ({exc.key})") from None

    def prepare_field_value(self, field_name: str, field: FieldInfo, value: Any, value_is_complex: bool) -> Any:
        """The value of one variable: a text, but for those that hold JSON or a list."""
        name = PREFIX + field_name.upper()
        if field_name in LISTS:
            return _listed(name, value) if value else None
        found = super().prepare_field_value(field_name, field, value, value_is_complex)
        if field_name in OBJECTS and found is not None and not isinstance(found, dict):
            raise ConfigError(f"{name}: expected a JSON object")
        return found

    def decode_complex_value(self, field_name: str, field: FieldInfo, value: Any) -> Any:
        """The JSON of a variable, by field name, so that variables for single keys of it can be laid on top."""
        found = super().decode_complex_value(field_name, field, value)
        return by_name({field_name: found}, ManifoldSettings)[field_name]


def _listed(name: str, text: str) -> list[object]:
    if not text.lstrip().startswith("["):
        return [part.strip() for part in text.split(",") if part.strip()]
    try:
        found = json.loads(text)
    except ValueError:
        raise ConfigError(f"{name}: expected a JSON list, or values with commas between them") from None
    return list(found)


def _hidden(values: Mapping[str, object]) -> dict[str, Any]:
    """The values with their tokens wrapped, so that no `repr` on the way shows them."""
    tokens = values.get("tokens")
    if not isinstance(tokens, list | tuple):
        return dict(values)
    return {**values, "tokens": [_hidden_token(token) for token in tokens]}


def _hidden_token(token: object) -> object:
    if isinstance(token, str):
        return SecretStr(token)
    if isinstance(token, Mapping) and isinstance(token.get("token"), str):
        return {**token, "token": SecretStr(token["token"])}
    return token


def _known_variables() -> Iterator[tuple[str, Loc]]:
    for name, found in ManifoldSettings.model_fields.items():
        yield PREFIX + name.upper(), (name,)
        inner = found.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            for below in inner.model_fields:
                yield f"{PREFIX}{name.upper()}__{below.upper()}", (name, below)


VARIABLES: Final[Mapping[str, Loc]] = MappingProxyType(dict(_known_variables()))


def _variable(loc: Loc, values: Mapping[str, str]) -> str:
    """The name of the variable that set `loc`: the most particular one that is set."""
    is_set = {name.upper() for name, value in values.items() if value}
    names = [name for name, at in VARIABLES.items() if name in is_set and loc[: len(at)] == at]
    return max(names, key=len, default=PREFIX + str(loc[0]).upper())


def _strangers(values: Mapping[str, str]) -> Iterator[str]:
    for name in sorted(values):
        if name.upper().startswith(PREFIX) and name.upper() not in (*VARIABLES, CONFIG_VARIABLE, MARK):
            yield f'unknown variable "{name}" is ignored{did_you_mean(name, VARIABLES)}'


def _has(values: object, loc: Loc) -> bool:
    """Whether `loc` is in there, or as much of it as one source decides alone: lists are not merged."""
    for part in loc:
        if not isinstance(values, Mapping):
            return True
        if part not in values:
            return False
        values = values[part]
    return True
