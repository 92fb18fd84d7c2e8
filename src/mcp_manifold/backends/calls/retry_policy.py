"""Whether a request that failed may be sent once more. Pure.

Theory. A request whose outcome is unknown may have taken effect, so what may have done something is not done twice.
Sent once more, and never more often, is

* what certainly never reached the backend: the connection was refused, or gone before a byte was written;
* what only reads, by its method: resources, prompts (a template filled in), completions, the state of a task;
* a `tools/call` that got no answer, if the tool says it can be called twice (`idempotentHint`, `readOnlyHint`) and the
  configuration believes it.

A server that answered, too late or badly, is not asked again.
"""

from typing import Final, Literal

import msgspec

from mcp_manifold.errors import BackendError, BackendLost, BackendUnavailable
from mcp_manifold.model.catalogue import Listing
from mcp_manifold.wire import Payload

Retry = Literal["never", "safe", "idempotent"]

PAUSE: Final = 0.2
"""Seconds before it is sent again: whoever restarts is rarely back at once."""
READS: Final = frozenset({"resources/read", "prompts/get", "completion/complete", "tasks/get", "tasks/list"})
"""Methods that change nothing, by what they are."""
_GATEWAY: Final = frozenset({0, 502, 503, 504})
"""No HTTP status at all, and those that say that nobody behind it answered."""


class _Hints(msgspec.Struct):
    idempotent: bool = msgspec.field(name="idempotentHint", default=False)
    read_only: bool = msgspec.field(name="readOnlyHint", default=False)


class _Tool(msgspec.Struct):
    name: str
    annotations: _Hints = msgspec.field(default_factory=_Hints)


def may_repeat(
    exc: BackendError, method: str, params: dict[str, Payload], *, retry: Retry, listing: Listing | None
) -> bool:
    """Whether a request that failed so may be sent again; `params` with the backend's own names."""
    if retry == "never":
        return False
    if exc.is_unsent:
        return True
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
