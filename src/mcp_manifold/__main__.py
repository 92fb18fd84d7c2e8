"""`python -m mcp_manifold`: the command line, by another door. Knows nothing else."""

from mcp_manifold.cli import main

if __name__ == "__main__":
    main()
