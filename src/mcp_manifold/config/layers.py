"""Where the endpoint's own settings come from, and which wins: flags, environment, `.env`, file. Knows no server."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)
from pydantic_settings.exceptions import SettingsError

from mcp_manifold.config.dialects import by_name
from mcp_manifold.config.document import did_you_mean
from mcp_manifold.config.settings import ManifoldSettings
from mcp_manifold.config.syntax import Loc
from mcp_manifold.errors import ConfigError

PREFIX: Final = "MCP_MANIFOLD_"
CONFIG_VARIABLE: Final = "MCP_MANIFOLD_CONFIG"
LISTS: Final = ("tokens", "allowed_hosts", "allowed_origins")
OBJECTS: Final = ("limits", "groups")


class Sources(BaseSettings):
    """What the sources say, merged and not yet validated: a field of `ManifoldSettings` each, mostly texts."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_nested_delimiter="__", env_ignore_empty=True, extra="allow", hide_input_in_errors=True
    )

    name: Any = None
    instructions: Any = None
    host: Any = None
    port: Any = None
    base_path: Any = None
    separator: Any = None
    name_budget: Any = None
    startup_timeout: Any = None
    groups: Any = None
    tokens: Any = None
    insecure: Any = None
    allowed_hosts: Any = None
    allowed_origins: Any = None
    drain: Any = None
    limits: Any = None
    log_level: Any = None
    log_format: Any = None
    list_timeout: Any = None
