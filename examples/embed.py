"""Use many MCP servers from a Python program, through one object: shows the embedded Manifold, serves nobody.

From the root of a checkout:

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
    """Open the servers of the configuration, use what they offer, and close them again."""
    async with Manifold.from_config(config) as manifold:
        tools = await manifold.list_tools()
        show("tools", [tool["name"] for tool in tools])

        result = await manifold.call_tool("convert__convert_units", {"amount": "26.2", "unit": "mile", "target": "km"})
        show("a tool's result", result["structuredContent"])
        show("a resource", await manifold.read_resource("units://all"))
        show("a prompt", await manifold.get_prompt("notes__summarise_notes", {"style": "bullets"}))


def main() -> None:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(description="Call tools of several MCP servers from Python.")
    parser.add_argument("--config", default="config.example.json", help="the servers to open (%(default)s)")
    asyncio.run(run(parser.parse_args().config))


if __name__ == "__main__":
    main()
