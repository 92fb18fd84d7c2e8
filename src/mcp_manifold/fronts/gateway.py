"""What a front needs of the rest of the program. A shape only; knows no front."""

from collections.abc import Callable, Sequence
from typing import Protocol

from mcp_manifold.config import ManifoldSettings
from mcp_manifold.model.budget import MemoryBudget
from mcp_manifold.model.call import Call, Handler, ResultCallback, Session
from mcp_manifold.wire import Payload, Pieces


class Gateway(Protocol):
    """Answers calls, says which scopes there are, and hears what clients say besides."""

    @property
    def settings(self) -> ManifoldSettings:
        """The settings in force."""
        ...

    @property
    def budget(self) -> MemoryBudget:
        """What large messages take their room from."""
        ...

    @property
    def handle(self) -> Handler:
        """Answers every request method, with the raw result in the caller's era; raises ManifoldError."""
        ...

    def relay(self, call: Call, told: ResultCallback) -> bool:
        """Answer a call without a task, if it needs nothing but its backend; False, and nothing has happened, if not.

        `told` gets the result or the failure, once, later. Raises ManifoldError when the call is refused.
        """
        ...

    def listed(self, call: Call) -> Pieces | None:
        """Answer a list request in this turn; None, and nothing has happened, if it has to be waited for or is none.

        Raises ManifoldError when the call is refused.
        """
        ...

    def has_scope(self, scope: str) -> bool:
        """Whether there is such an endpoint: `""`, `"server:<name>"`, `"group:<name>"`."""
        ...

    def notified(self, session: Session, method: str, params: dict[str, Payload]) -> None:
        """A client's notification that is not the front's own business."""
        ...

    def ended(self, session: Session) -> None:
        """The session is over: what was held for it is let go."""
        ...

    def watch(self, scope: str, changed: Callable[[Sequence[str]], None]) -> Callable[[], None]:
        """Call `changed` with list_changed methods whenever the scope's catalogue differs; returns how to stop."""
        ...

    def input_schema(self, scope: str, tool: str) -> bytes | None:
        """The inputSchema of a public tool whose arguments are mirrored into headers; None for all others."""
        ...
