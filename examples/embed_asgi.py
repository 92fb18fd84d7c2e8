"""A Starlette application that serves the MCP endpoints of many servers beside its own pages.

Run it from the root of a checkout. The merged endpoint is http://127.0.0.1:8800/tools/mcp.

    python examples/embed_asgi.py --port 8800
"""

import argparse
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from mcp_manifold import Manifold


async def home(_request: Request) -> PlainTextResponse:
    """A page of the application itself."""
    return PlainTextResponse("An application with MCP at /tools/mcp\n")


def application(config: str) -> Starlette:
    """The application: its own routes first, then the MCP endpoints."""
    manifold = Manifold.from_config(config)

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        # Starlette sends no lifespan events to mounted applications, so the outer one opens and closes the servers.
        async with manifold:
            yield

    return Starlette(routes=[Route("/", home), Mount("/tools", app=manifold.asgi_app())], lifespan=lifespan)


def main() -> None:
    """Parse the arguments and serve."""
    parser = argparse.ArgumentParser(description="A web application that serves MCP endpoints.")
    parser.add_argument("--config", default="config.example.json", help="configuration file (%(default)s)")
    parser.add_argument("--port", type=int, default=8800, help="port on 127.0.0.1 (%(default)s)")
    arguments = parser.parse_args()
    uvicorn.run(application(arguments.config), host="127.0.0.1", port=arguments.port)


if __name__ == "__main__":
    main()
