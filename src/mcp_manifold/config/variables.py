"""Settings from `MCP_MANIFOLD_*` variables, as `pydantic-settings` reads them. Knows no file and no flag.

Imported when there is such a variable: the library takes a while to import, and most programs are not configured so.
"""

import json
from collections.abc import Mapping
from typing import Any, Final

from pydantic import create_model
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, EnvSettingsSource, SettingsConfigDict

from mcp_manifold.config.dialects import Misfit, by_name
from mcp_manifold.config.environment import PREFIX
from mcp_manifold.config.settings import ManifoldSettings
from mcp_manifold.errors import ConfigError

LISTS: Final = ("tokens", "allowed_hosts", "allowed_origins")
OBJECTS: Final = ("limits", "groups")


def settings_in(values: Mapping[str, str]) -> dict[str, Any]:
    """What these variables, which are all ours, say by field name. An empty one counts as not set.

    Raises:
        ConfigError: one cannot be read.
    """
    return _Variables(_collecting(), values)()


class _Collector(BaseSettings):
    model_config = SettingsConfigDict(
        env_prefix=PREFIX.lower(), env_nested_delimiter="__", case_sensitive=True, extra="allow"
    )


def _collecting() -> type[BaseSettings]:
    """A field for each of ours that takes anything: it is collected here, and `ManifoldSettings` judges."""
    fields: dict[str, Any] = {name: (_taking(name), None) for name in ManifoldSettings.model_fields}
    return create_model("Sources", __base__=_Collector, **fields)


def _taking(name: str) -> object:
    return dict[str, Any] | Any if name in OBJECTS else Any


class _Variables(EnvSettingsSource):
    def __init__(self, settings: type[BaseSettings], values: Mapping[str, str]) -> None:
        super().__init__(settings)
        self.env_vars = {name.lower(): value for name, value in values.items() if value}

    def __call__(self) -> dict[str, Any]:
        try:
            return by_name(super().__call__(), ManifoldSettings)
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
