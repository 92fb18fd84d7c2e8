"""Everything that exists while a Manifold is entered: creates the parts, connects them, stops them. A Gateway."""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import version as version_of
from typing import Final

from mcp_manifold import wire
from mcp_manifold.app.lazy_sdk import LazyNegotiator, header_parameters
from mcp_manifold.backends.context import BackendContext
from mcp_manifold.backends.fleet import Fleet
from mcp_manifold.backends.link.link import Link
from mcp_manifold.backends.link.negotiation import Identity
from mcp_manifold.backends.link.server_requests import ServerNotification, ServerRequest
from mcp_manifold.backends.lists.listing_cache import ListingCache
from mcp_manifold.backends.process.command import login_path
from mcp_manifold.backends.process.groups import Groups
from mcp_manifold.backends.process.orphans import mark
from mcp_manifold.clock import Clock, LoopClock
from mcp_manifold.config import ManifoldSettings, Plan, Settings
from mcp_manifold.config.environment import inherited, login_shell, memory_given
from mcp_manifold.config.state_directory import StateDirectory, catalogue_directory
from mcp_manifold.core.bridge import Bridge
from mcp_manifold.core.dispatcher import Dispatcher
from mcp_manifold.core.hub import MERGED, Hub
from mcp_manifold.core.log_levels import LogLevels
from mcp_manifold.core.notifications import ExtensionMethods, Notifications
from mcp_manifold.core.plan import Facts
from mcp_manifold.core.results import Results
from mcp_manifold.core.scope_responder import ScopeResponder
from mcp_manifold.core.status import ServerStatus, rfc3339, survey
from mcp_manifold.core.tasks import Tasks
from mcp_manifold.core.watching import Watching
from mcp_manifold.model.budget import MemoryBudget, default_limit
from mcp_manifold.model.call import Session
from mcp_manifold.model.catalogue import Listing
from mcp_manifold.model.lifecycle import State
from mcp_manifold.model.policy import policy_of, unmatched_patterns
from mcp_manifold.stages import CallLog, Counts
from mcp_manifold.wire import Payload

logger = logging.getLogger(__name__)

CLIENT_CAPABILITIES: Final = Payload(
    b'{"roots":{"listChanged":true},"sampling":{"context":{},"tools":{}},"elicitation":{"form":{},"url":{}},'
    b'"extensions":{"io.modelcontextprotocol/ui":{"mimeTypes":["text/html;profile=mcp-app"]}}}'
)
"""Declared on links that several clients share: everything the bridge can relay. When a server sends a request, the
bridge checks whether the client concerned supports it."""
VERSION: Final = version_of("mcp-manifold")
STOP_TIMEOUT: Final = 12.0
"""Seconds to stop the whole fleet; longer than stopping one backend takes, because all stop at once."""


class Runtime:
    """The parts of one entered Manifold and the task that runs the fleet. Implements the `Gateway` of the fronts.

    Args:
        environment: variables that every server process inherits.
        budget: room for large messages; it outlives the runtime.
        counts: the metrics stage; it outlives the runtime.
        on_status: called with a server's name whenever its status changes. Must not raise.
    """

    def __init__(
        self,
        config: Settings,
        *,
        environment: Mapping[str, str],
        budget: MemoryBudget,
        counts: Counts,
        on_status: Callable[[str], None],
        clock: Clock | None = None,
    ) -> None:
        settings = config.manifold
        self.config = config
        self.budget = budget
        self.counts = counts
        self.groups = Groups()
        self._on_status = on_status
        self._clock = clock or LoopClock()
        self._environment = environment
        self._info = info = Payload(wire.encode({"name": settings.name, "version": VERSION}))
        directory = catalogue_directory(config)
        self._listing_cache = None if directory is None else ListingCache(StateDirectory(directory), self._clock)
        budget.change_limit(_buffer_limit(settings))
        self.hub = Hub(config.servers, settings, policy_of(config.servers), broken=config.broken, clock=self._clock)
        self.bridge = Bridge(
            settings.limits, names_server=lambda scope: len(self.hub.members(scope)) > 1, clock=self._clock
        )
        self.fleet = Fleet(config.servers, self._context(settings))
        self._publish_cached(self.fleet)
        self.tasks = Tasks(self.hub, self.fleet)
        self.watching = Watching(self.hub, self.fleet.find, self.tasks, server_info=info, clock=self._clock)
        self.levels = LogLevels(self.hub, self.fleet.find, clock=self._clock)
        self._wire_calls(settings)
        self._task = asyncio.create_task(self.fleet.run(), name="fleet")

    def __repr__(self) -> str:
        return f"<Runtime {self.fleet!r}>"

    # --- assembly ---------------------------------------------------------------------------------------------------

    def _wire_calls(self, settings: ManifoldSettings) -> None:
        """Connect everything that answers a call, and everything that handles server requests and notifications."""
        info = self._info
        extensions = ExtensionMethods(self.hub)
        self.notifications = Notifications(self.fleet, extensions, elicited=self.bridge.elicited)
        self._handlers = {**self.watching.notifications, **self.levels.notifications}
        self._responder = ScopeResponder(
            self.hub, server_info=info, instructions=settings.instructions, page_size=settings.limits.page_size
        )
        facts = Facts(
            self.hub,
            self.fleet,
            self._responder,
            self.tasks,
            self.bridge,
            extensions,
            local={**self.tasks.methods, **self.watching.methods, **self.levels.methods},
            raise_level=self.levels.raise_level,
        )
        self.dispatcher = Dispatcher(
            facts,
            Results(self.hub, self.bridge, self.tasks, server_info=info),
            stages=[*([self.counts] if settings.metrics else []), CallLog()],
            clock=self._clock,
            lower_level=self.levels.lower_level,
            end=self.watching.end,
        )
        self.dispatch = self.dispatcher.dispatch
        """Begins a call: the one way in for every front, and for this program's own calls."""

    def _context(self, settings: ManifoldSettings) -> BackendContext:
        return BackendContext(
            limits=settings.limits,
            identity=Identity(self._info, CLIENT_CAPABILITIES),
            greet=LazyNegotiator().greet,
            parameters=header_parameters,
            patience=settings.startup_timeout,
            list_timeout=settings.list_timeout,
            list_interval=settings.list_interval,
            start=settings.start,
            idle_timeout=settings.idle_timeout,
            is_needed=self._is_needed,
            on_listing=self._on_listing,
            on_status=self._on_backend_status,
            on_request=self._on_server_request,
            on_notification=self._on_server_notification,
            on_link=self._on_link,
            memory=self._listing_cache,
            budget=self.budget,
            groups=self.groups,
            environment={**self._environment, **{key: value.get_secret_value() for key, value in settings.env.items()}},
            clock=self._clock,
        )

    def apply(self, changes: Plan) -> None:
        """Put other settings in force. Servers whose connection settings are unchanged keep their links.

        Raises:
            ConfigError: a filter pattern is invalid; nothing has changed.
        """
        config = changes.settings
        settings = config.manifold
        policy = policy_of(config.servers)
        self.fleet.apply(config.servers, self._context(settings), renewed=changes.renewed, drain=settings.drain)
        self.hub.apply(config.servers, settings, policy, broken=config.broken)
        self._publish_cached([*changes.added, *changes.renewed])
        self.budget.change_limit(_buffer_limit(settings))
        self.bridge.adapt(settings.limits)
        self.dispatcher.adapt()
        self._responder.adapt(instructions=settings.instructions, page_size=settings.limits.page_size)
        self.config = config
        for name in (*changes.added, *changes.removed, *changes.changed):
            self._on_status(name)

    def _publish_cached(self, names: Iterable[str]) -> None:
        """Publish the cached listings of these backends."""
        for name in names:
            listing = self.fleet[name].listing
            if listing is not None:
                self.hub.adopt_cached(listing)

    async def wake(self) -> None:
        """Connect to every idle backend; returns when each was tried once."""
        for name, backend in self.fleet.items():
            if not backend.has_connected:
                self.hub.expect_attempt(name)
                backend.wake()
        await self.hub.wait_attempted(MERGED)

    async def aclose(self) -> None:
        """Stop every backend; takes at most `STOP_TIMEOUT` seconds."""
        self.watching.close()
        await self.dispatcher.aclose()
        self._task.cancel()
        await self._clock.wait(self._task, seconds=STOP_TIMEOUT)
        if self._task.done() and not self._task.cancelled() and self._task.exception() is not None:
            logger.error("the fleet failed", exc_info=self._task.exception())
        self.groups.close()

    # --- status -----------------------------------------------------------------------------------------------------

    def status(self) -> list[ServerStatus]:
        """Every configured server, in configuration order, disabled and broken ones included."""
        return survey(self.config, self.fleet, self.hub.view(MERGED), now=self._clock.now())

    def problems(self) -> tuple[str, ...]:
        """Sentences for the user: colliding names, shortened names, patterns that match nothing."""
        view = self.hub.view(MERGED)
        return view.whole.problems + unmatched_patterns(self.config.servers, view.whole)

    # --- callbacks of the backends ----------------------------------------------------------------------------------

    def _on_server_request(self, request: ServerRequest) -> None:
        self.tasks.on_request(request, self._relay)

    def _relay(self, request: ServerRequest) -> None:
        self.notifications.replace_token(request)
        self.bridge.on_request(request)

    def _on_server_notification(self, notification: ServerNotification) -> None:
        self.tasks.on_notification(notification, self._notify)

    def _notify(self, notification: ServerNotification) -> None:
        self._handlers.get(notification.method, self.notifications.from_backend)(notification)

    async def _on_link(self, link: Link) -> None:
        """Restore log levels and resource subscriptions on a link that has just opened."""
        await self.levels.opened(link)
        await self.watching.opened(link)

    def _on_listing(self, listing: Listing) -> None:
        self.hub.adopt(listing)
        self._on_status(listing.backend)

    def _on_backend_status(self, name: str) -> None:
        backend = self.fleet[name]
        status = backend.status
        if status.is_open or backend.is_resting:
            self.hub.mark_available(name)
        elif status.failures:
            away = backend.stats.away
            self.hub.mark_unavailable(name, status.last_error, "" if away is None else rfc3339(away))
        if status.failures or status.state in (State.STOPPED, State.IDLE):
            self.hub.mark_attempted(name)
        self._on_status(name)

    def _is_needed(self, name: str) -> bool:
        return self.watching.needs(name) or self.tasks.needs(name)

    # --- Gateway ----------------------------------------------------------------------------------------------------

    @property
    def settings(self) -> ManifoldSettings:
        return self.config.manifold

    def has_scope(self, scope: str) -> bool:
        return self.hub.has_scope(scope)

    def notified(self, session: Session, method: str, params: dict[str, Payload]) -> None:
        self.notifications.from_client(session, method, params)

    def ended(self, session: Session) -> None:
        if session.key:
            self.watching.ended(session)
            self.levels.ended(session)
            self.bridge.ended(session)
            self.fleet.release(session.key)

    def watch(self, scope: str, changed: Callable[[Sequence[str]], None]) -> Callable[[], None]:
        return self.hub.watch(scope, changed)

    def input_schema(self, scope: str, tool: str) -> bytes | None:
        entry = self.hub.view(scope).catalogue.find_tool(tool)
        if entry is None or not entry.input_schema_has_headers:
            return None
        return bytes(wire.object_members(Payload(entry.raw)).get("inputSchema", wire.EMPTY))


def _buffer_limit(settings: ManifoldSettings) -> int:
    """Bytes of large messages the process may hold."""
    return settings.limits.max_buffered or default_limit(memory_given())


async def process_environment(settings: ManifoldSettings) -> dict[str, str]:
    """The variables that every server process inherits."""
    found = {**inherited(), **mark()}
    shell = login_shell()
    if settings.login_shell_path and shell:
        path = await login_path(shell, found, clock=LoopClock())
        if path:
            found["PATH"] = path
    return found
