"""The benchmark: the cost of a call through mcp-manifold, a lower bound and other proxies. See docs/performance.md."""
