"""What a child process inherits of our environment: a short list, so that no secret of ours leaks out (S37)."""

import os
import sys
from typing import Final

PREFIX: Final = "MCP_MANIFOLD_"
"""What the names of our own variables begin with."""
MARK: Final = "MCP_MANIFOLD_PARENT"
"""By which a process is known as a manifold's: `<pid>:<start time>` of that. No setting, though it looks like one."""
INHERITED: Final = (
    (
        "APPDATA",
        "HOMEDRIVE",
        "HOMEPATH",
        "LOCALAPPDATA",
        "PATH",
        "PATHEXT",
        "PROCESSOR_ARCHITECTURE",
        "SYSTEMDRIVE",
        "SYSTEMROOT",
        "TEMP",
        "USERNAME",
        "USERPROFILE",
    )
    if sys.platform == "win32"
    else ("HOME", "LOGNAME", "PATH", "SHELL", "TERM", "USER")
)
"""The SDK's own list (`mcp.client.stdio.DEFAULT_INHERITED_ENV_VARS`); a contract test holds the two together."""


def login_shell() -> str:
    """The user's shell; empty on Windows, where there is no such thing."""
    return "" if sys.platform == "win32" else os.environ.get("SHELL") or "/bin/sh"


def inherited() -> dict[str, str]:
    """The variables a server gets without being configured; shell functions among them are left out."""
    found = {name: os.environ[name] for name in INHERITED if name in os.environ}
    return {name: value for name, value in found.items() if not value.startswith("()")}
