"""The context that all backends share: limits, identity, clock, and callbacks. Values only."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from mcp_manifold.backends.link.link import Link
from mcp_manifold.backends.link.negotiation import Greet, Identity, Parameters
from mcp_manifold.backends.link.server_requests import ServerNotification, ServerRequest
from mcp_manifold.backends.lists.listing_cache import ListingCache
from mcp_manifold.backends.process.groups import Groups
from mcp_manifold.clock import Clock, LoopClock
from mcp_manifold.config import LimitSettings
from mcp_manifold.model.budget import MemoryBudget
from mcp_manifold.model.catalogue import Listing


@dataclass(frozen=True, slots=True)
class BackendContext:
    """What all backends share: limits, identity, clock and callbacks. The composition root creates it."""

    limits: LimitSettings
    identity: Identity
    greet: Greet
    parameters: Parameters
    patience: float
    """Seconds a call waits for a backend that is connecting."""
    list_timeout: float
    """Seconds fetching all lists may take; a server's own setting comes first."""
    start: Literal["eager", "lazy"]
    """When to connect: at once, or when a call needs it. A server's own setting comes first."""
    idle_timeout: float
    """Seconds after which an unused backend is closed, 0 for never. A server's own setting comes first."""
    is_needed: Callable[[str], bool]
    """Whether a backend is needed without a call in flight: a resource is watched, or a task exists."""
    on_listing: Callable[[Listing], None]
    on_status: Callable[[str], None]
    on_request: Callable[[ServerRequest], None]
    on_notification: Callable[[ServerNotification], None]
    on_link: Callable[[Link], Awaitable[None]]
    """Called with every new link, shared or not; calls use the link only after it returns."""
    list_interval: float = 0.0
    """Seconds after which lists without reliable notifications of changes are fetched again; 0 for never."""
    memory: ListingCache | None = None
    """Listings of earlier runs; None to keep none."""
    budget: MemoryBudget = field(default_factory=MemoryBudget)
    """Room for large messages."""
    groups: Groups | None = None
    """Process groups of stdio servers; without it they outlive a kill of this process."""
    environment: Mapping[str, str] | None = None
    """Environment of every process, in place of the allow-list."""
    clock: Clock = field(default_factory=LoopClock)
    """Time of everything that waits here."""
