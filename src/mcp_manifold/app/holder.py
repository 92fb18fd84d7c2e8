"""The Runtime of a Manifold while it is entered, and what outlives it: settings, memory budget, call counts."""

from collections.abc import Callable

from mcp_manifold.app.runtime import Runtime, process_environment
from mcp_manifold.clock import Clock
from mcp_manifold.config import ManifoldSettings, Plan, Settings
from mcp_manifold.core.status import ServerStatus, described, has_all_required, overall
from mcp_manifold.model.budget import MemoryBudget
from mcp_manifold.stages import Counts


class RuntimeHolder:
    """Holds the Runtime while a Manifold is entered, and what outlives it: settings, buffer budget, call counts.

    Before and after that, requests raise RuntimeError, and notifications and ends of sessions are ignored.
    """

    def __init__(self, config: Settings) -> None:
        self.config = config
        """The settings in force."""
        self.budget = MemoryBudget()
        self.counts = Counts(self._has_server)
        self._runtime: Runtime | None = None

    def __repr__(self) -> str:
        return f"<RuntimeHolder {self._runtime!r}>"

    @property
    def is_entered(self) -> bool:
        """Whether there is a runtime."""
        return self._runtime is not None

    @property
    def runtime(self) -> Runtime:
        """The runtime; RuntimeError when the Manifold is not entered."""
        if self._runtime is None:
            raise RuntimeError("enter the Manifold first: async with manifold: ...")
        return self._runtime

    async def enter(self, on_status: Callable[[str], None], clock: Clock | None = None) -> None:
        """Create the runtime; RuntimeError when there is one."""
        if self._runtime is not None:
            raise RuntimeError("this Manifold is entered already")
        environment = await process_environment(self.settings)
        self._runtime = Runtime(
            self.config,
            environment=environment,
            budget=self.budget,
            counts=self.counts,
            on_status=on_status,
            clock=clock,
        )

    async def leave(self) -> None:
        """Stop the runtime."""
        runtime, self._runtime = self.runtime, None
        await runtime.aclose()

    def apply(self, changes: Plan) -> None:
        """Put `settings` in force. On a ConfigError, nothing has changed."""
        self.runtime.apply(changes)
        self.config = changes.settings

    def servers(self) -> list[ServerStatus]:
        """The status of every server; none while there is no runtime."""
        return [] if self._runtime is None else self._runtime.status()

    def parked(self) -> int:
        """The number of calls that wait for their client's input."""
        return 0 if self._runtime is None else self._runtime.bridge.parked

    def health(self) -> dict[str, object]:
        """The body of `/health`."""
        return overall(self.runtime.status())

    def servers_health(self) -> dict[str, object]:
        """The body of `/health/servers`."""
        return {"servers": [described(server) for server in self.runtime.status()]}

    def is_ready(self) -> bool:
        """Whether every server was tried, or the start-up time is over, and every required server can be called."""
        runtime = self._runtime
        return runtime is not None and runtime.hub.is_started and has_all_required(self.config, runtime.status())

    def _has_server(self, name: str) -> bool:
        return self._runtime is not None and name in self._runtime.fleet

    @property
    def settings(self) -> ManifoldSettings:
        """The settings of the endpoint in force."""
        return self.config.manifold
