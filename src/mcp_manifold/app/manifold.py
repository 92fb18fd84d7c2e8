"""The library API: `Manifold`, many MCP servers as one object to call, to mount, or to serve."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from mcp_manifold import wire
from mcp_manifold.app.future_reply import FutureReply, decoded, progress_to
from mcp_manifold.app.holder import RuntimeHolder
from mcp_manifold.app.reload import Reloader
from mcp_manifold.app.runtime import Runtime
from mcp_manifold.app.serving import Serving
from mcp_manifold.config import (
    ManifoldSettings,
    Reloaded,
    Settings,
    begin_load,
    load,
    load_dict,
    plan_reload,
    reload_outcome,
    stamps,
)
from mcp_manifold.core.hub import MERGED
from mcp_manifold.core.status import ServerStatus
from mcp_manifold.model.call import Call, Session
from mcp_manifold.model.policy import ANONYMOUS
from mcp_manifold.wire import LATEST_HANDSHAKE, Payload

if TYPE_CHECKING:
    from mcp_manifold.app.serving import MountedApp


class Manifold:
    """Many MCP servers as one. Construct it from a configuration; enter it to start the servers, leave it to stop them.

        async with Manifold.from_config("mcp.json") as manifold:
            tools = await manifold.list_tools()
            result = await manifold.call_tool("notes__search_notes", {"query": "milk"})

    It belongs to the event loop it is entered on. Results are the servers' JSON objects, decoded. Unless it is entered,
    every method that needs the servers raises RuntimeError.
    """

    def __init__(self, settings: Settings) -> None:
        """Use `from_config` to read a configuration."""
        self._holder = RuntimeHolder(settings)
        self._reloader = Reloader(lambda: self.config, self._apply)
        self._serving = Serving(self._holder, self.health)
        self._status_callbacks: list[Callable[[str], None]] = []

    def __repr__(self) -> str:
        return f"<Manifold {self.settings.name} {'running' if self._holder.is_entered else 'not entered'}>"

    @classmethod
    def from_config(
        cls, source: str | Path | Mapping[str, Any] | None = None, *, overrides: Mapping[str, object] | None = None
    ) -> Self:
        """Read a configuration: a file, a mapping of the same shape, or None for the usual locations.

        Args:
            overrides: values for keys of the `manifold` object; they win over everything else.

        Raises:
            ConfigError: the configuration is invalid; the message gives the place and the reason.
        """
        if isinstance(source, Mapping):
            return cls(load_dict(_overridden(source, overrides or {})))
        settings = load(None if source is None else Path(source), overrides=overrides)
        manifold = cls(settings)
        manifold._reload_from(Path(settings.source), overrides)
        return manifold

    async def __aenter__(self) -> Self:
        await self._holder.enter(self._notify_status)
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._serving.close()
        await self._holder.leave()

    @property
    def config(self) -> Settings:
        """The whole configuration in force."""
        return self._holder.config

    @property
    def settings(self) -> ManifoldSettings:
        """The settings of the endpoint in force: the `manifold` object."""
        return self._holder.settings

    @property
    def runtime(self) -> Runtime:
        """The running parts, for tests and diagnosis; not a stable API."""
        return self._holder.runtime

    # --- calls ------------------------------------------------------------------------------------------------------

    async def list_tools(self) -> list[dict[str, Any]]:
        """Get all visible tools, under their public names."""
        return await self._list("tools/list", "tools")

    async def list_prompts(self) -> list[dict[str, Any]]:
        """Get all visible prompts, under their public names."""
        return await self._list("prompts/list", "prompts")

    async def list_resources(self) -> list[dict[str, Any]]:
        """Get all visible resources."""
        return await self._list("resources/list", "resources")

    async def list_resource_templates(self) -> list[dict[str, Any]]:
        """Get all visible resource templates."""
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
            BackendError: the server is unavailable, or did not answer.
        """
        params: dict[str, object] = {"name": name, "arguments": dict(arguments or {})}
        if on_progress is None:
            return await self._request("tools/call", params)
        params["_meta"] = {"progressToken": 0}
        return await self._request("tools/call", params, progress_to(on_progress))

    async def read_resource(self, uri: str) -> dict[str, Any]:
        """Read a resource; raises as `call_tool` does."""
        return await self._request("resources/read", {"uri": uri})

    async def get_prompt(self, name: str, arguments: Mapping[str, str] | None = None) -> dict[str, Any]:
        """Get a prompt; raises as `call_tool` does."""
        return await self._request("prompts/get", {"name": name, "arguments": dict(arguments or {})})

    async def _list(self, method: str, member: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = (await self._request(method, {}))[member]
        return found

    async def _request(
        self, method: str, params: Mapping[str, object], emit: Callable[..., None] | None = None
    ) -> dict[str, Any]:
        raw = {key: Payload(wire.encode(value)) for key, value in params.items()}
        session = Session("", ANONYMOUS, MERGED, LATEST_HANDSHAKE)
        reply = FutureReply(emit)
        return decoded(await reply.answer(self.runtime.dispatch, Call(method, raw, session, reply)))

    # --- serving ----------------------------------------------------------------------------------------------------

    def asgi_app(self) -> "MountedApp":
        """The ASGI application with all endpoints, to mount in another one. Enter the Manifold to serve MCP."""
        return self._serving.asgi_app()

    def listen(self) -> None:
        """Open the sockets of `serve_http` before the Manifold is entered, so that nothing starts when that fails.

        Raises:
            ConfigError: the address is unsafe or unavailable.
        """
        self._serving.listen()

    async def serve_http(self, *, ready: Callable[[str, int], None]) -> None:
        """Serve over HTTP until `stop` is called; `ready` gets the host and port once it listens.

        Raises:
            ConfigError: the address is unsafe or unavailable.
        """
        async with self._reloader.following():
            await self._serving.http(ready)

    async def serve_stdio(self, *, scope: str = MERGED) -> None:
        """Serve one client over stdin and stdout until it leaves, or `stop` is called.

        Args:
            scope: `""` for all servers, `"server:<name>"`, or `"group:<name>"`.
        """
        async with self._reloader.following():
            await self._serving.stdio(scope)

    def stop(self) -> None:
        """Stop serving: requests in flight get `drain` seconds to finish, new ones are refused.

        The second call, or one while nothing is served, ends everything at once, server processes included.
        """
        self._serving.stop()

    # --- reloading --------------------------------------------------------------------------------------------------

    @property
    def last_reload(self) -> Reloaded | None:
        """The outcome of the last reload; None before the first."""
        return self._reloader.last

    async def reload(self, settings: Settings | None = None) -> Reloaded:
        """Put other settings in force: `settings`, or what the configuration file contains now.

        All of them or none. A server whose connection settings are unchanged keeps its links and calls in flight.
        Others are stopped, after their calls or `drain` seconds, and started again. Clients hear of changed lists.

        Raises:
            ConfigError: they cannot be used; the old ones stay in force.
        """
        return await self._reloader.reload(settings)

    def reload_soon(self, on_outcome: Callable[[Reloaded], None]) -> None:
        """Reload the configuration file, and pass the outcome to `on_outcome`."""
        self._reloader.request(on_outcome)

    def on_reload(self, callback: Callable[[Reloaded], None]) -> None:
        """Call `callback` after each reload, successful or not."""
        self._reloader.on_reload(callback)

    def _reload_from(self, file: Path, overrides: Mapping[str, object] | None) -> None:
        begin_read = partial(begin_load, file, overrides=overrides)
        seen = stamps(self.config.files)
        self._reloader = Reloader(lambda: self.config, self._apply, begin_read, file=file, seen=seen)

    def _apply(self, settings: Settings) -> Reloaded:
        """Swap the settings in one turn of the event loop, so that no request sees half of them."""
        old, changes = self.config, plan_reload(self.config, settings)
        self._serving.require_applicable(changes.settings.manifold)
        self._holder.apply(changes)
        self._serving.adopt_settings()
        return reload_outcome(changes, old)

    # --- status -----------------------------------------------------------------------------------------------------

    async def settle(self) -> None:
        """Wait until the first connection to every server was tried, except idle ones; at most the start-up timeout."""
        await self.runtime.hub.wait_attempted(MERGED)

    async def wake(self) -> None:
        """Connect to every server, idle ones included; waits as `settle` does."""
        await self.runtime.wake()

    def on_status(self, callback: Callable[[str], None]) -> None:
        """Call `callback` with a server's name whenever its status changes."""
        self._status_callbacks.append(callback)

    def watch(self, scope: str, changed: Callable[[Sequence[str]], None]) -> Callable[[], None]:
        """Call `changed` with list_changed methods whenever a scope's catalogue differs; returns a function to stop."""
        return self.runtime.watch(scope, changed)

    def status(self) -> list[ServerStatus]:
        """Every configured server, in configuration order, disabled and broken ones included."""
        return self.runtime.status()

    def health(self) -> dict[str, object]:
        """The health of the endpoint in one word, as `/health` shows it."""
        return self._holder.health() | self._reloader.health

    def servers_health(self) -> dict[str, object]:
        """The health of every server, as `/health/servers` shows it."""
        return self._holder.servers_health()

    def readiness(self) -> dict[str, object]:
        """Whether requests can be served, as `/_readyz` shows it: `{"ready": bool}`.

        True once every server was tried, or the start-up time is over, while every required server can be called and
        nothing is shutting down.
        """
        return self._serving.readiness()

    def problems(self) -> tuple[str, ...]:
        """Sentences for the user: colliding names, shortened names, patterns that match nothing."""
        return self.runtime.problems()

    def _notify_status(self, name: str) -> None:
        for callback in self._status_callbacks:  # through the loop: an exception must not end the backend's task
            asyncio.get_running_loop().call_soon(callback, name)


def _overridden(source: Mapping[str, Any], overrides: Mapping[str, object]) -> Mapping[str, Any]:
    flags = {key: value for key, value in overrides.items() if value not in (None, ())}
    written = source.get("manifold", {})
    return {**source, "manifold": {**written, **flags}} if flags and isinstance(written, Mapping) else source
