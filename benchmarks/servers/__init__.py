"""The MCP servers behind the measured proxies. They are as fast as possible, so that they do not dominate."""
