"""Configuration: settings as frozen values, and where they come from. The only reader of environment and files."""

from mcp_manifold.config.compare import Plan, Reloaded, outcome, plan
from mcp_manifold.config.files import Stamps, directories, stamps
from mcp_manifold.config.load import load, load_dict
from mcp_manifold.config.locations import find
from mcp_manifold.config.schema import schema
from mcp_manifold.config.settings import (
    BrokenServer,
    FilterSettings,
    LimitSettings,
    ManifoldSettings,
    OverrideSettings,
    OverridesSettings,
    ServerSettings,
    Settings,
    TokenSettings,
)

__all__ = [
    "BrokenServer",
    "FilterSettings",
    "LimitSettings",
    "ManifoldSettings",
    "OverrideSettings",
    "OverridesSettings",
    "Plan",
    "Reloaded",
    "ServerSettings",
    "Settings",
    "Stamps",
    "TokenSettings",
    "directories",
    "find",
    "load",
    "load_dict",
    "outcome",
    "plan",
    "schema",
    "stamps",
]
