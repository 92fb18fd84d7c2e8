"""What is taken from our surroundings: what a child process inherits, a short list so that no secret of ours leaks
out (S37), and how much memory there is.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
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


CGROUPS: Final = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
"""Where Linux says how much memory a container may have: of version 2, of version 1."""


def memory_given(limits: Sequence[Path] = CGROUPS) -> int:
    """Bytes of memory this process may have: what the machine has, or less where a container is given less."""
    try:
        found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    except (AttributeError, ValueError, OSError):  # Windows, and whoever does not tell
        found = [8 << 30]
    for path in limits:
        try:
            told = path.read_text().strip()
        except OSError:
            continue
        if told.isdigit():
            found.append(int(told))
    return min(found)


def login_shell() -> str:
    """The user's shell; empty on Windows, where there is no such thing."""
    return "" if sys.platform == "win32" else os.environ.get("SHELL") or "/bin/sh"


def inherited() -> dict[str, str]:
    """The variables a server gets without being configured; shell functions among them are left out."""
    found = {name: os.environ[name] for name in INHERITED if name in os.environ}
    return {name: value for name, value in found.items() if not value.startswith("()")}
