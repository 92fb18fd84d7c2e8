"""The deadlines of one backend's requests, and whether a failed one may be sent a second time. Pure.

A request with an unknown outcome may have taken effect, so it must not take effect twice. These requests are
sent a second time, and no more:

* those that certainly did not reach the backend: the connection was refused, or closed before a byte was written;
* those whose method only reads: resources, prompts, completions, the state of a task;
* a `tools/call` without an answer, if the tool declares that it can be repeated (`idempotentHint`, `readOnlyHint`) and
  the configuration trusts that (`retry: idempotent`).

A request that was answered with an error, or timed out, is not sent again.
"""

from dataclasses import dataclass
from math import inf
from typing import Final, Literal

import msgspec

from mcp_manifold import wire
from mcp_manifold.config import OverrideSettings, ServerSettings
from mcp_manifold.errors import BackendError, BackendLost, BackendUnavailable
from mcp_manifold.model.catalogue import Listing
from mcp_manifold.wire import Payload

RetrySetting = Literal["never", "safe", "idempotent"]

PAUSE: Final = 0.2
"""Seconds before a second attempt: a server that restarts needs a moment."""
READS: Final = frozenset({"resources/read", "prompts/get", "completion/complete", "tasks/get", "tasks/list"})
"""Methods that only read."""
_GATEWAY: Final = frozenset({0, 502, 503, 504})
"""HTTP statuses of a gateway without a server behind it; 0 is no status at all."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a request may take: `timeout` seconds without an answer or progress, `ceiling` seconds in total."""

    timeout: float
    ceiling: float = inf


class Deadlines:
    """The Patience (its two timeouts) for each item of a server. `special` holds those that the configuration sets."""

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


class _Hints(msgspec.Struct):
    idempotent: bool = msgspec.field(name="idempotentHint", default=False)
    read_only: bool = msgspec.field(name="readOnlyHint", default=False)


class _Tool(msgspec.Struct):
    name: str
    annotations: _Hints = msgspec.field(default_factory=_Hints)


def may_repeat(
    exc: BackendError, method: str, params: dict[str, Payload], *, retry: RetrySetting, listing: Listing | None
) -> bool:
    """Whether a request that failed with `exc` may be sent again; `params` have native names."""
    if retry == "never":
        return False
    if exc.is_unsent:
        return True
    if exc.next_try is not None and exc.next_try > PAUSE:  # a `Retry-After`
        return False
    unanswered = isinstance(exc, BackendLost) or (isinstance(exc, BackendUnavailable) and exc.status in _GATEWAY)
    if not unanswered:
        return False
    if method in READS:
        return True
    return retry == "idempotent" and method == "tools/call" and _is_idempotent(listing, params.get("name"))


def _is_idempotent(listing: Listing | None, name: Payload | None) -> bool:
    if listing is None or name is None:
        return False
    wanted = msgspec.json.decode(name)
    return any(
        tool.name == wanted and (tool.annotations.idempotent or tool.annotations.read_only)
        for raw in listing.tools
        if (tool := _tool(raw)) is not None
    )


def _tool(raw: bytes) -> _Tool | None:
    try:
        return msgspec.json.decode(raw, type=_Tool)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
