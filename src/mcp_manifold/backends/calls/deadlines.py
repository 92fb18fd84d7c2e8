"""How long each request of one backend may take. Pure: settings in, seconds out."""

from dataclasses import dataclass
from math import inf

from mcp_manifold import wire
from mcp_manifold.config import OverrideSettings, ServerSettings
from mcp_manifold.wire import Payload


@dataclass(frozen=True, slots=True)
class Patience:
    """`timeout`: seconds without an answer, started anew by progress. `ceiling`: seconds in all; inf for no bound."""

    timeout: float
    ceiling: float = inf


class Deadlines:
    """The patience with each item of a server. `special` is empty where they are all alike, as they mostly are."""

    __slots__ = ("special", "usual")

    def __init__(self, server: ServerSettings) -> None:
        self.usual = Patience(server.timeout, server.max_timeout or inf)
        overrides = server.overrides
        groups = (
            ("tools/call", overrides.tools),
            ("prompts/get", overrides.prompts),
            ("resources/read", overrides.resources),
        )
        self.special = {
            (method, native): self._with(override)
            for method, items in groups
            for native, override in items.items()
            if override.timeout is not None or override.max_timeout is not None
        }

    def __repr__(self) -> str:
        return f"<Deadlines {self.usual} special={len(self.special)}>"

    def of(self, method: str, params: dict[str, Payload]) -> Patience:
        """The patience with a request; names and URIs are the backend's own."""
        key = "uri" if method == "resources/read" else "name"
        if not self.special or key not in params:
            return self.usual
        return self.special.get((method, wire.text(params[key], key)), self.usual)

    def _with(self, override: OverrideSettings) -> Patience:
        timeout = self.usual.timeout if override.timeout is None else override.timeout
        ceiling = self.usual.ceiling if override.max_timeout is None else override.max_timeout or inf
        return Patience(timeout, ceiling)
