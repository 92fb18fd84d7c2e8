"""Composition root: settings in; fleet, hub, stages, router and fronts, put together, out. The embeddable `Manifold`.

The only place that knows all parts. Nothing here decides about a message.
"""

import asyncio
import importlib
import json
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from importlib.metadata import version as version_of
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Protocol, Self

import anyio
import anyio.to_thread
import msgspec

from mcp_manifold import wire
from mcp_manifold.backends.fleet import Fleet
from mcp_manifold.backends.greeting import Greeting, Identity
from mcp_manifold.backends.lifecycle import State
from mcp_manifold.backends.link import Link
from mcp_manifold.backends.orphans import mark
from mcp_manifold.backends.process import Groups
from mcp_manifold.backends.question import Notice, Question
from mcp_manifold.backends.shell import login_path
from mcp_manifold.backends.surroundings import Surroundings
from mcp_manifold.bridge import Bridge
from mcp_manifold.call import Call, Emit, Handler, Session, Stage, compose
from mcp_manifold.catalogue import Catalogue, Kind, Listing
from mcp_manifold.config import (
    FilterSettings,
    ManifoldSettings,
    Plan,
    Reloaded,
    ServerSettings,
    Settings,
    Stamps,
    load,
    load_dict,
    outcome,
    plan,
    stamps,
)
from mcp_manifold.config.environment import inherited, login_shell
from mcp_manifold.errors import ConfigError
from mcp_manifold.fronts.lag import LoopLag
from mcp_manifold.hub import MERGED, Hub
from mcp_manifold.loglevels import LogLevels
from mcp_manifold.notes import Notes
from mcp_manifold.offering import Offering
from mcp_manifold.policy import ANONYMOUS, Filter, Filters, Policy
from mcp_manifold.router import Router
from mcp_manifold.stages.calllog import call_log
from mcp_manifold.stages.metrics import Counts
from mcp_manifold.status import ServerStatus, described, has_all_required, overall, survey
from mcp_manifold.strangers import Strangers
from mcp_manifold.tasks import Tasks
from mcp_manifold.watching import Watching
from mcp_manifold.wire import LATEST_HANDSHAKE, Era, Payload
from mcp_manifold.wire.mirror import ParameterHeaders

if TYPE_CHECKING:
    from mcp_manifold.fronts.http import HttpFront
    from mcp_manifold.reloading import Reloading

logger = logging.getLogger(__name__)

STAGES: Final[tuple[Stage, ...]] = (call_log,)
"""What every call runs through, outside in. To follow a call, read this list and then `router`."""

EVERYTHING: Final = Payload(
    b'{"roots":{"listChanged":true},"sampling":{"context":{},"tools":{}},"elicitation":{"form":{},"url":{}},'
    b'"extensions":{"io.modelcontextprotocol/ui":{"mimeTypes":["text/html;profile=mcp-app"]}}}'
)
"""What we can relay to a client that can do it: declared on links that many share. Whether the one client whose call is
concerned can do it is decided when the server asks."""
VERSION: Final = version_of("mcp-manifold")
STOP_WAIT: Final = 12.0
"""Seconds stopping the fleet may take in all; longer than closing one backend, since all close at once."""


class Stoppable(Protocol):
    """Something that is served."""

    def stop(self) -> None:
        """End in order; called again, at once."""
        ...


class Manifold:
    """Many MCP servers as one. Construct it from settings, enter it to start the servers, leave it to stop them.

        async with Manifold.from_config("mcp.json") as manifold:
            tools = await manifold.list_tools()
            result = await manifold.call_tool("notes__search_notes", {"query": "milk"})

    It is bound to the event loop it is entered on. Results are the servers' own JSON objects, decoded.
    """

    def __init__(self, settings: Settings) -> None:
        self.config = settings
        self._parts: _Parts | None = None
        self._watchers: list[Callable[[str], None]] = []
        self._front: HttpFront | None = None
        self._counts = Counts(self._has_server)
        self._lag = LoopLag()
        self.last_reload: Reloaded | None = None
        """What came of the last reload; None before the first."""
        self._source: Callable[[], Settings] | None = None
        self._seen: Stamps = {}
        self._reloads = asyncio.Lock()
        self._reloading: Reloading | None = None
        self._reload_watchers: list[Callable[[Reloaded], None]] = []
        self._is_listening = False
        self._serving: Stoppable | None = None
        self._is_stopping = False

    def __repr__(self) -> str:
        return f"<Manifold {self.config.manifold.name} {'running' if self._parts else 'not entered'}>"

    @classmethod
    def from_config(
        cls, source: str | Path | Mapping[str, Any] | None = None, *, overrides: Mapping[str, object] | None = None
    ) -> Self:
        """Read a configuration: a file, a mapping of the same shape, or None for the file that is found by itself.

        Args:
            overrides: values for keys of the `manifold` object, stronger than everything else.

        Raises:
            ConfigError: the configuration cannot be used; the message says where and why.
        """
        if isinstance(source, Mapping):
            return cls(load_dict(_overridden(source, overrides or {})))
        settings = load(None if source is None else Path(source), overrides=overrides)
        made = cls(settings)
        made._source = partial(load, Path(settings.source), overrides=overrides)
        made._seen = stamps(settings.files)
        return made

    async def __aenter__(self) -> Self:
        if self._parts is not None:
            raise RuntimeError("this Manifold is entered already")
        self._parts = _Parts(self.config, self._moved, self._counts, await _environment(self.settings))
        if self._front is not None:
            self._lag.begin()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._front is not None:
            self._front.close()
            self._front = None
        self._lag.end()
        parts, self._parts = self._running, None
        await parts.aclose()

    @property
    def _running(self) -> "_Parts":
        if self._parts is None:
            raise RuntimeError("enter the Manifold first: async with manifold: ...")
        return self._parts

    # --- what it offers, as a library ----------------------------------------------------------------------------

    async def list_tools(self) -> list[dict[str, Any]]:
        """All visible tools under their public names."""
        return await self._list("tools/list", "tools")

    async def list_prompts(self) -> list[dict[str, Any]]:
        """All visible prompts under their public names."""
        return await self._list("prompts/list", "prompts")

    async def list_resources(self) -> list[dict[str, Any]]:
        """All visible resources."""
        return await self._list("resources/list", "resources")

    async def list_resource_templates(self) -> list[dict[str, Any]]:
        """All visible resource templates."""
        return await self._list("resources/templates/list", "resourceTemplates")

    async def call_tool(
        self,
        name: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        on_progress: Callable[[dict[str, Any]], None] | None = None,
    ) -> dict[str, Any]:
        """Call a tool; returns its result (`content`, `structuredContent`, `isError` ...) as the server sent it.

        Args:
            on_progress: gets the params of every progress notification, before the result.

        Raises:
            RequestError: there is no such tool.
            RemoteError: the server answered with a JSON-RPC error.
            BackendError: the server cannot be reached, or did not answer.
        """
        params: dict[str, object] = {"name": name, "arguments": dict(arguments or {})}
        if on_progress is None:
            return await self._ask("tools/call", params)
        params["_meta"] = {"progressToken": 0}
        return await self._ask("tools/call", params, _heard_by(on_progress))

    async def read_resource(self, uri: str) -> dict[str, Any]:
        """Read a resource; raises as `call_tool` does."""
        return await self._ask("resources/read", {"uri": uri})

    async def get_prompt(self, name: str, arguments: Mapping[str, str] | None = None) -> dict[str, Any]:
        """Get a prompt; raises as `call_tool` does."""
        return await self._ask("prompts/get", {"name": name, "arguments": dict(arguments or {})})

    async def _list(self, method: str, member: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = (await self._ask(method, {}))[member]
        return found

    async def _ask(self, method: str, params: Mapping[str, object], emit: Emit | None = None) -> dict[str, Any]:
        raw = {key: Payload(wire.encode(value)) for key, value in params.items()}
        session = Session("", ANONYMOUS, MERGED, LATEST_HANDSHAKE)
        return _decoded(await self.handle(Call(method, raw, session, emit or _unheard)))

    # --- what it serves ------------------------------------------------------------------------------------------

    def asgi_app(self) -> "HttpFront":
        """The ASGI application with all endpoints, to mount in another one. The Manifold must be entered to serve."""
        if self._front is None:
            http, site = _deferred("fronts.http"), _deferred("fronts.site")
            pages = site.site(
                self.settings.base_path,
                health=self.health,
                servers=self.servers_health,
                ready=self.readiness,
                more=[self._metrics()] if self.settings.metrics else [],
            )
            self._front = http.HttpFront(self, pages, check_params=_check_params)
        if self._parts is not None:
            self._lag.begin()
        return self._front

    def _metrics(self) -> Any:
        """The route that shows the metrics."""
        metrics = _deferred("fronts.metrics")
        sources = metrics.Sources(
            counts=self._counts,
            lag=self._lag,
            servers=lambda: [] if self._parts is None else self.status(),
            tally=lambda: None if self._front is None else self._front.tally,
            parked=lambda: 0 if self._parts is None else self._parts.bridge.parked,
        )
        return metrics.Exposition(sources).route(self.settings.base_path)

    def _has_server(self, name: str) -> bool:
        return self._parts is not None and name in self._parts.fleet

    async def serve_http(self, *, ready: Callable[[str, int], None]) -> None:
        """Serve over HTTP until `stop` is called; `ready` gets the host and port once it listens.

        Raises:
            ConfigError: it may not, or cannot, listen there.
        """
        self._is_listening = True
        async with self._up_to_date():
            served = _deferred("serving").HttpServer
            server = self._serving = served(self.asgi_app(), self.settings, ready, drain=lambda: self.settings.drain)
            await self._served(server.run())

    async def serve_stdio(self, *, scope: str = MERGED) -> None:
        """Serve one client over stdin and stdout until it leaves, or `stop` is called."""
        async with self._up_to_date():
            front = self._serving = _deferred("fronts.stdio").StdioFront(self, scope=scope)
            await self._served(front.serve())

    def stop(self) -> None:
        """Stop serving in order: requests in flight get `drain` to finish, others are refused.

        Called again, or when nothing is served: end what goes on at once, the servers' processes included.
        """
        if self._parts is not None and (self._is_stopping or self._serving is None):
            self._parts.groups.kill()
        self._is_stopping = True
        if self._serving is not None:
            self._serving.stop()

    async def _served(self, serving: Coroutine[Any, Any, None]) -> None:
        try:
            if self._is_stopping:
                serving.close()
            else:
                await serving
        finally:
            self._serving = None

    # --- other settings -----------------------------------------------------------------------------------------------

    async def read(self) -> Settings:
        """The configuration as it is written now.

        Raises:
            ConfigError: it cannot be used, or did not come from a file.
        """
        if self._source is None:
            raise ConfigError("the configuration did not come from a file, so there is none to read again")
        return await anyio.to_thread.run_sync(self._source)

    async def reload(self, settings: Settings | None = None) -> Reloaded:
        """Go by other settings from now on: these, or those of the file as it is now.

        All of it or nothing. A server whose connection is set up as before keeps it, with the calls in flight; others
        are stopped, when their calls are over or `drain` is, and started. Clients are told what changed for them.

        Raises:
            ConfigError: they cannot be used; the old ones stay.
        """
        async with self._reloads:
            try:
                reloaded = self._go_by(await self.read() if settings is None else settings)
            except ConfigError as exc:
                self._note(Reloaded(error=str(exc)))
                raise
            self._note(reloaded)
            return reloaded

    def _note(self, reloaded: Reloaded) -> None:
        before, self.last_reload = self.last_reload, reloaded
        if reloaded.error:  # said once, however often somebody asks for what cannot be
            is_news = before is None or before.error != reloaded.error
            logger.log(logging.WARNING if is_news else logging.DEBUG, "%s", reloaded)
        else:
            logger.info("%s", reloaded)
        for problem in reloaded.problems:
            logger.warning("%s", problem)
        for watcher in self._reload_watchers:  # by the loop, as those of `on_status`
            asyncio.get_running_loop().call_soon(watcher, reloaded)

    def reload_soon(self, told: Callable[[Reloaded], None]) -> None:
        """Have what is served go by the file as it is now; `told` gets what came of it."""
        if self._reloading is None:
            told(Reloaded(error="nothing is served that could be reloaded"))
        else:
            self._reloading.ask(told)

    def on_reload(self, callback: Callable[[Reloaded], None]) -> None:
        """Call `callback` after each reload, well or not."""
        self._reload_watchers.append(callback)

    def _go_by(self, settings: Settings) -> Reloaded:
        """Swap, without anybody being served in between."""
        old, what = self.config, plan(self.config, settings)
        if self._is_listening:
            _deferred("serving").require_safe(what.settings.manifold)
        self._running.apply(what)
        self.config = what.settings
        if self._front is not None:
            self._front.reload()
        for name in (*what.added, *what.removed, *what.changed):
            self._moved(name)
        return outcome(what, old)

    @asynccontextmanager
    async def _up_to_date(self) -> AsyncIterator[None]:
        """Follow the file, if there is one, while something is served."""
        if self._source is None:
            yield
            return
        self._reloading = _deferred("reloading").Reloading(self, self._seen)
        self._reloading.start()
        try:
            yield
        finally:
            await self._reloading.stop()
            self._reloading = None

    # --- how it is -------------------------------------------------------------------------------------------------

    async def settle(self) -> None:
        """Wait until the first attempt at every server is over, up to the start-up timeout."""
        await self._running.hub.settle(MERGED)

    def on_status(self, callback: Callable[[str], None]) -> None:
        """Call `callback` with a server's name each time its state moved."""
        self._watchers.append(callback)

    def status(self) -> list[ServerStatus]:
        """Every configured server, in configuration order, disabled and broken ones included."""
        parts = self._running
        now = asyncio.get_running_loop().time()
        return survey(self.config, parts.fleet, parts.hub.view(MERGED), now=now)

    def health(self) -> dict[str, object]:
        """The manifold as a whole, for `/health`."""
        return overall(self.status())

    def servers_health(self) -> dict[str, object]:
        """Every server, for `/health/servers`."""
        return {"servers": [described(server) for server in self.status()]}

    def readiness(self) -> dict[str, object]:
        """Whether requests can be served, for `/_readyz`.

        They can once every server was tried, or the start-up time is over, as long as every required server can be
        called and nobody is shutting down.
        """
        is_open = self._parts is not None and not (self._front is not None and self._front.is_closed)
        return {"ready": is_open and self._running.hub.is_settled and has_all_required(self.config, self.status())}

    def problems(self) -> tuple[str, ...]:
        """Sentences on what a user should know: collisions, shortened names, patterns that match nothing."""
        view = self._running.hub.view(MERGED)
        return view.whole.problems + unmatched_patterns(self.config.servers, view.whole)

    def _moved(self, name: str) -> None:
        for watcher in self._watchers:  # by the loop, so that a callback that fails does not end the backend
            asyncio.get_running_loop().call_soon(watcher, name)

    # --- the Desk of fronts/desk.py ------------------------------------------------------------------------------

    @property
    def settings(self) -> ManifoldSettings:
        """The settings of the endpoint itself."""
        return self.config.manifold

    @property
    def handle(self) -> Handler:
        """Answers a call."""
        return self._running.handle

    def has_scope(self, scope: str) -> bool:
        """Whether there is such an endpoint."""
        return self._running.hub.has_scope(scope)

    def notified(self, session: Session, method: str, params: dict[str, Payload]) -> None:
        """A client's notification that is not its front's own business."""
        if self._parts is not None:
            self._parts.notes.told(session, method, params)

    def ended(self, session: Session) -> None:
        """A client's session is over."""
        if self._parts is not None and session.key:
            self._parts.watching.ended(session)
            self._parts.levels.ended(session)
            self._parts.fleet.release(session.key)

    def watch(self, scope: str, changed: Callable[[Sequence[str]], None]) -> Callable[[], None]:
        """Announce real differences of a scope's catalogue."""
        return self._running.hub.watch(scope, changed)

    def input_schema(self, scope: str, tool: str) -> bytes | None:
        """The inputSchema of a tool whose arguments are mirrored into headers; None for all others."""
        entry = self._running.hub.view(scope).catalogue.find(Kind.TOOL, tool)
        if entry is None or not entry.input_schema_has_headers:
            return None
        return bytes(wire.client_meta(Payload(entry.raw)).get("inputSchema", wire.EMPTY))


class _Parts:
    """Everything that exists only while a Manifold is entered. Owns the fleet's task."""

    def __init__(
        self, config: Settings, moved: Callable[[str], None], counts: Counts, environment: Mapping[str, str]
    ) -> None:
        settings = config.manifold
        self.groups = Groups()
        self._environment = environment
        counted: tuple[Stage, ...] = (counts.stage,) if settings.metrics else ()
        info = self._info = Payload(wire.encode({"name": settings.name, "version": VERSION}))
        self.hub = Hub(config.servers, settings, policy_of(config.servers))
        self.bridge = Bridge(settings.limits, names_server=lambda scope: len(self.hub.members(scope)) > 1)
        self._moved = moved
        self.fleet = Fleet(config.servers, self._around(settings))
        offering = self._offering = Offering(
            self.hub,
            server_info=info,
            instructions=settings.instructions,
            page_size=settings.limits.page_size,
        )
        self.tasks = Tasks(self.hub, self.fleet, server_info=info)
        strangers = Strangers(self.hub, self.fleet, server_info=info)
        self.notes = Notes(self.fleet, strangers, completed=self.bridge.completed)
        self.watching = Watching(self.hub, self.fleet.find, server_info=info)
        self.levels = LogLevels(self.hub, self.fleet.find)
        self._notices = {**self.watching.notices, **self.levels.notices}
        local = {**offering.methods, **self.tasks.methods, **self.watching.methods, **self.levels.methods}
        router = Router(self.hub, self.fleet, self.bridge, local=local, server_info=info, others=strangers.relay)
        self.handle = compose((*counted, *STAGES, self.tasks.stage), router.route)
        self._task = asyncio.create_task(self.fleet.run(), name="fleet")

    def __repr__(self) -> str:
        return f"<_Parts {self.fleet!r}>"

    def _around(self, settings: ManifoldSettings) -> Surroundings:
        return Surroundings(
            limits=settings.limits,
            identity=Identity(self._info, EVERYTHING),
            greet=_greet,
            parameters=_parameters,
            patience=settings.startup_timeout,
            list_timeout=settings.list_timeout,
            on_listing=self._on_listing,
            on_status=self._on_status,
            on_question=self._on_question,
            on_notice=self._on_notice,
            on_link=self._on_link,
            with_level=lambda link, level: self.levels.raised(link, level),
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
        self.fleet.apply(servers, self._around(settings), renewed=what.renewed, drain=settings.drain)
        self.hub.apply(servers, settings, policy)
        self.bridge.adapt(settings.limits)
        self._offering.adapt(instructions=settings.instructions, page_size=settings.limits.page_size)

    def _on_question(self, question: Question) -> None:
        self.tasks.asked(question, self._ask)

    def _ask(self, question: Question) -> None:
        self.notes.asked(question)
        self.bridge.asked(question)

    def _on_notice(self, notice: Notice) -> None:
        self.tasks.noticed(notice, self._tell)

    def _tell(self, notice: Notice) -> None:
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
        status = self.fleet[name].status
        if status.failures or status.state is State.STOPPED:
            self.hub.settled(name)
        self._moved(name)

    async def aclose(self) -> None:
        """Stop every backend; bounded."""
        self.watching.close()
        self._task.cancel()
        await asyncio.wait({self._task}, timeout=STOP_WAIT)
        if self._task.done() and not self._task.cancelled() and self._task.exception() is not None:
            logger.error("the fleet ended with an error", exc_info=self._task.exception())
        self.groups.close()


async def _environment(settings: ManifoldSettings) -> dict[str, str]:
    """What the processes of all servers inherit."""
    found = {**inherited(), **mark()}
    shell = login_shell()
    if settings.login_shell_path and shell:
        path = await login_path(shell, found)
        if path:
            found["PATH"] = path
    return found


def policy_of(servers: Sequence[ServerSettings]) -> Policy:
    """The filters of the configuration.

    Raises:
        ConfigError: a pattern is none; names the server.
    """
    filters: dict[str, Filters] = {}
    for server in servers:
        try:
            filters[server.name] = Filters(_filter(server.tools), _filter(server.prompts), _filter(server.resources))
        except ValueError as exc:
            raise ConfigError(f'server "{server.name}": {exc}', server=server.name) from exc
    return Policy(filters)


def _filter(settings: FilterSettings) -> Filter:
    return Filter.compile(settings.allow, settings.block)


def unmatched_patterns(servers: Sequence[ServerSettings], whole: Catalogue) -> tuple[str, ...]:
    """A sentence for each filter pattern and override that matches nothing its server offers."""
    found: list[str] = []
    for server in servers:
        if server.disabled or server.name not in whole.backends:
            continue
        own = {kind: [each for each in whole.entries(kind) if each.backend == server.name] for kind in Kind}
        groups = (
            ("tools", server.tools, own[Kind.TOOL]),
            ("prompts", server.prompts, own[Kind.PROMPT]),
            ("resources", server.resources, own[Kind.RESOURCE] + own[Kind.TEMPLATE]),
        )
        for group, settings, entries in groups:
            found += [
                f'server "{server.name}": the {group} pattern "{pattern}" matches nothing it offers'
                for pattern in _filter(settings).unmatched(entries)
            ]
            natives = {entry.native for entry in entries}
            found += [
                f'server "{server.name}": the {group} override "{name}" is of nothing it offers'
                for name in getattr(server.overrides, group)
                if name not in natives
            ]
    return tuple(found)


def _deferred(module: str) -> Any:
    """A part of this package that is imported when it is first needed, because what it stands on takes long to import
    and many runs never need it: the SDK for a front that answers from the catalogue, HTTP for one on stdio.
    """
    return importlib.import_module(f"mcp_manifold.{module}")


async def _greet(link: Link, *, eras: tuple[Era, ...], identity: Identity, timeout: float) -> Greeting:
    sdk = await anyio.to_thread.run_sync(_deferred, "backends.sdk")
    greeting: Greeting = await sdk.greet(link, eras=eras, identity=identity, timeout=timeout)
    return greeting


def _parameters(
    backend: str, tools: Sequence[bytes], *, mirrored: bool
) -> tuple[tuple[bytes, ...], ParameterHeaders | None]:
    if not any(b"x-mcp-header" in tool for tool in tools):
        return tuple(tools), None
    found: tuple[tuple[bytes, ...], ParameterHeaders | None] = _deferred("backends.sdk").parameters(
        backend, tools, mirrored=mirrored
    )
    return found


def _check_params(schema: object, arguments: Mapping[str, object], headers: Mapping[str, str]) -> Any:
    return _deferred("backends.sdk").validate_mcp_param_headers(schema, arguments, headers)


def _heard_by(on_progress: Callable[[dict[str, Any]], None]) -> Emit:
    """Notifications for a callback: called by the loop, so that one that fails does not end the link."""
    loop = asyncio.get_running_loop()

    def emit(message: bytes, /, *, needed: bool = False) -> None:
        loop.call_soon(_progressed, message, on_progress)

    return emit


def _progressed(message: bytes, on_progress: Callable[[dict[str, Any]], None]) -> None:
    decoded = _decoded(message)
    if decoded.get("method") == "notifications/progress":
        on_progress(decoded["params"])


def _decoded(message: bytes | Payload) -> dict[str, Any]:
    """A server's object as Python values, even where it is only nearly JSON."""
    try:
        found: dict[str, Any] = msgspec.json.decode(message)
    except (msgspec.DecodeError, UnicodeDecodeError):
        found = json.loads(bytes(message), strict=False)
    return found


def _overridden(source: Mapping[str, Any], overrides: Mapping[str, object]) -> Mapping[str, Any]:
    flags = {key: value for key, value in overrides.items() if value not in (None, ())}
    written = source.get("manifold", {})
    return {**source, "manifold": {**written, **flags}} if flags and isinstance(written, Mapping) else source


def _unheard(message: bytes, /, *, needed: bool = False) -> None:
    """Where a caller's notifications go when it did not ask for any."""
