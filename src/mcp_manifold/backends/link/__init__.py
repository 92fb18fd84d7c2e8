"""Links: MCP sessions to one backend, from negotiation to relayed requests of its server."""
