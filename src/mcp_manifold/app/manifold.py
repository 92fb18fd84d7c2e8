"""Composition root: settings in; fleet, hub, stages, router and fronts, put together, out. The embeddable `Manifold`.
The only place that knows all parts. Nothing here decides about a message.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

from mcp_manifold import wire
from mcp_manifold.app.embedding import decoded, heard_by, overridden, unheard
from mcp_manifold.app.runtime import Runtime, check_params, deferred, environment_of
from mcp_manifold.app.source import Source
from mcp_manifold.config import (
    ManifoldSettings,
    Reloaded,
    Settings,
    begin_load,
    load,
    load_dict,
    plan,
    reload_outcome,
    stamps,
)
from mcp_manifold.core.hub import MERGED
from mcp_manifold.core.status import ServerStatus, described, has_all_required, overall, survey
from mcp_manifold.fronts.lag import LoopLag
from mcp_manifold.model.budget import Budget
from mcp_manifold.model.call import Call, Emit, Handler, ResultCallback, Session
from mcp_manifold.model.filtering import unmatched_patterns
from mcp_manifold.model.policy import ANONYMOUS
from mcp_manifold.stages.metrics import Counts
from mcp_manifold.wire import LATEST_HANDSHAKE, Payload, Pieces

if TYPE_CHECKING:
    from mcp_manifold.app.reloading import Reloading
    from mcp_manifold.fronts.http.front import HttpFront

logger = logging.getLogger(__name__)


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
        self._runtime: Runtime | None = None
        self._watchers: list[Callable[[str], None]] = []
        self._front: HttpFront | None = None
        self._counts = Counts(self._has_server)
        self.budget = Budget()
        self._lag = LoopLag()
        self._source = Source()
        self._reloading: Reloading | None = None
        self._is_listening = False
        self._serving: Stoppable | None = None
        self._is_stopping = False

    def __repr__(self) -> str:
        return f"<Manifold {self.config.manifold.name} {'running' if self._runtime else 'not entered'}>"

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
            return cls(load_dict(overridden(source, overrides or {})))
        settings = load(None if source is None else Path(source), overrides=overrides)
        made = cls(settings)
        file = Path(settings.source)
        made._source = Source(partial(begin_load, file, overrides=overrides), stamps(settings.files), file=file)
        return made

    async def __aenter__(self) -> Self:
        if self._runtime is not None:
            raise RuntimeError("this Manifold is entered already")
        self._runtime = Runtime(
            self.config, self._moved, self._counts, await environment_of(self.settings), self.budget
        )
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
        parts, self._runtime = self._running, None
        await parts.aclose()

    @property
    def _running(self) -> Runtime:
        if self._runtime is None:
            raise RuntimeError("enter the Manifold first: async with manifold: ...")
        return self._runtime

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
        return await self._ask("tools/call", params, heard_by(on_progress))

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
        return decoded(await self.handle(Call(method, raw, session, emit or unheard)))

    # --- what it serves ------------------------------------------------------------------------------------------

    def asgi_app(self) -> "HttpFront":
        """The ASGI application with all endpoints, to mount in another one. The Manifold must be entered to serve."""
        if self._front is None:
            http, site = deferred("fronts.http.front"), deferred("fronts.pages")
            pages = site.site(
                self.settings.base_path,
                health=self.health,
                servers=self.servers_health,
                ready=self.readiness,
                more=[self._metrics()] if self.settings.metrics else [],
            )
            self._front = http.HttpFront(self, pages, check_params=check_params)
        if self._runtime is not None:
            self._lag.begin()
        return self._front

    def _metrics(self) -> Any:
        """The route that shows the metrics."""
        metrics = deferred("fronts.metrics")
        sources = metrics.Sources(
            counts=self._counts,
            lag=self._lag,
            servers=lambda: [] if self._runtime is None else self.status(),
            tally=lambda: None if self._front is None else self._front.tally,
            budget=self.budget,
            parked=lambda: 0 if self._runtime is None else self._runtime.bridge.parked,
        )
        return metrics.Exposition(sources).route(self.settings.base_path)

    def _has_server(self, name: str) -> bool:
        return self._runtime is not None and name in self._runtime.fleet

    async def serve_http(self, *, ready: Callable[[str, int], None]) -> None:
        """Serve over HTTP until `stop` is called; `ready` gets the host and port once it listens.

        Raises:
            ConfigError: it may not, or cannot, listen there.
        """
        self._is_listening = True
        async with self._up_to_date():
            served = deferred("app.serving").HttpServer
            server = self._serving = served(self.asgi_app(), self.settings, ready, current=lambda: self.settings)
            await self._served(server.run())

    async def serve_stdio(self, *, scope: str = MERGED) -> None:
        """Serve one client over stdin and stdout until it leaves, or `stop` is called."""
        async with self._up_to_date():
            front = self._serving = deferred("fronts.stdio").StdioFront(self, scope=scope)
            await self._served(front.serve())

    def stop(self) -> None:
        """Stop serving in order: requests in flight get `drain` to finish, others are refused.

        Called again, or when nothing is served: end what goes on at once, the servers' processes included.
        """
        if self._runtime is not None and (self._is_stopping or self._serving is None):
            self._runtime.groups.kill()
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

    @property
    def last_reload(self) -> Reloaded | None:
        """What came of the last reload; None before the first."""
        return self._source.last

    async def read(self) -> Settings:
        """The configuration as it is written now; raises ConfigError."""
        return await self._source.read()

    async def reload(self, settings: Settings | None = None) -> Reloaded:
        """Go by other settings from now on: these, or those of the file as it is now.

        All of it or nothing. A server whose connection is set up as before keeps it, with the calls in flight; others
        are stopped, when their calls are over or `drain` is, and started. Clients are told what changed for them.

        Raises:
            ConfigError: they cannot be used; the old ones stay.
        """
        return await self._source.renew(self._go_by, settings)

    def reload_soon(self, told: Callable[[Reloaded], None]) -> None:
        """Have what is served go by the file as it is now; `told` gets what came of it."""
        if self._reloading is None:
            told(Reloaded(error="nothing is served that could be reloaded"))
        else:
            self._reloading.ask(told)

    def on_reload(self, callback: Callable[[Reloaded], None]) -> None:
        """Call `callback` after each reload, well or not."""
        self._source.on_reload(callback)

    def _go_by(self, settings: Settings) -> Reloaded:
        """Swap, without anybody being served in between."""
        old, what = self.config, plan(self.config, settings)
        if self._is_listening:
            deferred("app.serving").require_safe(what.settings.manifold)
        self._running.apply(what)
        self.config = what.settings
        if self._front is not None:
            self._front.reload()
        for name in (*what.added, *what.removed, *what.changed):
            self._moved(name)
        return reload_outcome(what, old)

    @asynccontextmanager
    async def _up_to_date(self) -> AsyncIterator[None]:
        """Follow the file, if there is one, while something is served."""
        if not self._source.is_file:
            yield
            return
        self._reloading = deferred("app.reloading").Reloading(self, self._source.seen)
        self._reloading.start()
        try:
            yield
        finally:
            await self._reloading.stop()
            self._reloading = None

    # --- how it is -------------------------------------------------------------------------------------------------

    async def settle(self) -> None:
        """Wait until the first attempt at every server is over, up to the start-up timeout; those at rest need none."""
        await self._running.hub.tried(MERGED)

    async def wake(self) -> None:
        """Connect to every server, those that start when they are needed included; waits as `settle` does."""
        await self._running.wake()

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
        return overall(self.status()) | self._source.health

    def servers_health(self) -> dict[str, object]:
        """Every server, for `/health/servers`."""
        return {"servers": [described(server) for server in self.status()]}

    def readiness(self) -> dict[str, object]:
        """Whether requests can be served, for `/_readyz`: once every server was tried, or the start-up time is over, as
        long as every required server can be called and nobody is shutting down.
        """
        is_open = self._runtime is not None and not (self._front is not None and self._front.is_closed)
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

    def relay(self, call: Call, told: ResultCallback) -> bool:
        """Answer a call without a task, if it needs nothing but its backend; False, with nothing done, if not."""
        return self._running.lane.relay(call, told)

    def listed(self, call: Call) -> Pieces | None:
        """Answer a list request in this turn; None, with nothing done, if it has to be waited for."""
        return self._running.lists.listed(call)

    def has_scope(self, scope: str) -> bool:
        """Whether there is such an endpoint."""
        return self._running.hub.has_scope(scope)

    def notified(self, session: Session, method: str, params: dict[str, Payload]) -> None:
        """A client's notification that is not its front's own business."""
        if self._runtime is not None:
            self._runtime.notes.told(session, method, params)

    def ended(self, session: Session) -> None:
        """A client's session is over."""
        if self._runtime is not None and session.key:
            self._runtime.watching.ended(session)
            self._runtime.levels.ended(session)
            self._runtime.bridge.ended(session)
            self._runtime.fleet.release(session.key)

    def watch(self, scope: str, changed: Callable[[Sequence[str]], None]) -> Callable[[], None]:
        """Announce real differences of a scope's catalogue."""
        return self._running.hub.watch(scope, changed)

    def input_schema(self, scope: str, tool: str) -> bytes | None:
        """The inputSchema of a tool whose arguments are mirrored into headers; None for all others."""
        entry = self._running.hub.view(scope).catalogue.find_tool(tool)
        if entry is None or not entry.input_schema_has_headers:
            return None
        return bytes(wire.client_meta(Payload(entry.raw)).get("inputSchema", wire.EMPTY))
