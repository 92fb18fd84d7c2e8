"""Which fronts serve a Manifold, and how they stop: the mounted application, HTTP on a socket, one client on stdio."""

import socket
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from mcp_manifold.app.holder import RuntimeHolder
from mcp_manifold.app.lazy_sdk import check_param_headers
from mcp_manifold.app.listening import bound, require_safe
from mcp_manifold.clock import LoopClock
from mcp_manifold.config import ManifoldSettings

if TYPE_CHECKING:
    from mcp_manifold.app.http_server import HttpServer
    from mcp_manifold.fronts.http.asgi import AsgiReceive, AsgiSend, Scope
    from mcp_manifold.fronts.http.front import HttpFront
    from mcp_manifold.fronts.http.metrics import Exposition, LoopLag
    from mcp_manifold.fronts.stdio import StdioFront


class MountedApp:
    """The ASGI application to mount in another one. While the Manifold is not entered, it is alive but not ready."""

    def __init__(self, holder: RuntimeHolder, front: Callable[[], "HttpFront"]) -> None:
        self._holder = holder
        self._front = front

    def __repr__(self) -> str:
        return "<MountedApp>"

    def front(self) -> "HttpFront":
        """The front that serves the requests. Raises RuntimeError while the Manifold is not entered."""
        return self._front()

    async def __call__(self, scope: "Scope", receive: "AsgiReceive", send: "AsgiSend") -> None:
        """Serve one request."""
        if self._holder.is_entered:
            await self._front()(scope, receive, send)
            return
        from mcp_manifold.fronts.http.pages import closed_site  # noqa: PLC0415 - starlette takes long to import

        await closed_site(self._holder.settings.base_path)(scope, receive, send)


class Serving:
    """The fronts of one Manifold. Makes them on first use, because HTTP and its libraries take long to import."""

    def __init__(self, holder: RuntimeHolder, health: Callable[[], dict[str, object]]) -> None:
        self._holder = holder
        self._health = health
        self._mounted = MountedApp(holder, self.front)
        self._front: HttpFront | None = None
        self._lag: LoopLag | None = None
        self._current: HttpServer | StdioFront | None = None
        self._is_listening = False
        self._sockets: tuple[socket.socket, ...] = ()
        self._is_stopping = False

    def __repr__(self) -> str:
        return f"<Serving {self._current or self._front or 'nothing'}>"

    def asgi_app(self) -> MountedApp:
        """The ASGI application with all endpoints; always the same one."""
        return self._mounted

    def front(self) -> "HttpFront":
        """The HTTP front with its pages, made on first use.

        Raises:
            RuntimeError: the Manifold is not entered.
        """
        if self._front is None:
            from mcp_manifold.fronts.http.front import HttpFront  # noqa: PLC0415 - stdio needs no HTTP
            from mcp_manifold.fronts.http.pages import site  # noqa: PLC0415 - as above

            holder, settings = self._holder, self._holder.settings
            runtime = holder.runtime
            pages = site(
                settings.base_path,
                health=self._health,
                servers=holder.servers_health,
                ready=self.readiness,
                more=[self._exposition().route(settings.base_path)] if settings.metrics else [],
            )
            self._front = HttpFront(runtime, pages, check_params=check_param_headers)
            if self._lag is not None:
                self._lag.begin(LoopClock())
        return self._front

    def _exposition(self) -> "Exposition":
        from mcp_manifold.fronts.http.metrics import Exposition, LoopLag, Sources  # noqa: PLC0415 - as above

        lag = self._lag = LoopLag()
        sources = Sources(
            counts=self._holder.counts,
            lag=lag,
            servers=self._holder.servers,
            tally=lambda: None if self._front is None else self._front.tally,
            budget=self._holder.budget,
            parked=self._holder.parked,
        )
        return Exposition(sources)

    def listen(self) -> None:
        """Open the sockets that `http` serves later. Clients that connect before then wait.

        Raises:
            ConfigError: the address is unsafe or unavailable.
        """
        require_safe(self._holder.settings)
        self._sockets = bound(self._holder.settings)

    def _close_sockets(self) -> None:
        sockets, self._sockets = self._sockets, ()
        for each in sockets:
            each.close()

    async def http(self, ready: Callable[[str, int], None]) -> None:
        """Serve on a socket until `stop` is called; `ready` gets the host and port.

        Raises:
            ConfigError: the address is unsafe or unavailable.
        """
        from mcp_manifold.app.http_server import HttpServer  # noqa: PLC0415 - imports uvicorn

        self._is_listening = True
        if not self._sockets:
            self.listen()
        server = HttpServer(self.front(), self._sockets, ready, current=lambda: self._holder.settings)
        try:
            await self._serve(server, server.run())
        finally:
            self._close_sockets()

    async def stdio(self, scope: str) -> None:
        """Serve one client on stdin and stdout until it leaves, or until `stop` is called."""
        from mcp_manifold.fronts.stdio import StdioFront  # noqa: PLC0415 - HTTP needs no stdio

        front = StdioFront(self._holder.runtime, scope=scope)
        await self._serve(front, front.serve())

    async def _serve(self, front: "HttpServer | StdioFront", serving: Coroutine[Any, Any, None]) -> None:
        self._current = front
        try:
            if self._is_stopping:
                serving.close()
            else:
                await serving
        finally:
            self._current = None

    def close(self) -> None:
        """End all sessions and streams, before the Manifold is left."""
        self._close_sockets()
        if self._front is not None:
            self._front.close()
            self._front = None
        if self._lag is not None:
            self._lag.end()

    def stop(self) -> None:
        """Stop serving: requests in flight get `drain` seconds to finish, new ones are refused.

        The second call, or one while nothing is served, ends everything at once, server processes included.
        """
        if self._holder.is_entered and (self._is_stopping or self._current is None):
            self._holder.runtime.groups.kill_all()
        self._is_stopping = True
        if self._current is not None:
            self._current.stop()

    def readiness(self) -> dict[str, object]:
        """The body of `/_readyz`."""
        is_closed = self._front is not None and self._front.is_closed
        return {"ready": not is_closed and self._holder.is_ready()}

    def require_applicable(self, settings: ManifoldSettings) -> None:
        """Refuse settings that would make a listening endpoint unsafe; raises ConfigError."""
        if self._is_listening:
            require_safe(settings)

    def adopt_settings(self) -> None:
        """Let the HTTP front take over changed settings."""
        if self._front is not None:
            self._front.reload()
