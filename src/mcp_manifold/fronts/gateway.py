"""The Gateway protocol: everything that a front needs of the rest of the program."""

from collections.abc import Callable, Sequence
from typing import Protocol

from mcp_manifold.config import ManifoldSettings
from mcp_manifold.core.dispatcher import InFlightCall
from mcp_manifold.model.budget import MemoryBudget
from mcp_manifold.model.call import Call, Session
from mcp_manifold.wire import Payload


class Gateway(Protocol):
    """Answers calls, knows the scopes, and receives the clients' notifications."""

    @property
    def settings(self) -> ManifoldSettings:
        """The settings in force."""

    @property
    def budget(self) -> MemoryBudget:
        """The memory that large messages share."""

    def dispatch(self, call: Call) -> InFlightCall:
        """Begin a call; its reply gets the answer, once, possibly before this returns. Raises nothing."""

    def has_scope(self, scope: str) -> bool:
        """Whether a scope of that name exists: `""`, `"server:<name>"`, `"group:<name>"`."""

    def notified(self, session: Session, method: str, params: dict[str, Payload]) -> None:
        """Handle a client's notification, unless the front handles it itself."""

    def ended(self, session: Session) -> None:
        """Release the resources of a session that ended."""

    def watch(self, scope: str, changed: Callable[[Sequence[str]], None]) -> Callable[[], None]:
        """Call `changed` with the list_changed methods whenever the scope's catalogue changes.

        Returns a function that ends the subscription.
        """

    def input_schema(self, scope: str, tool: str) -> bytes | None:
        """The inputSchema of a public tool whose arguments are mirrored into headers; None for any other tool."""
