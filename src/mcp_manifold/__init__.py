"""One MCP endpoint in front of many MCP servers.

    from mcp_manifold import Manifold

`Manifold` and `ServerStatus` are imported on first use, so that `mcp-manifold --help` need not wait for the SDK.
"""

from typing import TYPE_CHECKING, Final

from mcp_manifold.errors import (
    BackendError,
    BackendLost,
    BackendProtocolError,
    BackendTimeout,
    BackendUnavailable,
    ConfigError,
    ManifoldError,
    RemoteError,
    RequestError,
)

if TYPE_CHECKING:
    from mcp_manifold.app.manifold import Manifold
    from mcp_manifold.core.status import ServerStatus

__all__ = [
    "BackendError",
    "BackendLost",
    "BackendProtocolError",
    "BackendTimeout",
    "BackendUnavailable",
    "ConfigError",
    "Manifold",
    "ManifoldError",
    "RemoteError",
    "RequestError",
    "ServerStatus",
]

_LAZY: Final = {"Manifold": "mcp_manifold.app.manifold", "ServerStatus": "mcp_manifold.core.status"}


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib  # noqa: PLC0415 - only the heavy names need it

    return getattr(importlib.import_module(_LAZY[name]), name)
