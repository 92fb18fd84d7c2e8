"""The pages outside the MCP endpoints: probes, health, metrics, and a 404 page that lists the endpoints.

The front checks Host, Origin and token first. The two probes need no token and answer to any Host.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

Body = Callable[[], Mapping[str, object]]
"""Returns the JSON object of a page."""

_ENDPOINTS: Final = (
    "/mcp", "/sse", "/{server}/mcp", "/{server}/sse", "/groups/{group}/mcp", "/groups/{group}/sse", "/health"
)  # fmt: skip


def site(base_path: str, *, health: Body, servers: Body, ready: Body, more: Sequence[BaseRoute] = ()) -> Starlette:
    """The ASGI application of all pages below a base path.

    Args:
        ready: its member `ready` decides between 200 and 503.
        more: further routes, their paths including the base path.
    """
    base = base_path.rstrip("/")
    endpoints = [base + path for path in _ENDPOINTS]

    def page(path: str, body: Body) -> Route:
        async def show(_: Request) -> Response:
            found = body()
            return _json(found, 200 if found.get("ready", True) else 503)

        return Route(base + path, show)

    async def not_found(_: Request, __: Exception) -> Response:
        return _json({"error": "Not found", "endpoints": endpoints}, 404)

    async def not_allowed(_: Request, __: Exception) -> Response:
        return _json({"error": "Method not allowed"}, 405, {"allow": "GET, HEAD"})

    routes = [
        page("/_healthz", lambda: {"status": "ok"}),
        page("/_readyz", ready),
        page("/health", health),
        page("/health/servers", servers),
        *more,
    ]
    app = Starlette(routes=routes, exception_handlers={404: not_found, 405: not_allowed})
    app.router.redirect_slashes = False  # the front authorised this path, not the one a redirect leads to
    return app


def closed_site(base_path: str) -> Starlette:
    """The ASGI application while no server runs: alive, not ready, and 503 for everything else."""
    base = base_path.rstrip("/")

    async def alive(_: Request) -> Response:
        return _json({"status": "ok"})

    async def not_ready(_: Request) -> Response:
        return _json({"ready": False}, 503)

    async def closed(_: Request, __: Exception) -> Response:
        return _json({"error": "The server is not running"}, 503, {"retry-after": "1"})

    routes = [Route(base + "/_healthz", alive), Route(base + "/_readyz", not_ready)]
    app = Starlette(routes=routes, exception_handlers={404: closed, 405: closed})
    app.router.redirect_slashes = False
    return app


def _json(value: Mapping[str, object], status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(msgspec.json.encode(value), status, headers, media_type="application/json")
