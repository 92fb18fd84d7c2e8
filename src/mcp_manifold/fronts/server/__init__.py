"""The HTTP/1.1 server: client connections, their limits and their requests. Knows no MCP, JSON or event streams."""
