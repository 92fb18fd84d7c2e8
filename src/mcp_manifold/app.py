"""Composition root: settings in; fleet, hub, stages, router and fronts, put together, out. The embeddable `Manifold`.

The only place that knows all parts. Nothing here decides about a message.
"""

import asyncio
import importlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version as version_of
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

import anyio
import anyio.to_thread
import msgspec

from mcp_manifold import wire
from mcp_manifold.backends.backend import Surroundings
from mcp_manifold.backends.fleet import Fleet
from mcp_manifold.backends.greeting import Greeting, Identity
from mcp_manifold.backends.lifecycle import State
from mcp_manifold.backends.link import Link
from mcp_manifold.backends.question import Notice, Question
from mcp_manifold.bridge import Bridge
from mcp_manifold.call import Call, Emit, Handler, Session, Stage, compose
from mcp_manifold.catalogue import Catalogue, Kind, Listing
from mcp_manifold.config import FilterSettings, ManifoldSettings, ServerSettings, Settings, load, load_dict
from mcp_manifold.errors import ConfigError
from mcp_manifold.hub import MERGED, Hub
from mcp_manifold.loglevels import LogLevels
from mcp_manifold.notes import Notes
from mcp_manifold.offering import Offering
from mcp_manifold.policy import ANONYMOUS, Filter, Filters, Policy
from mcp_manifold.router import Router
from mcp_manifold.stages.calllog import call_log
from mcp_manifold.status import ServerStatus, described, of_backend, of_broken, of_disabled, overall
from mcp_manifold.strangers import Strangers
from mcp_manifold.tasks import Tasks
from mcp_manifold.watching import Watching
from mcp_manifold.wire import LATEST_HANDSHAKE, Era, Payload
from mcp_manifold.wire.mirror import ParameterHeaders

if TYPE_CHECKING:
    from mcp_manifold.fronts.http import HttpFront

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
        return cls(load(None if source is None else Path(source), overrides=overrides))

    async def __aenter__(self) -> Self:
        if self._parts is not None:
            raise RuntimeError("this Manifold is entered already")
        self._parts = _Parts(self.config, self._moved)
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._front is not None:
            self._front.close()
            self._front = None
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
                self.settings.base_path, health=self.health, servers=self.servers_health, ready=self.readiness
            )
            self._front = http.HttpFront(self, pages, check_params=_check_params)
        return self._front

    async def serve_http(self, *, ready: Callable[[str, int], None]) -> None:
        """Serve over HTTP until SIGINT or SIGTERM; `ready` gets the host and port once it listens.

        Raises:
            ConfigError: it may not, or cannot, listen there.
        """
        await _deferred("serving").serve(self.asgi_app(), self.settings, ready)

    async def serve_stdio(self, *, scope: str = MERGED) -> None:
        """Serve one client over stdin and stdout until it leaves."""
        await _deferred("fronts.stdio").StdioFront(self, scope=scope).serve()

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
        view, now = parts.hub.view(MERGED), asyncio.get_running_loop().time()
        found = [
            of_disabled(server) if server.disabled else of_backend(parts.fleet[server.name], view, now=now)
            for server in self.config.servers
        ]
        return found + [of_broken(server) for server in self.config.broken]

    def health(self) -> dict[str, object]:
        """The manifold as a whole, for `/health`."""
        return overall(self.status())

    def servers_health(self) -> dict[str, object]:
        """Every server, for `/health/servers`."""
        return {"servers": [described(server) for server in self.status()]}

    def readiness(self) -> dict[str, object]:
        """Whether requests can be served, for `/_readyz`: every server was tried, or the start-up time is over."""
        return {"ready": self._parts is not None and self._parts.hub.is_settled}

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

    def __init__(self, config: Settings, moved: Callable[[str], None]) -> None:
        settings = config.manifold
        info = Payload(wire.encode({"name": settings.name, "version": VERSION}))
        self.hub = Hub(config.servers, settings, policy_of(config.servers))
        self.bridge = Bridge(settings.limits, names_server=lambda scope: len(self.hub.members(scope)) > 1)
        self._moved = moved
        around = Surroundings(
            limits=settings.limits,
            identity=Identity(info, EVERYTHING),
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
        )
        self.fleet = Fleet(config.servers, around)
        offering = Offering(
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
        self.handle = compose((*STAGES, self.tasks.stage), router.route)
        self._task = asyncio.create_task(self.fleet.run(), name="fleet")

    def __repr__(self) -> str:
        return f"<_Parts {self.fleet!r}>"

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
