"""What every backend is given alike: limits, who we say we are, and whom it reports to. Values and callbacks only."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from mcp_manifold.backends.link.link import Link
from mcp_manifold.backends.link.negotiation import Greet, Identity, Parameters
from mcp_manifold.backends.link.server_requests import ServerNotification, ServerRequest
from mcp_manifold.backends.lists.listing_cache import ListingCache
from mcp_manifold.backends.process.process import Groups
from mcp_manifold.config import LimitSettings
from mcp_manifold.model.budget import MemoryBudget
from mcp_manifold.model.catalogue import Listing


@dataclass(frozen=True, slots=True)
class BackendContext:
    """What every backend is given alike."""

    limits: LimitSettings
    identity: Identity
    greet: Greet
    parameters: Parameters
    patience: float
    """Seconds a call waits for a backend that is just connecting."""
    list_timeout: float
    """Seconds fetching all its lists may take, where it has no setting of its own."""
    start: Literal["eager", "lazy"]
    """When a backend is connected to that does not say so itself: at once, or when a call needs it."""
    idle_timeout: float
    """Seconds after which one that nobody uses is closed, if it does not say so itself; 0 for never."""
    is_needed: Callable[[str], bool]
    """Whether a backend is used though no call is in flight: a resource is watched, a task was made."""
    on_listing: Callable[[Listing], None]
    on_status: Callable[[str], None]
    on_question: Callable[[ServerRequest], None]
    on_notice: Callable[[ServerNotification], None]
    on_link: Callable[[Link], Awaitable[None]]
    """Told of every link that opened, shared or held; no call uses it before that is over."""
    memory: ListingCache | None = None
    """Where what backends offer is kept for the next time; without it nothing is."""
    budget: MemoryBudget = field(default_factory=MemoryBudget)
    """What large messages take their room from."""
    groups: Groups | None = None
    """Where the processes belong; without it nobody ends them if we are killed."""
    environment: Mapping[str, str] | None = None
    """What every process inherits, instead of the usual few variables."""
