"""What the HTTP front answers besides MCP: probes, health, and where to go instead. Knows no MCP message.

It sits behind the front's guards; the paths of the probes are the only ones open to those without a token.
"""

from collections.abc import Callable, Mapping, Sequence

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

Status = Callable[[], Mapping[str, object]]
_READY = "ready"


def site(
    base_path: str, *, health: Status, servers: Status, ready: Status, more: Sequence[BaseRoute] = ()
) -> Starlette:
    """The site below a base path.

    Args:
        health: how the manifold is, as a whole.
        servers: how every backend is.
        ready: whether requests can be served; its member `ready` decides between 200 and 503.
        more: further routes, metrics for instance; their paths include the base path.
    """
    base = base_path.rstrip("/")

    async def alive(_: Request) -> Response:
        return _json({"status": "ok"})

    async def readiness(_: Request) -> Response:
        state = ready()
        return _json(state, status=200 if state.get(_READY) else 503)

    async def overall(_: Request) -> Response:
        return _json(health())

    async def each(_: Request) -> Response:
        return _json(servers())

    async def nowhere(_: Request, __: Exception) -> Response:
        return _json({"error": "Not found", "endpoints": [base + path for path in _ENDPOINTS]}, status=404)

    async def not_so(_: Request, __: Exception) -> Response:
        return _json({"error": "Method not allowed"}, status=405, headers={"allow": "GET, HEAD"})

    routes = [
        Route(f"{base}/_healthz", alive),
        Route(f"{base}/_readyz", readiness),
        Route(f"{base}/health", overall),
        Route(f"{base}/health/servers", each),
        *more,
    ]
    app = Starlette(routes=routes, exception_handlers={404: nowhere, 405: not_so})
    app.router.redirect_slashes = False  # a path is what it is; the guards decided on it as it came
    return app


_ENDPOINTS = ("/mcp", "/sse", "/{server}/mcp", "/{server}/sse", "/groups/{group}/mcp", "/groups/{group}/sse", "/health")


def _json(value: Mapping[str, object], *, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(msgspec.json.encode(value), status, headers, media_type="application/json")
