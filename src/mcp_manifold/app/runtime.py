"""Everything that exists only while a Manifold is entered: made here, wired here, stopped here. Decides no message."""

import asyncio
import importlib
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import version as version_of
from typing import Any, Final

import anyio
import anyio.to_thread

from mcp_manifold import wire
from mcp_manifold.backends.context import BackendContext
from mcp_manifold.backends.fleet import Fleet
from mcp_manifold.backends.link.link import Link
from mcp_manifold.backends.link.negotiation import Identity, Negotiation, import_lazily
from mcp_manifold.backends.link.server_requests import ServerNotification, ServerRequest
from mcp_manifold.backends.lists.listing_cache import ListingCache
from mcp_manifold.backends.process.command import login_path
from mcp_manifold.backends.process.groups import Groups
from mcp_manifold.backends.process.orphans import mark
from mcp_manifold.clock import Clock, LoopClock
from mcp_manifold.config import ManifoldSettings, Plan, Settings
from mcp_manifold.config.environment import inherited, login_shell, memory_given
from mcp_manifold.config.locations import catalogue_directory
from mcp_manifold.config.state_directory import StateDirectory
from mcp_manifold.core.bridge import Bridge
from mcp_manifold.core.extension_methods import ExtensionMethods
from mcp_manifold.core.hub import MERGED, Hub
from mcp_manifold.core.lane import Lane
from mcp_manifold.core.lists import Lists
from mcp_manifold.core.log_levels import LogLevels
from mcp_manifold.core.notifications import Notifications
from mcp_manifold.core.router import Router
from mcp_manifold.core.scope_responder import ScopeResponder
from mcp_manifold.core.status import rfc3339
from mcp_manifold.core.tasks import Tasks
from mcp_manifold.core.watching import Watching
from mcp_manifold.model.budget import Budget, most_of
from mcp_manifold.model.call import Stage, Stages
from mcp_manifold.model.catalogue import Listing
from mcp_manifold.model.filtering import policy_of
from mcp_manifold.model.lifecycle import State
from mcp_manifold.stages.call_log import CallLog
from mcp_manifold.stages.metrics import Counts
from mcp_manifold.wire import Era, Payload
from mcp_manifold.wire.param_headers import ParameterHeaders

logger = logging.getLogger(__name__)

STAGES: Final[tuple[Stage, ...]] = (CallLog(),)
"""What sees every call begin and end, outside in. To follow a call, read this list and then `router`."""

EVERYTHING: Final = Payload(
    b'{"roots":{"listChanged":true},"sampling":{"context":{},"tools":{}},"elicitation":{"form":{},"url":{}},'
    b'"extensions":{"io.modelcontextprotocol/ui":{"mimeTypes":["text/html;profile=mcp-app"]}}}'
)
"""What we can relay to a client that can do it: declared on links that many share. Whether the one client whose call is
concerned can do it is decided when the server asks."""
VERSION: Final = version_of("mcp-manifold")
STOP_WAIT: Final = 12.0
"""Seconds stopping the fleet may take in all; longer than closing one backend, since all close at once."""


class Runtime:
    """Everything that exists only while a Manifold is entered. Owns the fleet's task."""

    def __init__(
        self,
        config: Settings,
        moved: Callable[[str], None],
        counts: Counts,
        environment: Mapping[str, str],
        budget: Budget,
    ) -> None:
        settings = config.manifold
        self.groups = Groups()
        self._environment = environment
        self._budget = budget
        budget.most = _most(settings)
        counted: tuple[Stage, ...] = (counts,) if settings.metrics else ()
        info = self._info = Payload(wire.encode({"name": settings.name, "version": VERSION}))
        self.hub = Hub(config.servers, settings, policy_of(config.servers), broken=config.broken)
        self.bridge = Bridge(settings.limits, names_server=lambda scope: len(self.hub.members(scope)) > 1)
        self._moved = moved
        directory = catalogue_directory(config)
        self._memory = None if directory is None else ListingCache(StateDirectory(directory))
        self.fleet = Fleet(config.servers, self._context(settings))
        self._recall(self.fleet)
        offering = self._offering = ScopeResponder(
            self.hub,
            server_info=info,
            instructions=settings.instructions,
            page_size=settings.limits.page_size,
        )
        self.tasks = Tasks(self.hub, self.fleet, server_info=info)
        strangers = ExtensionMethods(self.hub, self.fleet, server_info=info)
        self.notes = Notifications(self.fleet, strangers, completed=self.bridge.completed)
        self.watching = Watching(self.hub, self.fleet.find, self.tasks, server_info=info)
        self.levels = LogLevels(self.hub, self.fleet.find)
        self._notices = {**self.watching.notices, **self.levels.notices}
        local = {**offering.methods, **self.tasks.methods, **self.watching.methods, **self.levels.methods}
        router = Router(self.hub, self.fleet, self.bridge, local=local, server_info=info, others=strangers.relay)
        stages = Stages((*counted, *STAGES))
        long = self.tasks.around(router.route)
        self.handle = stages.around(long)
        self.lane = Lane(router, self.tasks, stages, long)
        self.lists = Lists(offering, stages)
        self._task = asyncio.create_task(self.fleet.run(), name="fleet")

    def __repr__(self) -> str:
        return f"<Runtime {self.fleet!r}>"

    def _context(self, settings: ManifoldSettings) -> BackendContext:
        return BackendContext(
            limits=settings.limits,
            identity=Identity(self._info, EVERYTHING),
            greet=_Greeter().greet,
            parameters=_parameters,
            patience=settings.startup_timeout,
            list_timeout=settings.list_timeout,
            start=settings.start,
            idle_timeout=settings.idle_timeout,
            is_needed=self._is_needed,
            on_listing=self._on_listing,
            on_status=self._on_status,
            on_question=self._on_question,
            on_notice=self._on_notice,
            on_link=self._on_link,
            with_level=lambda link, level: self.levels.raised(link, level),
            memory=self._memory,
            budget=self._budget,
            groups=self.groups,
            environment=self._environment,
        )

    def apply(self, what: Plan) -> None:
        """Go by other settings from now on.

        Raises:
            ConfigError: a pattern is none; nothing has changed.
        """
        servers, settings = what.settings.servers, what.settings.manifold
        policy = policy_of(servers)
        self.fleet.apply(servers, self._context(settings), renewed=what.renewed, drain=settings.drain)
        self.hub.apply(servers, settings, policy, broken=what.settings.broken)
        self._recall([*what.added, *what.renewed])
        self._budget.most = _most(settings)
        self.bridge.adapt(settings.limits)
        self._offering.adapt(instructions=settings.instructions, page_size=settings.limits.page_size)

    def _recall(self, names: Iterable[str]) -> None:
        """Publish what these backends are known to have offered last time."""
        for name in names:
            listing = self.fleet[name].listing
            if listing is not None:
                self.hub.recall(listing)

    async def wake(self) -> None:
        """Connect to every backend that is at rest, and wait until each was tried."""
        for name, backend in self.fleet.items():
            if not backend.has_connected:
                self.hub.expect(name)
                backend.wake()
        await self.hub.tried(MERGED)

    def _on_question(self, question: ServerRequest) -> None:
        self.tasks.asked(question, self._ask)

    def _ask(self, question: ServerRequest) -> None:
        self.notes.asked(question)
        self.bridge.asked(question)

    def _on_notice(self, notice: ServerNotification) -> None:
        self.tasks.noticed(notice, self._tell)

    def _tell(self, notice: ServerNotification) -> None:
        """What backends tell beside lists and tasks, to whom it concerns."""
        self._notices.get(notice.method, self.notes.noticed)(notice)

    async def _on_link(self, link: Link) -> None:
        """A link opened: what its clients asked for is asked for over it."""
        await self.levels.opened(link)
        await self.watching.opened(link)

    def _on_listing(self, listing: Listing) -> None:
        self.hub.adopt(listing)
        self._moved(listing.backend)

    def _on_status(self, name: str) -> None:
        backend = self.fleet[name]
        status = backend.status
        if status.is_open or backend.is_resting:
            self.hub.returned(name)
        elif status.failures:
            away = backend.stats.away
            self.hub.missed(name, status.last_error, "" if away is None else rfc3339(away))
        if status.failures or status.state in (State.STOPPED, State.IDLE):
            self.hub.settled(name)
        self._moved(name)

    def _is_needed(self, name: str) -> bool:
        return self.watching.needs(name) or self.tasks.need(name)

    async def aclose(self) -> None:
        """Stop every backend; bounded."""
        self.watching.close()
        self.lane.close()
        self._task.cancel()
        await asyncio.wait({self._task}, timeout=STOP_WAIT)
        if self._task.done() and not self._task.cancelled() and self._task.exception() is not None:
            logger.error("the fleet ended with an error", exc_info=self._task.exception())
        self.groups.close()


def _most(settings: ManifoldSettings) -> int:
    return settings.limits.max_buffered or most_of(memory_given())


async def environment_of(settings: ManifoldSettings) -> dict[str, str]:
    """What the processes of all servers inherit."""
    found = {**inherited(), **mark()}
    shell = login_shell()
    if settings.login_shell_path and shell:
        path = await login_path(shell, found, clock=LoopClock())
        if path:
            found["PATH"] = path
    return found


def deferred(module: str) -> Any:
    """A part of this package that is imported when it is first needed, because what it stands on takes long to import
    and many runs never need it: the SDK for a front that answers from the catalogue, HTTP for one on stdio.
    """
    return importlib.import_module(f"mcp_manifold.{module}")


def _sdk() -> Any:
    """Our side of the SDK; of the SDK's own side no more is read than that needs."""
    import_lazily("mcp", "mcp.client")
    return deferred("backends.link.sdk")


class _Greeter:
    """Greets servers by the SDK, which is imported in a thread when the first one is: that one waits, not the loop."""

    def __init__(self) -> None:
        self._sdk: Any = None
        self._importing = anyio.Lock()

    def __repr__(self) -> str:
        return f"<_Greeter {'ready' if self._sdk else 'nothing imported'}>"

    async def greet(
        self, link: Link, *, eras: tuple[Era, ...], identity: Identity, timeout: float, clock: Clock
    ) -> Negotiation:
        """Negotiate with one server."""
        if self._sdk is None:
            async with self._importing:  # so that servers that start together take one thread, and not one each
                self._sdk = await anyio.to_thread.run_sync(_sdk)
        found: Negotiation = await self._sdk.greet(link, eras=eras, identity=identity, timeout=timeout, clock=clock)
        return found


def _parameters(
    backend: str, tools: Sequence[bytes], *, mirrored: bool
) -> tuple[tuple[bytes, ...], ParameterHeaders | None]:
    if not any(b"x-mcp-header" in tool for tool in tools):
        return tuple(tools), None
    found: tuple[tuple[bytes, ...], ParameterHeaders | None] = _sdk().parameters(backend, tools, mirrored=mirrored)
    return found


def check_params(schema: object, arguments: Mapping[str, object], headers: Mapping[str, str]) -> Any:
    return _sdk().validate_mcp_param_headers(schema, arguments, headers)
