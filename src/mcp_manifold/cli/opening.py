"""How a command comes by settings and by a Manifold. The one door to everything heavy: nothing is imported before."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

from mcp_manifold.cli import logs

if TYPE_CHECKING:
    from mcp_manifold.config import Reloaded, Settings
    from mcp_manifold.config.state_directory import Announced, Instance
    from mcp_manifold.core.status import ServerStatus


class Endpoint(Protocol):
    """What the commands need of a Manifold."""

    @property
    def config(self) -> "Settings":
        """All that is configured."""
        ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None: ...

    async def settle(self) -> None:
        """Wait until every server was tried, up to the start-up timeout."""
        ...

    async def wake(self) -> None:
        """Connect to every server, and wait as `settle` does."""
        ...

    def on_status(self, callback: Callable[[str], None]) -> None:
        """Call back with a server's name each time its state moved."""
        ...

    def watch(self, scope: str, changed: Callable[..., None]) -> Callable[[], None]:
        """Call back each time the catalogue of a scope changed; the result ends that."""
        ...

    def status(self) -> "list[ServerStatus]":
        """Every configured server."""
        ...

    def problems(self) -> tuple[str, ...]:
        """Sentences on what a user should know."""
        ...

    async def list_tools(self) -> list[dict[str, Any]]:
        """All tools."""
        ...

    async def list_prompts(self) -> list[dict[str, Any]]:
        """All prompts."""
        ...

    async def list_resources(self) -> list[dict[str, Any]]:
        """All resources."""
        ...

    async def list_resource_templates(self) -> list[dict[str, Any]]:
        """All resource templates."""
        ...

    async def call_tool(
        self,
        name: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        on_progress: Callable[[dict[str, Any]], None] | None = None,
    ) -> dict[str, Any]:
        """A tool's result."""
        ...

    async def read_resource(self, uri: str) -> dict[str, Any]:
        """A resource's contents."""
        ...

    async def get_prompt(self, name: str, arguments: Mapping[str, str] | None = None) -> dict[str, Any]:
        """A prompt's messages."""
        ...

    def reload_soon(self, told: "Callable[[Reloaded], None]") -> None:
        """Have what is served go by the configuration as it is written now; `told` gets what came of it."""
        ...

    def on_reload(self, callback: "Callable[[Reloaded], None]") -> None:
        """Call back after each reload."""
        ...

    async def serve_http(self, *, ready: Callable[[str, int], None]) -> None:
        """Serve until a signal."""
        ...

    async def serve_stdio(self, *, scope: str = "") -> None:
        """Serve until stdin ends."""
        ...

    def stop(self) -> None:
        """Stop serving in order; called again, at once."""
        ...


def _manifold(source: Path | None, overrides: Mapping[str, object]) -> Endpoint:
    from mcp_manifold.app.manifold import Manifold  # noqa: PLC0415 - costs a second, which --help must not wait for

    return Manifold.from_config(source, overrides=overrides)


def _settings(source: Path | None, overrides: Mapping[str, object]) -> "Settings":
    from mcp_manifold import config  # noqa: PLC0415 - costs a quarter of a second, which --help must not wait for

    return config.load(source, overrides=overrides)


def _find() -> Path | None:
    from mcp_manifold import config  # noqa: PLC0415 - as above

    return config.find()


def _schema() -> dict[str, Any]:
    from mcp_manifold import config  # noqa: PLC0415 - as above

    return config.json_schema()


def _announced(source: Path) -> "Announced":
    from mcp_manifold.config import state_directory  # noqa: PLC0415 - as above

    return state_directory.Announced(source, state_directory.notes_directory())


def _running(source: Path) -> "tuple[Instance, ...]":
    from mcp_manifold.config import state_directory  # noqa: PLC0415 - as above

    return state_directory.running(source, state_directory.notes_directory())


@dataclass(frozen=True, slots=True)
class Opening:
    """Where everything a command works on comes from; a test hands in its own through click's context."""

    manifold: Callable[[Path | None, Mapping[str, object]], Endpoint] = _manifold
    settings: Callable[[Path | None, Mapping[str, object]], "Settings"] = _settings
    find: Callable[[], Path | None] = _find
    schema: Callable[[], dict[str, Any]] = _schema
    announced: "Callable[[Path], Announced]" = _announced
    running: "Callable[[Path], tuple[Instance, ...]]" = _running


@dataclass(frozen=True, slots=True)
class Invocation:
    """One run of a command: the options all commands have, and the way to what they are about."""

    opening: Opening = field(default_factory=Opening)
    source: Path | None = None
    log_level: str = ""
    log_format: str = ""

    def manifold(self, overrides: Mapping[str, object] | None = None) -> Endpoint:
        """The Manifold of the configuration, not yet entered.

        Raises:
            ConfigError: the configuration cannot be used.
        """
        self._log("warning", "text")
        return self.opening.manifold(self.source, overrides or {})

    def settings(self) -> "Settings":
        """The configuration, nothing started.

        Raises:
            ConfigError: it cannot be used.
        """
        self._log("warning", "text")
        return self.opening.settings(self.source, {})

    def log_as_configured(self, settings: "Settings", *, default: str = "") -> None:
        """Log as the configuration says, where no option says otherwise; at `default` where nobody says anything."""
        said = not default or "log_level" in settings.manifold.model_fields_set
        self._log(settings.manifold.log_level if said else default, settings.manifold.log_format)

    def log_at(self, level: str) -> None:
        """Log at `level`, where no option says otherwise."""
        self._log(level, "text")

    def _log(self, level: str, format: str) -> None:
        logs.configure(self.log_level or level, self.log_format or format)
