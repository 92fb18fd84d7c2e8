"""A program that calls the tools of many MCP servers through one `Manifold`, without serving clients.

Run it from the root of a checkout:

    python examples/embed.py
"""

import argparse
import asyncio
import json

from mcp_manifold import Manifold


def show(title: str, value: object) -> None:
    """Print a result under a title."""
    print(f"--- {title}")
    print(json.dumps(value, indent=2, ensure_ascii=False))


async def run(config: str) -> None:
    """Start the configured servers, use their tools, a resource and a prompt, and stop them."""
    async with Manifold.from_config(config) as manifold:
        tools = await manifold.list_tools()
        show("tools", [tool["name"] for tool in tools])

        result = await manifold.call_tool("convert__convert_units", {"amount": "26.2", "unit": "mile", "target": "km"})
        show("a tool's result", result["structuredContent"])
        show("a resource", await manifold.read_resource("units://all"))
        show("a prompt", await manifold.get_prompt("notes__summarise_notes", {"style": "bullets"}))


def main() -> None:
    """Parse the arguments and run."""
    parser = argparse.ArgumentParser(description="Call tools of several MCP servers from Python.")
    parser.add_argument("--config", default="config.example.json", help="configuration file (%(default)s)")
    asyncio.run(run(parser.parse_args().config))


if __name__ == "__main__":
    main()
