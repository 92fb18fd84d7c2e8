"""Where the configuration file may be. Looks whether files exist; never opens one."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from mcp_manifold.config.layers import CONFIG_VARIABLE
from mcp_manifold.config.settings import Settings

MAPPING: Final = "<dict>"
"""The source of settings that did not come from a file."""
LOCAL_NAME: Final = "mcp-manifold.json"


def candidates(environ: Mapping[str, str], platform: str) -> tuple[Path, ...]:
    """The files to try, best first. One that is named by the variable is the only one."""
    named = environ.get(CONFIG_VARIABLE)
    if named:
        return (Path(named).expanduser(),)
    return (Path(LOCAL_NAME), user_directory(environ, platform) / "mcp-manifold" / "config.json")


def user_directory(environ: Mapping[str, str], platform: str) -> Path:
    """Where the user's programs keep their configuration."""
    home = Path(environ.get("HOME") or environ.get("USERPROFILE") or os.path.expanduser("~"))
    if environ.get("XDG_CONFIG_HOME"):
        return Path(environ["XDG_CONFIG_HOME"])
    if platform == "win32":
        return Path(environ.get("APPDATA") or home / "AppData" / "Roaming")
    return home / "Library" / "Application Support" if platform == "darwin" else home / ".config"


def notes_directory(environ: Mapping[str, str] | None = None) -> Path:
    """Where running instances leave their notes; not in XDG_RUNTIME_DIR, which shells have and services often lack."""
    return _state_home(os.environ if environ is None else environ) / "instances"


def catalogue_directory(settings: Settings, environ: Mapping[str, str] | None = None) -> Path | None:
    """Where what servers offer is kept; None where it is not.

    What a program brings along as a mapping is kept only where it says so: a library leaves nothing behind by itself.
    """
    chosen, is_mapping = settings.manifold.state_dir, settings.source == MAPPING
    if not settings.manifold.remember or (chosen is None and is_mapping):
        return None
    if chosen is None:
        return _state_home(os.environ if environ is None else environ) / "catalogue"
    beside = Path() if is_mapping else Path(settings.source).absolute().parent
    return beside / Path(chosen).expanduser() / "catalogue"


def _state_home(environ: Mapping[str, str]) -> Path:
    if environ.get("XDG_STATE_HOME"):
        return Path(environ["XDG_STATE_HOME"]) / "mcp-manifold"
    home = Path(environ.get("HOME") or os.path.expanduser("~"))
    return home / ".local" / "state" / "mcp-manifold"


def find(environ: Mapping[str, str] | None = None) -> Path | None:
    """The configuration file in use when none is named; a file named by the variable counts, existing or not."""
    environ = os.environ if environ is None else environ
    found = candidates(environ, sys.platform)
    if environ.get(CONFIG_VARIABLE):
        return found[0]
    return next((path for path in found if path.is_file()), None)
