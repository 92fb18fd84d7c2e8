"""Configuration: settings as frozen values, and their sources. Only this package reads the environment and files.

`settings` has every key with its default. `load` is the pipeline: `document` (text to tree) -> `dialects` (keys) ->
`environment` (references) -> `layers` (precedence) -> `settings`; `diagnostics` collects the problems of all stages.
"""

from mcp_manifold.config.compare import Plan, Reloaded, plan_reload, reload_outcome
from mcp_manifold.config.document import Stamps, directories, find, stamps
from mcp_manifold.config.load import READ_TIMEOUT, begin_load, given_up, load, load_dict
from mcp_manifold.config.schema import json_schema
from mcp_manifold.config.settings import (
    BrokenServer,
    FilterSettings,
    LimitSettings,
    ManifoldSettings,
    OverrideSettings,
    ServerSettings,
    Settings,
    TokenSettings,
)

__all__ = [
    "READ_TIMEOUT",
    "BrokenServer",
    "FilterSettings",
    "LimitSettings",
    "ManifoldSettings",
    "OverrideSettings",
    "Plan",
    "Reloaded",
    "ServerSettings",
    "Settings",
    "Stamps",
    "TokenSettings",
    "begin_load",
    "directories",
    "find",
    "given_up",
    "json_schema",
    "load",
    "load_dict",
    "plan_reload",
    "reload_outcome",
    "stamps",
]
