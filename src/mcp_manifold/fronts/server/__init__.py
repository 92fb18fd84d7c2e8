"""HTTP/1.1 from clients, from the socket to the request. Knows nothing of MCP, JSON or event streams."""
