"""What makes one configured server the same as another: where it is and who we are to it. Pure."""

import hashlib
import json
from typing import Final

from pydantic import SecretStr

from mcp_manifold.config.server import ServerSettings

_DEFINING: Final = ("transport", "command", "args", "env", "cwd", "url", "headers", "era")
"""The settings that what a server offers may depend on. Not its name, and nothing of how it is treated or shown."""


def fingerprint(server: ServerSettings) -> str:
    """The same for the same server, as text; nothing that went in can be read out of it.

    Credentials go in, since who has others may be offered other things. Variables of our own environment that its
    process inherits do not.
    """
    said = {name: _plain(getattr(server, name)) for name in _DEFINING}
    text = json.dumps(said, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(f"mcp-manifold server\n{text}".encode("utf-8", "surrogatepass")).hexdigest()[:40]


def _plain(value: object) -> object:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return list(value) if isinstance(value, tuple) else value
