"""A FastMCP proxy for the servers of a configuration file. It runs in its own environment.

--shape config   as in FastMCP's documentation: `create_proxy(config)`
--shape mounted  one mounted proxy per server, each with one connected client that all requests share: the cheapest
                 arrangement of FastMCP
"""

import argparse
import asyncio
import contextlib
import json
from pathlib import Path
from typing import Any

from fastmcp import Client, FastMCP
from fastmcp.server import create_proxy


async def _run(server: Any, given: argparse.Namespace) -> None:
    if given.transport == "stdio":
        await server.run_async("stdio", show_banner=False)
        return
    uvicorn = {"loop": "uvloop", "http": "httptools", "access_log": False}
    where = {"host": "127.0.0.1", "port": given.port, "uvicorn_config": uvicorn}
    await server.run_async("http", show_banner=False, log_level="error", **where)


async def main(given: argparse.Namespace) -> None:
    config = json.loads(given.config.read_text())
    if given.shape == "config":
        await _run(create_proxy(config, name="bench"), given)
        return
    root = FastMCP("bench")
    async with contextlib.AsyncExitStack() as stack:
        for name, entry in config["mcpServers"].items():
            client = await stack.enter_async_context(Client({"mcpServers": {name: entry}}, mode="legacy"))
            root.mount(create_proxy(client), namespace=name)
        await _run(root, given)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--transport", choices=["http", "stdio"], default="http")
    parser.add_argument("--shape", choices=["config", "mounted"], default="config")
    asyncio.run(main(parser.parse_args()))
