"""The deadlines of one backend's requests, from its settings. Pure."""

from dataclasses import dataclass
from math import inf

from mcp_manifold import wire
from mcp_manifold.config import OverrideSettings, ServerSettings
from mcp_manifold.wire import Payload


@dataclass(frozen=True, slots=True)
class Patience:
    """`timeout`: seconds without an answer or progress. `ceiling`: seconds in total; inf for no limit."""

    timeout: float
    ceiling: float = inf


class Deadlines:
    """The Patience for each item of a server. `special` holds those of overrides, and is mostly empty."""

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
        """The Patience for a request; names and URIs are native."""
        key = "uri" if method == "resources/read" else "name"
        if not self.special or key not in params:
            return self.usual
        return self.special.get((method, wire.text(params[key], key)), self.usual)

    def _with(self, override: OverrideSettings) -> Patience:
        timeout = self.usual.timeout if override.timeout is None else override.timeout
        ceiling = self.usual.ceiling if override.max_timeout is None else override.max_timeout or inf
        return Patience(timeout, ceiling)
