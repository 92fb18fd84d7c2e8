"""`python -m mcp_manifold`: the same as the command `mcp-manifold`."""

from mcp_manifold.cli import main

if __name__ == "__main__":
    main()
