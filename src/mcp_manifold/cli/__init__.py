"""The command line. Imports nothing heavy before a command needs it."""

from mcp_manifold.cli.root import cli, main

__all__ = ["cli", "main"]
